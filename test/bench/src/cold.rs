//! Starts that find less than the usual one: a program that nobody has compiled, a node without a supervisor, files that
//! the page cache has lost.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::contestant::{Contestant, Scope};
use crate::measure::{Bench, Guest, Outcome};
use crate::programs::{self, Program};
use crate::statistics::Samples;

/// Each waits for the end of the supervisor before it, which stays some seconds after its last container.
const FIRSTS: usize = 6;

/// What a start does not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cold {
    /// The compiled program: the image is fresh to the node.
    Store,
    /// A supervisor: the first container of a node, where one supervisor serves all of it.
    Node,
    /// Any file in memory: programs, artifacts and databases are read from the disk.
    PageCache,
}

impl Cold {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Store => "fresh image",
            Self::Node => "first of a node",
            Self::PageCache => "page cache dropped",
        }
    }
}

/// Times to the first byte of one contestant, by what was missing, and why there are no more.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    pub(crate) cold: Cold,
    pub(crate) program: &'static str,
    pub(crate) contestant: &'static str,
    pub(crate) first_byte: Samples,
    #[serde(skip)]
    pub(crate) failure: Option<anyhow::Error>,
}

/// All kinds, `rounds` of each; the page cache is dropped only where that is `allowed`, since the whole machine feels it.
pub(crate) async fn measure(
    bench: &Bench<'_>,
    contestants: &[Contestant],
    program: &Program,
    rounds: usize,
    allowed: bool,
) -> Result<Vec<Start>> {
    let mut starts = Vec::new();
    let mut keep = |cold, contestants: &[Contestant], outcomes: Vec<Outcome<Samples>>| {
        for (contestant, (first_byte, failure)) in contestants.iter().zip(outcomes) {
            starts.push(Start {
                cold,
                program: program.name,
                contestant: contestant.name,
                first_byte,
                failure,
            });
        }
    };
    let anchors = bench.anchors(contestants).await?;
    let fresh = async |round: usize, contestant: &Contestant, samples: &mut Samples| {
        let tag = format!("cold-{}-{round}", contestant.name);
        let unseen = Program {
            wasm: programs::never_seen(&program.wasm, &tag),
            ..program.clone()
        };
        let guest = Guest::artifact(&bench.yard, &tag, &unseen).await?;
        samples.push(bench.once(contestant, &guest).await?.first_byte);
        Ok(())
    };
    let outcomes = bench.rounds(rounds, contestants, fresh).await?;
    keep(Cold::Store, contestants, outcomes);
    if allowed {
        let dropped = async |_, contestant: &Contestant, samples: &mut Samples| {
            drop_page_cache()?;
            samples.push(bench.once(contestant, &bench.hello).await?.first_byte);
            Ok(())
        };
        let outcomes = bench.rounds(rounds, contestants, dropped).await?;
        keep(Cold::PageCache, contestants, outcomes);
    }
    bench.weigh(anchors).await?;
    let of_node: Vec<Contestant> = contestants
        .iter()
        .filter(|contestant| contestant.scope == Scope::Node)
        .cloned()
        .collect();
    let first = async |_, contestant: &Contestant, samples: &mut Samples| {
        bench.no_supervisor(contestant).await?;
        samples.push(bench.once(contestant, &bench.hello).await?.first_byte);
        Ok(())
    };
    let outcomes = bench.rounds(rounds.min(FIRSTS), &of_node, first).await?;
    keep(Cold::Node, &of_node, outcomes);
    Ok(starts)
}

/// What is written to it first stays; "1" is the page cache alone (`Documentation/admin-guide/sysctl/vm.rst`).
fn drop_page_cache() -> Result<()> {
    const SWITCH: &str = "/proc/sys/vm/drop_caches";
    nix::unistd::sync();
    std::fs::write(Path::new(SWITCH), "1").with_context(|| format!("write {SWITCH}"))
}
