//! A program that the store does not have: compiled once per node, in a helper process with
//! bounds.

use std::io::Read;
use std::path::Path;

use jail::CompileRequest;
use plan::numbers::Total;
use plan::{CompileConfig, Digest, EngineSettings};
use store::{Artifact, Claim, Slot, Store};

use crate::failure::{Failure, Kind, Outcome, of_jail, of_store};
use crate::guest::Bytes;
use crate::totals::Totals;

/// Who compiles, and with which bounds.
pub(crate) struct Compiler<'a> {
    pub(crate) runner: &'a Path,
    pub(crate) engine: &'a EngineSettings,
    pub(crate) limits: &'a CompileConfig,
    /// The runner's engine.
    pub(crate) fingerprint: &'a str,
    pub(crate) totals: &'a Totals,
}

impl Compiler<'_> {
    /// Compiles the guest into the store, unless somebody else does it first: then waits for
    /// that.
    pub(crate) async fn compile(&self, store: &Store, bytes: Bytes) -> Outcome<Artifact> {
        let name = bytes.name.clone();
        let mut digest = bytes.digest;
        // The right to compile first: who only waits for another's work need not copy the guest into memory.
        let mut claim = self.claim(store, digest).await?;
        if let Claim::Hit(artifact) = claim {
            self.totals.one(Total::StoreHit);
            return Ok(artifact);
        }
        let sealed = blocking(move || bytes.seal()).await?;
        sealed
            .guest()
            .expect_wasm(&name)
            .map_err(|error| Failure::new(Kind::Invalid, error))?;
        if *sealed.digest() != digest {
            // Somebody wrote to the file since it was hashed: what counts is what was copied.
            digest = *sealed.digest();
            drop(claim);
            claim = self.claim(store, digest).await?;
        }
        let slot = match claim {
            Claim::Hit(artifact) => {
                self.totals.one(Total::StoreHit);
                return Ok(artifact);
            }
            Claim::Make(slot) => slot,
        };
        self.totals.one(Total::StoreMiss);
        let size = sealed.size();
        tracing::info!(%digest, bytes = sealed.size(), "compiling {name}");
        let begun = std::time::Instant::now();
        let advice = self
            .run(store.path(), &slot, &sealed)
            .await
            .inspect_err(|_| self.totals.one(Total::CompileFailed))
            .map_err(|failure| failure.of(&name))?;
        if !advice.is_empty() {
            tracing::warn!(%digest, "{name}: {advice}");
        }
        let (artifact, evicted) = blocking(move || slot.publish_and_evict().map_err(of_store))
            .await
            .inspect_err(|_| self.totals.one(Total::CompileFailed))?;
        self.totals.add(Total::StoreEvicted, evicted.files as u64);
        self.totals.compiled(begun.elapsed(), size, artifact.size());
        tracing::info!(%digest, milliseconds = begun.elapsed().as_millis(), "compiled");
        Ok(artifact)
    }

    async fn claim(&self, store: &Store, digest: Digest) -> Outcome<Claim> {
        let (fingerprint, store) = (self.fingerprint.to_owned(), store.clone());
        blocking(move || store.claim(&digest, &fingerprint).map_err(of_store)).await
    }

    /// Returns what the helper has to say about a program that it compiled: a line, or nothing.
    async fn run(&self, place: &Path, slot: &Slot, sealed: &image::Sealed) -> Outcome<String> {
        use std::os::fd::AsFd;
        let (mut reader, writer) = std::io::pipe().map_err(Failure::internal)?;
        let helper = jail::spawn_compiler(CompileRequest {
            runner: self.runner,
            engine: self.engine,
            source: sealed.descriptor(),
            target: slot.file().as_fd(),
            stderr: writer.into(),
            memory: self.limits.max_memory,
            time: self.limits.max_time(),
        })
        .map_err(|error| of_jail(&error))?;
        let ended =
            tokio::time::timeout(self.limits.max_time(), jail::readable(helper.pidfd())).await;
        let in_time = ended.is_ok();
        if !in_time {
            let _ = helper.kill(nix::libc::SIGKILL);
            jail::readable(helper.pidfd())
                .await
                .map_err(Failure::internal)?;
        }
        let status = helper.reap().map_err(|error| of_jail(&error))?;
        let mut reason = String::new();
        // All writers are gone: this reads what is there. A reason is a line.
        let _ = reader.by_ref().take(64 << 10).read_to_string(&mut reason);
        let reason = reason.trim();
        if status == Some(0) {
            return Ok(reason.to_owned());
        }
        if !in_time || status == Some(128 + nix::libc::SIGALRM) {
            return Err(Failure::new(
                Kind::Exhausted,
                format!(
                    "compiling took longer than {} seconds ([compile] max-seconds in /etc/sampan/config.toml)",
                    self.limits.max_seconds
                ),
            ));
        }
        Err(match status {
            Some(1) => Failure::new(Kind::Invalid, reason),
            Some(3) => Failure::new(
                Kind::Exhausted,
                format!(
                    "{reason}: free space in {} or set path or max-bytes of [store]",
                    place.display()
                ),
            ),
            Some(KILLED) => Failure::new(
                Kind::Exhausted,
                "compiling was killed from outside (SIGKILL), by the kernel where the node runs out of memory or by a person: it is tried again at the next start",
            ),
            // Without the signal that its filter forbids, an aborting process ends by a fault instead.
            Some(134 | 139) => Failure::new(
                Kind::Exhausted,
                format!(
                    "compiling needs more than {} bytes of memory ([compile] max-memory in /etc/sampan/config.toml): {reason}",
                    self.limits.max_memory
                ),
            ),
            other => Failure::new(
                Kind::Internal,
                format!("the compiler ended with status {other:?}: {reason}"),
            ),
        })
    }
}

/// The status of a process that SIGKILL ended.
const KILLED: i32 = 128 + nix::libc::SIGKILL;

/// Work that waits for disk, processor or a lock, on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Failure::internal)?
}
