//! `stat`.

use std::fs;
use std::io;

use super::date::utc;
use super::{FAILED, Streams, usage};

pub(super) fn run(paths: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    if paths.is_empty() {
        return Ok(usage("stat", "missing operand", streams));
    }
    let mut code = 0;
    for path in paths {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                streams.complain("stat", path, &error);
                code = FAILED;
                continue;
            }
        };
        let kind = if metadata.is_dir() {
            "directory"
        } else if metadata.is_symlink() {
            "symbolic link"
        } else if metadata.is_file() {
            "regular file"
        } else {
            "something else"
        };
        let target = match fs::read_link(path) {
            Ok(target) if metadata.is_symlink() => format!(" -> {}", target.display()),
            _ => String::new(),
        };
        writeln!(streams.output, "  File: {path}{target}")?;
        writeln!(streams.output, "  Size: {} bytes, {kind}", metadata.len())?;
        for (name, time) in [
            ("Access", metadata.accessed()),
            ("Modify", metadata.modified()),
        ] {
            if let Ok(time) = time {
                writeln!(streams.output, "{name}: {}", utc(time))?;
            }
        }
    }
    Ok(code)
}
