use std::hash::{Hash, Hasher};

use plan::EngineSettings;
use sha2::{Digest, Sha256};

use crate::config::{self, Style};

/// The version of wasmtime, patch level included: an artifact says the major version alone, and
/// a fix of the compiler within a major version must not leave old code in use. A test holds it
/// against the lock file.
const WASMTIME: &str = "48.0.8";

/// What an artifact depends on beside the guest's bytes: `<wasmtime version>-<16 hex digits>`,
/// the digits being wasmtime's compatibility hashes (settings, wasm features, features of this
/// CPU that the compiler uses) of both ways in which guests are compiled: which of them a program
/// gets follows from its bytes.
///
/// # Panics
/// If wasmtime does not take our settings on this machine; nothing can run here then.
#[must_use]
pub fn fingerprint(settings: &EngineSettings) -> String {
    let mut hasher = Identity(Sha256::new());
    for style in [Style::Command, Style::Server] {
        let engine = config::for_compiling(settings, style).expect("wasmtime takes our settings");
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    format!("{WASMTIME}-{:016x}", hasher.finish())
}

/// sha256 where `Hash` wants a hasher: the standard library's own may change with its release,
/// and two different settings must never meet in one value.
struct Identity(Sha256);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"))
                .expect("read Cargo.lock");
        let line = format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"\n");
        assert!(
            lock.contains(&line),
            "Cargo.lock has another wasmtime than {WASMTIME}"
        );
    }

    #[test]
    fn it_is_stable_and_fits_a_file_name() {
        let print = fingerprint(&EngineSettings::default());
        assert_eq!(print, fingerprint(&EngineSettings::default()));
        let (version, hash) = print.rsplit_once('-').expect("two parts");
        assert_eq!(version, WASMTIME);
        assert_eq!(hash.len(), 16);
        assert!(hash.bytes().all(|b| b.is_ascii_hexdigit()));
        let other = EngineSettings {
            fuel: true,
            ..EngineSettings::default()
        };
        assert_ne!(print, fingerprint(&other));
    }
}
