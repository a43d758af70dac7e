//! What a pod takes with and without a container of containerd's for itself, by turns in one containerd: medians in
//! milliseconds. `SAMPAN_SHIM_DIR=$(cargo xtask build | tail -1) cargo run -p cri-tests --example sandboxer [ROUNDS]`, as
//! root.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it is for")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cri_tests::{House, house_of};
use harness::{Containerd, Handler, runtime};

const STEPS: [&str; 5] = ["run pod", "create", "start", "stop pod", "remove pod"];

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(number) => number.parse().context("the number of rounds")?,
        None => 40,
    };
    let handler = |name: &str| Handler::new(name, runtime()).option("SystemdCgroup", false);
    let builder = Containerd::builder().handler(handler("direct").sandboxer("shim"));
    let Some(house) = house_of(builder).await? else {
        return Ok(());
    };
    let image = house.pulled_guest("probe", "wasip1").await?;
    let mut taken = [const { Vec::<[Duration; 5]>::new() }; 2];
    for round in 0..=rounds {
        for (taken, handler) in taken.iter_mut().zip(["sampan", "direct"]) {
            let steps = pod(&house, handler, &image).await?;
            // The first one compiles.
            if round > 0 {
                taken.push(steps);
            }
        }
    }
    println!(
        "{:12} {:>10} {:>10} {:>6}",
        "median ms", "podsandbox", "shim", "ratio"
    );
    for (step, name) in STEPS.iter().enumerate() {
        let median = |rounds: &[[Duration; 5]]| {
            let mut all: Vec<f64> = rounds
                .iter()
                .map(|steps| steps[step].as_secs_f64() * 1000.0)
                .collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let [classic, direct] = [median(&taken[0]), median(&taken[1])];
        println!(
            "{name:12} {classic:10.1} {direct:10.1} {:6.2}",
            direct / classic
        );
    }
    house.containerd.assert_clean().await
}

async fn pod(house: &House, handler: &str, image: &str) -> Result<[Duration; 5]> {
    let mut last = Instant::now();
    let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
    let pod = house.containerd.cri().await?.pod(handler).run().await?;
    let run = lap();
    let container = pod
        .container("guest", image)
        .command(["/", "spin"])
        .create()
        .await?;
    let create = lap();
    container.start().await?;
    let start = lap();
    pod.stop().await?;
    let stop = lap();
    pod.remove().await?;
    Ok([run, create, start, stop, lap()])
}
