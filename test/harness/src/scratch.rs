use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::{self, CGROUPS};
use crate::poll::until_blocking;

/// A socket path has room for 107 bytes; containerd and the shims append up to this many to the scratch directory.
const SOCKET_SUFFIX: usize = 40;

/// A private directory of one test, and a tag that appears in everything which the test brings into the world (paths,
/// cgroups, network devices), so that all of it can be found again.
///
/// It lies below `$SAMPAN_CACHE/run`: on a disk, since overlayfs cannot lie upon overlayfs. Dropping it kills every
/// process that carries the tag, and removes mounts, cgroups, network devices and the directory.
#[derive(Debug)]
pub struct Scratch {
    tag: String,
    dir: PathBuf,
    lock_path: PathBuf,
    /// Held while the owner lives; a scratch directory whose lock is free belongs to nobody and is swept.
    _lock: File,
}

impl Scratch {
    /// Makes a fresh one, after sweeping those of test processes that were killed.
    ///
    /// # Errors
    /// When the directory cannot be made, or its path is too long for the sockets in it.
    pub fn new() -> Result<Self> {
        let run = tools::cache_dir()?.join("run");
        fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        sweep_abandoned(&run)?;
        let tag = format!("t{}", &unique()[..7]);
        let (dir, lock_path) = (run.join(&tag), run.join(format!("{tag}.lock")));
        if dir.as_os_str().len() + SOCKET_SUFFIX > 107 {
            bail!(
                "{} is too long for sockets below it: set SAMPAN_CACHE to a shorter path",
                dir.display()
            );
        }
        let lock =
            File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock()
            .with_context(|| format!("lock {}", lock_path.display()))?;
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            tag,
            dir,
            lock_path,
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tag: a `t` and seven hexadecimal digits.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Where the containerd of this test listens.
    #[must_use]
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }

    /// Notes a container, so that leftovers named after it are found.
    pub fn remember(&self, namespace: &str, id: &str) {
        if let Err(error) = leftovers::note_id(&self.dir, namespace, id) {
            warn(&format!("note the container {id}: {error}"));
        }
    }

    /// Kills every process that carries `mark` (the id of a container, as part of no other one's) and all below it, and
    /// removes mounts and cgroups of that name: for what its own runtime cannot take down.
    ///
    /// # Errors
    /// When a process does not die, or a cgroup cannot be removed.
    pub fn end(&self, mark: &str) -> Result<()> {
        end(mark)
    }

    /// The parent of all cgroups of this test, from the root of each hierarchy.
    #[must_use]
    pub fn cgroup_parent(&self) -> String {
        format!("/sampan-{}", self.tag)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("SAMPAN_KEEP").is_some() {
            warn(&format!(
                "SAMPAN_KEEP is set: leaving {} and all that belongs to it",
                self.dir.display()
            ));
            return;
        }
        if let Err(error) = sweep(&self.tag, &self.dir) {
            // Never panics: the test may already be failing, and its reason matters more.
            warn(&format!("clean up {}: {error:#}", self.dir.display()));
            return;
        }
        drop(fs::remove_file(&self.lock_path));
    }
}

#[allow(
    clippy::print_stderr,
    reason = "the only way to tell from a destructor in a test"
)]
fn warn(what: &str) {
    eprintln!("harness: {what}");
}

/// Sixteen random hexadecimal digits.
#[must_use]
pub fn unique() -> String {
    // The standard library seeds every RandomState from the system's random numbers.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("c.sock")
}

fn sweep_abandoned(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run).with_context(|| format!("list {}", run.display()))? {
        let path = entry?.path();
        let Some(tag) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".lock"))
        else {
            continue;
        };
        // It may vanish under us: its owner has just finished.
        let Ok(lock) = File::open(&path) else {
            continue;
        };
        if lock.try_lock().is_ok() && path.exists() {
            sweep(tag, &run.join(tag)).with_context(|| format!("sweep the abandoned {tag}"))?;
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}

/// Kills the processes that carry the mark and all below them, and removes mounts and cgroups of that name.
fn end(mark: &str) -> Result<()> {
    until_blocking(
        &format!("the end of the processes of {mark}"),
        Duration::from_secs(20),
        || {
            let doomed = with_descendants(leftovers::processes_of(mark));
            for pid in &doomed {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            Ok(doomed.is_empty().then_some(()))
        },
    )?;
    for mount in leftovers::mounts_of(mark).iter().rev() {
        // Detached, since another mount namespace may keep it busy; already gone is fine.
        let _ = umount2(mount.as_path(), MntFlags::MNT_DETACH);
    }
    // Deepest first; a cgroup lingers until the kernel has reaped its last process.
    until_blocking(
        &format!("the removal of the cgroups of {mark}"),
        Duration::from_secs(10),
        || {
            let mut cgroups = leftovers::cgroups_of(&[mark]);
            cgroups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
            let kept = cgroups
                .iter()
                .filter(|path| fs::remove_dir(path).is_err() && path.exists())
                .count();
            Ok((kept == 0).then_some(()))
        },
    )
    .with_context(|| format!("remove the cgroups of {mark} below {CGROUPS}"))
}

/// Removes from the world all that carries the tag.
fn sweep(tag: &str, dir: &Path) -> Result<()> {
    end(tag)?;
    crate::network::remove(tag);
    let mut ids = leftovers::ids_in(dir);
    ids.extend(leftovers::ids_of_bundles(dir));
    for path in leftovers::files_of(tag, &socket_in(dir), &ids) {
        // Whichever of the two it is; what cannot be removed is no reason to keep the rest.
        drop(fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)));
    }
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    // libcni caches results there, whatever its configuration; it is removed only when empty.
    for dir in ["/var/lib/cni/results", "/var/lib/cni"] {
        drop(fs::remove_dir(dir));
    }
    Ok(())
}

/// The processes and all below them: a container's processes need not carry the tag themselves.
fn with_descendants(mut pids: Vec<i32>) -> Vec<i32> {
    let parents = leftovers::parents();
    let mut known: HashSet<i32> = pids.iter().copied().collect();
    let mut next = 0;
    while next < pids.len() {
        let children = parents
            .iter()
            .filter(|(_, parent)| *parent == pids[next])
            .map(|(child, _)| *child);
        pids.extend(
            children
                .filter(|child| known.insert(*child))
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    pids
}
