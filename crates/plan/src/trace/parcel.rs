use serde::{Deserialize, Serialize};

use super::Span;

/// Bytes of a packet to the listener.
const PACKET: usize = 60_000;

/// Spans on their way to the listener: lines of JSON, the first about all of them, each further one a span. Text, because
/// the two ends may be of different releases.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parcel {
    /// Whose spans these are; `None`: the supervisor's own.
    pub of: Option<Service>,
    /// How many spans were lost before these, for want of room.
    pub lost: u64,
    /// The spans.
    pub spans: Vec<Span>,
}

/// What a guest is to those who look at its traces (OpenTelemetry's "resource").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// What else is known of it.
    pub attributes: Vec<(String, String)>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Service>,
    #[serde(default)]
    lost: u64,
}

impl Parcel {
    /// As packets, each of which is a parcel.
    #[must_use]
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let mut lost = self.lost;
        let mut head = || {
            let head = Head {
                of: self.of.clone(),
                lost: std::mem::take(&mut lost),
            };
            line(&head)
        };
        let mut packets = vec![head()];
        for span in &self.spans {
            let span = line(span);
            match packets.last_mut() {
                Some(packet) if packet.len() + span.len() <= PACKET => packet.extend(span),
                _ => {
                    let mut packet = head();
                    packet.extend(span);
                    packets.push(packet);
                }
            }
        }
        packets
    }

    /// What a packet holds. Lines that are no spans are counted as lost.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let mut lines = packet
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let Head { of, mut lost } = serde_json::from_slice(lines.next()?).ok()?;
        let mut spans = Vec::new();
        for line in lines {
            match Span::of_json(line) {
                Ok(span) => spans.push(span),
                Err(_) => lost += 1,
            }
        }
        Some(Self { of, lost, spans })
    }
}

/// Text and numbers always have a form in JSON.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Kind};
    use super::*;

    #[test]
    fn many_spans_are_several_packets() {
        let mut span = Span::begun(&Context::new(true), None, "x", Kind::Internal);
        span.add("text", "t".repeat(1000));
        let parcel = Parcel {
            of: Some(Service {
                name: "app".to_owned(),
                attributes: vec![("container.id".to_owned(), "c1".to_owned())],
            }),
            lost: 7,
            spans: vec![span; 100],
        };
        let packets = parcel.packets();
        assert!(packets.len() > 1 && packets.iter().all(|packet| packet.len() <= PACKET));
        let read: Vec<Parcel> = packets
            .iter()
            .map(|packet| Parcel::read(packet).expect("a parcel"))
            .collect();
        assert!(read.iter().all(|one| one.of == parcel.of));
        assert_eq!(read.iter().map(|one| one.lost).sum::<u64>(), 7);
        assert_eq!(
            read.into_iter()
                .flat_map(|one| one.spans)
                .collect::<Vec<_>>(),
            parcel.spans
        );
    }

    #[test]
    fn what_is_no_span_is_lost() {
        let read = Parcel::read(b"{}\n{\"trace\":\"0\"}\nnonsense\n").expect("a head");
        assert_eq!((read.lost, read.spans.len()), (2, 0));
        assert_eq!(Parcel::read(b""), None);
        assert_eq!(Parcel::read(b"nonsense"), None);
        assert_eq!(Parcel::read(&[0xff; 70_000]), None);
    }
}
