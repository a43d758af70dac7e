//! What people run: every test a namespace, all of them one cluster.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod dense;
mod deployment;
mod exec;
mod failures;
mod jobs;
mod kubectl;
mod many;
mod pods;
mod scheduling;
mod users;
mod volumes;

fn main() -> ExitCode {
    let cases = [
        // First, since it waits for the minute.
        jobs::cases(),
        dense::cases(),
        deployment::cases(),
        exec::cases(),
        failures::cases(),
        kubectl::cases(),
        many::cases(),
        pods::cases(),
        scheduling::cases(),
        users::cases(),
        volumes::cases(),
    ];
    e2e_tests::run(cases.into_iter().flatten().collect())
}
