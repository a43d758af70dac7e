//! The commands, each as the Unix tool of its name as far as WASI has what it shows: WASI knows no owner, no mode and
//! no other process.

mod content;
mod date;
mod find;
mod host;
mod list;
mod stat;

use std::io::{self, Read, Write};

use crate::facts::Facts;

/// Something could not be read; the rest was done.
const FAILED: u8 = 1;
/// Wrong arguments.
const USAGE: u8 = 2;
/// There is no such command (as a shell says it).
const UNKNOWN: u8 = 127;

const HELP: &str = "\
sampan: looks into this container with its program's own grants

  sampan ls [-a] [-l] [PATH]...                   list files (-l: kind, size, time)
  sampan cat [FILE]...                            print files (- is the input)
  sampan head [-n LINES | -c BYTES] [FILE]...     print the beginning of files
  sampan stat PATH...                             tell what a file is
  sampan find [PATH]... [-name GLOB] [-type f|d|l] look for files
  sampan env [NAME]...                            print environment variables
  sampan grants                                   print directories with rights, variables, network, limits
  sampan top                                      print what the container uses
  sampan help                                     print this
";

/// Where a command reads and writes.
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
}

impl Streams<'_> {
    /// Says what went wrong, as in `cat: /x: No such file or directory`. A reader that went away wants to hear nothing.
    fn complain(&mut self, command: &str, subject: &str, error: &io::Error) {
        let _ = writeln!(self.errors, "{command}: {subject}: {}", in_words(error));
    }
}

/// Runs the command that the arguments name; gives the exit code: 0, 1 if something could not be read (`ls`: 2), 2 for
/// wrong arguments, 127 for a command that does not exist.
pub fn run(arguments: &[String], facts: Option<&Facts>, streams: &mut Streams<'_>) -> u8 {
    let Some((command, rest)) = arguments.split_first() else {
        let _ = streams.errors.write_all(HELP.as_bytes());
        return USAGE;
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let done = match command.as_str() {
        "ls" => list::run(&rest, streams),
        "cat" => content::cat(&rest, streams),
        "head" => content::head(&rest, streams),
        "stat" => stat::run(&rest, streams),
        "find" => find::run(&rest, streams),
        "env" => host::env(&rest, streams),
        "grants" => host::grants(facts, streams),
        "top" => host::top(facts, streams),
        "help" | "--help" | "-h" => streams.output.write_all(HELP.as_bytes()).map(|()| 0),
        "--version" => writeln!(
            streams.output,
            "sampan {}",
            option_env!("SAMPAN_VERSION").unwrap_or("(development)")
        )
        .map(|()| 0),
        other => {
            let _ = writeln!(
                streams.errors,
                "sampan: {other}: no such command; `sampan help` lists them"
            );
            return UNKNOWN;
        }
    };
    // The output cannot be written to: its reader has seen enough.
    done.unwrap_or(FAILED)
}

/// Wrong arguments, said as tools say it.
fn usage(command: &str, problem: &str, streams: &mut Streams<'_>) -> u8 {
    let _ = writeln!(
        streams.errors,
        "{command}: {problem}\nTry `sampan help` for more information."
    );
    USAGE
}

/// An error without its number.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
