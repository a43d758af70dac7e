//! Native containers, through libcontainer.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use jail::Child;

use crate::stage::{Stage, alive, end, stage, status, wait_for};

/// A bundle whose rootfs is the machine's own, read-only.
fn bundle(stage: &Stage, command: &str) -> std::path::PathBuf {
    let bundle = stage.path("bundle");
    fs::create_dir_all(bundle.join("rootfs")).expect("made");
    let mounts: Vec<String> = ["/bin", "/lib", "/lib64", "/usr"]
        .iter()
        .filter(|path| Path::new(path).exists())
        .map(|path| format!(r#"{{"destination": "{path}", "type": "bind", "source": "{path}", "options": ["rbind", "ro"]}}"#))
        .collect();
    let spec = format!(
        r#"{{"ociVersion": "1.1.0", "root": {{"path": "rootfs"}}, "hostname": "native",
            "process": {{"args": ["/bin/sh", "-c", "{command}"], "cwd": "/", "env": ["PATH=/bin"],
                "user": {{"uid": 1234, "gid": 1234}},
                "capabilities": {{"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": [], "ambient": []}}}},
            "mounts": [{{"destination": "/proc", "type": "proc", "source": "proc"}},
                {{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}}, {}],
            "linux": {{"cgroupsPath": "{}-native",
                "namespaces": [{{"type": "mount"}}, {{"type": "pid"}}, {{"type": "ipc"}}, {{"type": "uts"}}],
                "seccomp": {{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}}]}}}}}}"#,
        mounts.join(","),
        stage.cgroup_path,
    );
    fs::write(bundle.join("config.json"), spec).expect("written");
    bundle
}

/// In a process of its own, as the shim does it: libcontainer forks.
fn in_a_child(
    work: impl FnOnce() -> Result<i32, jail::native::NativeError>,
) -> Result<i32, String> {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the tests run on one thread, and the child ends here.
    match unsafe { libc::fork() } {
        0 => {
            let answer = match work() {
                Ok(pid) => format!("ok {pid}"),
                Err(error) => format!("failed {error}"),
            };
            let _ = std::io::Write::write_all(&mut &writer, answer.as_bytes());
            std::process::exit(0);
        }
        child => {
            drop(writer);
            let mut answer = String::new();
            // Ends with the child: the container's process must not hold the other end.
            wait_for(&reader);
            reader.read_to_string(&mut answer).expect("text");
            end(&Child::adopt(child).expect("a child"));
            match answer.split_once(' ') {
                Some(("ok", pid)) => Ok(pid.parse().expect("a pid")),
                _ => Err(answer),
            }
        }
    }
}

pub(crate) fn a_native_container_runs() {
    jail::become_subreaper().expect("a subreaper");
    let stage = stage(&[]);
    let bundle = bundle(
        &stage,
        "echo out; hostname; mkdir /x; grep -E 'Seccomp:|CapEff|CapPrm' /proc/self/status; exit 9",
    );
    let state = stage.path("state");
    fs::create_dir(&state).expect("made");
    let (mut output, theirs) = std::io::pipe().expect("a pipe");
    let theirs = OwnedFd::from(theirs);
    let pid = in_a_child(|| {
        use std::os::fd::AsRawFd;
        // SAFETY: this process has one thread and owns its standard streams.
        unsafe {
            libc::dup2(theirs.as_raw_fd(), 1);
            libc::dup2(theirs.as_raw_fd(), 2);
        }
        jail::native::create(&bundle, &state, "one", false, None)
    })
    .expect("created");
    drop(theirs);
    let child = Child::adopt(pid).expect("ours");
    assert_eq!(status(pid, "Uid").split_whitespace().next(), Some("1234"));
    in_a_child(|| jail::native::start(&state, "one").map(|()| 0)).expect("started");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("text");
    assert_eq!(end(&child), 9);
    assert!(text.contains("out\n"), "{text}");
    assert!(
        text.contains("No space left"),
        "the profile of the spec decides: {text}"
    );
    assert!(text.contains("Seccomp:\t2"), "{text}");
    assert!(
        text.contains("CapPrm:\t0000000000000000") && text.contains("CapEff:\t0000000000000000"),
        "{text}"
    );
    in_a_child(|| jail::native::delete(&state, "one").map(|()| 0)).expect("deleted");
    in_a_child(|| jail::native::delete(&state, "one").map(|()| 0)).expect("deleted again");
    assert_eq!(fs::read_dir(&state).expect("readable").count(), 0);
}

pub(crate) fn a_native_container_is_deleted_at_any_time() {
    let stage = stage(&[]);
    let bundle = bundle(&stage, "sleep 1000");
    let state = stage.path("state");
    fs::create_dir(&state).expect("made");
    for started in [false, true] {
        let pid = in_a_child(|| jail::native::create(&bundle, &state, "one", false, None))
            .expect("created");
        let child = Child::adopt(pid).expect("ours");
        if started {
            in_a_child(|| jail::native::start(&state, "one").map(|()| 0)).expect("started");
        }
        in_a_child(|| jail::native::delete(&state, "one").map(|()| 0)).expect("deleted");
        assert_eq!(end(&child), 137);
        assert!(!alive(pid));
    }
    // A create that was killed in the middle.
    fs::create_dir_all(state.join("two")).expect("made");
    fs::write(state.join("two/state.json"), "{half").expect("written");
    in_a_child(|| jail::native::delete(&state, "two").map(|()| 0)).expect("deleted");
    assert_eq!(fs::read_dir(&state).expect("readable").count(), 0);
    let missing = bundle.join("nowhere");
    let error = in_a_child(|| jail::native::create(&missing, &state, "three", false, None))
        .expect_err("no spec");
    assert!(error.contains("nowhere"), "{error}");
}
