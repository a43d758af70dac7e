//! wasi:config and wasi:logging.

use plan::Access;

use crate::process::{Ended, Guest};

const PROGRAM: &str = include_str!("../../../../test/guests/wat/config.wat");

fn ask(guest: Guest) -> Ended {
    let ended = guest.entry("#main").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

#[test]
fn values_come_from_the_environment() {
    assert_eq!(
        ask(Guest::new(PROGRAM).env("greeting", "ahoy")).stderr,
        "INFO test: ahoy\n"
    );
    assert_eq!(ask(Guest::new(PROGRAM)).stderr, "WARN test: none\n");
}

#[test]
fn values_come_from_a_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("greeting"), "from a file\nof two lines\n").expect("write");
    let path = dir.path().to_str().expect("text").to_owned();
    let named = path.clone();
    let guest = Guest::new(PROGRAM)
        .env("greeting", "ahoy")
        .directory(dir.path(), Access::ReadOnly)
        .plan(move |plan| plan.config_dir = Some(named));
    assert_eq!(
        ask(guest).stderr,
        "INFO test: from a file\n  of two lines\n"
    );
    // What the guest does not see is not read for it.
    let ended = ask(Guest::new(PROGRAM).plan(move |plan| plan.config_dir = Some(path)));
    assert!(ended.stderr.starts_with("ERROR"), "{ended:?}");
    assert!(ended.stderr.contains("config-dir"), "{ended:?}");
}
