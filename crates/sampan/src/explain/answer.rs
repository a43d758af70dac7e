//! What is told about a container.

use k8s_openapi::api::core::v1::Container;
use plan::{Access, GuestPlan, Mounted, Network, Outbound, Plan, RootAccess, preopens};
use serde::Serialize;

use crate::explain::container::{Asked, describe};
use crate::explain::meaning;
use crate::failure::Outcome;
use crate::pod::{Given, Manifests, PATH, Workload};

/// A container, explained.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// `Deployment web`
    pub(crate) workload: String,
    pub(crate) container: String,
    /// Whether it runs before the others.
    pub(crate) init: bool,
    pub(crate) image: Option<String>,
    /// Why it would not be created.
    pub(crate) faults: Vec<Remark>,
    pub(crate) guest: Option<Guest>,
    /// What has no meaning, or another than one might think.
    pub(crate) remarks: Vec<Remark>,
}

/// A field, and something about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remark {
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// What a guest gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Guest {
    /// Arguments, the first being its own name. Without a command the first is the image's to say.
    pub(crate) args: Vec<String>,
    pub(crate) command_of_image: bool,
    pub(crate) cwd: String,
    pub(crate) directories: Vec<Directory>,
    /// Files that are mounted by themselves, visible below a directory.
    pub(crate) files: Vec<Directory>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) network: String,
    /// Where it listens if it serves HTTP.
    pub(crate) http: Option<String>,
    /// The directory where it leaves core dumps.
    pub(crate) core_dumps: Option<String>,
    /// Bytes of its memories and tables; without a limit none.
    pub(crate) memory: Option<u64>,
    /// Bytes of the container's limit.
    pub(crate) memory_limit: Option<i64>,
    pub(crate) stack: u64,
    pub(crate) fuel: Option<u64>,
    pub(crate) execs: u32,
    pub(crate) serving: Serving,
    pub(crate) user: (u32, u32),
}

#[derive(Debug, Serialize)]
pub(crate) struct Directory {
    pub(crate) path: String,
    pub(crate) access: &'static str,
    /// What it is.
    pub(crate) what: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Where its value comes from. Values are never told.
    pub(crate) from: String,
}

/// How requests are served, if it serves.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Serving {
    pub(crate) request_timeout_seconds: Option<f64>,
    pub(crate) max_requests: u32,
    pub(crate) max_body: Option<u64>,
    pub(crate) requests_per_instance_0_2: u32,
    pub(crate) requests_per_instance_0_3: u32,
}

impl Answer {
    pub(crate) fn of(
        workload: &Workload,
        container: &Container,
        init: bool,
        manifests: &Manifests,
        given: &Given,
    ) -> Outcome<Self> {
        let asked = describe(workload, container, manifests);
        let mut faults: Vec<_> = asked.faults.iter().map(Remark::of).collect();
        let mut guest = None;
        match asked.described.plan(given)? {
            Ok(plan) => {
                faults.extend(impossible(&plan));
                guest = plan
                    .guest
                    .as_ref()
                    .map(|guest| Guest::of(guest, &plan, &asked));
            }
            Err(error) => faults.extend(error.faults().iter().map(Remark::of)),
        }
        Ok(Self {
            workload: workload.title(),
            container: container.name.clone(),
            init,
            image: container.image.clone(),
            faults,
            guest,
            remarks: meaning::remarks(workload, container, asked.has_command),
        })
    }
}

/// What a guest is refused for when it is linked, and not before: a native program in its place would not be.
fn impossible(plan: &Plan) -> Option<Remark> {
    let dump = plan.guest.as_ref()?.coredump.as_ref()?;
    let (field, reason) = dump.as_ref().err()?.split_once(": ")?;
    Some(Remark {
        field: field.to_owned(),
        reason: reason.to_owned(),
    })
}

impl Remark {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }

    fn of((field, reason): &(String, String)) -> Self {
        Self::new(field, reason)
    }
}

const fn rights(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    }
}

impl Guest {
    fn of(guest: &GuestPlan, plan: &Plan, asked: &Asked) -> Self {
        let (directories, files) = mounts(guest, plan, asked);
        let serving = &guest.serving;
        Self {
            args: guest.args.clone(),
            command_of_image: !asked.has_command,
            cwd: guest.cwd.clone(),
            directories,
            files,
            variables: variables(guest, asked),
            network: network(&guest.network),
            http: guest.http.address.as_ref().ok().map(ToString::to_string),
            core_dumps: guest
                .coredump
                .as_ref()
                .and_then(|dump| Some(dump.as_ref().ok()?.dir.clone())),
            memory: guest.limits.memory,
            memory_limit: asked.described.memory,
            stack: guest.limits.stack,
            fuel: guest.limits.fuel,
            execs: guest.limits.execs,
            serving: Serving {
                request_timeout_seconds: serving.request_timeout.map(|time| time.as_secs_f64()),
                max_requests: serving.max_requests,
                max_body: serving.max_body,
                requests_per_instance_0_2: serving.reuse_0_2,
                requests_per_instance_0_3: serving.reuse_0_3,
            },
            user: asked.described.user,
        }
    }
}

/// The directories that the guest is given, by the rule of the runner; and files that lie in them.
fn mounts(guest: &GuestPlan, plan: &Plan, asked: &Asked) -> (Vec<Directory>, Vec<Directory>) {
    let volume = |path: &str| {
        let found = asked
            .volumes
            .iter()
            .rev()
            .find(|mounted| mounted.destination == path);
        found.map(|mounted| &mounted.volume)
    };
    let mounted = plan.jail.mounts.iter().map(|mount| Mounted {
        destination: mount.destination.clone(),
        // What only the node knows is a directory in most cases; it is told below.
        directory: volume(&mount.destination).is_none_or(|volume| volume.directory != Some(false)),
        access: Access::from_readonly(mount.readonly),
    });
    let mounted: Vec<_> = mounted.collect();
    let root = Access::from_readonly(plan.jail.root_readonly);
    let mut directories = preopens(root, &mounted);
    if guest.rootfs == RootAccess::None {
        directories.retain(|directory| directory.path != "/");
    }
    let what = |path: &str| match volume(path) {
        Some(volume) if volume.directory.is_none() => {
            format!("{}, if it is a directory", volume.what)
        }
        Some(volume) => volume.what.clone(),
        None => "the image's files; of an image that is a wasm layer there are none".to_owned(),
    };
    let files = mounted.iter().filter(|mount| !mount.directory);
    let shown = |path: &str, access| Directory {
        path: path.to_owned(),
        access: rights(access),
        what: what(path),
    };
    (
        directories
            .iter()
            .map(|found| shown(&found.path, found.access))
            .collect(),
        files
            .map(|found| shown(&found.destination, found.access))
            .collect(),
    )
}

fn variables(guest: &GuestPlan, asked: &Asked) -> Vec<Variable> {
    let own = &asked.environment;
    let from = |name: &str| {
        if own.get(name).is_some() {
            "the manifest"
        } else if name == PATH.0 {
            "containerd, unless the image sets one"
        } else {
            "containerd"
        }
    };
    let known = guest
        .env
        .iter()
        .map(|(name, _)| (name.clone(), from(name).to_owned()));
    let elsewhere = own.elsewhere.iter().cloned();
    let cluster = ["KUBERNETES_*", "*_SERVICE_HOST, *_SERVICE_PORT"]
        .map(|name| (name.to_owned(), "the kubelet".to_owned()));
    known
        .chain(elsewhere)
        .chain(cluster)
        .map(|(name, from)| Variable { name, from })
        .collect()
}

/// The policy in a sentence; the pod's network namespace and NetworkPolicy stand behind it.
fn network(network: &Network) -> String {
    let listen = if network.listen {
        "listens"
    } else {
        "does not listen"
    };
    let outbound = match &network.outbound {
        Outbound::All => "connects as NetworkPolicy lets it".to_owned(),
        Outbound::Listed(rules) if rules.is_empty() => "connects nowhere".to_owned(),
        Outbound::Listed(rules) => {
            let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
            format!("connects to {} alone", rules.join(", "))
        }
    };
    let names = if network.name_lookup {
        "every name"
    } else {
        "the names of that list alone"
    };
    format!("{listen}; {outbound}; looks up {names}")
}
