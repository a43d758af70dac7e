//! The compiled program of a container: out of the store, or into it.

use std::path::Path;

use plan::numbers::Total;
use plan::{Digest, EngineSettings};
use store::{Artifact, Limits, Store};
use tracing::debug_span;

use crate::compile::Compiler;
use crate::failure::{Failure, Outcome, of_store};
use crate::guest::Bytes;
use crate::node;
use crate::supervisor::Supervisor;
use crate::trace::Trace;

/// A program in the store.
pub(crate) struct Compiled {
    pub(crate) artifact: Artifact,
    store: Store,
    digest: Digest,
    fingerprint: String,
}

impl Compiled {
    /// Takes it out of the store, so that the next start compiles it anew.
    pub(crate) fn discard(&self) {
        if let Err(error) = self.store.discard(&self.digest, &self.fingerprint) {
            tracing::warn!(%error, digest = %self.digest, "an artifact that cannot be used stays");
        }
    }
}

/// The compiled program: from the store, or made now.
pub(crate) async fn compiled(
    supervisor: &Supervisor,
    runner: &Path,
    engine: &EngineSettings,
    bytes: Bytes,
    trace: &Trace,
) -> Outcome<Compiled> {
    let config = &supervisor.config;
    let limits = Limits {
        max_bytes: config.store.max_bytes,
    };
    let store = Store::open(&config.store.path, limits).map_err(of_store)?;
    let fingerprint = node::fingerprint(runner, engine, &store).map_err(Failure::internal)?;
    let digest: Digest = bytes.digest;
    let artifact = match store.lookup(&digest, &fingerprint).map_err(of_store)? {
        Some(artifact) => {
            supervisor.totals.one(Total::StoreHit);
            artifact
        }
        None => {
            let compiler = Compiler {
                runner,
                engine,
                limits: &config.compile,
                fingerprint: &fingerprint,
                totals: &supervisor.totals,
            };
            let _turn = supervisor.flights.turn(&digest).await;
            trace
                .phase(debug_span!("compile"))
                .around(compiler.compile(&store, bytes))
                .await?
        }
    };
    Ok(Compiled {
        artifact,
        store,
        digest,
        fingerprint,
    })
}
