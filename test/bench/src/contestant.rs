//! Who is measured: each contestant is a runtime (a shim binary) and the form in which the guest reaches it.

use std::path::{Path, PathBuf};

/// How the guest is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// No guest at all: the floor writes the line itself.
    Nothing,
    /// A static native program, the only file of the rootfs.
    Native,
    /// A CNCF Wasm artifact: the module is the image's layer.
    Layer,
    /// The module is a file in the rootfs.
    File,
}

/// Whom one supervisor of the contestant serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Pod,
    Node,
}

/// A contestant by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What tables and `--sides` call it.
    pub(crate) name: &'static str,
    /// containerd's runtime type.
    runtime: &'static str,
    /// The binary that containerd executes for that type.
    pub(crate) shim: &'static str,
    packing: Packing,
    scope: Scope,
    /// Whether its shim is that of the revision which is compared with.
    pub(crate) of_base: bool,
}

const FLOOR: (&str, &str) = ("io.containerd.floor.v1", "containerd-shim-floor-v1");
const RUNC: (&str, &str) = ("io.containerd.runc.v2", "containerd-shim-runc-v2");
const BASELINE: (&str, &str) = ("io.containerd.baseline.v1", "containerd-shim-baseline-v1");
const SAMPAN: (&str, &str) = ("io.containerd.sampan.v1", "containerd-shim-sampan-v1");
const DENSE: (&str, &str) = (
    "io.containerd.sampan-dense.v1",
    "containerd-shim-sampan-dense-v1",
);

const fn kind(
    name: &'static str,
    (runtime, shim): (&'static str, &'static str),
    packing: Packing,
    scope: Scope,
) -> Kind {
    Kind {
        name,
        runtime,
        shim,
        packing,
        scope,
        of_base: false,
    }
}

const fn of_base(kind: Kind) -> Kind {
    Kind {
        of_base: true,
        ..kind
    }
}

/// In the order of the tables.
pub(crate) const KINDS: [Kind; 10] = [
    kind(FLOOR_NAME, FLOOR, Packing::Nothing, Scope::Pod),
    kind("runc", RUNC, Packing::Native, Scope::Pod),
    kind("baseline", BASELINE, Packing::Layer, Scope::Pod),
    kind("sampan", SAMPAN, Packing::Layer, Scope::Pod),
    kind("sampan-dense", DENSE, Packing::Layer, Scope::Node),
    of_base(kind("base", SAMPAN, Packing::Layer, Scope::Pod)),
    of_base(kind("base-dense", DENSE, Packing::Layer, Scope::Node)),
    kind("baseline-file", BASELINE, Packing::File, Scope::Pod),
    kind("sampan-file", SAMPAN, Packing::File, Scope::Pod),
    kind("sampan-dense-file", DENSE, Packing::File, Scope::Node),
];

/// What the ratios are taken against.
pub(crate) const FLOOR_NAME: &str = "floor";

/// A contestant whose shim is there.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// What containerd is given as runtime: a type, or the path of a shim that is not the one which the type means.
    pub(crate) runtime: String,
    /// The shim.
    pub(crate) program: PathBuf,
    pub(crate) packing: Packing,
    pub(crate) scope: Scope,
}

impl Kind {
    /// The contestant of this name with the first of `directories` that holds its shim.
    pub(crate) fn locate(&self, directories: &[PathBuf]) -> Option<Contestant> {
        let program = directories
            .iter()
            .map(|directory| directory.join(self.shim))
            .find(|path| is_program(path))?;
        let runtime = if self.of_base {
            // containerd executes what an absolute path names (`resolveRuntimePath` of its shim manager).
            program.to_str()?.to_owned()
        } else {
            self.runtime.to_owned()
        };
        Some(Contestant {
            name: self.name,
            runtime,
            program,
            packing: self.packing,
            scope: self.scope,
        })
    }
}

impl Contestant {
    /// Arguments of a guest whose file is `file`; `hold` makes it stay after its line.
    pub(crate) fn args(&self, file: &str, hold: bool) -> Vec<String> {
        let entry = match self.packing {
            Packing::Nothing | Packing::Native => "/hello".to_owned(),
            // A Wasm artifact has no paths: the entry point is the layer itself.
            Packing::Layer => "/".to_owned(),
            Packing::File => format!("/{file}"),
        };
        let hold = hold.then(|| "hold".to_owned());
        std::iter::once(entry).chain(hold).collect()
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::KINDS;

    #[test]
    fn a_shim_of_another_revision_is_named_by_its_path() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for kind in KINDS {
            assert!(kind.locate(&[directory.path().to_owned()]).is_none());
            std::fs::write(directory.path().join(kind.shim), "").expect("written");
            let found = kind
                .locate(&["/nonexistent".into(), directory.path().to_owned()])
                .expect("it is there");
            assert_eq!(found.runtime.starts_with('/'), kind.of_base, "{found:?}");
            std::fs::remove_file(directory.path().join(kind.shim)).expect("removed");
        }
    }
}
