//! The file of a supervisor's socket: who binds it, who finds it bound, and who may take it away.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Whose a socket is.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody served it, and whoever claimed it is to.
    Ours(UnixListener),
    /// A supervisor listens, which may be about to end; this is a connection to it.
    Theirs(UnixStream),
}

/// Binds the socket unless a supervisor listens there; that of one that was killed is replaced.
pub(crate) fn claim(path: &Path) -> io::Result<Claim> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let _locked = lock(path)?;
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        bound => return bound.map(Claim::Ours),
    }
    if let Ok(stream) = UnixStream::connect(path) {
        return Ok(Claim::Theirs(stream));
    }
    // A supervisor that ends takes its own away meanwhile.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path).map(Claim::Ours),
    }
}

/// Takes a socket away on which nobody listens any more; that there is none is fine. Who listens is asked whether it
/// stays: of a supervisor that is being killed threads may still end, which have its socket until then.
pub(crate) fn remove_dead(
    path: &Path,
    mut stays: impl FnMut(UnixStream) -> bool,
) -> io::Result<()> {
    loop {
        let listens = {
            let _locked = match lock(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                locked => locked?,
            };
            match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return fs::remove_file(path);
                }
                Err(_) => return Ok(()),
                Ok(listens) => listens,
            }
        };
        // Not under the lock: `start` would wait for the answer too.
        if stays(listens) {
            return Ok(());
        }
    }
}

/// Between "nobody listens" and "away with it" another could put its own socket there, which nobody would find then. The
/// directory itself is locked, so that there is no file that stays; the lock goes with the descriptor.
fn lock(path: &Path) -> io::Result<File> {
    let dir = File::open(path.parent().unwrap_or(Path::new("/")))?;
    dir.lock()?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(claim: Claim) -> Option<UnixListener> {
        match claim {
            Claim::Ours(listener) => Some(listener),
            Claim::Theirs(_) => None,
        }
    }

    #[test]
    fn one_supervisor_serves_a_socket_and_a_dead_ones_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("s/socket");
        let nobody = |_| panic!("nobody listens");
        remove_dead(&path, nobody).expect("not even a directory");
        let first = ours(claim(&path).expect("binds")).expect("nobody serves it");
        assert!(ours(claim(&path).expect("connects")).is_none());
        remove_dead(&path, |_| true).expect("it is served");
        assert!(path.exists());
        drop(first);
        assert!(ours(claim(&path).expect("binds again")).is_some());
        remove_dead(&path, nobody).expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn of_one_that_ends_while_it_is_asked_nothing_stays() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("socket");
        let mut ends = ours(claim(&path).expect("binds"));
        let asked = remove_dead(&path, |_| ends.take().is_none());
        asked.expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn of_many_that_find_a_dead_socket_one_replaces_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("socket");
        for _ in 0..20 {
            drop(ours(claim(&path).expect("binds")).expect("nobody serves it"));
            let mut claims: Vec<Claim> = std::thread::scope(|scope| {
                let claimants: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(&path))).collect();
                let claims = claimants.into_iter();
                claims
                    .map(|claimant| claimant.join().expect("no panic").expect("claims"))
                    .collect()
            });
            let listeners: Vec<_> = claims.drain(..).filter_map(ours).collect();
            assert_eq!(listeners.len(), 1, "as many supervisors");
            // The one that is found is the one that listens.
            assert!(ours(claim(&path).expect("connects")).is_none());
            drop(listeners);
        }
    }
}
