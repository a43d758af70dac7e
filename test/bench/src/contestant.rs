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

/// One column of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    /// What tables and `--sides` call it.
    pub(crate) name: &'static str,
    /// containerd's runtime type.
    pub(crate) runtime: &'static str,
    /// The binary that containerd executes for that type.
    pub(crate) shim: &'static str,
    pub(crate) packing: Packing,
}

const FLOOR: (&str, &str) = ("io.containerd.floor.v1", "containerd-shim-floor-v1");
const RUNC: (&str, &str) = ("io.containerd.runc.v2", "containerd-shim-runc-v2");
const BASELINE: (&str, &str) = ("io.containerd.baseline.v1", "containerd-shim-baseline-v1");
const SAMPAN: (&str, &str) = ("io.containerd.sampan.v1", "containerd-shim-sampan-v1");

const fn contestant(
    name: &'static str,
    (runtime, shim): (&'static str, &'static str),
    packing: Packing,
) -> Contestant {
    Contestant {
        name,
        runtime,
        shim,
        packing,
    }
}

/// In the order of the tables. The first one is what the ratios are taken against.
pub(crate) const ALL: [Contestant; 6] = [
    contestant("floor", FLOOR, Packing::Nothing),
    contestant("runc", RUNC, Packing::Native),
    contestant("baseline", BASELINE, Packing::Layer),
    contestant("sampan", SAMPAN, Packing::Layer),
    contestant("baseline-file", BASELINE, Packing::File),
    contestant("sampan-file", SAMPAN, Packing::File),
];

impl Contestant {
    /// The first of `directories` that holds this contestant's shim.
    pub(crate) fn locate(&self, directories: &[PathBuf]) -> Option<PathBuf> {
        directories
            .iter()
            .map(|directory| directory.join(self.shim))
            .find(|path| is_program(path))
    }

    /// Arguments of the guest; `hold` makes it stay after its line.
    pub(crate) fn args(&self, hold: bool) -> Vec<&'static str> {
        let entry = match self.packing {
            Packing::Nothing | Packing::Native => "/hello",
            // A Wasm artifact has no paths: the entry point is the layer itself.
            Packing::Layer => "/",
            Packing::File => "/hello.wasm",
        };
        if hold {
            vec![entry, "hold"]
        } else {
            vec![entry]
        }
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
