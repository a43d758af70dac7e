//! What the tests of the node program share: a machine with a containerd that is started again when it ends, as systemd
//! does it, in private directories.
#![forbid(unsafe_code)]

pub mod collector;
pub mod listener;
mod machine;
pub mod origin;
mod program;
mod supervisor;

pub use machine::{Config, Machine};
pub use program::{Ended, Program};

use anyhow::{Context as _, Result};

/// Whether this machine can run these tests; says on standard error why not, for a test that is to be skipped.
///
/// # Errors
/// When something was not built: that is no reason to skip.
pub fn able() -> Result<bool> {
    if !harness::able()? {
        return Ok(false);
    }
    let path = harness::built_dir()?.join("sampan-node");
    path.metadata().with_context(|| {
        format!(
            "find {}: run `cargo build -p node`, or set SAMPAN_SHIM_DIR",
            path.display()
        )
    })?;
    Ok(true)
}
