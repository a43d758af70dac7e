//! Every kind of volume that a single node can make, as the kubelet hands it over.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cri_tests::{House, Projected, Volumes, house};
use harness::{ContainerBuilder, Pod, Version, get, image, listening};

const USER: i64 = 1234;
const GROUP: i64 = 2345;
/// `fsGroup`.
const FS_GROUP: u32 = 7777;

/// The volumes of the pod, by their paths on the node.
struct Mounted {
    volumes: Volumes,
    token: Projected,
    config: Projected,
    memory: PathBuf,
    scratch: PathBuf,
    /// The directory that the claim's PersistentVolume names (`hostPath`).
    claim: PathBuf,
}

const CONFIG: [(&str, &str); 2] = [("level", "info\n"), ("nested/app.toml", "first = true\n")];
const MEMORY: u64 = 64 << 10;

impl Mounted {
    fn new(house: &House, pod: &Pod<'_>) -> Result<Self> {
        let uid = &pod.config().metadata.as_ref().context("metadata")?.uid;
        let mut volumes = Volumes::new(house, uid)?;
        // Downward API, service account token and secret in one: a pod's `projected` volume.
        let files = [
            ("token", "secret\n"),
            ("labels", "tier=\"web\"\n"),
            ("namespace", "test\n"),
        ];
        let token = volumes.projected("all", 0o440, &files)?;
        token.give_to_group(FS_GROUP)?;
        let config = volumes.config_map("config", &CONFIG)?;
        let memory = volumes.memory("cache", MEMORY)?;
        let scratch = volumes.empty_dir("scratch")?;
        let claim = house.containerd.scratch().dir().join("pv-1");
        let app = claim.join("logs/app");
        fs::create_dir_all(&app)?;
        for dir in [&claim, &app] {
            // As `fsGroup` leaves them.
            std::os::unix::fs::chown(dir, Some(0), Some(FS_GROUP))?;
            fs::set_permissions(dir, PermissionsExt::from_mode(0o2775))?;
        }
        Ok(Self {
            volumes,
            token,
            config,
            memory,
            scratch,
            claim,
        })
    }

    /// All of them, mounted into a container. `subPath` is made anew for each, as the kubelet does when it starts one.
    fn given<'a>(&mut self, container: ContainerBuilder<'a>) -> Result<ContainerBuilder<'a>> {
        let file = self
            .volumes
            .sub_path(self.config.dir(), "nested/app.toml")?;
        let directory = self.volumes.sub_path(&self.claim, "logs/app")?;
        Ok(container
            .user(USER, GROUP)
            .security(|security| {
                security.supplemental_groups = vec![FS_GROUP.into()];
                security.readonly_rootfs = true;
            })
            .mount(self.token.dir(), "/var/run/secrets/pod", true)
            .mount(self.config.dir(), "/etc/config", true)
            .mount(file, "/etc/app.toml", true)
            .mount(directory, "/logs", false)
            .mount(&self.memory, "/cache", false)
            .mount(&self.scratch, "/scratch", false)
            .mount(&self.claim, "/data", false))
    }
}

/// What a server of the guest's answers for a file.
async fn file(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = get(server, &format!("/file?path={path}")).await?;
    Ok((answer.status, answer.text()))
}

async fn written(server: SocketAddr, path: &str) -> Result<u16> {
    let path = format!("/write?path={path}&text=written");
    Ok(get(server, &path).await?.status)
}

/// A probe in the same pod, run to its end: its exit code and what it said.
async fn probe(container: ContainerBuilder<'_>, words: &[&str]) -> Result<(i32, String)> {
    let command = ["/"].into_iter().chain(words.iter().copied());
    let container = container.command(command).create().await?;
    container.start().await?;
    let exit = container.wait().await?;
    let logs = container.logs()?;
    container.remove().await?;
    Ok((exit.exit_code, logs.stdout + &logs.stderr))
}

fn owner(path: &Path) -> Result<(u32, u32)> {
    let made = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok((made.uid(), made.gid()))
}

async fn every_kind(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let http = house.pulled_guest("http-p2", "wasip2").await?;
    let command = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let mut mounted = Mounted::new(&house, &pod)?;
    let container = mounted.given(pod.container("server", &http).command(["/"]))?;
    let container = container.create().await?;
    container.start().await?;
    let address = pod.address().await?.context("the pod has an address")?;
    let server = SocketAddr::new(address, 8080);
    listening(server)
        .await
        .with_context(|| format!("it wrote {:?}", container.logs()))?;

    for (path, text) in [
        ("/var/run/secrets/pod/token", "secret\n"),
        ("/var/run/secrets/pod/labels", "tier=\"web\"\n"),
        ("/var/run/secrets/pod/namespace", "test\n"),
        ("/etc/config/level", "info\n"),
        ("/etc/config/nested/app.toml", "first = true\n"),
        ("/etc/app.toml", "first = true\n"),
    ] {
        assert_eq!(file(server, path).await?, (200, text.into()), "{path}");
        assert_eq!(written(server, path).await?, 403, "{path}");
    }
    let own = u32::try_from(USER)?;
    for (path, node, group) in [
        ("/logs/new", mounted.claim.join("logs/app/new"), FS_GROUP),
        ("/data/new", mounted.claim.join("new"), FS_GROUP),
        ("/cache/new", mounted.memory.join("new"), 2345),
        ("/scratch/new", mounted.scratch.join("new"), 2345),
    ] {
        assert_eq!(written(server, path).await?, 200, "{path}");
        assert_eq!(fs::read_to_string(&node)?, "written", "{path}");
        assert_eq!(owner(&node)?, (own, group), "{path}");
    }
    // The root is read-only, and a directory that the mounts brought is a part of it.
    for path in ["/new", "/etc/new", "/var/run/secrets/new"] {
        assert_eq!(written(server, path).await?, 403, "{path}");
    }

    // The same process sees what is replaced; a subPath stays as it was, as the kubelet's documentation has it.
    mounted.token.replace(&[
        ("token", "rotated\n"),
        ("labels", "tier=\"db\"\n"),
        ("more", "now\n"),
    ])?;
    mounted.token.give_to_group(FS_GROUP)?;
    mounted
        .config
        .replace(&[("level", "debug\n"), ("nested/app.toml", "first = false\n")])?;
    for (path, text) in [
        ("/var/run/secrets/pod/token", "rotated\n"),
        ("/var/run/secrets/pod/labels", "tier=\"db\"\n"),
        ("/var/run/secrets/pod/more", "now\n"),
        ("/etc/config/level", "debug\n"),
        ("/etc/config/nested/app.toml", "first = false\n"),
        ("/etc/app.toml", "first = true\n"),
    ] {
        assert_eq!(file(server, path).await?, (200, text.into()), "{path}");
    }
    assert_eq!(
        file(server, "/var/run/secrets/pod/namespace").await?.0,
        404,
        "a link whose target has gone"
    );
    let seen = container
        .exec(["sampan", "cat", "/etc/config/level"])
        .await?;
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "debug\n");
    let seen = container
        .exec(["sampan", "ls", "-a", "/etc/config"])
        .await?;
    let names = String::from_utf8_lossy(&seen.stdout).into_owned();
    for name in ["..data", "level", "nested"] {
        assert!(names.lines().any(|line| line.contains(name)), "{names}");
    }

    // Other containers of the pod share its volumes, up to the size of what lies in memory.
    let mut other = |name: &str| mounted.given(pod.container(name, &command));
    let (code, text) = probe(other("reads")?, &["cat", "/cache/new"]).await?;
    assert_eq!((code, text.as_str()), (0, "written"));
    let (code, text) = probe(other("later")?, &["cat", "/etc/app.toml"]).await?;
    assert_eq!((code, text.as_str()), (0, "first = false\n"));
    let big = "x".repeat(usize::try_from(MEMORY)? + 1);
    let (code, text) = probe(other("fills")?, &["write", "/cache/big", &big]).await?;
    assert_eq!(
        (code, text.as_str()),
        (1, "error: write /cache/big: NOSPC\n")
    );
    // Without the group the secret is nobody's business.
    let stranger = other("stranger")?.security(|security| security.supplemental_groups.clear());
    let (code, text) = probe(stranger, &["cat", "/var/run/secrets/pod/token"]).await?;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("ACCES"), "{text}");
    container.stop(10).await?;
    pod.remove().await?;

    // What was claimed outlives the pod.
    let pod = cri.pod("sampan").run().await?;
    let next = pod.container("next", &command);
    let next = next.mount(&mounted.claim, "/data", true);
    let (code, text) = probe(next, &["cat", "/data/logs/app/new"]).await?;
    assert_eq!((code, text.as_str()), (0, "written"));
    pod.remove().await?;
    drop(mounted);
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_volume_on_2() -> Result<()> {
    every_kind(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_volume_on_1_7() -> Result<()> {
    every_kind(Version::V1_7).await
}

/// `recursiveReadOnly`: what is mounted below a volume is read-only too, for guests and native programs. Told by `-info`,
/// so that the kubelet asks for it; 1.7 does not know it.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_holds_for_all_below() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let guest = house.pulled_guest("probe", "wasip1").await?;
    let busybox = house.pulled("busybox", &image::busybox()?).await?;
    let pod = cri.pod("sampan").run().await?;
    let uid = &pod.config().metadata.as_ref().context("metadata")?.uid;
    let mut volumes = Volumes::new(&house, uid)?;
    let below = volumes.memory("below", MEMORY)?;
    let volume = below.parent().context("it lies in a directory")?;
    let writes = async |container: ContainerBuilder<'_>, recursive: bool| {
        let container = container
            .mount(volume, "/volume", true)
            .config(|config| config.mounts[0].recursive_read_only = recursive)
            .create()
            .await?;
        container.start().await?;
        let exit = container.wait().await?;
        let logs = container.logs()?;
        container.remove().await?;
        anyhow::Ok((exit.exit_code, logs.stdout + &logs.stderr))
    };
    let path = "/volume/below/new";
    let command = |name: &str| {
        let container = pod.container(name, &guest);
        container.command(["/", "write", path, "x"])
    };
    let (code, text) = writes(command("guest"), true).await?;
    assert!(code == 1 && text.contains("error: write"), "{text}");
    let script = format!("echo x > {path}");
    let native = |name: &str| {
        let container = pod.container(name, &busybox);
        container.command(["sh", "-c", &script])
    };
    let (code, text) = writes(native("native"), true).await?;
    assert!(code == 1 && text.contains("Read-only"), "{code}: {text}");
    assert!(!below.join("new").exists());
    // Without it a native program may write there, as under runc; a guest may not.
    assert_eq!(writes(native("native-shallow"), false).await?.0, 0);
    assert_eq!(writes(command("guest-shallow"), false).await?.0, 1);
    drop(volumes);
    pod.remove().await?;
    house.containerd.assert_clean().await
}
