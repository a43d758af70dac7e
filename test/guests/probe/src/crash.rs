//! The ways to end, and to never end.

use crate::Answer;
use std::hint::black_box;
use std::io::{self, Write};

/// Wasm's page, the unit of `memory.grow`.
const PAGE: u64 = 65_536;

/// Ends with `code` as WASI 0.2.12's `exit-with-code` can; with WASI 0.1 every exit keeps its code.
pub(crate) fn exit_with_code(code: u8) -> Answer {
    io::stdout().flush()?;
    #[cfg(target_env = "p2")]
    wasip2::cli::exit::exit_with_code(code);
    std::process::exit(code.into())
}

/// Rust checks the divisor itself, so this ends as a panic; the trap of the instruction itself is
/// `div0.wat`.
pub(crate) fn divide_by_zero() -> Answer {
    Ok(Some((1 / black_box(0_i32)).to_string()))
}

/// Recursion that the compiler cannot turn into a loop and that keeps nothing in linear memory: the
/// engine's own stack overflows, not the guest's.
pub(crate) fn overflow_the_stack() -> Answer {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        if depth == u64::MAX {
            return 1;
        }
        (deeper(depth + 1) ^ depth).rotate_left(1)
    }
    Ok(Some(deeper(black_box(0)).to_string()))
}

/// Grows linear memory a megabyte at a time until the host refuses, and says how far it came.
pub(crate) fn grow_until_refused() -> Answer {
    grow(u64::MAX)
}

/// The same, but stops at `most` bytes. Touches what it gets, so that it is really memory.
pub(crate) fn grow(most: u64) -> Answer {
    const STEP: usize = 1 << 20;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while ((pieces.len() * STEP) as u64) < most {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(STEP).is_err() {
            return Ok(Some(format!(
                "refused at {} MiB of {} MiB linear memory",
                pieces.len(),
                memory_bytes() >> 20
            )));
        }
        piece.resize(STEP, 1);
        pieces.push(black_box(piece));
    }
    Ok(Some(format!(
        "got {} MiB of {} MiB linear memory",
        pieces.len(),
        memory_bytes() >> 20
    )))
}

/// Takes as many megabytes as each line of the input says, and tells whether it could.
pub(crate) fn grow_by_lines() -> Answer {
    println!("at {} MiB", memory_bytes() >> 20);
    for line in io::stdin().lines() {
        let megabytes: usize = line?.trim().parse().map_err(io::Error::other)?;
        let mut piece: Vec<u8> = Vec::new();
        let word = match piece.try_reserve_exact(megabytes << 20) {
            Ok(()) => {
                // Written to, so that it is really memory, and kept.
                piece.resize(megabytes << 20, 1);
                std::mem::forget(black_box(piece));
                "got"
            }
            Err(_) => "refused",
        };
        println!("{word} {megabytes} MiB, at {} MiB", memory_bytes() >> 20);
    }
    Ok(None)
}

/// Uses a processor until it is ended from outside; says first that it does.
pub(crate) fn spin() -> Answer {
    println!("spinning");
    io::stdout().flush()?;
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn memory_bytes() -> u64 {
    core::arch::wasm32::memory_size(0) as u64 * PAGE
}
