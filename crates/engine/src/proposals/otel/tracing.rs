use plan::trace::Context;
use wasmtime::component::{ComponentType, Lower, Val, flags};

use super::spans;
use crate::state::ComponentState;

// `trace-flags`.
flags! {
    TraceFlags {
        #[component(name = "sampled")]
        const SAMPLED;
    }
}

/// `span-context`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct SpanContext {
    #[component(name = "trace-id")]
    trace: String,
    #[component(name = "span-id")]
    span: String,
    #[component(name = "trace-flags")]
    flags: TraceFlags,
    #[component(name = "is-remote")]
    remote: bool,
    #[component(name = "trace-state")]
    state: Vec<(String, String)>,
}

impl SpanContext {
    fn of(context: &Context) -> Self {
        let members = context.state.split(',').filter_map(|member| {
            let (key, value) = member.trim_matches([' ', '\t']).split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        Self {
            trace: context.trace.to_string(),
            span: context.span.to_string(),
            flags: if context.sampled {
                TraceFlags::SAMPLED
            } else {
                TraceFlags::default()
            },
            remote: false,
            state: members.collect(),
        }
    }

    /// Nowhere: ids of zeros, which libraries read as none; an empty text would be an error to some.
    fn none() -> Self {
        Self {
            trace: "0".repeat(32),
            span: "0".repeat(16),
            flags: TraceFlags::default(),
            remote: false,
            state: Vec::new(),
        }
    }
}

/// The request that the guest answers, or its start.
pub(super) fn outer(state: &mut ComponentState) -> SpanContext {
    match state.current() {
        Some(current) => SpanContext::of(&current.outer),
        None => SpanContext::none(),
    }
}

/// The innermost of the spans that the guest has begun, else as [`outer`].
pub(super) fn inner(state: &mut ComponentState) -> SpanContext {
    match state.current() {
        Some(current) => SpanContext::of(current.inner()),
        None => SpanContext::none(),
    }
}

/// A span begins: the guest is in it from here on.
pub(super) fn on_start(state: &mut ComponentState, told: &[Val]) {
    if let Some((current, first)) = state.current().zip(told.first())
        && let Some(context) = spans::context_of(first)
    {
        current.begin(context);
    }
}

/// A span is over.
pub(super) fn on_end(state: &mut ComponentState, told: &[Val]) {
    // Without tracing nothing of it is looked at.
    let Some((current, data)) = state.current().zip(told.first()) else {
        return;
    };
    // Ids that are none belong nowhere.
    let Some(context) = spans::context_of(data) else {
        return;
    };
    current.end(context.span);
    if current.keeps(&context) {
        current.tracer.take(spans::span(&context, data));
    }
}
