use plan::{Access, ExitCode};

use crate::process::Guest;

fn code(code: ExitCode) -> Option<i32> {
    Some(code.into())
}

/// A module of WASI preview 1 with `body` as `_start`.
fn module(body: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 4)
            (data (i32.const 0) "\10\00\00\00\06\00\00\00")
            (data (i32.const 16) "hello\n")
            (func $hello (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func (export "say") (call $hello))
            (func (export "add") (param i32 i32) (result i32) (local.get 0))
            (func $deep (unreachable))
            (func (export "fails") (call $deep))
            (func $start (export "_start") {body}))"#
    )
}

#[test]
fn a_command_writes_and_ends_with_its_own_code() {
    let ended = Guest::new(module("(call $hello)")).run();
    assert_eq!(
        (ended.code, ended.out().as_str(), ended.stderr.as_str()),
        (Some(0), "hello\n", "")
    );
    for exit in [0, 1, 42, 125, 126, 255] {
        let ended = Guest::new(module(&format!("(call $exit (i32.const {exit}))"))).run();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(exit), ""));
    }
}

#[test]
fn a_trap_says_what_and_where() {
    let ended = Guest::new(module("(call $deep)")).run();
    assert_eq!(ended.code, code(ExitCode::Trap));
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(
        lines[0],
        "sampan: trap: wasm `unreachable` instruction executed at deep"
    );
    assert_eq!(lines[1..], ["  0: deep", "  1: start"]);
}

#[test]
fn endless_recursion_is_a_trap() {
    let ended = Guest::new(module("(call $start)")).run();
    assert_eq!(ended.code, code(ExitCode::Trap), "{ended:?}");
    assert!(
        ended.stderr.contains("call stack exhausted"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_export_without_parameters_can_be_called() {
    let ended = Guest::new(module("")).entry("#say").run();
    assert_eq!((ended.code, ended.out().as_str()), (Some(0), "hello\n"));
    let ended = Guest::new(module("")).entry("/app.wasm#fails").run();
    assert_eq!(ended.code, code(ExitCode::Trap));
    assert!(ended.stderr.contains("at deep"), "{}", ended.stderr);
}

#[test]
fn an_export_of_a_component_can_be_called() {
    let component = |body: &str| {
        format!(
            r#"(component
                (core module $m (func (export "f") (result i32) {body}) (func (export "g") (param i32)))
                (core instance $i (instantiate $m))
                (func (export "run-me") (result (result)) (canon lift (core func $i "f")))
                (func (export "wants") (param "x" u32) (canon lift (core func $i "g"))))"#
        )
    };
    assert_eq!(
        Guest::new(component("(i32.const 0)"))
            .entry("#run-me")
            .run()
            .code,
        Some(0)
    );
    assert_eq!(
        Guest::new(component("(i32.const 1)"))
            .entry("#run-me")
            .run()
            .code,
        Some(1)
    );
    assert_eq!(
        Guest::new(component("unreachable"))
            .entry("#run-me")
            .run()
            .code,
        code(ExitCode::Trap)
    );
    let ended = Guest::new(component("(i32.const 0)")).entry("#wants").run();
    assert_eq!(ended.code, code(ExitCode::NotRunnable));
    assert!(
        ended.stderr.contains("`wants` takes parameters (x)"),
        "{}",
        ended.stderr
    );
    let ended = Guest::new(component("(i32.const 0)")).run();
    assert_eq!(ended.code, code(ExitCode::NotRunnable));
    assert!(
        ended.stderr.contains("wasi:cli/run") && ended.stderr.contains("`run-me`"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_reactor_is_initialised_before_its_export_is_called() {
    let reactor = r#"(module (global $ready (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $ready (i32.const 1)))
        (func (export "check") (if (i32.eqz (global.get $ready)) (then unreachable))))"#;
    assert_eq!(Guest::new(reactor).entry("#check").run().code, Some(0));
}

#[test]
fn memory_beyond_the_limit_is_refused_to_the_guest() {
    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then (call $exit (i32.const 7))))";
    assert_eq!(Guest::new(module(grow)).run().code, Some(0));
    assert_eq!(Guest::new(module(grow)).memory(1 << 20).run().code, Some(7));
    let ended = Guest::new(module(
        "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then (call $deep)))",
    ))
    .memory(1 << 20)
    .run();
    assert_eq!(ended.code, code(ExitCode::OutOfMemory));
    assert!(
        ended
            .stderr
            .starts_with("sampan: out of memory: the limit of 1048576 bytes"),
        "{}",
        ended.stderr
    );
    let ended = Guest::new(module("")).memory(1 << 16).run();
    assert_eq!(ended.code, code(ExitCode::OutOfMemory), "{ended:?}");
}

#[test]
fn a_hundred_megabytes_arrive_whole() {
    // 1600 writes of 64 KiB, whose bytes count up by position.
    let flood = module(
        "(local $i i32)
         (loop $fill
            (i32.store8 (i32.add (i32.const 65536) (local.get $i)) (i32.mul (local.get $i) (i32.const 7)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $fill (i32.lt_u (local.get $i) (i32.const 65536))))
         (i32.store (i32.const 0) (i32.const 65536))
         (local.set $i (i32.const 1600))
         (loop $write
            (i32.store (i32.const 4) (i32.const 65536))
            (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $deep)))
            (if (i32.ne (i32.load (i32.const 8)) (i32.const 65536)) (then (call $deep)))
            (local.set $i (i32.sub (local.get $i) (i32.const 1)))
            (br_if $write (local.get $i)))",
    );
    let ended = Guest::new(flood).run();
    assert_eq!(
        (ended.code, ended.stdout.len()),
        (Some(0), 1600 * 65536),
        "{}",
        ended.stderr
    );
    let line: Vec<u8> = (0..65536u32).map(|i| (i * 7) as u8).collect();
    assert!(ended.stdout.chunks(65536).all(|chunk| chunk == line));
}

#[test]
fn binary_input_comes_back_unchanged() {
    let copy = module(
        "(local $n i32)
         (i32.store (i32.const 0) (i32.const 65536))
         (loop $copy
            (i32.store (i32.const 4) (i32.const 10000))
            (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $deep)))
            (local.set $n (i32.load (i32.const 8)))
            (if (local.get $n) (then
                (i32.store (i32.const 4) (local.get $n))
                (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $deep)))
                (br $copy))))",
    );
    let input: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let ended = Guest::new(copy).stdin(&input).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout == input,
        "{} of {} bytes",
        ended.stdout.len(),
        input.len()
    );
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn commands_of_every_wasi_see_arguments_and_environment() {
    for name in ["hello", "hello-p2", "hello-p3"] {
        let ended = Guest::built(name)
            .args(["one", "two"].as_slice())
            .env("GREETING", "ahoy")
            .run();
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        assert!(
            ended.out().contains(&format!("hello from {name}")),
            "{name}: {ended:?}"
        );
    }
    for name in ["probe", "probe-p2"] {
        let ended = Guest::built(name)
            .args(&["env"])
            .env("GREETING", "ahoy")
            .run();
        assert_eq!(
            (ended.code, ended.out().as_str()),
            (Some(0), "GREETING=ahoy\n"),
            "{name}"
        );
        let ended = Guest::built(name).args(&["args", "x y"]).run();
        assert!(ended.out().contains("x y"), "{name}: {ended:?}");
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn input_and_output_of_components_are_binary_safe() {
    let input: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for name in ["probe", "probe-p2"] {
        let ended = Guest::built(name).args(&["cat-stdin"]).stdin(&input).run();
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        assert!(
            ended.stdout == input,
            "{name}: {} of {} bytes",
            ended.stdout.len(),
            input.len()
        );
        let ended = Guest::built(name).args(&["flood", "100000000"]).run();
        assert_eq!(
            (ended.code, ended.stdout.len()),
            (Some(0), 100_000_000),
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn directories_have_the_rights_that_were_granted() {
    for name in ["probe", "probe-p2"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("file"), "content").expect("write");
        let file = dir.path().join("file");
        let file = file.to_str().expect("UTF-8");
        let new = dir.path().join("new");
        let new = new.to_str().expect("UTF-8");

        let ended = Guest::built(name)
            .args(&["cat", file])
            .directory(dir.path(), Access::ReadOnly)
            .run();
        assert_eq!(
            (ended.code, ended.out().as_str()),
            (Some(0), "content"),
            "{name}: {ended:?}"
        );
        for args in [
            ["write", file, "x"],
            ["write", new, "x"],
            ["rename", file, new],
            ["link", file, new],
        ] {
            let ended = Guest::built(name)
                .args(&args)
                .directory(dir.path(), Access::ReadOnly)
                .run();
            assert_eq!(ended.code, Some(1), "{name} {args:?}: {ended:?}");
        }
        let ended = Guest::built(name)
            .args(&["cat", "/etc/passwd"])
            .directory(dir.path(), Access::ReadOnly)
            .run();
        assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
        assert!(!new.is_empty() && !std::path::Path::new(new).exists());

        let ended = Guest::built(name)
            .args(&["write", new, "x"])
            .directory(dir.path(), Access::ReadWrite)
            .run();
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        assert_eq!(std::fs::read_to_string(new).expect("read"), "x");
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let gone = std::path::Path::new("/nonexistent/volume");
    let ended = Guest::new(module(""))
        .directory(gone, Access::ReadOnly)
        .run();
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("/nonexistent/volume"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_the_engine_does_not_set_up_is_no_trap() {
    let ended = Guest::new(r#"(module (memory 1 1 shared) (func (export "_start")))"#).run();
    assert_eq!(ended.code, code(ExitCode::NotRunnable), "{ended:?}");
    assert!(ended.stderr.contains("shared memory"), "{}", ended.stderr);
    let early = r#"(module (func $early (unreachable)) (start $early) (func (export "_start")))"#;
    let ended = Guest::new(early).run();
    assert_eq!(ended.code, code(ExitCode::Trap), "{ended:?}");
    assert!(ended.stderr.contains("at early"), "{}", ended.stderr);
}
