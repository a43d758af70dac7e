use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use plan::Digest;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::{Guest, sniff};

/// Largest guest that is taken, in bytes: the copy lies in memory while it is compiled, and a
/// registry may send what it likes. The largest in the field have about 75 MB.
pub const GUEST_LIMIT: u64 = 512 << 20;

/// As much of a guest as is needed to tell what it is.
const HEAD: usize = 4096;

/// Guest bytes that nobody can change any more: a copy in memory, sealed by the kernel, whose
/// digest was taken while it was made.
///
/// What was hashed is what is compiled, even if the file in the rootfs or in the content store
/// changes meanwhile.
#[derive(Debug)]
pub struct Sealed {
    file: File,
    digest: Digest,
    size: u64,
    guest: Guest,
}

/// Why guest bytes could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The source failed.
    #[error("cannot read the guest")]
    Read(#[source] io::Error),
    /// There is no memory for the copy, or the kernel cannot seal it.
    #[error("cannot keep the guest in memory")]
    Memory(#[source] io::Error),
    /// More than the limit.
    #[error("the guest has more than {limit} bytes, the most that is taken")]
    TooLarge {
        /// [`GUEST_LIMIT`], or what the caller gave.
        limit: u64,
    },
    /// The content store or the registry gave something else.
    #[error(
        "the guest has the digest {actual}, the image names {expected}: remove the image and pull it again"
    )]
    Mismatch {
        /// What the image names.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
}

impl Sealed {
    /// Copies `source` to its end, at most `limit` bytes, and seals the copy.
    ///
    /// # Errors
    /// [`SealError`], all but [`SealError::Mismatch`].
    pub fn copy(source: &mut impl Read, limit: u64) -> Result<Self, SealError> {
        let mut file = memfd()?;
        let mut head = Vec::with_capacity(HEAD);
        let (digest, size) = each_block(source, limit, |block| {
            let wanted = HEAD - head.len();
            head.extend_from_slice(&block[..wanted.min(block.len())]);
            file.write_all(block).map_err(SealError::Memory)
        })?;
        file.rewind().map_err(SealError::Memory)?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(|errno| SealError::Memory(errno.into()))?;
        Ok(Self {
            file,
            digest,
            size,
            guest: sniff(&head),
        })
    }

    /// [`Sealed::copy`] of bytes that must have the digest `expected`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn verified(
        source: &mut impl Read,
        expected: &Digest,
        limit: u64,
    ) -> Result<Self, SealError> {
        let sealed = Self::copy(source, limit)?;
        if sealed.digest != *expected {
            return Err(SealError::Mismatch {
                expected: *expected,
                actual: sealed.digest,
            });
        }
        Ok(sealed)
    }

    /// Digest of the bytes.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Their number.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What they look like.
    #[must_use]
    pub const fn guest(&self) -> Guest {
        self.guest
    }

    /// The copy, read-only for good; its offset is at the beginning and shared by all who have
    /// the descriptor.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The file itself.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Digest of what `source` has from here to its end, at most `limit` bytes, without a copy: for
/// looking up whether it was compiled before.
///
/// # Errors
/// [`SealError::Read`], [`SealError::TooLarge`].
pub fn digest_of(source: &mut impl Read, limit: u64) -> Result<Digest, SealError> {
    each_block(source, limit, |_| Ok(())).map(|(digest, _)| digest)
}

fn each_block(
    source: &mut impl Read,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), SealError>,
) -> Result<(Digest, u64), SealError> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut block = vec![0; 256 << 10];
    loop {
        let count = match source.read(&mut block) {
            Ok(0) => return Ok((Digest::new(hash.finalize().into()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SealError::Read(error)),
        };
        size += count as u64;
        if size > limit {
            return Err(SealError::TooLarge { limit });
        }
        hash.update(&block[..count]);
        take(&block[..count])?;
    }
}

fn memfd() -> Result<File, SealError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(c"sampan-guest", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 there is no such flag.
        Err(Errno::INVAL) => memfd_create(c"sampan-guest", flags),
        made => made,
    };
    made.map(File::from)
        .map_err(|errno| SealError::Memory(errno.into()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn wasm() -> &'static [u8] {
        b"\0asm\x01\0\0\0"
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::new(Sha256::digest(bytes).into())
    }

    #[test]
    fn what_was_hashed_is_kept_and_cannot_be_changed() {
        let mut bytes = wasm().to_vec();
        bytes.extend((0..1_000_000).map(|n: u32| n as u8));
        let sealed =
            Sealed::verified(&mut bytes.as_slice(), &digest(&bytes), GUEST_LIMIT).expect("sealed");
        assert_eq!(sealed.size(), bytes.len() as u64);
        assert_eq!(sealed.guest(), Guest::CoreModule);
        assert_eq!(
            *sealed.digest(),
            digest_of(&mut bytes.as_slice(), GUEST_LIMIT).expect("read")
        );

        // Neither through this descriptor nor through a fresh one.
        let file = sealed.into_file();
        let again = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        for mut file in [Some(file.try_clone().expect("a copy")), again.ok()]
            .into_iter()
            .flatten()
        {
            assert!(file.write_at(b"x", 0).is_err());
            assert!(file.write(b"x").is_err());
            assert!(file.set_len(0).is_err());
            assert!(file.set_len(1 << 30).is_err());
        }
        let mut kept = vec![0; bytes.len()];
        file.read_exact_at(&mut kept, 0).expect("readable");
        assert_eq!(kept, bytes);
    }

    #[test]
    fn another_content_is_refused_with_both_digests() {
        let error =
            Sealed::verified(&mut wasm(), &digest(b"victim"), GUEST_LIMIT).expect_err("other");
        assert!(matches!(error, SealError::Mismatch { .. }));
        let text = error.to_string();
        assert!(
            text.contains(&digest(wasm()).to_string())
                && text.contains(&digest(b"victim").to_string())
        );
    }

    #[test]
    fn no_more_than_the_limit_is_taken() {
        for (limit, fits) in [(8, true), (7, false), (0, false)] {
            assert_eq!(Sealed::copy(&mut wasm(), limit).is_ok(), fits);
            assert_eq!(digest_of(&mut wasm(), limit).is_ok(), fits);
        }
        // A source without end ends here.
        let error = Sealed::copy(&mut io::repeat(0), 1 << 20).expect_err("endless");
        assert!(matches!(error, SealError::TooLarge { limit: 1048576 }));
    }

    #[test]
    fn the_beginning_is_told_however_it_arrives() {
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.len().min(1).min(buffer.len());
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        let sealed = Sealed::copy(&mut Drops(wasm()), 100).expect("sealed");
        assert_eq!(
            (sealed.guest(), sealed.digest()),
            (Guest::CoreModule, &digest(wasm()))
        );
        let empty = Sealed::copy(&mut io::empty(), 100).expect("sealed");
        assert_eq!((empty.guest(), empty.size()), (Guest::Unknown, 0));
    }
}
