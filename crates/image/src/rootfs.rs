use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;

use crate::error::printable;
use crate::{Fault, GUEST_LIMIT, Guest, sniff};

/// Where natives are looked for if the environment has no `PATH`; the kernel's and runc's habit.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that an entry point names.
#[derive(Debug)]
pub struct Found {
    /// The file, read-only, a regular one, offset 0.
    pub file: File,
    /// Its path in the rootfs as it was looked up, for messages; links in it are not resolved.
    pub path: String,
    /// What it looks like.
    pub guest: Guest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why an entry point names no file that can run.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The image has no wasm layer, and the command names no file.
    #[error("the image has no wasm layer, so the command must name a file, such as `/app.wasm`")]
    Unnamed,
    /// There is no such file.
    #[error("entry point `{}` does not exist in the image", printable(.0))]
    NotFound(String),
    /// A name without a slash that is neither in the working directory nor on the path.
    #[error(
        "entry point `{}` is neither a wasm file in the working directory `{}` nor in PATH ({})",
        printable(name),
        printable(cwd),
        printable(path)
    )]
    NotOnPath {
        /// The name.
        name: String,
        /// The working directory.
        cwd: String,
        /// The path searched.
        path: String,
    },
    /// A symbolic link leads nowhere; one that points out of the rootfs is resolved inside.
    #[error(
        "entry point `{}` does not exist in the image: `{}` is a symbolic link to `{}`, which is missing there",
        printable(entry),
        printable(link),
        printable(target)
    )]
    Dangling {
        /// The entry point.
        entry: String,
        /// The link.
        link: String,
        /// Where it points.
        target: String,
    },
    /// Links that lead to themselves, or too many.
    #[error("entry point `{}` has too many symbolic links", printable(.0))]
    Loop(String),
    /// A directory.
    #[error("entry point `{}` is a directory", printable(.0))]
    Directory(String),
    /// A device, pipe or socket.
    #[error("entry point `{}` is no regular file", printable(.0))]
    Special(String),
    /// Native code made elsewhere.
    #[error("entry point `{}` is precompiled native code, which is never run: put the .wasm itself into the image, it is compiled on the node", printable(.0))]
    Precompiled(String),
    /// More than a guest may have.
    #[error(
        "entry point `{}` has {size} bytes, a guest may have {GUEST_LIMIT}",
        printable(path)
    )]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        size: u64,
    },
    /// The system call that keeps the search inside the rootfs does not exist.
    #[error("cannot look into the image: openat2 is missing, Linux 5.6 or later is needed")]
    OldKernel,
    /// Any other failure.
    #[error("cannot open entry point `{}` in the image", printable(path))]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl EntryError {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::NotFound(_) | Self::NotOnPath { .. } | Self::Dangling { .. } => Fault::NotFound,
            Self::Unnamed
            | Self::Loop(_)
            | Self::Directory(_)
            | Self::Special(_)
            | Self::Precompiled(_)
            | Self::TooLarge { .. } => Fault::Invalid,
            Self::OldKernel => Fault::Precondition,
            Self::Open { .. } => Fault::Internal,
        }
    }
}

/// Finds the file that `entry` (the part of `args[0]` before `#`) names in the rootfs whose
/// directory is `root`; `cwd` is the spec's working directory, `path` its `PATH`.
///
/// An absolute name is what it says; one with a slash is relative to `cwd`; a bare one is a wasm
/// file in `cwd`, else the first executable file on `path`, as natives are found. Links are
/// followed inside the rootfs and cannot lead out of it, `..` neither.
///
/// # Errors
/// [`EntryError`], which names the path.
pub fn locate(
    root: BorrowedFd<'_>,
    entry: &str,
    cwd: &str,
    path: Option<&str>,
) -> Result<Found, EntryError> {
    if entry.is_empty() {
        return Err(EntryError::Unnamed);
    }
    if entry.starts_with('/') {
        return open(root, entry);
    }
    let in_cwd = format!("{}/{entry}", cwd.trim_end_matches('/'));
    if entry.contains('/') {
        return open(root, &in_cwd);
    }
    match open(root, &in_cwd) {
        Ok(found) if found.guest.is_wasm() => return Ok(found),
        // Natives are not looked for in the working directory; but what is broken there and
        // was meant for us is worth more to its author than "not found".
        Ok(_) | Err(EntryError::NotFound(_) | EntryError::Directory(_)) => {}
        Err(error) => return Err(error),
    }
    let path = path.unwrap_or(DEFAULT_PATH);
    for directory in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = format!("{}/{entry}", directory.trim_end_matches('/'));
        match open(root, &candidate) {
            Ok(found) if found.guest.is_wasm() || is_executable(&found.file) => return Ok(found),
            Err(error @ (EntryError::Precompiled(_) | EntryError::OldKernel)) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Err(EntryError::NotOnPath {
        name: entry.to_owned(),
        cwd: cwd.to_owned(),
        path: path.to_owned(),
    })
}

fn open(root: BorrowedFd<'_>, path: &str) -> Result<Found, EntryError> {
    let failed = |source: io::Error| EntryError::Open {
        path: path.to_owned(),
        source,
    };
    let place = look_up(root, path, OFlags::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => missing(root, path),
        Errno::LOOP => EntryError::Loop(path.to_owned()),
        Errno::NOSYS => EntryError::OldKernel,
        errno => failed(errno.into()),
    })?;
    let status = fstat(&place).map_err(|errno| failed(errno.into()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(EntryError::Directory(path.to_owned())),
        _ => return Err(EntryError::Special(path.to_owned())),
    }
    // Only now that it is known to be a file is it really opened: opening a device of the
    // image's author could do things.
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(failed)?;
    let mut head = [0; 4096];
    let count = read_head(&file, &mut head).map_err(failed)?;
    let guest = match sniff(&head[..count]) {
        Guest::Precompiled => return Err(EntryError::Precompiled(path.to_owned())),
        // A comment longer than the beginning that was read.
        Guest::Unknown if is_named_text(path) && looks_like_text(&head[..count]) => Guest::Text,
        guest => guest,
    };
    let size = u64::try_from(status.st_size).unwrap_or(0);
    if guest.is_wasm() && size > GUEST_LIMIT {
        return Err(EntryError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    Ok(Found {
        file,
        path: path.to_owned(),
        guest,
        size,
    })
}

/// Looks a path up inside `root`, which it cannot leave, without opening what is there.
fn look_up(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // The kernel answers "try again" if something was renamed while it looked at `..`.
    for _ in 0..16 {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}

/// Says whether a missing file is missing for a link's sake: the first component that is a link
/// and leads nowhere.
fn missing(root: BorrowedFd<'_>, path: &str) -> EntryError {
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .filter(|at| *at > 0)
        .chain([path.len()]);
    for end in ends {
        let link = &path[..end];
        let Ok(place) = look_up(root, link, OFlags::NOFOLLOW) else {
            break;
        };
        let Ok(target) = readlinkat(&place, c"", Vec::new()) else {
            continue;
        };
        if look_up(root, link, OFlags::empty()).is_err() {
            return EntryError::Dangling {
                entry: path.to_owned(),
                link: link.to_owned(),
                target: target.to_string_lossy().into_owned(),
            };
        }
    }
    EntryError::NotFound(path.to_owned())
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < head.len() {
        match file.read_at(&mut head[count..], count as u64) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn is_executable(file: &File) -> bool {
    fstat(file).is_ok_and(|status| status.st_mode & 0o111 != 0)
}

fn is_named_text(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".wat")
}

/// Non-empty UTF-8 without NUL, as far as it goes: the end may cut a character in two.
fn looks_like_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    !head.is_empty() && valid && !head.contains(&0)
}

#[cfg(test)]
#[path = "rootfs/tests.rs"]
mod tests;
