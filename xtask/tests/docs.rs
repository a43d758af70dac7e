//! What the documents for people say can be run, or be looked up.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Those that tell people what to type.
const PAGES: &[&str] = &[
    "docs/developer.md",
    "docs/platform.md",
    "docs/operator.md",
    "docs/footguns.md",
    "charts/sampan/README.md",
];

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words between backquotes.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// A file of this tree that can run something.
fn is_source(word: &str) -> bool {
    ["crates/", "test/", "xtask/"]
        .iter()
        .any(|top| word.starts_with(top))
        && word.ends_with(".rs")
}

#[test]
fn every_command_is_run_by_a_test_or_says_that_it_is_not() {
    let mut blocks = 0;
    for page in PAGES {
        let page_text = text(page);
        let mut lines = page_text.lines();
        while let Some(line) = lines.next() {
            if line != "```sh" {
                continue;
            }
            blocks += 1;
            let after = lines
                .by_ref()
                .skip_while(|line| *line != "```")
                .skip(1)
                .find(|line| !line.is_empty())
                .unwrap_or_default();
            let run = after.starts_with("Run by ") && quoted(after).into_iter().any(is_source);
            assert!(
                run || after.starts_with("Not run here"),
                "{page}: after block {blocks} comes: {after}"
            );
        }
    }
    assert!(blocks > 10, "{blocks} blocks of commands");
}

/// A name in backquotes after a source file, up to the end of its sentence or item, is a function of it.
#[test]
fn tests_that_are_cited_exist() {
    let mut cited = 0;
    for page in PAGES {
        for line in text(page).lines() {
            let mut source: Option<(String, String)> = None;
            for word in quoted(line) {
                if is_source(word) {
                    source = Some((word.to_owned(), text(word)));
                } else if let Some((path, code)) = &source
                    && word.contains('_')
                    && word.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
                    })
                {
                    cited += 1;
                    assert!(
                        code.contains(&format!("fn {word}(")),
                        "{page}: {path} has no test {word}"
                    );
                }
            }
        }
    }
    assert!(cited > 20, "{cited} tests are cited");
}

#[test]
fn links_lead_somewhere() {
    for page in PAGES
        .iter()
        .chain(&["README.md", "charts/sampan/README.md"])
    {
        let here = checkout().join(page);
        for link in text(page)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
        {
            let target = link.0.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = here.parent().expect("a directory").join(target);
            assert!(path.exists(), "{page}: {target} is not there");
        }
    }
}
