//! A private Kubernetes cluster of one node for tests.
#![forbid(unsafe_code)]
