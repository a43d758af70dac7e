//! A guest in a process of its own: compiled, mapped, linked and run as the runner does it.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use engine::{Host, Program, SpanSink, Tracer};
use plan::trace::{Span, Tracing};
use plan::{
    Access, EngineSettings, Entry, GuestLimits, GuestPlan, HttpListen, Network, Preopen,
    RootAccess, Serving,
};

/// The variable by which the second execution knows what it is.
const WHAT: &str = "ENGINE_TEST_GUEST";
/// Where spans are written, in the guest's own directory.
const SPANS: &str = "spans";
/// Bytes of a span, as on the way to the supervisor.
pub(crate) const ROOM: usize = 8182;
/// Between the test harness's own words on standard output and the guest's.
const START: &str = "running 1 test\ntest process::guest ... ";

/// A guest to be run.
pub(crate) struct Guest {
    source: Vec<u8>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    memory: Option<u64>,
    listen: Option<SocketAddr>,
    preopens: Vec<(PathBuf, Access)>,
    stdin: Vec<u8>,
    tracing: Option<Tracing>,
    change: Box<dyn FnOnce(&mut GuestPlan)>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A guest that runs until it is told to end.
pub(crate) struct Running {
    pub(crate) child: Child,
    dir: tempfile::TempDir,
}

impl Running {
    /// The spans that have been told so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let told = std::fs::read(self.dir.path().join(SPANS)).expect("spans");
        let lines = told.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| Span::of_json(line).expect("a span"))
            .collect()
    }
}

/// Takes spans as the runner does, but into a file.
struct Kept(std::sync::Mutex<File>);

impl SpanSink for Kept {
    fn take(&self, span: Span) {
        let mut line = span.bounded().into_json_within(ROOM).expect("JSON");
        line.push(b'\n');
        let mut file = self.0.lock().expect("nobody panics");
        file.write_all(&line).expect("written");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    pub(crate) fn new(source: impl AsRef<[u8]>) -> Self {
        Self {
            source: source.as_ref().to_vec(),
            args: vec!["/app.wasm".to_owned()],
            env: Vec::new(),
            memory: None,
            listen: None,
            preopens: Vec::new(),
            stdin: Vec::new(),
            tracing: None,
            change: Box::new(|_| {}),
        }
    }

    /// A guest of `test/guests`, built by `cargo xtask guests`.
    pub(crate) fn built(name: &str) -> Self {
        let path = guests().join(name).with_extension("wasm");
        Self::new(std::fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "cannot read {} ({error}): run `cargo xtask guests`",
                path.display()
            )
        }))
    }

    /// Replaces `args[0]` and with it the entry point.
    pub(crate) fn entry(mut self, entry: &str) -> Self {
        self.args[0] = entry.to_owned();
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Traced like this.
    pub(crate) fn traced(mut self, tracing: Tracing) -> Self {
        self.tracing = Some(tracing);
        self
    }

    /// What else its plan says.
    pub(crate) fn plan(mut self, change: impl FnOnce(&mut GuestPlan) + 'static) -> Self {
        self.change = Box::new(change);
        self
    }

    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    pub(crate) fn directory(mut self, path: &Path, access: Access) -> Self {
        self.preopens.push((path.to_owned(), access));
        self
    }

    pub(crate) fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ended {
        let stdin = self.stdin.clone();
        let mut running = self.start();
        let mut input = running.child.stdin.take().expect("piped");
        let mut output = running.child.stdout.take().expect("piped");
        let mut errors = running.child.stderr.take().expect("piped");
        let (stdout, stderr) = std::thread::scope(|scope| {
            // A guest that does not read is no failure of the test.
            scope.spawn(move || input.write_all(&stdin));
            let stderr = scope.spawn(move || {
                let mut text = String::new();
                errors.read_to_string(&mut text).expect("read stderr");
                text
            });
            let mut stdout = Vec::new();
            output.read_to_end(&mut stdout).expect("read stdout");
            (stdout, stderr.join().expect("joined"))
        });
        let code = running.child.wait().expect("wait").code();
        let own = stdout
            .windows(START.len())
            .position(|part| part == START.as_bytes());
        let stdout = stdout[own.expect("the harness starts") + START.len()..].to_vec();
        Ended {
            code,
            stdout,
            stderr,
        }
    }

    /// Starts it.
    pub(crate) fn start(self) -> Running {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("source"), &self.source).expect("write source");
        let preopens = self.preopens.iter().map(|(path, access)| Preopen {
            path: path.to_str().expect("UTF-8").to_owned(),
            source: None,
            access: *access,
        });
        let mut description = Description {
            guest: GuestPlan {
                entry: Entry::parse(&self.args[0]),
                args: self.args,
                env: self.env,
                http: HttpListen {
                    address: self.listen.ok_or_else(|| "no address".to_owned()),
                },
                limits: GuestLimits {
                    memory: self.memory,
                    ..GuestLimits::default()
                },
                ..plan()
            },
            preopens: preopens.collect(),
            tracing: self.tracing,
        };
        (self.change)(&mut description.guest);
        let json = serde_json::to_string(&description).expect("serialise");
        std::fs::write(dir.path().join("plan"), json).expect("write plan");
        let child = Command::new(std::env::current_exe().expect("own path"))
            .args([
                "process::guest",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(WHAT, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("execute again");
        Running { child, dir }
    }
}

/// Where the guests of `test/guests` lie, built by `cargo xtask guests`.
pub(crate) fn guests() -> PathBuf {
    let cache = std::env::var_os("SAMPAN_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME");
            std::env::var_os("XDG_CACHE_HOME")
                .map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from)
                .join("sampan")
        });
    cache.join("guests")
}

/// The plan of a guest about which nobody says anything.
pub(crate) fn plan() -> GuestPlan {
    GuestPlan {
        entry: Entry::parse("/"),
        args: vec!["/".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        http: HttpListen {
            address: Err("no address".to_owned()),
        },
        network: Network::default(),
        limits: GuestLimits::default(),
        rootfs: RootAccess::ReadWrite,
        serving: Serving::default(),
        config_dir: None,
        on_term: None,
        coredump: None,
        log_format: plan::LogFormat::Text,
        command: false,
        termination: None,
        engine: EngineSettings::default(),
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Description {
    guest: GuestPlan,
    preopens: Vec<Preopen>,
    tracing: Option<Tracing>,
}

/// The second execution. Without the variable there is nothing to do.
#[test]
#[expect(clippy::exit, reason = "the guest's exit code is the process's")]
fn guest() {
    let Some(dir) = std::env::var_os(WHAT) else {
        return;
    };
    std::process::exit(run_guest(Path::new(&dir)));
}

fn run_guest(dir: &Path) -> i32 {
    let source = std::fs::read(dir.join("source")).expect("read source");
    let plan = std::fs::read(dir.join("plan")).expect("read plan");
    let Description {
        guest,
        preopens,
        tracing,
    } = serde_json::from_slice(&plan).expect("parse plan");
    let artifact = dir.join("artifact");
    let mut file = File::create(&artifact).expect("create artifact");
    if let Err(error) = engine::compile(&source, &guest.engine, &mut file) {
        say(&error);
        return 1;
    }
    drop(file);
    std::fs::set_permissions(&artifact, Permissions::from_mode(0o400)).expect("read-only");
    let file = File::open(&artifact).expect("open artifact");
    let linked = Program::load(&file, &guest)
        .map_err(|error| (125, error.to_string()))
        .and_then(|program| {
            program
                .link(&guest)
                .map_err(|error| (error.exit_code().into(), error.to_string()))
        });
    let tracer = tracing.map(|tracing| {
        let spans = File::create(dir.join(SPANS)).expect("create spans");
        Tracer::new(tracing, Box::new(Kept(spans.into())))
    });
    let host = Host {
        tracer,
        ..Host::default()
    };
    match linked {
        Ok(linked) => linked.run(&guest, &preopens, host).code,
        Err((code, reason)) => {
            say(&reason);
            code
        }
    }
}

fn say(reason: &impl std::fmt::Display) {
    writeln!(std::io::stderr(), "refused: {reason}").expect("write");
}
