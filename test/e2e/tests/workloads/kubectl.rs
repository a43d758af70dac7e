//! What people do with kubectl, by kubectl itself and by the calls that it makes.
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use e2e_tests::{Answer, Case, Space, cases};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        logs_exec_and_port_forward,
        the_same_by_the_api,
        statistics_are_told,
    ]
}

async fn server(space: &Space) -> Result<()> {
    let image = space.world().guest("http-p2").await?;
    let spec = json!({
        "containers": [{
            "name": "app", "image": image, "command": ["/"],
            "env": [{ "name": "GREETING", "value": "ahoy" }],
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        }],
    });
    space.pod("server", spec).await?;
    space.ready("server").await?;
    Ok(())
}

pub(crate) async fn logs_exec_and_port_forward(space: Arc<Space>) -> Result<()> {
    server(&space).await?;
    let (world, namespace) = (space.world(), space.name());
    let kubectl = async |words: &[&str]| {
        let arguments: Vec<&str> = ["--namespace", namespace]
            .iter()
            .chain(words)
            .copied()
            .collect();
        world.kubectl(&arguments).await
    };

    space.get("server", "/stdout?text=one").await?;
    space.get("server", "/stderr?text=two").await?;
    let logs = kubectl(&["logs", "server"]).await?;
    for line in ["one", "two"] {
        assert!(logs.lines().any(|it| it == line), "{line}: {logs}");
    }

    let environment = kubectl(&["exec", "server", "--", "sampan", "env", "GREETING"]).await?;
    assert!(environment.contains("ahoy"), "{environment}");
    let Err(failed) = kubectl(&["exec", "server", "--", "sampan", "cat", "/nothing"]).await else {
        bail!("cat of a file that is not there has succeeded");
    };
    let failed = format!("{failed:#}");
    assert!(failed.contains("exit code 1"), "{failed}");

    let mut forwarder = world
        .kubectl_command()
        .args([
            "--namespace",
            namespace,
            "port-forward",
            "pod/server",
            ":8080",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .context("start kubectl port-forward")?;
    let stdout = forwarder.stdout.take().context("its output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.next_line().await?.unwrap_or_default();
    let port: u16 = line
        .strip_prefix("Forwarding from 127.0.0.1:")
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("kubectl port-forward says `{line}`"))?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    assert_eq!(
        Answer::over(stream, "/").await?.body,
        "hello from http-p2\n"
    );
    forwarder.kill().await.context("end kubectl port-forward")?;

    let described = kubectl(&["describe", "pod", "server"]).await?;
    assert!(
        described.contains("Ready          True")
            || described.contains("Ready                       True"),
        "{described}"
    );
    Ok(())
}

pub(crate) async fn the_same_by_the_api(space: Arc<Space>) -> Result<()> {
    server(&space).await?;
    space.get("server", "/stdout?text=one").await?;
    let logs = space.logs("server", "app").await?;
    assert!(logs.lines().any(|line| line == "one"), "{logs}");
    let environment = space.exec("server", "app", &["sampan", "env"]).await?;
    assert_eq!(environment.code, 0, "{environment:?}");
    assert!(
        environment.stdout.contains("GREETING=ahoy"),
        "{environment:?}"
    );
    let unknown = space.exec("server", "app", &["sampan", "dance"]).await?;
    assert_eq!(unknown.code, 127, "{unknown:?}");
    // A path that is no program of the container's: refused in words.
    let refused = space.exec("server", "app", &["/bin/sh"]).await;
    let Err(refused) = refused else {
        bail!("/bin/sh ran in a wasm container: {refused:?}");
    };
    let refused = format!("{refused:#}");
    assert!(refused.contains("/bin/sh"), "{refused}");
    let answer = space.get_forwarded("server", "/").await?;
    assert_eq!(answer.body, "hello from http-p2\n");
    Ok(())
}

/// There is no metrics server here: the runtime is asked, as that would ask it.
pub(crate) async fn statistics_are_told(space: Arc<Space>) -> Result<()> {
    let cluster = space.world().private_for("crictl on the node")?;
    server(&space).await?;
    let filter = format!("io.kubernetes.pod.namespace={}", space.name());
    let containerd = cluster.containerd();
    let stats = containerd
        .crictl(&["stats", "--output", "json", "--label", &filter])
        .await?;
    let stats: Value = serde_json::from_str(&stats).context("read crictl's statistics")?;
    let stats = &stats["stats"][0];
    let number = |pointer: &str| -> Result<u64> {
        stats
            .pointer(pointer)
            .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()))
            .with_context(|| format!("no {pointer} in {stats}"))
    };
    assert!(
        number("/memory/workingSetBytes/value")? > 100_000,
        "{stats}"
    );
    assert!(
        number("/cpu/usageCoreNanoSeconds/value")? > 1_000_000,
        "{stats}"
    );
    Ok(())
}
