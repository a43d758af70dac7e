use oci_spec::runtime::{BoxBuilder, Process};

use crate::container::{Faults, environment, plain_absolute};
use crate::json::from_json;
use crate::{Entry, GuestPlan, LogFormat, PlanError};

/// A process to be executed in a container that runs, as containerd asked for it, checked and typed.
///
/// Made in `Exec`. The process itself is kept for native containers, which take all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecPlan {
    /// Arguments; the first names what is executed. Never empty.
    pub args: Vec<String>,
    /// Environment; of a name that comes twice the last value alone.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Columns and rows of its terminal, where the request says them.
    pub size: Option<(u16, u16)>,
    /// The whole OCI process.
    pub process: Process,
    /// Whether its output goes where the container's own goes, and not to whoever asked for it.
    pub logged: bool,
}

impl ExecPlan {
    /// Checks and types an OCI `process` in JSON.
    ///
    /// # Errors
    /// [`PlanError`] with every field at fault.
    pub fn read(json: &[u8]) -> Result<Self, PlanError> {
        let mut faults = Faults::default();
        let process: Process = from_json(json).map_err(|error| {
            PlanError::one("process", format!("is not an OCI process: {error}"))
        })?;
        let args = process.args().clone().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            faults.add("process.args", "is empty: say what to execute");
        }
        let env = environment(&process, &mut faults);
        let cwd = plain_absolute(process.cwd()).unwrap_or_else(|| {
            faults.add(
                "process.cwd",
                format!(
                    "`{}` is not an absolute path without `..`",
                    process.cwd().display()
                ),
            );
            String::new()
        });
        let size = console_size(&process);
        faults.or(Self {
            args,
            env,
            cwd,
            size,
            process,
            logged: false,
        })
    }

    /// An export of the container's own program, called without a word of its own: arguments, environment and working
    /// directory are the container's.
    #[must_use]
    pub fn of_export(beside: &GuestPlan, export: &str) -> Self {
        let mut args = beside.args.clone();
        let name = format!("{}#{export}", beside.entry.path);
        match args.first_mut() {
            Some(first) => *first = name,
            None => args.push(name),
        }
        Self {
            args,
            env: Vec::new(),
            cwd: beside.cwd.clone(),
            size: None,
            process: Process::default(),
            logged: true,
        }
    }

    /// The whole process, with a terminal of that size.
    #[must_use]
    pub fn sized(&self, size: Option<(u16, u16)>) -> Process {
        let mut process = self.process.clone();
        let size = size.and_then(|(columns, rows)| {
            // No field is required, so that this cannot fail.
            let cells = BoxBuilder::default().width(columns).height(rows);
            cells.build().ok()
        });
        process.set_console_size(size);
        process
    }

    /// What `args[0]` names.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::parse(self.args.first().map_or("", String::as_str))
    }

    /// The guest that is executed beside the container's own: with its grants and limits, its environment under that of
    /// the request, and with arguments and working directory of the request.
    #[must_use]
    pub fn guest(&self, beside: &GuestPlan) -> GuestPlan {
        let mut env = beside.env.clone();
        for (name, value) in &self.env {
            match env.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone_from(value),
                None => env.push((name.clone(), value.clone())),
            }
        }
        GuestPlan {
            entry: self.entry(),
            args: self.args.clone(),
            env,
            cwd: self.cwd.clone(),
            command: true,
            // What the kubelet reads there is said of the container, not of what was executed in it.
            termination: None,
            // As little are these its ends: a probe that traps would take the places of the dumps that are wanted.
            coredump: None,
            log_format: if self.logged {
                beside.log_format
            } else {
                LogFormat::Text
            },
            ..beside.clone()
        }
    }
}

/// Columns and rows of a process's terminal (`process.consoleSize`), where the spec says them.
#[must_use]
pub fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let (columns, rows) = (
        size.width().try_into().ok()?,
        size.height().try_into().ok()?,
    );
    (columns > 0 && rows > 0).then_some((columns, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineSettings, GuestLimits, HttpListen, LogFormat, Network, RootAccess, Serving};

    #[test]
    fn the_request_lies_over_the_container() {
        let beside = GuestPlan {
            entry: Entry::parse("/app.wasm#serve"),
            args: vec!["/app.wasm#serve".into()],
            env: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
            cwd: "/".into(),
            http: HttpListen {
                address: Err("none".into()),
            },
            network: Network::default(),
            limits: GuestLimits {
                memory: Some(7),
                ..GuestLimits::default()
            },
            rootfs: RootAccess::ReadOnly,
            serving: Serving::default(),
            config_dir: None,
            on_term: None,
            coredump: Some(Err("nowhere".to_owned())),
            log_format: LogFormat::Json,
            engine: EngineSettings::default(),
            termination: Some("/dev/termination-log".to_owned()),
            command: false,
        };
        let json = br##"{"cwd": "/data/.", "args": ["#check", "x"], "env": ["B=3", "C=4"], "user": {"uid": 0, "gid": 0},
            "consoleSize": {"width": 80, "height": 24}}"##;
        let plan = ExecPlan::read(json).expect("valid");
        assert_eq!(plan.size, Some((80, 24)));
        let guest = plan.guest(&beside);
        assert_eq!(guest.entry.export.as_deref(), Some("check"));
        assert_eq!(guest.args, ["#check", "x"]);
        assert_eq!((guest.cwd.as_str(), guest.command), ("/data", true));
        let env: Vec<_> = guest.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["A=1", "B=3", "C=4"]);
        assert_eq!(guest.limits, beside.limits);
        assert_eq!((guest.termination, guest.coredump), (None, None));
        assert_eq!(guest.log_format, LogFormat::Text);
        let own = ExecPlan::of_export(&beside, "bye").guest(&beside);
        assert_eq!(own.log_format, LogFormat::Json);
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let json =
            br#"{"cwd": "../x", "args": [""], "env": ["SECRET"], "user": {"uid": 0, "gid": 0}}"#;
        let text = ExecPlan::read(json).expect_err("wrong").to_string();
        for field in ["process.args", "process.env[0]", "process.cwd"] {
            assert!(text.contains(field), "{text}");
        }
        assert!(!text.contains("SECRET"), "{text}");
        let text = ExecPlan::read(b"{}").expect_err("wrong").to_string();
        assert!(text.contains("process: is not an OCI process"), "{text}");
    }
}
