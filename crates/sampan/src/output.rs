//! What is shown, and how: text for people, with colours on a terminal alone, or JSON.

use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Kind, Outcome};

/// The form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document on standard output, errors as one on standard error
    Json,
}

const STRONG: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const CAREFUL: Style = AnsiColor::Yellow.on_default();

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

pub(crate) fn strong(text: &str) -> String {
    styled(STRONG, text)
}

pub(crate) fn good(text: &str) -> String {
    styled(GOOD, text)
}

pub(crate) fn bad(text: &str) -> String {
    styled(BAD, text)
}

pub(crate) fn careful(text: &str) -> String {
    styled(CAREFUL, text)
}

/// A text that grows line by line.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(&harmless(line.as_ref()));
        self.0.push('\n');
    }

    /// A name in a column of its own, and what belongs to it.
    pub(crate) fn row(&mut self, name: &str, value: impl AsRef<str>) {
        self.line(format!("  {name:<11} {}", value.as_ref()));
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        anstream::adapter::strip_str(&self.0)
            .to_string()
            .into_bytes()
    }

    pub(crate) fn heading(&mut self, name: &str) {
        self.0.push('\n');
        self.line(strong(name));
    }
}

/// Names come out of programs and manifests of others: nothing of them moves a terminal's cursor or ends a line. Our own
/// styles stay.
pub(crate) fn harmless(text: &str) -> String {
    let ours = [STRONG, GOOD, BAD, CAREFUL].map(|style| style.render().to_string());
    let reset = STRONG.render_reset().to_string();
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let style = ours.iter().chain([&reset]);
        let length = match style
            .into_iter()
            .find(|style| rest.starts_with(style.as_str()))
        {
            Some(style) => {
                safe.push_str(style);
                style.len()
            }
            None if first.is_control() => {
                safe.extend(first.escape_default());
                first.len_utf8()
            }
            None => {
                safe.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    safe
}

/// Where the answer goes, and in which form.
pub(crate) struct Screen<'a> {
    pub(crate) format: Format,
    pub(crate) stdout: &'a mut dyn std::io::Write,
    pub(crate) stderr: &'a mut dyn std::io::Write,
}

impl Screen<'_> {
    /// Shows the answer. Who reads no further is no error.
    pub(crate) fn show(&mut self, answer: &impl Serialize, text: Text) -> Outcome<()> {
        let written = match self.format {
            Format::Text => self.stdout.write_all(text.0.as_bytes()),
            Format::Json => serde_json::to_string_pretty(answer)
                .map_err(std::io::Error::other)
                .and_then(|json| writeln!(self.stdout, "{json}")),
        };
        match written.and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::at(Kind::System, "cannot write the answer", error))
            }
            _ => Ok(()),
        }
    }

    /// Tells why a command did not do what it was asked for, and returns its exit code.
    pub(crate) fn fail(&mut self, failure: &Failure, running: bool) -> u8 {
        let code = failure.code(running);
        self.tell(&match self.format {
            Format::Text => format!("sampan: {failure}"),
            Format::Json => {
                serde_json::json!({ "error": failure.to_string(), "code": code }).to_string()
            }
        });
        code
    }

    /// A line for people; if nobody reads it there is nobody to tell.
    pub(crate) fn tell(&mut self, line: &str) {
        let _ = self.stderr.write_all(format!("{line}\n").as_bytes());
    }
}

/// Says, to a terminal alone, what takes a while.
pub(crate) fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        let _ = std::io::stderr().write_all(format!("{what}...\n").as_bytes());
    }
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds as people read them.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn names_of_others_move_no_cursor() {
        let mut text = Text::default();
        text.row("name", format!("{} \u{1b}[2J\r\n\u{9b}x", good("a\u{7}b")));
        let shown = text.0;
        assert_eq!(
            shown,
            "  name        \u{1b}[32ma\\u{7}b\u{1b}[0m \\u{1b}[2J\\r\\n\\u{9b}x\n"
        );
    }

    #[test]
    fn a_long_name_is_not_one_with_its_value() {
        let mut text = Text::default();
        text.row("kind", "module");
        text.row("processed-by", "rustc");
        assert_eq!(text.0, "  kind        module\n  processed-by rustc\n");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (19_400_000, "19.4 MB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
