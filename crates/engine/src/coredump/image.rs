//! The file: WebAssembly's core dump format (tool-conventions, `Coredump.md`), as other tools read it.
//!
//! wasmtime can make one, but in memory: twice what the guest holds, in the same cgroup, which would kill the container
//! in the middle of it. Here memories go straight from the guest into the file. What stands first is small; memory
//! comes last, so that a bound on the size costs nothing but memory.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use plan::coredump::{LEFT_OUT, SECTION};
use serde::Serialize;
use wasm_encoder::{
    ConstExpr, CoreDumpInstancesSection, CoreDumpModulesSection, CoreDumpSection,
    CoreDumpStackSection, CustomSection, Encode, GlobalSection, GlobalType, HeapType,
    MemorySection, MemoryType, RefType, Section, SectionId, ValType,
};
use wasmtime::{FrameInfo, Instance, Memory, Module, Store, V128, Val, WasmCoreDump};

/// Room that is kept for [`LEFT_OUT`].
const RESERVED: u64 = 64;
/// Bytes of memory that are looked at together, at least: runs of zeroes at their ends are not written.
const CHUNK: usize = 4096;
/// Runs that a file has at most; readers refuse more than 100,000.
const RUNS: usize = 64 << 10;
/// Bytes of the length of a section, and of the number of its parts, that are filled in afterwards.
const PADDED: usize = 5;

#[derive(Serialize)]
struct Ours<'a> {
    reason: &'a str,
    /// Names of the functions of `corestack`, as the program has them.
    functions: Vec<Option<&'a str>>,
}

/// All of it but the memories.
pub(super) struct Image<'a> {
    head: Vec<u8>,
    core: &'a WasmCoreDump,
}

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes of the file.
    pub(super) size: u64,
    /// Bytes of memory, other than zeroes at the ends of chunks, that are not in it.
    pub(super) left_out: u64,
}

impl<'a> Image<'a> {
    pub(super) fn new<T: 'static>(
        store: &mut Store<T>,
        core: &'a WasmCoreDump,
        name: &str,
        reason: &str,
    ) -> Self {
        let mut head = b"\0asm\x01\0\0\0".to_vec();
        let mut add = |section: &dyn Section| section.append_to(&mut head);
        add(&CoreDumpSection::new(name));
        let frames = core.frames();
        let ours = Ours {
            reason,
            functions: frames.iter().map(FrameInfo::func_name).collect(),
        };
        // Text always has a form in JSON.
        let ours = serde_json::to_vec(&ours).unwrap_or_default();
        add(&CustomSection {
            name: SECTION.into(),
            data: ours.into(),
        });
        add(&memories(store, core.memories()));
        add(&globals(store, core));
        add(&modules(core));
        add(&instances(store, core));
        add(&stack(store, core));
        Self { head, core }
    }

    /// Bytes of the file if no memory goes into it.
    pub(super) fn least(&self) -> u64 {
        // An empty data section, and what says that it is.
        self.head.len() as u64 + 1 + 2 * PADDED as u64 + RESERVED
    }

    /// Writes it, with as much memory as fits into `most` bytes, of which there are at least [`Image::least`].
    pub(super) fn write<T: 'static>(
        &self,
        store: &Store<T>,
        file: File,
        most: u64,
    ) -> io::Result<Written> {
        let mut file = BufWriter::with_capacity(64 << 10, file);
        file.write_all(&self.head)?;
        file.write_all(&[SectionId::Data.into()])?;
        file.write_all(&[0; 2 * PADDED])?;
        let lengths = self.head.len() as u64 + 1;
        let room = most - self.least();
        let (mut runs, mut written, mut left_out) = (0_u32, 0_u64, 0_u64);
        let memories = self.core.memories();
        let chunk = chunk(memories.iter().map(|memory| memory.data_size(store)).sum());
        for (index, memory) in (0_u32..).zip(memories) {
            let wide = memory.ty(store).is_64();
            let chunks = memory.data(store).chunks(chunk);
            for (start, chunk) in (0..).step_by(chunk).zip(chunks) {
                let Some(first) = chunk.iter().position(|byte| *byte != 0) else {
                    continue;
                };
                let last = chunk.iter().rposition(|byte| *byte != 0).unwrap_or(first);
                let run = &chunk[first..=last];
                let place = place(index, (start + first) as u64, wide, run.len());
                let length = (place.len() + run.len()) as u64;
                if written + length > room {
                    left_out += run.len() as u64;
                    continue;
                }
                file.write_all(&place)?;
                file.write_all(run)?;
                written += length;
                runs += 1;
            }
        }
        let mut size = lengths + 2 * PADDED as u64 + written;
        if left_out > 0 {
            let mut section = Vec::new();
            CustomSection {
                name: LEFT_OUT.into(),
                data: left_out.to_string().into_bytes().into(),
            }
            .append_to(&mut section);
            file.write_all(&section)?;
            size += section.len() as u64;
        }
        file.seek(SeekFrom::Start(lengths))?;
        let body = u32::try_from(PADDED as u64 + written).map_err(io::Error::other)?;
        file.write_all(&padded(body))?;
        file.write_all(&padded(runs))?;
        file.flush()?;
        Ok(Written { size, left_out })
    }
}

/// Bytes that are looked at together in memories of so many bytes in all.
fn chunk(total: usize) -> usize {
    (total / RUNS).next_power_of_two().max(CHUNK)
}

/// What stands before a run of bytes in the data section.
fn place(memory: u32, offset: u64, wide: bool, length: usize) -> Vec<u8> {
    let mut place = Vec::with_capacity(24);
    if memory == 0 {
        place.push(0);
    } else {
        place.push(2);
        memory.encode(&mut place);
    }
    // An address is a number without a sign; in the instruction that makes it, it has one.
    let expression = if wide {
        ConstExpr::i64_const(offset.cast_signed())
    } else {
        ConstExpr::i32_const((offset as u32).cast_signed())
    };
    expression.encode(&mut place);
    length.encode(&mut place);
    place
}

/// LEB128 of a length that does not depend on the number.
fn padded(number: u32) -> [u8; PADDED] {
    let mut bytes = [0; PADDED];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let more = if index + 1 < PADDED { 0x80 } else { 0 };
        *byte = (number >> (7 * index)) as u8 & 0x7f | more;
    }
    bytes
}

fn memories<T: 'static>(store: &Store<T>, all: &[Memory]) -> MemorySection {
    let mut section = MemorySection::new();
    for memory in all {
        let ty = memory.ty(store);
        let page = ty.page_size_log2();
        section.memory(MemoryType {
            minimum: memory.size(store),
            maximum: ty.maximum(),
            memory64: ty.is_64(),
            shared: ty.is_shared(),
            page_size_log2: (page != 16).then_some(page.into()),
        });
    }
    section
}

fn globals<T: 'static>(store: &mut Store<T>, core: &WasmCoreDump) -> GlobalSection {
    let mut section = GlobalSection::new();
    for global in core.globals() {
        let ty = global.ty(&mut *store);
        let (val_type, value) = match ty.content() {
            // What a reference leads to is not in the file.
            wasmtime::ValType::Ref(ty) => match ty.heap_type().top() {
                wasmtime::HeapType::Extern => (ValType::EXTERNREF, null(HeapType::EXTERN)),
                wasmtime::HeapType::Func => (ValType::FUNCREF, null(HeapType::FUNC)),
                _ => (ValType::Ref(RefType::ANYREF), null(HeapType::ANY)),
            },
            _ => match global.get(&mut *store) {
                Val::I32(value) => (ValType::I32, ConstExpr::i32_const(value)),
                Val::I64(value) => (ValType::I64, ConstExpr::i64_const(value)),
                Val::F32(bits) => (
                    ValType::F32,
                    ConstExpr::f32_const(f32::from_bits(bits).into()),
                ),
                Val::F64(bits) => (
                    ValType::F64,
                    ConstExpr::f64_const(f64::from_bits(bits).into()),
                ),
                Val::V128(value) => (ValType::V128, ConstExpr::v128_const(wide(value))),
                _ => (ValType::I32, ConstExpr::i32_const(0)),
            },
        };
        let global_type = GlobalType {
            val_type,
            mutable: ty.mutability().is_var(),
            shared: false,
        };
        section.global(global_type, &value);
    }
    section
}

fn null(heap: HeapType) -> ConstExpr {
    ConstExpr::ref_null(heap)
}

fn wide(value: V128) -> i128 {
    value.as_u128().cast_signed()
}

fn modules(core: &WasmCoreDump) -> CoreDumpModulesSection {
    let mut section = CoreDumpModulesSection::new();
    for (index, module) in core.modules().iter().enumerate() {
        match module.name() {
            Some(name) => section.module(name),
            None => section.module(format!("module {index}")),
        };
    }
    section
}

/// Each with its memories and globals: all of them where there is one instance, else those that it exports, which is
/// what can be asked for.
fn instances<T: 'static>(store: &mut Store<T>, core: &WasmCoreDump) -> CoreDumpInstancesSection {
    let mut section = CoreDumpInstancesSection::new();
    let places: Vec<_> = core
        .memories()
        .iter()
        .map(|memory| memory.data_ptr(&*store))
        .collect();
    for instance in core.instances() {
        let module = instance.module(&*store).clone();
        let (memories, globals): (Vec<u32>, Vec<u32>) = if core.instances().len() == 1 {
            (
                (0..).zip(core.memories()).map(|(index, _)| index).collect(),
                (0..).zip(core.globals()).map(|(index, _)| index).collect(),
            )
        } else {
            let exported: Vec<_> = instance
                .exports(&mut *store)
                .filter_map(wasmtime::Export::into_memory)
                .collect();
            let own = exported.iter().map(|memory| memory.data_ptr(&*store));
            let own = own.filter_map(|own| places.iter().position(|place| *place == own));
            (own.map(|index| index as u32).collect(), Vec::new())
        };
        section.instance(index_of(core, &module), memories, globals);
    }
    section
}

fn index_of(core: &WasmCoreDump, module: &Module) -> u32 {
    let index = core
        .modules()
        .iter()
        .position(|known| Module::same(known, module));
    index.map_or(0, |index| index as u32)
}

/// The functions that were running, innermost first. Which of several instances of a module runs one is not known: the
/// last is taken, as wasmtime does.
fn stack<T: 'static>(store: &Store<T>, core: &WasmCoreDump) -> CoreDumpStackSection {
    let mut section = CoreDumpStackSection::new("main");
    let runs = |instance: &Instance, frame: &FrameInfo| {
        Module::same(instance.module(store), frame.module())
    };
    for frame in core.frames() {
        let instance = core
            .instances()
            .iter()
            .rposition(|instance| runs(instance, frame));
        let offset = frame
            .func_offset()
            .and_then(|offset| u32::try_from(offset).ok());
        section.frame(
            instance.map_or(0, |index| index as u32),
            frame.func_index(),
            offset.unwrap_or(0),
            [],
            [],
        );
    }
    section
}
