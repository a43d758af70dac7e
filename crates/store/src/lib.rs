//! Native code that this node compiled itself, by (digest of the guest bytes, fingerprint of the
//! engine): an [`Artifact`] is an open file below a directory that only root can write.
//!
//! ```text
//! <root>/                                       0700
//!   artifacts/<fingerprint>/<sha256>.cwasm      0444, never written again once it has a name
//!   claims.lock                                 one byte range per key, locked while it is made
//!   notes/<name>                                small facts, e.g. the fingerprint of a runner
//! ```
//!
//! **Trust.** Mapping an artifact executes it, so a file counts only if every directory on the
//! way to it and the file itself belong to root and nobody else may write them; links are not
//! followed.
//!
//! **Single flight.** [`Store::claim`] locks the key's byte of `claims.lock` by open file
//! description: the lock ends with the process that holds it, however it ends, and leaves no
//! file behind.
//!
//! **Crash in the middle.** An artifact is written to a file without a name (`O_TMPFILE`), synced
//! and only then linked. Whatever dies before that leaves nothing; the file system frees it.
//!
//! **Eviction.** Whoever has an artifact open holds a shared `flock` on it, which belongs to the
//! open file description and so to every process that inherited the descriptor: eviction takes
//! only what it can lock exclusively.
//!
//! **Corruption.** A lookup checks that the file is an ELF object whose section table, which its
//! writer puts last, lies within the file: one read of 64 bytes that finds what a lost write
//! leaves (an empty, short or zeroed file). Content is not hashed again on each start (some
//! 5 ms for 10 MB): nobody but root can change it, and root needs no artifact to run code.
#![forbid(unsafe_code)]

mod artifact;
mod claim;
mod directory;
mod error;
mod eviction;
mod inventory;
mod key;
mod lock;
mod note;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plan::Digest;

pub use artifact::Artifact;
pub use claim::{Claim, Slot};
pub use error::{Fault, StoreError};
pub use eviction::Evicted;
pub use inventory::{Entry, Flaw, Inventory};

use directory::Trusted;
use key::Key;

/// How much the store may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all artifacts together. Enforced after each [`Slot::publish`]; what is in use
    /// stays, even if that is more.
    pub max_bytes: u64,
}

/// The store. Cheap to clone; all clones share the open directories.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: Trusted,
    artifacts: Trusted,
    limits: Limits,
}

impl Store {
    /// Opens the store at `root`, an absolute path, and makes what is missing of it.
    ///
    /// # Errors
    /// [`StoreError::Untrusted`] where a directory on the way is a link, belongs to another user
    /// than root, or is writable by others; [`StoreError::Io`] where it cannot be made.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, StoreError> {
        Self::open_as(root, limits, rustix::process::geteuid().as_raw())
    }

    /// [`Store::open`] with the user id that everything must belong to, for tests; elsewhere it
    /// is the effective one, root's.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_as(root: &Path, limits: Limits, owner: u32) -> Result<Self, StoreError> {
        let directory = Trusted::walk(root, owner)?;
        let artifacts = directory.subdirectory("artifacts")?;
        Ok(Self(Arc::new(Inner {
            path: root.to_owned(),
            root: directory,
            artifacts,
            limits,
        })))
    }

    /// The store at `root` as it is there, to be looked at: makes nothing. `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn existing(root: &Path, limits: Limits) -> Result<Option<Self>, StoreError> {
        let owner = rustix::process::geteuid().as_raw();
        let Some(directory) = Trusted::find(root, owner)? else {
            return Ok(None);
        };
        let Some(artifacts) = directory.existing("artifacts")? else {
            return Ok(None);
        };
        Ok(Some(Self(Arc::new(Inner {
            path: root.to_owned(),
            root: directory,
            artifacts,
            limits,
        }))))
    }

    /// All that lies in it, and what is wrong with it. Changes nothing, and counts as no use.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a directory cannot be listed.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        inventory::take(&self.0)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The artifact of a guest for an engine, if there is a sound one.
    ///
    /// The artifact returned is not evicted as long as its descriptor, or a copy of it in any
    /// process, is open. Counts as a use (to the minute).
    ///
    /// # Errors
    /// [`StoreError::Untrusted`] if the file belongs to somebody else or others may write it,
    /// [`StoreError::Io`] if it cannot be read. A file that is broken is no error: it is reported
    /// in the log and counts as missing, so that it is made again.
    pub fn lookup(
        &self,
        guest: &Digest,
        fingerprint: &str,
    ) -> Result<Option<Artifact>, StoreError> {
        artifact::open(&self.0, &Key::new(guest, fingerprint)?)
    }

    /// [`Store::lookup`] that counts as no use.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn peek(&self, guest: &Digest, fingerprint: &str) -> Result<Option<Artifact>, StoreError> {
        artifact::peek(&self.0, &Key::new(guest, fingerprint)?)
    }

    /// Waits until nobody else makes this artifact, then gives it, or the right to make it.
    ///
    /// Blocks as long as others compile; call it where that is allowed.
    ///
    /// # Errors
    /// As [`Store::lookup`]; [`StoreError::Io`] if the store cannot be written.
    pub fn claim(&self, guest: &Digest, fingerprint: &str) -> Result<Claim, StoreError> {
        let key = Key::new(guest, fingerprint)?;
        if let Some(found) = artifact::open(&self.0, &key)? {
            return Ok(Claim::Hit(found));
        }
        let file = self.lock_file()?;
        lock::wait(&file, &key).map_err(|source| self.locking(source))?;
        self.claimed(key, file)
    }

    /// [`Store::claim`] that does not wait: `None` while somebody else makes it.
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub fn try_claim(
        &self,
        guest: &Digest,
        fingerprint: &str,
    ) -> Result<Option<Claim>, StoreError> {
        let key = Key::new(guest, fingerprint)?;
        if let Some(found) = artifact::open(&self.0, &key)? {
            return Ok(Some(Claim::Hit(found)));
        }
        let file = self.lock_file()?;
        if !lock::attempt(&file, &key).map_err(|source| self.locking(source))? {
            return Ok(None);
        }
        self.claimed(key, file).map(Some)
    }

    /// Takes an artifact out, because the engine could not use it; who has it open keeps it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn discard(&self, guest: &Digest, fingerprint: &str) -> Result<(), StoreError> {
        let key = Key::new(guest, fingerprint)?;
        let file = self.lock_file()?;
        lock::wait(&file, &key).map_err(|source| self.locking(source))?;
        artifact::unlink(&self.0, &key)
    }

    /// Removes the artifacts that were not used for longest until `keep_bytes` are left, and
    /// what a crash left behind. Never one that is in use.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn evict(&self, keep_bytes: u64) -> Result<Evicted, StoreError> {
        self.sweep_stale()?;
        eviction::evict(&self.0, keep_bytes)
    }

    /// Removes temporary files whose maker is gone: of artifacts, on file systems without
    /// `O_TMPFILE`, and of notes. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sweep_stale(&self) -> Result<usize, StoreError> {
        eviction::sweep(&self.0)
    }

    /// A small fact that was kept by [`Store::keep_note`] under this name.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Untrusted`], [`StoreError::Io`].
    pub fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        note::read(&self.0, name)
    }

    /// Keeps a small fact (at most 4 KiB) under a name, in place of an earlier one.
    ///
    /// # Errors
    /// As [`Store::note`].
    pub fn keep_note(&self, name: &str, text: &str) -> Result<(), StoreError> {
        note::write(&self.0, name, text)
    }

    /// With the key's lock held: somebody may have made it while we waited.
    fn claimed(&self, key: Key, lock: File) -> Result<Claim, StoreError> {
        match artifact::open(&self.0, &key)? {
            Some(found) => Ok(Claim::Hit(found)),
            None => Slot::new(self.clone(), key, lock).map(Claim::Make),
        }
    }

    fn lock_file(&self) -> Result<File, StoreError> {
        self.0.lock_file()
    }

    fn locking(&self, source: std::io::Error) -> StoreError {
        StoreError::io("lock", self.0.lock_path(), source)
    }
}

impl Inner {
    /// The file of locks, opened anew: locks belong to the open file description.
    fn lock_file(&self) -> Result<File, StoreError> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDWR | OFlags::CREATE;
        self.root
            .open_file(LOCK, flags, Mode::from_raw_mode(0o600))
            .map(|file: OwnedFd| File::from(file))
            .map_err(|source| StoreError::io("open for writing", self.lock_path(), source))
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK)
    }
}

/// Name of the file of locks.
const LOCK: &str = "claims.lock";

#[cfg(test)]
mod tests;
