//! A container's variables, as the kubelet makes them (`kubelet_pods.go`, `makeEnvironmentVariables`).

use k8s_openapi::api::core::v1::{Container, EnvVarSource};

use crate::pod::{Manifests, Workload};

/// Variables: those whose values the manifests say, and the others.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) known: Vec<(String, String)>,
    /// Name (or `*` of whatever a source has), and where the value comes from.
    pub(crate) elsewhere: Vec<(String, String)>,
    /// Field and reason for which the kubelet would not start the container.
    pub(crate) faults: Vec<(String, String)>,
}

/// Where a value comes from.
pub(crate) enum Origin {
    Known(String),
    Elsewhere(String),
    Absent(String),
}

impl Environment {
    pub(crate) fn of(workload: &Workload, container: &Container, manifests: &Manifests) -> Self {
        let mut all = Self::default();
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (what, name) = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => ("ConfigMap", map.name.as_str()),
                (None, Some(secret)) => ("Secret", secret.name.as_str()),
                (None, None) => continue,
            };
            match manifests.values(what, name) {
                Some(values) => {
                    for (key, value) in values {
                        all.set(
                            format!("{prefix}{key}"),
                            String::from_utf8_lossy(&value).into_owned(),
                        );
                    }
                }
                None => all
                    .elsewhere
                    .push((format!("{prefix}*"), format!("{what} {name}"))),
            }
        }
        for (index, variable) in container.env.iter().flatten().enumerate() {
            let from = match (&variable.value, &variable.value_from) {
                (_, Some(source)) => of_source(source, workload, manifests),
                (value, None) => all.expanded(value.as_deref().unwrap_or_default()),
            };
            match from {
                Origin::Known(value) => all.set(variable.name.clone(), value),
                Origin::Elsewhere(place) => {
                    all.known.retain(|(name, _)| *name != variable.name);
                    all.elsewhere.push((variable.name.clone(), place));
                }
                Origin::Absent(reason) => all.faults.push((format!("env[{index}]"), reason)),
            }
        }
        all
    }

    fn set(&mut self, name: String, value: String) {
        self.elsewhere.retain(|(known, _)| *known != name);
        match self.known.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.known.push((name, value)),
        }
    }

    /// A value with its references; known if they are.
    fn expanded(&self, value: &str) -> Origin {
        let mut unknown = None;
        let text = expand(value, |name| {
            if self.elsewhere.iter().any(|(known, _)| known == name) {
                unknown.get_or_insert_with(|| name.to_owned());
            }
            self.get(name)
        });
        match unknown {
            Some(name) => Origin::Elsewhere(format!("it refers to {name}")),
            None => Origin::Known(text),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let found = self.known.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar, and a name that does not exist stays as it is (`third_party/forked/golang/expansion`).
pub(crate) fn expand(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

fn of_source(source: &EnvVarSource, workload: &Workload, manifests: &Manifests) -> Origin {
    let key = |what: &str, name: &str, key: &str, optional: Option<bool>| match manifests
        .values(what, name)
    {
        Some(values) => match values.into_iter().find(|(known, _)| known == key) {
            Some((_, value)) => Origin::Known(String::from_utf8_lossy(&value).into_owned()),
            None if optional == Some(true) => {
                Origin::Elsewhere(format!("nowhere: {what} {name} has no `{key}`"))
            }
            None => Origin::Absent(format!("{what} {name} has no `{key}`")),
        },
        None => Origin::Elsewhere(format!("{what} {name}, `{key}`")),
    };
    if let Some(of) = &source.config_map_key_ref {
        return key("ConfigMap", &of.name, &of.key, of.optional);
    }
    if let Some(of) = &source.secret_key_ref {
        return key("Secret", &of.name, &of.key, of.optional);
    }
    if let Some(of) = &source.field_ref {
        return match field(&of.field_path, workload) {
            Some(value) => Origin::Known(value),
            None => Origin::Elsewhere(format!("the pod's {}", of.field_path)),
        };
    }
    match &source.resource_field_ref {
        Some(of) => Origin::Elsewhere(format!("the container's {}", of.resource)),
        None => Origin::Absent("valueFrom is empty".to_owned()),
    }
}

/// A field of the pod that the manifest says already.
fn field(path: &str, workload: &Workload) -> Option<String> {
    let metadata = workload.template.metadata.as_ref();
    let listed = |start: &str| {
        let name = path
            .strip_prefix(start)?
            .strip_prefix("['")?
            .strip_suffix("']")?;
        let all = match start {
            "metadata.labels" => metadata?.labels.as_ref(),
            _ => metadata?.annotations.as_ref(),
        };
        all?.get(name).cloned()
    };
    match path {
        "metadata.name" if workload.is_pod() => metadata?.name.clone(),
        "metadata.namespace" => metadata?.namespace.clone(),
        "spec.serviceAccountName" => workload.spec().service_account_name,
        "spec.nodeName" => workload.spec().node_name,
        _ => listed("metadata.labels").or_else(|| listed("metadata.annotations")),
    }
}

impl Manifests {
    /// Keys and values of a ConfigMap or Secret that stands in the files.
    pub(crate) fn values(&self, what: &str, name: &str) -> Option<Vec<(String, Vec<u8>)>> {
        let text = |(key, value): (&String, &String)| (key.clone(), value.clone().into_bytes());
        if what == "ConfigMap" {
            let map = self.config_maps.get(name)?;
            let data = map.data.iter().flatten().map(text);
            let binary = map.binary_data.iter().flatten();
            return Some(
                data.chain(binary.map(|(key, value)| (key.clone(), value.0.clone())))
                    .collect(),
            );
        }
        let secret = self.secrets.get(name)?;
        let data = secret.data.iter().flatten();
        let data = data.map(|(key, value)| (key.clone(), value.0.clone()));
        // What is given as text lies over the rest.
        Some(
            data.chain(secret.string_data.iter().flatten().map(text))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let value = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, wanted) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $ $(A", "$A $ $(A"),
            ("ä$(A)ö", "ä1ö"),
            ("$", "$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, value), wanted, "{text}");
        }
    }
}
