//! The store of compiled programs as the node sees it: made once, bounded, root's alone, and never pulled away from under
//! what runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use containerd_client::types::v1::Status as Phase;
use futures::future::try_join_all;
use harness::process::{ended, parent_of, signal};
use harness::{Containerd, Version, guest, image};
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};
use serde_json::{Value, json};
use shim_tests::{containerd, expect, layer, refusal, rootfs};
use tonic::Code;

/// A containerd whose shim has this configuration.
async fn configured(table: Value) -> Result<Option<Containerd>> {
    if !harness::able()? {
        return Ok(None);
    }
    Containerd::builder()
        .without_cri()
        .sampan(table)
        .start()
        .await
        .map(Some)
}

/// All artifacts, sorted.
fn artifacts(containerd: &Containerd) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "cwasm")
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&containerd.sampan_store(), &mut found);
    found.sort();
    found
}

/// So many programs the shims have compiled, by their own logs.
async fn compiled(containerd: &Containerd, times: usize) -> Result<()> {
    harness::logged(|| containerd.log(), "compiling ", times).await
}

/// The artifact of a program that has just run alone.
async fn only_artifact(containerd: &Containerd, image: &str) -> Result<PathBuf> {
    assert_eq!(containerd.task(image).args(["/"]).run().await?.status, 0);
    let all = artifacts(containerd);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().context("there is one")
}

/// Who runs a debug build is told by the node's log what it costs.
#[tokio::test]
async fn debug_sections_are_told() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let run = async |reference: &str, more: &[u8]| -> Result<()> {
        let program = [&guest("hello.wasm")?, more].concat();
        let image = image::bytecode_alliance(program);
        containerd.import(reference, &image).await?;
        assert_eq!(
            containerd.task(reference).args(["/"]).run().await?.status,
            0
        );
        Ok(())
    };
    run("example.test/plain:v1", &[]).await?;
    compiled(&containerd, 1).await?;
    harness::logged(|| containerd.log(), "debug sections", 0).await?;
    // A custom section: its number, its length, its name by length, and ten bytes.
    let section = [&[0, 22, 11], b".debug_info".as_slice(), b"0123456789"].concat();
    run("example.test/debug:v1", &section).await?;
    harness::logged(|| containerd.log(), "are debug sections", 1).await?;
    harness::logged(|| containerd.log(), "10 of its ", 1).await?;
    containerd.assert_clean().await
}

/// Eight supervisors want the same new program; the one that compiles it dies, and another takes over.
async fn single_flight(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello-go.wasm").await?;
    let runs = try_join_all((0..8).map(async |_| {
        let output = containerd.task(&image).args(["/"]).run().await?;
        anyhow::Ok((output.status, output.stdout()))
    }));
    for (status, stdout) in runs.await? {
        assert_eq!(status, 0);
        assert!(stdout.starts_with("hello from hello-go\n"), "{stdout}");
    }
    compiled(&containerd, 1).await?;
    assert_eq!(artifacts(&containerd).len(), 1);
    // It is the bytes that count, not the image.
    let file = rootfs(&containerd, "hello-go.wasm").await?;
    assert_eq!(
        containerd
            .task(&file)
            .args(["/app.wasm"])
            .run()
            .await?
            .status,
        0
    );
    compiled(&containerd, 1).await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_compiled_once_on_2() -> Result<()> {
    single_flight(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_compiled_once_on_1_7() -> Result<()> {
    single_flight(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_takes_over_from_who_dies() -> Result<()> {
    if harness::dense() {
        // Who waits dies with it: there is one supervisor.
        return Ok(());
    }
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello-go.wasm").await?;
    let first = async {
        let created = containerd.task(&image).args(["/"]).create().await;
        refusal(created.map(drop)).map(drop)
    };
    let rest = async {
        let helper = containerd.compiler().await?;
        signal(helper, SIGSTOP)?;
        let leader = parent_of(helper)?;
        // Those who come now find the work taken.
        let others =
            try_join_all((0..3).map(async |_| containerd.task(&image).args(["/"]).run().await));
        let kill = async {
            harness::until(
                "three more supervisors",
                std::time::Duration::from_secs(20),
                async || Ok((containerd.supervisors().len() == 4).then_some(())),
            )
            .await?;
            assert_eq!(
                containerd.compilers(),
                [helper],
                "one compiles, the others wait"
            );
            signal(leader, SIGKILL)?;
            ended(helper).await
        };
        let (outputs, killed) = tokio::join!(others, kill);
        killed?;
        outputs
    };
    let (refused, outputs) = tokio::join!(first, rest);
    refused?;
    for output in outputs? {
        assert_eq!(output.status, 0, "{}", output.stderr());
    }
    compiled(&containerd, 2)
        .await
        .context("one that was killed, and one for all who waited")?;
    assert_eq!(artifacts(&containerd).len(), 1);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn compiling_is_bounded_in_memory() -> Result<()> {
    // Below what the helper needs to begin, and above it.
    for megabytes in [48, 160, 320] {
        let table = json!({ "compile": { "max-memory": megabytes << 20 } });
        let Some(containerd) = configured(table).await? else {
            return Ok(());
        };
        let image = layer(&containerd, "big.wasm").await?;
        let created = containerd.task(&image).args(["/"]).create().await;
        let status = refusal(created.map(drop)).with_context(|| format!("{megabytes} MiB"))?;
        let bytes = (megabytes << 20).to_string();
        expect(
            &status,
            Code::ResourceExhausted,
            &["layer sha256:", "max-memory", &bytes],
        );
        assert_eq!(artifacts(&containerd), [] as [PathBuf; 0]);
        containerd.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compiling_is_bounded_in_time() -> Result<()> {
    let Some(containerd) = configured(json!({ "compile": { "max-seconds": 1 } })).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "big.wasm").await?;
    let created = containerd.task(&image).args(["/"]).create().await;
    expect(
        &refusal(created.map(drop))?,
        Code::ResourceExhausted,
        &["layer sha256:", "max-seconds", "1 second"],
    );
    assert_eq!(artifacts(&containerd), [] as [PathBuf; 0]);
    containerd.assert_clean().await?;

    // The helper counts for itself: one whose supervisor cannot act any more ends too.
    let create = containerd.task(&image).args(["/"]).create();
    let stop = async {
        let helper = containerd.compiler().await?;
        let supervisor = parent_of(helper)?;
        signal(supervisor, SIGSTOP)?;
        let ended = ended(helper).await;
        signal(supervisor, SIGCONT)?;
        ended
    };
    let (created, stopped) = tokio::join!(create, stop);
    stopped?;
    expect(
        &refusal(created.map(drop))?,
        Code::ResourceExhausted,
        &["max-seconds"],
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_roots_alone() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello.wasm").await?;
    let artifact = only_artifact(&containerd, &image).await?;
    let meta = fs::metadata(&artifact)?;
    assert_eq!(
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777),
        (0, 0, 0o444)
    );
    let mut dir = artifact.parent().context("it is in a directory")?;
    loop {
        let meta = fs::metadata(dir)?;
        assert_eq!(
            (meta.uid(), meta.permissions().mode() & 0o7777),
            (0, 0o700),
            "{}",
            dir.display()
        );
        if dir == containerd.sampan_store() {
            break;
        }
        dir = dir.parent().context("the store is above it")?;
    }
    // Named by engine and program.
    let digest = image::bytecode_alliance(guest("hello.wasm")?).layers[0].digest();
    let name = artifact
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    assert_eq!(format!("sha256:{name}"), digest);
    let engine = artifact
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    assert!(engine.starts_with("48."), "{engine}");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_artifact_is_not_run() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let hello = layer(&containerd, "hello.wasm").await?;
    let artifact = only_artifact(&containerd, &hello).await?;
    let place = artifact.display().to_string();
    let sound = fs::read(&artifact)?;

    // Somebody else's file, or one that others could have written.
    type Tamper = fn(&Path) -> std::io::Result<()>;
    let cases: [(Tamper, &str); 4] = [
        (|path| chown(path, Some(1000), None), "user 1000"),
        (
            |path| fs::set_permissions(path, PermissionsExt::from_mode(0o666)),
            "others may write",
        ),
        (
            |path| fs::remove_file(path).and_then(|()| symlink("/dev/null", path)),
            "symbolic link",
        ),
        (
            |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)),
            "no regular file",
        ),
    ];
    for (tamper, says) in cases {
        tamper(&artifact)?;
        let created = containerd.task(&hello).args(["/"]).create().await;
        expect(
            &refusal(created.map(drop))?,
            Code::FailedPrecondition,
            &[&place, says],
        );
        containerd.assert_clean().await?;
        // As the operator would.
        if artifact.is_dir() {
            fs::remove_dir(&artifact)?;
        } else {
            fs::remove_file(&artifact)?;
        }
        fs::write(&artifact, &sound)?;
        fs::set_permissions(&artifact, PermissionsExt::from_mode(0o400))?;
    }
    // Root's own, but writable: the engine would map what may change under it.
    fs::set_permissions(&artifact, PermissionsExt::from_mode(0o600))?;
    let created = containerd.task(&hello).args(["/"]).create().await;
    expect(
        &refusal(created.map(drop))?,
        Code::FailedPrecondition,
        &["read-only"],
    );
    fs::set_permissions(&artifact, PermissionsExt::from_mode(0o400))?;
    assert_eq!(containerd.task(&hello).args(["/"]).run().await?.status, 0);
    compiled(&containerd, 1)
        .await
        .context("a sound one is used as it is")?;

    // Cut off, as a broken disk leaves it: made again.
    fs::set_permissions(&artifact, PermissionsExt::from_mode(0o600))?;
    fs::write(&artifact, &sound[..sound.len() / 2])?;
    fs::set_permissions(&artifact, PermissionsExt::from_mode(0o400))?;
    assert_eq!(containerd.task(&hello).args(["/"]).run().await?.status, 0);
    compiled(&containerd, 2).await?;
    assert_eq!(fs::read(&artifact)?, sound);

    // That of another engine: the name says so, and nobody looks there.
    let directory = artifact.parent().context("it is in a directory")?;
    fs::rename(
        directory,
        directory.with_file_name("47.0.0-0123456789abcdef"),
    )?;
    assert_eq!(containerd.task(&hello).args(["/"]).run().await?.status, 0);
    compiled(&containerd, 3).await?;
    assert_eq!(artifacts(&containerd).len(), 2);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_takes_what_is_idle_and_never_what_runs() -> Result<()> {
    // Less than any two programs need, so that every new one is one too many.
    let Some(containerd) = configured(json!({ "store": { "max-bytes": 1 } })).await? else {
        return Ok(());
    };
    let probe = layer(&containerd, "probe.wasm").await?;
    let mut task = containerd.task(&probe).args(["/", "spin"]).create().await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    let running = artifacts(&containerd);
    assert_eq!(running.len(), 1);

    // Each pushes out the one before, but not the one that runs.
    for name in ["hello.wasm", "hello-p2.wasm", "exit-7.wasm"] {
        let image = layer(&containerd, name).await?;
        let output = containerd.task(&image).args(["/"]).run().await?;
        assert_eq!(
            output.status,
            if name == "exit-7.wasm" { 7 } else { 0 },
            "{}",
            output.stderr()
        );
        let kept = artifacts(&containerd);
        assert!(kept.contains(&running[0]), "{name}: {kept:?}");
        assert!(kept.len() <= 2, "{name}: {kept:?}");
    }
    assert_eq!(task.state().await?.status(), Phase::Running);
    compiled(&containerd, 4).await?;
    // One more container of it needs no compilation.
    assert_eq!(
        containerd
            .task(&probe)
            .args(["/", "exit", "3"])
            .run()
            .await?
            .status,
        3
    );
    compiled(&containerd, 4).await?;

    // Created and not started yet counts as running.
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    let mut created = containerd
        .task(&probe)
        .args(["/", "exit", "4"])
        .create()
        .await?;
    let hello = layer(&containerd, "hello.wasm").await?;
    assert_eq!(containerd.task(&hello).args(["/"]).run().await?.status, 0);
    assert!(artifacts(&containerd).contains(&running[0]));
    created.start().await?;
    assert_eq!(created.wait().await?, 4);
    created.delete().await?;

    // Idle now, it goes with the next one.
    let exit = layer(&containerd, "exit-7.wasm").await?;
    assert_eq!(containerd.task(&exit).args(["/"]).run().await?.status, 7);
    assert!(!artifacts(&containerd).contains(&running[0]));
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_leaves_no_half_artifact() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello-go.wasm").await?;
    for _ in 0..3 {
        let create = containerd.task(&image).args(["/"]).create();
        let crash = async {
            let helper = containerd.compiler().await?;
            let supervisor = parent_of(helper)?;
            // Everything at once, as when the power fails.
            signal(supervisor, SIGSTOP)?;
            signal(helper, SIGKILL)?;
            signal(supervisor, SIGKILL)?;
            ended(helper).await?;
            ended(supervisor).await
        };
        let (created, crashed) = tokio::join!(create, crash);
        crashed?;
        let _status = refusal(created.map(drop))?;
        assert_eq!(artifacts(&containerd), [] as [PathBuf; 0]);
        let files: Vec<_> =
            fs::read_dir(containerd.sampan_store().join("artifacts"))?.collect::<Result<_, _>>()?;
        let temporary = files.iter().filter(|entry| entry.path().is_file()).count();
        assert_eq!(temporary, 0, "{files:?}");
        containerd.assert_clean().await?;
    }
    let output = containerd.task(&image).args(["/"]).run().await?;
    assert!(
        output.stdout().starts_with("hello from hello-go\n"),
        "{}",
        output.stderr()
    );
    containerd.assert_clean().await
}

/// A header that is whole with nonsense behind it: told once, then made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_made_anew() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello.wasm").await?;
    let artifact = only_artifact(&containerd, &image).await?;
    let mut bytes = fs::read(&artifact)?;
    bytes[64..].fill(0);
    fs::set_permissions(&artifact, fs::Permissions::from_mode(0o600))?;
    fs::write(&artifact, bytes)?;
    fs::set_permissions(&artifact, fs::Permissions::from_mode(0o400))?;

    let status = refusal(containerd.task(&image).args(["/"]).create().await.map(drop))?;
    expect(&status, Code::Internal, &["layer sha256:"]);
    assert_eq!(containerd.task(&image).args(["/"]).run().await?.status, 0);
    compiled(&containerd, 2).await?;
    assert_eq!(artifacts(&containerd).len(), 1);
    containerd.assert_clean().await
}
