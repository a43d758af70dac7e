use std::env;
use std::path::PathBuf;

/// Why there is no cache directory.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// None of the three variables is set.
    #[error(
        "find the cache directory: none of SAMPAN_CACHE, XDG_CACHE_HOME and HOME is set; set SAMPAN_CACHE"
    )]
    NoHome,
}

/// Where tools, guests and the run directories of tests live: `$SAMPAN_CACHE`, else `$XDG_CACHE_HOME/sampan`, else
/// `$HOME/.cache/sampan`. The directory need not exist yet.
///
/// # Errors
/// When none of the three variables is set.
pub fn cache_dir() -> Result<PathBuf, CacheError> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SAMPAN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("sampan")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/sampan")))
        .ok_or(CacheError::NoHome)
}
