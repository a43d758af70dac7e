use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, unlinkat};
use rustix::io::Errno;

use crate::key::Key;
use crate::{Inner, StoreError, directory};

/// A compiled program of our own, open and held: while any process has this descriptor, or one
/// inherited from it, the file is not evicted.
///
/// Only the store makes one. Dropping it lets go; a process that has it mapped keeps the mapping
/// anyway.
#[derive(Debug)]
pub struct Artifact {
    file: File,
    size: u64,
}

impl Artifact {
    /// `file` must hold a shared lock.
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// The file, read-only, to be mapped or given to a process.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The descriptor for good; the hold goes with it.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.file.into()
    }
}

/// Uses are noted to this accuracy, so that not every start writes to the disk.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// Opens, holds and checks an artifact, and notes that it is used.
pub(crate) fn open(store: &Inner, key: &Key) -> Result<Option<Artifact>, StoreError> {
    let found = peek(store, key)?;
    if let Some(artifact) = &found {
        note_use(&artifact.file);
    }
    Ok(found)
}

/// Opens, holds and checks an artifact.
pub(crate) fn peek(store: &Inner, key: &Key) -> Result<Option<Artifact>, StoreError> {
    let Some(directory) = store.artifacts.existing(&key.fingerprint)? else {
        return Ok(None);
    };
    let path = directory.path().join(key.file());
    let failed = |what, source| StoreError::io(what, &path, source);
    let file = match directory.open_file(&key.file(), OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(StoreError::Untrusted {
                path: path.clone(),
                why: "it is a symbolic link".to_owned(),
            });
        }
        Err(error) => return Err(failed("open", error)),
    };
    // Waits for an eviction that has it in hand, a few microseconds.
    file.lock_shared().map_err(|error| failed("lock", error))?;
    let status = fstat(&file).map_err(|errno| failed("examine", errno.into()))?;
    directory::check(&status, FileType::RegularFile, &path, directory.owner())?;
    if status.st_nlink == 0 {
        // Evicted between opening and locking.
        return Ok(None);
    }
    if let Err(why) = whole(&file).map_err(|error| failed("read", error))? {
        tracing::warn!(path = %path.display(), why, "artifact is broken and will be made again");
        return Ok(None);
    }
    let size = u64::try_from(status.st_size).unwrap_or(0);
    Ok(Some(Artifact::new(file, size)))
}

/// Removes the name. The caller has the key's lock.
pub(crate) fn unlink(store: &Inner, key: &Key) -> Result<(), StoreError> {
    let Some(directory) = store.artifacts.existing(&key.fingerprint)? else {
        return Ok(());
    };
    match unlinkat(&directory, key.file(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(StoreError::io(
            "remove",
            directory.path().join(key.file()),
            errno,
        )),
    }
}

/// Whether anybody has the artifact. If not, it is locked against others until `file` closes.
pub(crate) fn is_held(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a file is a whole ELF object: its section table comes last, and is there.
///
/// The outer error is the disk's, the inner one says what is wrong with the file.
pub(crate) fn whole(file: &File) -> io::Result<Result<(), &'static str>> {
    let size = file.metadata()?.size();
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err("it is shorter than a header"));
        }
        Err(error) => return Err(error),
    }
    Ok(whole_elf(&header, size))
}

fn whole_elf(header: &[u8; 64], size: u64) -> Result<(), &'static str> {
    // ELF-64, little endian (gabi, "ELF Header"): all that we build for.
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err("it does not begin like one");
    }
    let u16_at = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let mut offset = [0; 8];
    offset.copy_from_slice(&header[0x28..0x30]);
    let table = u64::from_le_bytes(offset);
    let (entry, count) = (u16_at(0x3a), u16_at(0x3c));
    if table == 0 || entry == 0 || count == 0 {
        return Err("it has no section table");
    }
    match table.checked_add(entry * count) {
        Some(end) if end <= size => Ok(()),
        _ => Err("it is cut off"),
    }
}

/// Sets the time of last use, if the last one is some time ago. Best effort: a read-only store
/// still serves what it has.
fn note_use(file: &File) {
    let now = SystemTime::now();
    let recent = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|then| {
            now.duration_since(then)
                .is_ok_and(|age| age < USE_RESOLUTION)
        });
    if !recent {
        let _ = file.set_modified(now);
    }
}
