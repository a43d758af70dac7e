//! Numbers in memory that processes share: a file of words that whoever has it mapped adds to.
//!
//! **Size.** To touch what lies behind a file's end, or what its file system has no room for, kills a process (SIGBUS). So a
//! file gets all its bytes before anybody can map it, and nobody but root can make it shorter: the runner closes its
//! descriptor before it enters the jail, and keeps the mapping alone, by which nothing but the words can be changed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::numbers::{BYTES, WORDS};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapped file of numbers. To count is one addition to a word: no lock, no system call.
#[derive(Debug)]
pub struct Numbers(NonNull<AtomicU64>);

// SAFETY: it is memory that many processes write to at once already; only atomic operations touch it.
unsafe impl Send for Numbers {}
// SAFETY: likewise.
unsafe impl Sync for Numbers {}

impl Numbers {
    /// The file at this path, which is made where it is not there, full of zeros and for root alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(path: &Path) -> io::Result<Self> {
        let open = || {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It gets its name when it is whole, and the first one wins: others may be counting there already.
                // Until then it has one of this thread's own. A leftover is of one that had its number, and is dead.
                let own = rustix::thread::gettid().as_raw_nonzero();
                let temporary = path.with_extension(format!("new-{own}"));
                let _ = fs::remove_file(&temporary);
                let made = page(&temporary).and_then(|_| fs::hard_link(&temporary, path));
                let _ = fs::remove_file(&temporary);
                match made {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => open()?,
                }
            }
            opened => opened?,
        };
        Self::map(file.as_fd())
    }

    /// What an open file of numbers holds.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no such file, and what the system says.
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        let regular =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        if !regular || usize::try_from(stat.st_size) != Ok(BYTES) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so nothing that is mapped is replaced.
        let place = unsafe {
            mmap(
                std::ptr::null_mut(),
                BYTES,
                access,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        Self::of(place)
    }

    /// Numbers that nobody else sees, for who was given none.
    ///
    /// # Errors
    /// What the system says.
    pub fn unshared() -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let place =
            unsafe { mmap_anonymous(std::ptr::null_mut(), BYTES, access, MapFlags::PRIVATE) }?;
        Self::of(place)
    }

    fn of(place: *mut std::ffi::c_void) -> io::Result<Self> {
        NonNull::new(place.cast())
            .map(Self)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Adds to a word; a word that there is not is ignored.
    pub fn add(&self, word: usize, by: u64) {
        if word < WORDS {
            // SAFETY: the mapping has `WORDS` words, aligned as a page is, and lives as long as this.
            unsafe { self.0.add(word).as_ref() }.fetch_add(by, Ordering::Relaxed);
        }
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody has it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

/// Makes an empty file of numbers for somebody else to map.
///
/// # Errors
/// What the system says, e.g. that the file system is full. Nothing is left then.
pub fn page(path: &Path) -> io::Result<OwnedFd> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // Written, not only made as long: that is what takes the room.
    if let Err(error) = file.write_all(&[0; BYTES]) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use plan::numbers::Words;

    use super::*;

    fn words(path: &Path) -> Words {
        Words::of(&fs::read(path).expect("readable"))
    }

    #[test]
    fn all_who_map_a_file_count_in_it_and_nothing_is_lost() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("n");
        let all = std::sync::Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                // Each makes or finds it, all at once, and maps it for itself, as processes do.
                scope.spawn(|| {
                    all.wait();
                    let numbers = Numbers::at(&path).expect("mapped");
                    for _ in 0..10_000 {
                        numbers.add(3, 2);
                    }
                });
            }
        });
        let words = words(&path);
        assert_eq!((words.get(3), words.get(2), words.get(4)), (320_000, 0, 0));
        let names = fs::read_dir(dir.path()).expect("listed").count();
        assert_eq!(names, 1, "nothing else is left there");
    }

    #[test]
    fn a_page_counts_beyond_its_descriptor_and_its_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("n");
        let numbers = Numbers::map(page(&path).expect("made").as_fd()).expect("mapped");
        numbers.add(WORDS - 1, 7);
        numbers.add(WORDS, 7);
        assert_eq!(words(&path).get(WORDS - 1), 7);
        fs::remove_file(&path).expect("removed");
        numbers.add(0, 1);
        page(&path).expect("another");
        assert_eq!(words(&path), Words::default());
        assert!(page(&path).is_err(), "one that is there is left alone");
    }

    #[test]
    fn what_is_no_such_file_is_not_mapped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let short = dir.path().join("short");
        fs::write(&short, [0; 8]).expect("written");
        for path in [short.as_path(), Path::new("/dev/null")] {
            let file = File::options().read(true).write(true).open(path);
            let refused = Numbers::map(file.expect("opened").as_fd()).expect_err("not mapped");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
        assert!(Numbers::at(&short).is_err());
        Numbers::unshared().expect("mapped").add(5, 1);
    }
}
