//! What went wrong with pods becomes events of them: the same thing once, with how often it was, and no more of them than
//! people and the API server can take.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plan::incident::{INCIDENTS, Incident, MOST, Reason};

use crate::metrics::Metrics;

/// Between an event's first and second writing; each further time is twice as long.
const AGAIN: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Kubernetes forgets an event an hour after it was written last, and so does this.
const MEMORY: Duration = Duration::from_secs(3600);
/// Events that are written at once, and how many more each second.
const BURST: f64 = 25.0;
const RATE: f64 = 1.0;
/// Things that are remembered.
const REMEMBERED: usize = 4096;
/// Bytes of a file that are read; the supervisor writes a tenth of it.
const FILE: u64 = 64 << 10;

/// What is the same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    reason: Reason,
}

/// Something that went wrong, and how it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As it was the last time.
    pub incident: Incident,
    /// Milliseconds since 1970, the first time.
    pub first: u64,
    /// How often.
    pub count: u32,
    /// The event's name in Kubernetes, once there is one.
    pub event: Option<String>,
    /// How often it was written, or that was tried.
    writings: u32,
    /// When it may be written again.
    next: Instant,
    /// Whether there is something to be written.
    news: bool,
    seen: Instant,
}

/// All that is to be told.
#[derive(Debug)]
pub struct Ledger {
    entries: BTreeMap<Key, Entry>,
    /// Events that may be written now.
    places: f64,
    refilled: Instant,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            entries: BTreeMap::new(),
            places: BURST,
            refilled: now,
        }
    }

    /// Notes it; `false` if too much is remembered already.
    pub fn note(&mut self, incident: Incident, now: Instant) -> bool {
        let labels = &incident.labels;
        let key = Key {
            uid: labels.uid.clone(),
            namespace: labels.namespace.clone(),
            pod: labels.pod.clone(),
            container: labels.container.clone(),
            reason: incident.reason,
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.count = entry.count.saturating_add(1);
            entry.incident = incident;
            entry.news = true;
            entry.seen = now;
            return true;
        }
        if self.entries.len() >= REMEMBERED {
            return false;
        }
        let entry = Entry {
            first: incident.at,
            incident,
            count: 1,
            event: None,
            writings: 0,
            next: now,
            news: true,
            seen: now,
        };
        self.entries.insert(key, entry);
        true
    }

    /// What is to be written now. Each has had its turn then, whether it succeeds or not.
    pub fn due(&mut self, now: Instant) -> Vec<(Key, Entry)> {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.places = (self.places + passed * RATE).min(BURST);
        self.refilled = now;
        self.entries
            .retain(|_, entry| now.saturating_duration_since(entry.seen) < MEMORY);
        let mut due = Vec::new();
        for (key, entry) in &mut self.entries {
            if self.places < 1.0 {
                break;
            }
            if entry.news && entry.next <= now {
                self.places -= 1.0;
                entry.news = false;
                let pause = AGAIN.saturating_mul(1 << entry.writings.min(10));
                entry.next = now + pause.min(LONGEST);
                entry.writings += 1;
                due.push((key.clone(), entry.clone()));
            }
        }
        due
    }

    /// It was written as the event of this name, or was not and is to be tried again.
    pub fn written(&mut self, key: &Key, event: Option<String>) {
        if let Some(entry) = self.entries.get_mut(key) {
            match event {
                Some(event) => entry.event = Some(event),
                None => entry.news = true,
            }
        }
    }

    /// Nobody wants to know it any more: the pod's namespace is gone.
    pub fn forget(&mut self, key: &Key) {
        self.entries.remove(key);
    }
}

/// Where supervisors leave word.
#[derive(Debug)]
pub struct Spool(PathBuf);

impl Spool {
    /// In a run directory, if that is there: from now on supervisors write. The run directory itself is theirs to make,
    /// and gone when the runtime was taken away.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(run: &Path) -> std::io::Result<Option<Self>> {
        use std::io::ErrorKind::{AlreadyExists, NotFound};
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = run.join(INCIDENTS);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == NotFound => Ok(None),
            Err(error) if error.kind() != AlreadyExists => Err(error),
            _ => Ok(Some(Self(dir))),
        }
    }

    /// Takes what is there, the oldest first. What cannot be read is removed as well.
    pub fn take(&self, metrics: &Metrics) -> Vec<Incident> {
        use std::io::Read as _;
        let mut files: Vec<PathBuf> = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .take(MOST)
            .collect();
        files.sort_unstable();
        let mut taken = Vec::new();
        for path in files {
            let mut text = Vec::new();
            let read =
                fs::File::open(&path).and_then(|file| file.take(FILE).read_to_end(&mut text));
            if fs::remove_file(&path).is_err() {
                // It would be told again and again.
                continue;
            }
            match read
                .map_err(anyhow::Error::from)
                .and_then(|_| serde_json::from_slice(&text).map_err(anyhow::Error::from))
            {
                Ok(incident) => taken.push(incident),
                Err(error) => {
                    metrics.incident_failures.inc();
                    tracing::warn!("read {}: {error:#}", path.display());
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use plan::numbers::Labels;

    use super::*;

    fn incident(pod: &str, reason: Reason, at: u64) -> Incident {
        Incident {
            labels: Labels {
                pod: pod.to_owned(),
                ..Labels::default()
            },
            reason,
            message: format!("at {at}"),
            at,
        }
    }

    #[test]
    fn the_same_thing_is_told_once_with_how_often_it_was() {
        let begun = Instant::now();
        let mut ledger = Ledger::new(begun);
        for at in 0..5 {
            assert!(ledger.note(incident("a", Reason::Trap, at), begun));
        }
        let due = ledger.due(begun);
        assert_eq!(due.len(), 1);
        let (key, entry) = &due[0];
        assert_eq!((entry.count, entry.first, entry.incident.at), (5, 0, 4));
        assert_eq!(entry.event, None);
        ledger.written(key, Some("e1".to_owned()));
        // Nothing new, nothing to write.
        assert!(ledger.due(begun + LONGEST).is_empty());
        // Once more: as the same event, and each time later.
        let mut now = begun + LONGEST;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            ledger.note(incident("a", Reason::Trap, 9), now);
            let from = now;
            while ledger.due(now).is_empty() {
                now += Duration::from_secs(1);
            }
            pauses.push(now.duration_since(from).as_secs());
        }
        assert_eq!(pauses, [0, 20, 40, 80, 160, 300, 300, 300]);
        // Another reason is another thing.
        ledger.note(incident("a", Reason::OutOfTime, 1), now);
        assert_eq!(ledger.due(now).len(), 1);
    }

    #[test]
    fn there_are_no_more_events_than_people_can_read() {
        let begun = Instant::now();
        let mut ledger = Ledger::new(begun);
        for pod in 0..REMEMBERED {
            assert!(ledger.note(incident(&pod.to_string(), Reason::Trap, 0), begun));
        }
        assert!(!ledger.note(incident("one too many", Reason::Trap, 0), begun));
        assert_eq!(ledger.due(begun).len(), BURST as usize);
        assert!(ledger.due(begun).is_empty());
        assert_eq!(ledger.due(begun + Duration::from_secs(3)).len(), 3);
        // What is old is forgotten.
        assert!(ledger.due(begun + MEMORY).is_empty());
        assert!(ledger.note(incident("another", Reason::Trap, 0), begun + MEMORY));
    }

    #[test]
    fn what_could_not_be_written_is_tried_again() {
        let begun = Instant::now();
        let mut ledger = Ledger::new(begun);
        ledger.note(incident("a", Reason::Trap, 0), begun);
        let (key, _) = ledger.due(begun).remove(0);
        ledger.written(&key, None);
        assert!(ledger.due(begun).is_empty(), "not at once");
        assert_eq!(ledger.due(begun + AGAIN).len(), 1);
        ledger.written(&key, None);
        ledger.forget(&key);
        assert!(ledger.due(begun + LONGEST).is_empty());
    }

    #[test]
    fn files_are_taken_in_their_order_and_go() {
        let run = tempfile::tempdir().expect("a directory");
        let gone = Spool::open(&run.path().join("gone")).expect("nothing wrong");
        assert!(gone.is_none() && !run.path().join("gone").exists());
        let opened = Spool::open(run.path()).expect("made");
        let spool = opened.expect("it is there");
        let dir = run.path().join(INCIDENTS);
        for at in [2, 1] {
            let text = serde_json::to_vec(&incident("a", Reason::Trap, at)).expect("JSON");
            fs::write(dir.join(format!("{at}-7.json")), text).expect("written");
        }
        fs::write(dir.join("3-7.json"), "{").expect("written");
        fs::write(dir.join("4-7.new"), "{").expect("written");
        let metrics = Metrics::default();
        let taken = spool.take(&metrics);
        assert_eq!(taken.iter().map(|one| one.at).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(metrics.incident_failures.get(), 1);
        assert!(spool.take(&metrics).is_empty());
        let left = fs::read_dir(&dir).expect("listed").count();
        assert_eq!(left, 1, "what is still being written");
    }
}
