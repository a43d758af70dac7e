//! The command line and the environment: every setting once, with its default.
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::config::HANDLERS;

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sampan-node",
    version,
    about = "Installs the runtime `sampan` on this node, keeps it, and takes it away again",
    after_help = "Every option is an environment variable as well. Nothing that this program does can be left half done: \
                  killed at any moment, its next run repairs or rolls back."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How.
    #[command(flatten)]
    pub settings: Settings,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub enum Command {
    /// Detect, install, try, label, and keep it so: what the DaemonSet runs
    Run,
    /// Serve this node's numbers and tell what goes wrong with its pods, without changing anything: for a node on which the
    /// runtime was installed by hand
    Watch,
    /// Install once
    Install,
    /// Take everything away once
    Uninstall(Uninstall),
    /// Print what is installed and what happened last, as JSON
    Status {
        /// Print the names of all steps at which the process can be killed by a test
        #[arg(long)]
        steps: bool,
    },
    /// Print what runs here, as JSON
    Detect,
    /// Export traces alone, for a node without Kubernetes: as `OTEL_EXPORTER_OTLP_ENDPOINT` and its like say
    Traces,
}

/// How the runtime is taken away.
#[derive(Args, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uninstall {
    /// How many seconds pods of this runtime have to end; `None`: that there are any is a reason to refuse.
    #[arg(skip)]
    pub wait_for_pods: Option<u64>,
    /// End pods of this runtime
    #[arg(long)]
    pub force: bool,
    /// Ask the programs on all nodes of the cluster to do it, and wait until they have
    #[arg(long)]
    pub cluster: bool,
}

/// How it is done.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// This node's name in Kubernetes
    #[arg(long, global = true, env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Where the host's root is mounted; `/` on the node itself
    #[arg(long, global = true, env = "SAMPAN_HOST", default_value = "/host")]
    pub host: PathBuf,
    /// Directory with the shim and the runner that are to be installed
    #[arg(
        long,
        global = true,
        env = "SAMPAN_PAYLOAD",
        default_value = "/opt/sampan/payload"
    )]
    pub payload: PathBuf,
    /// Directory of the host for the two and for this program's state
    #[arg(
        long,
        global = true,
        env = "SAMPAN_PREFIX",
        default_value = "/opt/sampan"
    )]
    pub prefix: PathBuf,
    /// The shim's run directory on the host (`run` of its configuration): where spans are taken
    #[arg(long, global = true, env = "SAMPAN_RUN", default_value = "/run/sampan")]
    pub run: PathBuf,
    /// containerd's socket on the host [default: that of the distribution]
    #[arg(long, global = true, env = "SAMPAN_CONTAINERD_SOCKET", value_parser = nonempty)]
    pub containerd_socket: Option<PathBuf>,
    /// containerd's configuration on the host [default: what the running containerd was told]
    #[arg(long, global = true, env = "SAMPAN_CONTAINERD_CONFIG", value_parser = nonempty)]
    pub containerd_config: Option<PathBuf>,
    /// How containerd is restarted: `systemd:UNIT`, `signal` (whoever supervises it starts it again) or `none`
    /// [default: found out]
    #[arg(long, global = true, env = "SAMPAN_RESTART")]
    pub restart: Option<Restart>,
    /// How many seconds containerd may take to come back
    #[arg(
        long,
        global = true,
        env = "SAMPAN_RESTART_TIMEOUT",
        default_value_t = 120
    )]
    pub restart_timeout: u64,
    /// Handlers to be registered: `sampan` and its alias `wasmtime` have a supervisor for each pod, `sampan-dense` has one
    /// for all
    #[arg(
        long,
        global = true,
        env = "SAMPAN_RUNTIMECLASSES",
        value_delimiter = ',',
        default_value = "sampan,sampan-dense",
        value_parser = clap::builder::PossibleValuesParser::new(HANDLERS)
    )]
    pub runtimeclasses: Vec<String>,
    /// An image to try the runtime with, which has to end with 0 [default: one that comes with this program]
    #[arg(long, global = true, env = "SAMPAN_CANARY_IMAGE")]
    pub canary_image: Option<String>,
    /// How many seconds lie between two tries
    #[arg(
        long,
        global = true,
        env = "SAMPAN_CANARY_INTERVAL",
        default_value_t = 600
    )]
    pub canary_interval: u64,
    /// Compile the programs of images when they come to the node, before a pod asks for them
    #[arg(long, global = true, env = "SAMPAN_PRECOMPILE")]
    pub precompile: bool,
    /// How many seconds lie between two looks at what is installed
    #[arg(
        long,
        global = true,
        env = "SAMPAN_CHECK_INTERVAL",
        default_value_t = 30
    )]
    pub check_interval: u64,
    /// Namespace of the lease by which one node at a time restarts its containerd [default: the pod's]
    #[arg(long, global = true, env = "SAMPAN_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How many seconds other nodes wait for one that has taken the lease and gives no sign of life
    #[arg(
        long,
        global = true,
        env = "SAMPAN_LEASE_TIMEOUT",
        default_value_t = 90,
        value_parser = clap::value_parser!(u64).range(5..=3600)
    )]
    pub lease_timeout: u64,
    /// How many seconds to wait for pods of this runtime to end before it is taken away; without it they are a reason
    /// to refuse
    #[arg(
        long,
        global = true,
        env = "SAMPAN_WAIT_FOR_PODS",
        value_name = "SECONDS"
    )]
    pub wait_for_pods: Option<u64>,
    /// What `run` does when it is asked to end
    #[arg(long, global = true, env = "SAMPAN_ON_EXIT", default_value = "keep")]
    pub on_exit: OnExit,
    /// Where `run` serves /healthz, /readyz and /metrics
    #[arg(
        long,
        global = true,
        env = "SAMPAN_LISTEN",
        default_value = "0.0.0.0:9808"
    )]
    pub listen: std::net::SocketAddr,
    /// Work on this node alone: no label, no event, no lease
    #[arg(long, global = true)]
    pub no_kubernetes: bool,
    /// For tests: kill this process at a step, or let the step fail
    #[arg(long, global = true, env = "SAMPAN_FAIL_AT", hide = true)]
    pub fail_at: Option<String>,
}

impl Settings {
    /// How the runtime is taken away, with the time for pods, which is a setting of `run` too.
    #[must_use]
    pub fn uninstall(&self, how: Uninstall) -> Uninstall {
        Uninstall {
            wait_for_pods: self.wait_for_pods,
            ..how
        }
    }
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum OnExit {
    /// Everything stays as it is
    Keep,
    /// Everything is taken away
    Uninstall,
}

/// How containerd is restarted.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(into = "String")]
pub enum Restart {
    /// By systemd: the unit's name.
    Systemd(String),
    /// By SIGTERM; whoever supervises it starts it again.
    Signal,
    /// Not at all.
    None,
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("systemd:")) {
            ("signal", _) => Ok(Self::Signal),
            ("none", _) => Ok(Self::None),
            (_, Some(unit)) if !unit.is_empty() && !unit.starts_with('-') => {
                Ok(Self::Systemd(unit.to_owned()))
            }
            _ => Err("it is not `systemd:UNIT`, `signal` or `none`".to_owned()),
        }
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Systemd(unit) => format!("systemd:{unit}"),
            Restart::Signal => "signal".to_owned(),
            Restart::None => "none".to_owned(),
        }
    }
}

fn nonempty(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err("it is not an absolute path".to_owned())
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
    fn ways_to_restart_are_read() {
        for text in ["systemd:k3s", "signal", "none"] {
            let restart: Restart = text.parse().expect("known");
            assert_eq!(String::from(restart), text);
        }
        for text in ["", "systemd:", "systemd:--now", "docker"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }

    #[test]
    fn handlers_are_ours() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let arguments = parse("sampan-node install --runtimeclasses sampan,wasmtime").expect("two");
        assert_eq!(arguments.settings.runtimeclasses, ["sampan", "wasmtime"]);
        assert!(parse("sampan-node install --runtimeclasses runc").is_err());
        assert!(parse("sampan-node install --containerd-config x").is_err());
        let arguments = parse("sampan-node uninstall --wait-for-pods 3").expect("known");
        assert_eq!(arguments.settings.wait_for_pods, Some(3));
        let Command::Uninstall(how) = arguments.command else {
            panic!("{:?} is none", arguments.command);
        };
        assert_eq!(arguments.settings.uninstall(how).wait_for_pods, Some(3));
    }
}
