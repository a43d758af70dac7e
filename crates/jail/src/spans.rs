//! What a runner tells of its guest's requests while it runs: spans, over the wire, towards the supervisor.
//!
//! Nothing here trusts the other side. A runner that was taken over can send what it likes: the supervisor takes packets of a
//! bounded size, as many as it wants to, and the rest waits in the kernel until that is full. A supervisor that does not
//! read makes nobody wait: what does not fit is lost, and counted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::wire::{LONGEST, SPAN};

/// Bytes before a span: what it is, and how many were lost before it.
const HEAD: usize = 1 + size_of::<u64>();

/// The runner's side.
#[derive(Debug, Clone)]
pub struct SpanSender {
    control: Arc<OwnedFd>,
    lost: Arc<AtomicU64>,
}

impl SpanSender {
    /// Bytes of a span; longer ones are lost.
    pub const ROOM: usize = LONGEST - HEAD - 1;

    pub(crate) fn new(control: Arc<OwnedFd>) -> Self {
        Self {
            control,
            lost: Arc::default(),
        }
    }

    /// Sends a span, in whatever form the supervisor reads, if there is room; never waits.
    pub fn send(&self, span: &[u8]) {
        let mut packet = Vec::with_capacity(HEAD + span.len());
        packet.push(SPAN);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        packet.extend(lost.to_le_bytes());
        packet.extend(span);
        let sent = packet.len() < LONGEST
            && rustix::net::send(
                &*self.control,
                &packet,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
            .is_ok();
        if !sent {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

/// What came over the wire.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A span, and how many were lost before it.
    Span(Vec<u8>, u64),
    /// Nothing yet.
    Nothing,
    /// The runner has ended.
    Ended,
}

/// The supervisor's side: its end of the wire, which it holds open until this is dropped, too.
#[derive(Debug)]
pub struct SpanReceiver(Arc<OwnedFd>);

impl SpanReceiver {
    /// Of the supervisor's end of the wire, when there is nothing else to come over it.
    pub(crate) const fn new(control: Arc<OwnedFd>) -> Self {
        Self(control)
    }

    /// Takes the next one. Never waits. Packets that are no spans are skipped.
    #[must_use]
    pub fn next(&self) -> Told {
        let mut packet = [0; LONGEST];
        loop {
            match rustix::net::recv(&*self.0, &mut packet, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Told::Nothing,
                Err(_) | Ok((_, 0)) => return Told::Ended,
                // As long as this is what the kernel has cut off.
                Ok((_, LONGEST)) => {}
                Ok((_, length)) => {
                    if let [SPAN, rest @ ..] = &packet[..length]
                        && let Some((lost, span)) = rest.split_first_chunk()
                    {
                        return Told::Span(span.to_vec(), u64::from_le_bytes(*lost));
                    }
                }
            }
        }
    }
}

impl AsFd for SpanReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (SpanReceiver, SpanSender, Arc<OwnedFd>) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let theirs = Arc::new(theirs);
        let receiver = SpanReceiver::new(Arc::new(ours));
        (receiver, SpanSender::new(Arc::clone(&theirs)), theirs)
    }

    #[test]
    fn spans_arrive_until_the_runner_ends() {
        let (receiver, sender, control) = pair();
        assert_eq!(receiver.next(), Told::Nothing);
        sender.send(b"one");
        sender.send(b"");
        assert_eq!(receiver.next(), Told::Span(b"one".to_vec(), 0));
        assert_eq!(receiver.next(), Told::Span(Vec::new(), 0));
        drop((sender, control));
        assert_eq!(receiver.next(), Told::Ended);
    }

    #[test]
    fn who_does_not_read_holds_nobody_up_and_what_is_lost_is_counted() {
        let (receiver, sender, _control) = pair();
        let span = [b'x'; 1000];
        for _ in 0..10_000 {
            sender.send(&span);
        }
        let mut arrived = 0;
        while let Told::Span(_, lost) = receiver.next() {
            assert_eq!(lost, 0);
            arrived += 1;
        }
        assert!((1..1000).contains(&arrived), "{arrived}");
        sender.send(b"later");
        let lost = 10_000 - arrived;
        assert_eq!(receiver.next(), Told::Span(b"later".to_vec(), lost));
    }

    #[test]
    fn what_is_no_span_is_skipped() {
        let (receiver, sender, control) = pair();
        let send = |bytes: &[u8]| {
            rustix::net::send(&*control, bytes, SendFlags::NOSIGNAL).expect("sent");
        };
        send(b"\x00nonsense");
        send(&[SPAN, 1, 2]);
        send(&[SPAN; 20_000]);
        sender.send(&[0; 20_000]);
        sender.send(&[0; SpanSender::ROOM + 1]);
        sender.send(b"good");
        assert_eq!(receiver.next(), Told::Span(b"good".to_vec(), 2));
        sender.send(&[0; SpanSender::ROOM]);
        assert_eq!(receiver.next(), Told::Span(vec![0; SpanSender::ROOM], 0));
        assert_eq!(receiver.next(), Told::Nothing);
    }
}
