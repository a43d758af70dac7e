//! The debug guest: `exec sampan ...` in containers whose images have nothing of the kind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::{Containerd, Output, Task, Version};
use serde_json::json;
use shim_tests::{containerd, layer};

async fn sampan(task: &Task<'_>, args: &[&str]) -> Result<Output> {
    let words = ["sampan"].into_iter().chain(args.iter().copied());
    let output = task.exec(words).run().await;
    output.with_context(|| format!("execute sampan {args:?}"))
}

/// A volume with a file for everybody and one for root.
fn volume(containerd: &Containerd, name: &str) -> Result<PathBuf> {
    let dir = containerd.scratch().dir().join(name);
    fs::create_dir_all(dir.join("sub"))?;
    fs::write(dir.join("open.txt"), "one\ntwo\n")?;
    fs::write(dir.join("secret.txt"), "secret")?;
    fs::set_permissions(dir.join("secret.txt"), fs::Permissions::from_mode(0o600))?;
    Ok(dir)
}

async fn looks_around(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let (open, shut) = (volume(&containerd, "open")?, volume(&containerd, "shut")?);
    for (guest, args) in [
        ("probe.wasm", &["/", "sleep", "600000"][..]),
        ("http-p2.wasm", &["/"]),
    ] {
        let image = layer(&containerd, guest).await?;
        let mut task = containerd
            .task(&image)
            .args(args.iter().copied())
            .env("GREETING", "a value that is nobody's business")
            .user(1234, 1234)
            .mount(&open, "/data/open", ["rbind", "rw"])
            .mount(&shut, "/data/shut", ["rbind", "ro"])
            .spec(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }))
            .create()
            .await?;
        task.start().await?;

        // What the program sees, and no more.
        let list = sampan(&task, &["ls", "/", "/data"]).await?;
        assert_eq!(
            (list.status, list.stdout()),
            (0, "/:\ndata\n\n/data:\nopen\nshut\n".to_owned()),
            "{guest}: {}",
            list.stderr()
        );
        let cat = sampan(&task, &["cat", "/data/shut/open.txt"]).await?;
        assert_eq!((cat.status, cat.stdout()), (0, "one\ntwo\n".to_owned()));
        let head = sampan(&task, &["head", "-n", "1", "/data/open/open.txt"]).await?;
        assert_eq!(head.stdout(), "one\n");
        let find = sampan(
            &task,
            &["find", "/data/open", "-type", "f", "-name", "*.txt"],
        )
        .await?;
        assert_eq!(
            find.stdout(),
            "/data/open/open.txt\n/data/open/secret.txt\n"
        );
        let stat = sampan(&task, &["stat", "/data/open/open.txt"]).await?;
        assert!(
            stat.stdout().contains("Size: 8 bytes, regular file"),
            "{}",
            stat.stdout()
        );

        // As its user, and not as root.
        let secret = sampan(&task, &["cat", "/data/open/secret.txt"]).await?;
        assert_eq!(
            (secret.status, secret.stderr()),
            (
                1,
                "cat: /data/open/secret.txt: Permission denied\n".to_owned()
            )
        );
        let missing = sampan(&task, &["ls", "/etc"]).await?;
        assert_eq!(
            (missing.status, missing.stderr()),
            (2, "ls: /etc: No such file or directory\n".to_owned())
        );

        let env = sampan(&task, &["env", "GREETING"]).await?;
        assert_eq!(env.stdout(), "a value that is nobody's business\n");
        let grants = sampan(&task, &["grants"]).await?.stdout();
        for line in [
            "  /data/open  read and write",
            "  /data/shut  read only",
            "  GREETING",
            "  memory of the guest  58720256 bytes",
        ] {
            assert!(
                grants.lines().any(|found| found == line),
                "no {line:?} in {grants}"
            );
        }
        assert!(!grants.contains("nobody's business"), "{grants}");
        let top = sampan(&task, &["top"]).await?.stdout();
        assert!(
            top.contains(" of 64.0 MiB\n") && top.contains(" s\n"),
            "{top}"
        );

        let unknown = sampan(&task, &["rm", "/data/open/open.txt"]).await?;
        assert_eq!(unknown.status, 127, "{}", unknown.stderr());
        assert!(open.join("open.txt").exists());

        task.kill(9).await?;
        task.wait().await?;
        task.delete().await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_guest_sees_what_the_program_sees_on_2() -> Result<()> {
    looks_around(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_guest_sees_what_the_program_sees_on_1_7() -> Result<()> {
    looks_around(Version::V1_7).await
}
