//! What a program is made of.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wasmparser::{Encoding, KnownCustom, Parser, Payload};

/// Sizes, memories and makers of a program, those of all modules in a component together.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Anatomy {
    /// Core modules.
    pub(crate) modules: usize,
    /// Bytes by kind of section; custom sections by their names.
    pub(crate) sections: BTreeMap<String, u64>,
    /// Bytes of the names of functions, which backtraces show.
    pub(crate) names: u64,
    /// Bytes of debug sections, which nothing reads here.
    pub(crate) debug: u64,
    pub(crate) memories: Vec<Memory>,
    /// Field (`language`, `processed-by`, `sdk`), name and version, as the toolchains wrote them.
    pub(crate) producers: BTreeSet<(String, String, String)>,
}

/// A linear memory that a module defines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// Bytes that it has from the start.
    pub(crate) initial: u64,
    /// Bytes beyond which it does not grow.
    pub(crate) maximum: Option<u64>,
    pub(crate) memory64: bool,
    /// Whether threads share it.
    pub(crate) shared: bool,
}

/// Names of a module's sections (WebAssembly, "Binary Format", "Modules").
const SECTIONS: [&str; 14] = [
    "custom",
    "type",
    "import",
    "function",
    "table",
    "memory",
    "global",
    "export",
    "start",
    "element",
    "code",
    "data",
    "data count",
    "tag",
];

impl Anatomy {
    /// Of a valid program, binary or text; of others what can be read.
    pub(crate) fn of(source: &[u8]) -> Self {
        let binary = wat::parse_bytes(source).unwrap_or(Cow::Borrowed(source));
        let mut anatomy = Self::default();
        let mut inside = Vec::new();
        for payload in Parser::new(0).parse_all(&binary).map_while(Result::ok) {
            match &payload {
                Payload::Version { encoding, .. } => {
                    anatomy.modules += usize::from(*encoding == Encoding::Module);
                    inside.push(*encoding);
                    continue;
                }
                Payload::End(_) => {
                    inside.pop();
                    continue;
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => continue,
                Payload::MemorySection(section) => {
                    let memories = section.clone().into_iter().flatten();
                    anatomy.memories.extend(memories.map(|memory| {
                        let page = 1 << memory.page_size_log2.unwrap_or(16);
                        Memory {
                            initial: memory.initial.saturating_mul(page),
                            maximum: memory.maximum.map(|pages| pages.saturating_mul(page)),
                            memory64: memory.memory64,
                            shared: memory.shared,
                        }
                    }));
                }
                Payload::CustomSection(section) => {
                    let size = section.data().len() as u64;
                    if section.name().starts_with(".debug_") {
                        anatomy.debug += size;
                    }
                    match section.as_known() {
                        KnownCustom::Name(_) | KnownCustom::ComponentName(_) => {
                            anatomy.names += size;
                        }
                        KnownCustom::Producers(section) => {
                            for field in section.into_iter().flatten() {
                                for value in field.values.into_iter().flatten() {
                                    anatomy.producers.insert((
                                        field.name.to_owned(),
                                        value.name.to_owned(),
                                        value.version.to_owned(),
                                    ));
                                }
                            }
                        }
                        _ => {}
                    }
                    anatomy.add(section.name(), size);
                    continue;
                }
                _ => {}
            }
            if let Some((id, range)) = payload.as_section() {
                let name = match inside.last() {
                    Some(Encoding::Component) => "component",
                    _ => SECTIONS.get(usize::from(id)).copied().unwrap_or("other"),
                };
                anatomy.add(name, range.len() as u64);
            }
        }
        anatomy
    }

    fn add(&mut self, name: &str, size: u64) {
        *self.sections.entry(name.to_owned()).or_default() += size;
    }

    /// Bytes that it needs before it has done anything.
    pub(crate) fn initial_memory(&self) -> u64 {
        self.memories.iter().map(|memory| memory.initial).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_modules_are_counted() {
        let module = r#"(module (memory 2 3) (func (nop)) (data (i32.const 0) "abc")
            (@custom ".debug_info" "12345") (@custom "name" "\00")
            (@producers (language "Rust" "") (processed-by "rustc" "1.95")))"#;
        let anatomy = Anatomy::of(module.as_bytes());
        assert_eq!(anatomy.modules, 1);
        assert_eq!((anatomy.debug, anatomy.names), (5, 1));
        assert_eq!(anatomy.initial_memory(), 2 << 16);
        assert_eq!(anatomy.memories[0].maximum, Some(3 << 16));
        let language = ("language".to_owned(), "Rust".to_owned(), String::new());
        assert!(anatomy.producers.contains(&language), "{anatomy:?}");
        assert!(anatomy.sections["code"] > 0 && anatomy.sections["data"] > 3);

        let twice = format!("(component (core {} (core {}", &module[1..], &module[1..]);
        let twice = Anatomy::of(format!("{twice})").as_bytes());
        assert_eq!((twice.modules, twice.debug), (2, 10), "{twice:?}");
        assert_eq!(twice.initial_memory(), 4 << 16);
        assert_eq!(Anatomy::of(b"no program").modules, 0);
    }
}
