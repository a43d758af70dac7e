//! What went wrong is where people look for it.
use std::sync::Arc;

use anyhow::Result;
use e2e_tests::{CRASHES, Case, Space, cases, eventually};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_reason_of_a_trap_is_in_the_status,
        a_missing_import_is_told_by_an_event,
        a_crash_loop_backs_off,
    ]
}

pub(crate) async fn the_reason_of_a_trap_is_in_the_status(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": image, "command": ["/", "trap"] }],
    });
    space.pod("trapped", spec).await?;
    let end = space.ended("trapped", "app").await?;
    assert_eq!(end.exit_code, 121, "{end:?}");
    let message = end.message.unwrap_or_default();
    let beginning = "sampan: trap: wasm `unreachable`";
    assert!(message.starts_with(beginning), "{message}");
    let name = space.name();
    let described = space
        .world()
        .kubectl(&["describe", "pod", "trapped", "--namespace", name])
        .await?;
    assert!(described.contains(beginning), "{described}");
    Ok(())
}

pub(crate) async fn a_missing_import_is_told_by_an_event(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("unknown-import").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": image, "command": ["/"] }],
    });
    space.pod("incomplete", spec).await?;
    let what = "an event that names the import";
    let events = eventually(what, std::time::Duration::from_secs(60), async || {
        let events = space.events_of("incomplete").await?;
        let told = events.iter().any(|event| event.contains("nope"));
        Ok(told.then_some(events))
    })
    .await?;
    assert!(
        events.iter().any(|event| event.contains("env")),
        "{events:?}"
    );
    Ok(())
}

pub(crate) async fn a_crash_loop_backs_off(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "containers": [{ "name": "app", "image": image, "command": ["/", "exit", "5"] }],
    });
    let metadata = json!({ "labels": { CRASHES: "meant" } });
    space.pod_with("loops", metadata, spec).await?;
    let what = "to wait before its next start";
    let last = space
        .pod_gives("loops", what, |pod| {
            let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
            let waiting = status.state.as_ref()?.waiting.as_ref()?;
            let backs_off = waiting.reason.as_deref() == Some("CrashLoopBackOff");
            backs_off.then(|| status.last_state.as_ref()?.terminated.clone())?
        })
        .await?;
    assert_eq!(last.exit_code, 5, "{last:?}");
    Ok(())
}
