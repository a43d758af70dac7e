use crate::error::printable;

/// What bytes are, by their beginning. Never a statement about validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// A WebAssembly core module.
    CoreModule,
    /// A WebAssembly component.
    Component,
    /// WebAssembly text, a module or a component.
    Text,
    /// Native code that some WebAssembly compiler made: wasmtime (`.cwasm`), WAMR (`.aot`).
    Precompiled,
    /// An executable or library of the system.
    Elf,
    /// A script with an interpreter (`#!`).
    Script,
    /// Something else.
    Unknown,
}

/// Guest bytes that are not WebAssembly.
#[derive(Debug, thiserror::Error)]
pub enum NotWasm {
    /// Native code is compiled here or not run at all.
    #[error(
        "`{0}` is precompiled native code, which is never run: use the .wasm it was made from, it is compiled on the node"
    )]
    Precompiled(String),
    /// Another kind of file.
    #[error("`{name}` is not WebAssembly: it is {is}")]
    Other {
        /// The layer or file.
        name: String,
        /// What it looks like.
        is: &'static str,
    },
}

impl Guest {
    /// Whether this is compiled and run by the engine.
    #[must_use]
    pub const fn is_wasm(self) -> bool {
        matches!(self, Self::CoreModule | Self::Component | Self::Text)
    }

    /// Whether the system itself executes it.
    #[must_use]
    pub const fn is_native(self) -> bool {
        matches!(self, Self::Elf | Self::Script)
    }

    /// An error that names `name` (a path in the image, a layer's digest) unless it is
    /// WebAssembly.
    ///
    /// # Errors
    /// [`NotWasm`].
    pub fn expect_wasm(self, name: &str) -> Result<(), NotWasm> {
        let is = match self {
            Self::CoreModule | Self::Component | Self::Text => return Ok(()),
            Self::Precompiled => return Err(NotWasm::Precompiled(printable(name))),
            Self::Elf => "a native executable",
            Self::Script => "a script",
            Self::Unknown => "of no known kind (empty, cut off or something else)",
        };
        Err(NotWasm::Other {
            name: printable(name),
            is,
        })
    }
}

/// Tells what bytes are from their beginning; 4 KiB are enough for a text with a long comment.
#[must_use]
pub fn sniff(first_bytes: &[u8]) -> Guest {
    match first_bytes {
        // The layer field: 0 is a core module, 1 a component (component-model, Binary.md).
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Guest::CoreModule,
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Guest::Component,
        // e_ident[EI_OSABI] of everything that wasmtime compiles (wasmtime-environ, obj.rs).
        [0x7f, b'E', b'L', b'F', _, _, _, 200, ..] => Guest::Precompiled,
        [0, b'a', b'o', b't', ..] => Guest::Precompiled,
        [0x7f, b'E', b'L', b'F', ..] => Guest::Elf,
        [b'#', b'!', ..] => Guest::Script,
        text if starts_wat(text) => Guest::Text,
        _ => Guest::Unknown,
    }
}

/// Whether the first token after white space and comments is `(module` or `(component`.
fn starts_wat(mut text: &[u8]) -> bool {
    text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    loop {
        text = text.trim_ascii_start();
        if text.starts_with(b";;") {
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
                return false;
            };
            text = &text[end + 1..];
        } else if text.starts_with(b"(;") {
            let Some(rest) = after_block(text) else {
                return false;
            };
            text = rest;
        } else {
            break;
        }
    }
    let Some(inner) = text.strip_prefix(b"(") else {
        return false;
    };
    let inner = inner.trim_ascii_start();
    [b"module".as_slice(), b"component"].iter().any(|keyword| {
        inner.strip_prefix(*keyword).is_some_and(|rest| {
            rest.first()
                .is_none_or(|b| b.is_ascii_whitespace() || b"();".contains(b))
        })
    })
}

/// What follows a block comment; they nest. `None` if it does not end.
fn after_block(text: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = text.get(at..at + 2) {
        match pair {
            b"(;" => depth += 1,
            b";)" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return text.get(at..);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_told_apart() {
        for (bytes, guest) in [
            (b"\0asm\x01\0\0\0".as_slice(), Guest::CoreModule),
            (b"\0asm\x0d\0\x01\0\x07", Guest::Component),
            (b"\0asm\x01\0\0", Guest::Unknown),
            (b"\0asm", Guest::Unknown),
            (b"\0asm\x01\0\x02\0", Guest::Unknown),
            (b"\x7fELF\x02\x01\x01\0", Guest::Elf),
            (b"\x7fELF\x02\x01\x01\xc8", Guest::Precompiled),
            (b"\x7fELF", Guest::Elf),
            (b"\0aot\x03\0\0\0", Guest::Precompiled),
            (b"#!/bin/sh\n", Guest::Script),
            (b"(module)", Guest::Text),
            (b"(component $x", Guest::Text),
            (b"( module\n", Guest::Text),
            (b"\xef\xbb\xbf(module)", Guest::Text),
            (b" \t\r\n;; a\n(; b (; c ;) ;)(module;;", Guest::Text),
            (b"(modules)", Guest::Unknown),
            (b"(; (module)", Guest::Unknown),
            (b";; (module)", Guest::Unknown),
            (b"(;)(module)", Guest::Unknown),
            (b";)(module)", Guest::Unknown),
            (b"(", Guest::Unknown),
            (b"", Guest::Unknown),
        ] {
            assert_eq!(sniff(bytes), guest, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_not_wasm_is_named() {
        assert!(Guest::Text.expect_wasm("x").is_ok());
        for (guest, word) in [
            (Guest::Elf, "native executable"),
            (Guest::Script, "script"),
            (Guest::Unknown, "no known kind"),
            (Guest::Precompiled, "precompiled"),
        ] {
            let text = guest
                .expect_wasm("/app\n")
                .expect_err("not wasm")
                .to_string();
            assert!(text.contains(word) && text.contains("/app\\n"), "{text}");
        }
    }
}
