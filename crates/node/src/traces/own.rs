//! What a guest's own library says of a span, as OpenTelemetry has it.

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value as Theirs};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use plan::trace::{Attributes, Own, Role, Scope, Value};

use super::export::time;

/// What of a span differs between those of guests and ours.
pub(super) struct Parts {
    /// On which side of a queue, if on one.
    pub(super) kind: Option<SpanKind>,
    pub(super) scope: InstrumentationScope,
    pub(super) ok: bool,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) events: SpanEvents,
    pub(super) links: SpanLinks,
    /// Attributes that were left out.
    pub(super) dropped: u32,
}

impl Parts {
    /// Of a span of ours.
    pub(super) fn of_ours(scope: &InstrumentationScope) -> Self {
        Self {
            kind: None,
            scope: scope.clone(),
            ok: false,
            attributes: Vec::new(),
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            dropped: 0,
        }
    }
}

/// Of a span of a guest's own.
pub(super) fn parts(own: Own) -> Parts {
    let mut events = SpanEvents::default();
    events.dropped_count = own.dropped_events;
    events.events.extend(own.events.into_iter().map(|event| {
        let (name, time) = (event.name, time(event.time));
        Event::new(name, time, attributes(event.attributes), event.dropped)
    }));
    let mut links = SpanLinks::default();
    links.dropped_count = own.dropped_links;
    links.links.extend(own.links.into_iter().map(|link| {
        let state: TraceState = link.to.state.parse().unwrap_or_default();
        let flags = if link.to.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        let to = SpanContext::new(
            TraceId::from(link.to.trace.number()),
            SpanId::from(link.to.span.number()),
            flags,
            false,
            state,
        );
        Link::new(to, attributes(link.attributes), link.dropped)
    }));
    Parts {
        kind: own.role.map(|role| match role {
            Role::Producer => SpanKind::Producer,
            Role::Consumer => SpanKind::Consumer,
        }),
        scope: scope(own.scope),
        ok: own.ok,
        attributes: attributes(own.attributes),
        events,
        links,
        dropped: own.dropped_attributes,
    }
}

fn scope(scope: Scope) -> InstrumentationScope {
    let mut built = InstrumentationScope::builder(scope.name);
    if let Some(version) = scope.version {
        built = built.with_version(version);
    }
    if let Some(schema) = scope.schema {
        built = built.with_schema_url(schema);
    }
    built.with_attributes(attributes(scope.attributes)).build()
}

pub(super) fn attributes(pairs: Attributes) -> Vec<KeyValue> {
    let pairs = pairs.into_iter();
    pairs
        .map(|(key, value)| KeyValue::new(key, theirs(value)))
        .collect()
}

fn theirs(value: Value) -> Theirs {
    match value {
        Value::Bool(is) => Theirs::Bool(is),
        Value::Int(number) => Theirs::I64(number),
        Value::Double(number) => Theirs::F64(number),
        Value::Text(text) => Theirs::String(text.into()),
        Value::List(values) => Theirs::Array(array(values)),
    }
}

/// OpenTelemetry's lists are of one sort; one of several is told as text.
fn array(values: Vec<Value>) -> Array {
    fn all<T>(values: &[Value], of: fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        values.iter().map(of).collect()
    }
    let bools = |value: &Value| match value {
        Value::Bool(is) => Some(*is),
        _ => None,
    };
    let whole = |value: &Value| match value {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    // A number that happens to be whole is written without a fraction by some.
    let numbers = |value: &Value| match value {
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        _ => None,
    };
    if values.is_empty() {
        Array::String(Vec::new())
    } else if let Some(all) = all(&values, bools) {
        Array::Bool(all)
    } else if let Some(all) = all(&values, whole) {
        Array::I64(all)
    } else if let Some(all) = all(&values, numbers) {
        Array::F64(all)
    } else {
        let texts = values.into_iter().map(|value| match theirs(value) {
            Theirs::String(text) => text,
            other => StringValue::from(other.as_str().into_owned()),
        });
        Array::String(texts.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_sort() {
        let list = |values: &[Value]| theirs(Value::List(values.to_vec()));
        let (one, half, yes) = (Value::Int(1), Value::Double(0.5), Value::Bool(true));
        for (values, wanted) in [
            (vec![yes.clone()], Array::Bool(vec![true])),
            (vec![one.clone()], Array::I64(vec![1])),
            (vec![one.clone(), half], Array::F64(vec![1.0, 0.5])),
            (
                vec![yes, one],
                Array::String(vec!["true".into(), "1".into()]),
            ),
            (vec![Value::from("a")], Array::String(vec!["a".into()])),
            (Vec::new(), Array::String(Vec::new())),
        ] {
            assert_eq!(list(&values), Theirs::Array(wanted));
        }
        assert_eq!(theirs(Value::Double(1.5)), Theirs::F64(1.5));
    }
}
