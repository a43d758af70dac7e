use std::os::unix::fs::symlink;
use std::path::PathBuf;

use wasmparser::{KnownCustom, Parser, Payload};
use wasmtime::{Config, Engine, Instance, Module};

use super::*;

/// Three functions deep, with a number in memory behind a megabyte of nothing, or two megabytes of noise.
const PROGRAM: &str = r#"(module $deep
    (memory (export "memory") 64)
    (global $count (mut i32) (i32.const 7))
    (func $fill (local $at i32)
        (loop $more
            (i32.store (local.get $at) (i32.const 0x5a5a5a5a))
            (local.set $at (i32.add (local.get $at) (i32.const 4)))
            (br_if $more (i32.lt_u (local.get $at) (i32.const 0x200000)))))
    (func $inner unreachable)
    (func $middle (global.set $count (i32.const 42)) (call $inner))
    (func (export "fails") (i32.store (i32.const 0x100000) (i32.const 0x12345678)) (call $middle))
    (func (export "fails-full") (call $fill) (call $middle)))"#;

struct Trapped {
    store: Store<()>,
    error: wasmtime::Error,
}

fn trapped(function: &str) -> Trapped {
    let mut config = Config::new();
    config.coredump_on_trap(true);
    let engine = Engine::new(&config).expect("an engine");
    let module = Module::new(&engine, wat::parse_str(PROGRAM).expect("valid text")).expect("valid");
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
    let function = instance
        .get_typed_func::<(), ()>(&mut store, function)
        .expect("exported");
    let error = function.call(&mut store, ()).expect_err("a trap");
    Trapped { store, error }
}

fn dumps(dir: &Path, max_bytes: u64) -> Dumps {
    Dumps {
        directory: directory(dir).expect("opened"),
        plan: CoreDump {
            dir: "/dumps".to_owned(),
            source: None,
            name: "web".to_owned(),
            max_bytes,
        },
        turn: Semaphore::new(1),
    }
}

fn leave(dumps: &Dumps, trapped: &mut Trapped) -> String {
    dumps
        .leave(&mut trapped.store, &trapped.error, "trap: unreachable")
        .expect("something to tell")
}

/// What a reader that knows nothing of us finds.
#[derive(Debug, Default, PartialEq)]
struct Read {
    functions: Vec<u32>,
    modules: Vec<String>,
    memory: Vec<u8>,
    pages: Vec<u64>,
    instances: usize,
    custom: Vec<String>,
}

fn read(bytes: &[u8]) -> Read {
    wasmparser::validate(bytes).expect("a valid module");
    let mut read = Read::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.expect("well-formed") {
            Payload::MemorySection(section) => {
                let all = section.into_iter().map(|ty| ty.expect("a memory").initial);
                read.pages = all.collect();
                read.memory = vec![0; read.pages[0] as usize * 65_536];
            }
            Payload::DataSection(section) => {
                for data in section {
                    let data = data.expect("a segment");
                    let wasmparser::DataKind::Active { offset_expr, .. } = data.kind else {
                        panic!("passive");
                    };
                    let mut reader = offset_expr.get_operators_reader();
                    let Ok(wasmparser::Operator::I32Const { value }) = reader.read() else {
                        panic!("no constant");
                    };
                    let at = value.cast_unsigned() as usize;
                    read.memory[at..at + data.data.len()].copy_from_slice(data.data);
                }
            }
            Payload::CustomSection(section) => {
                read.custom.push(section.name().to_owned());
                match section.as_known() {
                    KnownCustom::CoreDumpStack(stack) => {
                        read.functions = stack.frames.iter().map(|frame| frame.funcidx).collect();
                    }
                    KnownCustom::CoreDumpModules(modules) => {
                        read.modules = modules
                            .modules
                            .iter()
                            .map(|name| (*name).to_owned())
                            .collect();
                    }
                    KnownCustom::CoreDumpInstances(instances) => {
                        read.instances = instances.instances.len();
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    read
}

#[test]
fn a_dump_has_the_stack_and_the_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut trapped = trapped("fails");
    let told = leave(&dumps(dir.path(), 1 << 20), &mut trapped);
    let bytes = std::fs::read(dir.path().join("web.0.core.wasm")).expect("a dump");
    let length = bytes.len();
    assert_eq!(
        told,
        format!("core dump: /dumps/web.0.core.wasm ({length} bytes)")
    );
    // Zeroes cost nothing.
    assert!(length < 4096, "{length}");
    let read = read(&bytes);
    assert_eq!(read.functions, [1, 2, 3]);
    assert_eq!(read.modules, ["deep"]);
    assert_eq!(
        (read.pages.as_slice(), read.instances),
        ([64].as_slice(), 1)
    );
    assert_eq!(
        read.memory[0x10_0000..0x10_0004],
        0x1234_5678_u32.to_le_bytes()
    );
    assert!(!read.custom.contains(&"sampan-left-out".to_owned()));
}

#[test]
fn the_bound_leaves_memory_out_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut trapped = trapped("fails-full");
    let told = leave(&dumps(dir.path(), 1 << 20), &mut trapped);
    let bytes = std::fs::read(dir.path().join("web.0.core.wasm")).expect("a dump");
    assert!(bytes.len() <= 1 << 20 && bytes.len() > 1_000_000, "{told}");
    assert!(
        told.contains("bytes of memory, for which there is no room"),
        "{told}"
    );
    let bounded = read(&bytes);
    assert_eq!(bounded.functions[0], 1);
    assert!(bounded.custom.contains(&"sampan-left-out".to_owned()));
    // With room for it, all is there.
    leave(&dumps(dir.path(), 4 << 20), &mut trapped);
    let whole = read(&std::fs::read(dir.path().join("web.1.core.wasm")).expect("a dump"));
    assert!(whole.memory[..0x20_0000].iter().all(|byte| *byte == 0x5a));
    // And with none for the stacks, there is no file.
    let told = leave(&dumps(dir.path(), 100), &mut trapped);
    assert!(
        told.starts_with("no core dump in /dumps: stacks and globals alone take"),
        "{told}"
    );
    assert!(!dir.path().join("web.2.core.wasm").exists());
}

#[test]
fn nothing_that_is_there_is_written_to_and_three_are_enough() {
    let dir = tempfile::tempdir().expect("a directory");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "mine").expect("written");
    symlink(&victim, dir.path().join("web.0.core.wasm")).expect("a link");
    symlink("nowhere", dir.path().join("web.1.core.wasm")).expect("a link");
    let mut trapped = trapped("fails");
    let dumps = dumps(dir.path(), 1 << 20);
    assert!(leave(&dumps, &mut trapped).contains("web.2.core.wasm"));
    let told = leave(&dumps, &mut trapped);
    assert!(
        told.contains("3 of this container are there already"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&victim).expect("read"), "mine");
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn the_directory_is_the_volumes_and_no_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let volume = dir.path().join("volume");
    std::fs::create_dir_all(volume.join("dumps")).expect("made");
    std::fs::create_dir(dir.path().join("elsewhere")).expect("made");
    symlink("../elsewhere", volume.join("out")).expect("a link");
    symlink("dumps", volume.join("in")).expect("a link");
    let preopen = |path: &str, source: PathBuf, access| Preopen {
        path: path.to_owned(),
        source: Some(source),
        access,
    };
    let preopens = [
        preopen("/", dir.path().to_owned(), Access::ReadWrite),
        preopen("/data", volume.clone(), Access::ReadWrite),
        preopen("/fixed", volume, Access::ReadOnly),
    ];
    let open = |path: &str| below(&preopens, Path::new(path));
    assert!(open("/data").is_ok() && open("/data/dumps").is_ok());
    for (path, errno) in [
        ("/data/out", Errno::ELOOP),
        ("/data/in", Errno::ELOOP),
        ("/data/absent", Errno::ENOENT),
        ("/fixed/dumps", Errno::EROFS),
    ] {
        let error = open(path).expect_err(path);
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{path}");
    }
}
