use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Context, Own, SpanId, TraceId};

/// Characters of a name, and of the key of an attribute.
pub(super) const NAME: usize = 128;
/// Characters of an attribute's text, and of what an error says.
pub const TEXT: usize = 1024;
/// Attributes of a span.
pub(super) const ATTRIBUTES: usize = 32;
/// Values of a list.
pub const LIST: usize = 64;

/// Something that took time, and is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// The span that it is a part of; `None` at the root of a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanId>,
    /// Whether its parent is of another program.
    #[serde(default)]
    pub remote: bool,
    /// `tracestate`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// What happened.
    pub name: String,
    /// On which side of a request.
    #[serde(default)]
    pub kind: Kind,
    /// When it began: nanoseconds since 1970, UTC.
    pub start: u64,
    /// When it ended: nanoseconds since 1970, UTC.
    pub end: u64,
    /// What went wrong, or nothing but that it did (empty); `None` if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What else is known, by the names of OpenTelemetry's semantic conventions where they have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, Value)>,
    /// What a guest's own library says besides; `None` for spans of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Box<Own>>,
}

/// Sides of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Sends a request, and waits for the answer.
    Client,
    /// A part of something, or what only a later release knows.
    #[default]
    #[serde(other)]
    Internal,
}

/// The value of an attribute. The last two are in guests' own spans ([`Own`]) alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// Text.
    Text(String),
    /// A number that is not whole; finite, since others have no form in JSON.
    Double(f64),
    /// Several of the above.
    List(Vec<Self>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl Span {
    /// A span that `context` is, below `parent`, with a start and no end yet.
    #[must_use]
    pub fn begun(context: &Context, parent: Option<SpanId>, name: &str, kind: Kind) -> Self {
        let now = nanoseconds(SystemTime::now());
        Self {
            trace: context.trace,
            span: context.span,
            parent,
            remote: false,
            state: context.state.clone(),
            name: name.to_owned(),
            kind,
            start: now,
            end: now,
            error: None,
            attributes: Vec::new(),
            own: None,
        }
    }

    /// It is over. By the clock by which it began, and by which others of its trace begin and end: a clock that was set
    /// back meanwhile makes it short.
    pub fn over(&mut self) {
        self.end = nanoseconds(SystemTime::now()).max(self.start);
    }

    /// Adds an attribute.
    pub fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.attributes.push((key.to_owned(), value.into()));
    }

    /// As it travels: JSON without an end of line.
    ///
    /// # Errors
    /// There are none for text and numbers.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// As [`Span::to_json`], in so many bytes if that can be: of what a guest's own library says, what has no room is left out
    /// and counted.
    ///
    /// # Errors
    /// There are none for text and numbers.
    pub fn into_json_within(mut self, most: usize) -> Result<Vec<u8>, serde_json::Error> {
        let json = self.to_json()?;
        let Some(mut own) = self.own.take().filter(|_| json.len() > most) else {
            return Ok(json);
        };
        // The field's name and what stands around it.
        let rest = self.to_json()?.len() + 8;
        own.fit(most.saturating_sub(rest));
        self.own = Some(own);
        self.to_json()
    }

    /// What [`Span::to_json`] wrote, within bounds.
    ///
    /// # Errors
    /// Where it did not.
    pub fn of_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json).map(Self::bounded)
    }

    /// The same within bounds, whoever made it: too much of anything is cut off, and no time goes backwards.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        cut(&mut self.name, NAME);
        cut(&mut self.state, TEXT);
        cut_attributes(&mut self.attributes, ATTRIBUTES);
        if let Some(own) = &mut self.own {
            own.bound();
        }
        if let Some(error) = &mut self.error {
            cut(error, TEXT);
        }
        self.end = self.end.max(self.start);
        self
    }
}

/// Cuts attributes, and leaves out all but the first of them; how many were left out.
pub(super) fn cut_attributes(attributes: &mut Vec<(String, Value)>, most: usize) -> usize {
    let dropped = attributes.len().saturating_sub(most);
    attributes.truncate(most);
    for (key, value) in attributes {
        cut(key, NAME);
        value.bound();
    }
    dropped
}

impl Value {
    fn bound(&mut self) {
        match self {
            Self::Text(text) => cut(text, TEXT),
            Self::List(values) => {
                // A list of lists has no form in OpenTelemetry's libraries.
                values.retain(|value| !matches!(value, Self::List(_)));
                values.truncate(LIST);
                values.iter_mut().for_each(Self::bound);
            }
            Self::Bool(_) | Self::Int(_) | Self::Double(_) => {}
        }
    }
}

pub(super) fn cut(text: &mut String, characters: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
    }
}

/// Nanoseconds since 1970; 0 before, the most that there are after the year 2554.
#[must_use]
pub fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_made_it_it_is_bounded() {
        let context = Context::new(true);
        let mut span = Span::begun(&context, None, &"n".repeat(9000), Kind::Server);
        for number in 0..99_u16 {
            span.add(&"ä".repeat(500), "x".repeat(5000));
            span.add("number", number);
        }
        span.error = Some("e".repeat(5000));
        (span.start, span.end) = (5, 3);
        let span = span.bounded();
        assert_eq!((span.name.len(), span.attributes.len()), (NAME, ATTRIBUTES));
        assert_eq!(span.attributes[0].0.chars().count(), NAME);
        assert_eq!(span.attributes[0].1, Value::Text("x".repeat(TEXT)));
        assert_eq!(span.error.as_ref().map(String::len), Some(TEXT));
        assert_eq!(span.end, 5);
    }

    #[test]
    fn it_travels_as_json() {
        let mut span = Span::begun(
            &Context::new(true),
            Some(SpanId::new()),
            "GET",
            Kind::Client,
        );
        span.add("http.response.status_code", 200_u16);
        span.add("url.path", "/x");
        span.add("sampan.store.hit", true);
        let text = serde_json::to_string(&span).expect("text and numbers");
        assert_eq!(serde_json::from_str::<Span>(&text).expect("reads"), span);
        // Of a release that says less, or more.
        let bare = r#"{"trace":"00000000000000000000000000000001","span":"0000000000000002","name":"x","start":1,"end":2,"new":3}"#;
        let span: Span = serde_json::from_str(bare).expect("reads");
        assert_eq!((span.kind, span.parent), (Kind::Internal, None));
        let none = bare.replace('1', "0");
        assert!(serde_json::from_str::<Span>(&none).is_err());
    }
}
