//! Logs go where all else goes that a guest logs: to the container's log.

use plan::trace::{SpanId, TraceId};
use wasmtime::component::Val;

use super::fields::{beginning, field, text};
use super::values::{attributes, said};
use crate::state::ComponentState;
use crate::stdio::Entry;

/// Characters of whom a line is of.
const NAME: usize = 128;

/// Writes a record to standard error. Its times are not told: the line has its own, of the same moment.
pub(super) fn on_emit(state: &ComponentState, told: &[Val]) {
    let Some(record) = told.first() else {
        return;
    };
    // An event's name says what it is better than the library that it comes from.
    let scope = field(record, "instrumentation-scope").map_or("", |scope| text(scope, "name"));
    let event = text(record, "event-name");
    let context = beginning(if event.is_empty() { scope } else { event }, NAME);
    let message = field(record, "body").map(said).unwrap_or_default();
    let (attributes, _) = attributes(record);
    let trace = TraceId::of_hex(text(record, "trace-id"));
    state.log(&Entry {
        level: level(record),
        context: &context,
        message: &message,
        attributes: &attributes,
        span: trace.zip(SpanId::of_hex(text(record, "span-id"))),
    });
}

/// The level, by the names of `wasi:logging`: by its number, else by its name, else nothing special.
fn level(record: &Val) -> &'static str {
    match field(record, "severity-number") {
        Some(Val::U8(1..=4)) => "trace",
        Some(Val::U8(5..=8)) => "debug",
        Some(Val::U8(9..=12)) => "info",
        Some(Val::U8(13..=16)) => "warn",
        Some(Val::U8(17..=20)) => "error",
        Some(Val::U8(21..=24)) => "critical",
        _ => {
            let said = text(record, "severity-text");
            ["trace", "debug", "info", "warn", "error", "critical"]
                .into_iter()
                .find(|known| said.eq_ignore_ascii_case(known))
                .unwrap_or(if said.eq_ignore_ascii_case("fatal") {
                    "critical"
                } else {
                    "info"
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_levels() {
        let of = |number: Option<u8>, name: &str| {
            let number = number.map(|number| Box::new(Val::U8(number)));
            level(&Val::Record(vec![
                ("severity-number".to_owned(), Val::Option(number)),
                ("severity-text".to_owned(), Val::String(name.to_owned())),
            ]))
        };
        for (number, name, wanted) in [
            (Some(1), "", "trace"),
            (Some(8), "ERROR", "debug"),
            (Some(9), "", "info"),
            (Some(16), "", "warn"),
            (Some(17), "", "error"),
            (Some(24), "", "critical"),
            (Some(25), "Warn", "warn"),
            (None, "FATAL", "critical"),
            (None, "loud", "info"),
            (None, "", "info"),
        ] {
            assert_eq!(of(number, name), wanted, "{number:?} {name}");
        }
    }
}
