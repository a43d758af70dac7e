use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use jail::{Cgroup, CompileRequest, JailError, RefusalKind, Report, Stats};
use plan::{
    CgroupDriver, CgroupPlan, Isolation, MountPlan, MountSource, Namespace, Propagation, Rlimit,
    Sysctl,
};

use crate::stage::{
    GID, Stage, UID, alive, artifact, end, proc, stage, stage_with, status, wait_for,
};

/// `RLIMIT_NOFILE` of `<asm-generic/resource.h>`.
const OPEN_FILES: u32 = 7;

pub(crate) const ALL: &[(&str, fn())] = &[
    ("the_kernel_sees_a_jail", the_kernel_sees_a_jail),
    (
        "the_guest_sees_its_rootfs_and_nothing_else",
        the_guest_sees_its_rootfs_and_nothing_else,
    ),
    (
        "volumes_have_the_rights_of_the_spec",
        volumes_have_the_rights_of_the_spec,
    ),
    ("a_readonly_root_is_readonly", a_readonly_root_is_readonly),
    ("system_calls_are_filtered", system_calls_are_filtered),
    (
        "the_profile_of_the_spec_counts",
        the_profile_of_the_spec_counts,
    ),
    ("a_missing_volume_is_named", a_missing_volume_is_named),
    (
        "a_link_in_the_image_leads_nowhere",
        a_link_in_the_image_leads_nowhere,
    ),
    (
        "a_refusal_reaches_the_supervisor",
        a_refusal_reaches_the_supervisor,
    ),
    (
        "a_failed_step_reaches_the_supervisor",
        a_failed_step_reaches_the_supervisor,
    ),
    (
        "a_dropped_container_leaves_nothing",
        a_dropped_container_leaves_nothing,
    ),
    (
        "signals_end_the_first_process_of_a_pid_namespace",
        signals_end_the_first_process_of_a_pid_namespace,
    ),
    (
        "a_signal_that_comes_too_early_waits_for_a_server",
        a_signal_that_comes_too_early_waits_for_a_server,
    ),
    ("the_pod_is_held_and_joined", the_pod_is_held_and_joined),
    (
        "the_holder_keeps_no_copy_of_the_supervisor",
        the_holder_keeps_no_copy_of_the_supervisor,
    ),
    (
        "the_pods_pid_namespace_can_be_joined",
        the_pods_pid_namespace_can_be_joined,
    ),
    ("a_wrong_sysctl_is_named", a_wrong_sysctl_is_named),
    (
        "a_new_user_namespace_maps_ids",
        a_new_user_namespace_maps_ids,
    ),
    (
        "a_user_namespace_of_the_pod_is_joined",
        a_user_namespace_of_the_pod_is_joined,
    ),
    ("cgroups_limit_count_and_go", cgroups_limit_count_and_go),
    (
        "memory_beyond_the_limit_kills",
        memory_beyond_the_limit_kills,
    ),
    (
        "a_frozen_container_is_removed",
        a_frozen_container_is_removed,
    ),
    (
        "long_lists_of_layers_are_assembled",
        long_lists_of_layers_are_assembled,
    ),
    (
        "layers_have_the_owners_of_a_user_namespace",
        layers_have_the_owners_of_a_user_namespace,
    ),
    ("the_compiler_is_bounded", the_compiler_is_bounded),
    (
        "nothing_survives_the_supervisor",
        nothing_survives_the_supervisor,
    ),
    (
        "a_cgroup_that_never_was_is_removed",
        a_cgroup_that_never_was_is_removed,
    ),
    #[cfg(feature = "native")]
    ("a_native_container_runs", native::a_native_container_runs),
    #[cfg(feature = "native")]
    (
        "a_native_container_is_deleted_at_any_time",
        native::a_native_container_is_deleted_at_any_time,
    ),
];

#[cfg(feature = "native")]
#[path = "native.rs"]
mod native;

fn the_kernel_sees_a_jail() {
    let mut stage = stage(&["wait"]);
    stage.launch.jail.rlimits = vec![Rlimit {
        resource: OPEN_FILES,
        soft: 100,
        hard: 200,
    }];
    stage.profile(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#);
    let actor = stage.ready();
    let pid = actor.child.pid();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(status(pid, "Seccomp_filters"), "2");
    assert_eq!(
        status(pid, "Uid").split_whitespace().collect::<Vec<_>>(),
        [UID.to_string().as_str(); 4]
    );
    assert_eq!(
        status(pid, "Gid").split_whitespace().collect::<Vec<_>>(),
        [GID.to_string().as_str(); 4]
    );
    assert_eq!(status(pid, "Groups"), "3456");
    assert_eq!(status(pid, "Umask"), "0022");
    assert_eq!(status(pid, "Threads"), "1");
    assert_eq!(status(pid, "SigBlk"), "0000000000000000");
    assert!(status(pid, "NSpid").ends_with("\t1"));
    for namespace in ["mnt", "pid", "ipc", "uts", "net"] {
        let name = format!("ns/{namespace}");
        assert_ne!(
            actor.proc(&name),
            proc(std::process::id() as i32, &name),
            "{namespace}"
        );
    }
    let mounts = actor.proc("mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(
        mounts.contains(" / / rw,nosuid,nodev") && mounts.contains("- overlay"),
        "{mounts}"
    );
    let limits = actor.proc("limits");
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit");
    assert_eq!(
        open_files
            .split_whitespace()
            .skip(3)
            .take(2)
            .collect::<Vec<_>>(),
        ["100", "200"]
    );
    assert_eq!(actor.proc("oom_score_adj").trim(), "500");
    assert!(
        actor
            .proc("cgroup")
            .lines()
            .any(|line| line.ends_with(&stage.cgroup_path))
    );
    assert_eq!(stage.cgroup.pids().expect("listed"), [pid]);
    // Standard streams, the wire and the artifact; the wire goes with the word to go.
    let mut open: Vec<i32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("readable")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_str()
                .expect("text")
                .parse()
                .expect("a number")
        })
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, 3]);
    assert_eq!(actor.proc("environ"), "");
}

fn the_guest_sees_its_rootfs_and_nothing_else() {
    let stage = stage(&[
        "report",
        "list /",
        "read /of-the-image",
        "read /etc/passwd",
        "list /proc",
        "list /..",
        "hostname",
        "write /new",
    ]);
    let (answers, status) = stage.play();
    assert_eq!(status, 42);
    assert_eq!(answers["report"], "the artifact");
    assert_eq!(answers["list /"], "of-the-image");
    assert_eq!(answers["list /.."], "of-the-image");
    assert_eq!(answers["read /of-the-image"], "image");
    assert_eq!(answers["read /etc/passwd"], "not found");
    assert_eq!(answers["list /proc"], "not found");
    assert_eq!(answers["hostname"], "stage");
    // The directory is root's and the guest is not.
    assert_eq!(answers["write /new"], "denied");
}

fn volumes_have_the_rights_of_the_spec() {
    let mut stage = stage(&[
        "read /data/file",
        "write /data/new",
        "read /fixed/file",
        "write /fixed/new",
        "write /fixed/below/new",
        "read /etc/app/one",
        "write /tmp/new",
        "mode /tmp",
        "execute /data/program",
    ]);
    let writable = |path: &std::path::Path| {
        std::os::unix::fs::chown(path, Some(UID), Some(GID)).expect("owned");
    };
    // A mount below the volume comes along, and is read-only with it.
    fs::create_dir(stage.path("volume/below")).expect("made");
    let below = stage.path("volume/below");
    rustix::mount::mount(
        c"tmpfs",
        &below,
        c"tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"mode=777"),
    )
    .expect("mounted");
    fs::copy("/bin/true", stage.path("volume/program")).expect("copied");
    writable(&stage.path("volume"));
    fs::write(stage.path("one"), "single").expect("written");
    stage.bind("volume", "/data", false);
    stage.bind("volume", "/fixed", true);
    stage.bind("one", "/etc/app/one", true);
    stage.launch.jail.mounts.push(MountPlan {
        destination: "/tmp".to_owned(),
        source: MountSource::Tmpfs {
            options: "size=64k,mode=1777".to_owned(),
        },
        readonly: false,
        propagation: Propagation::Private,
    });
    let mut actor = stage.ready();
    let mounts = actor.proc("mountinfo");
    for (at, rights) in [
        ("/data", "rw,nosuid,nodev,noexec"),
        ("/data/below", "rw,nosuid,nodev,noexec"),
        ("/fixed", "ro,nosuid,nodev,noexec"),
        ("/fixed/below", "ro,nosuid,nodev,noexec"),
        ("/etc/app/one", "ro,nosuid,nodev,noexec"),
        ("/tmp", "rw,nosuid,nodev,noexec"),
    ] {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == Some(at))
            .unwrap_or_else(|| panic!("{at} in {mounts}"));
        assert!(
            line.split(' ').nth(5).expect("options").starts_with(rights),
            "{line}"
        );
        assert!(
            !line.contains("shared:") && !line.contains("master:"),
            "{line}"
        );
    }
    actor.child.go().expect("goes");
    let answers = actor.answers();
    assert_eq!(actor.end(), 42);
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::empty()).expect("unmounted");
    assert_eq!(answers["read /data/file"], "volume");
    assert_eq!(answers["write /data/new"], "written");
    assert_eq!(answers["read /fixed/file"], "volume");
    assert_eq!(answers["write /fixed/new"], "read-only");
    assert_eq!(answers["write /fixed/below/new"], "read-only");
    assert_eq!(answers["read /etc/app/one"], "single");
    assert_eq!(answers["write /tmp/new"], "written");
    assert_eq!(answers["mode /tmp"], "1777 0 0");
    assert_eq!(answers["execute /data/program"], "denied");
    assert_eq!(
        fs::read_to_string(stage.path("volume/new")).expect("there"),
        "written"
    );
}

fn a_readonly_root_is_readonly() {
    let mut stage = stage(&["write /new", "write /data/new"]);
    stage.launch.jail.user.uid = 0;
    stage.launch.jail.root_readonly = true;
    stage.bind("volume", "/data", false);
    let (answers, _) = stage.play();
    assert_eq!(answers["write /new"], "read-only");
    assert_eq!(answers["write /data/new"], "written");
}

fn system_calls_are_filtered() {
    let mut stage = stage(&["thread", "socket", "netlink", "mount"]);
    stage.launch.jail.user.uid = 0;
    let (answers, status) = stage.play();
    assert_eq!(answers["thread"], "ran");
    assert!(
        answers["socket"] == "bound" || answers["socket"].contains("Cannot assign"),
        "{answers:?}"
    );
    assert_eq!(answers["netlink"], "denied");
    assert_eq!(status, 128 + libc::SIGSYS);
}

fn the_profile_of_the_spec_counts() {
    let mut stage = stage(&["socket"]);
    stage.profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["socket", "seccomp", "prctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#,
    );
    let (answers, status) = stage.play();
    assert_eq!((answers["socket"].as_str(), status), ("denied", 42));
}

fn a_missing_volume_is_named() {
    let mut stage = stage(&["report"]);
    stage.bind("nowhere", "/data", false);
    let Err(error) = stage.spawn() else {
        panic!("there is no such directory")
    };
    let line = error.one_line();
    assert!(matches!(error, JailError::Volume { .. }), "{line}");
    assert!(
        line.contains("/data") && line.contains("nowhere") && line.contains("No such file"),
        "{line}"
    );
    assert_eq!(stage.cgroup.pids().expect("listed"), [0_i32; 0]);
}

fn a_link_in_the_image_leads_nowhere() {
    let mut stage = stage(&["list /", "read /inside/file"]);
    let outside = tempfile::tempdir().expect("temporary directory");
    symlink("/", stage.path("lower/inside")).expect("linked");
    symlink(outside.path(), stage.path("lower/outside")).expect("linked");
    stage.bind("volume", "/inside/mnt", false);
    let (answers, _) = stage.play();
    assert_eq!(answers["list /"], "inside,mnt,of-the-image,outside");
    stage.bind("volume", "/outside/mnt", false);
    let Report::Refused(refusal) = stage.spawn().expect("spawned").report() else {
        panic!("the link leads out")
    };
    assert_eq!(refusal.kind, RefusalKind::Mount);
    assert!(
        refusal.message.contains("/outside/mnt"),
        "{}",
        refusal.message
    );
    assert_eq!(fs::read_dir(outside.path()).expect("readable").count(), 0);
}

fn a_refusal_reaches_the_supervisor() {
    let stage = stage(&["refuse"]);
    let actor = stage.spawn().expect("spawned");
    let Report::Refused(refusal) = actor.report() else {
        panic!("it refuses")
    };
    assert_eq!(
        (refusal.kind, refusal.message.as_str()),
        (RefusalKind::MissingImport, "no such import")
    );
    assert_eq!(actor.end(), 125);
}

fn a_failed_step_reaches_the_supervisor() {
    let mut stage = stage(&["report"]);
    stage.launch.jail.rlimits = vec![Rlimit {
        resource: OPEN_FILES,
        soft: 10,
        hard: 5,
    }];
    let Report::Refused(refusal) = stage.spawn().expect("spawned").report() else {
        panic!("soft is above hard")
    };
    assert!(
        refusal.message.contains("resource limits") && refusal.message.contains("hard 5"),
        "{}",
        refusal.message
    );
    // Before the runner exists: the child can only send a number.
    let text = stage.path("volume/file");
    fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("made executable");
    let spawn = |runner: &std::path::Path| {
        jail::spawn(jail::SpawnRequest {
            runner,
            launch: &stage.launch,
            artifact: artifact().as_fd(),
            rootfs: &stage.rootfs(),
            stdio: [None, None, None],
            terminal: false,
            cgroup: &stage.cgroup,
            numbers: None,
        })
    };
    let child = spawn(&text).expect("spawned");
    wait_for(child.control().expect("a wire"));
    let Ok(Some(Report::Refused(refusal))) = child.read_report() else {
        panic!("it is no program")
    };
    assert_eq!(
        refusal.message,
        "execute the runner: Exec format error (os error 8)"
    );
    let error = spawn(&stage.path("no-such-runner"))
        .expect_err("there is none")
        .one_line();
    assert!(
        error.contains("no-such-runner") && error.contains("No such file"),
        "{error}"
    );
}

fn a_dropped_container_leaves_nothing() {
    let stage = stage(&["report"]);
    let actor = stage.ready();
    let pid = actor.child.pid();
    drop(actor);
    assert!(!alive(pid));
    assert_eq!(stage.cgroup.pids().expect("listed"), [0_i32; 0]);
}

fn signals_end_the_first_process_of_a_pid_namespace() {
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGUSR1,
        libc::SIGHUP,
        libc::SIGKILL,
        40,
    ] {
        let stage = stage(&["wait"]);
        let actor = stage.ready();
        actor.child.go().expect("goes");
        actor.child.kill(0).expect("it is there");
        actor.child.kill(signal).expect("sent");
        assert_eq!(actor.end(), 128 + signal);
        actor.child.kill(signal).expect("it is gone, which is fine");
    }
}

/// As the first process of its namespace it would not get a signal that it has no handler for, also not later.
fn a_signal_that_comes_too_early_waits_for_a_server() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let stage = stage(&["serve"]);
        let mut actor = stage.ready();
        actor.child.kill(signal).expect("sent");
        actor.child.go().expect("goes");
        assert_eq!(actor.answers()["serve"], "asked to end");
        assert_eq!(actor.end(), 42);
    }
    let stage = stage(&["serve"]);
    let mut actor = stage.ready();
    actor.child.go().expect("goes");
    assert_eq!(actor.answers()["serve"], "not asked");
}

/// The plan of a pod with new namespaces.
fn pod(stage: &Stage) -> plan::JailPlan {
    let mut pod = stage.launch.jail.clone();
    pod.hostname = Some("pod".to_owned());
    pod.user.uid = 65535;
    pod
}

fn join(plan: &mut plan::JailPlan, holder: i32, kinds: &[(Isolation, &str)]) {
    for (kind, name) in kinds {
        plan.namespaces.retain(|one| one.kind != *kind);
        plan.namespaces.push(Namespace {
            kind: *kind,
            path: Some(format!("/proc/{holder}/ns/{name}").into()),
        });
    }
}

fn the_pod_is_held_and_joined() {
    let mut stage = stage(&["hostname", "wait"]);
    let mut pod = pod(&stage);
    pod.sysctls = vec![Sysctl {
        name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
        value: "7".to_owned(),
    }];
    let place = stage_with(&[], |_| {});
    let holder = jail::hold_pod(&pod, &place.cgroup).expect("held");
    let pid = holder.pid();
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    assert_eq!(status(pid, "CapBnd"), "0000000000000000");
    assert!(status(pid, "Uid").starts_with("65535"));
    assert_eq!(
        proc(pid, "mountinfo").lines().count(),
        1,
        "{}",
        proc(pid, "mountinfo")
    );
    assert_eq!(
        fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("readable")
            .count(),
        0
    );
    assert_eq!(place.cgroup.pids().expect("listed"), [pid]);
    let kinds = [
        (Isolation::Network, "net"),
        (Isolation::Ipc, "ipc"),
        (Isolation::Uts, "uts"),
    ];
    join(&mut stage.launch.jail, pid, &kinds);
    let actor = stage.ready();
    for (_, name) in kinds {
        let name = format!("ns/{name}");
        assert_eq!(actor.proc(&name), proc(pid, &name));
    }
    assert_ne!(actor.proc("ns/pid"), proc(pid, "ns/pid"));
    actor.child.go().expect("goes");
    // The namespace's own view of the parameter.
    let seen = Command::new("nsenter")
        .args([
            format!("--net=/proc/{pid}/ns/net").as_str(),
            "cat",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        ])
        .output()
        .expect("nsenter runs");
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout).trim(),
        "7",
        "{seen:?}"
    );
    actor.child.kill(libc::SIGTERM).expect("sent");
    actor.end();
    holder.kill(libc::SIGTERM).expect("sent");
    assert_eq!(end(&holder), 0);
    let mut actor = actor;
    assert_eq!(
        actor.answers().get("hostname").map(String::as_str),
        Some("pod")
    );
}

fn the_holder_keeps_no_copy_of_the_supervisor() {
    let stage = stage(&[]);
    let mut memory = vec![1_u8; 8 << 20];
    let small: Vec<Vec<u8>> = (0..4000).map(|number| vec![number as u8; 1000]).collect();
    let holder = jail::hold_pod(&pod(&stage), &stage.cgroup).expect("held");
    // What the supervisor writes to now is its own.
    memory.fill(2);
    let rollup = proc(holder.pid(), "smaps_rollup");
    let private: u64 = rollup
        .lines()
        .filter_map(|line| {
            line.strip_prefix("Private_Dirty:")?
                .split_whitespace()
                .next()
        })
        .map(|kilobytes| kilobytes.parse::<u64>().expect("a number"))
        .sum();
    // What lies around a thread's variables with glibc; with musl, as it ships, nothing (test/shim/tests/holder.rs).
    assert!(private <= 2 * 64 + 4, "{rollup}");
    let own = |file| fs::read(format!("/proc/self/{file}")).expect("readable");
    assert_eq!(proc(holder.pid(), "cmdline").as_bytes(), own("cmdline"));
    assert_eq!((memory[7], small[7][7]), (2, 7));
    // It is still the same process: stopped and continued, it holds; and it ends when asked.
    holder.kill(libc::SIGSTOP).expect("sent");
    holder.kill(libc::SIGCONT).expect("sent");
    holder.kill(libc::SIGINT).expect("sent");
    assert_eq!(end(&holder), 0);
}

fn the_pods_pid_namespace_can_be_joined() {
    let mut stage = stage(&["wait"]);
    let place = stage_with(&[], |_| {});
    let holder = jail::hold_pod(&pod(&stage), &place.cgroup).expect("held");
    join(
        &mut stage.launch.jail,
        holder.pid(),
        &[(Isolation::Pid, "pid")],
    );
    let actor = stage.ready();
    assert_eq!(actor.proc("ns/pid"), proc(holder.pid(), "ns/pid"));
    // The tests' own children are still born where the tests are.
    let other = stage_with(&["wait"], |_| {});
    let other_actor = other.ready();
    assert_ne!(other_actor.proc("ns/pid"), actor.proc("ns/pid"));
    // With its first process the namespace ends, and all that is in it.
    holder.kill(libc::SIGKILL).expect("sent");
    // It waits for them to be reaped, which is our part.
    assert_eq!(actor.end(), 128 + libc::SIGKILL);
    assert_eq!(end(&holder), 128 + libc::SIGKILL);
}

fn a_wrong_sysctl_is_named() {
    let stage = stage(&[]);
    let mut pod = pod(&stage);
    pod.sysctls = vec![Sysctl {
        name: "net.ipv4.no_such_thing".to_owned(),
        value: "7".to_owned(),
    }];
    let error = jail::hold_pod(&pod, &stage.cgroup)
        .expect_err("there is no such parameter")
        .one_line();
    assert!(
        error.contains("net.ipv4.no_such_thing") && error.contains("No such file"),
        "{error}"
    );
    assert_eq!(stage.cgroup.pids().expect("listed"), [0_i32; 0]);
}

fn map(plan: &mut plan::JailPlan) {
    plan.uid_mappings = vec![(0, 200_000, 65_536)];
    plan.gid_mappings = vec![(0, 300_000, 65_536)];
}

fn a_new_user_namespace_maps_ids() {
    let mut stage = stage(&["mode /data", "write /data/new", "list /"]);
    stage.launch.jail.namespaces.push(Namespace {
        kind: Isolation::User,
        path: None,
    });
    map(&mut stage.launch.jail);
    open_to_all(&stage);
    std::os::unix::fs::chown(
        stage.path("volume"),
        Some(200_000 + UID),
        Some(300_000 + GID),
    )
    .expect("owned");
    stage.bind("volume", "/data", false);
    let mut actor = stage.ready();
    assert!(status(actor.child.pid(), "Uid").starts_with(&(200_000 + UID).to_string()));
    assert_eq!(status(actor.child.pid(), "CapEff"), "0000000000000000");
    assert_ne!(
        actor.proc("ns/user"),
        proc(std::process::id() as i32, "ns/user")
    );
    actor.child.go().expect("goes");
    let answers = actor.answers();
    assert_eq!(actor.end(), 42);
    assert_eq!(answers["mode /data"], format!("755 {UID} {GID}"));
    assert_eq!(answers["write /data/new"], "written");
}

/// What a root of another user namespace must be able to reach, and nothing more: mount points are
/// made in the image by it, and this program is executed by it.
fn open_to_all(stage: &Stage) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(stage.path("lower/data")).expect("made");
    fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).expect("opened");
}

fn a_user_namespace_of_the_pod_is_joined() {
    let mut stage = stage(&["list /"]);
    let mut pod = pod(&stage);
    pod.namespaces.push(Namespace {
        kind: Isolation::User,
        path: None,
    });
    pod.namespaces.retain(|one| one.kind != Isolation::Pid);
    map(&mut pod);
    let place = stage_with(&[], |_| {});
    let holder = jail::hold_pod(&pod, &place.cgroup).expect("held");
    assert!(status(holder.pid(), "Uid").starts_with(&(200_000 + 65_535).to_string()));
    let kinds = [
        (Isolation::User, "user"),
        (Isolation::Network, "net"),
        (Isolation::Ipc, "ipc"),
        (Isolation::Uts, "uts"),
    ];
    join(&mut stage.launch.jail, holder.pid(), &kinds);
    open_to_all(&stage);
    let actor = stage.ready();
    for (_, name) in kinds {
        let name = format!("ns/{name}");
        assert_eq!(actor.proc(&name), proc(holder.pid(), &name));
    }
    assert!(status(actor.child.pid(), "Uid").starts_with(&(200_000 + UID).to_string()));
    actor.child.go().expect("goes");
    assert_eq!(actor.end(), 42);
}

fn limits(plan: &mut CgroupPlan) {
    plan.resources = Some(
        serde_json::from_str(r#"{"memory": {"limit": 67108864}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}, "pids": {"limit": 20}}"#)
            .expect("resources"),
    );
}

fn cgroups_limit_count_and_go() {
    let stage = stage_with(&["thread"], limits);
    let actor = stage.ready();
    match stage.cgroup.stats().expect("counted") {
        Stats::V1(stats) => {
            assert_eq!(stats.memory_usage.limit, 64 << 20);
            assert!(
                stats.memory_usage.usage > 0
                    && stats.cpu_total > 0
                    && stats.memory.contains_key("rss"),
                "{stats:?}"
            );
            assert_eq!((stats.pids, stats.pids_limit), (1, 20));
        }
        Stats::V2(stats) => {
            assert_eq!(stats.memory_limit, 64 << 20);
            assert!(
                stats.memory_usage > 0 && stats.cpu["usage_usec"] > 0,
                "{stats:?}"
            );
            assert_eq!((stats.pids, stats.pids_limit), (1, 20));
        }
    }
    let more = serde_json::from_str(r#"{"memory": {"limit": 134217728}}"#).expect("resources");
    stage.cgroup.set(&more).expect("raised");
    stage.freeze();
    stage.cgroup.thaw().expect("thawed");
    stage.cgroup.kill_all(libc::SIGKILL).expect("killed");
    assert_eq!(actor.end(), 137);
    stage.cgroup.remove().expect("removed");
    stage.cgroup.remove().expect("removed again");
    assert_eq!(stage.cgroup.pids().expect("none"), [0_i32; 0]);
    let found = Command::new("find")
        .args([
            "/sys/fs/cgroup",
            "-path",
            &format!("*{}", stage.cgroup_path),
        ])
        .output()
        .expect("found");
    assert!(found.stdout.is_empty(), "{found:?}");
}

fn memory_beyond_the_limit_kills() {
    let stage = stage_with(&["fill 100"], limits);
    let (_, status) = stage.play();
    assert_eq!(status, 137);
    match stage.cgroup.stats().expect("counted") {
        Stats::V1(stats) => assert_eq!(stats.oom["oom_kill"], 1),
        Stats::V2(stats) => assert_eq!(stats.memory_events["oom_kill"], 1),
    }
}

fn a_frozen_container_is_removed() {
    let stage = stage(&["wait"]);
    let actor = stage.ready();
    stage.freeze();
    stage.cgroup.remove().expect("killed and removed");
    assert_eq!(actor.end(), 137);
}

fn a_cgroup_that_never_was_is_removed() {
    let plan = CgroupPlan {
        path: "/sampan-test-never-was".to_owned(),
        driver: CgroupDriver::Cgroupfs,
        resources: None,
    };
    let cgroup = Cgroup::open(&plan).expect("opened");
    cgroup.remove().expect("nothing to do");
    cgroup.kill_all(9).expect("nothing to do");
    cgroup.stats().expect("all zero");
}

/// Directories as an image's layers lie on a node, each with a file of its number.
fn layers(stage: &Stage, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| {
            let layer = stage.path(&format!("lower/a-layer-with-a-long-name-{number}"));
            fs::create_dir(&layer).expect("made");
            fs::write(layer.join(format!("file-{number}")), "").expect("written");
            layer.display().to_string()
        })
        .collect()
}

fn long_lists_of_layers_are_assembled() {
    let stage = stage(&[]);
    let layers = layers(&stage, 12);
    let mount = jail::RootfsMount {
        fstype: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![format!("lowerdir={}", layers.join(":")), "ro".to_owned()],
    };
    assert!(mount.options[0].len() > 256);
    let rootfs = jail::Rootfs::assemble(std::slice::from_ref(&mount), &stage.path("target"))
        .expect("assembled");
    let names = || {
        use rustix::fs::{Dir, Mode, OFlags, openat};
        let root = openat(rootfs.dir(), ".", OFlags::RDONLY, Mode::empty()).expect("opened");
        Dir::read_from(root)
            .expect("readable")
            .filter(Result::is_ok)
            .count()
    };
    assert_eq!(names(), 12 + 2);
    // And for a native container, at a path.
    let mut rootfs = jail::Rootfs::assemble(&[mount], &stage.path("target")).expect("assembled");
    rootfs.attach(&stage.path("target")).expect("attached");
    assert!(stage.path("target/file-7").exists());
    rootfs.unmount().expect("unmounted");
    assert!(!stage.path("target/file-7").exists());
}

fn layers_have_the_owners_of_a_user_namespace() {
    use rustix::fs::{AtFlags, statat};
    let stage = stage(&[]);
    let layers = layers(&stage, 6);
    let at = |name: &str| stage.path(name).display().to_string();
    let owners = ["uidmap=0:200000:65536", "gidmap=0:300000:65536"].map(str::to_owned);
    let overlay = jail::RootfsMount {
        fstype: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: [
            format!("lowerdir={}", layers.join(":")),
            format!("upperdir={}", at("upper")),
            format!("workdir={}", at("work")),
        ]
        .into_iter()
        .chain(owners.clone())
        .collect(),
    };
    let owner = |mount: &jail::RootfsMount, name: &str| {
        let rootfs = jail::Rootfs::assemble(std::slice::from_ref(mount), &stage.path("target"))
            .expect("made");
        let stat = statat(rootfs.dir(), name, AtFlags::SYMLINK_NOFOLLOW).expect("there");
        (stat.st_uid, stat.st_gid)
    };
    for number in 0..6 {
        assert_eq!(
            owner(&overlay, &format!("file-{number}")),
            (200_000, 300_000)
        );
    }
    // A directory is mapped, unless it belongs to the namespace's root already.
    let bind = jail::RootfsMount {
        fstype: "bind".to_owned(),
        source: at("volume"),
        options: [vec!["rbind".to_owned(), "rw".to_owned()], owners.to_vec()].concat(),
    };
    assert_eq!(owner(&bind, "file"), (200_000, 300_000));
    std::os::unix::fs::chown(stage.path("volume"), Some(200_000), Some(300_000)).expect("given");
    assert_eq!(owner(&bind, "file"), (0, 0));
    assert_eq!(owner(&bind, "."), (200_000, 300_000));
}

fn the_compiler_is_bounded() {
    let compile = |order: &str, memory: u64, time: u64| {
        let mut source = tempfile::tempfile().expect("a file");
        source.write_all(order.as_bytes()).expect("written");
        let mut target = tempfile::tempfile().expect("a file");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let child = jail::spawn_compiler(CompileRequest {
            engine: &plan::EngineSettings::default(),
            runner: &std::env::current_exe().expect("this program"),
            source: source.as_fd(),
            target: target.as_fd(),
            stderr: writer.into(),
            memory,
            time: Duration::from_secs(time),
        })
        .expect("spawned");
        let status = end(&child);
        let (mut said, mut made) = (String::new(), String::new());
        reader.read_to_string(&mut said).expect("text");
        std::io::Seek::rewind(&mut target).expect("rewound");
        target.read_to_string(&mut made).expect("text");
        (status, said, made)
    };
    let (status, said, made) = compile("copy", 1 << 30, 20);
    assert_eq!(
        (status, said.as_str(), made.as_str()),
        (0, "", "file false network false thread 1")
    );
    let (status, said, _) = compile("refuse", 1 << 30, 20);
    assert_eq!((status, said.as_str()), (1, "not a program\n"));
    let (status, said, _) = compile("memory", 256 << 20, 20);
    assert_eq!(status, 134, "{said}");
    assert!(said.contains("memory allocation"), "{said}");
    assert_eq!(compile("forever", 1 << 30, 1).0, 128 + libc::SIGALRM);
}

/// A supervisor that makes a container and a pod, says so, and waits to be killed.
pub(crate) fn supervise() {
    let stage = stage(&["wait"]);
    let holder = jail::hold_pod(&pod(&stage), &stage.cgroup).expect("held");
    let actor = stage.ready();
    let started = stage_with(&["wait"], |_| {});
    let running = started.ready();
    running.child.go().expect("goes");
    println!(
        "{} {} {} {} {}",
        holder.pid(),
        actor.child.pid(),
        running.child.pid(),
        stage.cgroup_path,
        started.cgroup_path
    );
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read(&mut [0]);
    panic!("was not killed");
}

fn nothing_survives_the_supervisor() {
    // What is killed cannot remove its directories.
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut supervisor = Command::new(std::env::current_exe().expect("this program"))
        .arg("supervise")
        .env("TMPDIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawned");
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    let words: Vec<&str> = line.split_whitespace().collect();
    let pidfds: Vec<_> = words[..3]
        .iter()
        .map(|pid| {
            let pid = rustix::process::Pid::from_raw(pid.parse().expect("a pid")).expect("a pid");
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .expect("it lives")
        })
        .collect();
    supervisor.kill().expect("killed");
    supervisor.wait().expect("waited for");
    for pidfd in &pidfds {
        wait_for(pidfd);
    }
    for path in &words[3..] {
        let plan = CgroupPlan {
            path: (*path).to_owned(),
            driver: CgroupDriver::Cgroupfs,
            resources: None,
        };
        Cgroup::open(&plan)
            .expect("opened")
            .remove()
            .expect("removed");
    }
}
