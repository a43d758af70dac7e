use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::image::{self, Content};
use harness::{Scratch, Tools, Tree, Version, until};
use serde_json::Value;

use crate::program::Program;
use crate::supervisor::Supervisor;

/// The pause image's name.
const PAUSE: &str = "localhost/sampan-pause:test";
const DEADLINE: Duration = Duration::from_secs(30);

/// How containerd is configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Config {
    /// One file.
    Plain,
    /// One that imports a directory.
    Importing,
    /// One file of the older form, which newer releases read as well.
    Older,
}

/// A machine with a containerd.
#[derive(Debug)]
pub struct Machine {
    version: Version,
    tools: Tools,
    supervisor: Supervisor,
    /// The last field: dropping it removes what is left when containerd has ended.
    scratch: Scratch,
}

impl Machine {
    /// Starts one; `None` where the test has to be skipped, which has been said then.
    ///
    /// # Errors
    /// When containerd does not come up.
    pub async fn start(version: Version, config: Config) -> Result<Option<Self>> {
        if !crate::able()? {
            return Ok(None);
        }
        let tools = Tools::locate()?;
        let scratch = Scratch::new()?;
        let programs = match version {
            Version::V2 => tools.containerd_2.clone(),
            Version::V1_7 => tools.containerd_1_7.clone(),
        };
        let dir = scratch.dir();
        for below in ["etc/containerd/conf.d", "opt", "var/lib", "run"] {
            fs::create_dir_all(dir.join(below))?;
        }
        let path = dir.join("etc/containerd/config.toml");
        fs::write(&path, text(version, config, dir, &tools)?).context("write the configuration")?;
        // As an administrator may have it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        fs::set_permissions(&path, mode).context("set the mode of the configuration")?;
        if config == Config::Importing {
            fs::write(
                dir.join("etc/containerd/conf.d/other.toml"),
                "version = 2\noom_score = 0\n",
            )?;
        }
        fs::write(
            dir.join("sampan.toml"),
            format!(
                "run = '{run}'\n[store]\npath = '{store}'\n",
                run = dir.join("run/sampan").display(),
                store = dir.join("var/lib/sampan").display()
            ),
        )?;
        let mut path_variable = vec![programs.dir.clone()];
        path_variable.extend(tools.runc.parent().map(Path::to_path_buf));
        path_variable.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        let environment = vec![
            (
                "PATH".to_owned(),
                std::env::join_paths(path_variable)?
                    .to_string_lossy()
                    .into_owned(),
            ),
            (
                "SAMPAN_CONFIG".to_owned(),
                dir.join("sampan.toml").display().to_string(),
            ),
        ];
        let supervisor = Supervisor::start(
            programs.containerd.clone(),
            vec!["--config".to_owned(), path.display().to_string()],
            environment,
            dir.join("containerd.log"),
        )?;
        let machine = Self {
            version,
            tools,
            supervisor,
            scratch,
        };
        machine.ready().await?;
        machine.import(PAUSE, &image::pause()?).await?;
        Ok(Some(machine))
    }

    /// Its private directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.dir()
    }

    /// containerd's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir().join("etc/containerd/config.toml")
    }

    /// Where the runtime is installed.
    #[must_use]
    pub fn prefix(&self) -> PathBuf {
        self.dir().join("opt/sampan")
    }

    /// The binaries that are to be installed.
    ///
    /// # Errors
    /// When they were not built.
    pub fn payload(&self) -> Result<PathBuf> {
        harness::built_dir()
    }

    /// containerd's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// How often containerd was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.supervisor.starts()
    }

    /// From now on containerd does not come up while its configuration, or a file beside it, contains a text.
    pub fn refuse(&self, file: &Path, text: &str) {
        self.supervisor
            .refuse(Some((file.to_owned(), text.to_owned())));
    }

    /// It comes up again whatever it is configured for.
    pub fn accept(&self) {
        self.supervisor.refuse(None);
    }

    /// What a test compares: everything that an installation may touch.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn tree(&self) -> Result<Tree> {
        Tree::of(&["etc", "opt", "var", "run"].map(|name| self.dir().join(name)))
    }

    /// What containerd reads its configuration from.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn configuration(&self) -> Result<Tree> {
        Tree::of(&[self.dir().join("etc")])
    }

    /// The node program.
    ///
    /// # Errors
    /// When the binaries to be installed were not built.
    pub fn node(&self, command: &str) -> Result<Program> {
        let payload = self.payload()?;
        Ok(self.node_with(command, &payload))
    }

    /// The node program that is to install other binaries.
    #[must_use]
    pub fn node_with(&self, command: &str, payload: &Path) -> Program {
        let path = |path: &Path| path.display().to_string();
        Program::new(vec![
            command.to_owned(),
            "--no-kubernetes".to_owned(),
            "--host=/".to_owned(),
            format!("--payload={}", path(payload)),
            format!("--prefix={}", path(&self.prefix())),
            format!("--containerd-socket={}", path(&self.socket())),
            "--restart=signal".to_owned(),
        ])
        .env("SAMPAN_RESTART_TIMEOUT", "30")
    }

    /// What `status` says.
    ///
    /// # Errors
    /// When it fails.
    pub async fn status(&self) -> Result<Value> {
        let text = self.node("status")?.succeeds().await?;
        serde_json::from_str(&text).context("read the status")
    }

    /// The handlers that containerd runs with, once CRI answers.
    ///
    /// # Errors
    /// When it does not within thirty seconds.
    pub async fn handlers(&self) -> Result<Vec<String>> {
        let info = self.ready().await?;
        let runtimes = info
            .pointer("/config/containerd/runtimes")
            .and_then(Value::as_object)
            .context("CRI tells its runtimes")?;
        Ok(runtimes.keys().cloned().collect())
    }

    /// Waits until CRI answers; returns what it tells.
    ///
    /// # Errors
    /// When it does not within thirty seconds.
    pub async fn ready(&self) -> Result<Value> {
        until("CRI to answer", DEADLINE, async || {
            let Ok(text) = self.crictl(&["info"]).await else {
                return Ok(None);
            };
            Ok(serde_json::from_str(&text).ok())
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// Runs `crictl`.
    ///
    /// # Errors
    /// What it says.
    pub async fn crictl(&self, arguments: &[&str]) -> Result<String> {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = tokio::process::Command::new(&self.tools.crictl);
        command
            .args(["--config", "/dev/null", "--timeout", "10s"])
            .args([
                "--runtime-endpoint",
                &endpoint,
                "--image-endpoint",
                &endpoint,
            ])
            .args(arguments);
        output(command).await
    }

    /// Runs `ctr` in CRI's namespace.
    ///
    /// # Errors
    /// What it says.
    pub async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let ctr = match self.version {
            Version::V2 => &self.tools.containerd_2.ctr,
            Version::V1_7 => &self.tools.containerd_1_7.ctr,
        };
        let mut command = tokio::process::Command::new(ctr);
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        output(command).await
    }

    /// Imports an image for CRI.
    ///
    /// # Errors
    /// What `ctr` says.
    pub async fn import(&self, reference: &str, content: &impl Content) -> Result<()> {
        let archive = self.dir().join("image.tar");
        fs::write(&archive, image::archive(reference, content)?).context("write the archive")?;
        let file = archive.display().to_string();
        let mut arguments = vec!["images", "import", "--all-platforms", "--no-unpack"];
        if self.version == Version::V2 {
            arguments.push("--local");
        }
        arguments.push(&file);
        self.ctr(&arguments).await?;
        fs::remove_file(&archive).context("remove the archive")?;
        until("CRI to see the image", DEADLINE, async || {
            let images = self.crictl(&["images", "-q", reference]).await?;
            Ok((!images.trim().is_empty()).then_some(()))
        })
        .await
    }

    /// Imports a guest of `test/guests` as a CNCF artifact.
    ///
    /// # Errors
    /// When it was not built, or what `ctr` says.
    pub async fn import_guest(&self, reference: &str, guest: &str) -> Result<()> {
        let content = image::cncf(harness::guest(guest)?, "wasip1");
        self.import(reference, &content).await
    }

    /// So many programs were compiled so far, by what the shims have logged.
    ///
    /// # Errors
    /// When it were more, or are less after some seconds.
    pub async fn compiled(&self, times: usize) -> Result<()> {
        harness::logged(|| self.log(), "compiling layer", times).await
    }

    /// The artifacts in the store.
    #[must_use]
    pub fn artifacts(&self) -> usize {
        let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        list(&self.dir().join("var/lib/sampan/artifacts"))
            .flat_map(|engine| list(&engine.path()))
            .count()
    }

    /// Runs a pod of a handler of ours with a container that runs until it is ended; returns the pod's and the
    /// container's id.
    ///
    /// # Errors
    /// What `crictl` says.
    pub async fn pod(&self, handler: &str, name: &str) -> Result<(String, String)> {
        let reference = "localhost/probe:test";
        self.import_guest(reference, "probe.wasm").await?;
        // The kubelet sets them on both.
        let labels = serde_json::json!({
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": "test",
        });
        let pod = serde_json::json!({
            "labels": labels,
            "metadata": { "name": name, "namespace": "test", "uid": name, "attempt": 0 },
            "log_directory": self.dir().join("logs"),
            "linux": {
                "cgroup_parent": self.scratch.cgroup_parent(),
                "security_context": { "namespace_options": { "network": 2 } },
            },
        });
        let container = serde_json::json!({
            "labels": labels,
            "metadata": { "name": "spin", "attempt": 0 },
            "image": { "image": reference },
            "command": ["/", "sleep", "3600000"],
            "log_path": format!("{name}.log"),
        });
        let (pod_file, container_file) = (self.dir().join("pod.json"), self.dir().join("c.json"));
        fs::write(&pod_file, pod.to_string())?;
        fs::write(&container_file, container.to_string())?;
        let (pod_file, container_file) = (
            pod_file.display().to_string(),
            container_file.display().to_string(),
        );
        let pod = self
            .crictl(&["runp", "--runtime", handler, &pod_file])
            .await?;
        let pod = pod.trim().to_owned();
        let container = self
            .crictl(&["create", &pod, &container_file, &pod_file])
            .await?;
        let container = container.trim().to_owned();
        self.crictl(&["start", &container]).await?;
        Ok((pod, container))
    }

    /// The state of a container, as CRI calls it.
    ///
    /// # Errors
    /// What `crictl` says.
    pub async fn state(&self, container: &str) -> Result<String> {
        let text = self.crictl(&["inspect", container]).await?;
        let value: Value = serde_json::from_str(&text)?;
        let state = value.pointer("/status/state").and_then(Value::as_str);
        Ok(state.context("a container has a state")?.to_owned())
    }

    /// Ends and removes a pod.
    ///
    /// # Errors
    /// What `crictl` says.
    pub async fn remove_pod(&self, pod: &str) -> Result<()> {
        self.crictl(&["stopp", pod]).await?;
        self.crictl(&["rmp", pod]).await.map(drop)
    }

    /// Nothing of a canary is left: no pod, no image.
    ///
    /// # Errors
    /// What is left.
    pub async fn no_canary(&self) -> Result<()> {
        let pods = self
            .crictl(&["pods", "-q", "--label", "sampan.dev/canary=true"])
            .await?;
        ensure!(pods.trim().is_empty(), "pods of canaries are left: {pods}");
        let images = self.ctr(&["images", "list", "-q"]).await?;
        ensure!(!images.contains("canary"), "an image is left: {images}");
        let leases = self.ctr(&["leases", "list", "-q"]).await?;
        ensure!(!leases.contains("canary"), "a lease is left: {leases}");
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.dir().join("c.sock")
    }

    fn log(&self) -> String {
        let log = fs::read(self.dir().join("containerd.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_tail(&self) -> String {
        harness::tail(&self.log())
    }
}

/// A configuration as a person writes it: with comments, and without an end of its last line.
fn text(version: Version, config: Config, dir: &Path, tools: &Tools) -> Result<String> {
    // The form that a release reads without migrating it.
    let form = if config == Config::Older {
        Version::V1_7
    } else {
        version
    };
    let number = match form {
        Version::V2 => 3,
        Version::V1_7 => 2,
    };
    let imports = match config {
        Config::Plain | Config::Older => String::new(),
        Config::Importing => "imports = ['conf.d/*.toml'] # more\n".to_owned(),
    };
    let (root, state, socket) = (dir.join("root"), dir.join("state"), dir.join("c.sock"));
    let runc = tools.runc.display();
    let cri = match form {
        Version::V2 => format!(
            "[plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
             sandbox = '{PAUSE}'\n\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             disable_apparmor = true\n\
             restrict_oom_score_adj = true # no CAP_SYS_RESOURCE\n\
             netns_mounts_under_state_dir = true\n\
             \t[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
             \truntime_type = 'io.containerd.runc.v2'\n\
             \t[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
             \tBinaryName = '{runc}'\n"
        ),
        Version::V1_7 => format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = '{PAUSE}'\n\
             disable_apparmor = true\n\
             restrict_oom_score_adj = true # no CAP_SYS_RESOURCE\n\
             netns_mounts_under_state_dir = true\n\
             \t[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             \truntime_type = 'io.containerd.runc.v2'\n\
             \t[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
             \tBinaryName = '{runc}'\n"
        ),
    };
    Ok(format!(
        "# containerd of a test\nversion = {number}\n{imports}root = '{root}'\nstate = '{state}'\n\n\
         [grpc]\naddress = '{socket}'\n[ttrpc]\naddress = '{ttrpc}'\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = '{opt}'\n\
         [plugins.'io.containerd.nri.v1.nri']\ndisable = true\n\n{cri}# the end, without an end of line",
        root = root.display(),
        state = state.display(),
        socket = socket.display(),
        ttrpc = dir.join("c.sock.ttrpc").display(),
        opt = dir.join("containerd-opt").display(),
    ))
}

async fn output(mut command: tokio::process::Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await?;
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
