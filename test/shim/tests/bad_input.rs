//! What is wrong with an image, a program, a spec or the node is told by one line that names it, with the code of the
//! contract, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::image::{self, Blob, Content, Image, Index, Rootfs};
use harness::{Containerd, Version, guest, unique};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use shim_tests::{containerd, expect, layer, refusal, rootfs};
use tonic::{Code, Status};

/// Imports anything under a name of its own.
async fn imported(containerd: &Containerd, content: &impl Content) -> Result<String> {
    let reference = format!("example.test/bad-{}:v1", unique());
    containerd.import(&reference, content).await?;
    Ok(reference)
}

/// The answer to Create, which has to refuse.
async fn refused(containerd: &Containerd, image: &str, args: &[&str]) -> Result<Status> {
    let created = containerd
        .task(image)
        .args(args.iter().copied())
        .create()
        .await;
    refusal(created.map(drop)).with_context(|| format!("{image} {args:?}"))
}

/// Files below a directory, with their modes.
fn files(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(files(&entry.path())),
            Ok(meta) => found.push((entry.path(), meta.permissions().mode() & 0o7777)),
            Err(_) => {}
        }
    }
    found
}

/// Nothing half-made is in the store.
fn assert_no_temporary(store: &Path) {
    for (path, mode) in files(store) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let whole = name.ends_with(".cwasm") && mode == 0o444;
        let other = name == "claims.lock" || name.starts_with("fingerprint-");
        assert!(whole || other, "{} {mode:o} is left", path.display());
    }
}

async fn programs(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let hello = guest("hello.wasm")?;
    let not_wasm = b"#include <stdio.h>\nint main(void) {}\n".to_vec();
    let elf = [b"\x7fELF\x02\x01\x01\x00".as_slice(), &[0; 64]].concat();
    for (bytes, says) in [
        (not_wasm, "not WebAssembly"),
        (Vec::new(), "not WebAssembly"),
        (elf, "native executable"),
        (hello[..hello.len() / 2].to_vec(), "truncated"),
        (hello[..9].to_vec(), "truncated"),
        (b"\0asm\x01\0\0\0\x0a\x01\x05".to_vec(), "valid"),
        (b"(module (func $f".to_vec(), "text"),
    ] {
        let image = image::bytecode_alliance(bytes);
        let layer = image.layers[0].digest();
        let reference = imported(&containerd, &image).await?;
        let status = refused(&containerd, &reference, &["/"]).await?;
        expect(&status, Code::InvalidArgument, &[&layer, says]);
    }

    // The same as a file.
    let image = Rootfs::new()
        .file("/text.wasm", "this is no program\n")
        .file("/half.wasm", &hello[..hello.len() / 2])
        .build()?;
    let reference = imported(&containerd, &image).await?;
    for (path, says) in [
        ("/text.wasm", "not WebAssembly"),
        ("/half.wasm", "truncated"),
    ] {
        let status = refused(&containerd, &reference, &[path]).await?;
        expect(&status, Code::InvalidArgument, &[path, says]);
    }

    // What the program wants and nobody has: the import, and where it would come from.
    for (name, names) in [
        (
            "unknown-import.wasm",
            &["`env` `nope`", "no part of any WASI version"][..],
        ),
        (
            "unknown-p1-import.wasm",
            &[
                "`wasi_snapshot_preview1` `sock_open`",
                "preview 1 has no such function",
            ],
        ),
        (
            "wasi-unstable.wasm",
            &["wasi_unstable", "preview 0", "wasm32-wasip1"],
        ),
        (
            "future-interface.wasm",
            &["wasi:http/types@0.9.0", "WASI 0.9.0 has it", "0.2.12"],
        ),
        (
            "unknown-interface.wasm",
            &["acme:store/query@1.2.3", "no WASI version has it"],
        ),
        ("wrong-import-type.wasm", &["fd_write"]),
        ("no-start.wasm", &["_start", "no entry point"]),
        ("no-run.wasm", &["no entry point"]),
        ("legacy-exceptions.wasm", &["exceptions"]),
    ] {
        let reference = layer(&containerd, name).await?;
        let status = refused(&containerd, &reference, &["/"]).await?;
        expect(&status, Code::InvalidArgument, names);
    }

    // Exports that do not exist, or cannot be called.
    let exports = layer(&containerd, "exports.wasm").await?;
    let status = refused(&containerd, &exports, &["#nope"]).await?;
    expect(&status, Code::NotFound, &["`nope`", "`say`"]);
    let status = refused(&containerd, &exports, &["/#not_a_function"]).await?;
    expect(&status, Code::NotFound, &["`not_a_function`"]);
    let status = refused(&containerd, &exports, &["/#add"]).await?;
    expect(&status, Code::FailedPrecondition, &["`add`", "parameters"]);
    let component = layer(&containerd, "run-me.wasm").await?;
    let status = refused(&containerd, &component, &["#nope"]).await?;
    expect(&status, Code::NotFound, &["`nope`", "`run-me`"]);

    assert_no_temporary(&containerd.sampan_store());
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_programs_are_named_on_2() -> Result<()> {
    programs(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_programs_are_named_on_1_7() -> Result<()> {
    programs(Version::V1_7).await
}

/// A CNCF artifact with another config than the one that it should have.
fn cncf_with(edit: impl FnOnce(&mut Value)) -> Result<Image> {
    let image = image::cncf(guest("hello.wasm")?, "wasip1");
    let mut config: Value = serde_json::from_slice(&image.config.bytes)?;
    edit(&mut config);
    Ok(Image::assemble(
        Blob::json(image::WASM_CONFIG, &config),
        image.layers,
    ))
}

async fn images(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    // Two programs in one image.
    let one = image::bytecode_alliance(guest("hello.wasm")?);
    let other = Blob::new(image::BYTECODE_ALLIANCE_LAYER, guest("hello-p2.wasm")?);
    let (first, second) = (one.layers[0].digest(), other.digest());
    let two = Image::assemble(one.config, vec![one.layers[0].clone(), other]);
    let reference = imported(&containerd, &two).await?;
    let status = refused(&containerd, &reference, &["/"]).await?;
    expect(
        &status,
        Code::InvalidArgument,
        &[&reference, "two wasm layers", &first, &second],
    );

    // For another architecture.
    let foreign = cncf_with(|config| config["architecture"] = json!("riscv64"))?;
    let reference = imported(&containerd, &foreign).await?;
    let status = refused(&containerd, &reference, &["/"]).await?;
    expect(
        &status,
        Code::InvalidArgument,
        &[&reference, "riscv64", "architecture wasm"],
    );

    // With somebody else's config.
    let stolen = cncf_with(|config| {
        config["layerDigests"] = json!([format!("sha256:{}", "5".repeat(64))]);
    })?;
    let reference = imported(&containerd, &stolen).await?;
    let status = refused(&containerd, &reference, &["/"]).await?;
    let layer = stolen.layers[0].digest();
    expect(
        &status,
        Code::InvalidArgument,
        &[&reference, &layer, &"5".repeat(64)],
    );

    // An index in which nothing fits this machine.
    let image = image::bytecode_alliance(guest("hello.wasm")?);
    let architecture = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let index = Index::new(vec![image.platform(&format!("plan9/{architecture}"))]);
    let reference = imported(&containerd, &index).await?;
    let status = refused(&containerd, &reference, &["/"]).await?;
    expect(
        &status,
        Code::InvalidArgument,
        &[&reference, "wasi/wasm", &format!("plan9/{architecture}")],
    );

    // A layer of a kind that nobody knows.
    let image = image::bytecode_alliance(guest("hello.wasm")?);
    let odd = Image::assemble(
        image.config,
        vec![Blob::new("application/x-odd", guest("hello.wasm")?)],
    );
    let reference = imported(&containerd, &odd).await?;
    let status = refused(&containerd, &reference, &["/"]).await?;
    expect(
        &status,
        Code::InvalidArgument,
        &[&reference, "application/x-odd", "application/wasm"],
    );

    assert_no_temporary(&containerd.sampan_store());
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_images_are_named_on_2() -> Result<()> {
    images(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_images_are_named_on_1_7() -> Result<()> {
    images(Version::V1_7).await
}

async fn entries(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    // A sound program on the host, which an image tries to reach.
    let outside = containerd.scratch().dir().join("outside.wasm");
    fs::write(&outside, guest("hello.wasm")?)?;
    let outside = outside.to_str().context("the scratch directory is UTF-8")?;
    let upwards = format!("{}{outside}", "/..".repeat(12));
    let relative = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let image = Rootfs::new()
        .file("/app.wasm", guest("hello.wasm")?)
        .directory("/dir", 0o755)
        .symlink("/absolute.wasm", outside)
        .symlink("/dir/relative.wasm", &relative)
        .symlink("/dir/out", "../../../../../..")
        .symlink("/loop.wasm", "loop.wasm")
        .symlink("/inside.wasm", "dir/../app.wasm")
        .build()?;
    let reference = imported(&containerd, &image).await?;
    let through = format!("/dir/out{outside}");
    for (path, code, names) in [
        (
            "/missing.wasm",
            Code::NotFound,
            &["/missing.wasm", "does not exist"][..],
        ),
        ("missing.wasm", Code::NotFound, &["`missing.wasm`", "PATH"]),
        ("/dir", Code::InvalidArgument, &["`/dir`", "directory"]),
        (
            "/loop.wasm",
            Code::InvalidArgument,
            &["/loop.wasm", "links"],
        ),
        // Links and paths that point out of the rootfs are looked up inside of it, where there is nothing.
        (
            "/absolute.wasm",
            Code::NotFound,
            &["/absolute.wasm", "symbolic link", outside],
        ),
        (
            "/dir/relative.wasm",
            Code::NotFound,
            &["/dir/relative.wasm", "symbolic link"],
        ),
        (
            &upwards,
            Code::NotFound,
            &["outside.wasm", "does not exist"],
        ),
        (
            &through,
            Code::NotFound,
            &["outside.wasm", "does not exist"],
        ),
    ] {
        let status = refused(&containerd, &reference, &[path]).await?;
        expect(&status, code, names);
    }
    // A link that stays inside is fine, so links are followed at all.
    let output = containerd
        .task(&reference)
        .args(["/inside.wasm"])
        .run()
        .await?;
    assert_eq!(
        (output.status, output.stdout().lines().next()),
        (0, Some("hello from hello"))
    );
    assert_no_temporary(&containerd.sampan_store());
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_point_stays_in_the_image_on_2() -> Result<()> {
    entries(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_point_stays_in_the_image_on_1_7() -> Result<()> {
    entries(Version::V1_7).await
}

type Edit = fn(&mut Value);

async fn specs(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello.wasm").await?;

    let missing = containerd.scratch().dir().join("missing/volume");
    let created = containerd
        .task(&image)
        .args(["/"])
        .mount(&missing, "/data", ["ro"])
        .create()
        .await;
    let missing = missing.display().to_string();
    expect(
        &refusal(created.map(drop))?,
        Code::NotFound,
        &["/data", &missing],
    );

    for name in ["sampan.dev/http-lisen", "sampan.dev/"] {
        let created = containerd
            .task(&image)
            .args(["/"])
            .annotation(name, "8080")
            .create()
            .await;
        expect(
            &refusal(created.map(drop))?,
            Code::InvalidArgument,
            &[name, "does not exist"],
        );
    }

    let edits: [(Edit, Code, &[&str]); 9] = [
        (
            |spec| spec["process"]["args"] = json!("hello"),
            Code::InvalidArgument,
            &["config.json", "args"],
        ),
        (
            |spec| spec["process"]["user"]["uid"] = json!("root"),
            Code::InvalidArgument,
            &["config.json", "uid"],
        ),
        (
            |spec| spec["mounts"] = json!({}),
            Code::InvalidArgument,
            &["config.json", "mounts"],
        ),
        (
            |spec| spec["process"] = json!(null),
            Code::InvalidArgument,
            &["process", "missing"],
        ),
        (
            |spec| spec["process"]["args"] = json!([]),
            Code::InvalidArgument,
            &["process.args", "command"],
        ),
        (
            |spec| spec["process"]["cwd"] = json!("home/../etc"),
            Code::InvalidArgument,
            &["process.cwd", "home/../etc"],
        ),
        (
            |spec| spec["process"]["env"] = json!(["=x"]),
            Code::InvalidArgument,
            &["process.env[0]"],
        ),
        (
            |spec| {
                spec["mounts"] =
                    json!([{ "destination": "/net", "type": "nfs", "source": "host:/dir" }])
            },
            Code::InvalidArgument,
            &["mounts[0].type", "nfs", "/net"],
        ),
        (
            |spec| spec["linux"]["cgroupsPath"] = json!("/../../escape"),
            Code::InvalidArgument,
            &["linux.cgroupsPath", "/../../escape"],
        ),
    ];
    for (edit, code, names) in edits {
        // containerd 2.x reads the spec itself, and is the first to meet a field of the wrong type.
        let (code, names) = match (version, names) {
            (Version::V2, ["config.json", field]) => (Code::Unknown, std::slice::from_ref(field)),
            _ => (code, names),
        };
        let created = containerd
            .task(&image)
            .args(["/"])
            .spec(edit)
            .create()
            .await;
        expect(&refusal(created.map(drop))?, code, names);
    }
    // What is wrong with the part that `start` reads comes from there, still as one line. For a node's supervisor it reads
    // none.
    let (code, names) = match (harness::dense(), version) {
        (false, _) => (Code::Unknown, ["config.json", "expected a map"]),
        (true, Version::V1_7) => (Code::InvalidArgument, ["config.json", "annotations"]),
        (true, Version::V2) => (Code::Unknown, ["annotations", "map"]),
    };
    let created = containerd
        .task(&image)
        .args(["/"])
        .spec(|spec| spec["annotations"] = json!(7))
        .create()
        .await;
    let status = refusal(created.map(drop))?;
    expect(&status, code, &names);

    // All that is wrong at once.
    let created = containerd
        .task(&image)
        .args(["/"])
        .annotation("sampan.dev/nope", "")
        .spec(|spec| spec["process"]["cwd"] = json!("relative"))
        .create()
        .await;
    expect(
        &refusal(created.map(drop))?,
        Code::InvalidArgument,
        &["sampan.dev/nope", "relative"],
    );

    // A stream that cannot be one.
    let created = containerd
        .task(&image)
        .args(["/"])
        .stdout(harness::Stdio::Uri("ftp://host/file".to_owned()))
        .create()
        .await;
    expect(
        &refusal(created.map(drop))?,
        Code::InvalidArgument,
        &["ftp://host/file"],
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_spec_is_named_on_2() -> Result<()> {
    specs(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_spec_is_named_on_1_7() -> Result<()> {
    specs(Version::V1_7).await
}

/// A containerd whose shim keeps its store at a place of the test's choice.
async fn with_store(
    version: Version,
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<Option<(Containerd, PathBuf)>> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(None);
    };
    // The private configuration names this place; nothing has been there so far.
    let store = containerd.sampan_store();
    prepare(&store)?;
    Ok(Some((containerd, store)))
}

/// A mount in the test's own scratch directory; gone when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(target: &Path, options: &str, flags: MsFlags) -> Result<Self> {
        fs::create_dir_all(target)?;
        mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
            .with_context(|| format!("mount a tmpfs at {}", target.display()))?;
        Ok(Self(target.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever fails here is found by `assert_clean` and by the harness.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// What containerd makes of "out of memory, disk or time": 1.7 does not know the code.
fn exhausted(version: Version) -> Code {
    match version {
        Version::V2 => Code::ResourceExhausted,
        Version::V1_7 => Code::Unknown,
    }
}

async fn full_disk(version: Version) -> Result<()> {
    let mut full = None;
    let made = with_store(version, |store| {
        full = Some(Mounted::tmpfs(
            store,
            "size=128k,mode=0700",
            MsFlags::empty(),
        )?);
        Ok(())
    });
    let Some((containerd, store)) = made.await? else {
        return Ok(());
    };
    let place = store.display().to_string();
    for image in [
        layer(&containerd, "probe.wasm").await?,
        rootfs(&containerd, "probe.wasm").await?,
    ] {
        let status = refused(
            &containerd,
            &image,
            if image.contains("rootfs") {
                &["/app.wasm"]
            } else {
                &["/"]
            },
        )
        .await?;
        expect(&status, exhausted(version), &[&place, "No space left"]);
        assert!(
            files(&store).iter().all(|(path, _)| path
                .extension()
                .is_none_or(|it| it == "lock" || it != "cwasm")),
            "{:?}",
            files(&store)
        );
        assert_no_temporary(&store);
    }
    // With room it works: nothing of the failures stands in the way.
    mount(
        None::<&str>,
        &store,
        None::<&str>,
        MsFlags::MS_REMOUNT,
        Some("size=64m,mode=0700"),
    )?;
    let image = layer(&containerd, "probe.wasm").await?;
    let output = containerd.task(&image).args(["/"]).run().await?;
    assert_eq!(output.stdout(), "hello from probe\n");
    drop(full);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_on_2() -> Result<()> {
    full_disk(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_on_1_7() -> Result<()> {
    full_disk(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_store_is_told() -> Result<()> {
    let mut shut = None;
    let made = with_store(Version::V2, |store| {
        shut = Some(Mounted::tmpfs(
            store,
            "size=1m,mode=0700",
            MsFlags::MS_RDONLY,
        )?);
        Ok(())
    });
    let Some((containerd, store)) = made.await? else {
        return Ok(());
    };
    let place = store.display().to_string();
    let image = layer(&containerd, "hello.wasm").await?;
    let status = refused(&containerd, &image, &["/"]).await?;
    expect(
        &status,
        Code::FailedPrecondition,
        &[&place, "Read-only", "path of [store]"],
    );
    drop(shut);

    // A file in its place.
    fs::remove_dir(&store)?;
    fs::write(&store, "")?;
    let status = refused(&containerd, &image, &["/"]).await?;
    expect(&status, status.code(), &[&place]);
    fs::remove_file(&store)?;

    // A directory that anybody may write to.
    fs::create_dir(&store)?;
    fs::set_permissions(&store, PermissionsExt::from_mode(0o777))?;
    let status = refused(&containerd, &image, &["/"]).await?;
    expect(
        &status,
        Code::FailedPrecondition,
        &[&place, "others may write"],
    );

    // Or that belongs to somebody else.
    fs::set_permissions(&store, PermissionsExt::from_mode(0o700))?;
    std::os::unix::fs::chown(&store, Some(1000), Some(1000))?;
    let status = refused(&containerd, &image, &["/"]).await?;
    expect(&status, Code::FailedPrecondition, &[&place, "user 1000"]);
    assert_eq!(files(&store), [], "nothing was written there");

    std::os::unix::fs::chown(&store, Some(0), Some(0))?;
    assert_eq!(containerd.task(&image).args(["/"]).run().await?.status, 0);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_of_the_node_is_told() -> Result<()> {
    if !harness::able()? {
        return Ok(());
    }
    for (table, names) in [
        (
            json!({ "compile": { "max-secs": 5 } }),
            &["sampan.toml", "max-secs"][..],
        ),
        (
            json!({ "store": { "max-bytes": "many" } }),
            &["sampan.toml", "max-bytes"],
        ),
        (
            json!({ "runner": "/nonexistent/sampan-runner" }),
            &["/nonexistent/sampan-runner"],
        ),
        (
            json!({ "runner": "sampan-runner" }),
            &["sampan-runner", "absolute"],
        ),
    ] {
        let containerd = Containerd::builder()
            .without_cri()
            .sampan(table)
            .start()
            .await?;
        let image = layer(&containerd, "hello.wasm").await?;
        let status = refused(&containerd, &image, &["/"]).await?;
        expect(&status, status.code(), names);
        containerd.assert_clean().await?;
    }
    Ok(())
}
