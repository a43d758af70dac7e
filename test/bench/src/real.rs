//! Programs of real size: how long they take to their first byte, and what a pod with one takes.

use anyhow::Result;
use serde::Serialize;

use crate::contestant::Contestant;
use crate::measure::{Bench, Density, Guest};
use crate::statistics::Samples;

/// One program under one contestant.
#[derive(Debug, Serialize)]
pub(crate) struct Real {
    pub(crate) program: &'static str,
    /// Bytes of the module or component.
    pub(crate) size: usize,
    pub(crate) contestant: &'static str,
    /// Milliseconds from the request to create the task.
    pub(crate) first_byte: Samples,
    pub(crate) density: Option<Density>,
    /// What broke off, and why.
    pub(crate) failures: Vec<String>,
}

/// Each of `guests` under each of `contestants`: `rounds` rounds of starts with all pairs in turn, then `pods` pods of each
/// pair alone. Programs are compiled before anything is measured.
pub(crate) async fn measure(
    bench: &Bench<'_>,
    contestants: &[Contestant],
    guests: &[&Guest],
    rounds: usize,
    pods: usize,
) -> Result<Vec<Real>> {
    let pairs: Vec<(&Contestant, &Guest)> = guests
        .iter()
        .flat_map(|&guest| {
            contestants
                .iter()
                .map(move |contestant| (contestant, guest))
        })
        .collect();
    let mut results = Vec::new();
    let mut there = Vec::new();
    for &(contestant, guest) in &pairs {
        eprintln!("bench: warming up {} of {}", guest.name, contestant.name);
        let mut result = Real {
            program: guest.name,
            size: guest.size,
            contestant: contestant.name,
            first_byte: Samples::default(),
            density: None,
            failures: Vec::new(),
        };
        match bench.first_byte(contestant, guest).await {
            Ok(_) => there.push((contestant, guest)),
            Err(error) => {
                result.failures.push(format!("warm-up: {error:#}"));
                bench.clear().await?;
            }
        }
        results.push(result);
    }
    let anchors = bench.anchors(contestants).await?;
    let start = async |_, pair: &(&Contestant, &Guest), samples: &mut Samples| {
        samples.push(bench.first_byte(pair.0, pair.1).await?);
        Ok(())
    };
    let outcomes = bench.rounds(rounds, &there, start).await?;
    bench.weigh(anchors).await?;
    for ((contestant, guest), (first_byte, failure)) in there.into_iter().zip(outcomes) {
        eprintln!(
            "bench: {pods} pods of {} under {}",
            guest.name, contestant.name
        );
        let density = bench.density(contestant, guest, pods, 1).await;
        let failures = [
            ("starts", failure),
            (
                "pods",
                density
                    .as_ref()
                    .err()
                    .map(|error| anyhow::anyhow!("{error:#}")),
            ),
        ];
        if density.is_err() {
            bench.clear().await?;
        }
        for result in &mut results {
            if (result.contestant, result.program) != (contestant.name, guest.name) {
                continue;
            }
            result.first_byte = first_byte.clone();
            result.density = density.as_ref().ok().copied();
            for (what, failure) in &failures {
                result.failures.extend(
                    failure
                        .as_ref()
                        .map(|failure| format!("{what}: {failure:#}")),
                );
            }
        }
    }
    Ok(results)
}
