//! `hostUsers: false`: a pod whose user ids are not the node's.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use anyhow::{Context, Result};
use cri_tests::{House, Volumes, house_of};
use harness::process::parent_of;
use harness::{
    ContainerBuilder, Containerd, Cri, Handler, Pod, get, guest, image, listening, runtime, unique,
};
use k8s_cri::v1::{IdMapping, NamespaceMode, StatusRequest, UserNamespace};
use tonic::Code;

/// What the kubelet would give the pod.
const FIRST: u32 = 300_000;
const COUNT: u32 = 65_536;
const HANDLER: &str = "plain";

fn mappings() -> Vec<IdMapping> {
    vec![IdMapping {
        host_id: FIRST,
        container_id: 0,
        length: COUNT,
    }]
}

fn own_users() -> UserNamespace {
    UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: mappings(),
        gids: mappings(),
    }
}

/// A house whose containerd and kernel can; otherwise the test is skipped, which has been said then.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
async fn able() -> Result<Option<House>> {
    // containerd 1.7 has no mounts with other owners, without which a pod cannot read its volumes. 2.x takes the options
    // of such a pod's handler for runc's, so it has to be one without.
    let handler = Handler::new(HANDLER, runtime());
    let builder = Containerd::builder().handler(handler);
    let Some(house) = house_of(builder).await? else {
        return Ok(None);
    };
    let snapshotter = ["plugins", "ls", "--detailed", "id==overlayfs"];
    let text = house.containerd.ctr("k8s.io", &snapshotter).await?;
    if !text.contains("remap-ids") {
        eprintln!("skipped: containerd finds no ID-mapped mounts on this kernel and file system");
        return Ok(None);
    }
    Ok(Some(house))
}

async fn pod<'a>(cri: &Cri<'a>) -> Result<Pod<'a>> {
    let pod = cri.pod(HANDLER).config(|config| {
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        let options = security.namespace_options.get_or_insert_default();
        options.userns_options = Some(own_users());
    });
    pod.run().await
}

/// In the pod's user namespace, and its mounts with it, as the kubelet asks for all of them.
fn mapped(container: ContainerBuilder<'_>) -> ContainerBuilder<'_> {
    container
        .security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.userns_options = Some(own_users());
        })
        .config(|config| {
            for mount in &mut config.mounts {
                mount.uid_mappings = mappings();
                mount.gid_mappings = mappings();
            }
        })
}

/// A field of `/proc/PID/status`, its first word.
fn status(pid: u32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let word = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(word.with_context(|| field.to_owned())?.to_owned())
}

fn user_namespace(pid: u32) -> Result<std::path::PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/user"))?)
}

/// Runs it to its end: exit code and output.
async fn ran(container: ContainerBuilder<'_>) -> Result<(i32, String)> {
    // A log of its own: the name's would begin with what came before.
    let container = mapped(container).config(|config| config.log_path = unique());
    let container = container.create().await?;
    container.start().await?;
    let exit = container.wait().await?;
    let logs = container.logs()?;
    container.remove().await?;
    Ok((exit.exit_code, logs.stdout + &logs.stderr))
}

/// By this the kubelet decides whether such a pod may come to the node at all.
async fn kubelet_admits(cri: &Cri<'_>, handler: &str) -> Result<bool> {
    let request = StatusRequest { verbose: false };
    let answer = cri.runtime().status(request).await?.into_inner();
    let mut handlers = answer.runtime_handlers.into_iter();
    let named = handlers.find(|one| one.name == handler);
    let features = named.context("the handler is listed")?.features;
    Ok(features.is_some_and(|features| features.user_namespaces))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_have_users_of_its_own() -> Result<()> {
    let Some(house) = able().await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    assert!(kubelet_admits(&cri, HANDLER).await?);
    assert!(!kubelet_admits(&cri, "sampan").await?, "it has options");
    let layer = house.pulled_guest("probe", "wasip1").await?;
    let http = house.pulled_guest("http-p2", "wasip2").await?;
    let files = image::Rootfs::new()
        .file("/app.wasm", guest("probe.wasm")?)
        .file_mode("/etc/secret", "of root\n", 0o600)
        .directory("/data", 0o755)
        .entrypoint(["/app.wasm"])
        .build()?;
    let files = house.pulled("files", &files).await?;

    let pod = pod(&cri).await?;
    let uid = &pod.config().metadata.as_ref().context("metadata")?.uid;
    let mut volumes = Volumes::new(&house, uid)?;
    let disk = volumes.empty_dir("disk")?;
    // Root's and another user's, as the file system has them: so the pod sees them.
    for (name, owner) in [("of-root", 0), ("of-1234", 1234)] {
        let file = disk.join(name);
        fs::write(&file, name)?;
        chown(&file, Some(owner), Some(owner))?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
    }
    let memory = volumes.memory("memory", 1 << 20)?;
    let token = volumes.projected("token", 0o400, &[("token", "secret\n")])?;

    for (name, image) in [("layer", &layer), ("files", &files)] {
        let run = async |user: i64, words: &[&str]| {
            let container = pod
                .container(name, image)
                .command(["/app.wasm"])
                .args(words.iter().copied())
                .user(user, user)
                .mount(&disk, "/disk", false)
                .mount(&memory, "/memory", false)
                .mount(token.dir(), "/token", true);
            ran(container).await
        };
        assert_eq!(
            run(0, &["cat", "/disk/of-root"]).await?,
            (0, "of-root".into()),
            "{name}"
        );
        assert_eq!(
            run(0, &["cat", "/token/token"]).await?,
            (0, "secret\n".into()),
            "{name}"
        );
        assert_eq!(
            run(1234, &["cat", "/disk/of-1234"]).await?,
            (0, "of-1234".into()),
            "{name}"
        );
        let (code, text) = run(1234, &["cat", "/disk/of-root"]).await?;
        assert!(code == 1 && text.contains("ACCES"), "{name}: {text}");
        for (user, place, dir) in [(1234, "/disk", &disk), (0, "/memory", &memory)] {
            let path = format!("{place}/{name}");
            assert_eq!(run(user, &["write", &path, "x"]).await?.0, 0, "{path}");
            let made = fs::metadata(dir.join(name))?;
            let user = u32::try_from(user)?;
            assert_eq!((made.uid(), made.gid()), (user, user), "{path}");
        }
    }
    // The image's files are root's of the pod.
    let image = |user: i64, words: &[&'static str]| {
        let command = ["/app.wasm"].into_iter().chain(words.iter().copied());
        pod.container("image", &files)
            .command(command)
            .user(user, user)
    };
    let (code, text) = ran(image(0, &["cat", "/etc/secret"])).await?;
    assert_eq!((code, text.as_str()), (0, "of root\n"));
    let (code, text) = ran(image(1234, &["cat", "/etc/secret"])).await?;
    assert!(code == 1 && text.contains("ACCES"), "{text}");
    assert_eq!(ran(image(0, &["write", "/data/new", "x"])).await?.0, 0);
    let shut = image(0, &["write", "/data/new", "x"]);
    let shut = shut.security(|security| security.readonly_rootfs = true);
    assert_eq!(ran(shut).await?.0, 1);

    served(&house, &pod, &http).await?;
    drop(volumes);
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// A server of it is reached, and nobody of it is anybody on the node.
async fn served(house: &House, pod: &Pod<'_>, http: &str) -> Result<()> {
    let server = pod.container("server", http).command(["/"]).user(0, 0);
    let container = mapped(server).create().await?;
    container.start().await?;
    let address = pod.address().await?.context("the pod has an address")?;
    let address = SocketAddr::new(address, 8080);
    listening(address)
        .await
        .with_context(|| format!("it wrote {:?}", container.logs()))?;
    assert_eq!(get(address, "/").await?.text(), "hello from http-p2\n");

    let pid = container.pid().await?;
    assert_eq!(status(pid, "Uid")?, FIRST.to_string());
    assert_eq!(status(pid, "Gid")?, FIRST.to_string());
    assert_eq!(status(pid, "CapEff")?, "0000000000000000");
    let supervisor = parent_of(pid)?;
    assert_ne!(user_namespace(pid)?, user_namespace(supervisor)?);
    let beside = container.exec(["sampan", "ls", "/"]).await?;
    assert_eq!(beside.exit_code, 0, "{beside:?}");
    let text = String::from_utf8(
        container
            .exec(["sampan", "cat", "/etc/hosts"])
            .await?
            .stdout,
    )?;
    assert!(text.contains("localhost"), "{text}");
    tell_of_natives(house, pod).await?;
    container.stop(10).await?;
    assert_eq!(container.wait().await?.exit_code, 0);
    Ok(())
}

/// A native container cannot be in such a pod, and says so.
async fn tell_of_natives(house: &House, pod: &Pod<'_>) -> Result<()> {
    let busybox = house.pulled("busybox", &image::busybox()?).await?;
    let native = pod.container("native", &busybox).command(["true"]);
    let native = mapped(native).create().await?;
    let status = native.start().await.expect_err("not implemented");
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert!(status.message().contains("hostUsers"), "{status}");
    Ok(())
}
