use std::fmt;

/// Operating system and architecture, as an image says them (OCI image-index, "platform").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `wasi`, `wasip1`, `wasip2`...
    pub os: String,
    /// `amd64`, `arm64`, `wasm`...
    pub architecture: String,
}

impl Platform {
    /// The platform of this node, with Go's name of the architecture.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }

    /// Whether this is a platform of WebAssembly with WASI: `wasi/wasm` (Docker, containerd),
    /// `wasip1/wasm`, `wasip2/wasm` (CNCF Wasm OCI artifact), and what may follow them.
    #[must_use]
    pub fn is_wasm(&self) -> bool {
        self.architecture.starts_with("wasm") && self.os.starts_with("wasi")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
