//! What an image or a guest may try, and what the kernel says of a guest's process. Whatever is tried, the host's side is
//! looked at afterwards as well: an answer alone proves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use harness::image::{self, BYTECODE_ALLIANCE_LAYER, Blob, CONTENT_LAYER, Image, Rootfs};
use harness::{Containerd, Output, Task, TaskBuilder, Version, guest, until};
use serde_json::{Value, json};
use shim_tests::{containerd, expect, layer, of_pod, refusal};
use tonic::Code;

/// The two builds of `probe`: WASI 0.1 and 0.2.
const PROBES: [&str; 2] = ["probe.wasm", "probe-p2.wasm"];
/// What no guest may ever print.
const SECRET: &str = "the host's secret";

async fn probe(builder: TaskBuilder<'_>, words: &[&str]) -> Result<Output> {
    let words = std::iter::once("/").chain(words.iter().copied());
    builder.args(words).run().await
}

/// Every file below a directory: owner, mode, time of the last change and content (or where a link leads to).
fn snapshot(dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        let content = if metadata.is_dir() {
            files.extend(snapshot(&path)?);
            String::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path)?.display().to_string()
        } else {
            fs::read_to_string(&path)?
        };
        let (mode, uid) = (metadata.mode(), metadata.uid());
        let state = format!(
            "{mode:o} {uid} {} {} {content}",
            metadata.mtime(),
            metadata.nlink()
        );
        files.insert(path, state);
    }
    Ok(files)
}

/// Native code of this very engine: what the shim itself has compiled and would map without a question, were it in the
/// store.
async fn native_code(containerd: &Containerd) -> Result<Vec<u8>> {
    let hello = layer(containerd, "hello.wasm").await?;
    assert_eq!(containerd.task(&hello).args(["/"]).run().await?.status, 0);
    let artifacts = containerd.sampan_store().join("artifacts");
    for dir in fs::read_dir(&artifacts)? {
        for file in fs::read_dir(dir?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|is| is == "cwasm") {
                let bytes = fs::read(path)?;
                assert!(bytes.starts_with(b"\x7fELF"), "the engine's own format");
                return Ok(bytes);
            }
        }
    }
    bail!("no artifact in {}", artifacts.display())
}

/// CVE-2026-47218 of another shim: native code in an image was mapped and run.
async fn native_code_in_an_image(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let forged = native_code(&containerd).await?;

    // As a layer: by media type, by title, and by content whatever the type says.
    let with_type = |media_type: &str| {
        let mut image = image::bytecode_alliance(forged.clone());
        image.layers = vec![Blob::new(media_type, forged.clone())];
        Image::assemble(image.config, image.layers)
    };
    let titled = with_type(CONTENT_LAYER).edit_manifest(|manifest| {
        manifest["layers"][0]["annotations"] =
            json!({ "org.opencontainers.image.title": "app.cwasm" });
    });
    let types = [
        "application/vnd.wasmtime.precompiled.v1",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+cwasm",
    ];
    let images = [
        (with_type(types[0]), types[0]),
        (with_type(types[1]), types[1]),
        (titled, "app.cwasm"),
        (with_type(BYTECODE_ALLIANCE_LAYER), "precompiled"),
        (with_type(CONTENT_LAYER), "precompiled"),
        (image::cncf(forged.clone(), "wasip1"), "precompiled"),
        (image::oras(forged.clone()), "precompiled"),
    ];
    for (number, (image, name)) in images.into_iter().enumerate() {
        let reference = format!("example.test/forged-{number}:v1");
        containerd.import(&reference, &image).await?;
        let created = containerd.task(&reference).args(["/"]).create().await;
        let layer = image.layers[0].digest();
        expect(
            &refusal(created.map(drop))?,
            Code::InvalidArgument,
            &[&layer, name, "precompiled"],
        );
    }

    // As a file, under whatever name, also on PATH; and behind a link.
    let image = Rootfs::new()
        .file("/app.wasm", forged.clone())
        .file("/app.wat", forged.clone())
        .file("/bin/app", forged.clone())
        .file("/app.aot", b"\0aot\x03\0\0\0".as_slice())
        .symlink("/link.wasm", "bin/app")
        .config("Env", json!(["PATH=/bin"]))
        .build()?;
    let reference = "example.test/forged-file:v1";
    containerd.import(reference, &image).await?;
    for entry in [
        "/app.wasm",
        "/app.wat",
        "/bin/app",
        "app",
        "/app.aot",
        "/link.wasm",
        "/app.wasm#_start",
    ] {
        let created = containerd.task(reference).args([entry]).create().await;
        let name = entry.split_once('#').map_or(entry, |(path, _)| path);
        expect(
            &refusal(created.map(drop))?,
            Code::InvalidArgument,
            &[name, "precompiled"],
        );
    }

    // Nothing of it has come into the store.
    let fingerprints: Vec<_> =
        fs::read_dir(containerd.sampan_store().join("artifacts"))?.collect::<Result<_, _>>()?;
    let artifacts: usize = fingerprints
        .iter()
        .map(|dir| Ok(fs::read_dir(dir.path())?.count()))
        .sum::<std::io::Result<usize>>()?;
    assert_eq!(artifacts, 1, "hello's alone");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_in_an_image_is_refused_on_2() -> Result<()> {
    native_code_in_an_image(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_in_an_image_is_refused_on_1_7() -> Result<()> {
    native_code_in_an_image(Version::V1_7).await
}

/// A volume beside a secret, with every link that an attacker could plant in it.
fn trapped_volume(containerd: &Containerd, name: &str) -> Result<(PathBuf, PathBuf)> {
    let around = containerd.scratch().dir().join(name);
    let volume = around.join("volume");
    fs::create_dir_all(&volume)?;
    fs::create_dir(around.join("private"))?;
    for secret in [around.join("secret"), around.join("private/secret")] {
        fs::write(&secret, SECRET)?;
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o666))?;
    }
    fs::write(volume.join("file"), "in the volume\n")?;
    symlink("/etc/passwd", volume.join("absolute"))?;
    symlink("../../../../../../../../etc/passwd", volume.join("upwards"))?;
    symlink(around.join("secret"), volume.join("secret"))?;
    symlink("../secret", volume.join("beside"))?;
    symlink("..", volume.join("parent"))?;
    symlink("/", volume.join("root"))?;
    symlink("/proc/self/root", volume.join("magic"))?;
    symlink("parent", volume.join("twice"))?;
    Ok((around, volume))
}

fn no_secret(guest: &str, words: &[&str], output: &Output) {
    let text = format!("{}{}", output.stdout(), output.stderr());
    assert_eq!(output.status, 1, "{guest} {words:?}: {text}");
    assert!(
        text.starts_with("error: "),
        "{guest} {words:?} failed otherwise: {text}"
    );
    for words in [SECRET, "root:"] {
        assert!(!text.contains(words), "{guest} has read {words:?}: {text}");
    }
}

/// The host's files by their names, by `..` and by links in a volume: for reading, for writing, for taking along.
#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_a_volume() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let (around, volume) = trapped_volume(&containerd, guest)?;
        let before = snapshot(&around)?;
        let host = around.join("secret").display().to_string();
        let on_host = around.join("new").display().to_string();
        let task = || containerd.task(&image).mount(&volume, "/data", ["rw"]);
        let tries: Vec<Vec<&str>> = vec![
            vec!["cat", "/etc/passwd"],
            vec!["cat", "/proc/self/root/etc/passwd"],
            vec!["cat", "/proc/1/environ"],
            vec!["cat", "/dev/mem"],
            vec!["cat", &host],
            vec!["cat", "/data/../../../../../../../etc/passwd"],
            vec!["cat", "/data/../secret"],
            vec!["cat", "/data/./../secret"],
            vec!["cat", "/data/x/../../secret"],
            vec!["cat", "/data//..//secret"],
            vec!["cat", "../secret"],
            vec!["cat", "/../../../../etc/passwd"],
            vec!["cat", "/data/absolute"],
            vec!["cat", "/data/upwards"],
            vec!["cat", "/data/secret"],
            vec!["cat", "/data/beside"],
            vec!["cat", "/data/beside/"],
            vec!["cat", "/data/parent/secret"],
            vec!["cat", "/data/parent/private/secret"],
            vec!["cat", "/data/twice/secret"],
            vec!["cat", "/data/root/etc/passwd"],
            vec!["cat", "/data/magic/etc/passwd"],
            vec!["ls", "/data/parent/private"],
            vec!["ls", "/data/twice/private/"],
            vec!["ls", "/data/root/etc"],
            vec!["stat", "/data/parent/secret"],
            vec!["write", "/data/secret", "overwritten"],
            vec!["write", "/data/beside", "overwritten"],
            vec!["write", "/data/parent/secret", "overwritten"],
            vec!["write", "/data/parent/private/new", "made"],
            vec!["write", &on_host, "made"],
            vec!["append", "/data/beside", "appended"],
            vec!["truncate", "/data/beside", "0"],
            vec!["opentrunc", "/data/beside"],
            vec!["opentrunc-ro", "/data/beside"],
            vec!["opencreate", "/data/parent/private/new"],
            vec!["mkdir", "/data/parent/private/new"],
            vec!["rm", "/data/parent/private/secret"],
            vec!["rename", "/data/file", "/data/parent/private/file"],
            vec!["rename", "/data/parent/private/secret", "/data/stolen"],
            vec!["link", "/data/parent/private/secret", "/data/stolen"],
            vec!["link", "/data/../secret", "/data/stolen"],
            vec!["symlink", "secret", "/data/parent/private/link"],
            vec!["settimes", "/data/beside"],
            vec!["settimes-fd", "/data/beside"],
        ];
        // Four at once: the order is no matter, since none of them may change anything.
        for some in tries.chunks(4) {
            let outputs = try_join_all(some.iter().map(|words| probe(task(), words))).await?;
            for (words, output) in some.iter().zip(&outputs) {
                no_secret(guest, words, output);
            }
        }
        assert_eq!(snapshot(&around)?, before, "{guest}");

        // A link that the guest makes itself is worth as little.
        for (target, made) in [
            ("../secret", "one"),
            ("/etc/passwd", "two"),
            ("..", "three"),
        ] {
            let path = format!("/data/{made}");
            probe(task(), &["symlink", target, &path]).await?;
            let path = if target == ".." {
                format!("{path}/secret")
            } else {
                path
            };
            let words = ["cat", path.as_str()];
            no_secret(guest, &words, &probe(task(), &words).await?);
        }
        for path in ["secret", "private/secret"] {
            assert_eq!(fs::read_to_string(around.join(path))?, SECRET, "{guest}");
        }
        assert_eq!(probe(task(), &["cat", "/data/file"]).await?.status, 0);
    }
    containerd.assert_clean().await
}

/// Links in an image: read through, mounted on, and as the way to a mount point.
#[tokio::test(flavor = "multi_thread")]
async fn no_link_in_an_image_leads_out() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let (around, volume) = trapped_volume(&containerd, "links")?;
    let private = around.join("private").display().to_string();
    let before = snapshot(&around)?;
    for (number, guest_file) in PROBES.into_iter().enumerate() {
        let image = Rootfs::new()
            .file("/app.wasm", guest(guest_file)?)
            .symlink("/absolute", "/etc/passwd")
            .symlink("/upwards", "../../../../../../../../etc/passwd")
            .symlink("/secret", &format!("{private}/secret"))
            .symlink("/private", &private)
            .symlink("/root", "/")
            .symlink("/up", "../..")
            .symlink("/magic", "/proc/self/root")
            .build()?;
        let reference = format!("example.test/links-{number}:v1");
        containerd.import(&reference, &image).await?;
        let task = || containerd.task(&reference);
        for words in [
            &["cat", "/absolute"][..],
            &["cat", "/upwards"],
            &["cat", "/secret"],
            &["cat", "/private/secret"],
            &["cat", "/root/etc/passwd"],
            &["cat", "/up/etc/passwd"],
            &["cat", "/magic/etc/passwd"],
            &["ls", "/private"],
            &["write", "/secret", "overwritten"],
            &["write", "/private/new", "made"],
            &["mkdir", "/private/new"],
            &["rename", "/app.wasm", "/private/app.wasm"],
        ] {
            let all = std::iter::once("/app.wasm").chain(words.iter().copied());
            let output = task().args(all).run().await?;
            no_secret(guest_file, words, &output);
        }

        // A volume is mounted inside the image, whatever the image has at its place.
        for place in ["/private/below", "/private"] {
            let builder = task()
                .args(["/app.wasm", "ls", place])
                .mount(&volume, place, ["rw"]);
            if let Ok(output) = builder.run().await {
                assert!(
                    !output.stdout().contains("secret\n"),
                    "{guest_file} {place}: {}",
                    output.stdout()
                );
            }
        }
    }
    assert_eq!(snapshot(&around)?, before);
    containerd.assert_clean().await
}

/// The calls of WASI that change something: words for `probe`, with a directory for `D` and one for `O` that is open.
const CHANGES: &[&[&str]] = &[
    &["write", "D/file", "changed"],
    &["write", "D/new", "made"],
    &["append", "D/file", "changed"],
    &["append", "D/new", "made"],
    &["truncate", "D/file", "0"],
    &["truncate", "D/file", "99"],
    &["opentrunc", "D/file"],
    &["opencreate", "D/new"],
    &["mkdir", "D/new"],
    &["rm", "D/file"],
    &["rm", "D/empty"],
    &["rename", "D/file", "D/new"],
    &["rename", "D/file", "D/other"],
    &["rename", "D/empty", "D/new"],
    &["link", "D/file", "D/new"],
    &["symlink", "file", "D/new"],
    &["settimes", "D/file"],
    &["settimes", "D/empty"],
];
/// Those that lead from one mount to another, which even an open one refuses; and those that WASI refuses anywhere.
const NEVER: &[&[&str]] = &[
    &["rename", "O/file", "D/file"],
    &["rename", "O/file", "D/new"],
    &["rename", "D/file", "O/new"],
    &["link", "O/file", "D/new"],
    &["link", "D/file", "O/new"],
];
/// Those that may work or not where everything is allowed, but never on what is read-only.
const ODD: &[&[&str]] = &[&["opentrunc-ro", "D/file"], &["settimes-fd", "D/file"]];

fn place(words: &[&str], dir: &str, open: &str) -> Vec<String> {
    let place = |word: &&str| match word.split_once('/') {
        Some(("D", name)) => format!("{dir}/{name}"),
        Some(("O", name)) => format!("{open}/{name}"),
        _ => (*word).to_owned(),
    };
    words.iter().map(place).collect()
}

fn files(containerd: &Containerd, name: &str) -> Result<PathBuf> {
    let dir = containerd.scratch().dir().join(name);
    fs::create_dir_all(dir.join("empty"))?;
    for file in ["file", "other"] {
        fs::write(dir.join(file), format!("{file} in {name}\n"))?;
        // A time at which a change shows, whatever the clock's grain is.
        let then = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        fs::File::open(dir.join(file))?.set_modified(then)?;
    }
    Ok(dir)
}

async fn read_only(guest: &str) -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, guest).await?;
    // Each of these works where it is allowed; else the rest would prove nothing.
    let controls = CHANGES.iter().enumerate().map(|(number, words)| {
        let (containerd, image) = (&containerd, &image);
        async move {
            let dir = files(containerd, &format!("control-{number}"))?;
            let words = place(words, "/data", "/data");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let before = snapshot(&dir)?;
            let task = containerd.task(image).mount(&dir, "/data", ["rw"]);
            let output = probe(task, &words).await?;
            assert_eq!(output.status, 0, "{guest} {words:?}: {}", output.stdout());
            anyhow::Ok((words.join(" "), before != snapshot(&dir)?))
        }
    });
    let controls: Vec<_> = controls.collect();
    let mut controls = controls.into_iter();
    loop {
        let some: Vec<_> = controls.by_ref().take(4).collect();
        if some.is_empty() {
            break;
        }
        for (words, changed) in try_join_all(some).await? {
            assert!(changed, "{guest} {words} says that it worked");
        }
    }

    // A read-only volume; one in an open one; a read-only file in the open root; and a read-only root.
    let (shut, open, deep) = (
        files(&containerd, "shut")?,
        files(&containerd, "open")?,
        files(&containerd, "deep")?,
    );
    fs::create_dir(open.join("deep"))?;
    let all = || -> Result<_> { Ok((snapshot(&shut)?, snapshot(&open)?, snapshot(&deep)?)) };
    let before = all()?;
    let task = || {
        containerd
            .task(&image)
            .mount(&open, "/open", ["rw"])
            .mount(&shut, "/shut", ["ro"])
            .mount(&deep, "/open/deep", ["ro"])
            .mount(shut.join("file"), "/conf/file", ["ro"])
    };
    let mut tries = Vec::new();
    for words in CHANGES.iter().chain(NEVER).chain(ODD) {
        tries.push(place(words, "/shut", "/open"));
        tries.push(place(words, "/open/deep", "/open"));
    }
    for words in [
        &["write", "D/file", "changed"][..],
        &["append", "D/file", "changed"],
        &["truncate", "D/file", "0"],
        &["opentrunc", "D/file"],
        &["opentrunc-ro", "D/file"],
        &["rm", "D/file"],
        &["rename", "O/file", "D/file"],
        &["link", "D/file", "O/new"],
        &["settimes", "D/file"],
        &["settimes-fd", "D/file"],
    ] {
        tries.push(place(words, "/conf", "/open"));
    }
    for some in tries.chunks(4) {
        let outputs = try_join_all(some.iter().map(|words| {
            let task = task();
            async move {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                probe(task, &words).await
            }
        }))
        .await?;
        for (words, output) in some.iter().zip(&outputs) {
            let text = output.stdout();
            assert_eq!(output.status, 1, "{guest} {words:?}: {text}");
            assert!(text.starts_with("error: "), "{guest} {words:?}: {text}");
        }
        assert_eq!(all()?, before, "{guest}: one of {some:?}");
    }

    // The rootfs itself.
    let image = Rootfs::new()
        .file("/app.wasm", harness::guest(guest)?)
        .file("/file", "in the image")
        .file("/other", "in the image")
        .directory("/empty", 0o777)
        .build()?;
    let reference = "example.test/readonly:v1";
    containerd.import(reference, &image).await?;
    for words in CHANGES.iter().chain(ODD) {
        let words = place(words, "", "");
        let words = std::iter::once("/app.wasm").chain(words.iter().map(String::as_str));
        let task = containerd.task(reference).args(words);
        let output = task
            .spec(|spec| spec["root"]["readonly"] = json!(true))
            .run()
            .await?;
        let text = output.stdout();
        assert_eq!(output.status, 1, "{guest}: {text}");
        assert!(text.starts_with("error: "), "{guest}: {text}");
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_wasi_0_1_changes_what_is_read_only() -> Result<()> {
    read_only("probe.wasm").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_wasi_0_2_changes_what_is_read_only() -> Result<()> {
    read_only("probe-p2.wasm").await
}

/// Two pods, and two containers of one pod, each with a volume of its own below one directory, as the kubelet lays them
/// out.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_others_are_out_of_reach() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let pods = containerd.scratch().dir().join("pods");
    for owner in ["victim", "thief"] {
        let volume = pods.join(owner).join("data");
        fs::create_dir_all(&volume)?;
        fs::write(volume.join("file"), format!("of {owner}"))?;
    }
    fs::write(pods.join("victim/data/file"), SECRET)?;
    symlink("../../victim/data", pods.join("thief/data/link"))?;
    symlink(pods.join("victim/data"), pods.join("thief/data/direct"))?;
    let host = pods.join("victim/data/file").display().to_string();
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let pod = format!("pod{}", harness::unique());
        let in_pod = |pod: &str| {
            containerd
                .task(&image)
                .annotation("io.kubernetes.cri.sandbox-id", pod)
        };
        let mut victim = in_pod(&pod)
            .id(&pod)
            .mount(pods.join("victim/data"), "/data", ["rw"])
            .args(["/", "spin"])
            .create()
            .await?;
        victim.start().await?;
        victim.stdout_contains("spinning").await?;
        let seen = format!("/proc/{}/root/data/file", victim.pid());
        let other = format!("pod{}", harness::unique());
        // In the same pod and in another one.
        for (thief, id) in [(&pod, None), (&other, Some(&other))] {
            for path in [
                host.as_str(),
                &seen,
                "/proc/1/root/data/file",
                "/data/../../victim/data/file",
                "/data/link/file",
                "/data/direct/file",
                "/victim/data/file",
            ] {
                for words in [&["cat", path][..], &["write", path, "overwritten"]] {
                    let mut task = in_pod(thief).mount(pods.join("thief/data"), "/data", ["rw"]);
                    if let Some(id) = id {
                        task = task.id(id);
                    }
                    no_secret(guest, words, &probe(task, words).await?);
                }
            }
            // Its own it has.
            let task = in_pod(thief).mount(pods.join("thief/data"), "/data", ["rw"]);
            assert_eq!(
                probe(task, &["cat", "/data/file"]).await?.stdout(),
                "of thief"
            );
        }
        victim.kill(9).await?;
        victim.wait().await?;
        victim.delete().await?;
        assert_eq!(fs::read_to_string(&host)?, SECRET);
    }
    containerd.assert_clean().await
}

/// A spec that gives everything away.
fn generous(spec: &mut Value) {
    let all = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE"
    ]);
    let process = &mut spec["process"];
    process["capabilities"] = json!({
        "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all,
    });
    process["noNewPrivileges"] = json!(false);
    spec["linux"]["maskedPaths"] = json!([]);
    spec["linux"]["readonlyPaths"] = json!([]);
}

fn status(text: &str, field: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// No capability, no new privileges, filtered: every thread of it. Two filters where the spec has a profile.
fn assert_powerless(pid: u32, filters: &str) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(&text, set), "0000000000000000", "{set} of {text}");
        }
        assert_eq!(status(&text, "NoNewPrivs"), "1", "{text}");
        assert_eq!(status(&text, "Seccomp"), "2", "{text}");
        assert_eq!(status(&text, "Seccomp_filters"), filters, "{text}");
    }
    Ok(())
}

fn assert_apart(pid: u32, namespaces: &[&str]) -> Result<()> {
    for namespace in namespaces {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&pid.to_string())?, of("self")?, "{namespace}");
    }
    Ok(())
}

/// Its root and what is mounted there: what the pod declared, and nothing by which the host could be reached.
fn assert_bare(pid: u32, expected: &[&str]) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(format!("/proc/{pid}/root"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    assert_eq!(names, expected);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    for kind in [" - proc ", " - sysfs ", " - cgroup", " - devtmpfs "] {
        assert!(!mounts.contains(kind), "{kind} in {mounts}");
    }
    assert!(!mounts.contains("shared:"), "{mounts}");
    for line in mounts.lines() {
        let options = line.split(' ').nth(5).unwrap_or_default();
        assert!(
            options.contains("nosuid") && options.contains("nodev"),
            "{line}"
        );
    }
    Ok(())
}

/// Its descriptors: standard streams, the directories that it may see, and what has no name; nothing of the host.
fn assert_no_strange_descriptor(
    pid: u32,
    streams: &Path,
    artifacts: &Path,
    preopens: &[&str],
) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Ok(leads_to) = fs::read_link(entry.path()) else {
            continue;
        };
        let number = entry.file_name().to_string_lossy().into_owned();
        let name = leads_to.to_string_lossy().into_owned();
        let standard = number.parse::<u32>().is_ok_and(|number| number <= 2);
        let known = if standard {
            leads_to.starts_with(streams) || name == "/dev/null"
        } else if leads_to.starts_with(artifacts) {
            // Its own program, which it may read: mapped, and so open for as long as it runs. The store's files have no
            // name in the guest's namespace, and this one perhaps not even in the store (made without one, then linked).
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
            let flags = status(&info, "flags");
            i32::from_str_radix(&flags, 8)? & nix::fcntl::OFlag::O_ACCMODE.bits() == 0
        } else {
            // What the engine's runtime waits with, the sockets that an HTTP guest listens on and wakes itself by, and
            // the map of its own memory, by which a server's engine finds what to clean.
            preopens.contains(&name.as_str())
                || name == format!("/{pid}/pagemap")
                || name == format!("/proc/{pid}/pagemap")
                || name.starts_with("anon_inode:")
                || name.starts_with("socket:")
        };
        assert!(known, "descriptor {number} is {name}");
        assert!(!name.contains("containerd.sock"), "{name}");
    }
    Ok(())
}

fn assert_jailed(containerd: &Containerd, task: &Task<'_>, filters: &str) -> Result<()> {
    let pid = task.pid();
    assert_powerless(pid, filters)?;
    assert_apart(pid, &["ipc", "mnt", "net", "pid", "uts"])?;
    assert_bare(pid, &["data"])?;
    let streams = containerd.scratch().dir().join("io").join(task.id());
    let artifacts = containerd.sampan_store().join("artifacts");
    assert_no_strange_descriptor(pid, &streams, &artifacts, &["/", "/data"])?;
    // Not even containerd's environment, which names sockets and proxies.
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/environ"))?, "");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let data = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/data"))
        .context("the volume is mounted")?;
    assert!(
        data.split(' ')
            .nth(5)
            .is_some_and(|options| options.starts_with("ro,")),
        "{data}"
    );
    Ok(())
}

async fn as_the_kernel_sees_it(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let data = files(&containerd, "data")?;
    let servers = [("http-p2.wasm", &["/"][..]), ("http-p3.wasm", &["/"])];
    let commands = PROBES.map(|guest| (guest, &["/", "spin"][..]));
    for (guest, args) in commands.into_iter().chain(servers) {
        let image = layer(&containerd, guest).await?;
        for (uid, profile) in [(0, false), (1234, true)] {
            let builder = containerd
                .task(&image)
                .args(args.iter().copied())
                .user(uid, uid)
                .mount(&data, "/data", ["ro"])
                .spec(move |spec| {
                    generous(spec);
                    if profile {
                        spec["linux"]["seccomp"] =
                            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [] });
                    }
                });
            let mut task = builder.create().await?;
            let filters = if profile { "2" } else { "1" };
            // Before it is let go there is nothing that it could still drop.
            assert_powerless(task.pid(), filters)?;
            assert_bare(task.pid(), &["data"])?;
            task.start().await?;
            if args.len() > 1 {
                task.stdout_contains("spinning").await?;
            } else {
                let sockets = format!("/proc/{}/net/tcp", task.pid());
                until("the server's socket", Duration::from_secs(10), async || {
                    Ok(fs::read_to_string(&sockets)?
                        .contains(":1F90 ")
                        .then_some(()))
                })
                .await?;
            }
            assert_jailed(&containerd, &task, filters).with_context(|| guest.to_owned())?;
            let text = fs::read_to_string(format!("/proc/{}/status", task.pid()))?;
            let ids = status(&text, "Uid");
            assert!(
                ids.split_whitespace().all(|id| id == uid.to_string()),
                "{ids}"
            );
            task.kill(9).await?;
            assert_eq!(task.wait().await?, 137);
            task.delete().await?;
        }
    }

    // The process that holds a pod's namespaces.
    let image = layer(&containerd, "probe.wasm").await?;
    let pod = format!("pod{}", harness::unique());
    let mut holder = of_pod(containerd.task(&image), &pod)
        .spec(generous)
        .create()
        .await?;
    holder.start().await?;
    assert_powerless(holder.pid(), "1")?;
    assert_apart(holder.pid(), &["ipc", "net", "uts"])?;
    let nowhere = Path::new("/nowhere");
    assert_no_strange_descriptor(holder.pid(), nowhere, nowhere, &[])?;
    holder.kill(15).await?;
    holder.wait().await?;
    holder.delete().await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_process_has_nothing_on_2() -> Result<()> {
    as_the_kernel_sees_it(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_process_has_nothing_on_1_7() -> Result<()> {
    as_the_kernel_sees_it(Version::V1_7).await
}
