//! `docs/reference.md` against the code: what it says about keys, defaults, exit codes and annotations is so, and nothing
//! is missing.
#![forbid(unsafe_code)]

#[path = "../src/reference/tables.rs"]
mod tables;

use plan::NodeConfig;

const REFERENCE: &str = include_str!("../../docs/reference.md");

/// The block of TOML in the chapter on the node's configuration.
fn configuration() -> &'static str {
    let (_, rest) = REFERENCE.split_once("```toml\n").expect("a block of TOML");
    rest.split_once("```").expect("its end").0
}

/// The keys that a table may have, as its own error message lists them.
fn keys(table: &str) -> Vec<String> {
    let text = format!("{table}\nno-such-key = 1\n");
    let error = NodeConfig::parse(&text)
        .expect_err("the key does not exist")
        .to_string();
    let (_, listed) = error
        .split_once("expected")
        .unwrap_or_else(|| panic!("a list of keys in: {error}"));
    listed
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_configuration_shown_is_the_default() {
    let shown =
        NodeConfig::parse(configuration()).expect("docs/reference.md shows a valid configuration");
    assert_eq!(shown, NodeConfig::default());
}

#[test]
fn every_key_is_shown() {
    let tables = ["", "[store]", "[compile]"];
    // Their keys are the settings, of which there is a table.
    let settings = ["[defaults]", "[ceilings]"];
    for table in tables {
        for key in keys(table) {
            let section = format!("[{key}]");
            let shown = configuration().lines().any(|line| {
                let line = line.trim_start_matches('#');
                line == section
                    || line
                        .split_once('=')
                        .is_some_and(|(name, _)| name.trim() == key)
            });
            assert!(
                shown,
                "docs/reference.md does not show the key `{key}` of {table}"
            );
            assert!(
                !table.is_empty()
                    || NodeConfig::parse(&section).is_err()
                    || tables.contains(&section.as_str())
                    || settings.contains(&section.as_str()),
                "{section} is a table that this test does not look into"
            );
        }
    }
}

/// Settings and exit codes.
#[test]
fn the_tables_are_those_of_the_code() {
    let wanted = tables::render(REFERENCE).expect("docs/reference.md has its parts");
    assert!(
        REFERENCE == wanted,
        "docs/reference.md is not what the code says: run `cargo xtask reference`"
    );
    for knob in plan::KNOBS {
        assert!(
            REFERENCE.contains(&format!("| `{}` |", knob.name)),
            "{}",
            knob.name
        );
    }
}
