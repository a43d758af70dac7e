//! How many containers one supervisor can have. Each costs descriptors, and a supervisor that has none left could not
//! even take the connection over which it is asked to delete one; so it refuses in time.

use crate::failure::{Failure, Kind, Outcome};

/// The most descriptors that a container costs while it lives: containerd's connection, the process, its wire, the
/// program, the root file system, two for each stream, the watch for kills; held by `test/shim/tests/dense.rs`.
const CONTAINER: u64 = 12;
/// What stays free for the supervisor itself, for connections that bring no container, and for what a container needs
/// while it is made (two for each of its mounts).
const RESERVE: u64 = 256;

/// The descriptors of a supervisor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// How many it may have open.
    pub(crate) limit: u64,
}

impl Room {
    /// Refuses one more beside these containers and processes that are executed in them.
    pub(crate) fn for_one_more(self, containers: usize, execs: usize) -> Outcome<()> {
        // Where little is allowed, few containers are better than none.
        let free = self.limit - RESERVE.min(self.limit / 4);
        // A process that is executed costs less than the container.
        let there = (containers + execs + 1) as u64;
        if there * CONTAINER <= free {
            return Ok(());
        }
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

    #[test]
    fn the_last_one_that_fits_is_the_last() {
        let most = |limit| {
            let room = Room { limit };
            let fits = |there: &usize| room.for_one_more(*there, 0).is_ok();
            (0..200_000).take_while(fits).count()
        };
        assert_eq!(most(256), 16);
        assert_eq!(most(1024), 64);
        assert!(most(1_048_576) > 80_000);
        let room = Room { limit: 1024 };
        assert!(room.for_one_more(60, 3).is_ok());
        let refused = room.for_one_more(60, 4).expect_err("full").to_string();
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
