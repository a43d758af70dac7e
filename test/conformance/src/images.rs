//! The images that critest pulls, made here: their names are fixed, so a registry of our own answers for all hosts.
//!
//! They are equivalents, made of Debian's busybox: what a test looks for is there, and no more.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::Registry;
use harness::image::{Image, Rootfs};
use serde_json::json;

/// What stands for nginx: the tests look for its main page, its pid file, its name among the processes and in its own
/// arguments the word by which nginx marks its first process; and those of httpd, its name in its log.
const WEB_SERVER: &str = "#!/bin/sh
echo httpd
echo $$ > /var/run/nginx.pid
httpd -f -p \"${PORT:-80}\" -h /www &
trap 'kill $!; exit 0' TERM INT QUIT
wait
";

/// What Debian's busybox leaves out: `pgrep NAME` and `ipcs -m`, as far as the tests ask.
const PGREP: &str = "#!/bin/sh
for process in /proc/[0-9]*; do
    read -r name < \"$process/comm\" && [ \"$name\" = \"$1\" ] && echo \"${process#/proc/}\"
done 2> /dev/null
";
const IPCS: &str = "#!/bin/sh
awk 'NR > 1 { print $1, $2, $5, $3, $4, $7 }' /proc/sysvipc/shm
";

/// Pushes them all.
pub(crate) async fn push(registry: &Registry) -> Result<()> {
    let busybox = Busybox::find()?;
    // One of them is started and removed at once: a program that ends by itself could do so between two steps of
    // containerd, which then refuses to remove what it still takes for running.
    let simple = |mark: &str| {
        busybox
            .rootfs()
            .file(&format!("/{mark}"), "")
            .cmd(["sleep", "3600"])
            .build()
    };
    let user = |user: &str| busybox.rootfs().config("User", json!(user)).build();

    for (name, image) in [
        ("e2e-test-images/busybox:1.29-2", busybox.rootfs().build()?),
        ("e2e-test-images/nginx:1.14-2", busybox.web_server(80)?),
        ("e2e-test-images/httpd:2.4.39-4", busybox.web_server(80)?),
        ("e2e-test-images/nonewprivs:1.3", busybox.nonewprivs()?),
        ("pause:3.9", busybox.pause()?),
        (
            "k8s-staging-cri-tools/hostnet-nginx-amd64:latest",
            busybox.web_server(12003)?,
        ),
        (
            "k8s-staging-cri-tools/test-image-user-uid:latest",
            user("1002")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-user-username:latest",
            user("www-data")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-user-uid-group:latest",
            user("1003:users")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-user-username-group:latest",
            user("www-data:100")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-predefined-group:latest",
            user("1000")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-latest:latest",
            simple("latest")?,
        ),
        (
            "k8s-staging-cri-tools/test-image-tag:test",
            simple("test-tag")?,
        ),
        ("k8s-staging-cri-tools/test-image-tag:all", simple("all")?),
        ("k8s-staging-cri-tools/test-image-1:latest", simple("one")?),
        ("k8s-staging-cri-tools/test-image-2:latest", simple("two")?),
        (
            "k8s-staging-cri-tools/test-image-3:latest",
            simple("three")?,
        ),
    ] {
        registry.push(name, &image).await?;
    }
    let same = simple("same-image")?;
    for tag in ["1", "2", "3"] {
        registry
            .push(
                &format!("k8s-staging-cri-tools/test-image-tags:{tag}"),
                &same,
            )
            .await?;
    }
    Ok(())
}

/// A static busybox and the names by which it can be called.
struct Busybox {
    binary: Vec<u8>,
    applets: Vec<String>,
}

impl Busybox {
    fn find() -> Result<Self> {
        let path = tools::Tools::locate()?.busybox;
        let list = Command::new(&path)
            .arg("--list")
            .output()
            .with_context(|| format!("run {}", path.display()))?;
        ensure!(
            list.status.success(),
            "{} --list ended with {}",
            path.display(),
            list.status
        );
        Ok(Self {
            binary: fs::read(&path).with_context(|| format!("read {}", path.display()))?,
            applets: String::from_utf8(list.stdout)?
                .lines()
                .filter(|applet| *applet != "busybox")
                .map(str::to_owned)
                .collect(),
        })
    }

    /// As Docker's busybox: every applet in /bin, and the users and groups that the tests name.
    fn rootfs(&self) -> Rootfs {
        let rootfs = Rootfs::new()
            .directory("/tmp", 0o1777)
            .directory("/var/run", 0o755)
            .directory("/root", 0o700)
            .file_mode(
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
                 nobody:x:65534:65534:nobody:/home:/bin/false\n\
                 default-user:x:1000:1000::/home/default-user:/bin/sh\n",
                0o644,
            )
            .file_mode(
                "/etc/group",
                "root:x:0:\nwww-data:x:33:\nusers:x:100:\nnobody:x:65534:\ndefault-user:x:1000:\n\
                 group-defined-in-image:x:50000:default-user\n",
                0o644,
            )
            .file("/bin/busybox", self.binary.clone())
            .file("/bin/pgrep", PGREP)
            .file("/bin/ipcs", IPCS)
            .cmd(["sh"])
            .config(
                "Env",
                json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            );
        self.applets.iter().fold(rootfs, |rootfs, applet| {
            rootfs.symlink(&format!("/bin/{applet}"), "busybox")
        })
    }

    fn web_server(&self, port: u16) -> Result<Image> {
        self.rootfs()
            .file("/bin/nginx", WEB_SERVER)
            .file_mode("/www/index.html", "<h1>Welcome to nginx!</h1>\n", 0o644)
            .cmd(["nginx", "master process"])
            .config("Env", json!([format!("PORT={port}"), "PATH=/bin"]))
            .build()
    }

    fn pause(&self) -> Result<Image> {
        self.rootfs()
            .entrypoint(["/bin/sleep", "2147483647"])
            .build()
    }

    /// A program with the set-user-id bit, which busybox itself would give up.
    fn nonewprivs(&self) -> Result<Image> {
        let directory = tempfile::tempdir().context("make a temporary directory")?;
        let program = compile(directory.path())?;
        self.rootfs()
            .file_mode("/nnp", program, 0o4755)
            .entrypoint(["/nnp"])
            .build()
    }
}

fn compile(directory: &Path) -> Result<Vec<u8>> {
    let (source, output) = (
        directory.join("nonewprivs.rs"),
        directory.join("nonewprivs"),
    );
    fs::write(&source, include_str!("../programs/nonewprivs.rs"))
        .with_context(|| format!("write {}", source.display()))?;
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let built = Command::new("rustc")
        .args(["--edition=2024", "-C", "panic=abort", "--target", &target])
        .arg("-o")
        .args([&output, &source])
        .output()
        .context("start rustc")?;
    ensure!(
        built.status.success(),
        "compile nonewprivs for {target} (is the target installed? rustup target add {target}): {}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::read(&output).with_context(|| format!("read {}", output.display()))
}
