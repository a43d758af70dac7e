//! Sampan in a Kubernetes cluster.
#![forbid(unsafe_code)]
