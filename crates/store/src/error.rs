use std::io;
use std::path::PathBuf;

use plan::Digest;

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configured directory cannot be one.
    #[error("the store's path `{}` must be absolute and without `..` (key path of [store])", .0.display())]
    Path(PathBuf),
    /// A file or directory that somebody else could have written.
    #[error("the store does not trust {}: {why}", path.display())]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// An engine fingerprint or the name of a note that cannot be a file name.
    #[error(
        "`{0}` cannot name something in the store: 1 to 128 letters, digits, `.`, `_`, `-` and `+`, the first no `.`"
    )]
    Name(String),
    /// The file system refused something.
    #[error("cannot {what} {} in the store of compiled programs{}", path.display(), advice(source))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compiler ended well but left no whole artifact.
    #[error("the compiled program of {guest} is not whole: {why}")]
    Incomplete {
        /// The guest bytes.
        guest: Digest,
        /// What is missing.
        why: &'static str,
    },
    /// A note is longer than one may be.
    #[error("note `{name}` has {size} bytes, 4096 is the most")]
    Note {
        /// Its name.
        name: String,
        /// Its size.
        size: usize,
    },
}

/// Whose fault an error is; what the caller makes a status code of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space, or a quota.
    Exhausted,
    /// An operator must change something: owner, mode, read-only file system.
    Precondition,
    /// The node failed, or a program of ours did.
    Internal,
}

impl StoreError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source: source.into(),
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { source, .. } if is_full(source) => Fault::Exhausted,
            Self::Io { source, .. } if is_refused(source) => Fault::Precondition,
            Self::Path(_) | Self::Untrusted { .. } => Fault::Precondition,
            Self::Name(_) | Self::Io { .. } | Self::Incomplete { .. } | Self::Note { .. } => {
                Fault::Internal
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn advice(source: &io::Error) -> &'static str {
    if is_full(source) {
        " (free space there, or set max-bytes or path of [store])"
    } else if is_refused(source) {
        " (root must be able to write there; path of [store] chooses another place)"
    } else {
        ""
    }
}
