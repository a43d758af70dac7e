//! `deny.toml`, held over `cargo metadata`: licences, sources and bans of everything that is built.
#![forbid(unsafe_code)]

use std::path::Path;

use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;

/// The part of cargo-deny's configuration that this test holds; the rest is for cargo-deny itself.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(default)]
    clarify: Vec<Clarification>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Clarification {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

fn rules() -> Deny {
    toml::from_str(include_str!("../../deny.toml"))
        .expect("deny.toml has the form that cargo-deny asks for")
}

/// Everything that is built for what we ship, and by what it is built.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .other_options(vec![
            "--locked".to_owned(),
            "--filter-platform=x86_64-unknown-linux-musl".to_owned(),
        ])
        .exec()
        .expect("ask cargo for the metadata of the workspace")
}

fn resolved(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let resolve = metadata
        .resolve
        .as_ref()
        .expect("cargo has resolved the workspace");
    resolve.nodes.iter().map(|node| &metadata[&node.id])
}

#[test]
fn licences_are_allowed() {
    let rules = rules().licenses;
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in resolved(&metadata) {
        let name = package.name.as_str();
        let clarified = rules.clarify.iter().find(|entry| entry.name == name);
        let Some(expression) = clarified
            .map(|entry| entry.expression.clone())
            .or_else(|| package.license.clone())
        else {
            wrong.push(format!(
                "{name} names no licence: look at it, then clarify it in deny.toml"
            ));
            continue;
        };
        let exception = rules.exceptions.iter().find(|entry| entry.name == name);
        let allowed = |licence: &str| {
            let own = exception.is_some_and(|entry| entry.allow.iter().any(|it| it == licence));
            own || rules.allow.iter().any(|it| it == licence)
        };
        if !satisfied(&expression, &allowed) {
            wrong.push(format!(
                "{name} {} is licensed `{expression}`",
                package.version
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "licences that deny.toml does not allow:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn nothing_comes_from_elsewhere() {
    let allowed = rules().sources.allow_registry;
    for package in resolved(&metadata()) {
        let Some(source) = &package.source else {
            continue;
        }; // ours
        let registry = source
            .repr
            .strip_prefix("registry+")
            .unwrap_or(&source.repr);
        assert!(
            allowed.iter().any(|it| it == registry),
            "{} comes from {registry}, which deny.toml does not allow",
            package.name
        );
    }
}

#[test]
fn nothing_banned_is_built() {
    let bans = rules().bans.deny;
    for package in resolved(&metadata()) {
        if let Some(ban) = bans.iter().find(|ban| ban.name == package.name.as_str()) {
            panic!(
                "{} is banned by deny.toml ({}); `cargo tree --invert {0}` shows who brings it",
                ban.name, ban.reason
            );
        }
    }
}

/// Whether an SPDX expression (or the older form with slashes) can be satisfied by allowed licences.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let answer = either(&mut rest, allowed);
    assert!(
        rest.is_empty(),
        "read the licence expression `{expression}`"
    );
    answer
}

fn either(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut answer = both(words, allowed);
    while take(words, "OR") {
        // Both sides are read, whatever the first says.
        answer |= both(words, allowed);
    }
    answer
}

fn both(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut answer = one(words, allowed);
    while take(words, "AND") {
        answer &= one(words, allowed);
    }
    answer
}

fn one(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    if take(words, "(") {
        let answer = either(words, allowed);
        return take(words, ")") && answer;
    }
    let Some((licence, after)) = words.split_first() else {
        return false;
    };
    *words = after;
    if take(words, "WITH")
        && let Some((exception, after)) = words.split_first()
    {
        *words = after;
        return allowed(&format!("{licence} WITH {exception}"));
    }
    allowed(licence)
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

#[test]
fn expressions_are_understood() {
    let allowed = |licence: &str| ["MIT", "Zlib", "A WITH B"].contains(&licence);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("A WITH B OR GPL-3.0", true),
        ("A", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}
