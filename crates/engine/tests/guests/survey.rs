//! What is said of a program beforehand is what happens when it is compiled and linked.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use engine::{Answer, Program, Role, Runs, survey};
use plan::{Entry, GuestPlan, HttpListen};

use crate::process::{guests, plan};

/// Those whose compilation takes long; `test/tool` asks about them through containerd.
const LARGE: u64 = 2 << 20;

fn guest(entry: &str) -> GuestPlan {
    GuestPlan {
        entry: Entry::parse(entry),
        http: HttpListen::choose(None, &[]),
        ..plan()
    }
}

/// How linking the whole program ends.
fn linked(source: &[u8], guest: &GuestPlan) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("artifact");
    let mut file = File::create(&path).expect("created");
    engine::compile(source, &guest.engine, &mut file).map_err(|error| error.to_string())?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("read-only");
    let file = File::open(&path).expect("opened");
    let program = Program::load(&file, guest).expect("loaded");
    program
        .link(guest)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn foreseen(source: &[u8], guest: &GuestPlan) -> Result<(), String> {
    let survey = survey(source, guest).map_err(|error| error.to_string())?;
    survey.runs.map(drop).map_err(|error| error.to_string())
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn linking_ends_as_foreseen() {
    let mut seen = 0;
    for entry in std::fs::read_dir(guests()).expect("listed") {
        let path = entry.expect("an entry").path();
        let size = path.metadata().expect("its size").len();
        let program = path
            .extension()
            .is_some_and(|end| end == "wasm" || end == "wat");
        if !program || size > LARGE {
            continue;
        }
        let source = std::fs::read(&path).expect("read");
        for entry in ["/", "/#say", "/#run-me", "/#add", "/#missing"] {
            let guest = guest(entry);
            assert_eq!(
                foreseen(&source, &guest),
                linked(&source, &guest),
                "{} {entry}",
                path.display()
            );
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen} guests");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn the_first_refused_import_is_the_one_that_stops() {
    for name in [
        "unknown-import",
        "unknown-p1-import",
        "wrong-import-type",
        "future-interface",
        "unknown-interface",
    ] {
        let path = Path::new(&guests()).join(name).with_extension("wasm");
        let source = std::fs::read(path).expect("read");
        let survey = survey(&source, &guest("/")).expect("valid");
        let refused = survey
            .imports
            .iter()
            .filter(|import| matches!(import.answer, Answer::Refused(_)));
        let names: Vec<_> = refused.map(|import| import.name.clone()).collect();
        let error = survey.runs.expect_err("refused").to_string();
        assert!(
            !names.is_empty() && error.contains(&names[0]),
            "{name}: {names:?}: {error}"
        );
    }
}

#[test]
fn exports_and_proposals_are_told() {
    let module = r#"(module (memory (export "m") 1) (func (export "f") (param i32)) (func (export "_start")
        (drop (i32.extend8_s (i32.const 1)))))"#;
    let found = survey(module.as_bytes(), &guest("/")).expect("valid");
    assert_eq!(
        found.runs.expect("runs"),
        Runs::Function("_start".to_owned())
    );
    assert_eq!(found.proposals, ["sign-extension"]);
    let roles: Vec<_> = found
        .exports
        .into_iter()
        .map(|export| export.role)
        .collect();
    assert_eq!(
        roles,
        [
            Role::Other,
            Role::Takes(vec!["i32".to_owned()]),
            Role::Callable
        ]
    );
    let off = GuestPlan {
        engine: plan::EngineSettings {
            disabled: vec![plan::Proposal::Simd],
            ..plan::EngineSettings::default()
        },
        ..guest("/")
    };
    let simd = "(module (func (export \"_start\") (drop (v128.const i64x2 0 0))))";
    assert!(survey(simd.as_bytes(), &off).is_err());
    let found = survey(simd.as_bytes(), &guest("/")).expect("valid");
    assert_eq!(found.proposals, ["simd"]);
}
