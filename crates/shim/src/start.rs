//! `start`: hands containerd the address of the supervisor that is to serve the container.
//!
//! The containers of a pod share one. It is forked from this process before any thread exists
//! instead of executed again, and its socket listens before containerd hears of it, so nothing
//! waits for it to come up.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context;
use containerd_shim::{Flags, StartOpts};
use serde::Deserialize;

use crate::bootstrap::Bootstrap;
use crate::{info, logs, node, pod, supervisor};

/// Whom one supervisor serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The containers of the pod of this id.
    Pod(String),
    /// The one container of this id.
    Container(String),
}

impl Group {
    fn name(&self) -> &str {
        match self {
            Self::Pod(id) | Self::Container(id) => id,
        }
    }

    /// The one container, where there will be no other.
    pub(crate) fn only(&self) -> Option<&str> {
        match self {
            Self::Container(id) => Some(id),
            Self::Pod(_) => None,
        }
    }
}

/// The part of `config.json` that decides who is together; the rest is read in Create.
#[derive(Deserialize)]
struct Grouping {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

pub(crate) fn command(flags: &Flags) -> anyhow::Result<()> {
    let bootstrap = Bootstrap::read(flags)?;
    // Read here, where containerd still shows the error.
    let config = node::config()?;
    let bundle = std::env::current_dir().context("find the bundle")?;
    let group = group(&bundle, &bootstrap.id)?;
    if !bundle.join("config.json").exists() {
        pod::keep_options(&bundle, &bootstrap.options)?;
    }
    let address = address(&bootstrap, group.name());
    let path = address.trim_start_matches("unix://");
    let listener = listen(Path::new(path)).with_context(|| format!("listen on {path}"))?;
    // containerd reads this file when it finds the bundle again after its own restart, and
    // `delete` finds the socket by it.
    fs::write(bundle.join("address"), &address)
        .context("write the file `address` of the bundle")?;
    let Some(listener) = listener else {
        return info::print(&bootstrap.answer(&address)?);
    };
    match jail::fork_daemon(&listener)? {
        jail::Forked::Parent => info::print(&bootstrap.answer(&address)?),
        jail::Forked::Daemon => {
            logs::start(&bundle, bootstrap.debug);
            // The bundle is removed while the supervisor lives.
            std::env::set_current_dir("/").context("leave the bundle")?;
            supervisor::serve(listener, Path::new(path), &bootstrap, &group, config)
        }
    }
}

fn group(bundle: &Path, id: &str) -> anyhow::Result<Group> {
    let path = bundle.join("config.json");
    let text = match fs::read(&path) {
        // The pod itself, which is no container of containerd's ([`crate::pod`]).
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Group::Pod(id.to_owned()));
        }
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    let grouping: Grouping =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    Ok(grouping.annotations.get(plan::ON_SANDBOX).map_or_else(
        || Group::Container(id.to_owned()),
        |pod| Group::Pod(pod.clone()),
    ))
}

fn address(bootstrap: &Bootstrap, group: &str) -> String {
    StartOpts {
        address: bootstrap.grpc_address.clone(),
        namespace: bootstrap.namespace.clone(),
        socket_dir: bootstrap.socket_dir.clone(),
        ..Default::default()
    }
    .socket_address(group)
}

/// The socket to serve, or none where a supervisor already serves it. A socket whose supervisor
/// was killed is replaced.
fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map(Some),
    }
    if UnixStream::connect(path).is_ok() {
        return Ok(None);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_supervisor_serves_a_socket_and_a_dead_ones_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("s/socket");
        let first = listen(&path).expect("binds").expect("nobody serves it");
        assert!(listen(&path).expect("connects").is_none());
        drop(first);
        assert!(listen(&path).expect("binds again").is_some());
    }

    #[test]
    fn the_pod_decides_who_is_together() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(
            dir.path().join("config.json"),
            r#"{"process": 7, "annotations": {"io.kubernetes.cri.sandbox-id": "pod1"}}"#,
        )
        .expect("written");
        assert_eq!(
            group(dir.path(), "c1").expect("valid"),
            Group::Pod("pod1".to_owned())
        );
        let empty = tempfile::tempdir().expect("temporary directory");
        assert_eq!(
            group(empty.path(), "pod2").expect("valid"),
            Group::Pod("pod2".to_owned())
        );
        fs::write(dir.path().join("config.json"), "{}").expect("written");
        assert_eq!(
            group(dir.path(), "c1").expect("valid"),
            Group::Container("c1".to_owned())
        );
    }
}
