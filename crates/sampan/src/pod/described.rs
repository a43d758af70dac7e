use oci_spec::runtime::Spec;
use plan::{Options, Plan};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Kind, Outcome};
use crate::pod::Given;

/// What of a container counts for its guest. It becomes an OCI configuration and goes through the same code as one of
/// containerd's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    /// The container's name.
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Empty is `/`.
    pub(crate) cwd: String,
    /// The memory limit in bytes.
    pub(crate) memory: Option<i64>,
    pub(crate) readonly: bool,
    pub(crate) user: (u32, u32),
    pub(crate) mounts: Vec<Mount>,
    /// With their prefixes.
    pub(crate) annotations: Vec<(String, String)>,
}

/// A volume at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) destination: String,
    pub(crate) source: String,
    pub(crate) readonly: bool,
}

impl Described {
    /// What Create would make of it: a plan, or all that is wrong.
    pub(crate) fn plan(&self, given: &Given) -> Outcome<Result<Plan, plan::PlanError>> {
        let spec: Spec = serde_json::from_value(self.spec())
            .map_err(|error| Failure::at(Kind::Wrong, format!("container {}", self.name), error))?;
        let options = Options {
            settings: given.class.clone(),
            ..Options::default()
        };
        Ok(Plan::new(&self.name, spec, &options, &given.node))
    }

    fn spec(&self) -> Value {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let env: Vec<_> = env.collect();
        let mounts = self.mounts.iter().map(|mount| {
            json!({
                "destination": mount.destination, "source": mount.source, "type": "bind",
                "options": ["rbind", if mount.readonly { "ro" } else { "rw" }],
            })
        });
        let annotations: Map<String, Value> = self
            .annotations
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "process": {
                "user": { "uid": self.user.0, "gid": self.user.1 },
                "args": self.args, "env": env, "cwd": cwd,
            },
            "root": { "path": "rootfs", "readonly": self.readonly },
            "mounts": mounts.collect::<Vec<_>>(),
            "annotations": annotations,
            "linux": {},
        });
        if let Some(memory) = self.memory {
            spec["linux"]["resources"] = json!({ "memory": { "limit": memory } });
        }
        spec
    }
}
