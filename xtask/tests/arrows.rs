//! Who may depend on whom: the table of `docs/architecture.md`, held over `cargo metadata`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

const ARCHITECTURE: &str = include_str!("../../docs/architecture.md");

/// What the words of the column "never sees" stand for: crates that may not be anywhere below, a `*` at the end taking
/// every continuation.
const BELOW: &[(&str, &[&str])] = &[
    (
        "containerd",
        &["containerd-*", "ttrpc*", "tonic*", "k8s-cri", "prost*"],
    ),
    (
        "input and output",
        &[
            "tokio*", "mio", "async-*", "libc", "rustix", "nix", "tempfile",
        ],
    ),
    (
        "namespaces",
        &[
            "libcontainer",
            "libcgroups",
            "seccompiler",
            "syscalls",
            "caps",
        ],
    ),
    (
        "wasmtime",
        &["wasmtime*", "cranelift-*", "wasi-common", "wiggle*"],
    ),
];

/// The same for crates that may not be used directly: what lies below has reasons of its own.
const DIRECTLY: &[(&str, &[&str])] = &[("raw system calls", &["libc", "syscalls", "rustix"])];

/// Crates that may hold `unsafe` code, and in how many places each may allow it.
const UNSAFE: &[(&str, Option<usize>)] = &[("engine", Some(1)), ("jail", None), ("store", Some(1))];

struct Row {
    may_use: BTreeSet<String>,
    never_sees: Vec<String>,
}

/// The table, by the crate's name.
fn table() -> BTreeMap<String, Row> {
    let rows: BTreeMap<String, Row> = ARCHITECTURE
        .lines()
        .skip_while(|line| !line.starts_with("| crate | may use (ours) | never sees |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let list = |cell: &str| -> Vec<String> {
                cell.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| item != "-")
                    .collect()
            };
            let row = Row {
                may_use: list(cells[2]).into_iter().collect(),
                never_sees: list(cells[3]),
            };
            (cells[1].to_owned(), row)
        })
        .collect();
    assert!(
        !rows.is_empty(),
        "docs/architecture.md has no table of crates"
    );
    rows
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        // What ships; without it the dependencies of other systems would count.
        .other_options(vec![
            "--locked".to_owned(),
            "--filter-platform=x86_64-unknown-linux-musl".to_owned(),
        ])
        .exec()
        .expect("ask cargo for the metadata of the workspace")
}

/// The packages on which one depends, and what for.
fn below<'a>(
    metadata: &'a Metadata,
    package: &PackageId,
) -> impl Iterator<Item = (&'a Package, bool)> {
    let resolve = metadata
        .resolve
        .as_ref()
        .expect("cargo has resolved the workspace");
    let node = &resolve[package];
    node.deps.iter().map(|dependency| {
        let ships = dependency
            .dep_kinds
            .iter()
            .any(|kind| kind.kind != DependencyKind::Development);
        (&metadata[&dependency.pkg], ships)
    })
}

/// A way from a package down to one whose name `matches`, not through what only tests need.
fn way_to(
    metadata: &Metadata,
    from: &Package,
    matches: impl Fn(&str) -> bool,
) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([from.id.clone()]);
    let mut queue = std::collections::VecDeque::from([vec![from]]);
    while let Some(way) = queue.pop_front() {
        let last = way[way.len() - 1];
        if way.len() > 1 && matches(&last.name) {
            return Some(way.iter().map(|package| package.name.to_string()).collect());
        }
        for (next, ships) in below(metadata, &last.id) {
            if ships && seen.insert(next.id.clone()) {
                let mut longer = way.clone();
                longer.push(next);
                queue.push_back(longer);
            }
        }
    }
    None
}

fn fits(patterns: &[&str], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
}

fn patterns(
    lists: &[(&str, &'static [&'static str])],
    word: &str,
) -> Option<&'static [&'static str]> {
    lists
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, patterns)| *patterns)
}

#[test]
fn every_crate_is_in_the_table() {
    let metadata = metadata();
    let table = table();
    let missing: Vec<_> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| package.name.to_string())
        .filter(|name| !table.contains_key(name) && !name.ends_with(SUITE))
        .collect();
    assert!(
        missing.is_empty(),
        "crates without a row in docs/architecture.md: {missing:?}; say there what each may use and never sees"
    );
}

/// What packages of nothing but tests of the whole are called; they may use what tests are made of.
const SUITE: &str = "-tests";
const FOR_TESTS: [&str; 2] = ["harness", "tools"];

#[test]
fn arrows_go_where_the_table_allows() {
    let metadata = metadata();
    let table = table();
    let ours: BTreeSet<String> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| package.name.to_string())
        .collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let suite = package.name.ends_with(SUITE);
        let row = table.get(package.name.as_str());
        for (used, ships) in below(&metadata, &package.id) {
            let name = used.name.to_string();
            // A crate's own tests may use the parts that tests are made of.
            let for_tests = (suite || !ships) && FOR_TESTS.contains(&name.as_str());
            if ours.contains(&name)
                && !row.is_some_and(|row| row.may_use.contains(&name))
                && !for_tests
            {
                wrong.push(format!("{} uses {name}", package.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that docs/architecture.md does not allow:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn no_crate_sees_what_it_must_not() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, row) in table() {
        let Some(package) = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name == name)
        else {
            continue; // A row may be there before its crate.
        };
        for word in &row.never_sees {
            if let Some(list) = patterns(BELOW, word) {
                if let Some(way) = way_to(&metadata, package, |below| fits(list, below)) {
                    wrong.push(format!(
                        "{name} must not see {word}, but depends on it: {}",
                        way.join(" -> ")
                    ));
                }
            } else if let Some(list) = patterns(DIRECTLY, word) {
                for (used, ships) in below(&metadata, &package.id) {
                    if ships && fits(list, &used.name) {
                        wrong.push(format!(
                            "{name} must not use {word}, but depends on {}",
                            used.name
                        ));
                    }
                }
            } else {
                wrong.push(format!(
                    "{name} must not see `{word}`, of which this test does not know what it is"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_where_it_is_allowed() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let allowed = UNSAFE
            .iter()
            .find(|(name, _)| *name == package.name.as_str());
        if let Some((_, None)) = allowed {
            continue;
        }
        let mut unguarded = false;
        for target in &package.targets {
            let root = fs::read_to_string(&target.src_path).expect("read the root of a crate");
            if root.contains("#![forbid(unsafe_code)]") {
                continue;
            }
            let denied = root.contains("#![deny(unsafe_code)]");
            if target.is_test() || (allowed.is_some() && denied) {
                unguarded |= target.is_test();
                continue;
            }
            wrong.push(format!("{} lacks #![forbid(unsafe_code)]", target.src_path));
        }
        let directory = package
            .manifest_path
            .parent()
            .expect("a manifest has a directory");
        let tests = directory.join("tests");
        if unguarded && count(tests.as_std_path(), UNSAFE_CODE) > 0 {
            wrong.push(format!("{tests} holds unsafe code"));
        }
        if let Some((name, Some(most))) = allowed {
            let source = directory.join("src");
            let exceptions = count(source.as_std_path(), EXCEPTIONS);
            if exceptions > *most {
                wrong.push(format!(
                    "{name} allows unsafe code in {exceptions} places; {most} is allowed"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What lifts the ban, and what it bans, as they stand when all white space is gone.
const EXCEPTIONS: &[&str] = &["allow(unsafe_code", "expect(unsafe_code"];
const UNSAFE_CODE: &[&str] = &["unsafe{", "unsafefn", "unsafeimpl", "unsafeextern"];

/// How often one of `patterns` stands in the Rust sources below `directory`.
fn count(directory: &Path, patterns: &[&str]) -> usize {
    let entries = fs::read_dir(directory).expect("list a source directory");
    entries
        .map(|entry| {
            let path = entry.expect("read a source directory").path();
            if path.is_dir() {
                return count(&path, patterns);
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                return 0;
            }
            let text = fs::read_to_string(&path).expect("read a source file");
            let compact: String = text.split_whitespace().collect();
            patterns
                .iter()
                .map(|pattern| compact.matches(pattern).count())
                .sum()
        })
        .sum()
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("read a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} lacks `[lints] workspace = true`",
            package.manifest_path
        );
    }
}
