//! Spans as guests tell them. How much of one is kept is decided where it is sent ([`Span::bounded`]); here no more is copied
//! than that could be.

use std::time::SystemTime;

use plan::trace::{Context, Event, Kind, Link, Own, Role, Scope, Span, SpanId, TEXT, nanoseconds};
use wasmtime::component::Val;

use super::fields::{as_text, beginning, case, count, field, list, members, text, time};
use super::values::attributes;

/// Members of a `tracestate`, and the characters of one.
const MEMBERS: usize = 32;
const MEMBER: usize = 512;

/// The context in a record, or the one that a record is.
pub(super) fn context_of(record: &Val) -> Option<Context> {
    context(field(record, "span-context").unwrap_or(record))
}

fn context(record: &Val) -> Option<Context> {
    let (trace, span) = (text(record, "trace-id"), text(record, "span-id"));
    let sampled = match field(record, "trace-flags") {
        Some(Val::Flags(set)) => set.iter().any(|flag| flag == "sampled"),
        _ => false,
    };
    let members = list(record, "trace-state").iter().take(MEMBERS);
    let members = members.filter_map(|member| match member {
        Val::Tuple(pair) => match pair.as_slice() {
            [key, value] => Some((as_text(key)?, as_text(value)?)),
            _ => None,
        },
        _ => None,
    });
    let members: Vec<String> = members
        .filter(|(key, value)| key.len() + value.len() < MEMBER)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // Neither is copied before it is known to be short.
    let fits = trace.len() == 32 && span.len() == 16;
    let parent = fits.then(|| format!("00-{trace}-{span}-{:02x}", u8::from(sampled)))?;
    Context::parse(&parent, Some(&members.join(",")))
}

/// The span that a record tells of.
pub(super) fn span(context: &Context, data: &Val) -> Span {
    let side = field(data, "span-kind").map_or("", case);
    let kind = match side {
        "server" => Kind::Server,
        "client" => Kind::Client,
        _ => Kind::Internal,
    };
    let parent = SpanId::of_hex(text(data, "parent-span-id"));
    let mut span = Span::begun(context, parent, &beginning(text(data, "name"), TEXT), kind);
    let now = nanoseconds(SystemTime::now());
    span.end = time(data, "end-time").unwrap_or(now);
    span.start = time(data, "start-time").unwrap_or(span.end);
    let status = field(data, "status");
    if let Some(Val::Variant(said, why)) = status
        && said == "error"
    {
        let why = why.as_deref().and_then(as_text).unwrap_or_default();
        span.error = Some(beginning(why, TEXT));
    }
    let (attributes, dropped_attributes) = attributes(data);
    let (events, dropped_events) = members(data, "events", event);
    let (links, dropped_links) = members(data, "links", link);
    span.own = Some(Box::new(Own {
        role: match side {
            "producer" => Some(Role::Producer),
            "consumer" => Some(Role::Consumer),
            _ => None,
        },
        ok: status.is_some_and(|status| case(status) == "ok"),
        scope: field(data, "instrumentation-scope").map_or_else(Scope::default, scope),
        attributes,
        events,
        links,
        dropped_attributes: dropped_attributes.saturating_add(count(data, "dropped-attributes")),
        dropped_events: dropped_events.saturating_add(count(data, "dropped-events")),
        dropped_links: dropped_links.saturating_add(count(data, "dropped-links")),
    }));
    span
}

fn event(record: &Val) -> Option<Event> {
    let (attributes, dropped) = attributes(record);
    Some(Event {
        name: beginning(text(record, "name"), TEXT),
        time: time(record, "time")?,
        attributes,
        dropped,
    })
}

fn link(record: &Val) -> Option<Link> {
    let (attributes, dropped) = attributes(record);
    Some(Link {
        to: context_of(record)?,
        attributes,
        dropped,
    })
}

pub(super) fn scope(record: &Val) -> Scope {
    let optional = |name| {
        let text = field(record, name).and_then(as_text)?;
        Some(beginning(text, TEXT))
    };
    Scope {
        name: beginning(text(record, "name"), TEXT),
        version: optional("version"),
        schema: optional("schema-url"),
        attributes: attributes(record).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Val {
        Val::String(text.to_owned())
    }

    fn record(fields: Vec<(&str, Val)>) -> Val {
        let fields = fields.into_iter();
        Val::Record(
            fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    fn told(trace: &str, span: &str) -> Val {
        record(vec![
            ("trace-id", of_text(trace)),
            ("span-id", of_text(span)),
            ("trace-flags", Val::Flags(vec!["sampled".to_owned()])),
            ("is-remote", Val::Bool(false)),
            (
                "trace-state",
                Val::List(vec![Val::Tuple(vec![of_text("a"), of_text("1")])]),
            ),
        ])
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn ids_are_ids_or_belong_nowhere() {
        let context = context_of(&told(TRACE, SPAN)).expect("a context");
        assert_eq!((context.sampled, context.state.as_str()), (true, "a=1"));
        let inside = record(vec![
            ("span-context", told(TRACE, SPAN)),
            ("name", of_text("x")),
        ]);
        assert_eq!(context_of(&inside), Some(context));
        let (zeros, long) = ("0".repeat(32), "a".repeat(1 << 20));
        for (trace, span) in [
            ("", SPAN),
            (TRACE, ""),
            (&zeros, SPAN),
            (TRACE, &zeros[..16]),
            (&long, SPAN),
            (TRACE, &long),
            (TRACE, "b7ad6b716920333-"),
            ("0AF7651916CD43DD8448EB211C80319C", SPAN),
        ] {
            assert_eq!(context_of(&told(trace, span)), None, "{span}");
        }
        assert_eq!(context_of(&Val::Bool(true)), None);
    }

    #[test]
    fn a_span_is_read_by_the_names_of_its_fields() {
        let time = |seconds| {
            record(vec![
                ("seconds", Val::U64(seconds)),
                ("nanoseconds", Val::U32(5)),
            ])
        };
        let pair = record(vec![("key", of_text("k")), ("value", of_text("1"))]);
        let event = record(vec![
            ("name", of_text("happened")),
            ("time", time(2)),
            ("attributes", Val::List(vec![pair.clone()])),
        ]);
        let data = record(vec![
            (
                "status",
                Val::Variant("error".to_owned(), Some(Box::new(of_text("why")))),
            ),
            ("span-kind", Val::Enum("producer".to_owned())),
            ("span-context", told(TRACE, SPAN)),
            ("start-time", time(1)),
            ("end-time", time(u64::MAX)),
            ("events", Val::List(vec![event; 200])),
            ("attributes", Val::List(vec![pair; 200])),
            ("parent-span-id", of_text("b7ad6b7169203332")),
            ("dropped-events", Val::U32(u32::MAX)),
            (
                "links",
                Val::List(vec![record(vec![("span-context", told("", SPAN))])]),
            ),
        ]);
        let context = context_of(&data).expect("a context");
        let span = span(&context, &data);
        assert_eq!((span.start, span.end), (1_000_000_005, u64::MAX));
        assert_eq!(
            span.parent.map(|it| it.to_string()).as_deref(),
            Some("b7ad6b7169203332")
        );
        assert_eq!(
            (span.kind, span.error.as_deref()),
            (Kind::Internal, Some("why"))
        );
        let own = span.own.expect("its own");
        assert_eq!((own.role, own.ok), (Some(Role::Producer), false));
        assert_eq!((own.attributes.len(), own.dropped_attributes), (128, 72));
        assert_eq!((own.events.len(), own.dropped_events), (128, u32::MAX));
        // What is no link is counted as one that was left out.
        assert_eq!((own.links.len(), own.dropped_links), (0, 1));
    }
}
