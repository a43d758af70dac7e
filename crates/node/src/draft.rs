//! What is to be done, worked out before anything is touched: reading and asking alone.
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};

use crate::change::Node;
use crate::config::{self, Candidate, Entry, Kind, Place, Scope};
use crate::containerd::{Containerd, Found};
use crate::files::{self, Facts};
use crate::layout::Layout;
use crate::payload::Payload;
use crate::settings::Restart;
use crate::state::{Before, Changing, Configured, Journal, Phase, Record, State};
use crate::step::Operation;

/// The oldest containerd that has all that the shim needs.
const OLDEST: (u32, u32) = (1, 7);

/// A change that is ready to be made.
#[derive(Debug)]
pub struct Draft {
    /// What is written down of it.
    pub journal: Journal,
    /// Files of the host with what they are to hold.
    pub changes: Vec<Change>,
    /// The binaries; none where they go.
    pub payload: Option<Payload>,
    /// A configuration that is replaced, for the backup.
    pub original: Option<Vec<u8>>,
    /// The handlers that containerd is to have of ours in the end.
    pub entries: Vec<Entry>,
    /// How containerd is restarted.
    pub restart: Restart,
    /// Whether it did not even run.
    pub dead: bool,
}

/// A file of the host that is to be written, or to go.
#[derive(Debug)]
pub struct Change {
    /// Its path on the host.
    pub path: PathBuf,
    /// What it is to hold; `None` if it is to go.
    pub bytes: Option<Vec<u8>>,
    /// When its content was last changed, if it is to look as before.
    pub modified: Option<SystemTime>,
}

impl<C: Containerd> Node<C> {
    /// What installing is to do.
    ///
    /// # Errors
    /// Why it cannot be done; nothing was touched.
    pub async fn draft_install(&self, payload: &Payload) -> Result<Draft> {
        let found = self.containerd.found().await?;
        supported(&found.version)?;
        let record = self.state.record()?;
        let as_it_is = || format!("read {} as it is: repair it first", found.config.display());
        let config = self.read_bare(&found.config)?;
        config::parse(config.as_deref().unwrap_or_default())
            .and_then(|document| config::version(&document))
            .with_context(as_it_is)?;
        let before = self
            .containerd
            .dump(config.as_deref(), &found.config, None)
            .await
            .with_context(as_it_is)?;
        ensure!(
            before.runtimes().is_some(),
            "containerd has no CRI: take `cri` out of disabled_plugins in {}",
            found.config.display()
        );
        let entries: Vec<Entry> = self
            .settings
            .runtimeclasses
            .iter()
            .map(|handler| Entry {
                handler: handler.clone(),
                shim: self.binaries().join(Scope::of_handler(handler).program()),
                systemd_cgroup: before.systemd_cgroup(),
            })
            .collect();
        config::free(&before, &entries)?;

        let layout = self.layout;
        let template = self.template(config.as_deref())?;
        let place = Place {
            config: config.as_deref(),
            config_path: &found.config,
            drop_in_dir: layout.drop_in_dir.map(Path::new),
            template: template
                .as_ref()
                .map(|(path, bytes)| (path.as_path(), bytes.as_slice())),
            newest: newest(&found.version),
        };
        let mut candidates = config::candidates(&place, &entries)
            .with_context(|| format!("read {}", found.config.display()))?;
        if let Some(record) = &record {
            // What worked is kept: only if it is not offered any more is it another.
            candidates.sort_by_key(|candidate| candidate.path != record.config.path);
        }
        let chosen = self.choose(&found, &before, candidates, &entries).await?;

        let bare = match chosen.kind {
            Kind::DropIn => Vec::new(),
            Kind::Block => config::remove(&chosen.bytes)?,
        };
        let here = self.host.path(&chosen.path)?;
        let facts = Facts::of(&here)?;
        let known = record
            .as_ref()
            .map(|record| &record.config)
            .filter(|known| known.path == chosen.path && known.bare == files::digest(&bare));
        let original = match (chosen.kind, known, &facts) {
            (Kind::DropIn, ..) | (_, None, None) => None,
            (Kind::Block, Some(known), _) => known.original.clone(),
            (Kind::Block, None, Some(facts)) => Some(Facts {
                digest: files::digest(&bare),
                ..facts.clone()
            }),
        };
        let configured = Configured {
            path: chosen.path.clone(),
            kind: chosen.kind,
            digest: files::digest(&chosen.bytes),
            bare: files::digest(&bare),
            backup: original.as_ref().map(State::backup_name),
            original,
        };
        let mut data = Vec::new();
        for dir in self.containerd.data().await? {
            let ours = record
                .as_ref()
                .is_some_and(|record| record.data.contains(&dir));
            if ours || !self.host.exists(&dir) {
                data.push(dir);
            }
        }
        let mut changes = self.strays(
            &found.config,
            config.as_deref(),
            record.as_ref(),
            Some(&chosen.path),
        )?;
        changes.push(Change {
            path: chosen.path.clone(),
            bytes: Some(chosen.bytes),
            modified: None,
        });
        let parent = chosen.path.parent().unwrap_or(Path::new("/"));
        let made = self.missing(parent)?;
        let mut all_made = record
            .as_ref()
            .map(|record| record.made.clone())
            .unwrap_or_default();
        all_made.extend(made.iter().cloned());
        let next = Record {
            layout: found.layout.clone(),
            hash: payload.hash.clone(),
            files: payload.files.clone(),
            entries: entries.clone(),
            containerd: found.version.clone(),
            restart: found.restart.clone().into(),
            versions: payload.versions.clone(),
            made: all_made,
            data,
            config: configured,
        };
        Ok(Draft {
            payload: Some(payload.clone()),
            original: next.config.backup.is_some().then_some(bare),
            journal: self.journal(Operation::Install, record, Some(next), &changes, made)?,
            changes,
            entries,
            restart: found.restart,
            dead: false,
        })
    }

    /// What uninstalling is to do. It needs no containerd that answers.
    ///
    /// # Errors
    /// What cannot be read; nothing was touched.
    pub async fn draft_uninstall(&self) -> Result<Draft> {
        let record = self.state.record()?;
        let found = self.containerd.found().await;
        let config_path = match &found {
            Ok(found) => found.config.clone(),
            Err(_) => self
                .settings
                .containerd_config
                .clone()
                .unwrap_or_else(|| self.layout.config.into()),
        };
        let config = self.read_bare(&config_path)?;
        let changes = self.strays(&config_path, config.as_deref(), record.as_ref(), None)?;
        if found.is_ok() && !changes.is_empty() {
            // It has to start again with what is left: somebody may have written since what it cannot start with.
            self.containerd
                .dump(config.as_deref(), &config_path, None)
                .await
                .with_context(|| {
                    format!(
                        "read {} without the handlers: nothing was touched; repair it first",
                        config_path.display()
                    )
                })?;
        }
        let restart = match (&found, &record) {
            (Ok(found), _) => found.restart.clone(),
            (Err(_), Some(record)) => record.restart.parse().unwrap_or(Restart::None),
            (Err(_), None) => Restart::None,
        };
        Ok(Draft {
            journal: self.journal(
                Operation::Uninstall,
                record.clone(),
                record,
                &changes,
                Vec::new(),
            )?,
            changes,
            payload: None,
            original: None,
            entries: Vec::new(),
            restart,
            dead: found.is_err(),
        })
    }

    fn journal(
        &self,
        operation: Operation,
        record: Option<Record>,
        next: Option<Record>,
        changes: &[Change],
        made: Vec<PathBuf>,
    ) -> Result<Journal> {
        let mut changing = Vec::new();
        for change in changes {
            changing.push(Changing {
                path: change.path.clone(),
                before: Facts::of(&self.host.path(&change.path)?)?,
                after: change.bytes.as_deref().map(files::digest),
            });
        }
        Ok(Journal {
            operation,
            step: operation.steps()[0],
            phase: Phase::Begun,
            before: Before {
                files: changing,
                current: files::pointed(&self.current()?)?,
                record,
            },
            next,
            made,
        })
    }

    /// The first way that containerd itself reads as our handlers and nothing else.
    async fn choose(
        &self,
        found: &Found,
        before: &config::Effective,
        candidates: Vec<Candidate>,
        entries: &[Entry],
    ) -> Result<Candidate> {
        let mut reasons = Vec::new();
        for candidate in candidates {
            let path = candidate.path.display().to_string();
            let there = files::read(&self.host.path(&candidate.path)?)?;
            if candidate.kind == Kind::DropIn
                && there
                    .as_deref()
                    .is_some_and(|bytes| !config::is_ours(bytes))
            {
                reasons.push(format!("{path}: it is there and not ours"));
                continue;
            }
            let (config, drop_in) = &candidate.asked;
            let after = self
                .containerd
                .dump(config.as_deref(), &found.config, drop_in.as_deref())
                .await;
            let proven = after.and_then(|after| Ok(config::prove(before, &after, entries)?));
            match proven {
                Ok(()) => return Ok(candidate),
                Err(error) => reasons.push(format!("{path}: {error:#}")),
            }
        }
        bail!(
            "find a way to tell containerd of the handlers: {}",
            reasons.join("; ")
        )
    }

    /// The template of this distribution for a configuration, with what it holds without our block.
    fn template(&self, config: Option<&[u8]>) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let version = config::version(&config::parse(config.unwrap_or_default())?)?;
        let Some(template) = self.layout.template(version) else {
            return Ok(None);
        };
        let path = PathBuf::from(template.path);
        let bytes = match (self.read_bare(&path)?, template.fresh) {
            (Some(bytes), _) => bytes,
            (None, Some(fresh)) => fresh.as_bytes().to_vec(),
            (None, None) => bail!(
                "find {}, from which {} makes containerd's configuration",
                template.path,
                self.layout.name
            ),
        };
        Ok(Some((path, bytes)))
    }

    /// A file of the host without our block; `None` where there is none.
    fn read_bare(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = files::read(&self.host.path(path)?)? else {
            return Ok(None);
        };
        let bare = config::remove(&bytes).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(bare))
    }

    /// Every file that has something of ours, but for `except`, as it is to be without.
    fn strays(
        &self,
        config_path: &Path,
        config: Option<&[u8]>,
        record: Option<&Record>,
        except: Option<&Path>,
    ) -> Result<Vec<Change>> {
        let Layout {
            templates,
            drop_in_dir,
            ..
        } = self.layout;
        let mut all = config::haunts(&Place {
            config,
            config_path,
            drop_in_dir: drop_in_dir.map(Path::new),
            template: None,
            newest: 3,
        });
        if !templates.is_empty() {
            // The distribution makes that one from the others.
            all.retain(|(_, path)| path != config_path);
        }
        all.extend(
            templates
                .iter()
                .map(|template| (Kind::Block, template.path.into())),
        );
        all.extend(record.map(|record| (record.config.kind, record.config.path.clone())));
        let mut changes: Vec<Change> = Vec::new();
        for (kind, path) in all {
            if except == Some(path.as_path()) || changes.iter().any(|change| change.path == path) {
                continue;
            }
            let Some(bytes) = files::read(&self.host.path(&path)?)? else {
                continue;
            };
            let known = record
                .map(|record| &record.config)
                .filter(|known| known.path == path);
            let change = match kind {
                Kind::DropIn if config::is_ours(&bytes) => Change {
                    path,
                    bytes: None,
                    modified: None,
                },
                Kind::Block if config::holds(&bytes) => {
                    let bare = config::remove(&bytes)
                        .with_context(|| format!("read {}", path.display()))?;
                    let same = known.filter(|known| known.bare == files::digest(&bare));
                    Change {
                        path,
                        // There was none before us, and nobody has made it theirs since.
                        bytes: match same {
                            Some(known) if known.original.is_none() => None,
                            _ => Some(bare),
                        },
                        modified: same
                            .and_then(|known| known.original.as_ref())
                            .map(|facts| facts.modified),
                    }
                }
                _ => continue,
            };
            changes.push(change);
        }
        Ok(changes)
    }

    /// Directories of the host that are not there, as the host calls them.
    fn missing(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for dir in dir.ancestors() {
            if self.host.path(dir)?.exists() {
                break;
            }
            missing.push(dir.to_owned());
        }
        missing.reverse();
        Ok(missing)
    }
}

/// Which version of configuration this containerd writes itself.
fn newest(version: &str) -> i64 {
    match numbers(version) {
        Some((1, _)) => 2,
        _ => 3,
    }
}

fn supported(version: &str) -> Result<()> {
    match numbers(version) {
        Some(numbers) => ensure!(
            numbers >= OLDEST,
            "containerd {version} is too old: it takes {}.{} or newer",
            OLDEST.0,
            OLDEST.1
        ),
        None => tracing::warn!("containerd calls its version `{version}`: taking it for a new one"),
    }
    Ok(())
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether containerd runs with these handlers, and with no other whose program is of this directory.
#[must_use]
pub fn fits(
    runtimes: &serde_json::Map<String, serde_json::Value>,
    entries: &[Entry],
    binaries: &Path,
) -> bool {
    let wanted = |name: &str| entries.iter().any(|entry| entry.handler == name);
    entries.iter().all(|entry| {
        runtimes
            .get(&entry.handler)
            .is_some_and(|runtime| entry.is(runtime))
    }) && runtimes
        .iter()
        .all(|(name, runtime)| wanted(name) || !config::lies_in(runtime, binaries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_come() {
        for (version, oldest, newest_config) in [
            ("v2.3.7", true, 3),
            ("2.0.0-rc.1", true, 3),
            ("v1.7.35", true, 2),
            ("1.7.27+unknown", true, 2),
            ("v1.6.38", false, 2),
            ("v2.1.5-k3s1.33", true, 3),
        ] {
            assert_eq!(supported(version).is_ok(), oldest, "{version}");
            assert_eq!(newest(version), newest_config, "{version}");
        }
        assert!(supported("unknown").is_ok());
    }
}
