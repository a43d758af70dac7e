//! Spans on their way to the listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plan::trace::{Parcel, Service, Span};
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Spans that wait; what comes when so many do is lost. Guests' spans leave half of it to the supervisor's own.
const MOST: usize = 2048;
/// Spans that travel together, and in one [`PAUSE`]: a supervisor has other things to do, whatever its guests tell.
const TOGETHER: usize = 256;
/// How long the first of them waits for others: a start is a dozen spans within milliseconds.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// How long a listener that does not keep up is waited for before what was for it is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the end of the supervisor waits for the last of them.
const LAST: Duration = Duration::from_secs(1);

/// Where spans are left; a copy means the same.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Item>,
    lost: Arc<AtomicU64>,
}

enum Item {
    Span(Span, Option<Arc<Service>>),
    /// Tell when all before it has been sent.
    Sent(oneshot::Sender<()>),
}

impl Outbox {
    /// Delivers to the socket at this path, as long as there are copies.
    pub(super) fn open(socket: &Path) -> Self {
        let (queue, items) = mpsc::channel(MOST);
        let lost = Arc::default();
        let delivery = Delivery {
            socket: socket.to_owned(),
            connection: None,
            lost: Arc::clone(&lost),
        };
        tokio::spawn(delivery.run(items));
        Self { queue, lost }
    }

    /// Leaves a span of the supervisor's own, or of a guest.
    pub(super) fn add(&self, span: Span, of: Option<Arc<Service>>) {
        if self.queue.try_send(Item::Span(span, of)).is_err() {
            self.lose(1);
        }
    }

    /// Whether guests should wait with theirs.
    pub(super) fn is_crowded(&self) -> bool {
        self.queue.capacity() < MOST / 2
    }

    /// Counts spans that were lost before they came here.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until what was left here has been sent, not for long.
    pub(super) async fn sent(self) {
        let (sender, sent) = oneshot::channel();
        let waits = async {
            if self.queue.send(Item::Sent(sender)).await.is_ok() {
                let _ = sent.await;
            }
        };
        let _ = timeout(LAST, waits).await;
    }
}

struct Delivery {
    socket: PathBuf,
    connection: Option<UnixDatagram>,
    lost: Arc<AtomicU64>,
}

impl Delivery {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        while let Some(first) = items.recv().await {
            let next = Instant::now() + PAUSE;
            let mut parcels: Vec<Parcel> = Vec::new();
            let mut asked = take(&mut parcels, first);
            let more = async {
                for _ in 1..TOGETHER {
                    if asked.is_some() {
                        break;
                    }
                    match items.recv().await {
                        Some(item) => asked = take(&mut parcels, item),
                        None => break,
                    }
                }
            };
            let _ = timeout_at(next, more).await;
            for parcel in parcels {
                self.deliver(parcel).await;
            }
            match asked {
                Some(asked) => drop(asked.send(())),
                None => sleep_until(next).await,
            }
        }
    }

    async fn deliver(&mut self, mut parcel: Parcel) {
        parcel.lost = self.lost.swap(0, Ordering::Relaxed);
        let spans = parcel.spans.len() as u64 + parcel.lost;
        for packet in parcel.packets() {
            if self.send(&packet).await.is_err() {
                // Some of it may have arrived: more are told as lost then than were.
                self.lost.fetch_add(spans, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Sends a packet, by a new connection where the one before is to a listener that has gone.
    async fn send(&mut self, packet: &[u8]) -> std::io::Result<()> {
        if let Some(connection) = &self.connection {
            match timeout(PATIENCE, connection.send(packet)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => self.connection = None,
                Err(late) => return Err(late.into()),
            }
        }
        let connection = UnixDatagram::unbound()?;
        connection.connect(&self.socket)?;
        timeout(PATIENCE, connection.send(packet)).await??;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Puts an item with those of its kind; gives back who wants to be told.
fn take(parcels: &mut Vec<Parcel>, item: Item) -> Option<oneshot::Sender<()>> {
    let (span, of) = match item {
        Item::Span(span, of) => (span, of),
        Item::Sent(asked) => return Some(asked),
    };
    match parcels
        .iter_mut()
        .find(|parcel| parcel.of.as_ref() == of.as_deref())
    {
        Some(parcel) => parcel.spans.push(span),
        None => parcels.push(Parcel {
            of: of.as_deref().cloned(),
            lost: 0,
            spans: vec![span],
        }),
    }
    None
}

#[cfg(test)]
mod tests {
    use plan::trace::{Context, Kind};

    use super::*;

    fn span(name: &str) -> Span {
        Span::begun(&Context::new(true), None, name, Kind::Internal)
    }

    async fn packet(listener: &UnixDatagram) -> Parcel {
        let mut packet = vec![0; 65_536];
        let length = listener.recv(&mut packet).await.expect("a packet");
        Parcel::read(&packet[..length]).expect("a parcel")
    }

    #[tokio::test]
    async fn spans_travel_together_each_with_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let listener = UnixDatagram::bind(&path).expect("bound");
        let outbox = Outbox::open(&path);
        let of = Arc::new(Service {
            name: "app".to_owned(),
            attributes: Vec::new(),
        });
        for (name, of) in [("a", None), ("x", Some(&of)), ("b", None), ("y", Some(&of))] {
            outbox.add(span(name), of.cloned());
        }
        outbox.lose(3);
        outbox.clone().sent().await;
        let (ours, guests) = (packet(&listener).await, packet(&listener).await);
        let names =
            |parcel: &Parcel| -> String { parcel.spans.iter().map(|span| &*span.name).collect() };
        assert_eq!(
            (ours.of.as_ref(), names(&ours), ours.lost),
            (None, "ab".to_owned(), 3)
        );
        assert_eq!(
            (guests.of.as_ref(), names(&guests), guests.lost),
            (Some(&*of), "xy".to_owned(), 0)
        );
    }

    #[tokio::test]
    async fn a_listener_may_go_and_another_one_come() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let first = UnixDatagram::bind(&path).expect("bound");
        let outbox = Outbox::open(&path);
        outbox.add(span("first"), None);
        outbox.clone().sent().await;
        assert_eq!(packet(&first).await.spans[0].name, "first");
        drop(first);
        outbox.add(span("to nobody"), None);
        outbox.clone().sent().await;
        std::fs::remove_file(&path).expect("removed");
        let second = UnixDatagram::bind(&path).expect("bound");
        outbox.add(span("second"), None);
        outbox.sent().await;
        let parcel = packet(&second).await;
        assert_eq!((parcel.spans[0].name.as_str(), parcel.lost), ("second", 1));
    }

    #[tokio::test]
    async fn without_a_listener_the_queue_is_bounded_and_nobody_waits() {
        let dir = tempfile::tempdir().expect("a directory");
        let outbox = Outbox::open(&dir.path().join("socket"));
        // The task that delivers does not run meanwhile: there is one thread.
        for _ in 0..MOST + 10 {
            outbox.add(span("x"), None);
        }
        assert_eq!(outbox.lost.load(Ordering::Relaxed), 10);
    }
}
