use std::io;
use std::os::fd::BorrowedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until a descriptor can be read: a pidfd when its process has ended, the wire when
/// there is a report. Must be called inside a tokio runtime with I/O enabled.
///
/// # Errors
/// Where the descriptor cannot be watched.
pub async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the borrow keeps the descriptor open until this future is done or dropped, and
    // the registration lives inside the future.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
    watched.readable().await.map(|_| ())
}
