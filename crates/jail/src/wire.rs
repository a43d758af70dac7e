//! What supervisor and runner say to each other.
//!
//! [`Launch`] travels once, in a sealed memory file, so that neither side waits for the other and
//! no size is too large. Everything else is single packets on a `SOCK_SEQPACKET` pair.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use plan::{Access, GuestPlan, JailPlan, Mounted};
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};

use crate::error::JailError;
use crate::seccomp::Filter;
use crate::step::Failed;

/// What the runner is to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The jail to enter.
    pub jail: JailPlan,
    /// The guest to run there.
    pub guest: GuestPlan,
    /// The spec's seccomp profile, compiled.
    pub seccomp: Option<Filter>,
    /// How its requests are traced, where somebody listens.
    pub tracing: Option<plan::trace::Tracing>,
}

/// [`Launch`] with what `spawn` found out on the way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<L> {
    pub(crate) launch: L,
    /// The volumes, whose mounts are the descriptors from [`FIRST_VOLUME`] on, in order.
    pub(crate) volumes: Vec<Mounted>,
    /// What the kernel will allow on the rootfs.
    pub(crate) root: Access,
    /// Whether the runner is to die when the thread that made it ends.
    pub(crate) bound: bool,
    /// Whether it stands in a user namespace other than the supervisor's.
    pub(crate) user_namespace: bool,
    /// Whether it joins a container that is there: [`ROOTFS`] is that container's mount namespace then, and the volumes
    /// are in their places.
    pub(crate) joins: bool,
}

/// The runner's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The jail is entered, the program is linked: it waits for the word to go.
    Ready(Laps),
    /// It cannot be.
    Refused(Refusal),
    /// Long after, and for the last time: the guest has ended otherwise than by itself, for this reason (one line).
    Ended(String),
}

/// How long a runner took for what lies before [`Report::Ready`], in the order in which it happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Laps {
    /// To take over its descriptors and read the plan.
    pub open: Duration,
    /// To map the program and link it.
    pub program: Duration,
    /// To enter the jail.
    pub enter: Duration,
}

/// Why a container cannot be, in one line for the person who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which sort of reason.
    pub kind: RefusalKind,
    /// What and where.
    pub message: String,
}

/// Sorts of reasons; the supervisor makes a gRPC code of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The engine cannot use what the store has.
    BadArtifact,
    /// Not a program, or one that this version cannot run.
    InvalidProgram,
    /// The program wants something that no host function gives.
    MissingImport,
    /// The export or file does not exist.
    NotFound,
    /// Valid, but not offered here.
    Unsupported,
    /// A mount failed.
    Mount,
    /// The machine does not allow it.
    Permission,
    /// A fault of ours or of the node.
    Internal,
}

/// Descriptors of the runner; below are its standard streams.
pub(crate) const CONTROL: i32 = 3;
pub(crate) const ARTIFACT: i32 = 4;
pub(crate) const ROOTFS: i32 = 5;
pub(crate) const LAUNCH: i32 = 6;
/// A file of numbers, closed before the jail; `/dev/null` where there is none.
pub(crate) const NUMBERS: i32 = 7;
pub(crate) const FIRST_VOLUME: i32 = 8;

/// First byte of a packet to the supervisor: a [`Report`] follows.
const REPORT: u8 = 0;
/// A [`Failed`] follows: from a child that could not yet, or cannot, allocate.
pub(crate) const FAILED: u8 = 1;
/// The child waits until the supervisor has mapped its ids or moved it into its cgroup.
pub(crate) const WAITING: u8 = 2;
/// The holder of a pod is in place.
pub(crate) const HOLDING: u8 = 3;
/// After [`GO`], where the guest is traced: the number of spans that were lost (little endian) and a span follow.
pub(crate) const SPAN: u8 = 6;
/// To the child: the word to go on, and to go.
pub(crate) const GO: u8 = 4;
/// To the runner, at any time, also before [`GO`]: the bytes that its guest may have from now on (little endian) follow.
pub(crate) const MEMORY: u8 = 5;

/// Longest packet; a longer message is cut.
const PACKET: usize = 8192;
/// The same, for [`SPAN`].
pub(crate) const LONGEST: usize = PACKET;

/// What a packet to the supervisor says.
pub(crate) enum Packet {
    Report(Report),
    Failed(Failed),
    Waiting,
    Holding,
}

/// The bytes that a guest may have from now on, if the packet says that.
pub(crate) fn memory(packet: &[u8]) -> Option<u64> {
    let (tag, bytes) = packet.split_first()?;
    let bytes = bytes.try_into().ok().filter(|_| *tag == MEMORY)?;
    Some(u64::from_le_bytes(bytes))
}

/// Puts the envelope into a memory file.
pub(crate) fn pack(envelope: &Envelope<&Launch>) -> Result<OwnedFd, JailError> {
    let bytes = postcard::to_stdvec(envelope).map_err(|source| JailError::Wire {
        what: "the plan",
        source,
    })?;
    let memory = rustix::fs::memfd_create("launch", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(JailError::errno("make a memory file"))?;
    let mut file = File::from(memory);
    file.write_all(&bytes)
        .map_err(JailError::system("write the plan into a memory file"))?;
    Ok(file.into())
}

/// Takes it out again.
pub(crate) fn unpack(memory: OwnedFd) -> Result<Envelope<Launch>, JailError> {
    let mut file = File::from(memory);
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file)
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(JailError::system("read the plan from descriptor 6"))?;
    postcard::from_bytes(&bytes).map_err(|source| JailError::Wire {
        what: "the plan",
        source,
    })
}

/// The runner tells the supervisor.
pub(crate) fn report(control: BorrowedFd<'_>, report: &Report) -> Result<(), JailError> {
    let mut report = report.clone();
    if let Report::Refused(Refusal { message, .. }) | Report::Ended(message) = &mut report {
        let end = message.floor_char_boundary(PACKET / 2);
        message.truncate(end);
    }
    let mut packet = vec![REPORT];
    let bytes = postcard::to_stdvec(&report).map_err(|source| JailError::Wire {
        what: "the report",
        source,
    })?;
    packet.extend(bytes);
    rustix::net::send(control, &packet, SendFlags::NOSIGNAL)
        .map_err(JailError::errno("report to the supervisor"))?;
    Ok(())
}

/// The supervisor takes the next packet; `None` when there is none yet.
pub(crate) fn next(control: impl AsFd, wait: bool) -> Result<Option<Packet>, JailError> {
    let mut bytes = [0; PACKET];
    let flags = if wait {
        RecvFlags::empty()
    } else {
        RecvFlags::DONTWAIT
    };
    let length = loop {
        match rustix::net::recv(&control, &mut bytes, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(JailError::errno("hear the container's process")(errno)),
            Ok((_, length)) => break length.min(PACKET),
        }
    };
    let silent = JailError::Silent {
        who: "the container's process",
    };
    let Some((tag, rest)) = bytes[..length].split_first() else {
        return Err(silent);
    };
    let packet = match *tag {
        REPORT => Packet::Report(
            postcard::from_bytes(rest).map_err(|source| JailError::Wire {
                what: "the runner's report",
                source,
            })?,
        ),
        FAILED => match Failed::decode(rest) {
            Some(failed) => Packet::Failed(failed),
            None => return Err(silent),
        },
        WAITING => Packet::Waiting,
        HOLDING => Packet::Holding,
        _ => {
            return Err(JailError::Wire {
                what: "the runner's report",
                source: postcard::Error::DeserializeUnexpectedEnd,
            });
        }
    };
    Ok(Some(packet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socket pair")
    }

    #[test]
    fn a_report_arrives_and_a_long_one_is_cut() {
        let (ours, theirs) = pair();
        assert!(next(&ours, false).expect("nothing yet").is_none());
        let refused = Report::Refused(Refusal {
            kind: RefusalKind::Mount,
            message: "ä".repeat(100_000),
        });
        report(theirs.as_fd(), &refused).expect("sent");
        let Some(Packet::Report(Report::Refused(refusal))) =
            next(&ours, false).expect("understood")
        else {
            panic!("a refusal was sent")
        };
        assert_eq!(refusal.kind, RefusalKind::Mount);
        assert!(refusal.message.len() <= PACKET / 2 && refusal.message.starts_with("ää"));
        drop(theirs);
        assert!(matches!(next(&ours, false), Err(JailError::Silent { .. })));
    }
}
