//! Pods of more than one container, and what a manifest says of all of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use cri_tests::{House, house};
use harness::{CriContainer, Pod, Version, guest, image, until};
use k8s_cri::v1::{
    LinuxContainerResources, NamespaceMode, NamespaceOption, UpdateContainerResourcesRequest,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// The images that these pods are made of.
struct Images {
    probe: String,
    files: String,
    http: String,
    busybox: String,
}

async fn images(house: &House) -> Result<Images> {
    let files = image::Rootfs::new()
        .file("/app.wasm", guest("probe.wasm")?)
        .directory("/data", 0o777)
        .entrypoint(["/app.wasm"])
        .build()?;
    Ok(Images {
        probe: house.pulled_guest("probe", "wasip1").await?,
        files: house.pulled("files", &files).await?,
        http: house.pulled_guest("http-p2", "wasip2").await?,
        busybox: house.pulled("busybox", &image::busybox()?).await?,
    })
}

/// As an `emptyDir` is: everybody may write.
fn volume(house: &House, name: &str) -> Result<PathBuf> {
    let dir = house.containerd.scratch().dir().join(name);
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o777))?;
    Ok(dir)
}

/// What a container says that ends well.
async fn said(container: &CriContainer<'_>) -> Result<String> {
    container.start().await?;
    let exit = container.wait().await?;
    let logs = container.logs()?;
    assert_eq!(exit.exit_code, 0, "{exit:?} {logs:?}");
    Ok(logs.stdout)
}

fn sh<'a>(
    pod: &Pod<'a>,
    name: &str,
    images: &Images,
    script: &str,
) -> harness::ContainerBuilder<'a> {
    pod.container(name, &images.busybox)
        .command(["sh", "-c", script])
}

/// An init container writes, the guest serves it, and a native sidecar asks over the pod's own loopback.
#[tokio::test(flavor = "multi_thread")]
async fn init_containers_and_sidecars_share_volumes_and_network() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let shared = volume(&house, "shared")?;
    let pod = house.containerd.cri().await?.pod("sampan").run().await?;

    let wasm_init = pod
        .container("wasm-init", &images.probe)
        .command(["/", "write", "/shared/wasm", "from wasm"])
        .mount(&shared, "/shared", false)
        .create()
        .await?;
    said(&wasm_init).await?;
    let native_init = sh(
        &pod,
        "native-init",
        &images,
        "cat /shared/wasm && echo from native > /shared/native",
    )
    .mount(&shared, "/shared", false)
    .create()
    .await?;
    assert_eq!(said(&native_init).await?, "from wasm");

    let server = pod
        .container("server", &images.http)
        .command(["/"])
        .mount(&shared, "/shared", true)
        .create()
        .await?;
    server.start().await?;
    let script =
        "until wget -qO- http://127.0.0.1:8080/file?path=/shared/native; do usleep 10000; done";
    let sidecar = sh(&pod, "sidecar", &images, script).create().await?;
    assert_eq!(said(&sidecar).await?, "from native\n");
    server.stop(10).await?;
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// What cannot be made, wasm or native, keeps no pod from being stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_container_that_cannot_be_made_is_stopped() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let pod = house.containerd.cri().await?.pod("sampan").run().await?;
    let native = pod
        .container("native", &images.busybox)
        .command(["/no/such/program"])
        .create()
        .await?;
    let wasm = pod
        .container("wasm", &images.files)
        .command(["/no/such.wasm"])
        .create()
        .await?;
    for container in [&native, &wasm] {
        let error = container.start().await.expect_err("there is no such file");
        assert!(error.message().contains("/no/such"), "{error}");
    }
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// `shareProcessNamespace`: a native container sees the guest's process, and can end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_share_its_processes() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let share = |security: &mut NamespaceOption| security.pid = NamespaceMode::Pod.into();
    let pod = house
        .containerd
        .cri()
        .await?
        .pod("sampan")
        .config(|config| {
            let linux = config.linux.get_or_insert_default();
            let security = linux.security_context.get_or_insert_default();
            share(security.namespace_options.get_or_insert_default());
        })
        .run()
        .await?;
    let guest = pod
        .container("guest", &images.probe)
        .command(["/", "spin"])
        .security(|security| share(security.namespace_options.get_or_insert_default()))
        .create()
        .await?;
    guest.start().await?;
    guest.stdout_contains("spinning").await?;
    let native = sh(
        &pod,
        "native",
        &images,
        "for p in /proc/[0-9]*; do grep -q sampan-runner $p/comm && kill -TERM ${p#/proc/} && echo ended it; done; :",
    )
    .security(|security| share(security.namespace_options.get_or_insert_default()))
    .create()
    .await?;
    assert_eq!(said(&native).await?, "ended it\n");
    assert_eq!(guest.wait().await?.exit_code, 143);
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// `readOnlyRootFilesystem`, `runAsUser`, `fsGroup`.
#[tokio::test(flavor = "multi_thread")]
async fn users_and_read_only_roots_are_as_declared() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let dir = volume(&house, "of-the-group")?;
    // As the kubelet leaves a volume with `fsGroup: 7777`.
    std::os::unix::fs::chown(&dir, Some(0), Some(7777))?;
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o2770))?;
    let pod = house.containerd.cri().await?.pod("sampan").run().await?;
    let write = async |name: &str, path: &str, readonly: bool| {
        let container = pod
            .container(name, &images.files)
            .args(["write", path, "text"])
            .user(1234, 2345)
            .security(|security| {
                security.readonly_rootfs = readonly;
                security.supplemental_groups = vec![7777];
            })
            .mount(&dir, "/volume", false)
            .create()
            .await?;
        container.start().await?;
        let exit = container.wait().await?;
        anyhow::Ok((exit.exit_code, container.logs()?.stdout))
    };
    assert_eq!(write("writes", "/data/file", false).await?.0, 0);
    let (code, text) = write("read-only", "/data/file", true).await?;
    assert_eq!(code, 1);
    assert!(text.contains("ROFS") || text.contains("PERM"), "{text}");
    assert_eq!(write("to-the-volume", "/volume/file", true).await?.0, 0);
    let made = fs::metadata(dir.join("file"))?;
    assert_eq!((made.uid(), made.gid()), (1234, 7777));
    // What WASI cannot open it cannot give: said at once, and not at the first access.
    let container = pod
        .container("not-of-the-group", &images.files)
        .args(["ls", "/"])
        .user(1234, 2345)
        .mount(&dir, "/volume", false)
        .create()
        .await?;
    container.start().await?;
    assert_eq!(container.wait().await?.exit_code, 126);
    let text = container.logs()?.stderr;
    assert!(text.contains("/volume"), "{text}");
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// In-place resize: the guest that was refused memory gets it, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_resized_in_place() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let limit = |bytes| LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..LinuxContainerResources::default()
    };
    let container = pod
        .container("resized", &images.probe)
        .command(["/", "spin"])
        .config(|config| config.linux.get_or_insert_default().resources = Some(limit(64 << 20)))
        .create()
        .await?;
    container.start().await?;
    container.stdout_contains("spinning").await?;
    let pid = container.pid().await?;
    let update = async |bytes| {
        let request = UpdateContainerResourcesRequest {
            container_id: container.id().to_owned(),
            linux: Some(limit(bytes)),
            ..UpdateContainerResourcesRequest::default()
        };
        cri.runtime().update_container_resources(request).await
    };
    update(128 << 20).await?;
    let told = || async {
        let resources = container
            .status()
            .await?
            .resources
            .and_then(|resources| resources.linux);
        anyhow::Ok(resources.map_or(0, |linux| linux.memory_limit_in_bytes))
    };
    assert_eq!(told().await?, 128 << 20);
    let error = update(64 << 10).await.expect_err("it holds more");
    assert!(error.message().contains("65536"), "{error}");
    assert_eq!(container.pid().await?, pid);
    container.stop(0).await?;
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// What CRI tells of the same load under runc's shim and ours: the same within a tenth.
#[tokio::test(flavor = "multi_thread")]
async fn stats_agree_with_those_of_runc() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let cri = house.containerd.cri().await?;
    let mut memory = Vec::new();
    for handler in ["runc", "sampan"] {
        let pod = cri.pod(handler).run().await?;
        let script =
            "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo ready; while :; do :; done";
        let container = sh(&pod, "load", &images, script).create().await?;
        container.start().await?;
        container.stdout_contains("ready").await?;
        let pid = container.pid().await?;
        // CRI keeps what it has read for a while: asked until both agree, and the load goes on meanwhile.
        let bytes = until(
            "CRI's numbers to agree with the kernel's",
            DEADLINE,
            async || {
                let stats = container
                    .stats()
                    .await?
                    .context("a running container has stats")?;
                let told = stats
                    .cpu
                    .and_then(|cpu| cpu.usage_core_nano_seconds)
                    .map_or(0, |time| time.value);
                let used = of_process(pid)?;
                let bytes = stats
                    .memory
                    .and_then(|memory| memory.working_set_bytes)
                    .map_or(0, |bytes| bytes.value);
                let near = told > 300_000_000 && told.abs_diff(used) < used / 10;
                Ok((near && bytes > 30_000_000).then_some(bytes))
            },
        )
        .await
        .context(handler)?;
        memory.push(bytes);
        container.stop(0).await?;
        pod.remove().await?;
    }
    assert!(memory[0].abs_diff(memory[1]) < memory[0] / 10, "{memory:?}");
    house.containerd.assert_clean().await
}

/// Nanoseconds of processor time of a process, with a tick's accuracy (proc(5)).
fn of_process(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("a name")?
        .1
        .split_whitespace()
        .collect();
    // With those of children that have ended: they were in the same cgroup.
    let ticks: u64 = fields[11..15]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap_or(0))
        .sum();
    Ok(ticks * 10_000_000)
}
