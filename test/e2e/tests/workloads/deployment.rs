//! A Deployment of a `wasi:http` component behind a Service, as people write it.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e_tests::{Case, Load, Space, cases, eventually};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// How long a roll-out may take.
const DEADLINE: Duration = Duration::from_secs(180);
/// How long a pod that has nothing left to answer may take to be gone: what the promise says.
const GONE: Duration = Duration::from_secs(2);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases![serves_what_it_was_given];
    let alone = cases![
        is_updated_under_load_without_a_failed_request,
        a_pod_is_gone_when_it_has_answered,
    ];
    // They measure time.
    cases.extend(alone.into_iter().map(Case::alone));
    cases
}

/// `web`: `replicas` pods that are ready when they answer; `extra` is added to the container.
async fn deploy(space: &Space, image: &str, replicas: u32, extra: Value) -> Result<()> {
    let mut container = json!({
        "name": "app",
        "image": image,
        "command": ["/"],
        "ports": [{ "containerPort": 8080 }],
        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        "livenessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 5 },
        "resources": {
            "requests": { "cpu": "10m", "memory": "16Mi" },
            "limits": { "memory": "128Mi" },
        },
    });
    let volumes = extra.get("volumes").cloned().unwrap_or(json!([]));
    for (name, value) in extra.as_object().into_iter().flatten() {
        if name != "volumes" {
            container[name] = value.clone();
        }
    }
    space
        .create_object::<Deployment>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": "web" } },
                "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": {
                        "runtimeClassName": e2e_tests::class(),
                        "containers": [container],
                        "volumes": volumes,
                    },
                },
            },
        }))
        .await?;
    space
        .create_object::<Service>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "selector": { "app": "web" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        }))
        .await?;
    rolled_out(space, i64::from(replicas)).await
}

/// Waits until all pods are of the newest template and ready.
async fn rolled_out(space: &Space, replicas: i64) -> Result<()> {
    let deployments: Api<Deployment> = space.api();
    eventually("the roll-out", DEADLINE, async || {
        let deployment = deployments.get("web").await?;
        let status = deployment.status.unwrap_or_default();
        let all = |count: Option<i32>| count.map(i64::from) == Some(replicas);
        let done = status.observed_generation == deployment.metadata.generation
            && all(status.updated_replicas)
            && all(status.available_replicas)
            && all(status.replicas);
        Ok(done.then_some(()))
    })
    .await
}

/// The names of the Deployment's pods.
async fn pods(space: &Space) -> Result<Vec<String>> {
    let pods: Api<Pod> = space.api();
    let list = pods.list(&ListParams::default().labels("app=web")).await?;
    Ok(list
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect())
}

pub(crate) async fn serves_what_it_was_given(space: Arc<Space>) -> Result<()> {
    space
        .create_object::<ConfigMap>(json!({
            "metadata": { "name": "settings" },
            "data": { "greeting": "ahoy", "colour": "teak" },
        }))
        .await?;
    space
        .create_object::<Secret>(json!({
            "metadata": { "name": "keys" },
            "stringData": { "token": "s3cr3t" },
        }))
        .await?;
    let image = space.world().guest("http-p2").await?;
    let extra = json!({
        "env": [
            { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } },
            { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
            { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        ],
        "volumeMounts": [
            { "name": "settings", "mountPath": "/settings" },
            { "name": "keys", "mountPath": "/keys", "readOnly": true },
        ],
        "volumes": [
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "keys", "secret": { "secretName": "keys" } },
        ],
    });
    deploy(&space, &image, 3, extra).await?;
    // Nothing measures pods here, so it is accepted and no more.
    space
        .create_object::<HorizontalPodAutoscaler>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                "minReplicas": 3,
                "maxReplicas": 5,
                "metrics": [{ "type": "Resource", "resource": {
                    "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 },
                }}],
            },
        }))
        .await?;

    let pods = pods(&space).await?;
    ensure!(pods.len() == 3, "three pods: {pods:?}");
    for pod in &pods {
        let get = async |path| anyhow::Ok(space.get(pod, path).await?.body);
        assert_eq!(get("/").await?, "hello from http-p2\n");
        assert_eq!(get("/file?path=/settings/greeting").await?, "ahoy");
        assert_eq!(get("/file?path=/keys/token").await?, "s3cr3t");
        let refused = space.get(pod, "/write?path=/keys/token&text=x").await?;
        assert_eq!(refused.status, 403, "{refused:?}");
        let environment = get("/env").await?;
        for line in [
            "COLOUR=teak".to_owned(),
            "TOKEN=s3cr3t".to_owned(),
            format!("POD={pod}"),
        ] {
            assert!(
                environment.lines().any(|it| it == line),
                "{line}: {environment}"
            );
        }
    }

    // What the Service leads to is what answers.
    let load = Load::begin(&space, "web", "/", 1).await;
    if space.world().private().is_some() {
        let load = load?;
        eventually("some answers", DEADLINE, async || {
            Ok((load.answered() >= 30).then_some(()))
        })
        .await?;
        let report = load.end().await?;
        assert!(report.failures.is_empty(), "{report:?}");
    }
    Ok(())
}

pub(crate) async fn is_updated_under_load_without_a_failed_request(
    space: Arc<Space>,
) -> Result<()> {
    space
        .world()
        .private_for("load upon the addresses of pods")?;
    let old = space.world().fresh_guest("http-p2").await?.reference;
    let new = space.world().fresh_guest("http-p2").await?.reference;
    // A proxy learns of an endpoint that goes when the pod is told to end, not before: what everybody does about it.
    let version = |version: &str| json!([{ "name": "VERSION", "value": version }]);
    let extra = json!({
        "env": version("one"),
        "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } },
    });
    deploy(&space, &old, 3, extra).await?;
    let load = Load::begin(&space, "web", "/env", 4).await?;
    let answers = async |at_least: u64| {
        eventually("answers", DEADLINE, async || {
            Ok((load.answered() >= at_least).then_some(()))
        })
        .await
    };
    answers(100).await?;
    let deployments: Api<Deployment> = space.api();
    let patch = json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": "app", "image": new, "env": version("two") }],
    }}}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .context("change the image")?;
    rolled_out(&space, 3).await?;
    eventually("the old pods to be gone", DEADLINE, async || {
        Ok((pods(&space).await?.len() == 3).then_some(()))
    })
    .await?;
    answers(load.answered() + 100).await?;
    let report = load.end().await?;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    for version in ["VERSION=one", "VERSION=two"] {
        let count: u64 = report
            .answers
            .iter()
            .filter(|(body, _)| body.lines().any(|line| line == version))
            .map(|(_, count)| count)
            .sum();
        assert!(count >= 100, "{version} answered {count} times");
    }
    Ok(())
}

pub(crate) async fn a_pod_is_gone_when_it_has_answered(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("http-p2").await?;
    let spec = json!({ "containers": [{
        "name": "app", "image": image, "command": ["/"],
        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
    }]});
    space.pod("web", spec).await?;
    space.ready("web").await?;
    let asked = tokio::spawn({
        let space = Arc::clone(&space);
        async move {
            let answer = space.get("web", "/slow?ms=3000").await;
            (answer, Instant::now())
        }
    });
    // The next request is answered after the slow one has arrived.
    space.get("web", "/").await?;
    let pods: Api<Pod> = space.api();
    pods.delete("web", &DeleteParams::default()).await?;
    space.gone("web").await?;
    let gone = Instant::now();
    let (answer, answered) = asked.await?;
    let answer = answer?;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "slow but done\n")
    );
    let took = gone.saturating_duration_since(answered);
    assert!(took < GONE, "gone {took:?} after the last answer");
    Ok(())
}
