//! What went wrong with a pod's container is left where the node program finds it, who tells it as an event of the pod.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use plan::ExitCode;
use plan::incident::{INCIDENTS, Incident, MOST, Reason, one_line};
use plan::numbers::{Labels, Total};

use crate::container::{Container, Runs};
use crate::failure::Failure;
use crate::process::Exit;
use crate::supervisor::Supervisor;

/// Leaves word of a container that could not be created.
pub(crate) fn not_created(supervisor: &Supervisor, bundle: &str, failure: &Failure) {
    // Its plan may be what is wrong.
    let annotations = || -> Option<HashMap<String, String>> {
        let spec = plan::read_spec(Path::new(bundle)).ok()?;
        spec.annotations().clone()
    };
    if is_read(&supervisor.config.run) {
        let labels = annotations().map(|all| Labels::of(&all));
        tell(
            supervisor,
            labels.as_ref(),
            Reason::CreateFailed,
            &failure.to_string(),
        );
    }
}

/// A container has ended: counts it, and leaves word if it did not end by itself.
pub(crate) fn ended(supervisor: &Supervisor, container: &Container, exit: Exit) {
    if let Runs::Holder = container.runs {
        return;
    }
    supervisor.totals.one(Total::ended(exit.status));
    supervisor.totals.fold(&container.dir);
    // A runner that says so without this code is not one of ours any more.
    let ours = (i32::from(ExitCode::Trap)..=ExitCode::NotFound.into())
        .contains(&exit.status.cast_signed());
    if let Some(account) = container.main.account().filter(|_| ours) {
        let message = account.strip_prefix("sampan: ").unwrap_or(&account);
        tell(
            supervisor,
            Some(&container.labels),
            Reason::of(exit.status),
            message,
        );
    }
}

/// Leaves word of what went wrong. Of a container that is in no pod there is nobody to tell.
pub(crate) fn tell(
    supervisor: &Supervisor,
    labels: Option<&Labels>,
    reason: Reason,
    message: &str,
) {
    let run = &supervisor.config.run;
    let Some(labels) = labels.filter(|labels| labels.has_pod() && is_read(run)) else {
        return;
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let incident = Incident {
        labels: labels.clone(),
        reason,
        message: one_line(message),
        at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    };
    match leave(run, &incident, now.as_nanos()) {
        Ok(true) => {}
        Ok(false) => supervisor.totals.one(Total::IncidentDropped),
        Err(error) => {
            supervisor.totals.one(Total::IncidentDropped);
            tracing::warn!(%error, "cannot leave word of what went wrong");
        }
    }
}

/// Whether anybody wants to know: the directory is the reader's.
fn is_read(run: &Path) -> bool {
    run.join(INCIDENTS).is_dir()
}

/// Whether there was room for it.
fn leave(run: &Path, incident: &Incident, now: u128) -> std::io::Result<bool> {
    let dir = run.join(INCIDENTS);
    if fs::read_dir(&dir)?.count() >= MOST {
        return Ok(false);
    }
    let name = format!("{now:032}-{}", std::process::id());
    let temporary = dir.join(format!("{name}.new"));
    fs::write(&temporary, serde_json::to_vec(incident)?)?;
    // The reader takes what has its name.
    fs::rename(&temporary, dir.join(format!("{name}.json")))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_what_waits_to_be_told() {
        let run = tempfile::tempdir().expect("temporary directory");
        let incident = Incident {
            labels: Labels::default(),
            reason: Reason::Trap,
            message: "trap".to_owned(),
            at: 0,
        };
        assert!(!is_read(run.path()));
        assert!(leave(run.path(), &incident, 0).is_err(), "nobody reads");
        let dir = run.path().join(INCIDENTS);
        fs::create_dir(&dir).expect("made");
        assert!(is_read(run.path()));
        for number in 0..MOST {
            assert!(leave(run.path(), &incident, number as u128).expect("left"));
        }
        assert!(!leave(run.path(), &incident, MOST as u128).expect("full"));
        let entry = fs::read_dir(&dir).expect("listed").next().expect("one");
        let text = fs::read(entry.expect("an entry").path()).expect("read");
        let read: Incident = serde_json::from_slice(&text).expect("parsed");
        assert_eq!(read, incident);
    }
}
