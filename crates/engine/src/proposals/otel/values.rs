//! Values of attributes: JSON in the releases, variants in the drafts before.

use plan::trace::{Attributes, LIST, TEXT, Value};
use serde_json::Value as Json;
use wasmtime::component::Val;

use super::fields::{as_text, beginning, field, members, text};

/// Bytes of JSON that are read as such. What is read takes many times its length.
const JSON: usize = 4096;

/// The attributes of a record, and how many more there were.
pub(super) fn attributes(record: &Val) -> (Attributes, u32) {
    members(record, "attributes", |pair| {
        let value = field(pair, "value")?;
        Some((beginning(text(pair, "key"), TEXT), read(value)?))
    })
}

/// A value; `None` for what has no meaning as one.
pub(super) fn read(value: &Val) -> Option<Value> {
    Some(match value {
        Val::String(json) => of_text(json),
        Val::Variant(_, Some(inside)) => plain(inside)?,
        _ => return None,
    })
}

/// A value that is what it is.
fn plain(value: &Val) -> Option<Value> {
    Some(match value {
        Val::String(text) => Value::Text(beginning(text, TEXT)),
        Val::Bool(is) => Value::Bool(*is),
        Val::S64(number) => Value::Int(*number),
        Val::Float64(number) => double(*number),
        Val::List(values) => Value::List(values.iter().take(LIST).filter_map(plain).collect()),
        _ => return None,
    })
}

/// What a text says in JSON; what is none is meant as it stands.
fn of_text(json: &str) -> Value {
    let parsed = match json.get(..JSON) {
        None => serde_json::from_str(json).ok(),
        // Longer than that only text makes sense, and reading text takes no more than it is long.
        Some(_) => serde_json::from_str::<String>(json).ok().map(Json::String),
    };
    match parsed {
        Some(parsed) => of_json(parsed),
        None => Value::Text(beginning(json, TEXT)),
    }
}

fn of_json(json: Json) -> Value {
    match json {
        Json::Bool(is) => Value::Bool(is),
        Json::String(text) => Value::Text(beginning(&text, TEXT)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(part)) => double(part),
            (None, None) => Value::Text(number.to_string()),
        },
        Json::Array(values)
            if values
                .iter()
                .all(|value| !value.is_array() && !value.is_object()) =>
        {
            Value::List(values.into_iter().take(LIST).map(of_json).collect())
        }
        // Maps, lists of lists, and nothing: OpenTelemetry's libraries have no form for them.
        other => Value::Text(beginning(&other.to_string(), TEXT)),
    }
}

/// JSON has no form for what is no number, or has no end.
fn double(number: f64) -> Value {
    if number.is_finite() {
        Value::Double(number)
    } else {
        Value::Text(number.to_string())
    }
}

/// What a log says, whole: text, or what else it is in JSON.
pub(super) fn said(body: &Val) -> String {
    match body {
        Val::String(json) => serde_json::from_str(json).unwrap_or_else(|_| json.clone()),
        Val::Variant(_, Some(inside)) => match as_text(inside) {
            Some(text) => text.to_owned(),
            None => plain(inside).map_or_else(String::new, |value| {
                serde_json::to_string(&value).unwrap_or_default()
            }),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_and_what_is_none_stays_as_it_is() {
        for (json, value) in [
            ("true", Value::Bool(true)),
            ("-3", Value::Int(-3)),
            (
                "18446744073709551615",
                Value::Double(18_446_744_073_709_551_615.0),
            ),
            ("0.5", Value::Double(0.5)),
            (r#""a \"b\"""#, Value::from("a \"b\"")),
            ("[1,2]", Value::List(vec![Value::Int(1), Value::Int(2)])),
            ("[]", Value::List(Vec::new())),
            ("[[1]]", Value::from("[[1]]")),
            (r#"{"a":1}"#, Value::from(r#"{"a":1}"#)),
            ("null", Value::from("null")),
            ("GET", Value::from("GET")),
            ("1e999", Value::from("1e999")),
            ("", Value::from("")),
        ] {
            assert_eq!(of_text(json), value, "{json}");
        }
        let long = "ä".repeat(JSON);
        let cut = Value::Text("ä".repeat(TEXT));
        assert_eq!(of_text(&long), cut);
        assert_eq!(of_text(&format!("\"{long}\"")), cut);
        assert_eq!(
            of_text(&format!("[{}0]", "0,".repeat(1000))),
            Value::List(vec![Value::Int(0); LIST])
        );
        // Read as a list, this would be a hundred times as long.
        let list = format!("[{}0]", "0,".repeat(JSON));
        assert_eq!(of_text(&list), Value::Text(list[..TEXT].to_owned()));
        assert_eq!(
            of_text(&"[".repeat(JSON - 1)),
            Value::Text("[".repeat(TEXT))
        );
    }

    #[test]
    fn values_of_older_drafts_are_variants() {
        let variant = |case: &str, inside| Val::Variant(case.to_owned(), Some(Box::new(inside)));
        for (value, wanted) in [
            (
                variant("string", Val::String("1".to_owned())),
                Value::from("1"),
            ),
            (variant("s64", Val::S64(1)), Value::Int(1)),
            (variant("f64", Val::Float64(f64::NAN)), Value::from("NaN")),
            (
                variant("bool-array", Val::List(vec![Val::Bool(true)])),
                Value::List(vec![Value::Bool(true)]),
            ),
        ] {
            assert_eq!(read(&value), Some(wanted));
        }
        assert_eq!(read(&Val::U8(1)), None);
        assert_eq!(read(&Val::Variant("none".to_owned(), None)), None);
        assert_eq!(
            said(&variant("string", Val::String("\"x\"".to_owned()))),
            "\"x\""
        );
        assert_eq!(said(&Val::String("\"x\"".to_owned())), "x");
        assert_eq!(said(&Val::String("{\"a\":1}".to_owned())), "{\"a\":1}");
    }
}
