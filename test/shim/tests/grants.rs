//! What a guest gets: what the spec says and the volumes that it names, and nothing else of the machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::Result;
use harness::image::Rootfs;
use harness::{Containerd, Output, TaskBuilder, Version, guest};
use serde_json::json;
use shim_tests::{containerd, layer, rootfs};

/// The two builds of `probe`: WASI 0.1 and 0.2.
const PROBES: [&str; 2] = ["probe.wasm", "probe-p2.wasm"];

async fn probe(builder: TaskBuilder<'_>, words: &[&str]) -> Result<Output> {
    let words = std::iter::once("/").chain(words.iter().copied());
    builder.args(words).run().await
}

/// A directory below the scratch directory with a file in it.
fn volume(containerd: &Containerd, name: &str) -> Result<PathBuf> {
    let dir = containerd.scratch().dir().join(name);
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), format!("in {name}\n"))?;
    Ok(dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_specs_alone() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let env = json!(["FIRST=1", "SECOND=two words = two", "EMPTY=", "FIRST=last"]);
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let env = env.clone();
        let task = containerd
            .task(&image)
            .spec(|spec| spec["process"]["env"] = env);
        let output = probe(task, &["env"]).await?;
        let mut lines: Vec<_> = output.stdout().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            ["EMPTY=", "FIRST=last", "SECOND=two words = two"],
            "{guest}"
        );
        let task = containerd
            .task(&image)
            .spec(|spec| spec["process"]["env"] = json!([]));
        assert_eq!(probe(task, &["env"]).await?.stdout(), "\n", "{guest}");
    }
    let p3 = layer(&containerd, "hello-p3.wasm").await?;
    let task = containerd
        .task(&p3)
        .spec(|spec| spec["process"]["env"] = env);
    let stdout = task.args(["/"]).run().await?.stdout();
    let mut lines: Vec<_> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("env "))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "FIRST=last", "SECOND=two words = two"]);
    containerd.assert_clean().await
}

/// A layer has no rootfs: the guest sees its volumes. Of the machine there is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_there() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let data = volume(&containerd, "data")?;
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let task = || containerd.task(&image);
        assert_eq!(probe(task(), &["ls", "/"]).await?.stdout(), "", "{guest}");
        assert_eq!(
            probe(task(), &["preopens"]).await?.stdout(),
            "/\n",
            "{guest}"
        );
        let with = || task().mount(&data, "/data", ["ro"]);
        assert_eq!(
            probe(with(), &["ls", "/"]).await?.stdout(),
            "data/\n",
            "{guest}"
        );
        assert_eq!(
            probe(with(), &["preopens"]).await?.stdout(),
            "/\n/data\n",
            "{guest}"
        );
        for path in [
            "/proc",
            "/sys",
            "/dev",
            "/proc/self/environ",
            "/dev/null",
            "/etc/passwd",
            "/root",
        ] {
            let output = probe(with(), &["stat", path]).await?;
            assert_eq!(
                (output.status, output.stdout()),
                (1, format!("error: stat {path}: NOENT\n")),
                "{guest}"
            );
        }
        // The host's own path of the volume, and up from it.
        for path in [
            data.join("file"),
            PathBuf::from("/data/../../../../../../etc/passwd"),
            PathBuf::from("/data/../.."),
        ] {
            let path = path.to_str().expect("UTF-8");
            let output = probe(with(), &["cat", path]).await?;
            assert_eq!(output.status, 1, "{guest} {path}: {}", output.stdout());
        }
    }
    for guest in PROBES {
        let image = rootfs(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(["/app.wasm", "ls", "/"])
            .run()
            .await?;
        assert_eq!(output.stdout(), ".sampan-test-image\napp.wasm\n", "{guest}");
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_have_the_rights_of_their_mounts() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let (open, shut) = (
            volume(&containerd, &format!("open-{guest}"))?,
            volume(&containerd, &format!("shut-{guest}"))?,
        );
        let task = || {
            containerd.task(&image).mount(&open, "/open", ["rw"]).mount(
                &shut,
                "/deep/er/shut",
                ["ro"],
            )
        };
        assert_eq!(
            probe(task(), &["cat", "/open/file"]).await?.stdout(),
            format!("in open-{guest}\n")
        );
        assert_eq!(
            probe(task(), &["cat", "/deep/er/shut/file"])
                .await?
                .stdout(),
            format!("in shut-{guest}\n")
        );

        for words in [
            &["write", "/open/new", "text"][..],
            &["append", "/open/file", "more"],
            &["mkdir", "/open/dir"],
        ] {
            let output = probe(task(), words).await?;
            assert_eq!(output.status, 0, "{guest} {words:?}: {}", output.stdout());
        }
        assert_eq!(fs::read_to_string(open.join("new"))?, "text");
        assert_eq!(
            fs::read_to_string(open.join("file"))?,
            format!("in open-{guest}\nmore")
        );
        assert!(open.join("dir").is_dir());

        for words in [
            &["write", "/deep/er/shut/file", "x"][..],
            &["write", "/deep/er/shut/new", "x"],
            &["mkdir", "/deep/er/shut/dir"],
            &["rm", "/deep/er/shut/file"],
        ] {
            let output = probe(task(), words).await?;
            assert_eq!(output.status, 1, "{guest} {words:?}: {}", output.stdout());
        }
        assert_eq!(
            fs::read_to_string(shut.join("file"))?,
            format!("in shut-{guest}\n")
        );
        assert_eq!(fs::read_dir(&shut)?.count(), 1);
    }
    containerd.assert_clean().await
}

/// What `subPath` of a file makes: a mount of a single file, into an empty root and over a file of the image.
#[tokio::test(flavor = "multi_thread")]
async fn single_files_are_seen() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let data = volume(&containerd, "data")?;
    let file = data.join("file");
    let image = "example.test/config:v1";
    let content = Rootfs::new()
        .file("/app.wasm", guest("probe.wasm")?)
        .file_mode("/etc/app.conf", "of the image\n", 0o644)
        .build()?;
    containerd.import(image, &content).await?;
    let over = containerd.task(image).mount(&file, "/etc/app.conf", ["ro"]);
    let output = over
        .args(["/app.wasm", "cat", "/etc/app.conf"])
        .run()
        .await?;
    assert_eq!(output.stdout(), "in data\n", "{}", output.stderr());
    let without = containerd
        .task(image)
        .args(["/app.wasm", "cat", "/etc/app.conf"])
        .run()
        .await?;
    assert_eq!(without.stdout(), "of the image\n");

    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let task = || {
            containerd
                .task(&image)
                .mount(&file, "/etc/app.conf", ["ro"])
        };
        assert_eq!(
            probe(task(), &["cat", "/etc/app.conf"]).await?.stdout(),
            "in data\n",
            "{guest}"
        );
        assert_eq!(
            probe(task(), &["ls", "/etc"]).await?.stdout(),
            "app.conf\n",
            "{guest}"
        );
        assert_eq!(
            probe(task(), &["write", "/etc/app.conf", "x"])
                .await?
                .status,
            1,
            "{guest}"
        );
        let task = containerd
            .task(&image)
            .mount(&file, "/etc/app.conf", ["rw"]);
        assert_eq!(
            probe(task, &["append", "/etc/app.conf", ""]).await?.status,
            0,
            "{guest}"
        );
    }
    let p3 = layer(&containerd, "hello-p3.wasm").await?;
    let task = containerd
        .task(&p3)
        .mount(&file, "/etc/app.conf", ["ro"])
        .mount(&data, "/data", ["ro"]);
    let output = task.args(["/", "cat", "/etc/app.conf"]).run().await?;
    assert!(
        output.stdout().contains("in data\n"),
        "{}{}",
        output.stdout(),
        output.stderr()
    );
    let task = containerd.task(&p3).mount(&data, "/data", ["ro"]);
    let output = task.args(["/", "cat", "/data/file"]).run().await?;
    assert!(
        output.stdout().contains("in data\n"),
        "{}{}",
        output.stdout(),
        output.stderr()
    );
    assert_eq!(fs::read_to_string(&file)?, "in data\n");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_belong_to_the_specs_user() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let data = volume(&containerd, "data")?;
    fs::set_permissions(&data, PermissionsExt::from_mode(0o777))?;
    fs::write(data.join("secret"), "of root")?;
    fs::set_permissions(data.join("secret"), PermissionsExt::from_mode(0o600))?;
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let task = || {
            containerd
                .task(&image)
                .user(1234, 2345)
                .mount(&data, "/data", ["rw"])
        };
        let new = format!("/data/{guest}");
        let output = probe(task(), &["write", &new, "x"]).await?;
        assert_eq!(
            output.status,
            0,
            "{guest}: {}{}",
            output.stdout(),
            output.stderr()
        );
        let made = fs::metadata(data.join(guest))?;
        assert_eq!((made.uid(), made.gid()), (1234, 2345), "{guest}");
        let output = probe(task(), &["cat", "/data/secret"]).await?;
        assert_eq!(
            output.stdout(),
            "error: cat /data/secret: ACCES\n",
            "{guest}"
        );
    }
    containerd.assert_clean().await
}

/// A component that asks is told the spec's working directory. (WASI 0.1 has no such question; a relative path is the C
/// library's to resolve.)
#[tokio::test(flavor = "multi_thread")]
async fn the_working_directory_is_the_specs() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let data = volume(&containerd, "data")?;
    let image = layer(&containerd, "probe-p2.wasm").await?;
    let task = || {
        containerd
            .task(&image)
            .mount(&data, "/data", ["ro"])
            .cwd("/data")
    };
    assert_eq!(probe(task(), &["initial-cwd"]).await?.stdout(), "/data\n");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_and_random_numbers_work() -> Result<()> {
    let Some(containerd) = containerd(Version::V1_7).await? else {
        return Ok(());
    };
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let stdout = probe(containerd.task(&image), &["clock"]).await?.stdout();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        let wall: u64 = stdout
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("wall ")?.parse().ok())
            .expect("a time");
        assert!(now.abs_diff(wall) < 60, "{guest}: {stdout}");
        assert!(stdout.contains("monotonic yes"), "{guest}: {stdout}");
        let first = probe(containerd.task(&image), &["random", "32"])
            .await?
            .stdout();
        let second = probe(containerd.task(&image), &["random", "32"])
            .await?
            .stdout();
        assert_eq!(first.trim().len(), 64, "{guest}: {first}");
        assert_ne!(first, second, "{guest}");
    }
    containerd.assert_clean().await
}
