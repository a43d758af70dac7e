//! A stage for one container: directories, a cgroup, a plan, and what its guest answered.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use jail::{Cgroup, Child, Filter, JailError, Launch, Report, Rootfs, RootfsMount, SpawnRequest};
use plan::{
    CgroupDriver, CgroupPlan, EngineSettings, Entry, GuestLimits, GuestPlan, HttpListen, Isolation,
    JailPlan, MountPlan, MountSource, Namespace, Network, Propagation, RootAccess, Serving, User,
};
use rustix::event::{PollFd, PollFlags, poll};

pub(crate) const UID: u32 = 1234;
pub(crate) const GID: u32 = 2345;

pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup: Cgroup,
    pub(crate) cgroup_path: String,
    pub(crate) launch: Launch,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.cgroup.remove().expect("the cgroup goes");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let own = self.dir.path().to_str().expect("text");
        assert!(
            std::thread::panicking() || !mounts.contains(own),
            "a mount is left:\n{mounts}"
        );
    }
}

/// One whose guest does these things, with nothing mounted over an empty rootfs.
pub(crate) fn stage(actions: &[&str]) -> Stage {
    stage_with(actions, |_| {})
}

pub(crate) fn stage_with(actions: &[&str], change: impl FnOnce(&mut CgroupPlan)) -> Stage {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let cgroup_path = format!("/sampan-test-{}-{number}", std::process::id());
    let mut cgroup_plan = CgroupPlan {
        path: cgroup_path.clone(),
        driver: CgroupDriver::Cgroupfs,
        resources: None,
    };
    change(&mut cgroup_plan);
    let dir = tempfile::tempdir().expect("temporary directory");
    for name in ["upper", "work", "lower", "volume", "target"] {
        fs::create_dir(dir.path().join(name)).expect("made");
    }
    fs::write(dir.path().join("lower/of-the-image"), "image").expect("written");
    fs::write(dir.path().join("volume/file"), "volume").expect("written");
    Stage {
        cgroup: Cgroup::create(&cgroup_plan).expect("a cgroup"),
        cgroup_path,
        dir,
        launch: Launch {
            tracing: None,
            jail: JailPlan {
                namespaces: [
                    Isolation::Mount,
                    Isolation::Pid,
                    Isolation::Ipc,
                    Isolation::Uts,
                    Isolation::Network,
                ]
                .map(|kind| Namespace { kind, path: None })
                .to_vec(),
                hostname: Some("stage".to_owned()),
                sysctls: Vec::new(),
                root_readonly: false,
                mounts: Vec::new(),
                user: User {
                    uid: UID,
                    gid: GID,
                    additional_gids: vec![3456],
                    umask: None,
                },
                rlimits: Vec::new(),
                oom_score_adj: Some(500),
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
            },
            guest: GuestPlan {
                entry: Entry {
                    path: "/".to_owned(),
                    export: None,
                },
                args: actions.iter().map(|&action| action.to_owned()).collect(),
                env: Vec::new(),
                cwd: "/".to_owned(),
                http: HttpListen {
                    address: Ok(([127, 0, 0, 1], 8080).into()),
                },
                network: Network::default(),
                limits: GuestLimits::default(),
                rootfs: RootAccess::ReadWrite,
                serving: Serving::default(),
                config_dir: None,
                on_term: None,
                coredump: None,
                log_format: plan::LogFormat::Text,
                engine: EngineSettings::default(),
                command: false,
                termination: None,
            },
            seccomp: None,
        },
    }
}

/// A process on a stage, whose word to go is still to come.
pub(crate) struct Actor {
    pub(crate) child: Child,
    output: File,
}

impl Stage {
    /// Returns when all its processes stand still.
    pub(crate) fn freeze(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(self.cgroup.frozen()).expect("frozen");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An overlay, as containerd's snapshotter gives it.
    pub(crate) fn rootfs(&self) -> Rootfs {
        let at = |name: &str| self.path(name).display().to_string();
        let mount = RootfsMount {
            fstype: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec![
                format!("lowerdir={}", at("lower")),
                format!("upperdir={}", at("upper")),
                format!("workdir={}", at("work")),
            ],
        };
        // overlay of a directory on overlay fails where the test's own root is one.
        Rootfs::assemble(&[mount], &self.path("target")).expect("a rootfs")
    }

    pub(crate) fn bind(&mut self, source: &str, destination: &str, readonly: bool) {
        let path = self.path(source);
        self.launch.jail.mounts.push(MountPlan {
            destination: destination.to_owned(),
            source: MountSource::Bind {
                path,
                recursive: true,
                owners: None,
            },
            readonly,
            propagation: Propagation::Private,
        });
    }

    pub(crate) fn profile(&mut self, json: &str) {
        let profile = serde_json::from_str(json).expect("a profile");
        self.launch.seccomp = Some(Filter::compile(&profile).expect("compiles"));
    }

    pub(crate) fn spawn(&self) -> Result<Actor, JailError> {
        let (output, theirs) = std::io::pipe().expect("a pipe");
        let artifact = artifact();
        let own = std::env::current_exe().expect("this program");
        let child = jail::spawn(SpawnRequest {
            runner: &own,
            launch: &self.launch,
            artifact: artifact.as_fd(),
            rootfs: &self.rootfs(),
            stdio: [None, Some(theirs.into()), None],
            terminal: false,
            cgroup: &self.cgroup,
            numbers: None,
        })?;
        Ok(Actor {
            child,
            output: OwnedFd::from(output).into(),
        })
    }

    /// Spawned and ready.
    pub(crate) fn ready(&self) -> Actor {
        let actor = self.spawn().expect("spawned");
        let report = actor.report();
        assert!(matches!(report, Report::Ready(_)), "{report:?}");
        actor
    }

    /// Spawned, run, ended: the answers by action, and the status.
    pub(crate) fn play(&self) -> (HashMap<String, String>, i32) {
        let mut actor = self.ready();
        actor.child.go().expect("goes");
        let answers = actor.answers();
        (answers, actor.end())
    }
}

impl Actor {
    pub(crate) fn report(&self) -> Report {
        loop {
            wait_for(self.child.control().expect("a runner"));
            if let Some(report) = self.child.read_report().expect("a report") {
                return report;
            }
        }
    }

    pub(crate) fn answers(&mut self) -> HashMap<String, String> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("text");
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(a, b)| (a.trim().to_owned(), b.to_owned()))
            .collect()
    }

    pub(crate) fn end(&self) -> i32 {
        end(&self.child)
    }

    /// A file of its own in /proc.
    pub(crate) fn proc(&self, name: &str) -> String {
        proc(self.child.pid(), name)
    }
}

pub(crate) fn end(child: &Child) -> i32 {
    wait_for(child.pidfd());
    child.reap().expect("a child").expect("it has ended")
}

pub(crate) fn proc(pid: i32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    if name.starts_with("ns/") {
        return fs::read_link(path)
            .expect("a namespace")
            .display()
            .to_string();
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A line of `/proc/PID/status`.
pub(crate) fn status(pid: i32, name: &str) -> String {
    proc(pid, "status")
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(|rest| rest.trim().to_owned())
        })
        .unwrap_or_else(|| panic!("no {name}"))
}

pub(crate) fn wait_for(fd: impl AsFd) {
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    let long = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut polled, Some(&long)).expect("polled"),
        1,
        "nothing happened for 20 seconds"
    );
}

pub(crate) fn artifact() -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"the artifact").expect("written");
    std::io::Seek::rewind(&mut file).expect("rewound");
    file
}

pub(crate) fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
