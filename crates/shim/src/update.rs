//! Update: limits of a container that lives. The kernel's at once; a guest's own memory limit follows the container's.

use oci_spec::runtime::LinuxResources;
use plan::{GuestLimits, from_json};

use crate::container::{Container, Runs};
use crate::failure::{Failure, Kind, Outcome};

/// What containerd sends: the OCI `LinuxResources` as JSON. Values that are not there stay as they are.
pub(crate) fn resources(json: &[u8]) -> Outcome<LinuxResources> {
    from_json(json).map_err(|error| Failure::new(Kind::Invalid, format!("resources: {error}")))
}

/// Sets them. A memory limit below what the container holds is refused: the kernel would kill it.
pub(crate) fn apply(container: &Container, resources: &LinuxResources) -> Outcome<()> {
    let internal = |error: jail::JailError| {
        Failure::new(
            Kind::Internal,
            format!("update container {}: {}", container.id, error.one_line()),
        )
    };
    let memory = resources
        .memory()
        .as_ref()
        .and_then(|memory| memory.limit());
    if let Some(limit) = memory
        .and_then(|limit| u64::try_from(limit).ok())
        .filter(|limit| *limit > 0)
    {
        let used = container.cgroup.memory_in_use().map_err(internal)?;
        if limit < used {
            return Err(Failure::new(
                Kind::Precondition,
                format!(
                    "the memory limit of {limit} bytes is below the {used} bytes that container {} holds and cannot give back: choose a higher one, or start the container anew",
                    container.id
                ),
            ));
        }
    }
    container.cgroup.set(resources).map_err(internal)?;
    if let (Runs::Guest(_), Some(_)) = (&container.runs, memory) {
        let guest = GuestLimits::below(memory).memory.unwrap_or(u64::MAX);
        container.set_guest_memory(guest).map_err(internal)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let known = resources(br#"{"memory":{"limit":4096},"cpu":{"shares":2}}"#).expect("valid");
        assert_eq!(
            known.memory().as_ref().and_then(|memory| memory.limit()),
            Some(4096)
        );
        let error = resources(br#"{"memory":{"limit":"much"}}"#).expect_err("no number");
        assert!(error.to_string().contains("memory.limit"), "{error}");
    }
}
