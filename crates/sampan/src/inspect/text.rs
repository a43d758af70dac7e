//! The report for people.

use std::collections::BTreeMap;

use crate::inspect::report::{DECIDED, Import, OPEN, PROVIDED, REFUSED, Report};
use crate::output::{Text, bad, careful, good, size, strong};

pub(crate) fn text(report: &Report<'_>) -> Text {
    let mut text = Text::default();
    text.line(strong(&report.name));
    let wasi: Vec<_> = report.wasi.iter().cloned().collect();
    let wasi = if wasi.is_empty() {
        "no WASI".to_owned()
    } else {
        format!("WASI {}", wasi.join(", "))
    };
    text.row("kind", format!("{}, {wasi}", report.kind));
    text.row(
        "size",
        format!(
            "{} in {} modules",
            size(report.size),
            report.anatomy.modules
        ),
    );
    text.row("digest", &report.digest);
    for (field, name, version) in &report.anatomy.producers {
        text.row(field, format!("{name} {version}"));
    }
    match (&report.runs, &report.refused) {
        (Some(runs), _) => text.row("runs", good(runs)),
        (None, refused) => text.row("refused", bad(refused.as_deref().unwrap_or_default())),
    }
    if !report.proposals.is_empty() {
        text.row("proposals", report.proposals.join(", "));
    }
    for memory in &report.anatomy.memories {
        let maximum = memory.maximum.map_or("no maximum".to_owned(), |bytes| {
            format!("at most {}", size(bytes))
        });
        text.row(
            "memory",
            format!("{} at first, {maximum}", size(memory.initial)),
        );
    }
    if let Some(compiled) = &report.compiled {
        text.row(
            "compiled",
            format!(
                "in {:.1} s on this machine, to {}",
                compiled.seconds,
                size(compiled.bytes)
            ),
        );
    }
    imports(&mut text, &report.imports);
    if !report.exports.is_empty() {
        text.heading("exports");
        for export in &report.exports {
            text.line(format!("  {}: {}", export.name, export.how));
        }
    }
    text.heading("sections");
    for (name, bytes) in &report.anatomy.sections {
        text.row(name, size(*bytes));
    }
    if report.anatomy.names + report.anatomy.debug > 0 {
        text.row(
            "strip saves",
            format!(
                "{} of debug sections, {} of names (which backtraces show)",
                size(report.anatomy.debug),
                size(report.anatomy.names)
            ),
        );
    }
    if let Some(image) = report.image {
        text.heading("image");
        text.row("name", &image.name);
        text.row("digest", &image.digest);
        if let Some(platforms) = &image.index {
            text.row("index of", platforms.join(", "));
        }
        text.row(
            "config",
            format!("{} {}", image.config.media_type, image.config.digest),
        );
        for layer in &image.layers {
            text.row(
                "layer",
                format!(
                    "{} {}, {}",
                    layer.media_type,
                    layer.digest,
                    size(layer.size)
                ),
            );
        }
        text.row("bound by", image.bound_by);
    }
    if !report.advice.is_empty() {
        text.heading("advice");
        for advice in &report.advice {
            text.line(format!("  {advice}"));
        }
    }
    text
}

/// By capability; those that are refused each by itself, with the reason.
fn imports(text: &mut Text, all: &[Import]) {
    if all.is_empty() {
        return;
    }
    text.heading("imports");
    let mut groups: BTreeMap<_, Vec<&Import>> = BTreeMap::new();
    for import in all {
        groups
            .entry((import.capability, import.answer))
            .or_default()
            .push(import);
    }
    for ((capability, answer), imports) in groups {
        let names: Vec<_> = imports.iter().map(|import| name(import)).collect();
        match answer {
            PROVIDED => text.row(
                capability.name(),
                format!("{}: {}", good("provided"), names.join(", ")),
            ),
            DECIDED => {
                let by = capability.decided_by().unwrap_or_default();
                text.row(
                    capability.name(),
                    format!(
                        "{} by {by}: {}",
                        good("provided, decided"),
                        names.join(", ")
                    ),
                );
            }
            REFUSED => {
                for import in imports {
                    let because = import.because.as_deref().unwrap_or_default();
                    text.row(
                        capability.name(),
                        format!("{}: {}: {because}", bad("not provided"), name(import)),
                    );
                }
            }
            OPEN => text.row(
                capability.name(),
                format!(
                    "{}: {}",
                    careful("known when the others are provided"),
                    names.join(", ")
                ),
            ),
            _ => {}
        }
    }
}

fn name(import: &Import) -> String {
    match &import.function {
        Some(function) if import.name == "wasi_snapshot_preview1" => function.clone(),
        Some(function) => format!("{} {function}", import.name),
        None => import.name.clone(),
    }
}
