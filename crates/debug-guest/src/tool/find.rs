//! `find`.

use std::fs;
use std::io;

use super::{FAILED, Streams, usage};

#[derive(Default)]
struct Wanted<'a> {
    name: Option<&'a str>,
    kind: Option<char>,
}

pub(super) fn run(arguments: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    let mut wanted = Wanted::default();
    let mut paths = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "-name" => match words.next() {
                Some(glob) => wanted.name = Some(glob),
                None => return Ok(usage("find", "missing argument to `-name`", streams)),
            },
            "-type" => match words.next().copied() {
                Some("f") => wanted.kind = Some('f'),
                Some("d") => wanted.kind = Some('d'),
                Some("l") => wanted.kind = Some('l'),
                _ => return Ok(usage("find", "`-type` takes f, d or l", streams)),
            },
            option if option.starts_with('-') => {
                return Ok(usage(
                    "find",
                    &format!("unknown option `{option}`"),
                    streams,
                ));
            }
            path => paths.push(path),
        }
    }
    if paths.is_empty() {
        paths.push(".");
    }
    let mut code = 0;
    for path in paths {
        code = code.max(walk(path, &wanted, streams)?);
    }
    Ok(code)
}

/// What is there and below, without following links: there is no way round in a circle.
fn walk(start: &str, wanted: &Wanted<'_>, streams: &mut Streams<'_>) -> io::Result<u8> {
    let mut code = 0;
    // Deeper than any stack of calls may be.
    let mut left = vec![start.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                streams.complain("find", &path, &error);
                code = FAILED;
                continue;
            }
        };
        let kind = if metadata.is_dir() {
            'd'
        } else if metadata.is_symlink() {
            'l'
        } else {
            'f'
        };
        let name = path
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        if wanted.kind.is_none_or(|wanted| wanted == kind)
            && wanted
                .name
                .is_none_or(|glob| fits(glob.as_bytes(), name.as_bytes()))
        {
            writeln!(streams.output, "{path}")?;
        }
        if kind == 'd' {
            match names(&path) {
                Ok(names) => left.extend(names.into_iter().rev()),
                Err(error) => {
                    streams.complain("find", &path, &error);
                    code = FAILED;
                }
            }
        }
    }
    Ok(code)
}

/// The paths of a directory's entries, in order.
fn names(path: &str) -> io::Result<Vec<String>> {
    let slash = if path.ends_with('/') { "" } else { "/" };
    let mut names = Vec::new();
    for found in fs::read_dir(path)? {
        names.push(format!(
            "{path}{slash}{}",
            found?.file_name().to_string_lossy()
        ));
    }
    names.sort();
    Ok(names)
}

/// Whether a name fits a pattern of `*` and `?`.
fn fits(glob: &[u8], name: &[u8]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|taken| fits(rest, &name[taken..])),
        Some((b'?', rest)) => !name.is_empty() && fits(rest, &name[1..]),
        Some((letter, rest)) => name.first() == Some(letter) && fits(rest, &name[1..]),
    }
}
