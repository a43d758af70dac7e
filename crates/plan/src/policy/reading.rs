use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::NodeConfig;
use crate::policy::{Knob, Scope, Setting};

/// Values of knobs by their names, as text; whoever made it knows that the names exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Takes what is there.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A table of TOML: text, numbers, truth values, and lists of text, all as an annotation would have them. Names are
/// checked by whoever knows which may stand there.
impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Settings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut settings = Settings::default();
                while let Some((name, value)) = map.next_entry::<String, toml::Value>()? {
                    let text = text(&value).ok_or_else(|| {
                        A::Error::custom(format!(
                            "`{name}` is a {}, which is no setting",
                            value.type_str()
                        ))
                    })?;
                    settings.0.insert(name, text);
                }
                Ok(settings)
            }
        }
        table.deserialize_map(Table)
    }
}

fn text(value: &toml::Value) -> Option<String> {
    Some(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        toml::Value::Array(list) => {
            let parts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            parts?.join(",")
        }
        _ => return None,
    })
}

/// Who has said what, the strongest first.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The pod's annotations, without their prefix.
    pub pod: &'a Settings,
    /// The runtime options of the handler.
    pub class: &'a Settings,
    /// The node's file.
    pub node: &'a NodeConfig,
}

/// Where a value came from; the lesser is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Pod,
    Class,
    Node,
    Table,
}

/// Takes values out of the layers and notes what is wrong with them.
pub(super) struct Reading<'a> {
    pub(super) layers: Layers<'a>,
    /// Field and reason.
    pub(super) faults: Vec<(String, String)>,
}

impl Reading<'_> {
    /// Names that do not exist, or not there.
    pub(super) fn refuse_unknown(&mut self) {
        let Layers { pod, class, node } = self.layers;
        for name in pod.names() {
            match Knob::named(name) {
                None => self.fault(
                    format!("annotation {}{name}", crate::PREFIX),
                    "does not exist",
                ),
                Some(knob) if knob.scope == Scope::Class => self.fault(
                    format!("annotation {}{name}", crate::PREFIX),
                    "is for the runtime options of a RuntimeClass or the node's file, not for pods",
                ),
                Some(_) => {}
            }
        }
        for name in class.names().filter(|name| Knob::named(name).is_none()) {
            self.fault(format!("runtime option {name}"), "does not exist");
        }
        for name in node
            .defaults
            .names()
            .filter(|name| Knob::named(name).is_none())
        {
            self.fault(node.place("defaults", name), "does not exist");
        }
        for name in node.ceilings.names() {
            match Knob::named(name) {
                None => self.fault(node.place("ceilings", name), "does not exist"),
                Some(knob) if !knob.ceiling => {
                    self.fault(node.place("ceilings", name), "has no ceiling")
                }
                Some(_) => {}
            }
        }
    }

    pub(super) fn fault(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.faults.push((field.into(), reason.into()));
    }

    /// The text of a knob, who says it, and how to call the place.
    pub(super) fn raw(&self, knob: &Knob) -> Option<(Source, String, String)> {
        let Layers { pod, class, node } = self.layers;
        let name = knob.name;
        if let Some(text) = pod.get(name).filter(|_| knob.scope == Scope::Pod) {
            return Some((
                Source::Pod,
                format!("annotation {}{name}", crate::PREFIX),
                text.to_owned(),
            ));
        }
        if let Some(text) = class.get(name) {
            return Some((
                Source::Class,
                format!("runtime option {name}"),
                text.to_owned(),
            ));
        }
        let text = node.defaults.get(name)?;
        Some((Source::Node, node.place("defaults", name), text.to_owned()))
    }

    /// What somebody asks for, and who.
    pub(super) fn asked<T: Setting>(&mut self, knob: &Knob) -> Option<(Source, String, T)> {
        let (source, place, text) = self.raw(knob)?;
        match T::read(text.trim()) {
            Some(value) => Some((source, place, value)),
            None => {
                self.fault(
                    place,
                    format!("`{text}` is not {}", knob.takes.replace('`', "")),
                );
                None
            }
        }
    }

    /// The node's ceiling.
    pub(super) fn ceiling<T: Setting>(&mut self, knob: &Knob) -> Option<T> {
        let node = self.layers.node;
        let text = node.ceilings.get(knob.name).filter(|_| knob.ceiling)?;
        let value = T::read(text.trim());
        if value.is_none() {
            self.fault(
                node.place("ceilings", knob.name),
                format!("`{text}` is not {}", knob.takes.replace('`', "")),
            );
        }
        value
    }

    /// The value of a knob: what is asked for, if the ceiling allows it; else the table's own, lowered to the ceiling.
    pub(super) fn take<T: Setting>(&mut self, knob: &Knob) -> T {
        let asked = self.asked::<T>(knob);
        let ceiling = self.ceiling::<T>(knob);
        match (asked, ceiling) {
            (Some((_, place, value)), Some(ceiling)) if !value.within(&ceiling) => {
                self.beyond(knob, place);
                ceiling
            }
            (Some((_, _, value)), _) => value,
            (None, ceiling) => {
                let own = T::read(knob.default)
                    .unwrap_or_else(|| panic!("the default of {} is a value", knob.name));
                match ceiling {
                    Some(ceiling) if !own.within(&ceiling) => ceiling,
                    _ => own,
                }
            }
        }
    }

    /// The value of a knob that may be left out.
    pub(super) fn optional<T: Setting>(&mut self, knob: &Knob) -> Option<T> {
        let asked = self.asked::<T>(knob);
        let ceiling = self.ceiling::<T>(knob);
        match (asked, ceiling) {
            (Some((_, place, value)), Some(ceiling)) if !value.within(&ceiling) => {
                self.beyond(knob, place);
                None
            }
            (asked, _) => asked.map(|(_, _, value)| value),
        }
    }

    /// Notes that somebody asked for more than the node gives.
    pub(super) fn beyond(&mut self, knob: &Knob, place: String) {
        let node = self.layers.node;
        let text = self.raw(knob).map(|(_, _, text)| text).unwrap_or_default();
        let ceiling = node.ceilings.get(knob.name).unwrap_or_default();
        self.fault(
            place,
            format!(
                "`{text}` is beyond the node's ceiling `{ceiling}` ({})",
                node.place("ceilings", knob.name)
            ),
        );
    }
}
