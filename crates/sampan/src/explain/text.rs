//! The answer for people.

use crate::explain::answer::{Answer, Directory, Guest};
use crate::output::{Text, bad, careful, good, size, strong};

pub(crate) fn text(answers: &[Answer]) -> Text {
    let mut text = Text::default();
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            text.line("");
        }
        let first = if answer.init {
            " (before the others)"
        } else {
            ""
        };
        text.line(strong(&format!(
            "{}, container {}{first}",
            answer.workload, answer.container
        )));
        if let Some(image) = &answer.image {
            text.row("image", image);
        }
        if answer.faults.is_empty() {
            text.row(
                "created",
                good("yes, if the image's program is one (sampan inspect)"),
            );
        } else {
            for fault in &answer.faults {
                text.row(
                    "refused",
                    bad(&format!("{}: {}", fault.field, fault.reason)),
                );
            }
        }
        if let Some(guest) = &answer.guest {
            of_guest(&mut text, guest);
        }
        for remark in &answer.remarks {
            text.row(
                "note",
                format!("{}: {}", careful(&remark.field), remark.reason),
            );
        }
    }
    text
}

fn of_guest(text: &mut Text, guest: &Guest) {
    let words = |words: &[String]| {
        let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
        words.join(" ")
    };
    if guest.command_of_image {
        text.row(
            "runs",
            format!("what the image says, with {}", words(&guest.args[1..])),
        );
    } else {
        text.row("runs", words(&guest.args));
    }
    text.row("in", &guest.cwd);
    let line = |found: &Directory| format!("{} {}  ({})", found.access, found.path, found.what);
    for directory in &guest.directories {
        text.row("directory", line(directory));
    }
    for file in &guest.files {
        text.row("file", line(file));
    }
    for variable in &guest.variables {
        text.row(
            "variable",
            format!("{}  ({})", variable.name, variable.from),
        );
    }
    text.row("network", &guest.network);
    if let Some(http) = &guest.http {
        text.row("http", format!("on {http}, if it serves"));
    }
    if let Some(directory) = &guest.core_dumps {
        text.row("core dumps", format!("into {directory}, if it traps"));
    }
    text.row("memory", memory(guest));
    text.row("stack", size(guest.stack));
    if let Some(fuel) = guest.fuel {
        text.row("fuel", fuel.to_string());
    }
    text.row("user", format!("{}:{}", guest.user.0, guest.user.1));
}

fn memory(guest: &Guest) -> String {
    match (guest.memory, guest.memory_limit) {
        (Some(memory), Some(limit)) => format!(
            "{memory} bytes of its own under the container's limit of {limit}: growing beyond fails in the guest"
        ),
        _ => "no limit".to_owned(),
    }
}
