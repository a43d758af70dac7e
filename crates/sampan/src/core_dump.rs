//! `sampan coredump`: what a core dump says (tool-conventions, `Coredump.md`), whoever wrote it.

use plan::coredump;
use serde::{Deserialize, Serialize};
use wasmparser::{DataKind, KnownCustom, Operator, Parser, Payload};

use crate::arguments::Coredump;
use crate::code::function_name;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{Screen, Text, size, strong};

/// All of it that is shown.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dump {
    /// What was running.
    name: String,
    /// Why it ended; only our own dumps say it.
    reason: Option<String>,
    threads: Vec<Thread>,
    modules: Vec<String>,
    instances: Vec<Instance>,
    memories: Vec<Memory>,
    globals: u32,
    /// Bytes of memory for which there was no room.
    left_out: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Thread {
    name: String,
    /// The innermost first.
    frames: Vec<Frame>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    /// The function's index in its module.
    function: u32,
    /// Its name; only our own dumps say it.
    name: Option<String>,
    module: Option<String>,
    instance: u32,
    /// Bytes from the beginning of the function's body.
    offset: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    module: u32,
    memories: Vec<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// What it had.
    bytes: u64,
    /// What of it is in the file; runs of zeroes seldom are.
    stored: u64,
}

/// The section of ours (`crates/engine/src/coredump/image.rs`).
#[derive(Debug, Default, Deserialize)]
struct Ours {
    reason: Option<String>,
    #[serde(default)]
    functions: Vec<Option<String>>,
}

pub(crate) fn core_dump(arguments: &Coredump, screen: &mut Screen<'_>) -> Outcome<u8> {
    let path = arguments.file.display();
    let bytes = std::fs::read(&arguments.file)
        .map_err(|error| Failure::at(Kind::NotFound, format!("cannot read {path}"), error))?;
    let dump =
        read(&bytes).map_err(|reason| Failure::new(Kind::Wrong, format!("{path}: {reason}")))?;
    let text = text(&dump);
    screen.show(&dump, text)?;
    Ok(0)
}

fn read(bytes: &[u8]) -> Result<Dump, String> {
    let mut dump = Dump::default();
    let mut ours = Ours::default();
    let mut named = false;
    for payload in Parser::new(0).parse_all(bytes) {
        let broken =
            |error: wasmparser::BinaryReaderError| format!("is no whole core dump: {error}");
        match payload.map_err(broken)? {
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory.map_err(broken)?;
                    let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(16);
                    dump.memories.push(Memory {
                        bytes: memory.initial.saturating_mul(page),
                        stored: 0,
                    });
                }
            }
            Payload::GlobalSection(section) => dump.globals = section.count(),
            Payload::DataSection(section) => {
                for data in section {
                    let data = data.map_err(broken)?;
                    let DataKind::Active {
                        memory_index,
                        offset_expr,
                    } = data.kind
                    else {
                        continue;
                    };
                    let constant = offset_expr.get_operators_reader().read().map_err(broken)?;
                    let stands = matches!(
                        constant,
                        Operator::I32Const { .. } | Operator::I64Const { .. }
                    );
                    if let Some(memory) = dump.memories.get_mut(memory_index as usize)
                        && stands
                    {
                        memory.stored += data.data.len() as u64;
                    }
                }
            }
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::CoreDump(core) => {
                    core.name.clone_into(&mut dump.name);
                    named = true;
                }
                KnownCustom::CoreDumpModules(modules) => {
                    let names = modules.modules.iter().map(|name| (*name).to_owned());
                    dump.modules = names.collect();
                }
                KnownCustom::CoreDumpInstances(instances) => {
                    let all = instances.instances.into_iter().map(|instance| Instance {
                        module: instance.module_index,
                        memories: instance.memories,
                    });
                    dump.instances = all.collect();
                }
                KnownCustom::CoreDumpStack(stack) => {
                    let frames = stack.frames.iter().map(|frame| Frame {
                        function: frame.funcidx,
                        name: None,
                        module: None,
                        instance: frame.instanceidx,
                        offset: frame.codeoffset,
                    });
                    dump.threads.push(Thread {
                        name: stack.name.to_owned(),
                        frames: frames.collect(),
                    });
                }
                _ => match section.name() {
                    coredump::SECTION => {
                        ours = serde_json::from_slice(section.data()).unwrap_or_default()
                    }
                    coredump::LEFT_OUT => {
                        let number = str::from_utf8(section.data()).ok();
                        dump.left_out = number.and_then(|text| text.parse().ok()).unwrap_or(0);
                    }
                    // A part that claims to be of a core dump and cannot be read.
                    "core" | "coremodules" | "coreinstances" | "corestack" => {
                        return Err(format!(
                            "is no whole core dump: its section `{}` is broken",
                            section.name()
                        ));
                    }
                    _ => {}
                },
            },
            _ => {}
        }
    }
    if !named {
        return Err("is no core dump of WebAssembly: it has no section `core`".to_owned());
    }
    dump.reason = ours.reason;
    // The order of the sections is not fixed.
    for frame in dump
        .threads
        .iter_mut()
        .flat_map(|thread| &mut thread.frames)
    {
        let instance = dump.instances.get(frame.instance as usize);
        let module = instance.and_then(|instance| dump.modules.get(instance.module as usize));
        frame.module = module.cloned();
    }
    // Ours say the names of their one thread.
    if let [thread] = dump.threads.as_mut_slice() {
        for (frame, name) in thread.frames.iter_mut().zip(ours.functions) {
            frame.name = name.map(|name| function_name(&name));
        }
    }
    Ok(dump)
}

fn text(dump: &Dump) -> Text {
    let mut text = Text::default();
    text.line(strong(&dump.name));
    if let Some(reason) = &dump.reason {
        text.row("reason", reason);
    }
    for thread in &dump.threads {
        text.heading(&format!("thread {}", thread.name));
        for (depth, frame) in thread.frames.iter().enumerate() {
            let name = match &frame.name {
                Some(name) => name.clone(),
                None => format!("function {}", frame.function),
            };
            let module = frame.module.as_deref().unwrap_or("?");
            text.line(format!(
                "  {depth:>3}  {name}  ({module}, function {} + {:#x})",
                frame.function, frame.offset
            ));
        }
        if thread.frames.is_empty() {
            text.line("  no function was running");
        }
    }
    text.heading("memories");
    for (index, memory) in dump.memories.iter().enumerate() {
        text.line(format!(
            "  {index:>3}  {}, of which {} are in the file",
            size(memory.bytes),
            size(memory.stored)
        ));
    }
    if dump.left_out > 0 {
        text.line(format!(
            "  {} are missing: there was no room for them (sampan.dev/coredump-max-bytes)",
            size(dump.left_out)
        ));
    }
    text.heading("modules");
    for (index, module) in dump.modules.iter().enumerate() {
        let instances = dump.instances.iter();
        let count = instances
            .filter(|instance| instance.module as usize == index)
            .count();
        text.line(format!("  {index:>3}  {module}, {count} instances"));
    }
    text.line(format!("  {:>3}  globals", dump.globals));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dump that another tool wrote: no section of ours, two threads, names that would move a cursor.
    fn of_others() -> Vec<u8> {
        let custom = |name: &str, data: &str| format!("(@custom \"{name}\" \"{data}\")");
        let parts = [
            custom("corestack", "\\00\\06second\\00"),
            "(memory 2) (global i32 (i32.const 5)) (data (i32.const 8) \"abc\")".to_owned(),
            custom("core", "\\00\\03a\\1bb"),
            custom("coremodules", "\\00\\01\\00\\03mod").replace("\\00\\01", "\\01"),
            custom("coreinstances", "\\01\\00\\00\\01\\00\\00"),
            custom("corestack", "\\00\\04main\\01\\00\\00\\07\\10\\00\\00"),
        ];
        wat::parse_str(format!("(module {})", parts.join(" "))).expect("valid text")
    }

    #[test]
    fn dumps_of_others_are_read() {
        let dump = read(&of_others()).expect("a dump");
        assert_eq!(
            (dump.name.as_str(), dump.reason.as_deref()),
            ("a\u{1b}b", None)
        );
        assert_eq!(
            (dump.modules.as_slice(), dump.globals),
            (["mod".to_owned()].as_slice(), 1)
        );
        assert_eq!(
            (dump.memories[0].bytes, dump.memories[0].stored),
            (131_072, 3)
        );
        let names: Vec<_> = dump.threads.iter().map(|thread| &*thread.name).collect();
        assert_eq!(names, ["second", "main"]);
        let frame = &dump.threads[1].frames[0];
        assert_eq!((frame.function, frame.offset), (7, 16));
        assert_eq!(
            (frame.module.as_deref(), frame.name.as_deref()),
            (Some("mod"), None)
        );
    }

    #[test]
    fn what_is_no_dump_is_told() {
        for (bytes, says) in [
            (b"".as_slice(), "is no"),
            (b"\0asm\x01\0\0\0", "has no section `core`"),
            (b"not wasm at all", "is no whole core dump"),
            (b"\0asm\x01\0\0\0\0\x06\x04core\x01", "`core` is broken"),
        ] {
            let text = read(bytes).expect_err("no dump");
            assert!(text.contains(says), "{text}");
        }
        let whole = of_others();
        for length in 0..whole.len() {
            // Whatever it is, it ends.
            let _ = read(&whole[..length]);
        }
    }
}
