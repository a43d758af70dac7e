//! Which guests there are: by the records that the shim keeps of its containers (`crates/shim/src/record.rs`).

use std::path::{Path, PathBuf};

use plan::numbers::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A container of the shim whose process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Guest {
    /// containerd's namespace.
    pub(crate) containerd_namespace: String,
    pub(crate) id: String,
    /// Kubernetes' namespace.
    pub(crate) namespace: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) container: Option<String>,
    /// `wasm`, `native`, or `pod` for one that holds a pod's namespaces.
    pub(crate) kind: &'static str,
    pub(crate) pid: i32,
}

/// What is read of a record. A newer shim may write more.
#[derive(Debug, Deserialize)]
struct Record {
    pid: i32,
    start_time: u64,
    #[serde(default)]
    native: bool,
    #[serde(default)]
    bundle: Option<PathBuf>,
}

const HOLDER: &str = "pod";

impl Guest {
    pub(crate) fn is_holder(&self) -> bool {
        self.kind == HOLDER
    }

    /// Namespace, pod and container; of a container that is in no pod containerd's namespace and its id.
    pub(crate) fn names(&self) -> (String, String, String) {
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => (
                namespace.clone(),
                pod.clone(),
                self.container.clone().unwrap_or_else(|| "-".to_owned()),
            ),
            _ => (
                self.containerd_namespace.clone(),
                "-".to_owned(),
                self.id.clone(),
            ),
        }
    }
}

/// All of them, as they are told in the run directory; a directory that is not there has none.
pub(crate) fn find(root: &Path, run: &Path) -> std::io::Result<Vec<Guest>> {
    let mut found = Vec::new();
    let namespaces = match std::fs::read_dir(run) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        namespaces => namespaces?,
    };
    for namespace in namespaces.flatten() {
        let Some(name) = namespace.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        // What is no directory, or has gone, has no containers.
        let containers = std::fs::read_dir(namespace.path()).into_iter().flatten();
        for container in containers.flatten() {
            let Some(id) = container.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            found.extend(guest(root, &container.path(), name.clone(), id));
        }
    }
    Ok(found)
}

fn guest(root: &Path, dir: &Path, containerd_namespace: String, id: String) -> Option<Guest> {
    let record: Record =
        serde_json::from_slice(&std::fs::read(dir.join("record.json")).ok()?).ok()?;
    if record.pid <= 0 || start_time(root, record.pid)? != record.start_time {
        return None;
    }
    let annotations = record
        .bundle
        .and_then(|bundle| std::fs::read(bundle.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        .and_then(|mut config| serde_json::from_value(config["annotations"].take()).ok())
        .unwrap_or_default();
    let labels = Labels::of(&annotations);
    let kind = match record.native {
        _ if labels.holder => HOLDER,
        true => "native",
        false => "wasm",
    };
    let said = |label: String| Some(label).filter(|label| !label.is_empty());
    Some(Guest {
        containerd_namespace,
        id,
        namespace: said(labels.namespace),
        pod: said(labels.pod),
        container: said(labels.container),
        kind,
        pid: record.pid,
    })
}

/// When a process started.
pub(crate) fn start_time(root: &Path, pid: i32) -> Option<u64> {
    plan::start_time(&std::fs::read_to_string(root.join(format!("proc/{pid}/stat"))).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn living_containers_are_found_by_their_records() {
        let root = tempfile::TempDir::new().expect("a directory");
        let root = root.path();
        let run = root.join("run/sampan");
        assert!(find(root, &run).expect("nothing wrong").is_empty());
        let stat = |state: &str, started: u64| {
            format!("1 (a) b) {state} 1{} {started} 0 0\n", " 0".repeat(17))
        };
        write(&root.join("proc/11/stat"), &stat("S", 500));
        write(&root.join("proc/12/stat"), &stat("S", 501));
        write(&root.join("proc/13/stat"), &stat("Z", 502));
        write(&root.join("proc/14/stat"), &stat("S", 503));
        let bundle = root.join("bundle");
        write(
            &bundle.join("config.json"),
            r#"{"annotations": {"io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-name": "web-1",
                "io.kubernetes.cri.container-name": "web"}}"#,
        );
        let record =
            |id: &str, text: &str| write(&run.join(format!("k8s.io/{id}/record.json")), text);
        record(
            "a",
            &format!(r#"{{"pid": 11, "start_time": 500, "bundle": {bundle:?}, "more": 1}}"#),
        );
        record("b", r#"{"pid": 12, "start_time": 501, "native": true}"#);
        record("zombie", r#"{"pid": 13, "start_time": 502}"#);
        record("another", r#"{"pid": 14, "start_time": 1}"#);
        record("gone", r#"{"pid": 99, "start_time": 1}"#);
        record("none", r#"{"pid": 0, "start_time": 0}"#);
        record("broken", "{");
        write(&run.join("a-file"), "");
        let mut found = find(root, &run).expect("listed");
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let names: Vec<_> = found
            .iter()
            .map(|guest| (guest.names(), guest.kind))
            .collect();
        let name = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            names,
            [
                (name("shop", "web-1", "web"), "wasm"),
                (name("k8s.io", "-", "b"), "native"),
            ]
        );
    }
}
