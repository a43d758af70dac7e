//! A containerd that is a few files and a flag. It reads its configuration when it starts, merges what that imports,
//! and runs what a shim's content says.
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use crate::config::{Effective, plugin};
use crate::containerd::{Containerd, Found, User};
use crate::settings::Restart;

/// The part that outlives a node program.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
    /// The configuration that it reads, below the root.
    pub(super) config: RefCell<PathBuf>,
    /// The drop-in that it merges: where the configuration imports any, or the distribution does it always.
    pub(super) drop_in: RefCell<PathBuf>,
    pub(super) merges: Cell<bool>,
    /// A file from which the distribution makes the configuration at each start, with what it makes without one.
    pub(super) template: RefCell<Option<(PathBuf, String)>>,
    pub(super) up: Cell<bool>,
    pub(super) restarts: Cell<u32>,
    /// It replaces whole sections of plugins when it merges, as 1.7 does.
    pub(super) replaces: Cell<bool>,
    /// It does not come up while its configuration contains this.
    pub(super) refuses: RefCell<Option<String>>,
    /// So many times it comes up with what it had read before: it was starting already.
    pub(super) stale: Cell<u32>,
    /// A directory of binaries that a pod executes.
    pub(super) used: RefCell<Option<String>>,
    pub(super) users: Cell<u32>,
    pub(super) version: RefCell<String>,
    canary: Cell<bool>,
    loaded: RefCell<Map<String, Value>>,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Rc<Self> {
        let machine = Self {
            root: root.to_owned(),
            config: RefCell::new("etc/containerd/config.toml".into()),
            drop_in: RefCell::new("etc/containerd/conf.d/sampan.toml".into()),
            merges: Cell::new(false),
            template: RefCell::default(),
            up: Cell::new(false),
            restarts: Cell::new(0),
            replaces: Cell::new(false),
            refuses: RefCell::default(),
            stale: Cell::new(0),
            used: RefCell::default(),
            users: Cell::new(0),
            version: RefCell::new("v2.3.7".to_owned()),
            canary: Cell::new(false),
            loaded: RefCell::default(),
        };
        machine.start();
        // Whatever its configuration has become since, it runs.
        machine.up.set(true);
        Rc::new(machine)
    }

    /// Reads the configuration, if it does not run.
    pub(super) fn start(&self) {
        if self.up.get() {
            return;
        }
        if let Some((template, base)) = &*self.template.borrow() {
            let text =
                fs::read_to_string(self.root.join(template)).unwrap_or_else(|_| BASE.to_owned());
            fs::write(
                self.root.join(&*self.config.borrow()),
                text.replace(BASE, base),
            )
            .expect("write");
        }
        let config = self.config();
        let refused = self.refuses.borrow();
        let text = String::from_utf8_lossy(&config).into_owned();
        if refused.as_ref().is_some_and(|part| text.contains(part)) {
            return;
        }
        if let Ok(whole) = self.merged(&config, None)
            && let Some(runtimes) = Effective::parse(&whole)
                .ok()
                .as_ref()
                .and_then(Effective::runtimes)
        {
            *self.loaded.borrow_mut() = runtimes.clone();
            self.up.set(true);
        }
    }

    pub(super) fn has(&self, handler: &str) -> bool {
        self.loaded.borrow().contains_key(handler)
    }

    pub(super) fn forget(&self, handler: &str) {
        self.loaded.borrow_mut().remove(handler);
    }

    fn config(&self) -> Vec<u8> {
        fs::read(self.root.join(&*self.config.borrow())).unwrap_or_default()
    }

    /// The configuration with what it imports, as `config dump` prints it.
    fn merged(&self, config: &[u8], drop_in: Option<&[u8]>) -> Result<String> {
        let mut whole: toml::Table = toml::from_str(std::str::from_utf8(config)?)?;
        let name = plugin(
            whole
                .get("version")
                .and_then(toml::Value::as_integer)
                .unwrap_or(1),
        );
        let imports = whole.remove("imports").is_some();
        let ours = fs::read(self.root.join(&*self.drop_in.borrow())).ok();
        // Asked about a drop-in, the one that is there does not count.
        let ours = drop_in
            .map(<[u8]>::to_vec)
            .or(ours.filter(|_| config == self.config()));
        if let Some(text) = ours.filter(|_| imports || self.merges.get()) {
            let other: toml::Table = toml::from_str(std::str::from_utf8(&text)?)?;
            for (name, value) in other
                .get("plugins")
                .and_then(toml::Value::as_table)
                .into_iter()
                .flatten()
            {
                let plugins = whole
                    .entry("plugins")
                    .or_insert_with(|| toml::Table::new().into())
                    .as_table_mut()
                    .context("plugins is a table")?;
                match plugins.get_mut(name) {
                    Some(old) if !self.replaces.get() => merge(old, value),
                    _ => drop(plugins.insert(name.clone(), value.clone())),
                }
            }
        }
        // What every containerd has.
        let mut defaults: toml::Table = toml::from_str(&format!(
            "[plugins.'{name}']\nx = 0\n[plugins.'{name}'.containerd]\ndefault_runtime_name = 'runc'\n\
             [plugins.'{name}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n"
        ))?;
        for (key, value) in whole {
            match defaults.get_mut(&key) {
                Some(old) => merge(old, &value),
                None => drop(defaults.insert(key, value)),
            }
        }
        Ok(toml::to_string(&defaults)?)
    }
}

fn merge(into: &mut toml::Value, from: &toml::Value) {
    match (into, from) {
        (toml::Value::Table(into), toml::Value::Table(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(old) => merge(old, value),
                    None => drop(into.insert(key.clone(), value.clone())),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// How a template takes over what there would be without one.
pub(super) const BASE: &str = "{{ template \"base\" . }}\n";

#[derive(Debug)]
pub(super) struct Fake(Rc<Machine>);

impl Fake {
    pub(super) fn of(machine: &Rc<Machine>) -> Self {
        Self(Rc::clone(machine))
    }

    fn here(&self, path: &Path) -> PathBuf {
        self.0.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Containerd for Fake {
    async fn found(&self) -> Result<Found> {
        ensure!(self.0.up.get(), "containerd does not run");
        Ok(Found {
            layout: "containerd".to_owned(),
            socket: "/run/containerd/containerd.sock".into(),
            pid: 1,
            version: self.0.version.borrow().clone(),
            plugins: Vec::new(),
            config: Path::new("/").join(&*self.0.config.borrow()),
            restart: Restart::Signal,
            notes: String::new(),
        })
    }

    async fn runtimes(&self) -> Result<Map<String, Value>> {
        ensure!(self.0.up.get(), "containerd does not run");
        Ok(self.0.loaded.borrow().clone())
    }

    async fn dump(
        &self,
        config: Option<&[u8]>,
        _: &Path,
        drop_in: Option<&[u8]>,
    ) -> Result<Effective> {
        let mut config = config.unwrap_or(b"version = 3\n").to_vec();
        if drop_in.is_none() && config == self.0.config() {
            // As the real one, whose own drop-in is left out of what it is asked about.
            config.push(b'\n');
        }
        Ok(Effective::parse(&self.0.merged(&config, drop_in)?)?)
    }

    async fn restart(&self, _: &Restart, sent: &dyn Fn()) -> Result<()> {
        self.0.up.set(false);
        self.0.restarts.set(self.0.restarts.get() + 1);
        sent();
        match self.0.stale.get() {
            0 => self.0.start(),
            times => {
                self.0.stale.set(times - 1);
                self.0.up.set(true);
            }
        }
        Ok(())
    }

    async fn canary(&self, handler: &str, running: &dyn Fn()) -> Result<()> {
        let runtimes = self.runtimes().await?;
        let shim = runtimes
            .get(handler)
            .and_then(|runtime| runtime.get("runtime_path"))
            .and_then(Value::as_str)
            .with_context(|| format!("no runtime for `{handler}` is configured"))?;
        let text = fs::read_to_string(self.here(Path::new(shim)))?;
        self.0.canary.set(true);
        for dir in self.data().await? {
            fs::create_dir_all(self.here(&dir))?;
        }
        running();
        self.sweep().await?;
        ensure!(!text.contains("broken"), "the container ended with 1");
        Ok(())
    }

    async fn sweep(&self) -> Result<()> {
        ensure!(self.0.up.get(), "containerd does not run");
        self.0.canary.set(false);
        Ok(())
    }

    async fn users(&self) -> Result<Vec<User>> {
        ensure!(self.0.up.get(), "containerd does not run");
        Ok((0..self.0.users.get())
            .map(|number| User {
                namespace: "k8s.io".to_owned(),
                id: format!("id-{number}"),
                pod: Some(format!("default/pod-{number}")),
            })
            .collect())
    }

    async fn end(&self, users: &[User]) -> Result<()> {
        ensure!(!users.is_empty(), "there is nobody to end");
        self.0.users.set(0);
        Ok(())
    }

    async fn data(&self) -> Result<Vec<PathBuf>> {
        Ok(vec!["/run/sampan".into(), "/var/lib/sampan".into()])
    }

    fn in_use(&self, dir: &Path) -> bool {
        let used = self.0.used.borrow();
        used.as_ref().is_some_and(|name| dir.ends_with(name))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(300)
    }
}
