//! crictl, whose streaming protocol is kubectl's, as somebody at a keyboard uses it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::House;

const DEADLINE: Duration = Duration::from_secs(20);

/// Where crictl is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// In a terminal (`script`), whose input stays open.
    Terminal,
    /// Between pipes; its input ends when all was typed.
    Pipes,
}

/// `crictl COMMAND`: all that it says, on both outputs. Each of `talk` is what to wait for and what is typed then.
///
/// # Errors
/// When it does not end; the message has what it said.
pub async fn crictl(house: &House, at: At, command: &str, talk: &[(&str, &str)]) -> Result<String> {
    let crictl = house.containerd.tools().crictl.display().to_string();
    let socket = house.containerd.socket().display().to_string();
    let line =
        format!("{crictl} --config /dev/null --runtime-endpoint unix://{socket} {command} 2>&1");
    let mut process = match at {
        At::Terminal => {
            let mut script = tokio::process::Command::new("script");
            script.args(["-qec", &line, "/dev/null"]);
            script
        }
        At::Pipes => {
            let mut sh = tokio::process::Command::new("sh");
            sh.args(["-c", &line]);
            sh
        }
    };
    let mut child = process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start crictl")?;
    let mut stdin = child.stdin.take();
    let mut stdout = child.stdout.take().context("it has a stdout")?;
    let mut said = Vec::new();
    let conversation = async {
        for (awaited, typed) in talk {
            while !String::from_utf8_lossy(&said).contains(awaited) {
                if stdout.read_buf(&mut said).await? == 0 {
                    break;
                }
            }
            if let Some(stdin) = &mut stdin {
                stdin.write_all(typed.as_bytes()).await?;
            }
        }
        if at == At::Pipes {
            stdin = None;
        }
        stdout.read_to_end(&mut said).await?;
        child.wait().await
    };
    let ended = tokio::time::timeout(DEADLINE, conversation).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    match ended {
        Ok(ended) => ended.map(|_| said).context("talk to crictl"),
        Err(_) => bail!("{line}: it does not end; it said {said:?}"),
    }
}
