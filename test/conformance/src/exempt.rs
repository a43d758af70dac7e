//! The tests that do not apply to us, from the document that tells people about them.

use anyhow::{Result, bail};

const DOCUMENT: &str = include_str!("../../../docs/conformance.md");
/// The head of the table.
const HEAD: &str = "| test that does not apply | why |";

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exemption {
    /// The whole name of the test, without its label in brackets.
    pub(crate) test: String,
    pub(crate) why: String,
}

/// # Errors
/// When the document has no such table.
pub(crate) fn from_the_document() -> Result<Vec<Exemption>> {
    rows(DOCUMENT)
}

fn rows(document: &str) -> Result<Vec<Exemption>> {
    let mut lines = document.lines();
    if !lines.any(|line| line == HEAD) {
        bail!("docs/conformance.md has no table that begins `{HEAD}`");
    }
    Ok(lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let (test, why) = line.trim_matches('|').split_once('|')?;
            Some(Exemption {
                test: test.trim().trim_matches('`').to_owned(),
                why: why.trim().to_owned(),
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_reasons() {
        for row in from_the_document().expect("a table") {
            assert!(
                row.test.len() > 10 && row.why.len() > 10,
                "{row:?} is no test with a reason"
            );
        }
    }

    #[test]
    fn rows_are_read() {
        let text = format!("text\n{HEAD}\n|---|---|\n| `a b` | because |\n\nmore | text\n");
        let row = Exemption {
            test: "a b".into(),
            why: "because".into(),
        };
        assert_eq!(rows(&text).expect("a table"), [row]);
        assert!(rows("nothing").is_err());
    }
}
