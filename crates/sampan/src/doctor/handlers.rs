//! Runtime handlers of ours in containerd's configuration, and the programs that they lead to.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use plan::{EngineSettings, NodeConfig};
use toml::{Table, Value};

use crate::doctor::containerd::Containerd;
use crate::doctor::finding::Finding;

/// A handler, which a RuntimeClass names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handler {
    pub(super) name: String,
    /// As containerd has it: `io.containerd.sampan.v1`.
    pub(super) runtime: String,
    /// The program, where it is named by its path.
    pub(super) path: Option<PathBuf>,
    /// Which of the pods' annotations it is told.
    annotations: Vec<String>,
    pub(super) systemd_cgroup: bool,
}

/// The plugin that holds CRI's runtimes, the newest first.
const PLUGINS: [&str; 3] = [
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "cri",
];
/// How our runtime types begin.
const RUNTIME: &str = "io.containerd.sampan";
const ABOUT: &str = "handler";

/// Examines all handlers of ours, and returns those whose program is there.
pub(super) fn examine(
    containerd: &Containerd,
    config: &NodeConfig,
    findings: &mut Vec<Finding>,
) -> Vec<Handler> {
    let all = handlers(&containerd.config);
    if all.is_empty() {
        findings.push(Finding::fault(
            ABOUT,
            format!(
                "no runtime of containerd's configuration has a runtime_type that begins {RUNTIME}"
            ),
            "install the chart, or add the handler by hand (docs/platform.md), and restart containerd",
        ));
    }
    let path = containerd.variable("PATH").unwrap_or_default();
    let mut sound = Vec::new();
    let mut runners = Vec::new();
    for handler in all {
        let Some(shim) = shim(&handler, &path) else {
            let where_to = handler.path.as_ref().map_or_else(
                || format!("in containerd's PATH ({path})"),
                |path| path.display().to_string(),
            );
            findings.push(Finding::fault(
                ABOUT,
                format!("{}: its program is not there: {where_to}", handler.name),
                "install the binaries there (make install), or correct runtime_path",
            ));
            continue;
        };
        findings.push(of_handler(&handler, &shim));
        if !handler
            .annotations
            .iter()
            .any(|pattern| matches!(pattern.as_str(), "sampan.dev/*" | "*"))
        {
            findings.push(Finding::advice(
                ABOUT,
                format!(
                    "{}: annotations sampan.dev/* of pods do not reach it, so their settings count for nothing",
                    handler.name
                ),
                "pod_annotations = [\"sampan.dev/*\"] and container_annotations = [\"sampan.dev/*\"] in its table",
            ));
        }
        let runner = config
            .runner
            .clone()
            .unwrap_or_else(|| real(&shim).with_file_name("sampan-runner"));
        if !runners.contains(&runner) {
            findings.push(of_runner(&runner));
            runners.push(runner);
        }
        sound.push(handler);
    }
    sound
}

/// Our handlers of an effective configuration.
fn handlers(config: &Table) -> Vec<Handler> {
    let plugins = config.get("plugins");
    let runtimes = PLUGINS.iter().find_map(|plugin| {
        let cri = plugins?.get(plugin)?;
        cri.get("containerd")?.get("runtimes")?.as_table()
    });
    let mut found = Vec::new();
    for (name, table) in runtimes.into_iter().flatten() {
        let text = |key: &str| {
            let value = table.get(key).and_then(Value::as_str);
            value.filter(|value| !value.is_empty())
        };
        let Some(runtime) = text("runtime_type") else {
            continue;
        };
        let of_path =
            text("runtime_path").is_some_and(|path| path.contains("/containerd-shim-sampan"));
        if !runtime.starts_with(RUNTIME) && !runtime.contains("/containerd-shim-sampan") && !of_path
        {
            continue;
        }
        let absolute = runtime.starts_with('/').then_some(runtime);
        let annotations = table.get("pod_annotations").and_then(Value::as_array);
        let options = table.get("options");
        let systemd = options.and_then(|options| options.get("SystemdCgroup"));
        found.push(Handler {
            name: name.clone(),
            runtime: runtime.to_owned(),
            path: text("runtime_path").or(absolute).map(Into::into),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            systemd_cgroup: systemd.and_then(Value::as_bool).unwrap_or(false),
        });
    }
    found
}

/// The program that containerd executes for a handler, if it is there (containerd, `runtime/v2`, "Runtime shim").
fn shim(handler: &Handler, path: &str) -> Option<PathBuf> {
    if let Some(path) = &handler.path {
        return path.is_file().then(|| path.clone());
    }
    // io.containerd.NAME.VERSION is containerd-shim-NAME-VERSION.
    let mut parts = handler.runtime.rsplitn(3, '.');
    let (version, name) = (parts.next()?, parts.next()?);
    let program = format!("containerd-shim-{name}-{version}");
    path.split(':')
        .map(|dir| Path::new(dir).join(&program))
        .find(|file| file.is_file())
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn of_handler(handler: &Handler, shim: &Path) -> Finding {
    let name = &handler.name;
    if let Some(fault) = changeable(&real(shim)) {
        return Finding::fault(
            ABOUT,
            format!("{name}: {fault}"),
            "chown root and chmod 755: who can write it is root on this node",
        );
    }
    match answer(shim, &["-v"]) {
        Ok(answer) => {
            let version = answer
                .split_whitespace()
                .last()
                .unwrap_or_default()
                .to_owned();
            let own = concat!("v", env!("CARGO_PKG_VERSION"));
            if version == own {
                Finding::good(
                    ABOUT,
                    format!(
                        "{name}: {} executes {} {version}",
                        handler.runtime,
                        shim.display()
                    ),
                )
            } else {
                Finding::advice(
                    ABOUT,
                    format!(
                        "{name}: {} is {version}, this tool is {own}",
                        shim.display()
                    ),
                    "use the tool of that release: what it says of programs and pods is true for its own",
                )
            }
        }
        Err(reason) => Finding::fault(
            ABOUT,
            format!("{name}: {reason}"),
            "install the binaries of this machine's processor again (make install, or the chart)",
        ),
    }
}

fn of_runner(runner: &Path) -> Finding {
    const ABOUT: &str = "runner";
    if !runner.is_file() {
        return Finding::fault(
            ABOUT,
            format!("{} is not there", runner.display()),
            "install it beside the shim, or set runner in the node's configuration",
        );
    }
    if let Some(fault) = changeable(&real(runner)) {
        return Finding::fault(ABOUT, fault, "chown root and chmod 755");
    }
    match answer(runner, &["--version"]) {
        Ok(answer) if answer.contains(&engine::fingerprint(&EngineSettings::default())) => {
            Finding::good(
                ABOUT,
                format!(
                    "{} is {}, whose engine is this tool's",
                    runner.display(),
                    answer.trim()
                ),
            )
        }
        Ok(answer) => Finding::advice(
            ABOUT,
            format!(
                "{} is {}; this tool's engine is {}",
                runner.display(),
                answer.trim(),
                engine::fingerprint(&EngineSettings::default())
            ),
            "use the tool of that release: what this one compiles into the store is not used there",
        ),
        Err(reason) => Finding::fault(
            ABOUT,
            reason,
            "install the binaries of this machine's processor again (make install, or the chart)",
        ),
    }
}

/// Why somebody else than root can change a program.
fn changeable(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    let mode = metadata.permissions().mode();
    if metadata.uid() != 0 {
        Some(format!(
            "{} belongs to user {}",
            path.display(),
            metadata.uid()
        ))
    } else if mode & 0o022 != 0 {
        Some(format!(
            "others may write {} (mode {:04o})",
            path.display(),
            mode & 0o7777
        ))
    } else if mode & 0o111 == 0 {
        Some(format!("{} cannot be executed", path.display()))
    } else {
        None
    }
}

/// What a program of ours prints.
fn answer(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("cannot execute {}: {error}", program.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{} {}: {}, {}",
            program.display(),
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_handlers_are_found_in_every_version_of_the_configuration() {
        for plugin in [
            "io.containerd.cri.v1.runtime",
            "io.containerd.grpc.v1.cri",
            "cri",
        ] {
            let text = format!(
                r#"
[plugins."{plugin}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{plugin}".containerd.runtimes.sampan]
runtime_type = "io.containerd.sampan.v1"
runtime_path = ""
pod_annotations = ["sampan.dev/*"]
options = {{ SystemdCgroup = true }}
[plugins."{plugin}".containerd.runtimes.wasm]
runtime_type = "/opt/x/containerd-shim-sampan-v1"
"#
            );
            let found = handlers(&text.parse().expect("TOML"));
            let names: Vec<_> = found.iter().map(|found| found.name.as_str()).collect();
            assert_eq!(names, ["sampan", "wasm"], "{plugin}");
            assert!(found[0].systemd_cgroup && found[0].path.is_none());
            assert_eq!(found[0].annotations, ["sampan.dev/*"]);
            assert_eq!(
                found[1].path.as_deref(),
                Some(Path::new("/opt/x/containerd-shim-sampan-v1"))
            );
        }
        assert!(handlers(&Table::new()).is_empty());
    }

    #[test]
    fn programs_are_looked_for_as_containerd_does() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let shim_file = dir.path().join("containerd-shim-sampan-dense-v1");
        std::fs::write(&shim_file, "x").expect("written");
        let handler = |runtime: &str, path: Option<&Path>| Handler {
            name: "x".to_owned(),
            runtime: runtime.to_owned(),
            path: path.map(Path::to_owned),
            annotations: Vec::new(),
            systemd_cgroup: false,
        };
        let path = format!("/nowhere:{}", dir.path().display());
        let dense = handler("io.containerd.sampan-dense.v1", None);
        assert_eq!(shim(&dense, &path), Some(shim_file.clone()));
        assert_eq!(shim(&dense, "/nowhere"), None);
        assert_eq!(shim(&handler("io.containerd.sampan.v1", None), &path), None);
        let named = handler("io.containerd.sampan.v1", Some(&shim_file));
        assert_eq!(shim(&named, ""), Some(shim_file));
    }
}
