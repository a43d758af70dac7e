//! Which of our two runtimes the tests are about.
use std::sync::LazyLock;

/// The runtime types of ours, and the programs that containerd executes for them: a supervisor for each pod, and one for
/// a node.
const POD: (&str, &str) = ("io.containerd.sampan.v1", "containerd-shim-sampan-v1");
const NODE: (&str, &str) = (
    "io.containerd.sampan-dense.v1",
    "containerd-shim-sampan-dense-v1",
);

/// `SAMPAN_SCOPE=dense` makes all tests those of the supervisor for a node.
static DENSE: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("SAMPAN_SCOPE").is_some_and(|scope| scope == "dense"));

/// Whether one supervisor serves all containers of a containerd namespace.
#[must_use]
pub fn dense() -> bool {
    *DENSE
}

fn ours() -> (&'static str, &'static str) {
    if dense() { NODE } else { POD }
}

/// The runtime type of our shim.
#[must_use]
pub fn runtime() -> &'static str {
    ours().0
}

/// The name of its program.
#[must_use]
pub fn shim() -> &'static str {
    ours().1
}
