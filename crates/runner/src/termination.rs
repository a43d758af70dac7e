//! The file in which the kubelet looks for a container's last words.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

/// Bytes that the kubelet reads (its `MaxContainerTerminationMessageLength`).
const LIMIT: usize = 4096;

/// Writes why the guest ended, unless it has left a message of its own. What goes wrong is ignored: the reason is on
/// standard error already, and nobody is there to be told.
pub(crate) fn write(path: &str, account: &str) {
    let _ = open_empty(path).and_then(|mut file| file.write_all(cut(account).as_bytes()));
}

/// The file, if it is an ordinary one and empty. It is never made: where the kubelet put none, nobody would read it.
fn open_empty(path: &str) -> io::Result<File> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    OpenOptions::new().write(true).open(path)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LIMIT)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_an_empty_file_is_written_to() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("empty"), "").expect("a file");
        fs::write(path("said"), "the guest's own").expect("a file");
        for name in ["empty", "said", "absent"] {
            write(&path(name), "the reason");
        }
        let read = |name| fs::read_to_string(path(name)).expect("readable");
        assert_eq!(read("empty"), "the reason");
        assert_eq!(read("said"), "the guest's own");
        assert!(!dir.path().join("absent").exists());
    }

    #[test]
    fn what_the_kubelet_would_not_read_is_not_written() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(4000)).len(), LIMIT);
        assert_eq!(cut(&format!("a{}", "ä".repeat(4000))).len(), LIMIT - 1);
    }
}
