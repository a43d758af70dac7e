//! Native containers: the same table of tests runs on runc's shim and on ours, so that a test that asks for the wrong thing
//! shows as well as a shim that does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_client::services::v1::KillRequest;
use containerd_client::types::v1::Status as Phase;
use harness::{Containerd, RUNC, Stdio, Task, TaskBuilder, Version, image, runtime};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};
use shim_tests::{containerd, refusal};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(10);
const BUSYBOX: &str = "example.test/busybox:v1";

/// A containerd with busybox, and the runtime that is asked.
struct House {
    containerd: Containerd,
    runtime: &'static str,
}

impl House {
    fn task<'s>(&self, args: impl IntoIterator<Item = &'s str>) -> TaskBuilder<'_> {
        self.containerd
            .task(BUSYBOX)
            .runtime(self.runtime)
            .args(args)
    }

    fn sh(&self, script: &str) -> TaskBuilder<'_> {
        self.task(["sh", "-c", script])
    }

    /// What a script writes; it must end well.
    async fn says(&self, builder: TaskBuilder<'_>) -> Result<String> {
        let output = builder.run().await?;
        assert_eq!(output.status, 0, "{}{}", output.stdout(), output.stderr());
        Ok(output.stdout())
    }

    fn volume(&self, name: &str) -> Result<PathBuf> {
        let dir = self.containerd.scratch().dir().join(name);
        fs::create_dir(&dir)?;
        fs::write(dir.join("file"), format!("in {name}\n"))?;
        Ok(dir)
    }
}

/// Runs one test on one runtime; nothing may be left.
async fn on(
    version: Version,
    runtime: &'static str,
    test: impl AsyncFnOnce(&House) -> Result<()>,
) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    containerd.import(BUSYBOX, &image::busybox()?).await?;
    let house = House {
        containerd,
        runtime,
    };
    test(&house).await?;
    house.containerd.assert_clean().await
}

/// A field of `/proc/PID/status`.
fn status(text: &str, field: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

async fn output_and_exit_codes(house: &House) -> Result<()> {
    for code in [0, 1, 42, 126, 143, 255] {
        let script = format!("echo out {code}; echo err {code} >&2; exit {code}");
        let output = house.sh(&script).run().await?;
        assert_eq!(
            (output.status, output.stdout(), output.stderr()),
            (code, format!("out {code}\n"), format!("err {code}\n"))
        );
        assert!(output.first_byte.is_some());
    }
    // More than any pipe holds, and every byte of it.
    let output = house.sh("yes 0123456 | head -c 20000000").run().await?;
    assert_eq!(output.stdout.len(), 20_000_000);
    assert!(
        output
            .stdout
            .chunks(8)
            .all(|chunk| b"0123456\n".starts_with(chunk))
    );
    Ok(())
}

async fn environment_and_directory(house: &House) -> Result<()> {
    let env = json!([
        "PATH=/bin",
        "HOME=/tmp",
        "FIRST=1",
        "SECOND=two words = two",
        "EMPTY="
    ]);
    let task = house
        .task(["env"])
        .spec(|spec| spec["process"]["env"] = env);
    let text = house.says(task).await?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "EMPTY=",
            "FIRST=1",
            "HOME=/tmp",
            "PATH=/bin",
            "SECOND=two words = two"
        ]
    );

    assert_eq!(house.says(house.task(["pwd"])).await?, "/\n");
    assert_eq!(house.says(house.task(["pwd"]).cwd("/tmp")).await?, "/tmp\n");
    // As Docker does it: a working directory that the image does not have is made.
    assert_eq!(
        house.says(house.task(["pwd"]).cwd("/made/here")).await?,
        "/made/here\n"
    );
    // A relative name is looked up in PATH, a name with a slash from the working directory.
    let task = house.task(["./busybox", "echo", "here"]).cwd("/bin");
    assert_eq!(house.says(task).await?, "here\n");
    // Arguments arrive as they are.
    let task = house.task(["sh", "-c", "echo \"$0|$1|$2\"", "a b", "", "*"]);
    assert_eq!(house.says(task).await?, "a b||*\n");
    Ok(())
}

async fn user_and_groups(house: &House) -> Result<()> {
    let task = house.sh("id -u; id -g; id -G; umask; echo x >/tmp/x; stat -c %u:%g /tmp/x");
    let task = task.user(1234, 2345).spec(|spec| {
        spec["process"]["user"]["additionalGids"] = json!([2345, 3456]);
        spec["process"]["user"]["umask"] = json!(0o027);
    });
    assert_eq!(
        house.says(task).await?,
        "1234\n2345\n2345 3456\n0027\n1234:2345\n"
    );
    // What is root's stays root's.
    let output = house
        .sh("echo x >/etc/passwd")
        .user(1234, 2345)
        .run()
        .await?;
    assert_eq!(output.status, 1, "{}", output.stdout());
    Ok(())
}

async fn mounts_have_their_rights(house: &House) -> Result<()> {
    let (open, shut) = (house.volume("open")?, house.volume("shut")?);
    let script = "cat /deep/er/open/file /shut/file /one; echo new >/deep/er/open/new; \
                  touch /shut/new 2>/dev/null && echo written; echo x >/one && echo written; \
                  mount -o remount,rw /shut 2>/dev/null && echo remounted; \
                  grep -c ' /run/small tmpfs .*size=64k' /proc/mounts; exit 0";
    let task = house
        .sh(script)
        .mount(&open, "/deep/er/open", ["rw"])
        .mount(&shut, "/shut", ["ro"])
        .mount(open.join("file"), "/one", ["ro"])
        .spec(|spec| {
            let tmpfs = json!({
                "destination": "/run/small", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"],
            });
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.push(tmpfs);
            }
        });
    assert_eq!(house.says(task).await?, "in open\nin shut\nin open\n1\n");
    assert_eq!(fs::read_to_string(open.join("new"))?, "new\n");
    assert_eq!(fs::read_to_string(open.join("file"))?, "in open\n");
    assert_eq!(fs::read_dir(&shut)?.count(), 1);

    // A program that only a volume has: what a ConfigMap with a script is used for.
    let script = open.join("run.sh");
    fs::write(&script, "#!/bin/sh\necho from a volume \"$1\"\n")?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let task = house
        .task(["/scripts/run.sh", "one"])
        .mount(&open, "/scripts", ["ro"]);
    assert_eq!(house.says(task).await?, "from a volume one\n");

    let missing = house
        .task(["true"])
        .mount(open.join("nowhere"), "/data", ["rw"]);
    let error = missing.create().await.map(drop);
    let status = refusal(error)?;
    assert!(status.message().contains("nowhere"), "{}", status.message());
    Ok(())
}

/// `mountPropagation`: the volume's own, and the word for the whole tree that comes with it.
async fn mounts_propagate(house: &House) -> Result<()> {
    let volume = house.volume("shared")?;
    let none = None::<&str>;
    mount(Some(&volume), &volume, none, MsFlags::MS_BIND, none)?;
    mount(none, &volume, none, MsFlags::MS_SHARED, none)?;
    let mut lines = Vec::new();
    for (word, field) in [
        ("rshared", "shared:"),
        ("rslave", "master:"),
        ("rprivate", ""),
    ] {
        let source = volume.clone();
        let task = house
            .sh("grep ' /volume ' /proc/self/mountinfo")
            .spec(move |spec| {
                spec["linux"]["rootfsPropagation"] = json!(word);
                let mounts = spec["mounts"].as_array_mut().expect("mounts");
                mounts.push(json!({
                    "type": "bind", "source": source, "destination": "/volume", "options": ["rbind", word]
                }));
            });
        lines.push((word, field, house.says(task).await?));
    }
    umount(&volume)?;
    for (word, field, line) in lines {
        assert!(line.contains(field), "{word}: {line}");
        let other = line.contains("shared:") || line.contains("master:");
        assert_eq!(other, !field.is_empty(), "{word}: {line}");
    }
    Ok(())
}

async fn a_readonly_rootfs(house: &House) -> Result<()> {
    let open = house.volume("open")?;
    let script = "touch /x /tmp/x /bin/x 2>/dev/null && echo written; touch /open/x && echo fine";
    let task = house.sh(script).mount(&open, "/open", ["rw"]);
    let task = task.spec(|spec| spec["root"]["readonly"] = json!(true));
    assert_eq!(house.says(task).await?, "fine\n");
    assert_eq!(
        house.says(house.sh("touch /x && echo fine")).await?,
        "fine\n"
    );
    Ok(())
}

async fn standard_input(house: &House) -> Result<()> {
    let bytes: Vec<u8> = (0..200_000_u32)
        .map(|i| (i * 31 % 251).to_le_bytes()[0])
        .collect();
    let mut task = house.task(["cat"]).stdin(Stdio::Fifo).create().await?;
    task.start().await?;
    task.write_stdin(&bytes).await?;
    task.close_stdin().await?;
    assert_eq!(task.wait().await?, 0);
    task.delete().await?;
    assert!(task.output(0).await.stdout == bytes);
    // Without one it ends at once.
    assert_eq!(house.says(house.sh("cat; echo end")).await?, "end\n");
    Ok(())
}

async fn signals(house: &House) -> Result<()> {
    let script = "for s in 1 2 10 12 15; do trap \"exit $((100 + s))\" $s; done; echo ready; while :; do sleep 0.05; done";
    for signal in [1, 2, 10, 12, 15] {
        let mut task = house.sh(script).create().await?;
        assert_eq!(task.start().await?, task.pid());
        task.stdout_contains("ready").await?;
        task.kill(signal).await?;
        assert_eq!(task.wait().await?, 100 + signal);
        assert_eq!(task.delete().await?, 100 + signal);
    }
    // No handler helps against this one; and the first process takes the others along.
    for all in [false, true] {
        let mut task = house
            .sh("sleep 600 & sleep 600 & echo ready; wait")
            .create()
            .await?;
        task.start().await?;
        task.stdout_contains("ready").await?;
        if all {
            task.kill_all(9).await?;
        } else {
            task.kill(9).await?;
        }
        assert_eq!(task.wait().await?, 137);
        assert_eq!(task.delete().await?, 137);
    }
    Ok(())
}

async fn phases_pids_and_events(house: &House) -> Result<()> {
    let mut events = house.containerd.events().await?;
    let mut task = house
        .sh("sleep 600 & sleep 600 & echo ready; wait")
        .create()
        .await?;
    let id = task.id().to_owned();
    assert_eq!(task.state().await?.status(), Phase::Created);
    assert_eq!(task.state().await?.pid, task.pid());
    assert_eq!(task.start().await?, task.pid());
    task.stdout_contains("ready").await?;
    assert_eq!(task.state().await?.status(), Phase::Running);
    let pids = task.pids().await?;
    assert!(pids.contains(&task.pid()) && pids.len() == 3, "{pids:?}");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", task.pid()))?;
    assert!(command.starts_with("sh\0-c\0"), "{command:?}");
    assert!(task.metrics().await?.is_some());
    let status = task.delete_task().await.expect_err("it runs");
    assert!(status.message().contains("running"), "{status}");
    // runc's shim has no code for that.
    if house.runtime == runtime() {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    }

    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    let process = task.state().await?;
    assert_eq!(
        (process.status(), process.exit_status),
        (Phase::Stopped, 137)
    );
    let status = task.kill(9).await.expect_err("it has ended");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    task.delete().await?;
    let status = task.state().await.expect_err("it is deleted");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    // Not up to /tasks/delete: runc's shim of 2.3 may end before it has sent that one, which shows under load.
    let topics = events.topics_until(&id, "/tasks/exit", DEADLINE).await?;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit"]);

    // Deleted without ever having been started.
    let mut task = house.task(["true"]).create().await?;
    task.delete().await?;
    Ok(())
}

/// A container that is made again under its old name, at once: as a restart of nerdctl does it.
async fn the_same_id_again(house: &House) -> Result<()> {
    for round in 0..10 {
        let task = house.sh(&format!("echo {round}")).id("again");
        assert_eq!(house.says(task).await?, format!("{round}\n"));
    }
    Ok(())
}

async fn a_missing_command_is_named(house: &House) -> Result<()> {
    for command in ["/missing", "missing", "/tmp", "/etc/passwd"] {
        let mut failed = house.task([command]).create().await.map(drop);
        if failed.is_ok() {
            // Whether it shows in Create or in Start is the runtime's own affair.
            let mut task = house.task([command]).create().await?;
            failed = task.start().await.map(drop).map_err(Into::into);
            task.delete().await?;
        }
        let status = refusal(failed)?;
        assert!(status.message().contains(command), "{}", status.message());
    }
    Ok(())
}

/// Everything by which a process is kept small.
async fn privileges(house: &House) -> Result<()> {
    let few = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    let task = house.sh(
        "cat /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; ulimit -c",
    );
    let task = task.spec(move |spec| {
        let process = &mut spec["process"];
        process["capabilities"] = json!({ "bounding": few, "effective": few, "permitted": few });
        process["oomScoreAdj"] = json!(500);
        process["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "hard": 300, "soft": 200 },
            { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 },
        ]);
        spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    });
    let text = house.says(task).await?;
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&text, set), "0000000000000401", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert!(text.ends_with("\n500\n200\n300\n0\n"), "{text}");

    let task = house.task(["cat", "/proc/self/status"]).spec(|spec| {
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["process"]["capabilities"] = json!({});
    });
    let text = house.says(task).await?;
    assert_eq!(
        (status(&text, "NoNewPrivs"), status(&text, "CapEff")),
        ("0".to_owned(), "0000000000000000".to_owned())
    );
    // Nobody but root keeps capabilities over the change of user, unless they are ambient.
    let task = house
        .task(["cat", "/proc/self/status"])
        .user(1234, 2345)
        .spec(|spec| {
            let one = json!(["CAP_NET_BIND_SERVICE"]);
            spec["process"]["capabilities"] = json!({
                "bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one,
            });
        });
    let text = house.says(task).await?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000400", "{set}");
    }
    Ok(())
}

async fn the_seccomp_profile(house: &House) -> Result<()> {
    let profile = |action: &str| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": action }] });
    let script =
        "grep '^Seccomp:' /proc/self/status; mkdir /tmp/x 2>&1; echo $?; touch /tmp/y && echo fine";
    let with = |seccomp: Value| {
        house
            .sh(script)
            .spec(move |spec| spec["linux"]["seccomp"] = seccomp)
    };
    let text = house.says(with(profile("SCMP_ACT_ERRNO"))).await?;
    assert_eq!(
        text,
        "Seccomp:\t2\nmkdir: can't create directory '/tmp/x': Operation not permitted\n1\nfine\n"
    );
    // Killed by SIGSYS (31).
    let text = house.says(with(profile("SCMP_ACT_KILL_PROCESS"))).await?;
    assert!(
        text.starts_with("Seccomp:\t2\n") && text.ends_with("\n159\nfine\n"),
        "{text}"
    );
    let text = house.says(house.sh(script)).await?;
    assert_eq!(text, "Seccomp:\t0\n0\nfine\n");
    Ok(())
}

async fn namespaces_and_hostname(house: &House) -> Result<()> {
    let script = "echo $$; hostname; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo ready; sleep 600";
    let mut task = house
        .sh(script)
        .spec(|spec| {
            spec["hostname"] = json!("harbour");
            spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "80" });
        })
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("1\nharbour\nlo\n80\nready").await?;
    for namespace in ["ipc", "mnt", "net", "pid", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&task.pid().to_string())?, of("self")?, "{namespace}");
    }
    // A second one gets namespaces of its own; where the spec names those of the first, it joins them.
    let first = task.pid();
    let script = "hostname; echo $$";
    let text = house
        .says(house.sh(script).spec(move |spec| {
            spec["linux"]["namespaces"] = json!([
                { "type": "pid" },
                { "type": "mount" },
                { "type": "uts", "path": format!("/proc/{first}/ns/uts") },
                { "type": "ipc", "path": format!("/proc/{first}/ns/ipc") },
                { "type": "network", "path": format!("/proc/{first}/ns/net") },
            ]);
        }))
        .await?;
    assert_eq!(text, "harbour\n1\n");
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    Ok(())
}

async fn proc_and_devices(house: &House) -> Result<()> {
    let script = "for d in null zero full random urandom tty ptmx pts shm stdin stdout stderr fd; do \
                    [ -e /dev/$d ] || [ -L /dev/$d ] || echo no $d; done; \
                  head -c 4 /dev/zero | wc -c; echo x >/dev/null; cat /proc/kcore | wc -c; \
                  echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo shut; \
                  ls /sys/firmware | wc -l; touch /sys/x 2>/dev/null || echo shut; \
                  ls /proc/1/root >/dev/null && echo own";
    assert_eq!(
        house.says(house.sh(script)).await?,
        "4\n0\nshut\n0\nshut\nown\n"
    );
    Ok(())
}

async fn limits_reach_the_cgroup(house: &House) -> Result<()> {
    let mut task = house
        .sh("echo ready; sleep 600")
        .spec(|spec| {
            spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
            spec["linux"]["resources"]["pids"] = json!({ "limit": 17 });
            spec["linux"]["resources"]["cpu"] = json!({ "shares": 512 });
        })
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("ready").await?;
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", task.pid()))?;
    let value = |controller: &str, v1: &str, v2: &str| -> Result<String> {
        let path = cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            names
                .split(',')
                .any(|name| name == controller)
                .then(|| format!("/sys/fs/cgroup/{controller}{path}/{v1}"))
        });
        let path = match path {
            Some(path) => path,
            None => {
                let path = cgroups
                    .lines()
                    .find_map(|line| line.strip_prefix("0::"))
                    .context("it is in a cgroup")?;
                format!("/sys/fs/cgroup{path}/{v2}")
            }
        };
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("read {path}"))?
            .trim()
            .to_owned())
    };
    assert_eq!(
        value("memory", "memory.limit_in_bytes", "memory.max")?,
        (64 << 20).to_string()
    );
    assert_eq!(value("pids", "pids.max", "pids.max")?, "17");
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    Ok(())
}

/// A container that waits for its end.
async fn waiting(builder: TaskBuilder<'_>) -> Result<Task<'_>> {
    let mut task = builder.create().await?;
    task.start().await?;
    task.stdout_contains("ready").await?;
    Ok(task)
}

async fn end(mut task: Task<'_>) -> Result<()> {
    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    task.delete().await?;
    Ok(())
}

const WAITS: &str = "echo ready; sleep 600 & wait";

async fn executed(house: &House) -> Result<()> {
    let task = waiting(house.sh(WAITS).env("A", "1")).await?;
    for code in [0, 1, 42, 126, 255] {
        let script = format!("echo out {code}; echo err {code} >&2; exit {code}");
        let output = task.exec(["sh", "-c", &script]).run().await?;
        assert_eq!(
            (output.status, output.stdout(), output.stderr()),
            (code, format!("out {code}\n"), format!("err {code}\n"))
        );
    }
    let exec = task.exec(["sh", "-c", "pwd; echo $A$B"]).cwd("/tmp");
    assert_eq!(exec.env("B", "2").run().await?.stdout(), "/tmp\n12\n");
    // It sees the container's processes and files.
    let output = task
        .exec([
            "sh",
            "-c",
            "cat /proc/1/cmdline | tr '\\0' ' '; echo x > /tmp/x",
        ])
        .run()
        .await?;
    assert!(
        output.stdout().starts_with("sh -c echo ready"),
        "{}",
        output.stdout()
    );
    assert_eq!(task.exec(["cat", "/tmp/x"]).run().await?.stdout(), "x\n");

    let bytes: Vec<u8> = (0..200_000_u32)
        .map(|i| (i * 31 % 251).to_le_bytes()[0])
        .collect();
    let mut exec = task.exec(["cat"]).stdin(Stdio::Fifo).add().await?;
    exec.start().await?;
    exec.write_stdin(&bytes).await?;
    exec.close_stdin().await?;
    assert_eq!(exec.wait().await?, 0);
    exec.delete().await?;
    assert!(exec.output(0).await.stdout == bytes);
    drop(exec);

    let status = refusal(task.exec(["nonexistent-command"]).run().await)?;
    assert!(
        status.message().contains("nonexistent-command"),
        "{}",
        status.message()
    );
    end(task).await
}

async fn executed_with_other_rights(house: &House) -> Result<()> {
    let builder = house.sh(WAITS).spec(|spec| {
        spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    });
    let task = waiting(builder).await?;
    let few = json!(["CAP_CHOWN"]);
    let exec = task.exec([
        "sh",
        "-c",
        "id -u; id -G; cat /proc/self/status; ulimit -Hn",
    ]);
    let exec = exec.process(move |process| {
        process["user"] = json!({ "uid": 1234, "gid": 2345, "additionalGids": [3456] });
        process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 300, "soft": 200 }]);
        process["capabilities"] = json!({ "bounding": few, "effective": few, "permitted": few });
    });
    let output = exec.run().await?;
    let text = output.stdout();
    assert!(
        text.starts_with("1234\n2345 3456\n") && text.ends_with("\n300\n"),
        "{text}{}",
        output.stderr()
    );
    for (field, value) in [
        ("CapBnd", "0000000000000001"),
        ("CapEff", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(status(&text, field), value, "{field}");
    }
    let exec = task.exec(["cat", "/proc/self/status"]).process(|process| {
        process["noNewPrivileges"] = json!(false);
    });
    let text = exec.run().await?.stdout();
    for (field, value) in [("NoNewPrivs", "0"), ("Seccomp", "2")] {
        assert_eq!(status(&text, field), value, "{field}");
    }
    // As the container's own: what it may not do, this may not either.
    assert_eq!(status(&text, "CapEff"), "00000000a80425fb");
    let mut exec = task.exec(["sleep", "600"]).add().await?;
    let pid = exec.start().await?;
    for namespace in ["ipc", "mnt", "net", "pid", "uts"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_eq!(of(pid)?, of(task.pid())?, "{namespace}");
    }
    let cgroup = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    assert_eq!(cgroup(pid)?, cgroup(task.pid())?);
    exec.kill(9).await?;
    exec.wait().await?;
    exec.delete().await?;
    drop(exec);
    end(task).await
}

async fn executed_and_killed(house: &House) -> Result<()> {
    let task = waiting(house.sh(WAITS)).await?;
    let mut exec = task
        .exec([
            "sh",
            "-c",
            "trap 'exit 7' 15; echo up; while :; do sleep 0.05; done",
        ])
        .add()
        .await?;
    assert_eq!(exec.state().await?.status(), Phase::Created);
    let pid = exec.start().await?;
    exec.stdout_contains("up").await?;
    let state = exec.state().await?;
    assert_eq!((state.status(), state.pid), (Phase::Running, pid));
    exec.kill(15).await?;
    assert_eq!(exec.wait().await?, 7);
    assert_eq!(exec.state().await?.status(), Phase::Stopped);
    assert_eq!(exec.delete().await?, 7);
    // The container's end is the end of all in it.
    let mut exec = task.exec(["sleep", "600"]).add().await?;
    exec.start().await?;
    let request = task.request(KillRequest {
        container_id: task.id().to_owned(),
        signal: 9,
        ..KillRequest::default()
    });
    task.service().kill(request).await?;
    assert_eq!(exec.wait().await?, 137);
    exec.delete().await?;
    drop(exec);
    let mut task = task;
    assert_eq!(task.wait().await?, 137);
    task.delete().await?;
    Ok(())
}

/// A terminal of 80 columns and 24 rows.
fn sized(process: &mut Value) {
    process["consoleSize"] = json!({ "width": 80, "height": 24 });
}

/// A terminal has the size that was asked for before its program begins, which gets no SIGWINCH for it: what a program
/// reads first is what it draws with.
async fn terminals_have_their_size_at_once(house: &House) -> Result<()> {
    const SCRIPT: &str = "trap 'echo changed' WINCH; stty size; sleep 0.1; stty size";
    let as_asked = "24 80\r\n24 80\r\n";
    let program = || {
        let builder = house.sh(SCRIPT).terminal();
        builder.spec(|spec| sized(&mut spec["process"]))
    };
    assert_eq!(house.says(program()).await?, as_asked);
    // Between Create and Start it is changed without the program's knowledge.
    let mut task = program().create().await?;
    task.resize(123, 45).await?;
    task.start().await?;
    assert_eq!(task.wait().await?, 0);
    task.delete().await?;
    assert_eq!(task.output(0).await.stdout(), "45 123\r\n45 123\r\n");

    let task = waiting(house.sh(WAITS)).await?;
    for _ in 0..5 {
        let exec = task.exec(["sh", "-c", SCRIPT]).terminal().process(sized);
        assert_eq!(exec.run().await?.stdout(), as_asked);
    }
    // runc's shim forgets a size that is asked for before Start.
    if house.runtime == runtime() {
        let exec = task.exec(["sh", "-c", SCRIPT]).terminal().process(sized);
        let mut exec = exec.add().await?;
        exec.resize(123, 45).await?;
        exec.start().await?;
        assert_eq!(exec.wait().await?, 0);
        exec.delete().await?;
        let text = exec.output(0).await.stdout();
        assert_eq!(text, "45 123\r\n45 123\r\n");
    }
    end(task).await
}

async fn terminals(house: &House) -> Result<()> {
    // One of its own, inside the container, that controls it; both outputs in one.
    let script = "tty; [ -c /dev/console ] && echo console; echo err >&2; echo x >/dev/tty; \
                  trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done";
    let builder = house.sh(script).terminal().stdin(Stdio::Fifo);
    let mut task = builder.create().await?;
    task.start().await?;
    task.stdout_contains("ready").await?;
    task.resize(123, 45).await?;
    assert_eq!(task.wait().await?, 3);
    task.delete().await?;
    let text = task.output(3).await.stdout();
    assert_eq!(
        text,
        "/dev/pts/0\r\nconsole\r\nerr\r\nx\r\nready\r\n45 123\r\n"
    );
    // What is typed is shown, and a key is a signal.
    let builder = house.sh("trap 'echo caught; exit 4' INT; echo ready; read line; echo \"got $line\"; while :; do sleep 0.05; done");
    let mut task = builder.terminal().stdin(Stdio::Fifo).create().await?;
    task.start().await?;
    task.stdout_contains("ready").await?;
    task.write_stdin(b"some words\n").await?;
    task.stdout_contains("some words\r\ngot some words\r\n")
        .await?;
    task.write_stdin(b"\x03").await?;
    assert_eq!(task.wait().await?, 4);
    task.delete().await?;
    // More than a terminal holds, to its end.
    let mut task = house.sh("seq 1 50000").terminal().create().await?;
    task.start().await?;
    assert_eq!(task.wait().await?, 0);
    task.delete().await?;
    let text = task.output(0).await.stdout();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines.last()), (50_000, Some(&"50000")));
    Ok(())
}

async fn executed_with_a_terminal(house: &House) -> Result<()> {
    let task = waiting(house.sh(WAITS)).await?;
    let script =
        "tty; stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done";
    let exec = task.exec(["sh", "-c", script]).terminal().process(sized);
    let mut exec = exec.stdin(Stdio::Fifo).add().await?;
    exec.start().await?;
    exec.stdout_contains("ready").await?;
    exec.resize(123, 45).await?;
    assert_eq!(exec.wait().await?, 3);
    exec.delete().await?;
    let text = exec.output(3).await.stdout();
    assert_eq!(text, "/dev/pts/0\r\n24 80\r\nready\r\n45 123\r\n");
    let mut exec = task.exec(["seq", "1", "50000"]).terminal().add().await?;
    exec.start().await?;
    assert_eq!(exec.wait().await?, 0);
    exec.delete().await?;
    assert_eq!(exec.output(0).await.stdout().lines().count(), 50_000);
    // At the end of its input it hangs up.
    let mut exec = task
        .exec(["cat"])
        .terminal()
        .stdin(Stdio::Fifo)
        .add()
        .await?;
    exec.start().await?;
    exec.write_stdin(b"words\n").await?;
    exec.stdout_contains("words\r\nwords\r\n").await?;
    exec.close_stdin().await?;
    assert_eq!(exec.wait().await?, 129);
    exec.delete().await?;
    drop(exec);
    end(task).await
}

macro_rules! table {
    ($($test:ident)*) => {
        mod runc {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() -> anyhow::Result<()> {
                super::on(super::Version::V2, super::RUNC, super::$test).await
            })*
        }
        mod sampan {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() -> anyhow::Result<()> {
                super::on(super::Version::V2, super::runtime(), super::$test).await
            })*
        }
        /// The release of containerd is no matter to a native container, but the first step and the last.
        mod sampan_on_1_7 {
            #[tokio::test(flavor = "multi_thread")]
            async fn phases_pids_and_events() -> anyhow::Result<()> {
                super::on(super::Version::V1_7, super::runtime(), super::phases_pids_and_events).await
            }
        }
    };
}

table! {
    output_and_exit_codes
    environment_and_directory
    user_and_groups
    mounts_have_their_rights
    mounts_propagate
    a_readonly_rootfs
    standard_input
    signals
    phases_pids_and_events
    the_same_id_again
    a_missing_command_is_named
    privileges
    the_seccomp_profile
    namespaces_and_hostname
    proc_and_devices
    limits_reach_the_cgroup
    executed
    executed_with_other_rights
    executed_and_killed
    terminals
    terminals_have_their_size_at_once
    executed_with_a_terminal
}
