//! containerd: by its process, and by what its own program says. Nobody speaks its protocol here.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use toml::{Table, Value};

use crate::doctor::finding::Finding;

/// A containerd that runs.
#[derive(Debug)]
pub(super) struct Containerd {
    pid: u32,
    /// Its program.
    pub(super) program: PathBuf,
    /// The configuration that it was started with; others may be imported there.
    file: PathBuf,
    /// Its socket.
    pub(super) address: PathBuf,
    /// What its configuration says, all files together.
    pub(super) config: Table,
    environment: Vec<(String, String)>,
}

/// Its configuration if nothing is said.
const FILE: &str = "/etc/containerd/config.toml";
/// Where it listens if nothing is said.
const ADDRESS: &str = "/run/containerd/containerd.sock";
/// Its versions that have been seen with Sampan: from, and before.
const VERSIONS: ((u64, u64), (u64, u64)) = ((1, 7), (3, 0));

/// Finds the containerd of this node, or the one that listens at `address`.
pub(super) fn find(address: Option<&Path>, findings: &mut Vec<Finding>) -> Option<Containerd> {
    let mut all = Vec::new();
    let mut unread = Vec::new();
    for pid in processes("containerd") {
        match Containerd::of(pid) {
            Ok(found) => all.push(found),
            Err(reason) => unread.push(format!("process {pid}: {reason}")),
        }
    }
    let wanted = address.unwrap_or(Path::new(ADDRESS));
    let index = all.iter().position(|found| found.address == wanted);
    // One alone is meant wherever it listens, unless another was named.
    let index = index.or_else(|| (address.is_none() && all.len() == 1).then_some(0));
    let Some(index) = index else {
        let there: Vec<_> = all
            .iter()
            .map(|found| found.address.display().to_string())
            .collect();
        findings.push(match (there.is_empty(), unread.first()) {
            (true, Some(reason)) => Finding::unknown(
                "containerd",
                format!("it runs, and cannot be asked: {reason}"),
                "run this as root, in the mount namespace of the host",
            ),
            (true, None) => Finding::fault(
                "containerd",
                "it does not run",
                "start it, or run this on a node; CRI-O and others are not supported",
            ),
            (false, _) => Finding::fault(
                "containerd",
                format!("none listens at {}", wanted.display()),
                format!("name one of these with --address: {}", there.join(", ")),
            ),
        });
        return None;
    };
    let found = all.swap_remove(index);
    findings.push(found.version());
    findings.extend(found.freshness());
    Some(found)
}

/// Processes of this name.
fn processes(name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        })
        .collect();
    found.sort_unstable();
    found
}

impl Containerd {
    fn of(pid: u32) -> Result<Self, String> {
        let read = |what: &str| -> Result<Vec<String>, String> {
            let bytes = std::fs::read(format!("/proc/{pid}/{what}"))
                .map_err(|error| format!("cannot read its {what}: {error}"))?;
            let words = bytes
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty());
            Ok(words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect())
        };
        let arguments = read("cmdline")?;
        let environment = read("environ")?
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let program = std::fs::read_link(format!("/proc/{pid}/exe"))
            .map_err(|error| format!("cannot find its program: {error}"))?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| "/".into());
        let mut found = Self {
            pid,
            program,
            file: FILE.into(),
            address: PathBuf::new(),
            config: Table::new(),
            environment,
        };
        let named = option(&arguments, &["c", "config"]);
        if let Some(config) = &named {
            found.file = cwd.join(config);
        }
        let mut dump = Vec::new();
        if named.is_some() {
            dump.extend(["--config".to_owned(), found.file.display().to_string()]);
        }
        dump.extend(["config".to_owned(), "dump".to_owned()]);
        found.config = found
            .ask(&dump)?
            .parse()
            .map_err(|error| format!("cannot read its configuration: {error}"))?;
        let address = option(&arguments, &["a", "address"])
            .or_else(|| address(&found.config))
            .unwrap_or_else(|| ADDRESS.to_owned());
        found.address = cwd.join(address);
        Ok(found)
    }

    /// What its program answers to a command line; it is the one that runs, wherever its file has gone.
    fn ask(&self, arguments: &[String]) -> Result<String, String> {
        let exe = format!("/proc/{}/exe", self.pid);
        let output = Command::new(&exe)
            // Some are one program with many names.
            .arg0("containerd")
            .args(arguments)
            .output()
            .map_err(|error| format!("cannot execute {}: {error}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "`containerd {}` fails: {}",
                arguments.join(" "),
                said.trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A variable of its environment, which shims inherit.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    fn version(&self) -> Finding {
        let answer = match self.ask(&["--version".to_owned()]) {
            Ok(answer) => answer,
            Err(reason) => {
                return Finding::unknown("containerd", reason, "run this as root");
            }
        };
        let Some((version, numbers)) = version(&answer) else {
            return Finding::unknown(
                "containerd",
                format!("it says of its version: {}", answer.trim()),
                "Sampan needs 1.7 or newer",
            );
        };
        let at = self.address.display();
        if numbers < VERSIONS.0 {
            Finding::fault(
                "containerd",
                format!("{version} at {at} is older than 1.7"),
                "install containerd 1.7 or newer; 2.1 or newer is best",
            )
        } else if numbers >= VERSIONS.1 {
            Finding::advice(
                "containerd",
                format!("{version} at {at} is newer than what Sampan was tried with"),
                "look for a newer Sampan",
            )
        } else {
            Finding::good(
                "containerd",
                format!("{version} at {at}, process {}", self.pid),
            )
        }
    }

    /// Whether its configuration was changed after it had read it.
    fn freshness(&self) -> Option<Finding> {
        let started = started(self.pid)?;
        let imports = self.config.get("imports").and_then(Value::as_array);
        let imports = imports.into_iter().flatten().filter_map(Value::as_str);
        let imports = imports.flat_map(|pattern| match pattern.strip_suffix("/*.toml") {
            None => vec![PathBuf::from(pattern)],
            Some(dir) => std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|end| end == "toml"))
                .collect(),
        });
        let newer = [self.file.clone()]
            .into_iter()
            .chain(imports)
            .find(|file| {
                file.metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|modified| modified > started + Duration::from_secs(1))
            })?;
        Some(Finding::advice(
            "containerd",
            format!(
                "{} is newer than the process that has read it",
                newer.display()
            ),
            "restart containerd; pods run on meanwhile",
        ))
    }
}

/// Where a configuration lets it listen: in a table of its own, since version 4 in that of a plugin.
fn address(config: &Table) -> Option<String> {
    let plugin = || {
        let plugins = config.get("plugins")?;
        plugins.get("io.containerd.server.v1.grpc")
    };
    let table = config.get("grpc").or_else(plugin)?;
    let address = table.get("address").and_then(Value::as_str)?;
    (!address.is_empty()).then(|| address.to_owned())
}

/// The value of one of containerd's options.
fn option(arguments: &[String], names: &[&str]) -> Option<String> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let name = argument.trim_start_matches('-');
        if name.len() == argument.len() {
            return None;
        }
        match name.split_once('=') {
            Some((name, value)) if names.contains(&name) => return Some(value.to_owned()),
            None if names.contains(&name) => return rest.next().cloned(),
            None if [
                "a",
                "address",
                "c",
                "config",
                "l",
                "log-level",
                "root",
                "state",
            ]
            .contains(&name) =>
            {
                rest.next();
            }
            _ => {}
        }
    }
    None
}

/// From `containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7`: the version and its first two numbers.
fn version(answer: &str) -> Option<(String, (u64, u64))> {
    answer.split_whitespace().skip(1).find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        numbers.next()?;
        Some((word.trim_start_matches('v').to_owned(), (major, minor)))
    })
}

/// When a process started.
fn started(pid: u32) -> Option<SystemTime> {
    std::fs::metadata(format!("/proc/{pid}"))
        .and_then(|metadata| metadata.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_containerd_says_them() {
        for (answer, wanted) in [
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7",
                Some(("2.1.4", (2, 1))),
            ),
            (
                "containerd github.com/containerd/containerd v1.7.35 abc\n",
                Some(("1.7.35", (1, 7))),
            ),
            (
                "containerd github.com/k3s-io/containerd v2.0.5-k3s2",
                Some(("2.0.5-k3s2", (2, 0))),
            ),
            (
                "containerd containerd.io 1.6.33 d2d58213f",
                Some(("1.6.33", (1, 6))),
            ),
            ("something else", None),
        ] {
            let wanted = wanted.map(|(text, numbers)| (text.to_owned(), numbers));
            assert_eq!(version(answer), wanted, "{answer}");
        }
    }

    #[test]
    fn addresses_are_found_in_every_version_of_the_configuration() {
        let of = |text: &str| address(&text.parse().expect("TOML"));
        let wanted = Some("/x.sock".to_owned());
        assert_eq!(of("[grpc]\naddress = '/x.sock'\n"), wanted);
        let plugin = "[plugins.'io.containerd.server.v1.grpc']\naddress = '/x.sock'\n";
        assert_eq!(of(plugin), wanted);
        assert_eq!(of("version = 4\n"), None);
        assert_eq!(of("[grpc]\naddress = ''\n"), None);
    }

    #[test]
    fn options_are_found_before_a_command() {
        let option = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            option(&words, &["c", "config"])
        };
        for (line, wanted) in [
            ("containerd", None),
            ("containerd -c /a", Some("/a")),
            ("containerd --config=/a", Some("/a")),
            ("containerd --log-level debug --config /a", Some("/a")),
            ("containerd --address /s -c=/a", Some("/a")),
            ("containerd config -c /a", None),
        ] {
            assert_eq!(option(line).as_deref(), wanted, "{line}");
        }
    }
}
