//! The host as this program sees it: its files below a mount point, its programs through its namespaces.
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

/// The hidden command by which this program executes another one in the host's mount namespace: entering a namespace
/// needs a process with a single thread, which the main process is not.
pub const IN_HOST: &str = "in-host";

/// How many links a path may lead through (Linux allows 40).
const LINKS: usize = 40;

/// The root of the host's file system, as it is mounted here.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// `/host` in a pod, `/` on the node itself.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where its root lies here.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the host lies here. Links are followed as the host would: an absolute one stays below the root.
    /// What does not exist is no error, so that it can be made.
    ///
    /// # Errors
    /// When a link cannot be read, or leads in a circle.
    pub fn path(&self, path: &Path) -> io::Result<PathBuf> {
        let mut left: Vec<std::ffi::OsString> = names(path);
        left.reverse();
        let mut walked = PathBuf::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let next = walked.join(&name);
            let here = self.root.join(&next);
            if !here.is_symlink() {
                walked = next;
                continue;
            }
            links += 1;
            if links > LINKS {
                return Err(io::Error::other(format!(
                    "{} leads through more than {LINKS} links",
                    path.display()
                )));
            }
            let target = std::fs::read_link(&here)?;
            if target.is_absolute() {
                walked = PathBuf::new();
            }
            left.extend(names(&target).into_iter().rev());
        }
        Ok(self.root.join(walked))
    }

    /// Whether something is there.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.path(path).is_ok_and(|path| path.exists())
    }
}

/// The named parts of a path; `..` is one of them, the root and `.` are not.
fn names(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// A command that runs in the mount namespace of a process of the host. `name` is what it is to be called by itself:
/// programs that are several in one (k3s) choose by it.
#[must_use]
pub fn command_in(pid: u32, program: &Path, name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(IN_HOST)
        .arg(pid.to_string())
        .arg(program)
        .arg(name)
        .stdin(Stdio::null());
    command
}

/// The other side of [`command_in`]: enters and executes. Returns only when it could not.
///
/// # Errors
/// What could not be entered or executed.
pub fn enter(arguments: &[String]) -> Result<std::convert::Infallible> {
    let [pid, program, name, rest @ ..] = arguments else {
        bail!("{IN_HOST} takes a process id, a program, its name and its arguments");
    };
    let (own, theirs) = ("/proc/self/ns/mnt", format!("/proc/{pid}/ns/mnt"));
    let id = |path: &str| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let same = id(own)? == id(&theirs).with_context(|| format!("look at {theirs}"))?;
    if !same {
        let namespace = File::open(&theirs).with_context(|| format!("open {theirs}"))?;
        setns(&namespace, CloneFlags::CLONE_NEWNS)
            .with_context(|| format!("enter the mount namespace of process {pid}"))?;
    }
    let error = Command::new(program).arg0(name).args(rest).exec();
    Err(error).with_context(|| format!("execute {program}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_below_the_root() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("run/containerd")).expect("make");
        fs::create_dir_all(root.path().join("var/lib")).expect("make");
        symlink("/run", root.path().join("var/run")).expect("link");
        symlink("../../run", root.path().join("var/lib/relative")).expect("link");
        symlink("circle", root.path().join("circle")).expect("link");
        let host = Host::new(root.path());
        let expected = root.path().join("run/containerd/containerd.sock");
        for path in [
            "/var/run/containerd/containerd.sock",
            "/var/lib/relative/containerd/containerd.sock",
            "/../run/containerd/containerd.sock",
        ] {
            assert_eq!(host.path(Path::new(path)).expect("resolves"), expected);
        }
        assert!(host.path(Path::new("/circle")).is_err());
        assert!(host.exists(Path::new("/var/run/containerd")));
        assert!(!host.exists(Path::new("/etc")));
    }

    #[test]
    fn on_the_node_itself_links_are_followed_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("a path without links");
        fs::write(dir.join("file"), "").expect("write");
        symlink("file", dir.join("link")).expect("link");
        // What is renamed onto a link would replace the link, and not what it leads to.
        let host = Host::new("/");
        assert_eq!(
            host.path(&dir.join("link")).expect("resolves"),
            dir.join("file")
        );
    }
}
