//! Spans of the guest's requests and its own, on their way to the supervisor.

use engine::{SpanSink, Tracer};
use jail::{Orders, SpanSender};
use plan::trace::{Span, Tracing};

struct Wire(SpanSender);

impl SpanSink for Wire {
    fn take(&self, span: Span) {
        // Text and numbers always have a form in JSON.
        if let Ok(json) = span.bounded().into_json_within(SpanSender::ROOM) {
            self.0.send(&json);
        }
    }
}

pub(crate) fn tracer(tracing: Tracing, orders: &Orders) -> Tracer {
    Tracer::new(tracing, Box::new(Wire(orders.spans())))
}
