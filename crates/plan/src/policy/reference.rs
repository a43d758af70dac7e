use crate::policy::{KNOBS, Scope};

/// The table of annotations, runtime options and `[defaults]`, as markdown.
#[must_use]
pub fn settings_table() -> String {
    let mut table =
        "| name | annotation | value | default | ceiling | meaning |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for knob in KNOBS {
        let annotation = match knob.scope {
            Scope::Pod => format!("`{}{}`", crate::PREFIX, knob.name),
            Scope::Class => "no".to_owned(),
        };
        let default = if knob.default.is_empty() {
            "-".to_owned()
        } else {
            format!("`{}`", knob.default)
        };
        let ceiling = if knob.ceiling { "yes" } else { "no" };
        table.push_str(&format!(
            "| `{}` | {annotation} | {} | {default} | {ceiling} | {} |\n",
            knob.name, knob.takes, knob.meaning
        ));
    }
    table
}

/// The keys of `[ceilings]`, as a sentence's list.
#[must_use]
pub fn ceilings_list() -> String {
    let names: Vec<_> = KNOBS
        .iter()
        .filter(|knob| knob.ceiling)
        .map(|knob| format!("`{}`", knob.name))
        .collect();
    format!("{}\n", names.join(", "))
}
