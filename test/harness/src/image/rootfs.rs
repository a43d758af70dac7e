//! Ordinary images: tar layers with files.
use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Blob, IMAGE_CONFIG, Image, TAR_LAYER};
use crate::scratch::unique;

/// An image of tar layers: what `FROM scratch; COPY app.wasm /` makes, or a native one.
#[derive(Debug, Default)]
pub struct Rootfs {
    layers: Vec<Vec<Entry>>,
    platform: Option<String>,
    config: serde_json::Map<String, Value>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Directory(u32),
    File(Vec<u8>, u32),
    Symlink(String),
}

impl Rootfs {
    /// One empty layer, `linux` and this machine's architecture, nothing in the config.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layers: vec![Vec::new()],
            ..Self::default()
        }
    }

    /// Begins another layer; what follows is added to it.
    #[must_use]
    pub fn layer(mut self) -> Self {
        self.layers.push(Vec::new());
        self
    }

    /// Adds a file of mode 0755.
    #[must_use]
    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.file_mode(path, bytes, 0o755)
    }

    /// Adds a file.
    #[must_use]
    pub fn file_mode(self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.entry(path, Node::File(bytes.into(), mode))
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, Node::Directory(mode))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Node::Symlink(target.to_owned()))
    }

    /// `os/architecture`, as in `linux/arm64` or `wasi/wasm`.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Some(platform.to_owned());
        self
    }

    /// The image's entry point.
    #[must_use]
    pub fn entrypoint<'a>(self, entrypoint: impl IntoIterator<Item = &'a str>) -> Self {
        self.config(
            "Entrypoint",
            json!(entrypoint.into_iter().collect::<Vec<_>>()),
        )
    }

    /// The image's default arguments.
    #[must_use]
    pub fn cmd<'a>(self, cmd: impl IntoIterator<Item = &'a str>) -> Self {
        self.config("Cmd", json!(cmd.into_iter().collect::<Vec<_>>()))
    }

    /// Any field of the image config's `config`: `Env`, `User`, `WorkingDir`, `StopSignal`, ...
    #[must_use]
    pub fn config(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.to_owned(), value);
        self
    }

    /// Packs it.
    ///
    /// # Errors
    /// When a path does not fit into a tar header.
    pub fn build(mut self) -> Result<Image> {
        let platform = self
            .platform
            .unwrap_or_else(|| format!("linux/{}", host_architecture()));
        let (os, architecture) = platform
            .split_once('/')
            .context("a platform is os/architecture")?;
        // Two images with a common layer share its snapshot, which hides that one of them was never unpacked. So every
        // lowest layer is unique, as is the config.
        let mark = unique();
        if let Some(lowest) = self.layers.first_mut() {
            let node = Node::File(mark.clone().into_bytes(), 0o644);
            lowest.push(Entry {
                path: ".sampan-test-image".to_owned(),
                node,
            });
        }
        let layers: Vec<Blob> = self
            .layers
            .into_iter()
            .map(|entries| Ok(Blob::new(TAR_LAYER, pack(entries)?)))
            .collect::<Result<_>>()?;
        let labels = self.config.entry("Labels").or_insert_with(|| json!({}));
        labels["sampan.dev/unique"] = json!(mark);
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(Blob::digest).collect::<Vec<_>>() },
        });
        Ok(Image::assemble(Blob::json(IMAGE_CONFIG, &config), layers).platform(&platform))
    }

    fn entry(mut self, path: &str, node: Node) -> Self {
        let path = path.trim_matches('/').to_owned();
        if let Some(layer) = self.layers.last_mut() {
            layer.push(Entry { path, node });
        }
        self
    }
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn pack(entries: Vec<Entry>) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directories = BTreeSet::new();
    for Entry { path, node } in entries {
        // Parents first, as every image builder does.
        for (end, _) in path.match_indices('/') {
            if directories.insert(path[..end].to_owned()) {
                append(
                    &mut tar,
                    &path[..end],
                    tar::EntryType::Directory,
                    0o755,
                    &[],
                )?;
            }
        }
        match node {
            Node::Directory(mode) => {
                directories.insert(path.clone());
                append(&mut tar, &path, tar::EntryType::Directory, mode, &[])?;
            }
            Node::File(bytes, mode) => {
                append(&mut tar, &path, tar::EntryType::Regular, mode, &bytes)?
            }
            Node::Symlink(target) => {
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, &path, &target)
                    .with_context(|| format!("pack {path}"))?;
            }
        }
    }
    tar.into_inner().context("finish the layer")
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, bytes.len());
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("pack {path}"))
}

/// A native image with a static busybox (`/bin/busybox`, and links for what the tests call), `/tmp` and `/etc/passwd`.
///
/// # Errors
/// When the tools are missing.
pub fn busybox() -> Result<Image> {
    let binary = tools::Tools::locate()?.busybox;
    let bytes = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    let links = [
        "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
        "ip", "kill", "ls", "mkdir", "mount", "nc", "ps", "pwd", "rm", "sed", "seq", "sh", "sleep",
        "stat", "stty", "tail", "touch", "tr", "true", "tty", "wc", "wget", "yes",
    ];
    let rootfs = Rootfs::new()
        .directory("/tmp", 0o1777)
        .file_mode("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n", 0o644)
        .file_mode("/etc/group", "root:x:0:\n", 0o644)
        .file("/bin/busybox", bytes)
        .cmd(["/bin/sh"])
        .config("Env", json!(["PATH=/bin"]));
    links
        .iter()
        .fold(rootfs, |rootfs, link| {
            rootfs.symlink(&format!("/bin/{link}"), "busybox")
        })
        .build()
}

/// The image of the pods' pause container for runtimes that need one.
///
/// # Errors
/// When the tools are missing.
pub fn pause() -> Result<Image> {
    let binary = tools::Tools::locate()?.busybox;
    let bytes = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    Rootfs::new()
        .file("/busybox", bytes)
        .entrypoint(["/busybox", "sleep", "2147483647"])
        .build()
}
