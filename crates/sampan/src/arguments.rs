//! The command line, as it is typed. What it means is said by the commands.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::failure::{Failure, Kind};
use crate::output::{Format, Screen};
use crate::package::Form;

#[derive(Debug, Parser)]
#[command(
    name = "sampan",
    version,
    about = "WebAssembly as ordinary pods: looked at before it runs, and run without a cluster",
    after_help = "Examples:\n  sampan inspect hello.wasm\n  sampan inspect registry.example/hello:v1 --output json\n  \
        sampan explain deployment.yaml\n  sampan run hello.wasm --env NAME=you -- one two\n  \
        sampan push hello.wasm registry.example/hello:v1\n  sampan doctor\n  sampan profile web-7d4b9\n\n\
        Exit codes: docs/tool.md"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The form of the answer, and of errors
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(Inspect),
    Explain(Explain),
    Run(Run),
    Compile(Compile),
    Pack(Pack),
    Push(Push),
    #[command(subcommand)]
    Store(Store),
    Doctor(Doctor),
    Top(Top),
    Profile(Profile),
    PerfMap(PerfMap),
    Coredump(Coredump),
    /// Print a script that completes command lines of sampan
    #[command(
        after_help = "Example:\n  sampan completions bash > /usr/share/bash-completion/completions/sampan"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Say what a program needs and whether it would run
///
/// Exit code 0 if it would run, 1 if its container's creation would fail.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan inspect hello.wasm\n  sampan inspect registry.example/hello:v1\n  \
        sampan inspect ./image-layout --entry '/app.wasm#check'\n  cat hello.wasm | sampan inspect - --output json"
)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) program: Program,
    /// Compile it too, and say how long that took on this machine and how large the result is
    #[arg(long)]
    pub(crate) compile: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Where a program comes from.
#[derive(Debug, Args)]
pub(crate) struct Program {
    /// A file (.wasm, .wat), `-` for standard input, a directory with an OCI image layout, or an image's name in a registry
    #[arg(value_name = "PROGRAM")]
    pub(crate) name: String,
    /// What a pod's `command` would begin with: a file of the image, `#function`, or both; default: the image's own
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry: Option<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// How registries are spoken to.
#[derive(Debug, Args)]
pub(crate) struct Registry {
    /// Speak HTTP without TLS with the registry (always done on this machine itself)
    #[arg(long)]
    pub(crate) plain_http: bool,
}

/// What a pod, a RuntimeClass and a node can say about a guest.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// A setting of the pod, as the annotation `sampan.dev/NAME`; may be given again
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) annotations: Vec<(String, String)>,
    /// A setting of the RuntimeClass (a runtime option of its handler); may be given again
    #[arg(long = "class-set", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) class: Vec<(String, String)>,
    /// A node's configuration, for its defaults and ceilings (/etc/sampan/config.toml of a node)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
}

/// Say what a pod's containers will see and be refused
///
/// Reads pods and whatever holds a pod template (Deployment, Job, CronJob, ...), YAML or JSON. Nothing is sent anywhere.
/// Exit code 0 if all would be created, 1 if one would not.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan explain pod.yaml\n  sampan explain deployment.yaml --container web\n  \
        helm template chart | sampan explain - --node-config config.toml"
)]
pub(crate) struct Explain {
    /// Files with manifests; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Only containers of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// A setting of the RuntimeClass (a runtime option of its handler); may be given again
    #[arg(long = "class-set", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) class: Vec<(String, String)>,
    /// A node's configuration, for its defaults and ceilings (/etc/sampan/config.toml of a node)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
}

/// Run a program as a pod would, without a cluster
///
/// The same engine, directories, environment and limits; no namespaces, no cgroup, no privileges. Ends with the guest's
/// exit code.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sampan run hello.wasm -- one two\n  \
        sampan run tool.wasm --dir ./data:/data:ro --env LEVEL=debug --memory 64Mi\n  \
        sampan run server.wasm --http 127.0.0.1:8080\n  sampan run registry.example/hello:v1\n  \
        sampan run hello.wasm --pod pod.yaml --container hello")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) program: OptionalProgram,
    /// A directory of this machine, and where the guest sees it; `:ro` for reading alone; may be given again
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = directory)]
    pub(crate) dir: Vec<Directory>,
    /// A variable of its environment; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Where it listens if it serves HTTP; else as in a pod, but on 127.0.0.1 where nothing says an address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<String>,
    /// The container's memory limit, as in a pod: `64Mi`
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<String>,
    /// Working directory in the guest's view
    #[arg(long, value_name = "PATH")]
    pub(crate) cwd: Option<String>,
    /// A directory of this machine, where it leaves a core dump if it traps
    #[arg(long, value_name = "DIR")]
    pub(crate) coredump: Option<PathBuf>,
    /// Take command, arguments, environment, volumes, limits and settings from a container of this manifest
    #[arg(long, value_name = "FILE")]
    pub(crate) pod: Option<String>,
    /// Which container of the manifest; default: the first
    #[arg(long, value_name = "NAME", requires = "pod")]
    pub(crate) container: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Arguments of the program; instead of those of the image or the pod
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// [`Program`], which a manifest may name instead.
#[derive(Debug, Args)]
pub(crate) struct OptionalProgram {
    /// A file (.wasm, .wat), `-` for standard input, a directory with an OCI image layout, or an image's name in a
    /// registry; default: the image of --pod
    #[arg(value_name = "PROGRAM", required_unless_present = "pod")]
    pub(crate) name: Option<String>,
    /// What a pod's `command` would begin with: a file of the image, `#function`, or both; default: the image's own
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry: Option<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Write a program as an image into a directory
///
/// The directory is an OCI image layout, which `sampan inspect` and `sampan run` read, and skopeo, oras and crane copy. The
/// same program gives the same bytes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan pack hello.wasm --to ./hello-image\n  \
        sampan pack hello.wasm --to ./hello-image --form bytecode-alliance"
)]
pub(crate) struct Pack {
    /// A file (.wasm, .wat), or `-` for standard input
    #[arg(value_name = "PROGRAM")]
    pub(crate) program: String,
    /// The directory; it is made
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// What kind of image
    #[arg(long, value_enum, default_value_t)]
    pub(crate) form: Form,
}

/// Send a program as an image to a registry
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan push hello.wasm registry.example/hello:v1\n  \
        sampan push hello.wasm 127.0.0.1:5000/hello:v1 --form content"
)]
pub(crate) struct Push {
    /// A file (.wasm, .wat), or `-` for standard input
    #[arg(value_name = "PROGRAM")]
    pub(crate) program: String,
    /// The image's name
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
    /// What kind of image
    #[arg(long, value_enum, default_value_t)]
    pub(crate) form: Form,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Compile a program ahead, into a store or a file
///
/// In the store a pod, or `sampan run`, finds it and compiles nothing. On a node the tool has to be of the release that is
/// installed there: an engine uses what the same engine has made. A file is for looking at: nothing takes native code
/// from elsewhere than its own store.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan compile hello.wasm\n  sampan compile registry.example/hello:v1 --store /var/lib/sampan\n  \
        sampan compile hello.wasm --to hello.cwasm --set fuel=1000000"
)]
pub(crate) struct Compile {
    #[command(flatten)]
    pub(crate) program: Program,
    /// Write the native code to this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    pub(crate) to: Option<PathBuf>,
    /// The store's directory; default: as root the node's, else that of `sampan run`
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Look after compiled programs
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  sampan store ls\n  sampan store verify --repair\n  sampan store gc --keep 2Gi --dry-run"
)]
pub(crate) enum Store {
    Ls(StoreLs),
    Gc(StoreGc),
    Verify(StoreVerify),
}

/// Which store is meant.
#[derive(Debug, Args)]
pub(crate) struct StorePlace {
    /// Its directory; default: as root the node's, else that of `sampan run`
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// The node's configuration, which names its store (default: /etc/sampan/config.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
}

/// List compiled programs: by what engine, how large, when used last, whether in use
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan store ls\n  sampan store ls --store /var/lib/sampan --output json"
)]
pub(crate) struct StoreLs {
    #[command(flatten)]
    pub(crate) place: StorePlace,
}

/// Remove what was not used for longest, and what crashes have left; never what is in use
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan store gc\n  sampan store gc --keep 2Gi --dry-run\n  sampan store gc --keep 0"
)]
pub(crate) struct StoreGc {
    #[command(flatten)]
    pub(crate) place: StorePlace,
    /// Bytes that may stay (default: what the store may keep anyway)
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) keep: Option<String>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Check owners, rights and wholeness, and that this tool's engine takes what it has made
///
/// Exit code 0 if all is sound, 1 if something is not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sampan store verify\n  sampan store verify --repair")]
pub(crate) struct StoreVerify {
    #[command(flatten)]
    pub(crate) place: StorePlace,
    /// Remove compiled programs that are not sound: they are made again when they are wanted
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Examine this node: whether Sampan works here, and if not, what to do
///
/// Looks at containerd and its configuration, the binaries, cgroups, the kernel and the store, and runs a program
/// through containerd. Changes nothing. Exit code 0 if nothing is wrong, 1 if something is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan doctor\n  sampan doctor --no-canary --output json\n  \
        sampan doctor --address /run/k3s/containerd/containerd.sock"
)]
pub(crate) struct Doctor {
    /// The socket of the containerd that is meant, where there are several
    #[arg(long, value_name = "SOCKET")]
    pub(crate) address: Option<PathBuf>,
    /// The node's configuration (default: /etc/sampan/config.toml, or what containerd's environment names)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
    /// Run no program
    #[arg(long)]
    pub(crate) no_canary: bool,
}

/// Show this node's guests, the busiest first
///
/// A table that is drawn again every few seconds; where it is not shown on a terminal, or with `--output json`, it is
/// shown once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan top\n  sampan top --once --sort memory\n  sampan top --output json"
)]
pub(crate) struct Top {
    /// Show it once
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds over which the use of processors is measured, and after which the table is drawn again
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) interval: u16,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sort: Order,
    /// Pods' own containers too, which do nothing but hold namespaces
    #[arg(long)]
    pub(crate) all: bool,
    /// The node's configuration, which names its run directory (default: /etc/sampan/config.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
}

/// A guest of this node.
#[derive(Debug, Args)]
pub(crate) struct Observed {
    /// A pod (or NAMESPACE/POD), the id of a container, or the number of a process (that of `sampan run`)
    #[arg(value_name = "GUEST")]
    pub(crate) name: String,
    /// Which container of the pod
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// The node's configuration, which names its run directory (default: /etc/sampan/config.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
}

/// Say where a guest of this node spends its time
///
/// Looks, many times a second, which functions are running, in all threads. The guest need not know, and runs as before.
/// Needs root on the node. Exit code 1 if the guest used no processor meanwhile.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan profile web-7d4b9\n  sampan profile shop/web-7d4b9 --container app --seconds 30\n  \
        sampan profile web-7d4b9 --format svg --to web.svg\n  sampan profile web-7d4b9 --format firefox --to web.json"
)]
pub(crate) struct Profile {
    #[command(flatten)]
    pub(crate) guest: Observed,
    /// How long it is looked at
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Samples for each second in which a thread is running
    #[arg(long, value_name = "HERTZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) frequency: u32,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ProfileForm,
    /// The file; it is replaced (default: standard output)
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// How a profile is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileForm {
    /// The functions, the busiest first
    #[default]
    Table,
    /// A flame graph
    Svg,
    /// For Firefox Profiler (profiler.firefox.com)
    Firefox,
    /// A line for each stack, for tools that make flame graphs
    Folded,
}

/// Write the names of a guest's functions as a perf map
///
/// `/tmp/perf-PID.map`, as compilers in other runtimes do, for tools that read such maps. `perf` itself finds the names in
/// the compiled program.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan perf-map web-7d4b9\n  sampan perf-map shop/web-7d4b9 --container app --output json"
)]
pub(crate) struct PerfMap {
    #[command(flatten)]
    pub(crate) guest: Observed,
}

/// Read a core dump that a guest left
///
/// Such dumps are left by pods with the annotation `sampan.dev/coredump`, by `sampan run --coredump`, and by other runtimes
/// of WebAssembly.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sampan coredump web.0.core.wasm\n  sampan coredump web.0.core.wasm --output json"
)]
pub(crate) struct Coredump {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// The order of a table of guests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// By use of processors
    #[default]
    Cpu,
    /// By memory
    Memory,
    /// By the names of namespace, pod and container
    Name,
}

/// A directory that the guest is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) readonly: bool,
}

/// Shows the help that was asked for, or tells in a line what is wrong with a command line; returns the exit code.
pub(crate) fn explain(
    said: &clap::Error,
    words: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let help = matches!(
        said.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if help {
        let text = said.render();
        // If nobody reads it there is nobody to tell.
        let _ = if said.use_stderr() {
            write!(stderr, "{}", text.ansi())
        } else {
            write!(stdout, "{}", text.ansi())
        };
        return u8::try_from(said.exit_code()).unwrap_or(u8::MAX);
    }
    let text = said.render().to_string();
    // What follows is how it goes, which `--help` says better.
    let text = ["\n\nUsage:", "\n\nFor more information"]
        .iter()
        .filter_map(|end| text.split_once(end))
        .map(|(before, _)| before)
        .min_by_key(|before| before.len())
        .unwrap_or(&text);
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let json = words
        .windows(2)
        .any(|pair| pair[0] == "--output" && pair[1] == "json")
        || words.iter().any(|word| word == "--output=json");
    let mut screen = Screen {
        format: if json { Format::Json } else { Format::Text },
        stdout,
        stderr,
    };
    screen.fail(
        &Failure::new(Kind::Wrong, format!("{text} (--help says how it goes)")),
        false,
    )
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn directory(text: &str) -> Result<Directory, String> {
    let (text, readonly) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    match text.rsplit_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => Ok(Directory {
            host: host.into(),
            guest: guest.to_owned(),
            readonly,
        }),
        _ => Err("expected HOST:GUEST[:ro], GUEST being an absolute path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn directories_are_taken_apart() {
        let read = |text: &str| {
            directory(text).map(|d| (d.host.display().to_string(), d.guest, d.readonly))
        };
        assert_eq!(
            read("./a:/b"),
            Ok(("./a".to_owned(), "/b".to_owned(), false))
        );
        assert_eq!(
            read("a:b:/c:ro"),
            Ok(("a:b".to_owned(), "/c".to_owned(), true))
        );
        for wrong in ["", ":", "a", "a:", "a:b", ":/b", "a:ro"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
