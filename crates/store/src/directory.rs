use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, fsync, mkdirat, openat};
use rustix::io::Errno;

use crate::StoreError;

/// A directory, opened, that belongs to the store's owner and that nobody else may write.
#[derive(Debug)]
pub(crate) struct Trusted {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

impl Trusted {
    /// Goes down from `/` by descriptors, follows no link, makes what is missing, and checks
    /// each step: who can write a directory on the way could put another one in its place.
    pub(crate) fn walk(path: &Path, owner: u32) -> Result<Self, StoreError> {
        Self::descend(path, owner, open_or_make)
    }

    /// [`Trusted::walk`] that makes nothing: `None` where a directory on the way is missing.
    pub(crate) fn find(path: &Path, owner: u32) -> Result<Option<Self>, StoreError> {
        match Self::descend(path, owner, |parent, name, path, _| {
            open_directory(parent, name, path)
        }) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    fn descend(
        path: &Path,
        owner: u32,
        open: impl Fn(BorrowedFd<'_>, &Path, &Path, u32) -> Result<OwnedFd, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => names.push(name),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(StoreError::Path(path.to_owned()));
                }
            }
        }
        let Some(last) = names.pop().filter(|_| path.is_absolute()) else {
            return Err(StoreError::Path(path.to_owned()));
        };
        let mut here = PathBuf::from("/");
        let mut fd = open_directory(CWD, &here, &here)?;
        for name in names {
            check_ancestor(&stat(&fd, &here)?, &here, owner)?;
            let next = here.join(name);
            fd = open(fd.as_fd(), Path::new(name), &next, 0o755)?;
            here = next;
        }
        check_ancestor(&stat(&fd, &here)?, &here, owner)?;
        let fd = open(fd.as_fd(), Path::new(last), path, 0o700)?;
        Self::new(fd, path.to_owned(), owner)
    }

    fn new(fd: OwnedFd, path: PathBuf, owner: u32) -> Result<Self, StoreError> {
        check(&stat(&fd, &path)?, FileType::Directory, &path, owner)?;
        Ok(Self { fd, path, owner })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// A directory in this one, made if it is missing.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<Self, StoreError> {
        let path = self.path.join(name);
        let fd = open_or_make(self.fd.as_fd(), Path::new(name), &path, 0o700)?;
        Self::new(fd, path, self.owner)
    }

    /// A directory in this one, if there is such.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Self>, StoreError> {
        let path = self.path.join(name);
        match openat(&self.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Self::new(fd, path, self.owner).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(not_opened(errno, &path)),
        }
    }

    /// Opens a file in this directory; never through a link, never waiting.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.fd, name, flags, mode)?)
    }

    /// Names of what is in here; those that are no UTF-8 are none of ours.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |errno: Errno| StoreError::io("list", &self.path, errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Makes names that were added or removed last.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        fsync(&self.fd).map_err(|errno| StoreError::io("sync", &self.path, errno))
    }
}

impl AsFd for Trusted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_directory(parent: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<OwnedFd, StoreError> {
    openat(parent, name, DIRECTORY, Mode::empty()).map_err(|errno| not_opened(errno, path))
}

fn open_or_make(
    parent: BorrowedFd<'_>,
    name: &Path,
    path: &Path,
    mode: u32,
) -> Result<OwnedFd, StoreError> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        Ok(fd) => return Ok(fd),
        Err(errno) => return Err(not_opened(errno, path)),
    }
    let mode = Mode::from_raw_mode(mode);
    match mkdirat(parent, name, mode) {
        Ok(()) => {}
        // Another supervisor was faster.
        Err(Errno::EXIST) => return open_directory(parent, name, path),
        Err(errno) => return Err(StoreError::io("make the directory", path, errno)),
    }
    let fd = open_directory(parent, name, path)?;
    // The umask of whoever started us may have taken bits away.
    fchmod(&fd, mode).map_err(|errno| StoreError::io("set the mode of", path, errno))?;
    Ok(fd)
}

fn not_opened(errno: Errno, path: &Path) -> StoreError {
    match errno {
        // With O_DIRECTORY and O_NOFOLLOW a link answers ENOTDIR (open(2)).
        Errno::NOTDIR | Errno::LOOP => {
            let is_link = path
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_symlink());
            let why = if is_link {
                "it is a symbolic link; set path of [store] to where it leads"
            } else {
                "it is no directory"
            };
            untrusted(path, why.to_owned())
        }
        errno => StoreError::io("open the directory", path, errno),
    }
}

fn stat(fd: &OwnedFd, path: &Path) -> Result<Stat, StoreError> {
    fstat(fd).map_err(|errno| StoreError::io("examine", path, errno))
}

/// What is ours belongs to the owner alone and is written by nobody else.
pub(crate) fn check(
    stat: &Stat,
    kind: FileType,
    path: &Path,
    owner: u32,
) -> Result<(), StoreError> {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let expected = match kind {
            FileType::Directory => "it is no directory",
            _ => "it is no regular file",
        };
        return Err(untrusted(path, expected.to_owned()));
    }
    if stat.st_uid != owner {
        return Err(untrusted(
            path,
            format!("it belongs to user {}, not to user {owner}", stat.st_uid),
        ));
    }
    if stat.st_mode & 0o022 != 0 {
        let mode = stat.st_mode & 0o7777;
        return Err(untrusted(
            path,
            format!("others may write it (mode {mode:04o}); run chmod go-w on it"),
        ));
    }
    Ok(())
}

/// Directories above may be shared as `/tmp` is: with the sticky bit nobody else can rename what
/// is ours.
fn check_ancestor(stat: &Stat, path: &Path, owner: u32) -> Result<(), StoreError> {
    if stat.st_uid != owner && stat.st_uid != 0 {
        return Err(untrusted(
            path,
            format!(
                "it belongs to user {}, who could replace the store",
                stat.st_uid
            ),
        ));
    }
    let by_group = stat.st_mode & 0o020 != 0 && stat.st_gid != 0;
    let by_others = stat.st_mode & 0o002 != 0;
    let sticky = stat.st_mode & 0o1000 != 0;
    if (by_group || by_others) && !sticky {
        let mode = stat.st_mode & 0o7777;
        return Err(untrusted(
            path,
            format!("others may write it (mode {mode:04o}) and could replace the store"),
        ));
    }
    Ok(())
}

fn untrusted(path: &Path, why: String) -> StoreError {
    StoreError::Untrusted {
        path: path.to_owned(),
        why,
    }
}
