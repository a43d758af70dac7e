use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// `test/versions.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The Go that builds the modules.
    pub go: Go,
    /// Go programs, by the name of their wrapper in `test/tools/go`.
    pub modules: BTreeMap<String, GoModule>,
    /// Debian packages and the version that is tried first.
    pub debian: BTreeMap<String, String>,
}

/// The Go toolchain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Go {
    /// Lowest version that may build, as in `1.26.8`.
    pub version: String,
}

/// Commands of one Go module.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoModule {
    /// Module path.
    pub module: String,
    /// Version with its `v`.
    pub version: String,
    /// Packages below the module that are built.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Packages below the module that consist of tests, which are built to be run on their own (`go test -c`).
    #[serde(default)]
    pub suites: Vec<String>,
    /// Packages of the modules below it, by the name that their program gets.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
    /// The variable below the module that `-version` prints, set while linking; empty where there is none.
    #[serde(default)]
    pub version_variable: String,
    /// Further variables that are set while linking, by their whole names.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// What it is built for.
    #[serde(default, rename = "for")]
    pub purpose: Purpose,
}

/// What a Go module is built for: the large ones only where they are needed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// `make test`, and all the others.
    #[default]
    Test,
    /// `make conformance` alone.
    Conformance,
    /// `make e2e` alone.
    E2e,
    /// `make kind` alone.
    Kind,
    /// `SAMPAN_KUBELET=older make e2e` alone.
    Older,
}

impl Pins {
    /// The pins of this checkout, read when this crate was compiled.
    ///
    /// # Panics
    /// When `test/versions.toml` is not what this crate expects: a mistake in the checkout, which a unit test shows.
    #[must_use]
    pub fn of_this_checkout() -> Self {
        toml::from_str(include_str!("../../versions.toml")).expect("test/versions.toml is valid")
    }

    /// The directory of a Go module's commands in the cache. Its name changes with everything that goes into the build.
    #[must_use]
    pub fn module_dir(&self, cache: &Path, name: &str) -> PathBuf {
        let module = &self.modules[name];
        let mut hash = Sha256::new();
        for part in [
            &self.go.version,
            &module.version,
            &module.version_variable,
            std::env::consts::ARCH,
        ] {
            hash.update(part);
            hash.update([0]);
        }
        for package in module.commands.iter().chain(&module.suites) {
            hash.update(package);
            hash.update([0]);
        }
        for (name, value) in module.programs.iter().chain(&module.variables) {
            hash.update(name);
            hash.update([0]);
            hash.update(value);
            hash.update([0]);
        }
        let (go_mod, go_sum) = wrapper(name);
        hash.update(go_mod);
        hash.update(go_sum);
        cache
            .join("tools")
            .join(format!("{name}-{}-{}", module.version, short(hash)))
    }

    /// The directory into which the Debian packages are unpacked.
    #[must_use]
    pub fn debian_dir(&self, cache: &Path) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(std::env::consts::ARCH);
        for (package, version) in &self.debian {
            hash.update([0]);
            hash.update(package);
            hash.update([0]);
            hash.update(version);
        }
        cache.join("tools").join(format!("debian-{}", short(hash)))
    }
}

fn short(hash: Sha256) -> String {
    hex::encode(&hash.finalize()[..6])
}

/// `go.mod` and `go.sum` of a wrapper.
fn wrapper(name: &str) -> (&'static str, &'static str) {
    match name {
        "containerd-2" => (
            include_str!("../go/containerd-2/go.mod"),
            include_str!("../go/containerd-2/go.sum"),
        ),
        "containerd-1.7" => (
            include_str!("../go/containerd-1.7/go.mod"),
            include_str!("../go/containerd-1.7/go.sum"),
        ),
        "crictl" => (
            include_str!("../go/crictl/go.mod"),
            include_str!("../go/crictl/go.sum"),
        ),
        "critest" => (
            include_str!("../go/critest/go.mod"),
            include_str!("../go/critest/go.sum"),
        ),
        "kubernetes" => (
            include_str!("../go/kubernetes/go.mod"),
            include_str!("../go/kubernetes/go.sum"),
        ),
        "kubelet" => (
            include_str!("../go/kubelet/go.mod"),
            include_str!("../go/kubelet/go.sum"),
        ),
        "helm" => (
            include_str!("../go/helm/go.mod"),
            include_str!("../go/helm/go.sum"),
        ),
        "actionlint" => (
            include_str!("../go/actionlint/go.mod"),
            include_str!("../go/actionlint/go.sum"),
        ),
        "kind" => (
            include_str!("../go/kind/go.mod"),
            include_str!("../go/kind/go.sum"),
        ),
        other => {
            unreachable!("test/versions.toml names {other}, which has no wrapper in test/tools/go")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrappers_require_what_is_pinned() {
        let pins = Pins::of_this_checkout();
        for (name, module) in &pins.modules {
            let (go_mod, go_sum) = wrapper(name);
            let wanted = format!("{} {}", module.module, module.version);
            assert!(
                go_mod.lines().any(|line| line
                    .trim()
                    .trim_start_matches("require ")
                    .starts_with(&wanted)),
                "test/tools/go/{name}/go.mod does not require {wanted}"
            );
            assert!(
                go_sum.contains(&format!("{wanted} h1:")),
                "test/tools/go/{name}/go.sum lacks {wanted}"
            );
            let commands = module
                .commands
                .iter()
                .map(|command| format!("{}/{command}", module.module));
            for tool in commands.chain(module.programs.values().cloned()) {
                assert!(
                    go_mod.contains(&tool),
                    "test/tools/go/{name}/go.mod has no tool {tool}"
                );
            }
        }
    }

    #[test]
    fn a_directory_is_named_by_its_inputs() {
        let mut pins = Pins::of_this_checkout();
        let cache = Path::new("/cache");
        let before = pins.module_dir(cache, "crictl");
        assert_eq!(before, pins.module_dir(cache, "crictl"));
        pins.go.version.push('1');
        assert_ne!(before, pins.module_dir(cache, "crictl"));
    }
}
