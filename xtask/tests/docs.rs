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
    "docs/tool.md",
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

/// The text of every `#[error("...")]` below `crates`, with the file that it is in.
fn errors() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![checkout().join("crates")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let code = fs::read_to_string(&path).expect("a source");
            for attribute in code.split("#[error(").skip(1) {
                let Some(literal) = attribute.trim_start().strip_prefix('"') else {
                    continue;
                };
                let end = literal
                    .char_indices()
                    .find(|(at, word)| *word == '"' && !literal[..*at].ends_with('\\'))
                    .map_or(literal.len(), |(at, _)| at);
                found.push((path.display().to_string(), literal[..end].to_owned()));
            }
        }
    }
    found
}

/// What stands between the values of a message, in pieces long enough to be looked for.
fn pieces(message: &str) -> Vec<String> {
    let mut depth = 0;
    let mut words = String::new();
    for word in message.chars().filter(|word| !"`\\".contains(*word)) {
        match word {
            '{' => {
                depth += 1;
                words.push('\n');
            }
            '}' => depth -= 1,
            _ if depth == 0 => words.push(word),
            _ => {}
        }
    }
    words
        .lines()
        .map(|piece| piece.trim_matches([' ', ':', ',', ';', '"', '(', ')']))
        .filter(|piece| piece.len() > 9)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_error_is_in_the_list_of_symptoms() {
    let page = text("docs/platform.md").replace('`', "");
    let errors = errors();
    assert!(errors.len() > 50, "{} errors", errors.len());
    let missing: Vec<_> = errors
        .iter()
        .filter(|(_, message)| {
            let pieces = pieces(message);
            // A message that is all values is told by what it carries.
            !pieces.is_empty()
                && !pieces
                    .iter()
                    .any(|piece| page.contains(&piece[..piece.floor_char_boundary(28)]))
        })
        .collect();
    assert!(missing.is_empty(), "docs/platform.md lacks {missing:#?}");
}
