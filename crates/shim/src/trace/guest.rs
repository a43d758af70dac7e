//! The requests of a guest, as its runner tells of them. A runner may have been taken over: it can tell of what never was, but
//! not as somebody else, not more than so much, and not at the cost of others.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jail::{Child, SpanReceiver, Told};
use plan::Plan;
use plan::numbers::Labels;
use plan::trace::{Service, Span};

use super::outbox::PAUSE;
use super::{Of, Trace};

/// Spans of a guest in a second, and at once.
const RATE: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);

/// What a container is to those who look at its traces.
pub(crate) fn service(plan: &Plan) -> Service {
    let annotations = plan.spec.annotations().as_ref();
    let labels = annotations.map(Labels::of).unwrap_or_default();
    let mut attributes = vec![("container.id".to_owned(), plan.id.to_string())];
    for (key, value) in [
        ("k8s.namespace.name", &labels.namespace),
        ("k8s.pod.name", &labels.pod),
        ("k8s.pod.uid", &labels.uid),
        ("k8s.container.name", &labels.container),
    ] {
        if !value.is_empty() {
            attributes.push((key.to_owned(), value.clone()));
        }
    }
    if let Some(image) = &plan.image_name {
        attributes.push(("container.image.name".to_owned(), image.clone()));
    }
    // Its own word first, as every program of OpenTelemetry has it; then what people call it.
    let env = plan.guest.as_ref().map_or(&[][..], |guest| &guest.env);
    let own = env
        .iter()
        .find(|(name, value)| name == "OTEL_SERVICE_NAME" && !value.is_empty());
    let name = own
        .map(|(_, value)| value)
        .or_else(|| Some(&labels.container).filter(|name| !name.is_empty()));
    Service {
        name: name.cloned().unwrap_or_else(|| plan.id.to_string()),
        attributes,
    }
}

/// Takes what the runner of a traced container tells, until it ends.
pub(crate) fn follow(trace: &Trace, child: &Child, service: Service) {
    let Some((of, _)) = &trace.0 else {
        return;
    };
    if let Some(spans) = child.spans() {
        tokio::spawn(relay(Arc::clone(of), spans, Arc::new(service)));
    }
}

async fn relay(of: Arc<Of>, spans: SpanReceiver, service: Arc<Service>) {
    let mut purse = Purse::new(Instant::now());
    loop {
        // What may not be told yet waits in the kernel, which holds little.
        while of.outbox.is_crowded() {
            tokio::time::sleep(PAUSE).await;
        }
        match spans.next() {
            Told::Ended => return,
            Told::Nothing => {
                if jail::readable(spans.as_fd()).await.is_err() {
                    return;
                }
            }
            Told::Span(json, lost) => {
                if lost > 0 {
                    of.outbox.lose(lost);
                }
                match Span::of_json(&json) {
                    Ok(span) => of.outbox.add(span, Some(Arc::clone(&service))),
                    Err(_) => of.outbox.lose(1),
                }
                match purse.spend(Instant::now()) {
                    Some(later) => tokio::time::sleep_until(later.into()).await,
                    // The supervisor has one thread for all of its containers.
                    None => tokio::task::yield_now().await,
                }
            }
        }
    }
}

/// How many more spans may come at the moment.
struct Purse {
    left: u32,
    since: Instant,
}

impl Purse {
    fn new(since: Instant) -> Self {
        Self { left: RATE, since }
    }

    /// One span has come; when the next one may, if not at once.
    fn spend(&mut self, now: Instant) -> Option<Instant> {
        let full = self.since + SECOND;
        if now >= full {
            *self = Self::new(now);
        }
        self.left = self.left.saturating_sub(1);
        (self.left == 0).then_some(full.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_tells_so_much_in_a_second() {
        let began = Instant::now();
        let mut now = began;
        let mut purse = Purse::new(now);
        for _ in 0..10 * RATE {
            if let Some(later) = purse.spend(now) {
                now = later;
            }
        }
        assert_eq!((now - began).as_secs(), 10);
    }
}
