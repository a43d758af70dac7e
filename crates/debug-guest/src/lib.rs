//! The debug guest: `kubectl exec POD -- sampan ls|cat|env|...` in every wasm container, however empty its image.
//!
//! It is a wasm program of our own ([`GUEST`], a module of WASI preview 1), which runs with exactly the container's
//! grants: what it sees is what the container's program sees. What no guest can know (limits, usage, rights) the host
//! tells it in one argument more ([`Facts`]).
//!
//! `src/guest.rs` is the root of the wasm program and has the modules of this library; here they are compiled for the
//! host, so that unit tests can call them.
#![forbid(unsafe_code)]

mod facts;
pub mod tool;

pub use facts::Facts;

/// The guest's bytes.
pub const GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sampan.wasm"));

/// The name by which it is called: `args[0]` of an exec.
pub const NAME: &str = "sampan";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_a_small_module() {
        assert!(GUEST.starts_with(b"\0asm\x01\0\0\0"), "a core module");
        assert!(
            GUEST.len() < 150_000,
            "every shim carries it: {} bytes",
            GUEST.len()
        );
    }

    #[test]
    fn no_path_of_the_machine_is_in_it() {
        let home = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert!(!GUEST.windows(home.len()).any(|window| window == home));
    }
}
