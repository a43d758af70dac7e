//! From a container of a manifest to what the kubelet and containerd make of it.

use k8s_openapi::api::core::v1::Container;

use crate::pod::{
    Described, Environment, Manifests, Mount, PATH, Volume, Workload, bytes, expand, of_mount,
};

/// Where the kubelet puts a service account's token (Kubernetes, "Service Accounts").
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where a container's last words are looked for, if nothing else is said.
const LAST_WORDS: &str = "/dev/termination-log";
/// Files of the pod that containerd mounts into each of its containers.
const POD_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// A container, described; and what only a cluster knows.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) described: Described,
    pub(crate) environment: Environment,
    pub(crate) volumes: Vec<Mounted>,
    /// Whether the manifest says what runs.
    pub(crate) has_command: bool,
    /// Field and reason for which the kubelet would not ask for it.
    pub(crate) faults: Vec<(String, String)>,
}

/// A volume where it is mounted.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) destination: String,
    pub(crate) volume: Volume,
    /// Part of the volume that is mounted.
    pub(crate) part: Option<String>,
    /// Whether the kubelet or containerd puts it there without being asked.
    pub(crate) of_kubelet: bool,
}

/// What the kubelet and containerd ask for when they start this container.
pub(crate) fn describe(workload: &Workload, container: &Container, manifests: &Manifests) -> Asked {
    let spec = workload.spec();
    let environment = Environment::of(workload, container, manifests);
    let mut faults = environment.faults.clone();
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = of_mount(&spec, mount, manifests) else {
            let field = format!("volumeMounts[{index}].name");
            faults.push((field, format!("the pod has no volume `{}`", mount.name)));
            continue;
        };
        mounts.push(Mount {
            destination: mount.mount_path.clone(),
            source: format!("/var/lib/kubelet/pods/uid/volumes/{}", mount.name),
            readonly: mount.read_only.unwrap_or(false) || volume.readonly,
        });
        let part = mount.sub_path.as_deref().or(mount.sub_path_expr.as_deref());
        volumes.push(Mounted {
            destination: mount.mount_path.clone(),
            volume,
            part: part.filter(|part| !part.is_empty()).map(str::to_owned),
            of_kubelet: false,
        });
    }
    let own = |path: &str| {
        container
            .volume_mounts
            .iter()
            .flatten()
            .any(|mount| mount.mount_path == path)
    };
    let file = |destination: &str| Mount {
        destination: destination.to_owned(),
        source: "/var/lib/kubelet/pods/uid/containers/name/0a1b2c3d".to_owned(),
        readonly: false,
    };
    let words = container.termination_message_path.as_deref();
    let words = words.filter(|path| !path.is_empty()).unwrap_or(LAST_WORDS);
    for path in POD_FILES
        .into_iter()
        .chain([words])
        .filter(|path| !own(path))
    {
        mounts.push(file(path));
        volumes.push(of_kubelet(path, "the pod's own", false));
    }
    if spec.automount_service_account_token != Some(false) && !own(TOKEN) {
        mounts.push(Mount {
            readonly: true,
            ..file(TOKEN)
        });
        volumes.push(of_kubelet(TOKEN, "service account", true));
    }
    let memory = container.resources.as_ref();
    let memory = memory.and_then(|resources| resources.limits.as_ref()?.get("memory"));
    let limit = memory.and_then(|memory| {
        let limit = bytes(&memory.0);
        if limit.is_none() {
            let reason = format!("`{}` is not a quantity of bytes", memory.0);
            faults.push(("resources.limits.memory".to_owned(), reason));
        }
        limit
    });
    let value = |text: &String| expand(text, |name| environment.get(name));
    let command: Vec<_> = container.command.iter().flatten().map(value).collect();
    let has_command = !command.is_empty();
    let mut args = command;
    if !has_command {
        // The image's own: its name is not known here, and what it names counts only in a file system.
        args.push("/".to_owned());
    }
    args.extend(container.args.iter().flatten().map(value));
    let mut env = vec![(PATH.0.to_owned(), PATH.1.to_owned())];
    if workload.is_pod() {
        env.push(("HOSTNAME".to_owned(), hostname(workload)));
    }
    for (name, value) in &environment.known {
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    let own = container.security_context.as_ref();
    let pod = spec.security_context.as_ref();
    let user = own
        .and_then(|own| own.run_as_user)
        .or(pod.and_then(|pod| pod.run_as_user));
    let group = own
        .and_then(|own| own.run_as_group)
        .or(pod.and_then(|pod| pod.run_as_group));
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    Asked {
        described: Described {
            name: container.name.clone(),
            args,
            env,
            cwd: container.working_dir.clone().unwrap_or_default(),
            memory: limit,
            readonly: own.is_some_and(|own| own.read_only_root_filesystem == Some(true)),
            user: (id(user), id(group)),
            mounts,
            annotations: workload.annotations(),
        },
        environment,
        volumes,
        has_command,
        faults,
    }
}

fn of_kubelet(path: &str, what: &str, directory: bool) -> Mounted {
    Mounted {
        destination: path.to_owned(),
        volume: Volume {
            what: what.to_owned(),
            content: crate::pod::Content::Elsewhere,
            directory: Some(directory),
            readonly: directory,
        },
        part: None,
        of_kubelet: true,
    }
}

fn hostname(workload: &Workload) -> String {
    let spec = workload.spec();
    spec.hostname.unwrap_or_else(|| workload.name.clone())
}
