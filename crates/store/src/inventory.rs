use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use plan::Digest;
use rustix::fs::{FileType, Mode, OFlags, fstat};

use crate::directory::Trusted;
use crate::key::Key;
use crate::{Inner, StoreError, artifact, directory};

/// What lies in a store.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Its artifacts, by fingerprint and then by guest.
    pub entries: Vec<Entry>,
    /// What lies among them and is none: files half written, whose maker may be at work, and what others put there.
    pub strays: Vec<PathBuf>,
}

/// An artifact, as it lies there.
#[derive(Debug)]
pub struct Entry {
    /// The guest bytes that it was made of.
    pub guest: Digest,
    /// The engine that it was made for.
    pub fingerprint: String,
    /// Bytes.
    pub size: u64,
    /// When it was used last, to the minute.
    pub used: SystemTime,
    /// Whether a process has it open: then nothing removes it.
    pub held: bool,
    /// Why no lookup gives it.
    pub flaw: Option<Flaw>,
}

/// What is wrong with a file of the store.
#[derive(Debug)]
pub enum Flaw {
    /// It is not whole; the next lookup has it made again.
    Broken(&'static str),
    /// Somebody else could have written it, so that lookups fail until it is gone.
    Untrusted(String),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "it is broken: {why}"),
            Self::Untrusted(why) => write!(f, "it is not trusted: {why}"),
        }
    }
}

pub(crate) fn take(store: &Inner) -> Result<Inventory, StoreError> {
    let mut all = Inventory::default();
    for name in store.artifacts.names()? {
        match store.artifacts.existing(&name) {
            Ok(Some(directory)) => of_engine(&name, &directory, &mut all)?,
            // Gone by now.
            Ok(None) => {}
            // A file, a link, a directory of somebody else's: no artifact is looked up there.
            Err(StoreError::Untrusted { path, .. }) => all.strays.push(path),
            Err(error) => return Err(error),
        }
    }
    all.entries
        .sort_by(|a, b| (&a.fingerprint, a.guest.hex()).cmp(&(&b.fingerprint, b.guest.hex())));
    all.strays.sort();
    Ok(all)
}

fn of_engine(
    fingerprint: &str,
    directory: &Trusted,
    all: &mut Inventory,
) -> Result<(), StoreError> {
    for name in directory.names()? {
        let path = directory.path().join(&name);
        let Some(key) = Key::of_file(fingerprint, &name) else {
            all.strays.push(path);
            continue;
        };
        let failed = |what, source: io::Error| StoreError::io(what, &path, source);
        let file = match directory.open_file(&name, OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => File::from(fd),
            // Evicted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                all.strays.push(path);
                continue;
            }
        };
        let status = fstat(&file).map_err(|errno| failed("examine", errno.into()))?;
        let flaw = match directory::check(&status, FileType::RegularFile, &path, directory.owner())
        {
            Err(StoreError::Untrusted { why, .. }) => Some(Flaw::Untrusted(why)),
            Err(error) => return Err(error),
            Ok(()) => artifact::whole(&file)
                .map_err(|error| failed("read", error))?
                .err()
                .map(Flaw::Broken),
        };
        let metadata = file.metadata().map_err(|error| failed("examine", error))?;
        all.entries.push(Entry {
            guest: key.guest,
            fingerprint: key.fingerprint,
            size: metadata.size(),
            used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            held: artifact::is_held(&file).map_err(|error| failed("lock", error))?,
            flaw,
        });
    }
    Ok(())
}
