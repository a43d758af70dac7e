//! What guests leave and write besides what they do: core dumps, and lines in JSON.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plan::{Access, CoreDump, LogFormat};
use serde_json::Value;
use wasmparser::{KnownCustom, Parser, Payload};

use crate::process::Guest;
use crate::servers::{PATIENCE, Server};

/// Three functions deep, with a number in the second page of its memory.
const DEEP: &str = r#"(module $deep
    (memory (export "memory") 2)
    (func $inner unreachable)
    (func $outer (i32.store (i32.const 70000) (i32.const 77)) (call $inner))
    (func (export "_start") (call $outer)))"#;

/// Thirty functions deep, of which a log shows twenty.
const RECURSIVE: &str = r#"(module
    (memory (export "memory") 1)
    (func $down (param i32)
        (if (i32.eqz (local.get 0)) (then unreachable))
        (call $down (i32.sub (local.get 0) (i32.const 1))))
    (func (export "_start") (call $down (i32.const 28))))"#;

fn dumping(guest: Guest, dir: &Path, max_bytes: u64) -> Guest {
    let path = dir.to_str().expect("UTF-8").to_owned();
    guest.directory(dir, Access::ReadWrite).plan(move |plan| {
        plan.coredump = Some(Ok(CoreDump {
            dir: path,
            source: None,
            name: "web".to_owned(),
            max_bytes,
        }));
    })
}

/// Functions of the stack, and how many memories and instances there were.
fn read(path: &Path) -> (Vec<u32>, usize, usize) {
    let bytes = std::fs::read(path).expect("a dump");
    wasmparser::validate(&bytes).expect("a valid module");
    let (mut functions, mut memories, mut instances) = (Vec::new(), 0, 0);
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.expect("well-formed") {
            Payload::MemorySection(section) => memories = section.count() as usize,
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::CoreDumpStack(stack) => {
                    functions = stack.frames.iter().map(|frame| frame.funcidx).collect();
                }
                KnownCustom::CoreDumpInstances(all) => instances = all.instances.len(),
                _ => {}
            },
            _ => {}
        }
    }
    (functions, memories, instances)
}

#[test]
fn a_command_that_traps_leaves_a_dump() {
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dir.path().join("web.0.core.wasm");
    let ended = dumping(Guest::new(DEEP), dir.path(), 1 << 20).run();
    assert_eq!(ended.code, Some(121), "{}", ended.stderr);
    let length = dump.metadata().expect("a dump").len();
    let mut lines = ended.stderr.lines();
    assert!(lines.next().is_some_and(|line| line.contains("at inner")));
    let told = format!("sampan: core dump: {} ({length} bytes)", dump.display());
    assert_eq!(lines.next(), Some(told.as_str()));
    assert_eq!(lines.next(), Some("  0: inner"));
    assert_eq!(read(&dump), (vec![0, 1, 2], 1, 1));
}

#[test]
fn what_does_not_trap_or_is_not_asked_leaves_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let exits = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 3))))"#;
    let ended = dumping(Guest::new(exits), dir.path(), 1 << 20).run();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), ""));
    let ended = Guest::new(DEEP)
        .directory(dir.path(), Access::ReadWrite)
        .run();
    assert!(
        ended.code == Some(121) && !ended.stderr.contains("core dump"),
        "{}",
        ended.stderr
    );
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}

#[test]
fn a_dump_goes_deeper_than_a_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let ended = dumping(Guest::new(RECURSIVE), dir.path(), 1 << 20).run();
    assert_eq!(
        ended.stderr.matches(": down").count(),
        20,
        "{}",
        ended.stderr
    );
    let (functions, _, _) = read(&dir.path().join("web.0.core.wasm"));
    assert_eq!(functions.len(), 30);
}

#[test]
fn memory_that_was_refused_leaves_a_dump_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let greedy = r#"(module (memory (export "memory") 1)
        (func (export "_start") (if (i32.eq (memory.grow (i32.const 16384)) (i32.const -1)) (then (unreachable)))))"#;
    let ended = dumping(Guest::new(greedy).memory(1 << 20), dir.path(), 1 << 20).run();
    assert!(
        ended.code == Some(122) && ended.stderr.contains("web.0.core.wasm"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_directory_that_is_none_ends_the_guest_before_it_begins() {
    let dir = tempfile::tempdir().expect("a directory");
    let guest = Guest::new(DEEP).directory(dir.path(), Access::ReadWrite);
    let path = dir.path().join("absent").display().to_string();
    let place = path.clone();
    let ended = guest
        .plan(move |plan| {
            plan.coredump = Some(Ok(CoreDump {
                dir: place,
                source: None,
                name: "web".to_owned(),
                max_bytes: 1 << 20,
            }));
        })
        .run();
    assert_eq!(ended.code, Some(126), "{}", ended.stderr);
    let told = format!("sampan: cannot open the directory {path} for core dumps: No such file");
    assert!(ended.stderr.starts_with(&told), "{}", ended.stderr);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn components_leave_dumps_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let guest = Guest::built("probe-p2").args(&["trap"]);
    let ended = dumping(guest, dir.path(), 16 << 20).run();
    assert!(ended.stderr.contains("core dump: "), "{}", ended.stderr);
    let (functions, memories, instances) = read(&dir.path().join("web.0.core.wasm"));
    assert!(
        !functions.is_empty() && memories >= 1 && instances > 1,
        "{functions:?} {memories} {instances}"
    );
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn requests_that_trap_leave_three_dumps_at_most() {
    for name in ["http-p2", "http-p3"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut server = Server::start(dumping(Guest::built(name), dir.path(), 16 << 20));
        let stderr = BufReader::new(server.running.child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            for line in stderr.lines() {
                let _ = sender.send(line.expect("read"));
            }
        });
        // One is written at a time: who comes meanwhile leaves none, and has to come again.
        let trap_until = |told: &str| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert_eq!(server.get("/trap").status, 500, "{name}");
                while let Ok(line) = lines.recv_timeout(Duration::from_millis(500)) {
                    if line.contains(told) {
                        return;
                    }
                }
                assert!(Instant::now() < deadline, "{name}: nobody says {told:?}");
            }
        };
        for number in 0..3 {
            trap_until(&format!(
                "core dump: {}/web.{number}.core.wasm (",
                dir.path().display()
            ));
        }
        trap_until("3 of this container are there already");
        assert_eq!(server.get("/").status, 200, "{name}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), 0);
        reader.join().expect("joined");
        for number in 0..3 {
            let file = dir.path().join(format!("web.{number}.core.wasm"));
            assert!(!read(&file).0.is_empty());
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 3);
    }
}

/// Writes a line, half a line, the other half, something that is no text, half a line on standard error, and traps.
const WRITES: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "one \"quoted\"\n") (data (i32.const 120) "tw") (data (i32.const 124) "o\n")
    (data (i32.const 130) "\ff\n") (data (i32.const 140) "rest")
    (func $say (param $fd i32) (param $at i32) (param $length i32)
        (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
        (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start")
        (call $say (i32.const 1) (i32.const 100) (i32.const 13))
        (call $say (i32.const 1) (i32.const 120) (i32.const 2))
        (call $say (i32.const 1) (i32.const 124) (i32.const 2))
        (call $say (i32.const 1) (i32.const 130) (i32.const 2))
        (call $say (i32.const 2) (i32.const 140) (i32.const 4))
        unreachable))"#;

fn objects(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

#[test]
fn lines_of_a_command_are_objects() {
    let ended = Guest::new(WRITES)
        .plan(|plan| plan.log_format = LogFormat::Json)
        .run();
    assert_eq!(ended.code, Some(121));
    let out = objects(&ended.out());
    let messages: Vec<_> = out.iter().map(|object| &object["message"]).collect();
    assert_eq!(messages, ["one \"quoted\"", "two", "\u{fffd}"]);
    assert!(out.iter().all(|object| object["stream"] == "stdout"
        && object["time"].as_str().is_some_and(|time| time.len() == 24)));
    let err = objects(&ended.stderr);
    assert_eq!(err[0]["message"], "rest");
    let told = err[1]["message"].as_str().expect("text");
    assert!(
        told.starts_with("sampan: trap: ") && err.len() == 2,
        "{}",
        ended.stderr
    );
    // As they are, where nobody asks.
    let ended = Guest::new(WRITES).run();
    assert_eq!(ended.stdout, b"one \"quoted\"\ntwo\n\xff\n");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn lines_of_servers_are_objects_with_the_request() {
    for name in ["http-p2", "http-p3"] {
        let mut server = Server::start(Guest::built(name).plan(|plan| {
            plan.log_format = LogFormat::Json;
            plan.serving.log_request_id = true;
        }));
        let mut stream = server.send(
            "GET /stdout?text=hello HTTP/1.1\r\nHost: test\r\nX-Request-Id: abc-1\r\nConnection: close\r\n\r\n",
        );
        stream
            .read_to_string(&mut String::new())
            .expect("an answer");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), 0);
        let mut stdout = String::new();
        let mut pipe = server.running.child.stdout.take().expect("piped");
        pipe.read_to_string(&mut stdout).expect("read");
        let line = stdout.lines().find(|line| line.contains("hello"));
        let line = line.unwrap_or_else(|| panic!("{name}: {stdout}"));
        let object = &objects(&line[line.find('{').expect("an object")..])[0];
        assert_eq!(
            (&object["message"], &object["request"]),
            (&"hello".into(), &"abc-1".into()),
            "{line}"
        );
    }
}

#[test]
fn entries_of_wasi_logging_have_levels() {
    let ended = Guest::new(include_str!("../../../../test/guests/wat/config.wat"))
        .entry("#main")
        .env("greeting", "ahoy")
        .plan(|plan| plan.log_format = LogFormat::Json)
        .run();
    let entries = objects(&ended.stderr);
    assert_eq!(entries.len(), 1, "{}", ended.stderr);
    for (field, value) in [
        ("level", "info"),
        ("context", "test"),
        ("message", "ahoy"),
        ("stream", "stderr"),
    ] {
        assert_eq!(entries[0][field], value, "{}", ended.stderr);
    }
}
