//! Every WASI call that reads or could change a file.

use crate::Answer;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, linkat, openat, symlinkat, utimensat,
};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// The time that the `settimes` commands set, in seconds since 1970: recognisable, and in the past.
const THEN: u64 = 1_000_000_000;

pub(crate) fn cat(path: &str) -> Answer {
    io::stdout().write_all(&fs::read(path)?)?;
    Ok(None)
}

/// Names in order, one a line; a directory's name ends with a slash, a symbolic link's with `@`.
pub(crate) fn list(path: &str) -> Answer {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let mark = if kind.is_dir() {
            "/"
        } else if kind.is_symlink() {
            "@"
        } else {
            ""
        };
        names.push(format!("{}{mark}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok((!names.is_empty()).then(|| names.join("\n")))
}

/// `KIND SIZE MTIME` (bytes; whole seconds since 1970), of the link itself where it is one.
pub(crate) fn stat(path: &str) -> Answer {
    let metadata = fs::symlink_metadata(path)?;
    let kind = if metadata.is_dir() {
        "directory"
    } else if metadata.is_symlink() {
        "symlink"
    } else if metadata.is_file() {
        "file"
    } else {
        "other"
    };
    let modified = metadata
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Ok(Some(format!("{kind} {} {modified}", metadata.len())))
}

/// Opens a file as often as told, or until it is refused, and says how far it came.
pub(crate) fn open_many(path: &str, times: u64) -> Answer {
    let mut open = Vec::new();
    for number in 0..times {
        match File::open(path) {
            Ok(file) => open.push(file),
            Err(error) => {
                return Ok(Some(format!(
                    "refused at {number}: {}",
                    crate::name(&error)
                )));
            }
        }
    }
    Ok(Some(format!("opened {}", open.len())))
}

pub(crate) fn readlink(path: &str) -> Answer {
    Ok(Some(fs::read_link(path)?.display().to_string()))
}

pub(crate) fn write(path: &str, text: &str) -> Answer {
    fs::write(path, text)?;
    done("write", path)
}

pub(crate) fn append(path: &str, text: &str) -> Answer {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    done("append", path)
}

pub(crate) fn truncate(path: &str, size: u64) -> Answer {
    OpenOptions::new().write(true).open(path)?.set_len(size)?;
    done("truncate", path)
}

pub(crate) fn open_truncating(path: &str) -> Answer {
    open(path, OFlags::WRONLY | OFlags::TRUNC)?;
    done("opentrunc", path)
}

/// Truncation asked of a descriptor that is open for reading only: what once got past the rights of
/// a read-only directory (GHSA-2r75-cxrj-cmph).
pub(crate) fn open_truncating_read_only(path: &str) -> Answer {
    open(path, OFlags::RDONLY | OFlags::TRUNC)?;
    done("opentrunc-ro", path)
}

/// Creation asked of a descriptor that is open for reading only.
pub(crate) fn open_creating(path: &str) -> Answer {
    open(path, OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL)?;
    done("opencreate", path)
}

pub(crate) fn make_directory(path: &str) -> Answer {
    fs::create_dir(path)?;
    done("mkdir", path)
}

/// Removes a file, a symbolic link or an empty directory.
pub(crate) fn remove(path: &str) -> Answer {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir(path)?;
    } else {
        fs::remove_file(path)?;
    }
    done("rm", path)
}

pub(crate) fn rename(from: &str, to: &str) -> Answer {
    fs::rename(from, to)?;
    done("rename", to)
}

pub(crate) fn link(from: &str, to: &str) -> Answer {
    linkat(CWD, from, CWD, to, AtFlags::empty())?;
    done("link", to)
}

pub(crate) fn symlink(target: &str, path: &str) -> Answer {
    symlinkat(target, CWD, path)?;
    done("symlink", path)
}

pub(crate) fn set_times(path: &str) -> Answer {
    let then = Timespec {
        tv_sec: THEN as _,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: then,
        last_modification: then,
    };
    utimensat(CWD, path, &times, AtFlags::empty())?;
    done("settimes", path)
}

/// The same through a descriptor that is open for reading only.
pub(crate) fn set_times_of_open_file(path: &str) -> Answer {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(THEN);
    File::open(path)?.set_times(FileTimes::new().set_accessed(then).set_modified(then))?;
    done("settimes-fd", path)
}

fn open(path: &str, flags: OFlags) -> io::Result<()> {
    openat(CWD, path, flags, Mode::empty())?;
    Ok(())
}

fn done(operation: &str, path: &str) -> Answer {
    Ok(Some(format!("ok {operation} {path}")))
}
