//! From an empty cluster to Sampan on its node, to another version of it, and back to nothing: the chart by helm, the node
//! program in its pod.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod broken;
mod helm;
mod killed;
mod node;
mod payload;
mod policy;
mod program;
mod story;
mod turns;

fn main() -> ExitCode {
    let cases = [
        killed::cases(),
        broken::cases(),
        turns::cases(),
        policy::cases(),
        story::cases(),
    ];
    e2e_tests::run_bare(cases.into_iter().flatten().collect())
}
