//! The layers of an image over each other, as files (OCI image-spec, "Image Layer Filesystem Changeset").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};
use tempfile::TempDir;

use crate::failure::{Failure, Kind, Outcome};

/// Bytes of all files together.
const LIMIT: u64 = 4 << 30;
/// How a name begins that says that a lower layer's file is gone, and the one that says so of all.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Unpacks layers, the lowest first: media type and file. Owners, devices and extended attributes are left out; nothing
/// leads out of the directory.
pub(super) fn unpack(layers: &[(String, PathBuf)]) -> Outcome<TempDir> {
    let root = TempDir::new().map_err(failed)?;
    let mut left = LIMIT;
    for (media_type, path) in layers {
        let file = File::open(path).map_err(failed)?;
        let plain: Box<dyn Read> = if media_type.ends_with("gzip") {
            Box::new(flate2::read::GzDecoder::new(file))
        } else if media_type.ends_with("zstd") {
            return Err(Failure::new(
                Kind::Wrong,
                format!(
                    "the layer {} is packed with zstd, which is not unpacked here: push it with gzip",
                    path.display()
                ),
            ));
        } else {
            Box::new(file)
        };
        layer(plain, root.path(), &mut left).map_err(failed)?;
    }
    Ok(root)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::at(Kind::Wrong, "cannot unpack the image's layers", error)
}

fn layer(source: impl Read, root: &Path, left: &mut u64) -> std::io::Result<()> {
    let mut archive = Archive::new(source);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            for below in std::fs::read_dir(inside(root, parent)?)
                .into_iter()
                .flatten()
            {
                remove(&below?.path())?;
            }
            continue;
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            remove(&inside(root, parent)?.join(gone))?;
            continue;
        }
        match entry.header().entry_type() {
            EntryType::Block | EntryType::Char | EntryType::Fifo => continue,
            EntryType::Directory => {}
            // What a lower layer had there in another kind.
            _ => {
                if inside(root, parent).is_ok_and(|dir| dir.join(name).is_dir()) {
                    remove(&inside(root, parent)?.join(name))?;
                }
            }
        }
        *left = left.checked_sub(entry.size()).ok_or_else(|| {
            std::io::Error::other(format!("its files have more than {LIMIT} bytes"))
        })?;
        // Refuses `..` and links that lead out.
        entry.unpack_in(root)?;
    }
    Ok(())
}

/// A directory of the unpacked files, with all links followed, if it is one of them.
fn inside(root: &Path, relative: &Path) -> std::io::Result<PathBuf> {
    let root = root.canonicalize()?;
    let found = root
        .join(relative.strip_prefix("/").unwrap_or(relative))
        .canonicalize()?;
    if found.starts_with(&root) {
        Ok(found)
    } else {
        Err(std::io::Error::other(format!(
            "{} leads out of the image",
            relative.display()
        )))
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let bytes = name.as_bytes();
            // As a hostile archive would have it: the builder's own check is passed by.
            header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
            if *kind == EntryType::Symlink {
                header.set_link_name(content).expect("a name");
                header.set_size(0);
                header.set_cksum();
                archive.append(&header, std::io::empty()).expect("packed");
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                archive.append(&header, content.as_bytes()).expect("packed");
            }
        }
        archive.into_inner().expect("packed")
    }

    #[test]
    fn later_layers_lie_over_earlier_ones_and_nothing_leads_out() {
        let place = TempDir::new().expect("a directory");
        let root = place.path().join("root");
        std::fs::create_dir(&root).expect("made");
        let outside = place.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        let file = EntryType::Regular;
        let first = packed(&[
            ("a/", EntryType::Directory, ""),
            ("a/one", file, "1"),
            ("a/two", file, "2"),
            ("b/", EntryType::Directory, ""),
            ("b/three", file, "3"),
            ("link", EntryType::Symlink, "a/one"),
            ("out", EntryType::Symlink, "../outside"),
        ]);
        let second = packed(&[
            ("a/.wh.one", file, ""),
            ("b/.wh..wh..opq", file, ""),
            ("b/four", file, "4"),
            ("../escaped", file, "no"),
        ]);
        let mut left = LIMIT;
        layer(first.as_slice(), &root, &mut left).expect("unpacked");
        layer(second.as_slice(), &root, &mut left).expect("unpacked");
        let there = |name: &str| root.join(name).symlink_metadata().is_ok();
        assert!(!there("a/one") && there("a/two") && !there("b/three") && there("b/four"));
        assert!(!place.path().join("escaped").exists());
        let through = packed(&[("out/x", file, "no")]);
        let _ = layer(through.as_slice(), &root, &mut left);
        assert!(!outside.join("x").exists());
        let wiped = packed(&[("out/.wh..wh..opq", file, "")]);
        assert!(layer(wiped.as_slice(), &root, &mut left).is_err());
        assert!(layer(first.as_slice(), &root, &mut 2).is_err());
    }
}
