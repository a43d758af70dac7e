use super::*;

fn spec(json: &str) -> Spec {
    serde_json::from_str(json).expect("a valid configuration")
}

fn plan(json: &str) -> Result<Plan, PlanError> {
    Plan::new(
        "c1",
        spec(json),
        &Options::default(),
        &NodeConfig::default(),
    )
}

const POD_CONTAINER: &str = r##"{
  "ociVersion": "1.1.0", "hostname": "pod",
  "process": {"cwd": "/srv/./dir", "args": ["/app.wasm#main", "x"], "user": {"uid": 1000, "gid": 2000, "additionalGids": [5]},
    "env": ["A=1", "B=x=y", "A=2", "PORT=9000"], "oomScoreAdj": 100,
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]},
  "root": {"path": "rootfs", "readonly": true},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/dev/shm", "type": "bind", "source": "/run/shm", "options": ["rbind", "rw"]},
    {"destination": "/dev/termination-log", "type": "bind", "source": "/var/log/t", "options": ["rbind", "rw"]},
    {"destination": "/data/", "type": "bind", "source": "/srv/data", "options": ["rbind", "rprivate", "ro"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]}
  ],
  "annotations": {"io.kubernetes.cri.sandbox-id": "pod1", "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.image-name": "registry/app:v1"},
  "linux": {"cgroupsPath": "/kubepods/pod1/c1", "resources": {"memory": {"limit": 67108864}},
    "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/7/ns/net"}, {"type": "mount"}]}
}"##;

#[test]
fn a_pod_container_is_typed() {
    let plan = plan(POD_CONTAINER).expect("valid");
    assert_eq!(plan.role, Role::Container);
    assert_eq!(plan.pod.expect("in a pod").as_str(), "pod1");
    assert_eq!(plan.image_name.as_deref(), Some("registry/app:v1"));
    assert_eq!(plan.cgroup.path, "/kubepods/pod1/c1");
    let guest = plan.guest.expect("a guest");
    assert_eq!(guest.cwd, "/srv/dir");
    assert_eq!(guest.args, ["/app.wasm#main", "x"]);
    assert_eq!(
        guest.entry,
        Entry {
            path: "/app.wasm".into(),
            export: Some("main".into())
        }
    );
    let env: Vec<_> = guest.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=2", "B=x=y", "PORT=9000"]);
    assert_eq!(guest.http.address.expect("valid").port(), 9000);
    assert_eq!(
        guest.limits.memory,
        Some((64 << 20) - GuestLimits::HEADROOM)
    );
    let jail = plan.jail;
    assert!(jail.root_readonly);
    assert_eq!(
        (jail.user.uid, jail.user.gid, jail.user.additional_gids),
        (1000, 2000, vec![5])
    );
    assert_eq!(
        jail.rlimits,
        [Rlimit {
            resource: 7,
            soft: 10,
            hard: 20
        }]
    );
    assert_eq!(jail.namespaces.len(), 3);
}

#[test]
fn nothing_of_the_hosts_kernel_is_mounted_but_declared_volumes_are() {
    let mounts = plan(POD_CONTAINER).expect("valid").jail.mounts;
    let shown: Vec<_> = mounts
        .iter()
        .map(|m| (m.destination.as_str(), m.readonly))
        .collect();
    assert_eq!(
        shown,
        [
            ("/dev/termination-log", false),
            ("/data", true),
            ("/run", false)
        ]
    );
    assert_eq!(
        mounts[2].source,
        MountSource::Tmpfs {
            options: "mode=755,size=65536k".into()
        }
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let error = plan(
        r#"{"ociVersion": "1.1.0", "process": {"cwd": "../x", "args": ["a"], "user": {"uid": 0, "gid": 0}, "env": ["NOVALUE"]},
            "annotations": {"sampan.dev/http-listn": "80"},
            "mounts": [{"destination": "/a/../b", "type": "bind", "source": "/x"}, {"destination": "/c", "type": "bind"}, {"destination": "/d", "type": "nfs"}]}"#,
    )
    .expect_err("many faults")
    .to_string();
    for part in [
        "process.cwd",
        "process.env[0]",
        "sampan.dev/http-listn",
        "mounts[0].destination",
        "mounts[1].source",
        "mounts[2].type",
        "nfs",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(
        !error.contains("NOVALUE"),
        "values of the environment are not told: {error}"
    );
}

#[test]
fn a_container_without_a_command_says_what_to_write() {
    let error = plan(r#"{"ociVersion": "1.1.0", "process": {"cwd": "/", "args": [], "user": {"uid": 0, "gid": 0}}}"#).expect_err("no command").to_string();
    assert!(
        error.contains("process.args") && error.contains("command"),
        "{error}"
    );
}

#[test]
fn the_pod_itself_needs_no_command() {
    let plan = plan(r#"{"ociVersion": "1.1.0", "annotations": {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "c1"},
        "linux": {"sysctl": {"net.ipv4.ping_group_range": "0 0"}}}"#).expect("valid");
    assert_eq!(plan.role, Role::Pod);
    assert!(plan.guest.is_none());
    assert_eq!(plan.jail.sysctls[0].name, "net.ipv4.ping_group_range");
}

#[test]
fn ids_stand_in_paths() {
    for good in ["a", "a-b_c.d", &"x".repeat(76)] {
        assert!(ContainerId::new(good).is_ok(), "{good}");
    }
    for bad in ["", "..", ".a", "-a", "a/b", "a b", &"x".repeat(77)] {
        assert!(ContainerId::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_systemd_driver_wants_its_own_form_of_path() {
    let options = Options {
        cgroup_driver: CgroupDriver::Systemd,
        ..Options::default()
    };
    let error = Plan::new("c1", spec(POD_CONTAINER), &options, &NodeConfig::default())
        .expect_err("a plain path")
        .to_string();
    assert!(error.contains("linux.cgroupsPath"), "{error}");
    let good = POD_CONTAINER.replace("/kubepods/pod1/c1", "pods.slice:cri-containerd:c1");
    assert!(Plan::new("c1", spec(&good), &options, &NodeConfig::default()).is_ok());
}

#[test]
fn annotations_options_and_the_node_reach_the_guest() {
    let annotated = POD_CONTAINER.replace(
        r#""annotations": {"#,
        r#""annotations": {"sampan.dev/network": "none", "sampan.dev/rootfs": "none", "sampan.dev/max-stack": "1Mi", "#,
    );
    let options = Options {
        settings: crate::Settings::new([("request-timeout".to_owned(), "5s".to_owned())]),
        ..Options::default()
    };
    let node = NodeConfig::parse("[defaults]\nmax-request-body = '1Ki'\n").expect("valid");
    let plan = Plan::new("c1", spec(&annotated), &options, &node).expect("valid");
    let guest = plan.guest.expect("a guest");
    assert!(!guest.network.listen);
    assert!(
        guest
            .http
            .address
            .expect_err("it cannot listen")
            .contains("sampan.dev/network")
    );
    assert_eq!(guest.rootfs, RootAccess::None);
    assert_eq!(guest.limits.stack, 1 << 20);
    assert_eq!(
        guest.serving.request_timeout,
        Some(std::time::Duration::from_secs(5))
    );
    assert_eq!(guest.serving.max_body, Some(1024));
    // A kernel that lets nobody write is the first wall.
    let writable = annotated.replace(r#""readonly": true"#, r#""readonly": false"#);
    let plan = Plan::new("c1", spec(&writable), &options, &node).expect("valid");
    assert!(plan.jail.root_readonly);
}

#[test]
fn a_core_dump_goes_into_a_volume() {
    let dump = |annotations: &str, container: &str| {
        let asked = format!(r#""annotations": {{{annotations}, "#);
        let json = POD_CONTAINER
            .replacen(r#""annotations": {"#, &asked, 1)
            .replacen(r#""options": ["rbind", "rprivate", "ro"]"#, container, 1);
        plan(&json)
            .expect("a plan")
            .guest
            .expect("a guest")
            .coredump
    };
    let writable = r#""options": ["rbind", "rw"]"#;
    let named =
        r#""sampan.dev/coredump": "/data/dumps/", "io.kubernetes.cri.container-name": "web""#;
    let found = dump(named, writable).expect("asked").expect("possible");
    assert_eq!(
        (found.dir.as_str(), found.name.as_str()),
        ("/data/dumps", "web")
    );
    assert_eq!((found.max_bytes, found.source), (256 << 20, None));
    let bounded = r#""sampan.dev/coredump": "/data", "sampan.dev/coredump-max-bytes": "1Mi""#;
    let found = dump(bounded, writable).expect("asked").expect("possible");
    assert_eq!((found.name.as_str(), found.max_bytes), ("c1", 1 << 20));
    // A program that is no guest has no use for it: only whoever runs one refuses it.
    let reason = dump(named, r#""options": ["ro"]"#)
        .expect("asked")
        .expect_err("impossible");
    assert_eq!(
        reason,
        "annotation sampan.dev/coredump: the volume at /data is read-only: core dumps need one that can be written to"
    );
}
