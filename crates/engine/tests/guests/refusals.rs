use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use engine::{CompileError, Kind, LoadError};
use plan::{EngineSettings, ExitCode};

use crate::process::{Guest, plan};

fn compile(source: &[u8], out: &mut Vec<u8>) -> Result<Kind, CompileError> {
    engine::compile(source, &EngineSettings::default(), out)
}

fn load(file: &File) -> Result<engine::Program, LoadError> {
    engine::Program::load(file, &plan())
}

fn refusal(source: impl AsRef<[u8]>) -> CompileError {
    let mut out = Vec::new();
    let error = compile(source.as_ref(), &mut out).expect_err("not a program");
    assert!(out.is_empty(), "nothing is written");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

fn artifact(mode: u32, contents: &[u8]) -> File {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(contents).expect("write");
    std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("mode");
    File::open(file.path()).expect("open")
}

#[test]
fn what_is_not_wasm_is_refused_by_name() {
    let mut module = Vec::new();
    assert_eq!(
        compile(b"(module (func))", &mut module).expect("a module"),
        Kind::Module
    );
    assert_eq!(
        compile(b" ;; text\n(component)", &mut Vec::new()).expect("a component"),
        Kind::Component
    );
    assert!(matches!(refusal(&module), CompileError::Precompiled));

    let own = std::fs::read(std::env::current_exe().expect("own path")).expect("read");
    assert!(matches!(refusal(own), CompileError::Native));
    assert!(matches!(refusal(b""), CompileError::NotWasm { .. }));
    assert!(refusal(b"#!/bin/sh\n").to_string().contains("#!/bin/s"));
    assert!(matches!(refusal(b"\0as"), CompileError::Truncated { .. }));
    let error = refusal(b"(module\n  (func (nonsense)))");
    assert!(
        error.to_string().contains("unknown operator") && error.to_string().contains(":2:"),
        "{error}"
    );
}

#[test]
fn a_program_is_validated_before_it_is_compiled() {
    let wasm =
        wat::parse_str(r#"(module (func (export "_start") (drop (i32.const 1))))"#).expect("wat");
    for length in [8 + 2, wasm.len() - 1] {
        let error = refusal(&wasm[..length]);
        assert!(
            matches!(error, CompileError::Truncated { .. }),
            "{length}: {error}"
        );
    }
    let invalid = wat::parse_str("(module (func (result i32) i64.const 1))").expect("wat");
    let error = refusal(&invalid);
    assert!(
        matches!(&error, CompileError::Invalid { reason } if reason.contains("type mismatch")),
        "{error}"
    );
    // The old form of exceptions, which wasmtime never had.
    let legacy = wat::parse_str("(module (func try nop catch_all nop end))").expect("wat");
    assert!(matches!(refusal(&legacy), CompileError::Invalid { .. }));
}

#[test]
fn only_read_only_artifacts_of_this_engine_are_mapped() {
    let mut module = Vec::new();
    compile(b"(module (func))", &mut module).expect("a module");
    assert!(load(&artifact(0o400, &module)).is_ok());
    let refused = |mode, contents: &[u8]| match load(&artifact(mode, contents)) {
        Ok(_) => panic!("{mode:o} was mapped"),
        Err(error) => error,
    };
    assert!(matches!(
        refused(0o600, &module),
        LoadError::Writable { .. }
    ));
    assert!(matches!(
        refused(0o420, &module),
        LoadError::Writable { .. }
    ));
    assert!(matches!(
        refused(0o400, b"\0asm\x01\0\0\0"),
        LoadError::NotAnArtifact
    ));
    assert!(matches!(
        refused(0o400, &[0; 4096]),
        LoadError::NotAnArtifact
    ));
    let own = std::fs::read(std::env::current_exe().expect("own path")).expect("read");
    assert!(matches!(refused(0o400, &own), LoadError::NotAnArtifact));
    let dir = File::open("/").expect("open");
    assert!(matches!(load(&dir), Err(LoadError::Writable { .. })));
}

#[test]
fn missing_imports_are_named_with_the_wasi_that_has_them() {
    for (source, words) in [
        (
            r#"(module (import "env" "nope" (func)) (import "env" "neither" (func)) (func (export "_start")))"#,
            ["`env` `nope`, `env` `neither`", "Emscripten"],
        ),
        (
            r#"(module (import "wasi_unstable" "fd_write" (func)) (func (export "_start")))"#,
            ["`wasi_unstable` `fd_write`", "preview 0"],
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "sock_open" (func)) (func (export "_start")))"#,
            ["`sock_open`", "extension"],
        ),
        (
            r#"(component (import "wasi:http/types@0.9.0" (instance (export "f" (func)))) (core module $m (func (export "f")))
            (core instance $i (instantiate $m)) (func (export "f") (canon lift (core func $i "f"))))"#,
            ["`wasi:http/types@0.9.0`", "WASI 0.9.0 has it"],
        ),
        (
            r#"(component (import "wasi:keyvalue/store@0.2.0-draft" (instance (export "f" (func)))) (core module $m (func (export "f")))
            (core instance $i (instantiate $m)) (func (export "f") (canon lift (core func $i "f"))))"#,
            ["`wasi:keyvalue/store@0.2.0-draft`", "proposal"],
        ),
        (
            r#"(component (import "wasi:cli/environment@0.2.99" (instance (export "get-mood" (func))))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m)) (func (export "f") (canon lift (core func $i "f"))))"#,
            ["`wasi:cli/environment@0.2.99`", "get-mood"],
        ),
    ] {
        let entry = if source.starts_with("(component") {
            "#f"
        } else {
            "/app.wasm"
        };
        let ended = Guest::new(source).entry(entry).run();
        assert_eq!(
            ended.code,
            Some(ExitCode::NotRunnable.into()),
            "{source}: {ended:?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_missing_import_is_told_before_a_missing_entry_point() {
    let module = r#"(module (import "env" "nope" (func)))"#;
    let component = r#"(component (import "wasi:cli/mood@0.3.0" (instance (export "f" (func)))))"#;
    for source in [module, component] {
        let ended = Guest::new(source).run();
        assert!(
            ended.stderr.contains("the program imports"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_missing_entry_point_lists_what_there_is() {
    let module = r#"(module (func (export "one")) (func (export "two") (param i32)) (memory (export "memory") 1))"#;
    let ended = Guest::new(module).run();
    assert_eq!(ended.code, Some(ExitCode::NotRunnable.into()));
    assert!(
        ended.stderr.contains("`_start`") && ended.stderr.contains("`one`, `two`"),
        "{}",
        ended.stderr
    );
    let ended = Guest::new(module).entry("#three").run();
    assert_eq!(ended.code, Some(ExitCode::NotFound.into()));
    assert!(
        ended
            .stderr
            .contains("no function `three`; it exports `one`, `two`"),
        "{}",
        ended.stderr
    );
    let ended = Guest::new(module).entry("#two").run();
    assert_eq!(ended.code, Some(ExitCode::NotRunnable.into()));
    assert!(
        ended.stderr.contains("`two` takes parameters (i32)"),
        "{}",
        ended.stderr
    );
}
