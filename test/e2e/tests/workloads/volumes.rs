//! Volumes of every kind that a pod commonly has.
use std::sync::Arc;

use anyhow::{Context, Result};
use e2e_tests::{Case, Space, cases};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_claim_keeps_what_was_written,
        projected_sources_are_in_one_directory,
        the_downward_api_tells_of_the_pod,
        memory_is_a_directory_like_others,
        one_file_of_a_volume_is_there,
        read_only_is_read_only,
    ]
}

/// Runs the probe to its end in a pod of its own and returns what it says.
async fn probe(
    space: &Space,
    name: &str,
    arguments: &[&str],
    mounts: Value,
    volumes: Value,
) -> Result<String> {
    let image = space.world().guest("probe").await?;
    let command: Vec<&str> = ["/"].iter().chain(arguments).copied().collect();
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "app", "image": image, "command": command, "volumeMounts": mounts,
            "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
            "resources": { "limits": { "memory": "64Mi" } },
        }],
        "volumes": volumes,
    });
    space.pod(name, spec).await?;
    space.written(name).await
}

pub(crate) async fn a_claim_keeps_what_was_written(space: Arc<Space>) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(space.world().client());
    let mut claim = json!({
        "metadata": { "name": "claim" },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Mi" } },
        },
    });
    // A private cluster has no storage of its own to claim.
    if let Some(cluster) = space.world().private() {
        let directory = cluster.containerd().scratch().dir().join(space.name());
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": { "name": space.name() },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": { "storage": "1Mi" },
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": space.name(),
                "hostPath": { "path": directory, "type": "DirectoryOrCreate" },
            },
        }))?;
        volumes.create(&PostParams::default(), &volume).await?;
        claim["spec"]["storageClassName"] = json!(space.name());
    }
    space.create_object::<PersistentVolumeClaim>(claim).await?;
    let mounts = json!([{ "name": "data", "mountPath": "/data" }]);
    let data = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "claim" } }]);
    let write = ["write", "/data/kept", "for the next"];
    let said = probe(&space, "writes", &write, mounts.clone(), data.clone()).await?;
    assert_eq!(said, "ok write /data/kept\n");
    space.delete_pod("writes").await?;
    let said = probe(&space, "reads", &["cat", "/data/kept"], mounts, data).await?;
    assert_eq!(said.trim_end(), "for the next");
    if space.world().private().is_some() {
        volumes
            .delete(space.name(), &DeleteParams::default())
            .await?;
    }
    Ok(())
}

async fn settings(space: &Space) -> Result<()> {
    space
        .create_object::<ConfigMap>(json!({
            "metadata": { "name": "settings" },
            "data": { "colour": "teak", "size": "small" },
        }))
        .await?;
    space
        .create_object::<Secret>(json!({
            "metadata": { "name": "keys" },
            "stringData": { "token": "s3cr3t" },
        }))
        .await?;
    Ok(())
}

pub(crate) async fn projected_sources_are_in_one_directory(space: Arc<Space>) -> Result<()> {
    settings(&space).await?;
    let volumes = json!([{ "name": "all", "projected": { "sources": [
        { "configMap": { "name": "settings" } },
        { "secret": { "name": "keys" } },
        { "serviceAccountToken": { "path": "account", "expirationSeconds": 3600 } },
        { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
    ]}}]);
    let mounts = json!([{ "name": "all", "mountPath": "/all", "readOnly": true }]);
    let read = async |name: &str, file: &str| {
        let path = format!("/all/{file}");
        let arguments = ["cat", path.as_str()];
        probe(&space, name, &arguments, mounts.clone(), volumes.clone()).await
    };
    assert_eq!(read("reads-config", "colour").await?.trim_end(), "teak");
    assert_eq!(read("reads-secret", "token").await?.trim_end(), "s3cr3t");
    assert_eq!(read("reads-name", "name").await?.trim_end(), "reads-name");
    // A token is three parts with dots between.
    let token = read("reads-token", "account").await?;
    assert_eq!(
        token.trim_end().split('.').count(),
        3,
        "{} bytes",
        token.len()
    );
    Ok(())
}

pub(crate) async fn the_downward_api_tells_of_the_pod(space: Arc<Space>) -> Result<()> {
    let environment = probe(&space, "environment", &["env"], json!([]), json!([])).await?;
    let node = environment
        .lines()
        .find_map(|line| line.strip_prefix("NODE="))
        .with_context(|| format!("no NODE in {environment}"))?;
    assert!(!node.is_empty());
    let mounts = json!([{ "name": "pod", "mountPath": "/pod" }]);
    let volumes = json!([{ "name": "pod", "downwardAPI": { "items": [
        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        { "path": "memory", "resourceFieldRef": {
            "containerName": "app", "resource": "limits.memory", "divisor": "1Mi",
        }},
    ]}}]);
    let read = async |name: &str, path: &str| {
        probe(
            &space,
            name,
            &["cat", path],
            mounts.clone(),
            volumes.clone(),
        )
        .await
    };
    assert_eq!(
        read("labels", "/pod/labels").await?.trim_end(),
        "app=\"labels\""
    );
    assert_eq!(read("memory", "/pod/memory").await?.trim_end(), "64");
    Ok(())
}

pub(crate) async fn memory_is_a_directory_like_others(space: Arc<Space>) -> Result<()> {
    let mounts = json!([{ "name": "fast", "mountPath": "/fast" }]);
    let volumes =
        json!([{ "name": "fast", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }]);
    let write = ["write", "/fast/file", "quick"];
    let said = probe(&space, "writes", &write, mounts, volumes).await?;
    assert_eq!(said, "ok write /fast/file\n");
    Ok(())
}

pub(crate) async fn one_file_of_a_volume_is_there(space: Arc<Space>) -> Result<()> {
    settings(&space).await?;
    let mounts =
        json!([{ "name": "settings", "mountPath": "/etc/app/colour", "subPath": "colour" }]);
    let volumes = json!([{ "name": "settings", "configMap": { "name": "settings" } }]);
    let read = ["cat", "/etc/app/colour"];
    let said = probe(&space, "reads", &read, mounts.clone(), volumes.clone()).await?;
    assert_eq!(said.trim_end(), "teak");
    let said = probe(&space, "lists", &["ls", "/etc/app"], mounts, volumes).await?;
    assert_eq!(said.trim_end(), "colour");
    // A directory of a volume, not all of it.
    let image = space.world().guest("probe").await?;
    let whole = json!([{ "name": "data", "mountPath": "/data" }]);
    let part = json!([{ "name": "data", "mountPath": "/part", "subPath": "inner" }]);
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [
            { "name": "part", "image": image, "volumeMounts": part, "command": ["/", "write", "/part/file", "inside"] },
        ],
        "containers": [
            { "name": "app", "image": image, "volumeMounts": whole, "command": ["/", "cat", "/data/inner/file"] },
        ],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    space.pod("directory", spec).await?;
    assert_eq!(space.written("directory").await?.trim_end(), "inside");
    Ok(())
}

pub(crate) async fn read_only_is_read_only(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "app", "image": image, "command": ["/", "write", "/data/file", "no"],
            "volumeMounts": [{ "name": "data", "mountPath": "/data", "readOnly": true }],
        }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    space.pod("refused", spec).await?;
    let end = space.ended("refused", "app").await?;
    let logs = space.logs("refused", "app").await?;
    assert_eq!(end.exit_code, 1, "{logs}");
    assert!(logs.starts_with("error: write /data/file: "), "{logs}");
    Ok(())
}
