//! What a guest's own library tells of a span, beyond what a request of ours has.

use serde::{Deserialize, Serialize};

use super::span::{ATTRIBUTES, NAME, TEXT, cut, cut_attributes};
use super::{Context, Value};

/// Attributes, events and links of a span, each: OpenTelemetry's own limits.
pub const MOST: usize = 128;
/// Bytes that the names of the lists take, and their counts.
const NAMES: usize = 160;

/// Attributes by their names.
pub type Attributes = Vec<(String, Value)>;

/// What only a guest's own span has. Apart from the rest of it, so that a listener that knows nothing of this reads the rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// On which side of a queue; the span's kind says "internal" then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether its author says that it went well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    /// Which library it comes from.
    pub scope: Scope,
    /// What is known of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Attributes,
    /// What happened in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Other spans that it has to do with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// How many attributes were left out, for want of room or by the library itself.
    pub dropped_attributes: u32,
    /// How many events were.
    pub dropped_events: u32,
    /// How many links were.
    pub dropped_links: u32,
}

/// Sides of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Puts something in.
    Producer,
    /// Takes something out.
    Consumer,
}

/// A library that makes spans ("instrumentation scope").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Which conventions its attributes follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What else is known of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Attributes,
}

/// Something that happened at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub name: String,
    /// When: nanoseconds since 1970, UTC.
    pub time: u64,
    /// What is known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Attributes,
    /// How many of those were left out.
    #[serde(default)]
    pub dropped: u32,
}

/// Another span, of this trace or any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Which.
    pub to: Context,
    /// What is known of the link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Attributes,
    /// How many of those were left out.
    #[serde(default)]
    pub dropped: u32,
}

impl Own {
    /// The same within bounds, whoever made it; what is left out is counted.
    pub(super) fn bound(&mut self) {
        let Scope {
            name,
            version,
            schema,
            attributes,
        } = &mut self.scope;
        cut(name, NAME);
        for text in [version, schema].into_iter().flatten() {
            cut(text, NAME);
        }
        cut_attributes(attributes, ATTRIBUTES);
        add(
            &mut self.dropped_attributes,
            cut_attributes(&mut self.attributes, MOST),
        );
        add(&mut self.dropped_events, shorten(&mut self.events, MOST));
        for event in &mut self.events {
            cut(&mut event.name, NAME);
            add(
                &mut event.dropped,
                cut_attributes(&mut event.attributes, ATTRIBUTES),
            );
        }
        add(&mut self.dropped_links, shorten(&mut self.links, MOST));
        for link in &mut self.links {
            cut(&mut link.to.state, TEXT);
            add(
                &mut link.dropped,
                cut_attributes(&mut link.attributes, ATTRIBUTES),
            );
        }
    }

    /// Leaves out what makes this longer than so many bytes of JSON, and counts it: attributes come before events, and these
    /// before links, and within each the first come first.
    pub(super) fn fit(&mut self, most: usize) {
        let attributes = std::mem::take(&mut self.attributes);
        let events = std::mem::take(&mut self.events);
        let links = std::mem::take(&mut self.links);
        if length(self) + NAMES > most && !self.scope.attributes.is_empty() {
            self.scope.attributes.clear();
        }
        let mut left = most.saturating_sub(length(self) + NAMES);
        let dropped;
        (self.attributes, dropped) = kept(attributes, &mut left);
        add(&mut self.dropped_attributes, dropped);
        let dropped;
        (self.events, dropped) = kept(events, &mut left);
        add(&mut self.dropped_events, dropped);
        let dropped;
        (self.links, dropped) = kept(links, &mut left);
        add(&mut self.dropped_links, dropped);
    }
}

/// The first of a list, as many as have room, and how many have none.
fn kept<T: Serialize>(mut list: Vec<T>, left: &mut usize) -> (Vec<T>, usize) {
    let fits = list.iter().take_while(|item| {
        // And a comma.
        let rest = left.checked_sub(length(item) + 1);
        *left = rest.unwrap_or_default();
        rest.is_some()
    });
    let fits = fits.count();
    let dropped = shorten(&mut list, fits);
    (list, dropped)
}

/// Text and numbers always have a form in JSON.
fn length(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 2, |json| json.len())
}

fn shorten<T>(list: &mut Vec<T>, most: usize) -> usize {
    let dropped = list.len().saturating_sub(most);
    list.truncate(most);
    dropped
}

fn add(count: &mut u32, more: usize) {
    *count = count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Span};
    use super::*;

    fn text(length: usize) -> Value {
        Value::Text("x".repeat(length))
    }

    fn span(own: Own) -> Span {
        let mut span = Span::begun(&Context::new(true), None, "x", Kind::Internal);
        span.own = Some(Box::new(own));
        span
    }

    fn event(attributes: Attributes) -> Event {
        Event {
            name: "e".repeat(500),
            time: 1,
            attributes,
            dropped: 0,
        }
    }

    #[test]
    fn whoever_made_it_it_is_bounded_and_what_is_missing_is_counted() {
        let many: Attributes = vec![("k".repeat(500), text(5000)); 200];
        let link = Link {
            to: Context::new(true),
            attributes: many.clone(),
            dropped: u32::MAX,
        };
        let own = Own {
            attributes: many.clone(),
            events: vec![event(many.clone()); 130],
            links: vec![link; 129],
            scope: Scope {
                name: "s".repeat(500),
                version: Some("v".repeat(500)),
                schema: None,
                attributes: many,
            },
            dropped_events: 1,
            ..Own::default()
        };
        let own = span(own).bounded().own.expect("there");
        assert_eq!((own.attributes.len(), own.dropped_attributes), (128, 72));
        assert_eq!((own.events.len(), own.dropped_events), (128, 3));
        assert_eq!((own.links.len(), own.dropped_links), (128, 1));
        assert_eq!(
            (own.attributes[0].0.len(), &own.attributes[0].1),
            (NAME, &text(TEXT))
        );
        let first = &own.events[0];
        assert_eq!(
            (first.name.len(), first.attributes.len()),
            (NAME, ATTRIBUTES)
        );
        assert_eq!(first.dropped as usize, 200 - ATTRIBUTES);
        assert_eq!(own.links[0].dropped, u32::MAX);
        assert_eq!(
            (own.scope.name.len(), own.scope.attributes.len()),
            (NAME, ATTRIBUTES)
        );
        assert_eq!(own.scope.version.map(|it| it.len()), Some(NAME));
    }

    #[test]
    fn what_has_no_room_is_left_out_and_counted() {
        const MOST: usize = 2000;
        let own = Own {
            attributes: (0..5)
                .map(|number| (format!("a{number}"), text(100)))
                .collect(),
            events: vec![event(vec![("k".to_owned(), text(300))]); 3],
            links: vec![
                Link {
                    to: Context::new(true),
                    attributes: Vec::new(),
                    dropped: 0
                };
                20
            ],
            ..Own::default()
        };
        let whole = span(own).bounded();
        assert!(whole.to_json().expect("JSON").len() > MOST);
        let json = whole.clone().into_json_within(MOST).expect("JSON");
        assert!(json.len() <= MOST, "{}", json.len());
        let arrived = Span::of_json(&json).expect("reads").own.expect("there");
        let own = whole.own.clone().expect("there");
        assert_eq!(
            (arrived.attributes, arrived.dropped_attributes),
            (own.attributes.clone(), 0)
        );
        assert_eq!((arrived.events.len(), arrived.dropped_events), (2, 1));
        assert_eq!(arrived.links.len() + arrived.dropped_links as usize, 20);
        assert!(arrived.dropped_links > 0);
        // What fits stays as it is.
        assert_eq!(
            whole.clone().into_json_within(1 << 20).ok(),
            whole.to_json().ok()
        );
        // The most that a library can say of itself, in characters of which each becomes six.
        let odd = Own {
            scope: Scope {
                name: "\u{1}".repeat(500),
                attributes: vec![("k".to_owned(), Value::Text("\u{1}".repeat(1000))); 9],
                ..Scope::default()
            },
            ..own.as_ref().clone()
        };
        let json = span(odd).bounded().into_json_within(MOST).expect("JSON");
        assert!(json.len() <= MOST, "{}", json.len());
    }

    #[test]
    fn it_travels_as_json_and_older_ones_read_the_rest() {
        let own = Own {
            role: Some(Role::Consumer),
            ok: true,
            attributes: vec![
                ("half".to_owned(), Value::Double(0.5)),
                ("whole".to_owned(), Value::Double(2.0)),
                (
                    "list".to_owned(),
                    Value::List(vec![Value::Int(1), Value::Int(2)]),
                ),
            ],
            events: vec![event(Vec::new())],
            ..Own::default()
        };
        let span = span(own).bounded();
        let json = span.to_json().expect("JSON");
        assert_eq!(Span::of_json(&json).expect("reads"), span);
        // As a release that has no such part reads it: nothing of it is anywhere else.
        let mut value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        value.as_object_mut().expect("an object").remove("own");
        let older: Span = serde_json::from_value(value).expect("reads");
        assert_eq!(older, Span { own: None, ..span });
        // As a later one may write it.
        let later = br#"{"trace":"00000000000000000000000000000001","span":"0000000000000002","name":"x","start":1,"end":2,"kind":"elsewhere","own":{"new":3}}"#;
        let read = Span::of_json(later).expect("reads");
        assert_eq!(
            (read.kind, read.own),
            (Kind::Internal, Some(Box::default()))
        );
    }
}
