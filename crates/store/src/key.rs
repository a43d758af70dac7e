use plan::Digest;
use sha2::{Digest as _, Sha256};

use crate::StoreError;

/// What an artifact is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) guest: Digest,
    pub(crate) fingerprint: String,
}

/// How the name of an artifact ends.
pub(crate) const SUFFIX: &str = ".cwasm";

/// How the name of a temporary file ends.
pub(crate) const TEMPORARY: &str = ".tmp";

impl Key {
    pub(crate) fn new(guest: &Digest, fingerprint: &str) -> Result<Self, StoreError> {
        Ok(Self {
            guest: *guest,
            fingerprint: file_name(fingerprint)?.to_owned(),
        })
    }

    /// Name of the artifact in its fingerprint's directory.
    pub(crate) fn file(&self) -> String {
        format!("{}{SUFFIX}", self.guest.hex())
    }

    /// Name of the temporary file, where there must be one.
    pub(crate) fn temporary(&self) -> String {
        format!("{}.{}{TEMPORARY}", self.fingerprint, self.guest.hex())
    }

    /// The key that a name made by [`Key::file`] belongs to.
    pub(crate) fn of_file(fingerprint: &str, name: &str) -> Option<Self> {
        let guest = name.strip_suffix(SUFFIX)?;
        Self::parse(fingerprint, guest)
    }

    /// The key that a name made by [`Key::temporary`] belongs to.
    pub(crate) fn of_temporary(name: &str) -> Option<Self> {
        let (fingerprint, guest) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
        Self::parse(fingerprint, guest)
    }

    fn parse(fingerprint: &str, hex: &str) -> Option<Self> {
        let guest = format!("sha256:{hex}").parse().ok()?;
        Self::new(&guest, fingerprint).ok()
    }

    /// Which byte of the file of locks stands for this key. Two keys that share one would only
    /// wait for each other.
    pub(crate) fn lock_byte(&self) -> i64 {
        let hash = Sha256::new()
            .chain_update(self.guest.bytes())
            .chain_update(&self.fingerprint)
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        // Offsets are positive, and the range must end before the largest one.
        i64::from_be_bytes(first) & (i64::MAX >> 1)
    }
}

/// A name that is one path component, whatever it was made from.
pub(crate) fn file_name(name: &str) -> Result<&str, StoreError> {
    let fits = (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte));
    if fits {
        Ok(name)
    } else {
        Err(StoreError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_key() {
        let key = Key::new(&Digest::new([0xab; 32]), "48.0.8-0123456789abcdef").expect("valid");
        assert_eq!(
            Key::of_file(&key.fingerprint, &key.file()),
            Some(key.clone())
        );
        assert_eq!(Key::of_temporary(&key.temporary()), Some(key));
        assert_eq!(Key::of_file("f", "x.cwasm"), None);
        assert_eq!(Key::of_temporary("notes.tmp"), None);
    }

    #[test]
    fn no_name_leaves_its_directory() {
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\0b",
            "a b",
            &"x".repeat(129),
        ] {
            assert!(
                matches!(file_name(name), Err(StoreError::Name(_))),
                "{name}"
            );
        }
        assert!(file_name("48.0.8+sampan_1-0f").is_ok());
    }

    #[test]
    fn keys_lock_different_bytes_that_the_kernel_takes() {
        let byte = |guest: u8, fingerprint: &str| {
            Key::new(&Digest::new([guest; 32]), fingerprint)
                .expect("valid")
                .lock_byte()
        };
        let bytes = [byte(1, "a"), byte(2, "a"), byte(1, "b")];
        assert!(bytes.iter().all(|byte| (0..i64::MAX).contains(byte)));
        assert!(bytes[0] != bytes[1] && bytes[0] != bytes[2]);
    }
}
