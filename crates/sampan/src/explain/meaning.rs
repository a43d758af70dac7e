//! Fields of a pod that mean nothing to a guest, or something else than one might think; each with the reason.

use k8s_openapi::api::core::v1::{Container, ExecAction, PodSpec, SecurityContext};

use crate::explain::answer::Remark;
use crate::pod::Workload;

/// Programs that a wasm image does not have.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "busybox", "env", "python"];

pub(crate) fn remarks(
    workload: &Workload,
    container: &Container,
    has_command: bool,
) -> Vec<Remark> {
    let spec = workload.spec();
    let mut remarks = Vec::new();
    of_pod(&mut remarks, workload, &spec);
    if !has_command {
        remarks.push(Remark::new(
            "command",
            "is missing, so the image's own entry point counts; an image that is a wasm layer has none in most cases, and \
             then containerd refuses the container (`no command specified`): `command: [\"/\"]` is enough",
        ));
    }
    if let Some(name) = container
        .command
        .iter()
        .flatten()
        .next()
        .and_then(|name| native(name))
    {
        remarks.push(Remark::new(
            "command",
            format!("`{name}` is a native program: with an image that has it this is a native container, which runs as with runc"),
        ));
    }
    for (field, command) in commands(container) {
        if let Some(name) = command
            .command
            .iter()
            .flatten()
            .next()
            .and_then(|name| native(name))
        {
            remarks.push(Remark::new(
                field,
                format!(
                    "no `{name}` runs beside a guest: name a `.wasm`, a function of the program as `#function`, or `sampan` \
                     (look around)"
                ),
            ));
        }
    }
    if let Some(security) = &container.security_context {
        of_security(&mut remarks, security);
    }
    if container.volume_devices.iter().flatten().next().is_some() {
        remarks.push(Remark::new(
            "volumeDevices",
            "a guest has no /dev, so it sees no device",
        ));
    }
    for mount in container.volume_mounts.iter().flatten() {
        let below = |dir: &str| {
            let rest = mount.mount_path.strip_prefix(dir);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let exact = ["/dev", "/dev/pts", "/dev/shm"].contains(&mount.mount_path.as_str());
        if below("/proc") || below("/sys") || exact {
            remarks.push(Remark::new(
                format!("volumeMounts: {}", mount.mount_path),
                "is left out: a guest has no /proc, /sys or /dev",
            ));
        }
    }
    let resources = container.resources.as_ref();
    for name in resources
        .iter()
        .flat_map(|r| r.limits.iter().flatten())
        .map(|(name, _)| name)
    {
        if name.contains('/') {
            remarks.push(Remark::new(
                format!("resources.limits: {name}"),
                "a guest has no devices, so it cannot use it",
            ));
        } else if name.starts_with("hugepages-") {
            remarks.push(Remark::new(
                format!("resources.limits: {name}"),
                "WebAssembly memories are made of ordinary pages",
            ));
        }
    }
    if resources.is_none_or(|r| {
        r.limits
            .as_ref()
            .is_none_or(|all| !all.contains_key("memory"))
    }) {
        remarks.push(Remark::new(
            "resources.limits.memory",
            "is missing: the guest grows until the node has no memory left, and then the kernel kills",
        ));
    }
    remarks
}

fn of_pod(remarks: &mut Vec<Remark>, workload: &Workload, spec: &PodSpec) {
    match spec.runtime_class_name.as_deref() {
        None => remarks.push(Remark::new(
            "runtimeClassName",
            "is missing: the node's default runtime gets the pod, and runc cannot run WebAssembly; `sampan` is the chart's",
        )),
        Some("sampan" | "sampan-dense" | "wasmtime") => {}
        Some(other) => remarks.push(Remark::new(
            "runtimeClassName",
            format!("`{other}` has to be a class whose handler is Sampan's; the chart makes `sampan`"),
        )),
    }
    for name in workload
        .outer
        .keys()
        .filter(|name| name.starts_with(plan::PREFIX))
    {
        if !workload.is_pod() {
            remarks.push(Remark::new(
                format!("metadata.annotations: {name}"),
                "stands on what makes the pods; it counts on the pods alone (spec.template.metadata.annotations)",
            ));
        }
    }
    let yes = |value: Option<bool>| value == Some(true);
    if yes(spec.host_pid) || yes(spec.share_process_namespace) {
        remarks.push(Remark::new(
            "hostPID, shareProcessNamespace",
            "a guest has neither /proc nor signals, so it sees no processes; native containers of the pod do",
        ));
    }
    if yes(spec.host_ipc) {
        remarks.push(Remark::new(
            "hostIPC",
            "WASI knows no shared memory and no queues",
        ));
    }
    if yes(spec.host_network) {
        remarks.push(Remark::new(
            "hostNetwork",
            "counts: the guest has the node's network, and its ports",
        ));
    }
    if spec.host_users == Some(false) {
        remarks.push(Remark::new(
            "hostUsers",
            "counts for guests; a native container in such a pod is refused",
        ));
    }
}

fn of_security(remarks: &mut Vec<Remark>, security: &SecurityContext) {
    if security.privileged == Some(true) {
        remarks.push(Remark::new(
            "securityContext.privileged",
            "gives a guest nothing more",
        ));
    }
    let added = security
        .capabilities
        .as_ref()
        .and_then(|all| all.add.as_ref());
    if added.is_some_and(|added| !added.is_empty()) {
        remarks.push(Remark::new(
            "securityContext.capabilities.add",
            "a guest's process has no capability, whatever is added",
        ));
    }
    if security.allow_privilege_escalation == Some(true) {
        remarks.push(Remark::new(
            "securityContext.allowPrivilegeEscalation",
            "a guest's process never gains privileges",
        ));
    }
    if security.proc_mount.is_some() {
        remarks.push(Remark::new(
            "securityContext.procMount",
            "a guest has no /proc",
        ));
    }
    if security.seccomp_profile.is_some() {
        remarks.push(Remark::new(
            "securityContext.seccompProfile",
            "counts, and Sampan's own filter with it: the kernel takes the stricter of both",
        ));
    }
}

/// What is executed beside the container's program.
fn commands(container: &Container) -> Vec<(&'static str, &ExecAction)> {
    let probes = [
        ("livenessProbe.exec", &container.liveness_probe),
        ("readinessProbe.exec", &container.readiness_probe),
        ("startupProbe.exec", &container.startup_probe),
    ];
    let probes = probes
        .into_iter()
        .filter_map(|(field, probe)| Some((field, probe.as_ref()?.exec.as_ref()?)));
    let hooks = container.lifecycle.iter().flat_map(|lifecycle| {
        [
            ("lifecycle.postStart.exec", &lifecycle.post_start),
            ("lifecycle.preStop.exec", &lifecycle.pre_stop),
        ]
    });
    let hooks = hooks.filter_map(|(field, hook)| Some((field, hook.as_ref()?.exec.as_ref()?)));
    probes.chain(hooks).collect()
}

/// The name of a program that is no WebAssembly, if it is known for that.
fn native(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    SHELLS.contains(&name).then_some(name)
}
