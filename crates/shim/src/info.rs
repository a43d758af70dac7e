use std::io::{IsTerminal, Read, Write};

use anyhow::Context;
use containerd_shim::bootstrap::any_is;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::scope::Scope;

/// Writes to standard output, which carries nothing but the answer (runtime-v2, "Commands").
pub(crate) fn print(answer: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(answer)?;
    Ok(stdout.flush()?)
}

/// What containerd calls the OCI runtime spec's "Features Structure" (containerd `core/runtime/typeurl.go`).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// What a wasm container can have of what the OCI runtime spec lets a runtime leave out. By this containerd decides
/// whether a pod may have a user namespace (`namespaces` and `mountExtensions.idmap`), and whether read-only mounts are
/// so with all that is below them (`rro`).
fn features(options: &Any) -> serde_json::Value {
    let mut namespaces = vec!["cgroup", "ipc", "mount", "network", "pid", "uts"];
    // CRI of containerd 2.0 to 2.3 gives a pod with a user namespace runc's options, and fails where the handler has
    // others (`getRuncOptions` of its client). So the kubelet learns that such a handler cannot, before there is a pod.
    if options.type_url.is_empty() || any_is::<RuncOptions>(options) {
        namespaces.push("user");
    }
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": [],
        "mountOptions": [
            "bind", "idmap", "private", "rbind", "ridmap", "ro", "rprivate", "rro", "rrw", "rshared", "rslave", "rw",
            "shared", "slave",
        ],
        "linux": {
            "namespaces": namespaces,
            "capabilities": [],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": false },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
    })
}

/// `-v`: in the form that containerd's own shims use.
pub(crate) fn version(scope: Scope) -> anyhow::Result<()> {
    print(
        format!(
            "{name}:\n  Version:  v{version}\n",
            name = scope.program(),
            version = env!("CARGO_PKG_VERSION"),
        )
        .as_bytes(),
    )
}

/// `-info`: what containerd asks before any container exists, with the handler's options on standard input.
pub(crate) fn runtime(scope: Scope) -> anyhow::Result<()> {
    let mut options = Vec::new();
    let mut stdin = std::io::stdin().lock();
    // Whoever types this has no options to give.
    if !stdin.is_terminal() {
        stdin.read_to_end(&mut options)?;
    }
    let options = Any::parse_from_bytes(&options).context("decode the runtime options")?;
    let info = RuntimeInfo {
        name: scope.runtime().to_owned(),
        version: Some(RuntimeVersion {
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        })
        .into(),
        features: Some(Any {
            type_url: FEATURES.to_owned(),
            value: features(&options).to_string().into_bytes(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    print(&info.write_to_bytes()?)
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::protobuf::MessageFull;
    use oci_spec::runtime::{Features, LinuxNamespaceType};

    use super::*;

    #[test]
    fn pods_have_users_of_their_own_where_containerd_can() {
        let can = |type_url: &str| {
            let options = Any {
                type_url: type_url.to_owned(),
                ..Default::default()
            };
            let features: Features = serde_json::from_value(features(&options)).expect("valid");
            let linux = features.linux().as_ref().expect("for Linux");
            let namespaces = linux.namespaces().as_ref().expect("listed");
            namespaces.contains(&LinuxNamespaceType::User)
        };
        assert!(can(""));
        assert!(can(RuncOptions::descriptor().full_name()));
        assert!(!can("runtimeoptions.v1.Options"));
    }
}
