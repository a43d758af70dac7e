//! What a guest that traps is to leave behind, and where (`sampan.dev/coredump`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::MountPlan;
use crate::container::plain_absolute;

/// Its section of ours, in JSON: `reason`, and `functions`, the names of those on the stack. The format has no place for them.
pub const SECTION: &str = "sampan";
/// Its section that says how many bytes of memory are missing; only where some are.
pub const LEFT_OUT: &str = "sampan-left-out";
/// Bytes that one may have at most.
pub const MOST_BYTES: u64 = 3 << 30;

/// A core dump that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreDump {
    /// The directory, absolute, in the guest's view.
    pub dir: String,
    /// The directory that this is, where the guest does not see it; `None` is [`CoreDump::dir`].
    pub source: Option<PathBuf>,
    /// What the names of its files begin with.
    pub name: String,
    /// Bytes that one of them may have.
    pub max_bytes: u64,
}

/// The directory, plainly written, if it lies in a volume that can be written to; else what to do.
///
/// The image's own files will not do: what is written there goes with the container.
pub(crate) fn in_volume(dir: &str, mounts: &[MountPlan]) -> Result<String, String> {
    let Some(dir) = plain_absolute(Path::new(dir)) else {
        return Err(format!("`{dir}` is not an absolute path without `..`"));
    };
    // Of several at one path the last is the one that shows, and the one that is found.
    let nearest = mounts
        .iter()
        .filter(|mount| Path::new(&dir).starts_with(&mount.destination))
        .max_by_key(|mount| mount.destination.len());
    match nearest.filter(|mount| mount.destination != "/") {
        None => Err(format!(
            "`{dir}` is in no volume: mount one there to keep core dumps in"
        )),
        Some(mount) if mount.readonly => Err(format!(
            "the volume at {} is read-only: core dumps need one that can be written to",
            mount.destination
        )),
        Some(_) => Ok(dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MountSource, Propagation};

    #[test]
    fn a_dump_needs_a_volume_that_can_be_written_to() {
        let mount = |destination: &str, readonly| MountPlan {
            destination: destination.to_owned(),
            source: MountSource::Tmpfs {
                options: String::new(),
            },
            readonly,
            propagation: Propagation::Private,
        };
        let mounts = [
            mount("/dumps", false),
            mount("/data", true),
            mount("/data/own", false),
            mount("/twice", false),
            mount("/twice", true),
        ];
        let of = |dir| in_volume(dir, &mounts);
        assert_eq!(of("/dumps"), Ok("/dumps".to_owned()));
        assert_eq!(of("//dumps/./a/"), Ok("/dumps/a".to_owned()));
        assert_eq!(of("/data/own"), Ok("/data/own".to_owned()));
        for (dir, says) in [
            ("/data", "the volume at /data is read-only"),
            ("/data/other", "the volume at /data is read-only"),
            ("/dumpster", "is in no volume"),
            ("/", "is in no volume"),
            ("/twice", "read-only"),
            ("/dumps/../etc", "without `..`"),
            ("dumps", "not an absolute path"),
        ] {
            let text = of(dir).expect_err(dir);
            assert!(text.contains(says), "{dir}: {text}");
        }
    }
}
