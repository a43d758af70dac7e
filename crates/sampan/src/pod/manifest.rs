//! Manifests: whatever holds a pod template, and the ConfigMaps and Secrets beside it.

use std::collections::BTreeMap;
use std::io::Read as _;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, PodTemplateSpec, Secret};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Failure, Kind, Outcome};

/// All that stood in the files.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) secrets: BTreeMap<String, Secret>,
}

/// A pod, or what makes pods.
#[derive(Debug)]
pub(crate) struct Workload {
    /// `Pod`, `Deployment`...
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Annotations of what makes the pods: they are not the pods' own.
    pub(crate) outer: BTreeMap<String, String>,
    pub(crate) template: PodTemplateSpec,
}

impl Workload {
    /// `Deployment web`
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    pub(crate) fn is_pod(&self) -> bool {
        self.kind == "Pod"
    }

    pub(crate) fn spec(&self) -> PodSpec {
        self.template.spec.clone().unwrap_or_default()
    }

    /// Annotations of the pods.
    pub(crate) fn annotations(&self) -> Vec<(String, String)> {
        let metadata = self.template.metadata.as_ref();
        let annotations = metadata.and_then(|metadata| metadata.annotations.clone());
        annotations.unwrap_or_default().into_iter().collect()
    }

    /// Its containers in the order of their start, those that come first with `true`.
    pub(crate) fn containers(&self) -> Vec<(Container, bool)> {
        let spec = self.spec();
        let first = spec.init_containers.unwrap_or_default().into_iter();
        let then = spec
            .containers
            .into_iter()
            .map(|container| (container, false));
        first
            .map(|container| (container, true))
            .chain(then)
            .collect()
    }
}

/// Bytes of a file with manifests that are read.
const LIMIT: u64 = 32 << 20;

/// Reads files; `-` is standard input.
pub(crate) fn read(files: &[String]) -> Outcome<Manifests> {
    let mut manifests = Manifests::default();
    for file in files {
        let mut text = String::new();
        let read = if file == "-" {
            std::io::stdin()
                .lock()
                .take(LIMIT)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(file).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
        };
        let name = if file == "-" { "standard input" } else { file };
        read.map_err(|error| Failure::at(Kind::NotFound, format!("cannot read {name}"), error))?;
        let documents = serde_saphyr::from_multiple::<Value>(&text).map_err(|error| {
            // The part of the file that a terminal would see takes several lines.
            let line = error.without_snippet().to_string();
            Failure::new(Kind::Wrong, format!("{name}: {line}"))
        })?;
        for document in documents {
            manifests.take(name, document)?;
        }
    }
    Ok(manifests)
}

impl Manifests {
    fn take(&mut self, file: &str, mut document: Value) -> Outcome<()> {
        if document.is_null() {
            return Ok(());
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&document["kind"]);
        if kind.is_empty() {
            return Err(Failure::new(
                Kind::Wrong,
                format!("{file}: a document is no manifest: it has no `kind`"),
            ));
        }
        if kind == "List"
            && let Value::Array(items) = part(&mut document, "/items")
        {
            return items.into_iter().try_for_each(|item| self.take(file, item));
        }
        let metadata = &document["metadata"];
        let name = match text(&metadata["name"]) {
            name if name.is_empty() => text(&metadata["generateName"]),
            name => name,
        };
        let place = format!("{file}: {kind} {name}");
        match kind.as_str() {
            "ConfigMap" => {
                self.config_maps.insert(name, typed(&place, document)?);
                return Ok(());
            }
            "Secret" => {
                self.secrets.insert(name, typed(&place, document)?);
                return Ok(());
            }
            _ => {}
        }
        let outer = annotations(metadata);
        let holder = match kind.as_str() {
            "Pod" => Some(document),
            "PodTemplate" => Some(part(&mut document, "/template")),
            "CronJob" => Some(part(&mut document, "/spec/jobTemplate/spec/template")),
            _ => {
                let template = part(&mut document, "/spec/template");
                template["spec"]["containers"]
                    .is_array()
                    .then_some(template)
            }
        };
        // A Service, a Namespace and the like.
        let Some(template) = holder else {
            return Ok(());
        };
        self.workloads.push(Workload {
            template: typed(&place, template)?,
            kind,
            name,
            outer,
        });
        Ok(())
    }
}

/// What lies at a JSON pointer, taken out; null where nothing does.
fn part(document: &mut Value, pointer: &str) -> Value {
    document
        .pointer_mut(pointer)
        .map(Value::take)
        .unwrap_or_default()
}

fn annotations(metadata: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(metadata["annotations"].clone()).unwrap_or_default()
}

/// The error names the field.
fn typed<T: DeserializeOwned>(place: &str, value: Value) -> Outcome<T> {
    plan::from_json(value.to_string().as_bytes()).map_err(|error| {
        // Line and column would be those of what was made of the file here.
        let reason = error.reason.rsplit_once(" at line ");
        let reason = reason.map_or(error.reason.as_str(), |(reason, _)| reason);
        let message = format!("{place}: {}: {reason}", error.field);
        Failure::new(Kind::Wrong, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Outcome<Manifests> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        read(&[file.path().display().to_string()])
    }

    #[test]
    fn pods_are_found_wherever_they_are() {
        let pod = "{containers: [{name: app, image: i}]}";
        for (kind, spec) in [
            ("Pod", pod.to_owned()),
            ("Deployment", format!("{{template: {{spec: {pod}}}}}")),
            ("Job", format!("{{template: {{spec: {pod}}}}}")),
            (
                "CronJob",
                format!("{{jobTemplate: {{spec: {{template: {{spec: {pod}}}}}}}}}"),
            ),
            ("Rollout", format!("{{template: {{spec: {pod}}}}}")),
        ] {
            let text =
                format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
            let found = of(&text).expect(kind);
            assert_eq!(found.workloads.len(), 1, "{kind}");
            assert_eq!(found.workloads[0].containers()[0].0.name, "app", "{kind}");
        }
        let list = "kind: List\nitems:\n- {kind: Service, spec: {ports: []}}\n- {kind: ConfigMap, metadata: {name: c}, data: {a: b}}\n---\n---\nkind: Namespace\n";
        let found = of(list).expect("a list");
        assert!(found.workloads.is_empty() && found.config_maps.contains_key("c"));
    }

    #[test]
    fn what_is_wrong_is_named_in_a_line() {
        for (text, part) in [
            (
                "kind: Pod\nspec: {containers: [{name: 1}]}",
                "spec.containers[0].name",
            ),
            ("kind: Pod\nspec: [", "line"),
            ("a: b", "no `kind`"),
            ("kind: Pod\nkind: Pod", "duplicate"),
            ("just text", "no `kind`"),
        ] {
            let error = of(text).expect_err(text).to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
