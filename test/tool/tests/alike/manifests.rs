//! What `explain` says of a manifest is what its pod then has. This test is the kubelet: it asks CRI for what the
//! manifest says, field by field.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use harness::{Cri, image};
use serde_json::{Value, json};
use tool_tests::Tool;

/// Changes to the same container, each by itself a manifest.
fn manifests(place: &Path) -> Vec<(&'static str, Value)> {
    let host = |name: &str| {
        let path = place.join(name);
        json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } })
    };
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let read_only =
        |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let volumes = || json!([host("a"), host("b")]);
    vec![
        ("nothing", json!({})),
        ("arguments", json!({ "args": ["one", "two words", ""] })),
        ("a working directory", json!({ "workingDir": "/" })),
        (
            "variables",
            json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)2" }] }),
        ),
        (
            "no value",
            json!({ "env": [{ "name": "A" }, { "name": "A", "value": "again" }] }),
        ),
        (
            "references in arguments",
            json!({
                "env": [{ "name": "A", "value": "1" }], "args": ["$(A)", "$$(A)", "$(NONE)"],
            }),
        ),
        (
            "a volume",
            json!({ "volumes": volumes(), "volumeMounts": [mount("a", "/data")] }),
        ),
        (
            "a volume for reading",
            json!({ "volumes": volumes(), "volumeMounts": [read_only("a", "/data")] }),
        ),
        (
            "two volumes",
            json!({
                "volumes": volumes(), "volumeMounts": [mount("a", "/data"), read_only("b", "/etc/b")],
            }),
        ),
        (
            "a volume in a volume",
            json!({
                "volumes": volumes(), "volumeMounts": [read_only("b", "/data/in"), mount("a", "/data")],
            }),
        ),
        (
            "a volume twice",
            json!({
                "volumes": volumes(), "volumeMounts": [mount("a", "/x"), read_only("a", "/y")],
            }),
        ),
        (
            "a volume at a place that a guest has not",
            json!({
                "volumes": volumes(), "volumeMounts": [mount("a", "/proc/x"), mount("b", "/b")],
            }),
        ),
        (
            "no root",
            json!({
                "annotations": { "sampan.dev/rootfs": "none" }, "volumes": volumes(), "volumeMounts": [mount("a", "/data")],
            }),
        ),
        (
            "a root for reading",
            json!({ "annotations": { "sampan.dev/rootfs": "ro" } }),
        ),
        (
            "a read-only root",
            json!({ "securityContext": { "readOnlyRootFilesystem": true } }),
        ),
        (
            "a limit",
            json!({ "resources": { "limits": { "memory": "64Mi" } } }),
        ),
        (
            "no network",
            json!({ "annotations": { "sampan.dev/network": "none" } }),
        ),
        (
            "fuel",
            json!({ "annotations": { "sampan.dev/fuel": "1000000000" } }),
        ),
        // Those that are refused.
        (
            "a setting that is none",
            json!({ "annotations": { "sampan.dev/no-such": "1" } }),
        ),
        (
            "a value that is none",
            json!({ "annotations": { "sampan.dev/network": "some" } }),
        ),
        (
            "two faults",
            json!({ "annotations": { "sampan.dev/network": "some", "sampan.dev/fuel": "much" } }),
        ),
        (
            "a contradiction",
            json!({
                "annotations": { "sampan.dev/network": "none", "sampan.dev/allow-outbound": "example.org:443" },
            }),
        ),
        (
            "too small a limit",
            json!({ "annotations": { "sampan.dev/max-stack": "1" } }),
        ),
        (
            "a setting of the class",
            json!({ "annotations": { "sampan.dev/disable-proposals": "simd" } }),
        ),
    ]
}

/// A pod with one container, from what is set of it.
fn pod(set: &Value, reference: &str) -> Value {
    let mut container = json!({
        "name": "app", "image": reference, "command": ["/"], "terminationMessagePath": "/dev/termination-log",
    });
    // The guest says its arguments.
    let args = set["args"].as_array().into_iter().flatten().cloned();
    container["args"] = [json!("args")].into_iter().chain(args).collect();
    for field in [
        "env",
        "volumeMounts",
        "workingDir",
        "resources",
        "securityContext",
    ] {
        if !set[field].is_null() {
            container[field] = set[field].clone();
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "app", "annotations": set["annotations"] },
        "spec": {
            "runtimeClassName": "sampan", "automountServiceAccountToken": false,
            "volumes": set["volumes"], "containers": [container],
        },
    })
}

/// What a guest says of itself, or why it was not created.
#[derive(Debug, PartialEq, Eq)]
enum Had {
    Guest {
        args: Vec<String>,
        directories: BTreeSet<String>,
        variables: BTreeSet<String>,
    },
    Refused(String),
}

pub(crate) async fn are_explained() -> Result<()> {
    let Some(containerd) = crate::with_cri().await? else {
        return Ok(());
    };
    let cri = containerd.cri().await?;
    let reference = "example.test/probe:v1";
    let program = image::bytecode_alliance(harness::guest("probe.wasm")?);
    containerd.import_in("k8s.io", reference, &program).await?;
    let tool = Tool::new()?;
    for name in ["a", "b"] {
        std::fs::create_dir(tool.dir().join(name))?;
    }
    let mut refused = 0;
    for (name, set) in manifests(tool.dir()) {
        let manifest = pod(&set, reference);
        let file = tool.dir().join("pod.json");
        std::fs::write(&file, manifest.to_string())?;
        let file = file.to_str().context("a path in text")?;
        let (answers, code) = tool.json(&["explain", file])?;
        let told = &answers[0];
        let had = had(&cri, &manifest, reference).await?;
        let faults = told["faults"].as_array().context("a list of faults")?;
        match &had {
            Had::Refused(reason) => {
                refused += 1;
                ensure!(
                    code == Some(1) && !faults.is_empty(),
                    "{name}: refused ({reason}), and explain says {told:#}"
                );
                for fault in faults {
                    let words = fault["reason"].as_str().context("a reason")?;
                    ensure!(
                        reason.contains(words),
                        "{name}: explain says {words:?}, the pod {reason:?}"
                    );
                }
            }
            Had::Guest { .. } => {
                ensure!(
                    code == Some(0),
                    "{name}: it runs, and explain says {told:#}"
                );
                let foreseen = foreseen(told)?;
                ensure!(
                    had == foreseen,
                    "{name}: it has {had:?}, explain says {foreseen:?}"
                );
            }
        }
    }
    ensure!(refused >= 5, "only {refused} were refused");
    containerd.assert_clean().await
}

/// What `explain` says that the guest will have; what depends on the cluster is not there.
fn foreseen(told: &Value) -> Result<Had> {
    let guest = &told["guest"];
    let list = |field: &str| {
        guest[field]
            .as_array()
            .with_context(|| format!("{field} in {told:#}"))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let directories = list("directories")?.iter();
    let variables = list("variables")?.iter();
    Ok(Had::Guest {
        args: list("args")?.iter().map(text).collect(),
        directories: directories
            .map(|found| format!("{} {}", text(&found["access"]), text(&found["path"])))
            .collect(),
        variables: variables
            .filter(|found| found["from"] != "the kubelet")
            .map(|found| text(&found["name"]))
            .collect(),
    })
}

/// Runs the pod once for each question that its guest is asked.
async fn had(cri: &Cri<'_>, manifest: &Value, reference: &str) -> Result<Had> {
    let args = match asked(cri, manifest, reference, None).await? {
        Ok(said) => said,
        Err(refusal) => return Ok(Had::Refused(refusal)),
    };
    let ask = async |question: &[&str]| -> Result<String> {
        match asked(cri, manifest, reference, Some(question)).await? {
            Ok(said) => Ok(said),
            Err(refusal) => bail!("it was created once, and then not: {refusal}"),
        }
    };
    let mut directories = BTreeSet::new();
    for path in ask(&["preopens"]).await?.lines() {
        let file = format!("{}/written", path.trim_end_matches('/'));
        let writable = ask(&["write", &file, "x"]).await?.starts_with("ok write");
        directories.insert(format!("{} {path}", if writable { "rw" } else { "ro" }));
    }
    let variables = ask(&["env"]).await?;
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    Ok(Had::Guest {
        args: args.lines().map(str::to_owned).collect(),
        directories,
        variables: variables.map(|(name, _)| name.to_owned()).collect(),
    })
}

/// What the container writes, or why it was not created. With a question in place of its arguments.
async fn asked(
    cri: &Cri<'_>,
    manifest: &Value,
    reference: &str,
    question: Option<&[&str]>,
) -> Result<Result<String, String>> {
    let annotations = manifest["metadata"]["annotations"].as_object();
    let spec = &manifest["spec"];
    let container = &spec["containers"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut pod = cri
        .pod("sampan")
        .config(|config| config.hostname = "app".to_owned());
    for (name, value) in annotations.into_iter().flatten() {
        pod = pod.annotation(name, &text(value));
    }
    let pod = match pod.run().await {
        Ok(pod) => pod,
        // What is wrong with a pod's settings is told of the pod already.
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let mut variables: Vec<(String, String)> = Vec::new();
    let known = |variables: &[(String, String)], name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = references(&text(&variable["value"]), |name| known(&variables, name));
        let name = text(&variable["name"]);
        variables.retain(|(known, _)| *known != name);
        variables.push((name, value));
    }
    let mut words = vec!["/".to_owned()];
    match question {
        Some(question) => words.extend(question.iter().map(ToString::to_string)),
        None => {
            let args = container["args"].as_array().into_iter().flatten();
            words.extend(args.map(|arg| references(&text(arg), |name| known(&variables, name))));
        }
    }
    let mut asked = pod
        .container("app", reference)
        .command(words.iter().map(String::as_str));
    for (name, value) in &variables {
        asked = asked.env(name, value);
    }
    if let Some(dir) = container["workingDir"].as_str() {
        asked = asked.cwd(dir);
    }
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let volume = volumes
            .into_iter()
            .find(|volume| volume["name"] == mount["name"]);
        let path = volume
            .map(|volume| text(&volume["hostPath"]["path"]))
            .unwrap_or_default();
        let readonly = mount["readOnly"] == true;
        asked = asked.mount(path, &text(&mount["mountPath"]), readonly);
    }
    let readonly = container["securityContext"]["readOnlyRootFilesystem"] == true;
    asked = asked.security(|security| security.readonly_rootfs = readonly);
    let limit = container["resources"]["limits"]["memory"]
        .as_str()
        .map(|_| 64 << 20);
    asked = asked.config(|config| {
        if let (Some(limit), Some(linux)) = (limit, config.linux.as_mut()) {
            linux
                .resources
                .get_or_insert_default()
                .memory_limit_in_bytes = limit;
        }
    });
    let said = match asked.create().await {
        Err(status) => Err(status.message().to_owned()),
        Ok(created) => match created.start().await {
            Err(status) => Err(status.message().to_owned()),
            Ok(()) => {
                created.wait().await?;
                Ok(created.logs()?.stdout)
            }
        },
    };
    pod.remove().await?;
    Ok(said)
}

/// `$(NAME)` as the kubelet replaces it.
fn references(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = text.replace("$$", "\u{0}");
    for name in ["A", "NONE"] {
        if let Some(value) = value(name) {
            out = out.replace(&format!("$({name})"), &value);
        }
    }
    out.replace('\u{0}', "$")
}
