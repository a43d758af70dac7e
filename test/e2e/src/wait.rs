use std::time::Duration;

use anyhow::Result;

/// How often the API is asked for what it does not announce to us.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until there is a value, at most for `deadline`.
///
/// # Errors
/// When the deadline passes (the message names `what`) or `look` fails.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    harness::until_every(INTERVAL, what, deadline, look).await
}
