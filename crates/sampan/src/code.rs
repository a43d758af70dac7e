//! Which functions of a guest lie where in a process: by what the process has mapped, and by the names in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object::elf::FileHeader64;
use object::read::elf::{ElfFile, FileHeader as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::failure::{Failure, Kind, Outcome};
use crate::output::harmless;

/// A function, where it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) name: String,
}

/// A guest's functions, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Code(Vec<Function>);

/// What `/proc/PID/maps` says of a mapping that can be executed (`proc_pid_maps(5)`).
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    /// Device and number of the file.
    file: (String, u64),
    path: PathBuf,
}

/// A function, where it is in its file.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    offset: u64,
    size: u64,
    name: String,
}

impl Code {
    /// Of the guest in a process.
    pub(crate) fn of(pid: i32) -> Outcome<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::System,
            };
            Failure::at(kind, format!("cannot look at process {pid}"), error)
        })?;
        let mappings: Vec<_> = maps.lines().filter_map(mapping).collect();
        let mut files = BTreeMap::new();
        for mapping in &mappings {
            files.entry(&mapping.file).or_insert_with(|| {
                // The file itself, whatever has its name by now, and in whatever mount namespace it was found.
                let link = format!(
                    "/proc/{pid}/map_files/{:x}-{:x}",
                    mapping.start, mapping.end
                );
                let bytes = std::fs::read(link).or_else(|_| std::fs::read(&mapping.path));
                bytes
                    .ok()
                    .and_then(|bytes| places(&bytes))
                    .unwrap_or_default()
            });
        }
        let mut code = Self::default();
        for mapping in &mappings {
            code.0.extend(mapping.functions(&files[&mapping.file]));
        }
        code.0.sort_by_key(|function| function.start);
        if code.0.is_empty() {
            return Err(Failure::new(
                Kind::NotFound,
                format!("process {pid} runs no guest: no compiled program is mapped there"),
            ));
        }
        Ok(code)
    }

    #[cfg(test)]
    pub(crate) fn made(functions: &[(u64, &str)]) -> Self {
        let functions = functions.iter().map(|(start, name)| Function {
            start: *start,
            size: 16,
            name: (*name).to_owned(),
        });
        Self(functions.collect())
    }

    /// All of them, by address.
    pub(crate) fn functions(&self) -> &[Function] {
        &self.0
    }

    /// The one that an address is in.
    pub(crate) fn at(&self, address: u64) -> Option<&Function> {
        let next = self.0.partition_point(|function| function.start <= address);
        let function = self.0.get(next.checked_sub(1)?)?;
        (address < function.start + function.size).then_some(function)
    }
}

impl Mapping {
    fn functions<'a>(&'a self, places: &'a [Place]) -> impl Iterator<Item = Function> + 'a {
        let end = self.offset.saturating_add(self.end - self.start);
        let within = move |place: &&Place| (self.offset..end).contains(&place.offset);
        places.iter().filter(within).map(|place| Function {
            start: self.start + (place.offset - self.offset),
            size: place.size,
            name: place.name.clone(),
        })
    }
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let executable = fields.next()?.contains('x');
    let offset = hex(fields.next()?)?;
    let device = fields.next()?.to_owned();
    let number = fields.next()?.parse().ok().filter(|number| *number != 0)?;
    let (start, end) = (hex(start)?, hex(end)?);
    (executable && start < end).then(|| Mapping {
        start,
        end,
        offset,
        file: (device, number),
        path: PathBuf::from(fields.next().unwrap_or_default().trim_start()),
    })
}

/// The functions of an artifact; `None` for any other file.
fn places(bytes: &[u8]) -> Option<Vec<Place>> {
    /// `ELFOSABI_WASMTIME` of wasmtime-environ's `obj.rs`.
    const ABI: u8 = 200;
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    if header.e_ident().os_abi != ABI {
        return None;
    }
    let file = ElfFile::<FileHeader64<Endianness>>::parse(bytes).ok()?;
    let text = file.section_by_name(".text")?;
    let (offset, size) = text.file_range()?;
    let mut places: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .filter(|symbol| symbol.section_index() == Some(text.index()))
        .filter_map(|symbol| {
            let inside = symbol.address().checked_sub(text.address())?;
            (inside.checked_add(symbol.size())? <= size).then_some(())?;
            Some(Place {
                offset: offset.checked_add(inside)?,
                size: symbol.size(),
                name: readable(symbol.name().ok()?),
            })
        })
        .collect();
    places.sort_by_key(|place| place.offset);
    Some(places)
}

/// A name as wasmtime writes it (`wasm[0]::function[12]::name`), as people know it.
fn readable(symbol: &str) -> String {
    let mut rest = symbol;
    while let Some((first, after)) = rest.split_once("::")
        && ["wasm[", "function["]
            .iter()
            .any(|part| first.starts_with(part))
        && first.ends_with(']')
    {
        rest = after;
    }
    function_name(rest)
}

/// The name of a function as it was written, without the hash that rustc adds. It may come from anybody: it moves no
/// cursor.
pub(crate) fn function_name(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => &name,
    };
    harmless(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_they_were_written() {
        for (symbol, name) in [
            (
                "wasm[0]::function[12]::probe::spin::h0123456789abcdef",
                "probe::spin",
            ),
            (
                "wasm[3]::function[1]::_ZN4core3fmt5write17h0123456789abcdefE",
                "core::fmt::write",
            ),
            ("wasm[0]::function[12]", "function[12]"),
            ("component-lower-import[0]", "component-lower-import[0]"),
            ("wasm[0]::function[1]::a\u{1b}[2Jb\n", "a\\u{1b}[2Jb\\n"),
        ] {
            assert_eq!(readable(symbol), name, "{symbol}");
        }
    }

    #[test]
    fn mappings_that_can_be_executed_count() {
        let line = "7f00a000-7f00c000 r-xp 00003000 fe:00 123    /var/lib/sampan/a b";
        let found = mapping(line).expect("a mapping");
        assert_eq!(
            (found.start, found.end, found.offset),
            (0x7f00_a000, 0x7f00_c000, 0x3000)
        );
        assert_eq!(found.path, PathBuf::from("/var/lib/sampan/a b"));
        for line in [
            "7f00a000-7f00c000 r--p 00003000 fe:00 123    /x",
            "7f00a000-7f00c000 r-xp 00000000 00:00 0 ",
            "7f00c000-7f00a000 r-xp 00003000 fe:00 123    /x",
            "",
            "x",
        ] {
            assert_eq!(mapping(line), None, "{line}");
        }
        let place = |offset, name: &str| Place {
            offset,
            size: 16,
            name: name.to_owned(),
        };
        let places = [
            place(0x2ff0, "before"),
            place(0x3010, "in"),
            place(0x5000, "behind"),
        ];
        let functions: Vec<_> = found.functions(&places).collect();
        assert_eq!(functions.len(), 1);
        let code = Code(functions);
        assert_eq!(
            code.at(0x7f00_a010).map(|function| &*function.name),
            Some("in")
        );
        assert_eq!(
            code.at(0x7f00_a01f).map(|function| &*function.name),
            Some("in")
        );
        assert_eq!(code.at(0x7f00_a020), None);
        assert_eq!(code.at(0), None);
    }

    #[test]
    fn other_files_have_no_functions() {
        assert_eq!(places(b""), None);
        assert_eq!(places(b"\x7fELF"), None);
        let own = std::fs::read("/proc/self/exe").expect("read");
        assert_eq!(places(&own), None);
    }
}
