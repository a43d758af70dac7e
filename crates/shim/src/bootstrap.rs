//! What containerd hands to `start`, in both of its forms, and the answer in the form that it
//! then expects (containerd `docs/runtime-v2.md`, "Bootstrap protocol").

use std::io::{IsTerminal, Read};

use anyhow::{Context, bail};
use containerd_shim::Flags;
use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim_protos::TASK_API_VERSION;
use containerd_shim_protos::protobuf::Message;

const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
const GRPC_ADDRESS: &str = "GRPC_ADDRESS";
/// The newest Task API that containerd speaks: 2 for 1.7, which refuses an answer with more.
const MAX_SHIM_VERSION: &str = "MAX_SHIM_VERSION";
/// As much as containerd itself reads.
const MAX_INPUT: u64 = 10 << 20;

/// What `start` and the supervisor need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    /// The first container's id.
    pub(crate) id: String,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// containerd's gRPC socket, for questions.
    pub(crate) grpc_address: String,
    /// containerd's ttrpc socket, for events.
    pub(crate) ttrpc_address: String,
    /// Where the supervisor's socket is to be, if containerd says so.
    pub(crate) socket_dir: Option<String>,
    /// The runtime's options, a protobuf `Any`; empty where there are none.
    pub(crate) options: Vec<u8>,
    /// Whether details are to be logged.
    pub(crate) debug: bool,
    form: Form,
}

/// How containerd called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// 2.3 and newer: protobuf on standard input and output.
    Protobuf,
    /// Older: flags and environment; the answer is JSON, with a version of the Task API that
    /// containerd has.
    Flags { version: i32 },
}

impl Bootstrap {
    /// Reads flags, environment and standard input.
    pub(crate) fn read(flags: &Flags) -> anyhow::Result<Self> {
        let mut input = Vec::new();
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            stdin
                .lock()
                .take(MAX_INPUT)
                .read_to_end(&mut input)
                .context("read the bootstrap parameters from standard input")?;
        }
        let env = |name| std::env::var(name).unwrap_or_default();
        let version = env(MAX_SHIM_VERSION);
        Self::parse(
            flags,
            &input,
            &env(TTRPC_ADDRESS),
            &env(GRPC_ADDRESS),
            &version,
        )
    }

    fn parse(
        flags: &Flags,
        input: &[u8],
        ttrpc: &str,
        grpc: &str,
        version: &str,
    ) -> anyhow::Result<Self> {
        let this = match parameters(flags, input)? {
            Some(given) => Self {
                options: match given.extensions.first() {
                    Some(extension) => extension.value.write_to_bytes()?,
                    None => Vec::new(),
                },
                debug: flags.debug || given.log_level.value() <= LogLevel::LOG_LEVEL_DEBUG as i32,
                id: given.instance_id,
                namespace: given.namespace,
                grpc_address: given.containerd_grpc_address,
                ttrpc_address: given.containerd_ttrpc_address,
                socket_dir: given.socket_dir.filter(|dir| !dir.is_empty()),
                form: Form::Protobuf,
            },
            None => Self {
                id: flags.id.clone(),
                namespace: flags.namespace.clone(),
                grpc_address: if flags.address.is_empty() {
                    grpc
                } else {
                    &flags.address
                }
                .to_owned(),
                ttrpc_address: ttrpc.to_owned(),
                socket_dir: None,
                options: input.to_vec(),
                debug: flags.debug,
                form: Form::Flags {
                    version: version
                        .parse()
                        .map_or(TASK_API_VERSION, |max: i32| max.min(TASK_API_VERSION)),
                },
            },
        };
        for (what, value) in [
            ("a container id (-id)", &this.id),
            ("a namespace (-namespace)", &this.namespace),
            ("containerd's address (-address)", &this.grpc_address),
            (
                "containerd's ttrpc address (TTRPC_ADDRESS)",
                &this.ttrpc_address,
            ),
        ] {
            if value.is_empty() {
                bail!(
                    "containerd gave no {what}",
                    what = what.trim_start_matches("a ")
                );
            }
        }
        Ok(this)
    }

    /// The answer to `start`.
    pub(crate) fn answer(&self, address: &str) -> anyhow::Result<Vec<u8>> {
        Ok(match self.form {
            Form::Protobuf => BootstrapResult {
                version: TASK_API_VERSION,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }
            .write_to_bytes()?,
            Form::Flags { version } => serde_json::to_vec(&serde_json::json!({
                "version": version,
                "address": address,
                "protocol": "ttrpc",
            }))?,
        })
    }
}

/// The parameters, if the input is such a message. Older daemons put the runtime options there
/// (a protobuf `Any`), which decode as parameters too: the type's URL becomes the instance's id
/// and the value its namespace, nothing else is set.
fn parameters(flags: &Flags, input: &[u8]) -> anyhow::Result<Option<BootstrapParams>> {
    if input.is_empty() {
        return Ok(None);
    }
    let Ok(given) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if given.instance_id == flags.id && given.namespace == flags.namespace {
        return Ok(Some(given));
    }
    let identity_alone = BootstrapParams {
        instance_id: given.instance_id.clone(),
        namespace: given.namespace.clone(),
        ..Default::default()
    };
    if given == identity_alone {
        return Ok(None);
    }
    bail!(
        "bootstrap parameters for {}/{} came with flags for {}/{}",
        given.namespace,
        given.instance_id,
        flags.namespace,
        flags.id
    )
}

#[cfg(test)]
mod tests {
    use containerd_shim::bootstrap::Extension;
    use containerd_shim::protos::protobuf::MessageField;
    use containerd_shim::protos::protobuf::well_known_types::any::Any;

    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "ns".into(),
            address: "/run/c.sock".into(),
            ..Default::default()
        }
    }

    fn options() -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![1, 2],
            ..Default::default()
        }
    }

    #[test]
    fn protobuf_is_read_and_answered_in_kind() {
        let input = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            containerd_ttrpc_address: "/t".into(),
            containerd_grpc_address: "/g".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![Extension {
                value: MessageField::some(options()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let given = Bootstrap::parse(
            &flags(),
            &input.write_to_bytes().expect("encodes"),
            "",
            "",
            "",
        )
        .expect("valid");
        assert_eq!(
            (given.grpc_address.as_str(), given.socket_dir.as_deref()),
            ("/g", Some("/s"))
        );
        assert_eq!(given.options, options().write_to_bytes().expect("encodes"));
        let answer =
            BootstrapResult::parse_from_bytes(&given.answer("unix:///x").expect("encodes"))
                .expect("protobuf");
        assert_eq!((answer.version, answer.address.as_str()), (3, "unix:///x"));
    }

    #[test]
    fn flags_are_read_and_answered_with_json_also_when_options_come_on_stdin() {
        let options = options().write_to_bytes().expect("encodes");
        for (input, max, version) in [(&[][..], "", 3), (&options, "4", 3), (&options, "2", 2)] {
            let given = Bootstrap::parse(&flags(), input, "/t", "", max).expect("valid");
            assert_eq!(
                (given.grpc_address.as_str(), given.ttrpc_address.as_str()),
                ("/run/c.sock", "/t")
            );
            assert_eq!(given.options, input);
            let answer: serde_json::Value =
                serde_json::from_slice(&given.answer("unix:///x").expect("encodes")).expect("JSON");
            assert_eq!(answer["version"], version);
            assert_eq!(answer["address"], "unix:///x");
        }
    }

    #[test]
    fn what_is_missing_or_meant_for_another_is_told() {
        let error = Bootstrap::parse(&flags(), &[], "", "", "")
            .expect_err("no ttrpc address")
            .to_string();
        assert!(error.contains("TTRPC_ADDRESS"), "{error}");
        let other = BootstrapParams {
            instance_id: "c2".into(),
            namespace: "ns".into(),
            containerd_binary: "x".into(),
            ..Default::default()
        };
        let error = Bootstrap::parse(
            &flags(),
            &other.write_to_bytes().expect("encodes"),
            "/t",
            "",
            "",
        )
        .expect_err("another")
        .to_string();
        assert!(error.contains("ns/c2"), "{error}");
    }
}
