use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plan::Digest;
use sha2::{Digest as _, Sha256};

use crate::ImageError;

/// Largest manifest, index or config that is read, in bytes. containerd's own limit for
/// manifests is 8 MiB too (`images.maxManifestSize` is not configurable there).
pub const DOCUMENT_LIMIT: u64 = 8 << 20;

/// The digest of `{}`, the config of artifacts that need none (OCI image-spec, "Guidance for an
/// Empty Descriptor"). Such a config may be absent from the store, because its content is known.
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// What a name leads to: the descriptor of a manifest or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as the registry or containerd gave it; may be empty.
    pub media_type: String,
    /// Its size in bytes, if known; it is compared then.
    pub size: Option<u64>,
}

/// containerd's content store, read as files: `<root>/blobs/sha256/<hex>`.
///
/// The root comes from containerd's introspection service (plugin `io.containerd.content.v1`,
/// export `root`).
#[derive(Debug, Clone)]
pub struct Content {
    root: PathBuf,
}

impl Content {
    /// The store below `root`. Nothing is opened yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is: a path made of nothing but the root and hex digits.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Opens a wasm layer for copying into [`crate::Sealed`], which verifies it.
    ///
    /// # Errors
    /// [`ImageError::Missing`] if it is not in the store, [`ImageError::Read`] if it is no
    /// regular file or cannot be opened.
    pub fn open_layer(&self, digest: &Digest) -> Result<File, ImageError> {
        self.open(digest).map(|(file, _)| file)
    }

    /// Size of a blob in bytes.
    pub(crate) fn size(&self, digest: &Digest) -> Result<u64, ImageError> {
        self.open(digest).map(|(_, size)| size)
    }

    /// Reads a whole document, at most [`DOCUMENT_LIMIT`] bytes, and verifies it.
    pub(crate) fn read(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>, ImageError> {
        let (file, actual) = match self.open(digest) {
            Err(ImageError::Missing { .. }) if digest.to_string() == EMPTY => {
                return Ok(b"{}".to_vec());
            }
            opened => opened?,
        };
        let declared = size.unwrap_or(actual);
        if declared > DOCUMENT_LIMIT || actual > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge {
                digest: *digest,
                size: declared.max(actual),
                limit: DOCUMENT_LIMIT,
            });
        }
        let mut bytes = Vec::new();
        // The file may grow while it is read; one byte over the limit tells.
        file.take(DOCUMENT_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| self.failed(digest, source))?;
        let read = Digest::new(Sha256::digest(&bytes).into());
        if read != *digest {
            return Err(ImageError::Corrupt {
                expected: *digest,
                actual: read,
            });
        }
        if bytes.len() as u64 != declared {
            return Err(ImageError::Size {
                digest: *digest,
                declared,
                actual: bytes.len() as u64,
            });
        }
        Ok(bytes)
    }

    fn open(&self, digest: &Digest) -> Result<(File, u64), ImageError> {
        let path = self.path(digest);
        // Non-blocking, so that a pipe put there cannot hold the supervisor up.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .map_err(|source| self.failed(digest, source))?;
        let metadata = file
            .metadata()
            .map_err(|source| self.failed(digest, source))?;
        if !metadata.is_file() {
            return Err(self.failed(digest, io::Error::other("it is no regular file")));
        }
        Ok((file, metadata.len()))
    }

    fn failed(&self, digest: &Digest, source: io::Error) -> ImageError {
        let path = self.path(digest);
        if source.kind() == io::ErrorKind::NotFound {
            ImageError::Missing {
                digest: *digest,
                path,
            }
        } else {
            ImageError::Read { path, source }
        }
    }
}
