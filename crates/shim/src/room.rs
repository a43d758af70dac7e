//! How many containers one supervisor can have. Each costs descriptors, and a supervisor that has none left could not
//! even take the connection over which it is asked to delete one; so it refuses in time.

use crate::failure::{Failure, Kind, Outcome};

/// The most descriptors that a container costs while it lives: containerd's connection, the process, its wire, the
/// program, the root file system, two for each stream, the watch for kills; held by `test/shim/tests/dense.rs`.
const CONTAINER: u64 = 12;
/// The same of a pod's holder, which has no streams and runs nothing: the connection, the process, and what is not known.
const HOLDER: u64 = 4;
/// What stays free for the supervisor itself, for connections that bring no container, and for what a container needs
/// while it is made (two for each of its mounts).
const RESERVE: u64 = 256;

/// The descriptors of a supervisor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// How many it may have open.
    pub(crate) limit: u64,
}

/// Whom a supervisor serves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served {
    /// Containers that run something, or will.
    pub(crate) containers: usize,
    /// The processes that hold pods.
    pub(crate) holders: usize,
    /// Processes that are executed in containers; one costs less than a container.
    pub(crate) execs: usize,
}

impl Room {
    /// Refuses one more beside these.
    pub(crate) fn for_one_more(self, served: Served) -> Outcome<()> {
        // Where little is allowed, few containers are better than none.
        let free = self.limit - RESERVE.min(self.limit / 4);
        let running = (served.containers + served.execs + 1) as u64;
        if running * CONTAINER + served.holders as u64 * HOLDER <= free {
            return Ok(());
        }
        let Served {
            containers,
            holders,
            execs,
        } = served;
        let containers = containers + holders;
        Err(Failure::new(
            Kind::Exhausted,
            format!(
                "the supervisor has {containers} containers and {execs} processes that are executed in them, and can have no more with {} open files: raise the limit on open files for containerd (LimitNOFILE= of its systemd service) and start it again: then new pods get another supervisor; or use the runtime with a supervisor for each pod",
                self.limit
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(containers: usize, holders: usize, execs: usize) -> Served {
        Served {
            containers,
            holders,
            execs,
        }
    }

    #[test]
    fn the_last_one_that_fits_is_the_last() {
        let most = |limit| {
            let room = Room { limit };
            let fits = |there: &usize| room.for_one_more(served(*there, 0, 0)).is_ok();
            (0..200_000).take_while(fits).count()
        };
        assert_eq!(most(256), 16);
        assert_eq!(most(1024), 64);
        assert!(most(1_048_576) > 80_000);
        let room = Room { limit: 1024 };
        assert!(room.for_one_more(served(60, 0, 3)).is_ok());
        // Three holders take the place of one container.
        assert!(room.for_one_more(served(60, 9, 0)).is_ok());
        assert!(room.for_one_more(served(60, 10, 0)).is_err());
        let refused = room.for_one_more(served(60, 0, 4));
        let refused = refused.expect_err("full").to_string();
        for word in [
            "60 containers",
            "4 processes",
            "1024 open files",
            "LimitNOFILE",
        ] {
            assert!(refused.contains(word), "no {word} in {refused}");
        }
    }
}
