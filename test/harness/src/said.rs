//! What a program says on its standard error while it runs.
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How long it may take to say something.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits at most a minute until a program says this text; gives what follows in its line, and a task that reads on: a full
/// pipe would stop the program. The task ends with it, and has the rest then.
///
/// # Errors
/// When it ends before, or the minute does: with all that it said instead.
pub async fn said(
    stderr: impl AsyncRead + Unpin + Send + 'static,
    text: &str,
) -> Result<(String, JoinHandle<String>)> {
    let mut lines = BufReader::new(stderr).lines();
    let mut before = String::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let line = match timeout_at(deadline, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => bail!("it ended without `{text}`; it said:\n{before}"),
            Ok(Err(error)) => bail!("it cannot be read any more ({error}); it said:\n{before}"),
            Err(_) => bail!("waited a minute in vain for `{text}`; it said:\n{before}"),
        };
        if let Some((_, after)) = line.split_once(text) {
            let rest = tokio::spawn(async move {
                let mut rest = String::new();
                while let Ok(Some(line)) = lines.next_line().await {
                    rest = rest + &line + "\n";
                }
                rest
            });
            return Ok((after.to_owned(), rest));
        }
        before = before + &line + "\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_text_is_waited_for() -> Result<()> {
        let (after, rest) = said(&b"one\ntwo: here\nthree\n"[..], "two: ").await?;
        assert_eq!((after.as_str(), rest.await?.as_str()), ("here", "three\n"));
        let error = said(&b"no such file\n"[..], "two: ").await.err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("no such file"), "{error}");
        Ok(())
    }
}
