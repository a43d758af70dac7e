//! The jail as the kernel sees it. Needs root; every test has its own directories, cgroups and
//! namespaces.
//!
//! The program is three things: the tests; the runner that they spawn (`run`, `compile`); and a
//! supervisor that is to be killed (`supervise`). `measure` prints how long a spawn takes, `real` runs a guest in the real runner.
#![allow(
    clippy::print_stdout,
    clippy::exit,
    reason = "a test program with its own main"
)]

#[path = "jail/cases.rs"]
mod cases;
#[path = "jail/measure.rs"]
mod measure;
#[path = "jail/probe.rs"]
mod probe;
#[path = "jail/real.rs"]
mod real;
#[path = "jail/stage.rs"]
mod stage;

use std::panic::catch_unwind;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("run") => probe::run(),
        Some("compile") => probe::compile(),
        Some("supervise") => cases::supervise(),
        Some("measure") => measure::measure(),
        Some("real") => real::real(&args[1..]),
        _ => tests(&args),
    }
}

fn tests(args: &[String]) {
    let list = args.iter().any(|arg| arg == "--list");
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let chosen = cases::ALL
        .iter()
        .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())));
    if list {
        for (name, _) in chosen {
            println!("{name}: test");
        }
        return;
    }
    if !rustix_is_root() {
        println!(
            "skipped: the tests of crate jail make namespaces, mounts and cgroups, which needs root"
        );
        return;
    }
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in chosen {
        // On this thread: what is spawned is bound to it.
        match catch_unwind(*test) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(*name);
            }
        }
    }
    // As cargo's own tests end, so that `cargo xtask test` counts these too.
    let ending = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {ending}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out {failed:?}",
        failed.len()
    );
    std::process::exit(i32::from(!failed.is_empty()));
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}
