//! `ls`.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use super::date::utc;
use super::{Streams, usage};

/// What `ls` says when something that was named could not be listed.
const TROUBLE: u8 = 2;

#[derive(Default)]
struct Options {
    all: bool,
    long: bool,
}

pub(super) fn run(arguments: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    let mut options = Options::default();
    let mut paths = Vec::new();
    for word in arguments {
        match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            None => paths.push(*word),
            Some(letters) => {
                for letter in letters.chars() {
                    match letter {
                        'a' | 'A' => options.all = true,
                        'l' => options.long = true,
                        '1' => {}
                        other => {
                            return Ok(usage("ls", &format!("unknown option `-{other}`"), streams));
                        }
                    }
                }
            }
        }
    }
    if paths.is_empty() {
        paths.push(".");
    }

    let mut code = 0;
    let several = paths.len() > 1;
    let mut first = true;
    for path in paths {
        let listed = fs::metadata(path).or_else(|_| fs::symlink_metadata(path));
        let found = match listed {
            Ok(metadata) if metadata.is_dir() => directory(path, &options),
            Ok(_) => entry(path, Path::new(path), &options).map(|line| vec![line]),
            Err(error) => Err(error),
        };
        match found {
            Ok(lines) => {
                if several {
                    let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                    writeln!(streams.output, "{gap}{path}:")?;
                }
                for line in lines {
                    writeln!(streams.output, "{line}")?;
                }
            }
            Err(error) => {
                streams.complain("ls", path, &error);
                code = TROUBLE;
            }
        }
    }
    Ok(code)
}

/// Its entries in order, a line each.
fn directory(path: &str, options: &Options) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for found in fs::read_dir(path)? {
        let name = found?.file_name().to_string_lossy().into_owned();
        if options.all || !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    let line = |name: String| {
        // It may be gone by now, or not be ours to look at: its name is still worth a line.
        entry(&name, &Path::new(path).join(&name), options).unwrap_or(name)
    };
    Ok(names.into_iter().map(line).collect())
}

fn entry(name: &str, path: &Path, options: &Options) -> io::Result<String> {
    if !options.long {
        return Ok(name.to_owned());
    }
    let metadata = fs::symlink_metadata(path)?;
    let target = match fs::read_link(path) {
        Ok(target) if metadata.is_symlink() => format!(" -> {}", target.display()),
        _ => String::new(),
    };
    let time = metadata
        .modified()
        .map_or_else(|_| "-".to_owned(), |time| utc(time)[..16].to_owned());
    Ok(format!(
        "{} {:>10} {time} {name}{target}",
        letter(&metadata),
        metadata.len()
    ))
}

/// The first letter of a long line.
fn letter(metadata: &Metadata) -> char {
    if metadata.is_dir() {
        'd'
    } else if metadata.is_symlink() {
        'l'
    } else if metadata.is_file() {
        '-'
    } else {
        '?'
    }
}
