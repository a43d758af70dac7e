//! Tracing, as the engine knows it: who decides, where spans go, and what a guest is doing at the moment.

use std::sync::Arc;

use plan::trace::{Context, Span, SpanId, Tracing};

/// Spans of a guest's own that have begun and are remembered, one below the other.
const DEEPEST: usize = 64;

/// Takes spans that are over. Called from all threads of a server, for every request that is kept: it must not wait.
pub trait SpanSink: Send + Sync {
    /// Takes one; what it cannot keep it drops.
    fn take(&self, span: Span);
}

/// Traces a guest's requests.
pub struct Tracer {
    tracing: Tracing,
    sink: Box<dyn SpanSink>,
}

impl Tracer {
    /// One that decides by `tracing` and tells `sink`.
    #[must_use]
    pub fn new(tracing: Tracing, sink: Box<dyn SpanSink>) -> Self {
        Self { tracing, sink }
    }

    /// The context of a new part of what a request brings, or of a new trace. Where the parent is not kept it is the parent
    /// itself: nothing is told of the part.
    pub(crate) fn below(&self, parent: Option<&Context>) -> Context {
        let mut context = parent.map_or_else(|| Context::new(false), Context::child);
        context.sampled = self.tracing.sampler.takes(parent, context.trace);
        match parent {
            Some(parent) if !context.sampled => Context {
                sampled: false,
                ..parent.clone()
            },
            _ => context,
        }
    }

    pub(crate) fn take(&self, span: Span) {
        self.sink.take(span);
    }
}

/// What a guest does at the moment: what it sends is a part of it.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) tracer: Arc<Tracer>,
    /// The request that it answers, or its start.
    pub(crate) outer: Context,
    /// Spans of its own below that, as it tells of them (`wasi:otel`), the innermost last.
    own: Vec<Context>,
}

impl Current {
    pub(crate) const fn new(tracer: Arc<Tracer>, outer: Context) -> Self {
        let own = Vec::new();
        Self { tracer, outer, own }
    }

    /// Of a guest that answers no request: the start of its container.
    pub(crate) fn of_start(tracer: &Arc<Tracer>) -> Self {
        Self::new(Arc::clone(tracer), tracer.tracing.start.clone())
    }

    /// The innermost span that has begun.
    pub(crate) fn inner(&self) -> &Context {
        self.own.last().unwrap_or(&self.outer)
    }

    /// A span of the guest's own begins.
    pub(crate) fn begin(&mut self, mut context: Context) {
        if self.own.len() < DEEPEST {
            context.sampled = self.keeps(&context);
            self.own.push(context);
        }
    }

    /// A span of the guest's own is over, and with it what it has forgotten within it.
    pub(crate) fn end(&mut self, span: SpanId) {
        if let Some(at) = self.own.iter().rposition(|own| own.span == span) {
            self.own.truncate(at);
        }
    }

    /// Whether a span of the guest's own is kept. It can ask for less than the sampler says, never for more.
    pub(crate) fn keeps(&self, own: &Context) -> bool {
        let decided = if own.trace == self.outer.trace {
            self.outer.sampled
        } else {
            // By the trace alone, so that all of its spans are kept or none.
            self.tracer.tracing.sampler.takes(None, own.trace)
        };
        own.sampled && decided
    }
}

#[cfg(test)]
mod tests {
    use plan::trace::Sampler;

    use super::*;

    struct Nowhere;

    impl SpanSink for Nowhere {
        fn take(&self, _: Span) {}
    }

    fn current(sampled: bool, sampler: &str) -> Current {
        let tracing = Tracing {
            sampler: Sampler::read(Some(sampler), None).expect("a sampler"),
            start: Context::new(sampled),
        };
        Current::of_start(&Arc::new(Tracer::new(tracing, Box::new(Nowhere))))
    }

    #[test]
    fn the_innermost_span_is_where_a_guest_is() {
        let mut current = current(true, "always_on");
        let outer = current.outer.clone();
        let (a, b, c) = (outer.child(), outer.child(), outer.child());
        for own in [&a, &b, &c] {
            current.begin(own.clone());
            assert_eq!(current.inner(), own);
        }
        // Not its turn, and nobody's.
        current.end(b.span);
        assert_eq!(current.inner(), &a);
        current.end(c.span);
        assert_eq!(current.inner(), &a);
        current.end(a.span);
        assert_eq!(current.inner(), &outer);
        // A guest that ends nothing is not remembered for ever.
        for _ in 0..1000 {
            current.begin(outer.child());
        }
        assert_eq!(current.own.len(), DEEPEST);
    }

    #[test]
    fn a_guest_keeps_no_more_than_the_sampler() {
        let not = |context: &Context| Context {
            sampled: false,
            ..context.clone()
        };
        let of = |outer: &Context| Context {
            sampled: true,
            ..outer.child()
        };
        for (sampled, sampler, within, elsewhere) in [
            (true, "always_on", true, true),
            (false, "always_on", false, true),
            (true, "always_off", true, false),
            (false, "parentbased_always_off", false, false),
        ] {
            let mut current = current(sampled, sampler);
            let own = of(&current.outer);
            assert_eq!(current.keeps(&own), within, "{sampled} {sampler}");
            assert_eq!(
                current.keeps(&Context::new(true)),
                elsewhere,
                "{sampled} {sampler}"
            );
            assert!(!current.keeps(&not(&own)) && !current.keeps(&Context::new(false)));
            current.begin(own);
            assert_eq!(current.inner().sampled, within);
        }
    }
}
