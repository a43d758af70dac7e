//! How long the parts of a start take, in microseconds: least, median and 95th percentile.

use std::time::Instant;

use crate::stage::{end, stage};

const TIMES: usize = 200;

pub(crate) fn measure() {
    let mut parts: Vec<(&str, Vec<u128>)> = [
        "cgroup made",
        "rootfs assembled",
        "spawn returned",
        "ready after spawn",
        "moved from outside",
        "go to end",
        "cgroup removed",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    let mut hold = Vec::new();
    for _ in 0..TIMES {
        let mut last = Instant::now();
        let mut part = 0;
        let mut lap = |parts: &mut Vec<(&str, Vec<u128>)>| {
            parts[part].1.push(last.elapsed().as_micros());
            part += 1;
            last = Instant::now();
        };
        let stage = stage(&["report"]);
        lap(&mut parts);
        drop(stage.rootfs());
        lap(&mut parts);
        let actor = stage.spawn().expect("spawned");
        lap(&mut parts);
        actor.report();
        lap(&mut parts);
        // What a number in `cgroup.procs` costs, which a spawn here does not pay.
        stage
            .cgroup
            .add(actor.child.pid())
            .expect("moved to where it is");
        lap(&mut parts);
        actor.child.go().expect("goes");
        end(&actor.child);
        lap(&mut parts);
        stage.cgroup.remove().expect("removed");
        lap(&mut parts);
        let pod = crate::stage::stage(&[]);
        let begun = Instant::now();
        let holder = jail::hold_pod(&pod.launch.jail, &pod.cgroup).expect("held");
        hold.push(begun.elapsed().as_micros());
        drop(holder);
    }
    parts.push(("pod held", hold));
    for (name, mut times) in parts {
        times.sort_unstable();
        let at = |percent: usize| times[(TIMES - 1) * percent / 100];
        println!(
            "{name:20} least {:6}   median {:6}   p95 {:6}",
            at(0),
            at(50),
            at(95)
        );
    }
}
