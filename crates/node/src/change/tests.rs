//! Whole changes, with a containerd that obeys the text of the trait and real files: interrupted at every point, and
//! failed at every step.
mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use clap::Parser as _;
use futures::FutureExt as _;

use self::fake::{Fake, Machine};
use super::*;
use crate::payload::{DENSE, SHIM};
use crate::settings::Arguments;
use crate::step::points;

const ORIGINAL: &str = "version = 2\n# theirs, without an end";

/// A node's files with a containerd, before anything is installed.
struct Stage {
    root: tempfile::TempDir,
    machine: std::rc::Rc<Machine>,
}

impl Stage {
    fn new(config: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for dir in ["etc/containerd/conf.d", "opt", "var/lib", "run", "payload"] {
            fs::create_dir_all(root.path().join(dir)).expect("make");
        }
        fs::write(root.path().join("etc/containerd/config.toml"), config).expect("write");
        for name in [SHIM, "sampan-runner"] {
            fs::write(
                root.path().join("payload").join(name),
                format!("{name} one"),
            )
            .expect("write");
        }
        let machine = Machine::new(root.path());
        Self { root, machine }
    }

    fn payload(&self) -> Payload {
        Payload::of(&self.root.path().join("payload"), &[SHIM, "sampan-runner"]).expect("there")
    }

    fn node(&self, fail_at: &str) -> Node<Fake> {
        let root = self.root.path().display().to_string();
        let line = [
            "sampan-node",
            "install",
            "--host",
            &root,
            "--fail-at",
            fail_at,
        ];
        let settings = Arguments::try_parse_from(line)
            .expect("a command line")
            .settings;
        let cluster = Cluster::Log(std::cell::RefCell::default());
        let fake = Fake::of(&self.machine);
        let mut node = Node::new(settings, fake, cluster).expect("a node");
        node.failures.unwinds = true;
        node
    }

    async fn install(&self, fail_at: &str) -> Result<Record> {
        self.node(fail_at).install(&self.payload()).await
    }

    async fn uninstall(&self, fail_at: &str) -> Result<()> {
        self.node(fail_at).uninstall(Uninstall::default()).await
    }

    /// Kind, mode, and content with its time, of everything but the payload.
    fn tree(&self) -> BTreeMap<String, String> {
        fn walk(dir: &Path, root: &Path, tree: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(dir).expect("list") {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("there");
                let name = path
                    .strip_prefix(root)
                    .expect("below")
                    .display()
                    .to_string();
                if name == "payload" {
                    continue;
                }
                let what = if meta.is_dir() {
                    walk(&path, root, tree);
                    String::new()
                } else if meta.is_symlink() {
                    fs::read_link(&path).expect("a link").display().to_string()
                } else {
                    let content = fs::read(&path).expect("a file");
                    format!(
                        "{} {}.{}",
                        files::digest(&content),
                        meta.mtime(),
                        meta.mtime_nsec()
                    )
                };
                tree.insert(name, format!("{:o} {what}", meta.mode()));
            }
        }
        let mut tree = BTreeMap::new();
        walk(self.root.path(), self.root.path(), &mut tree);
        tree
    }

    fn config(&self) -> String {
        fs::read_to_string(self.root.path().join("etc/containerd/config.toml")).expect("there")
    }

    /// What containerd would read from all of its files.
    fn configured(&self) -> bool {
        let drop_in = self.root.path().join("etc/containerd/conf.d/sampan.toml");
        self.config().contains("runtimes.sampan]") || drop_in.exists()
    }

    async fn is_installed(&self) {
        let node = self.node("");
        let record = node.state.record().expect("readable").expect("installed");
        node.verify(&record, true).await.expect("it works");
        assert!(node.state.journal().expect("readable").is_none());
        assert!(self.configured());
    }
}

const IMPORTING: &str = "version = 3\nimports = ['conf.d/*.toml']\n";

#[tokio::test]
async fn installing_twice_restarts_once_and_uninstalling_leaves_what_was() {
    for config in [ORIGINAL, IMPORTING] {
        let stage = Stage::new(config);
        let before = stage.tree();
        stage.install("").await.expect("installs");
        stage.is_installed().await;
        let installed = stage.tree();
        assert_eq!(stage.machine.restarts.get(), 1);
        assert_eq!(
            config == IMPORTING,
            stage.config() == config,
            "a drop-in is enough"
        );
        stage.install("").await.expect("again");
        assert_eq!(stage.machine.restarts.get(), 1);
        let again = stage.tree();
        for (name, what) in &installed {
            if !name.contains("state/") {
                assert_eq!(again.get(name), Some(what), "{name}");
            }
        }
        stage.uninstall("").await.expect("uninstalls");
        assert_eq!(stage.tree(), before);
        assert_eq!(stage.machine.restarts.get(), 2);
        stage.uninstall("").await.expect("there is nothing to do");
        assert_eq!(stage.tree(), before);
    }
}

#[tokio::test]
async fn a_directory_for_the_drop_in_goes_with_it() {
    let stage = Stage::new(IMPORTING);
    fs::remove_dir(stage.root.path().join("etc/containerd/conf.d")).expect("remove");
    let before = stage.tree();
    stage.install("fail:canary").await.expect_err("fails");
    assert_eq!(without_state(stage.tree()), before);
    stage.install("").await.expect("installs");
    fs::write(stage.root.path().join("payload").join(SHIM), "shim two").expect("write");
    stage.install("").await.expect("upgrades");
    stage.uninstall("").await.expect("uninstalls");
    assert_eq!(stage.tree(), before);
    // Wherever the uninstallation was killed.
    for point in points()
        .iter()
        .filter(|point| point.starts_with("uninstall"))
    {
        stage.install("").await.expect("installs");
        killed(stage.uninstall(&provoked(point)), point).await;
        stage
            .uninstall("")
            .await
            .unwrap_or_else(|error| panic!("{point}: {error:#}"));
        assert_eq!(stage.tree(), before, "{point}");
    }
}

#[tokio::test]
async fn a_containerd_that_replaces_sections_gets_a_block() {
    let stage = Stage::new(
        "version = 2\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.grpc.v1.cri']\nx = 1\n",
    );
    let before = stage.tree();
    stage.machine.replaces.set(true);
    stage.install("").await.expect("installs");
    stage.is_installed().await;
    assert!(stage.config().contains("runtimes.sampan]"));
    stage.uninstall("").await.expect("uninstalls");
    assert_eq!(stage.tree(), before);
}

/// Runs something up to the point where it is killed.
async fn killed<T>(work: impl Future<Output = Result<T>>, point: &str) {
    match AssertUnwindSafe(work).catch_unwind().await {
        Err(_) => {}
        Ok(Ok(_)) => panic!("{point} was not reached"),
        Ok(Err(error)) => panic!("{point} was not reached: {error:#}"),
    }
}

/// What lets an operation fail as late as it can be taken back, so that all of it is.
fn provoked(point: &str) -> String {
    match (point.starts_with("install"), point.ends_with(":undo")) {
        (true, true) => format!("fail:record,{point}"),
        (false, true) => format!("fail:answer,{point}"),
        (_, false) => point.to_owned(),
    }
}

#[tokio::test]
async fn an_installation_killed_anywhere_is_repaired_by_the_next() {
    for config in [ORIGINAL, IMPORTING] {
        for point in points().iter().filter(|point| point.starts_with("install")) {
            let stage = Stage::new(config);
            let before = stage.tree();
            killed(stage.install(&provoked(point)), point).await;
            // All of it or nothing, and containerd can be started with either.
            assert!(stage.configured() || stage.config() == config, "{point}");
            stage.machine.start();
            assert!(stage.machine.up.get(), "{point}");
            stage
                .install("")
                .await
                .unwrap_or_else(|error| panic!("{point}: {error:#}"));
            stage.is_installed().await;
            stage
                .uninstall("")
                .await
                .unwrap_or_else(|error| panic!("{point}: {error:#}"));
            assert_eq!(stage.tree(), before, "{point}");
        }
    }
}

#[tokio::test]
async fn an_installation_killed_anywhere_can_be_uninstalled() {
    for point in points().iter().filter(|point| point.starts_with("install")) {
        let stage = Stage::new(ORIGINAL);
        let before = stage.tree();
        killed(stage.install(&provoked(point)), point).await;
        stage
            .uninstall("")
            .await
            .unwrap_or_else(|error| panic!("{point}: {error:#}"));
        assert_eq!(stage.tree(), before, "{point}");
        assert!(!stage.machine.has("sampan"), "{point}");
    }
}

#[tokio::test]
async fn an_uninstallation_killed_anywhere_is_finished_or_taken_back_by_the_next() {
    for point in points()
        .iter()
        .filter(|point| point.starts_with("uninstall"))
    {
        for again in [false, true] {
            let stage = Stage::new(ORIGINAL);
            let before = stage.tree();
            stage.install("").await.expect("installs");
            killed(stage.uninstall(&provoked(point)), point).await;
            assert!(stage.configured() || stage.config() == ORIGINAL, "{point}");
            if again {
                stage
                    .install("")
                    .await
                    .unwrap_or_else(|error| panic!("{point}: {error:#}"));
                stage.is_installed().await;
            }
            stage
                .uninstall("")
                .await
                .unwrap_or_else(|error| panic!("{point}: {error:#}"));
            assert_eq!(stage.tree(), before, "{point}");
        }
    }
}

/// The state directory stays, since the program will try again.
fn without_state(mut tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    tree.retain(|name, _| !name.starts_with("opt/sampan"));
    tree
}

#[tokio::test]
async fn every_step_that_fails_is_taken_back() {
    let steps = Operation::Install.steps().iter();
    for step in steps.filter(|step| **step < Operation::Install.commits_at()) {
        let stage = Stage::new(ORIGINAL);
        let before = stage.tree();
        let node = stage.node(&format!("fail:{step}"));
        let error = node.install(&stage.payload()).await.expect_err("fails");
        let message = format!("{error:#}");
        assert!(
            message.contains(&format!("step install:{step}")) && message.contains("rolled back"),
            "{message}"
        );
        assert_eq!(without_state(stage.tree()), before, "{step}");
        assert!(
            !stage.machine.has("sampan") && stage.machine.up.get(),
            "{step}"
        );
        assert!(stage.node("").state.record().expect("readable").is_none());
        let status = stage.node("").status().expect("readable");
        assert_eq!(status.state, "absent");
        assert!(status.last.and_then(|last| last.reason).is_some());
        stage.install("").await.expect("installs the next time");
        stage.is_installed().await;
        stage.uninstall("").await.expect("uninstalls");
        assert_eq!(stage.tree(), before, "{step}");
    }
}

#[tokio::test]
async fn the_label_is_off_before_anything_breaks_and_on_when_all_works() {
    let log = |node: &Node<Fake>| match &node.cluster {
        Cluster::Log(log) => log.borrow().join(" "),
        _ => panic!("a log"),
    };
    let stage = Stage::new(ORIGINAL);
    let node = stage.node("");
    node.install(&stage.payload()).await.expect("installs");
    assert_eq!(log(&node), "lease unlabel label SampanInstalled");
    // Nothing has to be restarted: the label stays.
    let node = stage.node("");
    node.install(&stage.payload()).await.expect("installs");
    assert_eq!(log(&node), "label SampanInstalled");
    // An upgrade that fails: off, and on again once what was before has been tried.
    fs::write(stage.root.path().join("payload").join(SHIM), "shim two").expect("write");
    let node = stage.node("fail:canary");
    node.install(&stage.payload()).await.expect_err("fails");
    assert_eq!(
        log(&node),
        "unlabel label SampanRolledBack SampanInstallFailed"
    );
    let node = stage.node("");
    node.uninstall(Uninstall::default())
        .await
        .expect("uninstalls");
    assert_eq!(log(&node), "unlabel lease clear SampanUninstalled");
}

#[tokio::test]
async fn a_containerd_that_does_not_come_back_gets_its_configuration_back() {
    let stage = Stage::new(ORIGINAL);
    let before = stage.tree();
    *stage.machine.refuses.borrow_mut() = Some("runtimes.sampan]".to_owned());
    let error = stage.install("").await.expect_err("fails");
    assert!(
        format!("{error:#}").contains("has not come back"),
        "{error:#}"
    );
    assert!(stage.machine.up.get() && !stage.machine.has("sampan"));
    assert_eq!(without_state(stage.tree()), before);
    assert_eq!(stage.config(), ORIGINAL);
}

#[tokio::test]
async fn a_containerd_that_was_starting_already_is_restarted_once_more() {
    let stage = Stage::new(ORIGINAL);
    stage.machine.stale.set(1);
    stage.install("").await.expect("installs");
    stage.is_installed().await;
    assert_eq!(stage.machine.restarts.get(), 2);
    // On the way back as well.
    stage.uninstall("").await.expect("uninstalls");
    stage.machine.stale.set(0);
    let node = stage.node("fail:canary");
    let before = stage.tree();
    node.install(&stage.payload()).await.expect_err("fails");
    assert_eq!(without_state(stage.tree()), before);
    assert!(!stage.machine.has("sampan"));
}

#[tokio::test]
async fn an_upgrade_swaps_the_link_and_keeps_what_runs() {
    let stage = Stage::new(ORIGINAL);
    let first = stage.install("").await.expect("installs");
    fs::write(stage.root.path().join("payload").join(SHIM), "shim two").expect("write");
    *stage.machine.used.borrow_mut() = Some(first.hash.clone());
    let second = stage.install("").await.expect("upgrades");
    assert_ne!(first.hash, second.hash);
    assert_eq!(
        stage.machine.restarts.get(),
        1,
        "the configuration is the same"
    );
    let prefix = stage.root.path().join("opt/sampan");
    assert!(prefix.join(&first.hash).join(SHIM).exists());
    assert_eq!(
        fs::read_to_string(prefix.join("current").join(SHIM)).expect("there"),
        "shim two"
    );
    *stage.machine.used.borrow_mut() = None;
    stage.install("").await.expect("again");
    assert!(!prefix.join(&first.hash).exists());
}

#[tokio::test]
async fn an_upgrade_that_does_not_work_leaves_what_did() {
    let stage = Stage::new(ORIGINAL);
    let first = stage.install("").await.expect("installs");
    fs::write(stage.root.path().join("payload").join(SHIM), "broken").expect("write");
    let error = stage.install("").await.expect_err("the canary fails");
    assert!(format!("{error:#}").contains("works"), "{error:#}");
    stage.is_installed().await;
    let record = stage
        .node("")
        .state
        .record()
        .expect("readable")
        .expect("there");
    assert_eq!(record, first);
    let prefix = stage.root.path().join("opt/sampan");
    let names: Vec<_> = fs::read_dir(prefix).expect("list").flatten().collect();
    assert_eq!(names.len(), 3, "current, one directory, state: {names:?}");
}

#[tokio::test]
async fn what_runs_is_a_reason_to_refuse() {
    let stage = Stage::new(ORIGINAL);
    stage.install("").await.expect("installs");
    stage.machine.users.set(2);
    let error = stage.uninstall("").await.expect_err("refuses");
    assert!(format!("{error:#}").contains("default/pod-1"), "{error:#}");
    stage.is_installed().await;
    let node = stage.node("");
    let force = Uninstall {
        force: true,
        ..Uninstall::default()
    };
    node.uninstall(force).await.expect("ends them");
    assert_eq!(stage.machine.users.get(), 0);
}

#[tokio::test]
async fn what_is_wrong_already_is_not_touched() {
    for (config, part) in [
        ("version = \n", "parse the configuration"),
        ("version = 7\n", "version 7"),
        (
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.sampan]\nruntime_type = 'x'\n",
            "already",
        ),
    ] {
        let stage = Stage::new(config);
        let before = stage.tree();
        let error = format!("{:#}", stage.install("").await.expect_err("refuses"));
        assert!(
            error.contains(part) && error.contains("nothing was touched"),
            "{error}"
        );
        assert_eq!(without_state(stage.tree()), before);
        assert_eq!(stage.machine.restarts.get(), 0);
    }
}

#[tokio::test]
async fn what_others_write_meanwhile_stays() {
    let stage = Stage::new(ORIGINAL);
    let path = stage.root.path().join("etc/containerd/config.toml");
    stage.install("").await.expect("installs");
    let edited = format!("# a line of theirs\n{}[theirs]\n", stage.config());
    fs::write(&path, &edited).expect("write");
    let payload = stage.payload();
    let look = stage.node("").look(&payload, &mut Default::default()).await;
    assert_eq!(look.expect("looks"), crate::keep::Look::Fine);
    stage.uninstall("").await.expect("uninstalls");
    assert_eq!(
        stage.config(),
        format!("# a line of theirs\n{ORIGINAL}\n[theirs]\n")
    );

    // And in the middle of an installation that was killed.
    killed(stage.install("install:restart:before"), "restart").await;
    fs::write(&path, "version = 2\n# all new\n").expect("write");
    stage.install("").await.expect("installs");
    stage.is_installed().await;
    stage.uninstall("").await.expect("uninstalls");
    assert_eq!(stage.config(), "version = 2\n# all new\n");
}

#[tokio::test]
async fn drift_is_noticed_and_repaired() {
    use crate::keep::{Look, Seen};
    let stage = Stage::new(ORIGINAL);
    let (node, payload) = (stage.node(""), stage.payload());
    let mut seen = Seen::default();
    let look = async |seen: &mut Seen| node.look(&payload, seen).await.expect("looks");
    assert!(matches!(look(&mut seen).await, Look::Due(_)));
    let record = stage.install("").await.expect("installs");
    assert_eq!(look(&mut seen).await, Look::Fine);

    let root = stage.root.path();
    let binaries = root.join("opt/sampan").join(&record.hash);
    let (shim, dense) = (binaries.join(SHIM), binaries.join(DENSE));
    let damages: [(&str, &dyn Fn()); 8] = [
        ("shim", &|| fs::write(&shim, "another's").expect("write")),
        (DENSE, &|| fs::remove_file(&dense).expect("remove")),
        (DENSE, &|| {
            fs::remove_file(&dense).expect("remove");
            fs::write(&dense, "no link").expect("write");
        }),
        ("current", &|| {
            fs::remove_file(root.join("opt/sampan/current")).expect("remove")
        }),
        ("config.toml", &|| {
            fs::write(root.join("etc/containerd/config.toml"), ORIGINAL).expect("write");
        }),
        ("containerd was", &|| {
            *stage.machine.version.borrow_mut() = "v2.9.9".to_owned()
        }),
        ("handlers", &|| stage.machine.forget("sampan")),
        ("handlers", &|| stage.machine.forget("sampan-dense")),
    ];
    for (part, damage) in damages {
        damage();
        match look(&mut seen).await {
            Look::Drift(what) => assert!(what.contains(part), "{what}"),
            other => panic!("{part}: {other:?}"),
        }
        stage.install("").await.expect("repairs");
        assert_eq!(look(&mut seen).await, Look::Fine, "{part}");
        stage.is_installed().await;
    }
}

/// The files of a distribution, and what its containerd reads.
struct Distribution {
    dirs: &'static [&'static str],
    config: &'static str,
    template: Option<&'static str>,
    /// What the template holds before us.
    given: Option<&'static str>,
    drop_in: Option<&'static str>,
}

const DISTRIBUTIONS: &[Distribution] = &[
    // k3s and RKE2 write their configuration at each start, from a template that need not be there.
    Distribution {
        dirs: &[
            "etc/rancher/k3s",
            "var/lib/rancher/k3s/agent/etc/containerd",
        ],
        config: "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        template: Some("var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"),
        given: None,
        drop_in: None,
    },
    Distribution {
        dirs: &[
            "etc/rancher/rke2",
            "var/lib/rancher/rke2/agent/etc/containerd",
        ],
        config: "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        template: Some("var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl"),
        given: Some("# an administrator's\n{{ template \"base\" . }}\n"),
        drop_in: None,
    },
    Distribution {
        dirs: &["var/snap/microk8s/current/args"],
        config: "var/snap/microk8s/current/args/containerd.toml",
        template: Some("var/snap/microk8s/current/args/containerd-template.toml"),
        given: Some("{{ template \"base\" . }}\n"),
        drop_in: None,
    },
    Distribution {
        dirs: &["etc/k0s/containerd.d", "var/lib/k0s"],
        config: "etc/k0s/containerd.toml",
        template: None,
        given: None,
        drop_in: Some("etc/k0s/containerd.d/sampan.toml"),
    },
];

impl Distribution {
    fn stage(&self) -> Stage {
        let stage = Stage::new(ORIGINAL);
        let root = stage.root.path();
        for dir in self.dirs {
            fs::create_dir_all(root.join(dir)).expect("make");
        }
        let base = "version = 3\n";
        fs::write(root.join(self.config), base).expect("write");
        let machine = &stage.machine;
        *machine.config.borrow_mut() = self.config.into();
        if let Some(template) = self.template {
            if let Some(given) = self.given {
                fs::write(root.join(template), given).expect("write");
            }
            *machine.template.borrow_mut() = Some((template.into(), base.to_owned()));
        }
        if let Some(drop_in) = self.drop_in {
            *machine.drop_in.borrow_mut() = drop_in.into();
            machine.merges.set(true);
        }
        machine.up.set(false);
        machine.start();
        stage
    }

    /// The tree, without the time at which the distribution wrote its configuration last.
    fn tree(&self, stage: &Stage) -> BTreeMap<String, String> {
        let mut tree = stage.tree();
        let config = fs::read_to_string(stage.root.path().join(self.config)).expect("there");
        tree.insert(self.config.to_owned(), config);
        tree
    }
}

#[tokio::test]
async fn distributions_that_write_their_configuration_are_told_by_their_own_files() {
    for distribution in DISTRIBUTIONS {
        let stage = distribution.stage();
        let before = distribution.tree(&stage);
        stage.install("").await.expect("installs");
        let node = stage.node("");
        let record = node.state.record().expect("readable").expect("installed");
        node.verify(&record, true).await.expect("it works");
        let path = distribution
            .template
            .or(distribution.drop_in)
            .expect("a file");
        assert_eq!(record.config.path, Path::new("/").join(path));
        assert_eq!(stage.machine.restarts.get(), 1);
        // It stays when the distribution starts anew, and a second installation finds all in place.
        stage.machine.up.set(false);
        stage.machine.start();
        stage.install("").await.expect("again");
        assert_eq!(stage.machine.restarts.get(), 1, "{path}");
        stage.uninstall("").await.expect("uninstalls");
        assert_eq!(distribution.tree(&stage), before, "{path}");

        for point in points().iter().filter(|point| {
            point.starts_with("install:configure") || point.starts_with("install:re")
        }) {
            killed(stage.install(&provoked(point)), point).await;
            stage.machine.start();
            stage
                .install("")
                .await
                .unwrap_or_else(|error| panic!("{path} {point}: {error:#}"));
            stage
                .uninstall("")
                .await
                .unwrap_or_else(|error| panic!("{path} {point}: {error:#}"));
            assert_eq!(distribution.tree(&stage), before, "{path} {point}");
        }
    }
}
