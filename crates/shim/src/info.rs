use std::io::Write;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::RUNTIME;

/// Writes to standard output, which carries nothing but the answer (runtime-v2, "Commands").
pub(crate) fn print(answer: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(answer)?;
    Ok(stdout.flush()?)
}

/// `-v`: in the form that containerd's own shims use.
pub(crate) fn version() -> anyhow::Result<()> {
    print(
        format!(
            "{name}:\n  Version:  v{version}\n",
            name = "containerd-shim-sampan-v1",
            version = env!("CARGO_PKG_VERSION"),
        )
        .as_bytes(),
    )
}

/// `-info`: what containerd asks before any container exists. The options on standard input
/// change nothing in the answer.
pub(crate) fn runtime() -> anyhow::Result<()> {
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion {
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    print(&info.write_to_bytes()?)
}
