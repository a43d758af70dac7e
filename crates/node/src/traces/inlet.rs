//! The place where spans arrive: a directory of root's with a socket, and a notice that somebody listens there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use plan::trace::{DIRECTORY, NOTICE, Notice, SOCKET};
use tokio::net::UnixDatagram;

/// It is there until this is dropped.
#[derive(Debug)]
pub(super) struct Inlet {
    run: PathBuf,
    /// The socket's device and inode: by now another listener may have put its own there.
    socket: (u64, u64),
}

impl Inlet {
    /// Makes it. What an earlier listener has left is replaced.
    pub(super) fn open(run: &Path, notice: Notice) -> Result<(Self, UnixDatagram)> {
        // The shim makes the run directory the same way.
        for dir in [run, &run.join(DIRECTORY)] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir);
            made.with_context(|| format!("create {}", dir.display()))?;
        }
        fs::set_permissions(run.join(DIRECTORY), Permissions::from_mode(0o700))
            .context("keep the directory of traces to root")?;
        let path = run.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let socket =
            UnixDatagram::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        let inlet = Self {
            run: run.to_owned(),
            socket: identity(&path).with_context(|| format!("look at {}", path.display()))?,
        };
        // Last: who finds it finds a socket.
        let (new, place) = (path.with_extension("new"), run.join(NOTICE));
        fs::write(&new, serde_json::to_vec(&notice)?)
            .and_then(|()| fs::rename(&new, &place))
            .with_context(|| format!("write {}", place.display()))?;
        Ok((inlet, socket))
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let path = self.run.join(SOCKET);
        if identity(&path).is_ok_and(|now| now == self.socket) {
            // The notice first: nobody is to look for a socket that is gone. What stays is replaced by the next one.
            let _ = fs::remove_file(self.run.join(NOTICE));
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(self.run.join(DIRECTORY));
        }
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use plan::trace::Sampler;

    use super::*;

    const NOTICED: Notice = Notice {
        sampler: Sampler {
            follows: true,
            below: 5,
        },
    };

    #[tokio::test]
    async fn it_is_roots_alone_and_goes_without_a_trace() {
        let run = tempfile::tempdir().expect("a directory");
        let (inlet, _socket) = Inlet::open(run.path(), NOTICED).expect("made");
        let mode = fs::metadata(run.path().join(DIRECTORY))
            .expect("there")
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        let notice = fs::read(run.path().join(NOTICE)).expect("there");
        assert_eq!(
            serde_json::from_slice::<Notice>(&notice).expect("reads"),
            NOTICED
        );
        drop(inlet);
        assert_eq!(fs::read_dir(run.path()).expect("there").count(), 0);
    }

    #[tokio::test]
    async fn a_newer_listener_is_left_alone() {
        let run = tempfile::tempdir().expect("a directory");
        let (killed, _first) = Inlet::open(run.path(), NOTICED).expect("made");
        let (_newer, second) = Inlet::open(run.path(), NOTICED).expect("made again");
        drop(killed);
        assert!(run.path().join(NOTICE).exists());
        let sender = UnixDatagram::unbound().expect("a socket");
        sender
            .send_to(b"x", run.path().join(SOCKET))
            .await
            .expect("sent");
        assert_eq!(second.recv(&mut [0; 8]).await.expect("arrives"), 1);
    }
}
