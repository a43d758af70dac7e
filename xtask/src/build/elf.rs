//! The little of an ELF file that tells how it was linked (System V ABI, chapter 4 and 5; 64 bit, little endian).
use anyhow::{Context, Result, ensure};

const EXECUTABLE: u16 = 2;
const INTERPRETER: u32 = 3;
const SYMBOL_TABLE: u32 = 2;

pub(super) struct Header {
    /// `e_machine`.
    pub(super) machine: u16,
    /// Linked for one address.
    pub(super) fixed: bool,
    /// Needs a dynamic loader.
    pub(super) dynamic: bool,
    /// Carries a symbol table.
    pub(super) symbols: bool,
}

impl Header {
    pub(super) fn parse(file: &[u8]) -> Result<Self> {
        ensure!(
            file.starts_with(b"\x7fELF\x02\x01"),
            "it is no 64-bit little-endian ELF file"
        );
        let half = |at: usize| number(file, at, 2).and_then(|value| Ok(u16::try_from(value)?));
        let word = |at: usize| number(file, at, 4).and_then(|value| Ok(u32::try_from(value)?));
        let segments = table(file, 0x20, 0x36)?;
        let sections = table(file, 0x28, 0x3a)?;
        let mut dynamic = false;
        for at in segments {
            dynamic |= word(at)? == INTERPRETER;
        }
        let mut symbols = false;
        for at in sections {
            symbols |= word(at + 4)? == SYMBOL_TABLE;
        }
        Ok(Self {
            machine: half(0x12)?,
            fixed: half(0x10)? == EXECUTABLE,
            dynamic,
            symbols,
        })
    }
}

/// Offsets of the entries of the table whose offset is at `offset` and whose entry size and count are at `shape`.
fn table(file: &[u8], offset: usize, shape: usize) -> Result<impl Iterator<Item = usize>> {
    let start = usize::try_from(number(file, offset, 8)?)?;
    let size = usize::try_from(number(file, shape, 2)?)?;
    let count = usize::try_from(number(file, shape + 2, 2)?)?;
    Ok((0..count).map(move |index| start + index * size))
}

fn number(file: &[u8], at: usize, bytes: usize) -> Result<u64> {
    let field = file.get(at..at + bytes).context("the file is truncated")?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_read_as_what_it_is() {
        let own = std::fs::read(std::env::current_exe().expect("a name")).expect("read this test");
        let header = Header::parse(&own).expect("an ELF file");
        // A development build for glibc: position-independent, dynamic, with symbols.
        assert!(!header.fixed && header.dynamic && header.symbols);
        assert!(Header::parse(&own[..100]).is_err());
        assert!(Header::parse(b"#!/bin/sh").is_err());
    }
}
