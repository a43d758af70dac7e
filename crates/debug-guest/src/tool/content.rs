//! `cat` and `head`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::{FAILED, Streams, usage};

pub(super) fn cat(files: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    each("cat", files, streams, &mut |_, reader, output| {
        pass(reader, output)
    })
}

enum Part {
    Lines(u64),
    Bytes(u64),
}

pub(super) fn head(arguments: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    let mut part = Part::Lines(10);
    let mut files = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (option, joined) = word.split_at_checked(2).unwrap_or((word, ""));
        match option {
            "-n" | "-c" => {
                let count = if joined.is_empty() {
                    words.next().copied().unwrap_or_default()
                } else {
                    joined
                };
                let Ok(number) = count.parse() else {
                    return Ok(usage(
                        "head",
                        &format!("`{count}` is no number, for {option}"),
                        streams,
                    ));
                };
                part = if option == "-n" {
                    Part::Lines(number)
                } else {
                    Part::Bytes(number)
                };
            }
            _ if word.starts_with('-') && *word != "-" => {
                return Ok(usage("head", &format!("unknown option `{word}`"), streams));
            }
            _ => files.push(*word),
        }
    }
    let several = files.len() > 1;
    let mut first = true;
    each("head", &files, streams, &mut |file, reader, output| {
        if several {
            let gap = if std::mem::take(&mut first) { "" } else { "\n" };
            writeln!(output, "{gap}==> {file} <==")?;
        }
        match part {
            Part::Bytes(count) => pass(&mut reader.take(count), output),
            Part::Lines(count) => lines(reader, count, output),
        }
    })
}

/// A file's name, its content, and where it goes.
type Show<'a> = dyn FnMut(&str, &mut dyn Read, &mut dyn Write) -> Result<(), Trouble> + 'a;

/// What went wrong, and on which side: the output's end ends the command, an input's only that file.
enum Trouble {
    Input(io::Error),
    Output(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Every file, or the input where none is named.
fn each(
    command: &str,
    files: &[&str],
    streams: &mut Streams<'_>,
    show: &mut Show<'_>,
) -> io::Result<u8> {
    let mut code = 0;
    let files = if files.is_empty() { &["-"] } else { files };
    for file in files {
        let shown = if *file == "-" {
            show("standard input", streams.input, streams.output)
        } else {
            open(file)
                .map_err(Trouble::Input)
                .and_then(|mut opened| show(file, &mut opened, streams.output))
        };
        match shown {
            Ok(()) => {}
            Err(Trouble::Output(error)) => return Err(error),
            Err(Trouble::Input(error)) => {
                streams.complain(command, file, &error);
                code = FAILED;
            }
        }
    }
    Ok(code)
}

/// Where the host opens a directory as if it were a file, reading it would say something less clear.
fn open(path: &str) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("Is a directory"));
    }
    Ok(file)
}

fn pass(reader: &mut dyn Read, output: &mut dyn Write) -> Result<(), Trouble> {
    let mut bytes = [0; 16 << 10];
    loop {
        match reader.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => output.write_all(&bytes[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Trouble::Input(error)),
        }
    }
}

fn lines(reader: &mut dyn Read, count: u64, output: &mut dyn Write) -> Result<(), Trouble> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    for _ in 0..count {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => output.write_all(&line)?,
            Err(error) => return Err(Trouble::Input(error)),
        }
    }
    Ok(())
}
