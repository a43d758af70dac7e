//! A line as it is written where lines are JSON, and an entry of `wasi:logging` or `wasi:otel` in both forms.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use plan::trace::{SpanId, TraceId, Value};
use serde::{Serialize, Serializer};

use crate::http::rfc3339;
use crate::stdio::Output;

/// What a guest logs by `wasi:logging` or `wasi:otel`.
#[derive(Default)]
pub(crate) struct Entry<'a> {
    pub(crate) level: &'a str,
    pub(crate) context: &'a str,
    pub(crate) message: &'a str,
    /// What else is known.
    pub(crate) attributes: &'a [(String, Value)],
    /// In which span it was logged.
    pub(crate) span: Option<(TraceId, SpanId)>,
}

impl Entry<'_> {
    /// `LEVEL context: message key=value`; a message of several lines stays one entry, its further lines indented. Ids of
    /// spans would be half of a line, and nobody reads them: they are in JSON alone.
    pub(crate) fn line(&self) -> String {
        let level = self.level.to_uppercase();
        let separator = if self.context.is_empty() { "" } else { ": " };
        let mut text = format!("{}{separator}{}", self.context, self.text());
        for (key, value) in self.attributes {
            // Text and numbers always have a form in JSON.
            let value = serde_json::to_string(value).unwrap_or_default();
            let _ = write!(text, " {key}={value}");
        }
        format!("{level} {}\n", text.replace('\n', "\n  "))
    }

    pub(super) fn text(&self) -> &str {
        self.message.trim_end_matches('\n')
    }
}

fn as_map<S: Serializer>(pairs: &[(String, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// A line in JSON.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    pub(super) time: String,
    pub(super) stream: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) span_id: Option<SpanId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "as_map")]
    pub(super) attributes: &'a [(String, Value)],
    /// The line goes on in the next object of this stream.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
    pub(super) message: Cow<'a, str>,
}

impl<'a> Object<'a> {
    /// What is no UTF-8 becomes U+FFFD.
    pub(super) fn new(output: Output, message: &'a [u8]) -> Self {
        Self {
            time: rfc3339(SystemTime::now()),
            stream: match output {
                Output::Stdout => "stdout",
                Output::Stderr => "stderr",
            },
            level: None,
            context: None,
            request: None,
            trace_id: None,
            span_id: None,
            attributes: &[],
            partial: false,
            message: String::from_utf8_lossy(message),
        }
    }

    pub(super) fn line(&self) -> Vec<u8> {
        // Text and numbers always have a form in JSON.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line() {
        let line = |level, context, message| {
            let entry = Entry {
                level,
                context,
                message,
                ..Entry::default()
            };
            entry.line()
        };
        assert_eq!(line("warn", "db", "slow\n"), "WARN db: slow\n");
        assert_eq!(line("info", "", "one\ntwo"), "INFO one\n  two\n");
        let attributes = [
            ("rows".to_owned(), Value::Int(3)),
            ("table".to_owned(), Value::from("a b\n")),
        ];
        let entry = Entry {
            level: "info",
            message: "read",
            attributes: &attributes,
            ..Entry::default()
        };
        assert_eq!(entry.line(), "INFO read rows=3 table=\"a b\\n\"\n");
    }

    #[test]
    fn an_object_is_one_line_whatever_it_says() {
        let line = Object::new(Output::Stderr, b"a \"b\"\n\x00\xff\r").line();
        let text = String::from_utf8(line).expect("UTF-8");
        assert!(
            text.ends_with("\"message\":\"a \\\"b\\\"\\n\\u0000\u{fffd}\\r\"}\n"),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), 1);
        assert!(
            text.contains(r#""stream":"stderr""#) && !text.contains("level"),
            "{text}"
        );
    }
}
