use plan::trace::MOST;
use wasmtime::component::Val;

/// A field of a record; an option is what is in it. `None` where there is none, or nothing in it.
pub(super) fn field<'a>(record: &'a Val, name: &str) -> Option<&'a Val> {
    let Val::Record(fields) = record else {
        return None;
    };
    let (_, value) = fields.iter().find(|(known, _)| known == name)?;
    match value {
        Val::Option(inside) => inside.as_deref(),
        other => Some(other),
    }
}

/// A field that is text; empty where there is none.
pub(super) fn text<'a>(record: &'a Val, name: &str) -> &'a str {
    field(record, name).and_then(as_text).unwrap_or_default()
}

/// A field that is a list; empty where there is none.
pub(super) fn list<'a>(record: &'a Val, name: &str) -> &'a [Val] {
    match field(record, name) {
        Some(Val::List(values)) => values,
        _ => &[],
    }
}

/// The members of a list, as many as are kept, and how many there were besides.
pub(super) fn members<T>(
    record: &Val,
    name: &str,
    read: impl Fn(&Val) -> Option<T>,
) -> (Vec<T>, u32) {
    let all = list(record, name);
    let taken: Vec<T> = all.iter().take(MOST).filter_map(read).collect();
    let dropped = u32::try_from(all.len() - taken.len()).unwrap_or(u32::MAX);
    (taken, dropped)
}

/// A field that is a number of 32 bits; 0 where there is none.
pub(super) fn count(record: &Val, name: &str) -> u32 {
    match field(record, name) {
        Some(Val::U32(count)) => *count,
        _ => 0,
    }
}

/// A field that is a time (`datetime` of `wasi:clocks`), in nanoseconds since 1970.
pub(super) fn time(record: &Val, name: &str) -> Option<u64> {
    let time = field(record, name)?;
    let Some(Val::U64(seconds)) = field(time, "seconds") else {
        return None;
    };
    let nanoseconds = u64::from(count(time, "nanoseconds"));
    Some(
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds),
    )
}

pub(super) fn as_text(value: &Val) -> Option<&str> {
    match value {
        Val::String(text) => Some(text),
        _ => None,
    }
}

/// The beginning of a text, so many characters of it: guests make long ones, and all of it would be copied.
pub(super) fn beginning(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// The case of an enumeration or a variant.
pub(super) fn case(value: &Val) -> &str {
    match value {
        Val::Enum(case) | Val::Variant(case, _) => case,
        _ => "",
    }
}
