//! `start`: hands containerd the address of the supervisor that is to serve the container.
//!
//! The containers of a pod share one, or those of the whole node ([`Scope`]). It is forked from this process before any thread exists
//! instead of executed again, and its socket listens before containerd hears of it, so nothing
//! waits for it to come up.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use containerd_shim::{Flags, StartOpts};
use serde::Deserialize;

use crate::bootstrap::Bootstrap;
use crate::node::Configuration;
use crate::scope::Scope;
use crate::{info, logs, node, supervisor};

/// Whom one supervisor serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// The containers of the pod of this id.
    Pod(String),
    /// The one container of this id.
    Container(String),
    /// All containers of the namespace that are started by this program with this configuration
    /// ([`Configuration::generation`]).
    Node(String),
}

impl Group {
    fn name(&self) -> &str {
        match self {
            Self::Pod(name) | Self::Container(name) | Self::Node(name) => name,
        }
    }

    /// The one container, where there will be no other.
    pub(crate) fn only(&self) -> Option<&str> {
        match self {
            Self::Container(id) => Some(id),
            Self::Pod(_) | Self::Node(_) => None,
        }
    }
}

/// The part of `config.json` that decides who is together; the rest is read in Create.
#[derive(Deserialize)]
struct Grouping {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

pub(crate) fn command(scope: Scope, flags: &Flags) -> anyhow::Result<()> {
    let began = Instant::now();
    let bootstrap = Bootstrap::read(flags)?;
    // Read here, where containerd still shows the error.
    let configuration = node::configuration()?;
    let bundle = std::env::current_dir().context("find the bundle")?;
    let group = match scope {
        Scope::Pod => pod(&bundle, &bootstrap.id)?,
        Scope::Node => everybody(&bootstrap, &configuration)?,
    };
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
            tracing::debug!(id = bootstrap.id, took = ?began.elapsed(), "until the fork");
            // The bundle is removed while the supervisor lives.
            std::env::set_current_dir("/").context("leave the bundle")?;
            let config = configuration.config;
            supervisor::serve(listener, Path::new(path), &bootstrap, &group, config)
        }
    }
}

fn pod(bundle: &Path, id: &str) -> anyhow::Result<Group> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let grouping: Grouping =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    Ok(grouping.annotations.get(plan::ON_SANDBOX).map_or_else(
        || Group::Container(id.to_owned()),
        |pod| Group::Pod(pod.clone()),
    ))
}

fn everybody(bootstrap: &Bootstrap, configuration: &Configuration) -> anyhow::Result<Group> {
    let generation = configuration.generation()?;
    // Where events go is not in containerd's address, from which the socket has its name too.
    Ok(Group::Node(format!(
        "node {generation}\n{}",
        bootstrap.ttrpc_address
    )))
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
            pod(dir.path(), "c1").expect("valid"),
            Group::Pod("pod1".to_owned())
        );
        fs::write(dir.path().join("config.json"), "{}").expect("written");
        assert_eq!(
            pod(dir.path(), "c1").expect("valid"),
            Group::Container("c1".to_owned())
        );
    }
}
