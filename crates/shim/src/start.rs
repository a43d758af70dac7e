//! `start`: hands containerd the address of the supervisor that is to serve the container.
//!
//! The containers of a pod share one, or those of the whole node ([`Scope`]). It is forked from
//! this process before any thread exists instead of executed again, and its socket listens before
//! containerd hears of it, so nothing waits for it to come up.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::api::ConnectRequest;
use containerd_shim_protos::ttrpc;
use serde::Deserialize;

use crate::bootstrap::Bootstrap;
use crate::node::Configuration;
use crate::peer::Question;
use crate::scope::Scope;
use crate::socket::Claim;
use crate::{info, logs, node, peer, pod as pods, socket, supervisor};

/// How long a supervisor may take to answer; it may have fifty containers to make at the moment.
const ANSWER: Duration = Duration::from_secs(10);
/// How many supervisors in a row may end while they are asked.
const ATTEMPTS: u32 = 16;

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
    if !bundle.join("config.json").exists() {
        pods::keep_options(&bundle, &bootstrap.options)?;
    }
    let address = address(&bootstrap, group.name());
    let path = Path::new(address.trim_start_matches("unix://"));
    // containerd reads this file when it finds the bundle again after its own restart, and
    // `delete` finds the socket by it.
    fs::write(bundle.join("address"), &address)
        .context("write the file `address` of the bundle")?;
    let Some(listener) = listener(path, &bootstrap.id, &bundle)? else {
        return info::print(&bootstrap.answer(&address)?);
    };
    match jail::fork_daemon(&listener)? {
        jail::Forked::Parent => info::print(&bootstrap.answer(&address)?),
        jail::Forked::Daemon => {
            let logs = logs::start(&bundle, bootstrap.debug);
            tracing::debug!(id = bootstrap.id, took = ?began.elapsed(), "until the fork");
            // The bundle is removed while the supervisor lives.
            std::env::set_current_dir("/").context("leave the bundle")?;
            let config = configuration.config;
            supervisor::serve(listener, path, &bootstrap, &group, config, logs)
                // Its standard error leads nowhere.
                .inspect_err(|error| {
                    tracing::error!(error = format!("{error:#}"), "supervisor fails")
                })
        }
    }
}

/// The socket to serve, or none where a supervisor serves it that now waits for this container.
fn listener(path: &Path, id: &str, bundle: &Path) -> anyhow::Result<Option<UnixListener>> {
    let at = |what: &str| format!("{what} the supervisor at {}", path.display());
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match socket::claim(path).with_context(|| format!("listen on {}", path.display()))? {
            Claim::Ours(listener) => return Ok(Some(listener)),
            Claim::Theirs(supervisor) => {
                let announced = announce(supervisor, id, bundle);
                match announced.with_context(|| at("announce the container to"))? {
                    Announced::Expected => return Ok(None),
                    Announced::TooLate(reason) => why = reason,
                }
            }
        }
    }
    anyhow::bail!(
        "{}: {ATTEMPTS} in a row have ended: {why}",
        at("announce the container to")
    )
}

/// What became of an announcement.
enum Announced {
    /// The supervisor stays until Create comes.
    Expected,
    /// It ends, and has taken its socket away, or was killed; the reason.
    TooLate(String),
}

/// Tells a supervisor to wait for this container: it would end with its last one.
fn announce(supervisor: UnixStream, id: &str, bundle: &Path) -> anyhow::Result<Announced> {
    let request = ConnectRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let question = Question {
        method: "Connect",
        metadata: Some((peer::ANNOUNCED, &bundle.to_string_lossy())),
        message: &request,
        within: ANSWER,
    };
    match question.ask(supervisor) {
        Ok(Ok(())) => Ok(Announced::Expected),
        Ok(Err(status)) if status.code() != ttrpc::Code::UNAVAILABLE => {
            anyhow::bail!("{}", status.message())
        }
        Ok(Err(status)) => Ok(Announced::TooLate(status.message().to_owned())),
        // It did not live long enough to answer.
        Err(error) => Ok(Announced::TooLate(error.to_string())),
    }
}

fn pod(bundle: &Path, id: &str) -> anyhow::Result<Group> {
    let path = bundle.join("config.json");
    let text = match fs::read(&path) {
        // The pod itself, which is no container of containerd's ([`crate::pod`]).
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
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

/// Whether the container of this bundle is in no pod; false where that cannot be seen.
pub(crate) fn alone(bundle: &Path) -> bool {
    matches!(pod(bundle, ""), Ok(Group::Container(_)))
}

fn everybody(bootstrap: &Bootstrap, configuration: &Configuration) -> anyhow::Result<Group> {
    let generation = configuration.generation()?;
    // Where events go is not in containerd's address, from which the socket has its name too.
    let events = &bootstrap.ttrpc_address;
    // With more of them another one can have more containers.
    let descriptors = jail::most_descriptors();
    Ok(Group::Node(format!(
        "node {generation}\n{descriptors} {events}"
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let empty = tempfile::tempdir().expect("temporary directory");
        assert_eq!(
            pod(empty.path(), "pod2").expect("valid"),
            Group::Pod("pod2".to_owned())
        );
        fs::write(dir.path().join("config.json"), "{}").expect("written");
        assert_eq!(
            pod(dir.path(), "c1").expect("valid"),
            Group::Container("c1".to_owned())
        );
        let alone_in = [dir.path(), empty.path(), Path::new("/none")].map(alone);
        assert_eq!(alone_in, [true, false, false]);
    }
}
