//! `docs/reference.md` against the code: what it says about keys, defaults, exit codes and annotations is so, and nothing
//! is missing.
#![forbid(unsafe_code)]

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
                    || tables.contains(&section.as_str()),
                "{section} is a table that this test does not look into"
            );
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_code() {
    let source = include_str!("../../crates/plan/src/exit.rs");
    let of_the_code: Vec<(&str, &str)> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .collect();
    let of_the_page: Vec<(&str, &str)> = REFERENCE
        .lines()
        .skip_while(|line| *line != "| code | name | meaning |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1).map(str::trim);
            let code = cells.next()?;
            Some((cells.next()?, code))
        })
        .collect();
    assert!(!of_the_code.is_empty());
    assert_eq!(
        of_the_page, of_the_code,
        "(left: docs/reference.md, right: crates/plan/src/exit.rs)"
    );
}

#[test]
fn annotations_are_those_of_the_code() {
    let source = include_str!("../../crates/plan/src/annotations.rs");
    let known = source
        .split('"')
        .filter(|text| text.starts_with("sampan.dev/") && *text != "sampan.dev/");
    for annotation in known {
        assert!(
            REFERENCE.contains(&format!("| `{annotation}` |")),
            "docs/reference.md does not describe the annotation {annotation}"
        );
    }
}
