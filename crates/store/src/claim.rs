use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, renameat, unlinkat};
use rustix::io::Errno;

use crate::artifact::{self, Artifact};
use crate::eviction::Evicted;
use crate::key::Key;
use crate::{Store, StoreError};

/// What [`Store::claim`] gives.
#[derive(Debug)]
pub enum Claim {
    /// It is there.
    Hit(Artifact),
    /// It is the caller's to make; everybody else who wants it waits.
    Make(Slot),
}

/// The right to make one artifact, and the file to make it in.
///
/// Dropping it gives the right to the next one who waits, and leaves nothing.
#[derive(Debug)]
pub struct Slot {
    store: Store,
    key: Key,
    temporary: Temporary,
    /// Closing it gives the key's lock back, so it comes last.
    _lock: File,
}

#[derive(Debug)]
enum Temporary {
    /// A file that never had a name: it is gone with its last descriptor.
    Nameless(File),
    /// Where the file system knows no such files.
    Named(File),
}

impl Slot {
    /// The caller gives the key's lock.
    pub(crate) fn new(store: Store, key: Key, lock: File) -> Result<Self, StoreError> {
        let temporary = match nameless(&store) {
            Ok(file) => Temporary::Nameless(file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Temporary::Named(named(&store, &key)?)
            }
            Err(errno) => {
                let directory = store.0.artifacts.path();
                return Err(StoreError::io("make a file in", directory, errno));
            }
        };
        Ok(Self {
            store,
            key,
            temporary,
            _lock: lock,
        })
    }

    /// As [`Slot::new`] on a file system without nameless files.
    #[cfg(test)]
    pub(crate) fn with_named_file(self) -> Result<Self, StoreError> {
        let file = named(&self.store, &self.key)?;
        Ok(Self {
            store: self.store.clone(),
            key: self.key.clone(),
            _lock: self._lock.try_clone().expect("a descriptor"),
            temporary: Temporary::Named(file),
        })
    }

    /// The file to write the artifact to, empty, from offset 0. It may be given to the process
    /// that compiles; that process must be gone before [`Slot::publish`].
    #[must_use]
    pub fn file(&self) -> &File {
        match &self.temporary {
            Temporary::Nameless(file) | Temporary::Named(file) => file,
        }
    }

    /// Checks, syncs and names the artifact, then keeps the store below its limit.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if what was written is no whole artifact, [`StoreError::Io`]
    /// if it cannot be made to last. Nothing is left then.
    pub fn publish(self) -> Result<Artifact, StoreError> {
        self.publish_and_evict().map(|(published, _)| published)
    }

    /// [`Slot::publish`], with what had to go for it.
    ///
    /// # Errors
    /// As there.
    pub fn publish_and_evict(self) -> Result<(Artifact, Evicted), StoreError> {
        let published = self.name_it()?;
        let store = self.store.clone();
        // The next ones may go on; room is made behind their backs.
        drop(self);
        let evicted = store.evict(store.0.limits.max_bytes);
        let evicted = evicted.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot keep the store below its limit");
            Evicted::default()
        });
        Ok((published, evicted))
    }

    fn name_it(&self) -> Result<Artifact, StoreError> {
        let artifacts = &self.store.0.artifacts;
        let path = artifacts
            .path()
            .join(&self.key.fingerprint)
            .join(self.key.file());
        let failed = |what| {
            let path = path.clone();
            move |source: io::Error| StoreError::io(what, path, source)
        };
        let file = self.file();
        if let Err(why) = artifact::whole(file).map_err(failed("read"))? {
            return Err(StoreError::Incomplete {
                guest: self.key.guest,
                why,
            });
        }
        // For all to read who are handed a descriptor of it: a runner that is root of its own user namespace alone opens it
        // once more by that. The directories above are root's.
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(failed("set the mode of"))?;
        file.sync_all().map_err(failed("write"))?;
        // Read-only, as every user has it, and held before it can be found: so there is no
        // moment in which it could be evicted.
        let readable = File::open(own(file)).map_err(failed("open"))?;
        readable.lock_shared().map_err(failed("lock"))?;
        let size = readable.metadata().map_err(failed("examine"))?.len();

        // An eviction may remove the directory while it is empty.
        for _ in 0..16 {
            let directory = artifacts.subdirectory(&self.key.fingerprint)?;
            match self.link_into(&directory) {
                Ok(()) => {
                    directory.sync()?;
                    artifacts.sync()?;
                    return Ok(Artifact::new(readable, size));
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("name")(errno.into())),
            }
        }
        Err(failed("name")(Errno::NOENT.into()))
    }

    /// Nobody else names this key: its lock is held. What may be in the way is broken.
    fn link_into(&self, directory: &crate::directory::Trusted) -> Result<(), Errno> {
        let name = self.key.file();
        match &self.temporary {
            Temporary::Nameless(file) => {
                match unlinkat(directory, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
                linkat(CWD, own(file), directory, &name, AtFlags::SYMLINK_FOLLOW)
            }
            Temporary::Named(_) => renameat(
                &self.store.0.artifacts,
                self.key.temporary(),
                directory,
                &name,
            ),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if matches!(self.temporary, Temporary::Named(_)) {
            // Gone already if it was published; else a sweep would take it too.
            let _ = unlinkat(
                &self.store.0.artifacts,
                self.key.temporary(),
                AtFlags::empty(),
            );
        }
    }
}

fn nameless(store: &Store) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::openat(&store.0.artifacts, ".", flags, mode).map(File::from)
}

fn named(store: &Store, key: &Key) -> Result<File, StoreError> {
    let artifacts = &store.0.artifacts;
    let name = key.temporary();
    // Left by somebody who died with the key's lock; whoever still writes to it writes to
    // nothing.
    let _ = unlinkat(artifacts, &name, AtFlags::empty());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    artifacts
        .open_file(&name, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(|source| StoreError::io("make", artifacts.path().join(name), source))
}

/// A name for a file that has none: linkat(2) and open(2) follow it.
fn own(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
