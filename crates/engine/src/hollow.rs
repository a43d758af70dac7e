//! A program without what it does.
//!
//! What it imports and exports, and so all that linking asks for, stands outside of its functions' code. Compiling that
//! code takes a hundred times as long as all the rest.

use wasmparser::{BinaryReader, BinaryReaderError, Parser};

/// Sections by their numbers: WebAssembly, "Binary Format", "Modules"; component model, `Binary.md`.
const CUSTOM: u8 = 0;
const CODE: u8 = 10;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Magic number and version.
const HEADER: usize = 8;
/// Size (3), no locals, `unreachable`, `end`: valid in a function of every type.
const BODY: [u8; 4] = [3, 0, 0, 0x0b];
/// Components in components, further than which nobody goes but to use up stack and time: each level copies what is in it.
/// The validator has no bound of its own for that.
const DEEPEST: usize = 100;

/// Why a program was not emptied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HollowError {
    #[error(transparent)]
    Read(#[from] BinaryReaderError),
    #[error("components are nested more than {DEEPEST} deep")]
    Deep,
}

/// The same module or component with functions that do nothing but trap, and without custom sections.
///
/// # Errors
/// Of bytes that are no valid program, or nested too deep.
pub(crate) fn hollow(bytes: &[u8]) -> Result<Vec<u8>, HollowError> {
    below(bytes, 0)
}

fn below(bytes: &[u8], depth: usize) -> Result<Vec<u8>, HollowError> {
    if depth > DEEPEST {
        return Err(HollowError::Deep);
    }
    let component = Parser::is_component(bytes);
    let mut reader = BinaryReader::new(bytes, 0);
    let mut out = reader.read_bytes(HEADER)?.to_vec();
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()?;
        let content = reader.read_bytes(size as usize)?;
        match id {
            CUSTOM => {}
            CORE_MODULE | COMPONENT if component => {
                section(&mut out, id, &below(content, depth + 1)?)
            }
            CODE if !component => {
                let count = BinaryReader::new(content, 0).read_var_u32()?;
                let mut code = Vec::new();
                number(&mut code, count as usize);
                code.extend(BODY.repeat(count as usize));
                section(&mut out, id, &code);
            }
            _ => section(&mut out, id, content),
        }
    }
    Ok(out)
}

fn section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    number(out, content.len());
    out.extend_from_slice(content);
}

/// LEB128 without a sign.
fn number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_imports_and_exports_stays() {
        let body = "(drop (i32.const 1))".repeat(1000);
        let module = format!(
            r#"(module $m (import "a" "b" (func)) (memory (export "memory") 1) (data (i32.const 0) "x")
                (func (export "f") (param i32) (result i64) {body} (i64.const 1)) (func {body})
                (@custom "name" "\00"))"#
        );
        let shape = |text: &str| {
            let bytes = wat::parse_str(text).expect("valid text");
            let hollowed = hollow(&bytes).expect("valid");
            wasmparser::validate(&hollowed).expect("still valid");
            (bytes.len(), hollowed)
        };
        let (before, hollowed) = shape(&module);
        assert!(hollowed.len() < 100 && before > 4000, "{}", hollowed.len());
        assert_eq!(hollow(&hollowed).expect("valid"), hollowed);
        let nested = format!("(component (component (core {}))", &module[1..]);
        let (_, hollowed) = shape(&nested);
        assert!(hollowed.len() < 150, "{}", hollowed.len());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| {
            let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
            for _ in 0..depth {
                let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
                section(&mut outer, COMPONENT, &bytes);
                bytes = outer;
            }
            bytes
        };
        let bytes = nested(DEEPEST);
        assert_eq!(hollow(&bytes).expect("not too deep"), bytes);
        let bytes = nested(2000);
        let error = hollow(&bytes).expect_err("too deep");
        assert!(error.to_string().contains("more than 100 deep"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        for bytes in [
            &b""[..],
            b"\0asm",
            b"\0asm\x01\0\0\0\x0a\x05\x01",
            b"\0asm\x01\0\0\0\x0a",
        ] {
            assert!(hollow(bytes).is_err(), "{bytes:?}");
        }
    }
}
