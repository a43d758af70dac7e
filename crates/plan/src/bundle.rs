use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::json::{JsonError, from_json};

/// Why `config.json` of a bundle could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file could not be opened or read.
    #[error("cannot open {path}")]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no OCI runtime configuration.
    #[error("{path}: {wrong}")]
    Parse {
        /// Path of the file.
        path: PathBuf,
        /// Which field of it is wrong, e.g. `process.user.uid`.
        wrong: JsonError,
    },
}

/// Reads `config.json` of the bundle (OCI runtime-spec, "Configuration").
///
/// # Errors
/// [`BundleError::Open`] where the file cannot be read, [`BundleError::Parse`] where it is not
/// JSON or a field has the wrong type; the error names the field.
pub fn read_spec(bundle: &Path) -> Result<Spec, BundleError> {
    let path = bundle.join("config.json");
    // At once: serde_json takes a stream byte by byte.
    let text = std::fs::read(&path).map_err(|source| BundleError::Open {
        path: path.clone(),
        source,
    })?;
    from_json(&text).map_err(|wrong| BundleError::Parse { path, wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"ociVersion":"1.1.0","process":{"cwd":"/","args":["a"],"user":{"uid":"zero","gid":0}}}"#,
        )
        .expect("write config.json");
        let error = read_spec(dir.path())
            .expect_err("uid is a string")
            .to_string();
        assert!(error.contains("process.user.uid"), "{error}");
        assert!(error.contains("config.json"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = read_spec(dir.path()).expect_err("no file").to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
