//! What is to be run, from the command line and the manifest that it names.

use std::path::Path;

use plan::PREFIX;

use crate::arguments::Run;
use crate::explain::{Asked, describe};
use crate::failure::{Failure, Kind, Outcome};
use crate::pod::{self, Content, Described, Given, Mount, PATH, annotations, bytes};
use crate::run::ground::Ground;
use crate::source::Source;

/// The variables that name the address of a server (docs/reference.md, `http-listen`).
const ADDRESSES: [&str; 4] = [
    "SAMPAN_HTTP_LISTEN",
    "WASMTIME_HTTP_PROXY_SOCKET_ADDR",
    "SPIN_HTTP_LISTEN_ADDR",
    "PORT",
];
/// Where a server listens if nobody says it: a pod's 0.0.0.0 would open a developer's machine to its network.
const HERE: &str = "127.0.0.1:8080";

pub(super) struct Request {
    /// File or image.
    pub(super) program: String,
    pub(super) given: Given,
    pod: Option<Container>,
}

/// A container of a manifest.
struct Container {
    asked: Asked,
    /// Words of its command.
    command: usize,
}

impl Request {
    pub(super) fn new(arguments: &Run) -> Outcome<Self> {
        let settings = &arguments.settings;
        let given = Given::new(&settings.class, settings.node_config.as_deref())?;
        let mut program = arguments.program.name.clone();
        let mut pod = None;
        if let Some(file) = &arguments.pod {
            let manifests = pod::read(std::slice::from_ref(file))?;
            let mut containers = manifests.workloads.iter().flat_map(|workload| {
                workload
                    .containers()
                    .into_iter()
                    .map(move |found| (workload, found))
            });
            let wanted = arguments.container.as_deref();
            let found = containers.find(|(_, (container, init))| match wanted {
                Some(name) => container.name == name,
                None => !init,
            });
            let Some((workload, (container, _))) = found else {
                let what = wanted.map_or("no container".to_owned(), |name| {
                    format!("no container `{name}`")
                });
                return Err(Failure::new(Kind::NotFound, format!("{file} has {what}")));
            };
            let asked = describe(workload, &container, &manifests);
            if let Some((field, reason)) = asked.faults.first() {
                return Err(Failure::new(Kind::Wrong, format!("{field}: {reason}")));
            }
            program = program.or_else(|| container.image.clone());
            pod = Some(Container {
                asked,
                command: container.command.map_or(0, |command| command.len()),
            });
        }
        let program = program.ok_or_else(|| {
            Failure::new(
                Kind::Wrong,
                "neither the command line nor the container names a program",
            )
        })?;
        Ok(Self {
            program,
            given,
            pod,
        })
    }

    /// The container that a cluster would have made of it.
    pub(super) fn describe(
        &self,
        arguments: &Run,
        source: &Source,
        ground: &Ground,
    ) -> Outcome<Described> {
        let config = source.config();
        let mut described = match &self.pod {
            Some(pod) => pod.asked.described.clone(),
            None => Described {
                name: "run".to_owned(),
                env: vec![(PATH.0.to_owned(), PATH.1.to_owned())],
                ..Described::default()
            },
        };
        described.args = self.args(arguments, source)?;
        described.env = self.environment(arguments, &config.env, described.env);
        if let Some(cwd) = &arguments.cwd {
            described.cwd.clone_from(cwd);
        } else if described.cwd.is_empty() {
            described.cwd.clone_from(&config.working_dir);
        }
        if let Some(memory) = &arguments.memory {
            let limit = bytes(memory).ok_or_else(|| {
                Failure::new(
                    Kind::Wrong,
                    format!("--memory: `{memory}` is not a quantity of bytes"),
                )
            })?;
            described.memory = Some(limit);
        }
        described.mounts = self.mounts(arguments, ground, &described.mounts)?;
        for (name, value) in annotations(&arguments.settings.annotations) {
            set(&mut described.annotations, name, value);
        }
        let listen = format!("{PREFIX}http-listen");
        if let Some(address) = &arguments.http {
            set(&mut described.annotations, listen, address.clone());
        } else if self.says_no_address(arguments, &described, &listen) {
            set(&mut described.annotations, listen, HERE.to_owned());
        }
        Ok(described)
    }

    fn says_no_address(&self, arguments: &Run, described: &Described, listen: &str) -> bool {
        let settings = &arguments.settings;
        let class = settings.class.iter().any(|(name, _)| name == "http-listen");
        let pod = described.annotations.iter().any(|(name, _)| name == listen);
        let variable = described
            .env
            .iter()
            .any(|(name, _)| ADDRESSES.contains(&name.as_str()));
        self.pod.is_none() && settings.node_config.is_none() && !class && !pod && !variable
    }

    /// Command and arguments; of each the nearest counts, and a command takes the image's arguments with it (Kubernetes,
    /// "Define a Command and Arguments for a Container").
    fn args(&self, arguments: &Run, source: &Source) -> Outcome<Vec<String>> {
        let (mut head, mut tail) = source.words();
        if let Some(pod) = &self.pod {
            let words = &pod.asked.described.args;
            if pod.command > 0 {
                head = words[..pod.command].to_vec();
                tail = words[pod.command..].to_vec();
            } else if words.len() > 1 {
                tail = words[1..].to_vec();
            }
        }
        if let Some(entry) = &arguments.program.entry {
            head = vec![entry.clone()];
            tail = Vec::new();
        }
        if !arguments.args.is_empty() {
            tail.clone_from(&arguments.args);
        }
        if head.is_empty() {
            head = std::mem::take(&mut tail);
        }
        if head.is_empty() {
            return Err(Failure::new(
                Kind::Wrong,
                format!(
                    "{} has files and does not say which of them runs: name one with --entry",
                    self.program
                ),
            ));
        }
        head.extend(tail);
        Ok(head)
    }

    /// The image's variables, or PATH where it sets none; over them the container's; over them those of the command line.
    fn environment(
        &self,
        arguments: &Run,
        image: &[String],
        container: Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        let own_path = |pod: &Container| pod.asked.environment.get(PATH.0).is_some();
        let keeps_path = image.is_empty() || self.pod.as_ref().is_some_and(own_path);
        let mut env = Vec::new();
        let image = image.iter().filter_map(|line| line.split_once('='));
        for (name, value) in image {
            set(&mut env, name.to_owned(), value.to_owned());
        }
        for (name, value) in container {
            if name != PATH.0 || keeps_path {
                set(&mut env, name, value);
            }
        }
        for (name, value) in &arguments.env {
            set(&mut env, name.clone(), value.clone());
        }
        env
    }

    /// Where the container's volumes are on this machine.
    fn mounts(&self, arguments: &Run, ground: &Ground, asked: &[Mount]) -> Outcome<Vec<Mount>> {
        let mut mounts = Vec::new();
        let given = |path: &str| arguments.dir.iter().any(|dir| dir.guest == path);
        let volumes = self.pod.iter().flat_map(|pod| &pod.asked.volumes);
        for mounted in volumes.filter(|mounted| !given(&mounted.destination)) {
            let part = mounted.part.as_deref();
            let place = match &mounted.volume.content {
                Content::Empty => ground.empty()?,
                Content::Files(files) => ground.volume(files)?,
                Content::Host(path) => path.clone(),
                // What a developer's machine has no use for.
                Content::Elsewhere if mounted.of_kubelet => continue,
                Content::Elsewhere => {
                    return Err(Failure::new(
                        Kind::Wrong,
                        format!(
                            "the volume at {} ({}) is in the cluster: give it a directory with --dir HOST:{}",
                            mounted.destination, mounted.volume.what, mounted.destination
                        ),
                    ));
                }
            };
            let place = part.map_or(place.clone(), |part| place.join(part));
            if !place.exists() && mounted.volume.content == Content::Empty {
                std::fs::create_dir_all(&place)
                    .map_err(|error| Failure::at(Kind::System, "cannot make a volume", error))?;
            }
            let readonly = asked
                .iter()
                .rev()
                .find(|mount| mount.destination == mounted.destination);
            mounts.push(Mount {
                destination: mounted.destination.clone(),
                source: real(&place)?,
                readonly: readonly.is_some_and(|mount| mount.readonly),
            });
        }
        for dir in &arguments.dir {
            if !dir.host.is_dir() {
                return Err(Failure::new(
                    Kind::Wrong,
                    format!("--dir: {} is not a directory", dir.host.display()),
                ));
            }
            mounts.push(Mount {
                destination: dir.guest.clone(),
                source: real(&dir.host)?,
                readonly: dir.readonly,
            });
        }
        Ok(mounts)
    }
}

/// The absolute path, in text.
fn real(path: &Path) -> Outcome<String> {
    let attempt = || format!("cannot give {} to the guest", path.display());
    let real = path
        .canonicalize()
        .map_err(|error| Failure::at(Kind::NotFound, attempt(), error))?;
    let text = real.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::new(Kind::Wrong, format!("{}: its name is not UTF-8", attempt())))
}

fn set(all: &mut Vec<(String, String)>, name: String, value: String) {
    match all.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => all.push((name, value)),
    }
}
