use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// How often a state without a notification is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at something that nobody announces until it gives a value, at most for `deadline`.
///
/// # Errors
/// When the deadline passes (the message names `what`) or `look` fails.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    until_every(INTERVAL, what, deadline, look).await
}

/// As [`until`], for what costs more to be looked at: once every `interval`.
///
/// # Errors
/// As [`until`].
pub async fn until_every<T>(
    interval: Duration,
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if began.elapsed() > deadline {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        tokio::time::sleep(interval).await;
    }
}

/// Waits until a log has `text` so many times, and no more: what a shim says gets into containerd's log a moment later.
///
/// # Errors
/// When it has it more often, or less often after ten seconds.
pub async fn logged(log: impl Fn() -> String, text: &str, times: usize) -> Result<()> {
    let found = || log().matches(text).count();
    let what = format!("{text:?} to be logged {times} times");
    until(&what, Duration::from_secs(10), async || {
        Ok((found() >= times).then_some(()))
    })
    .await?;
    ensure!(
        found() == times,
        "{text:?} is logged {} times, not {times}",
        found()
    );
    Ok(())
}

/// As [`until`], where no async runtime is at hand.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the poll with a deadline that the ban points to"
)]
pub(crate) fn until_blocking<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if began.elapsed() > deadline {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
}
