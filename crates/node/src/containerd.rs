//! What this program asks of containerd, and what it can rely on. `live` speaks to a real one; tests of the operations
//! have one that obeys the same text.
mod live;
mod process;
pub(crate) mod request;
pub(crate) mod users;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Effective;
use crate::settings::Restart;

pub use live::Live;
pub use process::{Process, below};

/// What is known of the containerd of this node.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The distribution.
    pub layout: String,
    /// Its socket on the host.
    pub socket: PathBuf,
    /// Its process.
    pub pid: u32,
    /// Its version, as in `v2.3.7`.
    pub version: String,
    /// Its plugins that work, as `type.id`.
    pub plugins: Vec<String>,
    /// The configuration that it was started with, on the host.
    pub config: PathBuf,
    /// How it is restarted.
    pub restart: Restart,
    /// What a person should know of this distribution.
    pub notes: String,
}

/// A container of our runtime that has a task.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct User {
    /// containerd's namespace.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// `namespace/name` of the pod, where it is one's.
    pub pod: Option<String>,
}

/// A containerd. No call changes it but [`Containerd::restart`], [`Containerd::canary`], [`Containerd::sweep`] and
/// [`Containerd::end`].
#[expect(
    async_fn_in_trait,
    reason = "called on one thread, by this program alone"
)]
pub trait Containerd {
    /// Finds out what runs; an error while it does not run.
    async fn found(&self) -> Result<Found>;

    /// The runtimes that it runs with, by handler, once CRI says that it is ready; an error before.
    async fn runtimes(&self) -> Result<Map<String, Value>>;

    /// What it would run with: `config` is read as if it lay at `path`, and `drop_in` as if it were imported. Nothing
    /// else reads either. An error if it refuses them.
    async fn dump(
        &self,
        config: Option<&[u8]>,
        path: &std::path::Path,
        drop_in: Option<&[u8]>,
    ) -> Result<Effective>;

    /// Asks it to start again, and waits until the old process has ended; `sent` is called when it was asked. That it
    /// does not run is no error. Returns before the new one answers.
    async fn restart(&self, restart: &Restart, sent: &dyn Fn()) -> Result<()>;

    /// Runs a Wasm pod of a handler to its end, and removes it; `running` is called while it is there. An error unless
    /// it wrote what it was to write and ended with 0.
    async fn canary(&self, handler: &str, running: &dyn Fn()) -> Result<()>;

    /// Removes what an interrupted canary, or a program that was being compiled ahead, has left. That there is nothing is no error.
    async fn sweep(&self) -> Result<()>;

    /// The containers of our runtime that have a task.
    async fn users(&self) -> Result<Vec<User>>;

    /// Ends them, by CRI where it knows them.
    async fn end(&self, users: &[User]) -> Result<()>;

    /// Directories that the shim fills: its run directory and its store, as the node's configuration names them.
    async fn data(&self) -> Result<Vec<PathBuf>>;

    /// Whether a process executes a file of a directory (a path as it is here).
    fn in_use(&self, dir: &std::path::Path) -> bool;

    /// How long it may take to come back.
    fn patience(&self) -> Duration;
}
