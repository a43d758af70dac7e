//! What the containers of a pod share as files, where containerd leaves them to the shim: name, hosts, resolver, and the
//! directory of shared memory. They lie beside the pod's record and go with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jail::JailError;
use oci_spec::runtime::{Mount, Spec};
use plan::{ContainerId, NodeConfig};

use super::config::{Dns, PodConfig};
use crate::record::RunDir;

/// The directory `<run>/<namespace>/<pod>/files`.
pub(crate) struct PodFiles(PathBuf);

/// Each with its place in a container.
const FILES: [(&str, &str); 3] = [
    ("hostname", "/etc/hostname"),
    ("hosts", "/etc/hosts"),
    ("resolv.conf", "/etc/resolv.conf"),
];
/// The directory of shared memory, and its place in a container.
const SHARED_MEMORY: (&str, &str) = ("shm", "/dev/shm");

impl PodFiles {
    /// Those of a pod, by the pod's directory.
    pub(crate) fn of(pod: &RunDir) -> Self {
        Self(pod.files())
    }

    /// Those of the pod that this container is in, if we keep them.
    pub(crate) fn of_container(spec: &Spec, config: &NodeConfig, namespace: &str) -> Option<Self> {
        let pod = spec.annotations().as_ref()?.get(plan::ON_SANDBOX)?;
        // It stands in a path.
        let pod = ContainerId::new(pod).ok()?;
        let files = Self::of(&RunDir::new(&config.run, namespace, pod.as_str()));
        files.0.is_dir().then_some(files)
    }

    /// Makes them, with what containerd writes into its own (`setupSandboxFiles`).
    pub(super) fn write(&self, config: &PodConfig) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let hostname = match config.hostname.as_str() {
            "" => fs::read_to_string("/proc/sys/kernel/hostname")?,
            name => format!("{name}\n"),
        };
        fs::write(self.0.join("hostname"), hostname)?;
        // The kubelet mounts its own over it.
        fs::write(self.0.join("hosts"), of_host("/etc/hosts")?)?;
        let resolver = match &config.dns {
            Some(dns) => resolver(dns).into_bytes(),
            None => of_host("/etc/resolv.conf")?,
        };
        fs::write(self.0.join("resolv.conf"), resolver)?;
        if config.has_own_ipc() {
            fs::create_dir_all(self.0.join(SHARED_MEMORY.0))?;
        }
        Ok(())
    }

    /// Adds them to the mounts of a container that brings none of its own for their places.
    pub(crate) fn add_to(&self, spec: &mut Spec) {
        let readonly = spec
            .root()
            .as_ref()
            .is_some_and(|root| root.readonly().unwrap_or(false));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for (name, place) in FILES {
            let own = mounts.iter().any(|mount| is_at(mount, place));
            if !own && self.0.join(name).exists() {
                mounts.push(bind(&self.0.join(name), place, readonly));
            }
        }
        let (name, place) = SHARED_MEMORY;
        // What containerd has there by default is the container's alone.
        let own = mounts
            .iter()
            .any(|mount| is_at(mount, place) && mount.typ().as_deref() != Some("tmpfs"));
        if !own && self.0.join(name).exists() {
            mounts.retain(|mount| !is_at(mount, place));
            mounts.push(bind(&self.0.join(name), place, false));
        }
        spec.set_mounts(Some(mounts));
    }

    /// Makes the shared memory ready. Only native containers have a `/dev`, so only they ask.
    pub(crate) fn share_memory(&self) -> Result<(), JailError> {
        let place = self.0.join(SHARED_MEMORY.0);
        if place.is_dir() {
            jail::mount_shared_memory(&place)?;
        }
        Ok(())
    }

    /// Takes the shared memory away, so that the directory can go.
    pub(crate) fn release(&self) -> Result<(), JailError> {
        jail::unmount_shared_memory(&self.0.join(SHARED_MEMORY.0))
    }
}

/// A node may have none.
fn of_host(path: &str) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn resolver(dns: &Dns) -> String {
    let mut text = String::new();
    let mut line = |word: &str, values: &[String]| {
        if !values.is_empty() {
            text.push_str(&format!("{word} {}\n", values.join(" ")));
        }
    };
    line("search", &dns.searches);
    for server in &dns.servers {
        line("nameserver", std::slice::from_ref(server));
    }
    line("options", &dns.options);
    text
}

fn is_at(mount: &Mount, place: &str) -> bool {
    // Compared by components: a slash at the end means nothing.
    mount.destination() == Path::new(place)
}

fn bind(source: &Path, place: &str, readonly: bool) -> Mount {
    let mut mount = Mount::default();
    let access = if readonly { "ro" } else { "rw" };
    mount
        .set_source(Some(source.to_owned()))
        .set_destination(place.into())
        .set_typ(Some("bind".to_owned()))
        .set_options(Some(
            ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
        ));
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_as_containerd_writes_it() {
        let dns = Dns {
            servers: vec!["10.0.0.10".into(), "1.1.1.1".into()],
            searches: vec!["a".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolver(&dns),
            "search a b\nnameserver 10.0.0.10\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
        assert_eq!(resolver(&Dns::default()), "");
    }

    #[test]
    fn a_container_keeps_its_own_and_gets_the_rest() {
        let run = tempfile::tempdir().expect("temporary directory");
        let files = PodFiles::of(&RunDir::new(run.path(), "ns", "pod1"));
        files.write(&PodConfig::default()).expect("written");
        let mut spec = Spec::default();
        let hosts = bind(Path::new("/kubelet/hosts"), "/etc/hosts/", false);
        let mut private = Mount::default();
        private
            .set_destination("/dev/shm".into())
            .set_typ(Some("tmpfs".to_owned()));
        spec.set_mounts(Some(vec![hosts, private]));
        files.add_to(&mut spec);
        let mounts = spec.mounts().clone().expect("there");
        let source = |place: &str| {
            let mut found = mounts.iter().filter(|mount| is_at(mount, place));
            let source = found.next().and_then(|mount| mount.source().clone());
            assert!(found.next().is_none(), "two mounts at {place}");
            source
        };
        assert_eq!(source("/etc/hosts"), Some("/kubelet/hosts".into()));
        assert_eq!(source("/etc/hostname"), Some(files.0.join("hostname")));
        assert_eq!(
            source("/etc/resolv.conf"),
            Some(files.0.join("resolv.conf"))
        );
        assert_eq!(source("/dev/shm"), Some(files.0.join("shm")));
    }
}
