//! What a guest leaves behind when it traps, if it is asked to (`sampan.dev/coredump`).
//!
//! The directory is the guest's to write to as well: it is opened before the guest runs, without following a link, and
//! a dump is a file that was not there before. So nothing that a guest puts there leads a dump elsewhere or into a file
//! of another's.

mod image;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use plan::{Access, CoreDump, GuestPlan, Preopen};
use tokio::sync::Semaphore;
use wasmtime::{Store, WasmCoreDump};

use crate::command::say;
use crate::ending::line;

/// Files that a container may leave: a guest that traps whenever it starts would fill the volume.
const MOST: u32 = 3;

/// Frames of a dump; a backtrace in a log has fewer.
pub(crate) const FRAMES: usize = 1000;

/// Where dumps go.
pub(crate) struct Dumps {
    directory: OwnedFd,
    plan: CoreDump,
    /// Of a server's instances one is written at a time; who would have to wait leaves none.
    turn: Semaphore,
}

/// The directory cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the directory {path} for core dumps: {source} (sampan.dev/coredump)")]
pub(crate) struct DumpError {
    path: String,
    source: io::Error,
}

/// Goes with an error: what was left of the guest, or why nothing was. One line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Left(pub(crate) String);

impl Dumps {
    /// Opens the directory, if a dump is asked for.
    ///
    /// # Errors
    /// [`DumpError`] where it is not there, cannot be written to, or is a link or below one.
    pub(crate) fn open(
        guest: &GuestPlan,
        preopens: &[Preopen],
    ) -> Result<Option<Arc<Self>>, DumpError> {
        // What cannot be was refused when the program was linked.
        let Some(Ok(plan)) = &guest.coredump else {
            return Ok(None);
        };
        let opened = match &plan.source {
            Some(own) => directory(own).map_err(io::Error::from),
            None => below(preopens, Path::new(&plan.dir)),
        };
        let directory = opened.map_err(|source| DumpError {
            path: plan.dir.clone(),
            source,
        })?;
        Ok(Some(Arc::new(Self {
            directory,
            plan: plan.clone(),
            turn: Semaphore::new(1),
        })))
    }

    /// Leaves a dump if the error is the guest's and has what goes into one; says which, or why there is none.
    pub(crate) fn leave<T: 'static>(
        &self,
        store: &mut Store<T>,
        error: &wasmtime::Error,
        reason: &str,
    ) -> Option<String> {
        let core = error.downcast_ref::<WasmCoreDump>()?;
        Some(self.told(store, core, reason))
    }

    /// As [`Dumps::leave`], on a thread of the server's, whose other requests go on meanwhile; says it itself.
    pub(crate) fn leave_beside_others<T: 'static>(
        &self,
        store: &mut Store<T>,
        error: &wasmtime::Error,
        reason: &str,
    ) {
        if let Some(core) = error.downcast_ref::<WasmCoreDump>()
            && let Ok(_turn) = self.turn.try_acquire()
        {
            let told = tokio::task::block_in_place(|| self.told(store, core, reason));
            say(&line(&told));
        }
    }

    /// Waits for the one that is being written.
    pub(crate) async fn finish(&self) {
        let _ = self.turn.acquire().await;
    }

    fn told<T: 'static>(&self, store: &mut Store<T>, core: &WasmCoreDump, reason: &str) -> String {
        match self.write(store, core, reason) {
            Ok((path, written)) => {
                let left_out = match written.left_out {
                    0 => String::new(),
                    bytes => format!(
                        " without {bytes} bytes of memory, for which there is no room (sampan.dev/coredump-max-bytes)"
                    ),
                };
                format!("core dump: {path} ({} bytes){left_out}", written.size)
            }
            Err(error) => format!("no core dump in {}: {error}", self.plan.dir),
        }
    }

    fn write<T: 'static>(
        &self,
        store: &mut Store<T>,
        core: &WasmCoreDump,
        reason: &str,
    ) -> Result<(String, image::Written), String> {
        let image = image::Image::new(store, core, &self.plan.name, reason);
        if image.least() > self.plan.max_bytes {
            return Err(format!(
                "stacks and globals alone take {} bytes (sampan.dev/coredump-max-bytes)",
                image.least()
            ));
        }
        let (name, file) = self.create()?;
        match image.write(store, file, self.plan.max_bytes) {
            Ok(written) => Ok((
                format!("{}/{name}", self.plan.dir.trim_end_matches('/')),
                written,
            )),
            Err(error) => {
                // Half of one is of no use to anybody, and there may be no room left.
                let _ = unlinkat(&self.directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
                Err(error.to_string())
            }
        }
    }

    fn create(&self) -> Result<(String, File), String> {
        for number in 0..MOST {
            let name = format!("{}.{number}.core.wasm", self.plan.name);
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            match openat(
                &self.directory,
                name.as_str(),
                flags,
                Mode::S_IRUSR | Mode::S_IWUSR,
            ) {
                Ok(file) => return Ok((name, File::from(file))),
                Err(Errno::EEXIST) => {}
                Err(errno) => {
                    return Err(format!("cannot make {name}: {}", io::Error::from(errno)));
                }
            }
        }
        Err(format!(
            "{MOST} of this container are there already; remove one to have another"
        ))
    }
}

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

fn directory(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty())
}

/// A directory in the nearest one that the guest is given, and nowhere else.
fn below(preopens: &[Preopen], dir: &Path) -> io::Result<OwnedFd> {
    let nearest = preopens
        .iter()
        .filter(|preopen| dir.starts_with(&preopen.path))
        .max_by_key(|preopen| preopen.path.len())
        .ok_or_else(|| io::Error::from(Errno::ENOENT))?;
    if nearest.access != Access::ReadWrite {
        return Err(Errno::EROFS.into());
    }
    let volume = directory(nearest.source())?;
    let rest = dir.strip_prefix(&nearest.path).unwrap_or(Path::new(""));
    if rest.as_os_str().is_empty() {
        return Ok(volume);
    }
    let how = OpenHow::new().flags(DIRECTORY).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    Ok(openat2(volume.as_fd(), rest, how)?)
}

#[cfg(test)]
#[path = "coredump/tests.rs"]
mod tests;
