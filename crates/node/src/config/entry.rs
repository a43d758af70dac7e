use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::payload::{DENSE, SHIM};

/// Which annotations of a pod reach the shim.
const ANNOTATIONS: &str = "sampan.dev/*";

/// Names that handlers of ours may have.
pub const HANDLERS: &[&str] = &["sampan", "sampan-dense", "wasmtime"];

/// Whom one supervisor serves. The shim goes by the name under which it is executed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// A pod.
    Pod,
    /// All pods of the node, in one of containerd's namespaces.
    Node,
}

impl Scope {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pod, Self::Node];

    /// That of the handler of this name.
    #[must_use]
    pub fn of_handler(name: &str) -> Self {
        if name == "sampan-dense" {
            Self::Node
        } else {
            Self::Pod
        }
    }

    /// The runtime type that containerd knows it by.
    #[must_use]
    pub const fn runtime(self) -> &'static str {
        match self {
            Self::Pod => "io.containerd.sampan.v1",
            Self::Node => "io.containerd.sampan-dense.v1",
        }
    }

    /// The name of the program that containerd executes.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Pod => SHIM,
            Self::Node => DENSE,
        }
    }
}

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

/// Whether a runtime, as containerd shows it, is a program of this directory.
#[must_use]
pub fn lies_in(runtime: &serde_json::Value, dir: &Path) -> bool {
    program(runtime).is_some_and(|path| path.parent() == Some(dir))
}

/// What containerd executes for a runtime, if that is said.
fn program(runtime: &serde_json::Value) -> Option<&Path> {
    field(runtime, ["runtime_path", "runtimePath"])?
        .as_str()
        .map(Path::new)
}

/// A field by its name in a configuration, or by that in CRI's status.
fn field<'a>(runtime: &'a serde_json::Value, names: [&str; 2]) -> Option<&'a serde_json::Value> {
    names.iter().find_map(|name| runtime.get(name))
}

impl Entry {
    /// Whom one of its supervisors serves.
    fn scope(&self) -> Scope {
        Scope::of_handler(&self.handler)
    }

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
            "[{table}]\nruntime_type = \"{runtime}\"\nruntime_path = {path}\n\
             pod_annotations = [\"{ANNOTATIONS}\"]\ncontainer_annotations = [\"{ANNOTATIONS}\"]\n",
            runtime = self.scope().runtime(),
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
        field(["runtime_type", "runtimeType"]).and_then(|value| value.as_str())
            == Some(self.scope().runtime())
            && program(runtime) == Some(&self.shim)
            && field(["pod_annotations", "PodAnnotations"]) == Some(&annotations)
            && field(["container_annotations", "ContainerAnnotations"]) == Some(&annotations)
            && runtime
                .pointer("/options/SystemdCgroup")
                .and_then(serde_json::Value::as_bool)
                .unwrap_or_default()
                == self.systemd_cgroup
    }
}
