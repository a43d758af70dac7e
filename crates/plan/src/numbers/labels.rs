use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::annotations::{CONTAINER_NAME, CONTAINER_TYPE, POD_NAME, POD_NAMESPACE, POD_UID};

/// Whose numbers and traces they are, as CRI names it; all empty for a container that is in no pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// The pod's namespace in Kubernetes.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name in the pod; empty for the pod's own.
    pub container: String,
    /// Whether it is the pod's own container.
    pub holder: bool,
}

impl Labels {
    /// From a container's annotations.
    #[must_use]
    pub fn of(annotations: &HashMap<String, String>) -> Self {
        let said = |name: &str| annotations.get(name).cloned().unwrap_or_default();
        Self {
            namespace: said(POD_NAMESPACE),
            pod: said(POD_NAME),
            uid: said(POD_UID),
            container: said(CONTAINER_NAME),
            holder: said(CONTAINER_TYPE) == "sandbox",
        }
    }

    /// Whether it is in a pod of Kubernetes.
    #[must_use]
    pub const fn has_pod(&self) -> bool {
        !self.pod.is_empty()
    }
}

/// The directories in which the kernel counts what a container uses, as the supervisor sees them; of cgroups of version 2
/// they are one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// Bytes of memory.
    pub memory: Option<PathBuf>,
    /// Time on processors.
    pub cpu: Option<PathBuf>,
}
