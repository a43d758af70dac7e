use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The runtime type that containerd knows our shim by.
pub const RUNTIME: &str = "io.containerd.sampan.v1";
/// Which annotations of a pod reach the shim.
const ANNOTATIONS: &str = "sampan.dev/*";

/// Names that handlers of ours may have.
pub const HANDLERS: &[&str] = &["sampan", "sampan-dense", "wasmtime"];

/// What one handler of ours is in containerd's configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The handler's name, which a RuntimeClass names.
    pub handler: String,
    /// The shim, by a path that stays the same when the shim is replaced.
    pub shim: PathBuf,
    /// Who makes cgroups: as with the node's other containers.
    pub systemd_cgroup: bool,
}

/// The plugin that holds CRI's runtimes, by the version of the file.
#[must_use]
pub fn plugin(version: i64) -> &'static str {
    match version {
        1 => "cri",
        2 => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    }
}

/// Whether a runtime, as containerd shows it, is executed by this shim.
#[must_use]
pub fn executes(runtime: &serde_json::Value, shim: &Path) -> bool {
    field(runtime, ["runtime_path", "runtimePath"]).and_then(|value| value.as_str())
        == shim.to_str()
}

/// A field by its name in a configuration, or by that in CRI's status.
fn field<'a>(runtime: &'a serde_json::Value, names: [&str; 2]) -> Option<&'a serde_json::Value> {
    names.iter().find_map(|name| runtime.get(name))
}

impl Entry {
    /// The tables of a file of this version.
    #[must_use]
    pub fn tables(&self, version: i64) -> String {
        let table = format!(
            "plugins.\"{}\".containerd.runtimes.{}",
            plugin(version),
            self.handler
        );
        let mut text = String::new();
        let _ = write!(
            text,
            "[{table}]\nruntime_type = \"{RUNTIME}\"\nruntime_path = {path}\n\
             pod_annotations = [\"{ANNOTATIONS}\"]\ncontainer_annotations = [\"{ANNOTATIONS}\"]\n",
            path = toml_edit::Value::from(self.shim.to_string_lossy().into_owned()),
        );
        // Not where it is the default: containerd 2 learns nothing of the features of a handler that has options, and
        // then refuses pods with users of their own (docs/reference.md).
        if self.systemd_cgroup {
            let _ = write!(text, "[{table}.options]\nSystemdCgroup = true\n");
        }
        text
    }

    /// Whether a runtime as containerd shows it (a table of `config dump`, or CRI's verbose status, whose names are
    /// others) is this one.
    #[must_use]
    pub fn is(&self, runtime: &serde_json::Value) -> bool {
        let field = |names| field(runtime, names);
        let annotations = serde_json::json!([ANNOTATIONS]);
        field(["runtime_type", "runtimeType"]).and_then(|value| value.as_str()) == Some(RUNTIME)
            && executes(runtime, &self.shim)
            && field(["pod_annotations", "PodAnnotations"]) == Some(&annotations)
            && field(["container_annotations", "ContainerAnnotations"]) == Some(&annotations)
            && runtime
                .pointer("/options/SystemdCgroup")
                .and_then(serde_json::Value::as_bool)
                .unwrap_or_default()
                == self.systemd_cgroup
    }
}
