use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often the API is asked for what it does not announce to us.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until there is a value, at most for `deadline`.
///
/// # Errors
/// When the deadline passes (the message names `what`) or `look` fails.
pub async fn eventually<T>(
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
        tokio::time::sleep(INTERVAL).await;
    }
}
