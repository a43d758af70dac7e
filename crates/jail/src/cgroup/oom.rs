//! When the kernel kills for want of memory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::{Cgroup, Directories, gone, write};
use crate::error::JailError;

/// A descriptor that is readable when processes of a cgroup may have been killed for want of memory; how many tells
/// [`Cgroup::oom_kills`].
#[derive(Debug)]
pub struct OomWatch(OwnedFd);

impl OomWatch {
    /// To wait for.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what has been told, so that the descriptor is readable the next time something happens.
    pub fn clear(&self) {
        // Room for one count, and for a few notices.
        while rustix::io::read(&self.0, &mut [0_u8; 512]).is_ok() {}
    }
}

impl Cgroup {
    /// How many of its processes the kernel has killed for want of memory; 0 where it is gone or has no memory
    /// controller.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn oom_kills(&self) -> Result<u64, JailError> {
        let Some(path) = self.oom_file() else {
            return Ok(0);
        };
        match fs::read_to_string(&path) {
            Ok(text) => Ok(field(&text, "oom_kill").unwrap_or(0)),
            Err(error) if gone(&error) => Ok(0),
            Err(source) => Err(JailError::Cgroup {
                attempt: "read",
                path,
                source,
            }),
        }
    }

    /// Asks the kernel to tell about such kills; `None` without a memory controller.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] or [`JailError::System`].
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, JailError> {
        let Some(path) = self.oom_file() else {
            return Ok(None);
        };
        let event = match &self.directories {
            // An eventfd is counted up (memory.rst of cgroup v1, "OOM Control").
            Directories::V1 { .. } => {
                let file = match File::open(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    opened => opened.map_err(|source| JailError::Cgroup {
                        attempt: "open",
                        path: path.clone(),
                        source,
                    })?,
                };
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(JailError::errno("make an eventfd"))?;
                let order = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
                write(&path.with_file_name("cgroup.event_control"), &order)?;
                event
            }
            // The file is "modified" (cgroup-v2.rst, "memory.events").
            Directories::V2(_) => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let notices =
                    inotify::init(flags).map_err(JailError::errno("make an inotify descriptor"))?;
                match inotify::add_watch(&notices, &path, inotify::WatchFlags::MODIFY) {
                    Ok(_) => notices,
                    Err(rustix::io::Errno::NOENT) => return Ok(None),
                    Err(errno) => return Err(JailError::errno("watch memory.events")(errno)),
                }
            }
        };
        Ok(Some(OomWatch(event)))
    }

    /// Bytes that it cannot give back: what is used, less the pages of files that the kernel may drop. 0 without a
    /// memory controller.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn memory_in_use(&self) -> Result<u64, JailError> {
        let (usage, prefix) = match &self.directories {
            Directories::V1 { .. } => ("memory.usage_in_bytes", "total_"),
            Directories::V2(_) => ("memory.current", ""),
        };
        let Some(directory) = self.with("memory") else {
            return Ok(0);
        };
        let used = read(directory, usage)?.trim().parse().unwrap_or(0_u64);
        let stat = read(directory, "memory.stat")?;
        let files: u64 = ["active_file", "inactive_file"]
            .iter()
            .filter_map(|name| field(&stat, &format!("{prefix}{name}")))
            .sum();
        Ok(used.saturating_sub(files))
    }

    fn oom_file(&self) -> Option<PathBuf> {
        let name = match &self.directories {
            Directories::V1 { .. } => "memory.oom_control",
            Directories::V2(_) => "memory.events",
        };
        self.with("memory").map(|directory| directory.join(name))
    }
}

/// A file of a directory; empty where either is gone.
fn read(directory: &Path, name: &str) -> Result<String, JailError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Err(error) if gone(&error) => Ok(String::new()),
        other => other.map_err(|source| JailError::Cgroup {
            attempt: "read",
            path,
            source,
        }),
    }
}

/// The number behind a name, in a file of `NAME NUMBER` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(1));
        assert_eq!(field(text, "oom_"), None);
    }
}
