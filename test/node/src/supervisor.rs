//! Starts containerd, and starts it again when it has ended, as systemd does.
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What is known of it, shared with its thread.
#[derive(Debug, Default)]
struct Shared {
    /// It is to stay away.
    ends: AtomicBool,
    /// It does not come up while its configuration contains this.
    refuses: Mutex<Option<(PathBuf, String)>>,
    pid: AtomicU32,
    starts: AtomicU32,
}

/// A containerd that is there again after its end.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    wake: mpsc::Sender<()>,
}

impl Supervisor {
    pub(crate) fn start(
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (wake, woken) = mpsc::channel();
        let spawn = move || -> Result<Child> {
            let log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .context("open containerd's log")?;
            Command::new(&program)
                .args(&arguments)
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(log.try_clone().context("share containerd's log")?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {}", program.display()))
        };
        let first = spawn()?;
        shared.pid.store(first.id(), Ordering::SeqCst);
        shared.starts.store(1, Ordering::SeqCst);
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut child = first;
            loop {
                drop(child.wait());
                state.pid.store(0, Ordering::SeqCst);
                loop {
                    if state.ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let refused = state
                        .refuses
                        .lock()
                        .ok()
                        .and_then(|refuses| refuses.clone());
                    let refuses = refused.is_some_and(|(path, text)| {
                        std::fs::read_to_string(path).is_ok_and(|config| config.contains(&text))
                    });
                    if !refuses {
                        match spawn() {
                            Ok(next) => {
                                state.pid.store(next.id(), Ordering::SeqCst);
                                state.starts.fetch_add(1, Ordering::SeqCst);
                                child = next;
                                break;
                            }
                            Err(_) => return,
                        }
                    }
                    // As systemd's RestartSec.
                    let _ = woken.recv_timeout(Duration::from_millis(100));
                }
            }
        });
        Ok(Self {
            shared,
            thread: Some(thread),
            wake,
        })
    }

    /// The process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.shared.starts.load(Ordering::SeqCst)
    }

    /// From now on it does not come up while a file contains a text; `None`: it does.
    pub(crate) fn refuse(&self, when: Option<(PathBuf, String)>) {
        if let Ok(mut refuses) = self.shared.refuses.lock() {
            *refuses = when;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        let _ = self.wake.send(());
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
