use serde::{Deserialize, Serialize};

/// What `process.args[0]` names: a file, an export, or both (`/app.wasm#export`).
///
/// For an image that carries a wasm layer the path has no meaning (`/` is as good as
/// `/app.wasm`): the layer is the module. Otherwise the path is looked up in the rootfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The part before `#`; may be empty (`#export`).
    pub path: String,
    /// The part after the last `#`, the export to call instead of the default one.
    pub export: Option<String>,
}

impl Entry {
    /// Takes `args[0]` apart. A trailing `#` names no export and stays part of the path.
    #[must_use]
    pub fn parse(arg0: &str) -> Self {
        match arg0.rsplit_once('#') {
            Some((path, export)) if !export.is_empty() && !export.contains('/') => Self {
                path: path.to_owned(),
                export: Some(export.to_owned()),
            },
            _ => Self {
                path: arg0.to_owned(),
                export: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_are_taken_apart() {
        for (arg0, path, export) in [
            ("/", "/", None),
            ("/app.wasm", "/app.wasm", None),
            ("app.wasm", "app.wasm", None),
            ("#run", "", Some("run")),
            ("/app.wasm#run", "/app.wasm", Some("run")),
            ("/a#b/app.wasm", "/a#b/app.wasm", None),
            ("/a#b/app.wasm#run", "/a#b/app.wasm", Some("run")),
            ("/app.wasm#", "/app.wasm#", None),
        ] {
            let entry = Entry::parse(arg0);
            assert_eq!(
                (entry.path.as_str(), entry.export.as_deref()),
                (path, export),
                "{arg0}"
            );
        }
    }
}
