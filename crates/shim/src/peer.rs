//! What the commands ask of a supervisor that lives, over the socket by which containerd talks to it.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use containerd_shim_protos::shim_async::{Client, TaskClient};
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::transport::Socket;

/// The metadata of a Connect request by which `start` announces a container: the supervisor waits for its Create.
pub(crate) const ANNOUNCED: &str = "sampan.dev/announced";
/// The metadata of a Delete request by which `delete` gives a container up, in whatever state it is.
pub(crate) const ABANDONED: &str = "sampan.dev/abandoned";

/// Asks one question; the answer may be that the supervisor has ended.
///
/// There are no threads afterwards: `start` may be about to fork.
pub(crate) fn ask<T>(
    supervisor: UnixStream,
    metadata: &str,
    within: Duration,
    question: impl AsyncFnOnce(TaskClient, ttrpc::context::Context) -> ttrpc::Result<T>,
) -> anyhow::Result<ttrpc::Result<T>> {
    supervisor.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let client = TaskClient::new(Client::new(Socket::try_from(supervisor)?));
        let mut context = ttrpc::context::with_duration(within);
        context.add(metadata.to_owned(), String::new());
        Ok(question(client, context).await)
    })
}
