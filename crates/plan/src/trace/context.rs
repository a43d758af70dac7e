use std::fmt;

use serde::{Deserialize, Serialize};

use super::random::random;

/// The header, or key of metadata, by which a context travels.
pub const TRACEPARENT: &str = "traceparent";
/// What goes with it, for systems that have more to say.
pub const TRACESTATE: &str = "tracestate";

/// Bytes of a `tracestate` that are carried on (the rule asks for 512 at least).
const STATE: usize = 512;
/// Members of a `tracestate`.
const MEMBERS: usize = 32;

/// A trace: 16 bytes, never all zero; written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId(u128);

/// A span of a trace: 8 bytes, never all zero; written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpanId(u64);

impl TraceId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self((u128::from(random()) << 64 | u128::from(random())).max(1))
    }

    /// Of 32 lower-case hexadecimal digits, not all zero.
    #[must_use]
    pub fn of_hex(text: &str) -> Option<Self> {
        hex(text, 32).filter(|id| *id != 0).map(Self)
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl SpanId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(random().max(1))
    }

    /// Of 16 lower-case hexadecimal digits, not all zero.
    #[must_use]
    pub fn of_hex(text: &str) -> Option<Self> {
        let id = u64::try_from(hex(text, 16)?).ok()?;
        (id != 0).then_some(Self(id))
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl Default for TraceId {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for SpanId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

impl From<SpanId> for String {
    fn from(id: SpanId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TraceId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::of_hex(&text).ok_or("a trace id is 32 hexadecimal digits, not all zero")
    }
}

impl TryFrom<String> for SpanId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::of_hex(&text).ok_or("a span id is 16 hexadecimal digits, not all zero")
    }
}

/// Exactly so many digits, none of them in upper case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fits = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Where something happens: in which span of which trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span that what happens belongs to.
    pub span: SpanId,
    /// Whether the trace is kept.
    pub sampled: bool,
    /// `tracestate`, to be handed on; empty if there is none.
    pub state: String,
}

impl Context {
    /// A span of a new trace.
    #[must_use]
    pub fn new(sampled: bool) -> Self {
        Self {
            trace: TraceId::new(),
            span: SpanId::new(),
            sampled,
            state: String::new(),
        }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span: SpanId::new(),
            ..self.clone()
        }
    }

    /// What a `traceparent` says; `None` for one that is to be treated as if it were not there (W3C Trace Context, section
    /// 3.2.2). A `tracestate` that breaks its rules is left out.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = parent.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = hex(version, 2)? == 0;
        // What a later version says beyond the four is not ours to read.
        if version == "ff" || known && parts.next().is_some() {
            return None;
        }
        Some(Self {
            trace: TraceId::of_hex(trace)?,
            span: SpanId::of_hex(span)?,
            sampled: hex(flags, 2)? & 1 == 1,
            state: state.and_then(carried).unwrap_or_default().to_owned(),
        })
    }

    /// As a `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let Self { trace, span, .. } = self;
        format!("00-{trace}-{span}-{:02x}", u8::from(self.sampled))
    }
}

/// As much of a `tracestate` as is carried on: whole members from the left; `None` if it breaks the rules.
fn carried(state: &str) -> Option<&str> {
    let members: Vec<&str> = state.split(',').collect();
    let keys: Vec<&str> = members
        .iter()
        .map(|member| member.trim_matches([' ', '\t']))
        // Nothing between two commas is allowed.
        .filter(|member| !member.is_empty())
        .map(key)
        .collect::<Option<_>>()?;
    let twice = |(index, key): (usize, &&str)| keys[..index].contains(key);
    if keys.len() > MEMBERS || keys.iter().enumerate().any(twice) {
        return None;
    }
    let mut end = state.len();
    while end > STATE {
        end = state[..end].rfind(',').unwrap_or(0);
    }
    Some(&state[..end])
}

/// The key of a member, if the member is one.
fn key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let letters =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let fits = (1..=256).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && key.bytes().all(letters)
        && (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=');
    fits.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_read_is_written_again() {
        let context = Context::parse(PARENT, None).expect("valid");
        assert!(context.sampled && context.state.is_empty());
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(
            context.trace.to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(context.span.to_string(), "b7ad6b7169203331");
        let not = PARENT.replace("-01", "-00");
        let context = Context::parse(&not, None).expect("valid");
        assert!(!context.sampled);
        assert_eq!(context.traceparent(), not);
        // Bits that mean nothing yet are not handed on.
        let odd = Context::parse(&PARENT.replace("-01", "-ff"), None).expect("valid");
        assert_eq!(odd.traceparent(), PARENT);
        let child = odd.child();
        assert!(child.trace == odd.trace && child.span != odd.span && child.sampled);
    }

    #[test]
    fn what_breaks_the_rules_is_not_there() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-011"),
            format!("00-{trace}-{span}-zz"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", &trace[1..]),
            format!("00-{trace}0-{span}-01"),
            format!("00-{trace}-{span}0-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", trace.replace('0', "+")),
            format!("ff-{trace}-{span}-01"),
            format!("0-{trace}-{span}-01"),
            format!("FE-{trace}-{span}-01"),
            format!(" 00-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01 "),
            format!("00_{trace}_{span}_01"),
        ] {
            assert_eq!(Context::parse(&wrong, None), None, "`{wrong}`");
        }
        // A version that is not known yet may say more, behind a dash.
        for later in ["", "-", "-more", "-a-b"] {
            let parent = format!("cc-{trace}-{span}-01{later}");
            let context = Context::parse(&parent, None).expect(&parent);
            assert_eq!(context.traceparent(), PARENT);
        }
        assert_eq!(
            Context::parse(&format!("cc-{trace}-{span}-01x"), None),
            None
        );
    }

    #[test]
    fn a_state_is_carried_on_within_bounds() {
        let state = |state: &str| Context::parse(PARENT, Some(state)).expect("valid").state;
        for good in [
            "a=1",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "0t@sys-*/_=x y",
            "a=1, b=2,,c=3",
        ] {
            assert_eq!(state(good), good);
        }
        let long_key = format!("{}=1", "k".repeat(257));
        let long_value = format!("k={}", "v".repeat(257));
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=1")).collect();
        for wrong in [
            "a",
            "=1",
            "a=",
            "A=1",
            "a=1=2",
            "a=\u{e9}",
            "_a=1",
            "a=1,a=2",
            "a=1\n",
            &long_key,
            &long_value,
            &many.join(","),
        ] {
            assert_eq!(state(wrong), "", "`{wrong}`");
        }
        // Those on the right are the oldest.
        let members: Vec<String> = (0..5)
            .map(|number| format!("k{number}={}", "v".repeat(150)))
            .collect();
        let carried = state(&members.join(","));
        assert_eq!(carried, members[..3].join(","));
        assert!(carried.len() <= STATE);
    }

    #[test]
    fn ids_are_new_every_time() {
        let ids: std::collections::HashSet<String> = (0..1000)
            .flat_map(|_| [TraceId::new().to_string(), SpanId::new().to_string()])
            .collect();
        assert_eq!(ids.len(), 2000);
    }
}
