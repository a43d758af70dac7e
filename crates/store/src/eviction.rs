use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;

use crate::directory::Trusted;
use crate::key::Key;
use crate::{Inner, StoreError, artifact, lock, note};

/// What an eviction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// How many artifacts were removed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the artifacts that are left.
    pub kept_bytes: u64,
    /// How many were due but in use.
    pub held: usize,
}

struct Candidate {
    key: Key,
    used: SystemTime,
    size: u64,
}

/// Removes what was not used for longest until `keep_bytes` are left.
pub(crate) fn evict(store: &Inner, keep_bytes: u64) -> Result<Evicted, StoreError> {
    let mut all = candidates(store)?;
    all.sort_by_key(|candidate| candidate.used);
    let mut done = Evicted {
        kept_bytes: all.iter().map(|candidate| candidate.size).sum(),
        ..Evicted::default()
    };
    for candidate in all {
        if done.kept_bytes <= keep_bytes {
            break;
        }
        if remove(store, &candidate.key)? {
            done.files += 1;
            done.bytes += candidate.size;
            done.kept_bytes -= candidate.size;
        } else {
            done.held += 1;
        }
    }
    if done.files > 0 {
        tracing::info!(files = done.files, bytes = done.bytes, "artifacts evicted");
        remove_empty(store)?;
    }
    Ok(done)
}

/// Removes temporary files that nobody writes any more.
pub(crate) fn sweep(store: &Inner) -> Result<usize, StoreError> {
    let mut removed = 0;
    for name in store.artifacts.names()? {
        let Some(key) = Key::of_temporary(&name) else {
            continue;
        };
        let file = store.lock_file()?;
        let free = lock::attempt(&file, &key)
            .map_err(|source| StoreError::io("lock", store.lock_path(), source))?;
        if free && unlinkat(&store.artifacts, &name, AtFlags::empty()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed + note::sweep(store)?)
}

fn candidates(store: &Inner) -> Result<Vec<Candidate>, StoreError> {
    let mut all = Vec::new();
    for (fingerprint, directory) in directories(store)? {
        for name in directory.names()? {
            let Some(key) = Key::of_file(&fingerprint, &name) else {
                continue;
            };
            // What vanishes meanwhile was evicted by another.
            let Some(metadata) = open(&directory, &name).and_then(|file| file.metadata().ok())
            else {
                continue;
            };
            all.push(Candidate {
                key,
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                size: metadata.size(),
            });
        }
    }
    Ok(all)
}

/// Removes one artifact unless somebody has it, or makes it anew.
fn remove(store: &Inner, key: &Key) -> Result<bool, StoreError> {
    let path = store
        .artifacts
        .path()
        .join(&key.fingerprint)
        .join(key.file());
    let failed = |what, source| StoreError::io(what, &path, source);
    let guard = store.lock_file()?;
    if !lock::attempt(&guard, key).map_err(|error| failed("lock", error))? {
        return Ok(false);
    }
    let Some(directory) = store.artifacts.existing(&key.fingerprint)? else {
        return Ok(false);
    };
    let Some(file) = open(&directory, &key.file()) else {
        return Ok(false);
    };
    if artifact::is_held(&file).map_err(|error| failed("lock", error))? {
        return Ok(false);
    }
    // Locked until `file` closes: a lookup that opened it meanwhile waits, then sees that it has
    // no name any more.
    match unlinkat(&directory, key.file(), AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed("remove", errno.into())),
    }
}

/// Directories of engines that have no artifact left.
fn remove_empty(store: &Inner) -> Result<(), StoreError> {
    for (fingerprint, directory) in directories(store)? {
        drop(directory);
        // Refused by the kernel unless it is empty, which is the point.
        let _ = unlinkat(&store.artifacts, &fingerprint, AtFlags::REMOVEDIR);
    }
    Ok(())
}

fn directories(store: &Inner) -> Result<Vec<(String, Trusted)>, StoreError> {
    let mut found = Vec::new();
    for name in store.artifacts.names()? {
        match store.artifacts.existing(&name) {
            Ok(Some(directory)) => found.push((name, directory)),
            // A file, or something that is not ours to judge: no artifact is looked up there.
            Ok(None) | Err(StoreError::Untrusted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn open(directory: &Trusted, name: &str) -> Option<File> {
    directory
        .open_file(name, OFlags::RDONLY, Mode::empty())
        .ok()
        .map(File::from)
}
