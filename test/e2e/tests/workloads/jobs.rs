//! Jobs, and what makes them.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e_tests::{Case, Space, cases, class, eventually};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

/// A CronJob fires at the minute.
const DEADLINE: Duration = Duration::from_secs(180);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_cron_job_fires,
        a_job_completes,
        a_job_that_fails_is_tried_again,
    ]
}

fn template(image: &str, command: &[&str], labels: Value) -> Value {
    json!({
        "metadata": { "labels": labels },
        "spec": {
            "runtimeClassName": class(),
            "restartPolicy": "Never",
            "containers": [{ "name": "app", "image": image, "command": command }],
        },
    })
}

/// The names of a Job's pods.
async fn pods_of(space: &Space, job: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = space.api();
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    Ok(pods
        .list(&of_job)
        .await?
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect())
}

async fn ended(space: &Space, job: &str) -> Result<k8s_openapi::api::batch::v1::JobStatus> {
    let jobs: Api<Job> = space.api();
    eventually(&format!("the end of Job {job}"), DEADLINE, async || {
        let status = jobs.get(job).await?.status.unwrap_or_default();
        let over = status.conditions.iter().flatten().any(|condition| {
            ["Complete", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True"
        });
        Ok(over.then_some(status))
    })
    .await
}

pub(crate) async fn a_job_completes(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("hello").await?;
    space
        .create_object::<Job>(json!({
            "metadata": { "name": "greet" },
            "spec": {
                "completions": 3,
                "parallelism": 2,
                "template": template(&image, &["/", "ahoy"], json!({})),
            },
        }))
        .await?;
    let status = ended(&space, "greet").await?;
    assert_eq!(status.succeeded, Some(3), "{status:?}");
    assert_eq!(status.failed.unwrap_or(0), 0, "{status:?}");
    let pods = pods_of(&space, "greet").await?;
    assert_eq!(pods.len(), 3, "{pods:?}");
    for pod in pods {
        let logs = space.logs(&pod, "app").await?;
        assert!(logs.starts_with("hello from hello\n"), "{logs}");
        assert!(logs.contains("arg 1 ahoy"), "{logs}");
    }
    Ok(())
}

pub(crate) async fn a_job_that_fails_is_tried_again(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    space
        .create_object::<Job>(json!({
            "metadata": { "name": "fail" },
            "spec": {
                "backoffLimit": 1,
                "podFailurePolicy": { "rules": [
                    { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
                ]},
                "template": template(&image, &["/", "exit", "3"], json!({})),
            },
        }))
        .await?;
    let status = ended(&space, "fail").await?;
    assert_eq!(status.failed, Some(2), "{status:?}");
    for pod in pods_of(&space, "fail").await? {
        assert_eq!(space.ended(&pod, "app").await?.exit_code, 3);
    }
    Ok(())
}

pub(crate) async fn a_cron_job_fires(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("hello").await?;
    space
        .create_object::<CronJob>(json!({
            "metadata": { "name": "every-minute" },
            "spec": {
                "schedule": "* * * * *",
                "jobTemplate": { "spec": { "template": template(&image, &["/"], json!({})) } },
            },
        }))
        .await?;
    let jobs: Api<Job> = space.api();
    let job = eventually("the CronJob to fire", DEADLINE, async || {
        let job = jobs.list(&ListParams::default()).await?.items.pop();
        Ok(job.and_then(|job| job.metadata.name))
    })
    .await?;
    let status = ended(&space, &job).await?;
    assert_eq!(status.succeeded, Some(1), "{status:?}");
    let pod = pods_of(&space, &job)
        .await?
        .pop()
        .context("a pod of the Job")?;
    let logs = space.logs(&pod, "app").await?;
    assert!(logs.starts_with("hello from hello\n"), "{logs}");
    Ok(())
}
