//! `values.yaml`, read line by line with its comments, which a parser of YAML would throw away. The file keeps to a part of
//! YAML for that: two blanks for each depth, a scalar or JSON on one line.
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

/// Marks the last line of a comment as a piece of the schema.
const SCHEMA: &str = "@schema ";

/// One key.
#[derive(Debug, PartialEq)]
pub(super) struct Value {
    pub(super) key: String,
    /// What it is for, on one line.
    pub(super) description: String,
    /// What the comment says of its schema beside what follows from the default.
    pub(super) schema: Option<Json>,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Default(Json),
    Keys(Vec<Value>),
}

struct Line<'a> {
    number: usize,
    depth: usize,
    text: &'a str,
}

/// Reads the file.
pub(super) fn parse(text: &str) -> Result<Vec<Value>> {
    let lines: Vec<Line<'_>> = text
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let text = line.trim_start();
            let blanks = line.len() - text.len();
            ensure!(
                blanks % 2 == 0,
                "line {}: {blanks} blanks before the key",
                index + 1
            );
            Ok(Line {
                number: index + 1,
                depth: blanks / 2,
                text,
            })
        })
        .collect::<Result<_>>()?;
    let mut rest = lines.as_slice();
    let values = keys(&mut rest, 0)?;
    match rest.first() {
        None => Ok(values),
        Some(line) => bail!("line {}: deeper than the key above it", line.number),
    }
}

/// The keys of one depth, up to the first line that is less deep.
fn keys(rest: &mut &[Line<'_>], depth: usize) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    while let Some((line, after)) = rest.split_first() {
        if line.text.is_empty() {
            // What stands on its own is about the file.
            comment.clear();
            *rest = after;
        } else if line.depth != depth {
            break;
        } else if let Some(words) = line.text.strip_prefix('#') {
            comment.push(words.trim());
            *rest = after;
        } else {
            *rest = after;
            values.push(
                value(line, &std::mem::take(&mut comment), rest)
                    .with_context(|| format!("line {}", line.number))?,
            );
        }
    }
    Ok(values)
}

fn value(line: &Line<'_>, comment: &[&str], rest: &mut &[Line<'_>]) -> Result<Value> {
    let (key, content) = line
        .text
        .split_once(':')
        .context("expected a key and a colon")?;
    let (words, schema) = match comment.split_last() {
        Some((last, words)) if last.starts_with(SCHEMA) => (
            words,
            Some(serde_json::from_str(&last[SCHEMA.len()..]).context("read its @schema")?),
        ),
        _ => (comment, None),
    };
    let content = match content.trim() {
        "" => Content::Keys(keys(rest, line.depth + 1)?),
        text => Content::Default(scalar(text)?),
    };
    ensure!(
        !words.is_empty() || matches!(content, Content::Keys(_)),
        "`{key}` has no description"
    );
    ensure!(
        content != Content::Keys(Vec::new()),
        "`{key}` has neither a value nor keys below it"
    );
    Ok(Value {
        key: key.to_owned(),
        description: words.join(" "),
        schema,
        content,
    })
}

/// JSON, or a plain word.
fn scalar(text: &str) -> Result<Json> {
    if let Ok(json) = serde_json::from_str(text) {
        return Ok(json);
    }
    // What YAML would take for something else has to be written as JSON.
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !text.contains([' ', '#', '"', '\''])
        && !["yes", "no", "on", "off", "null"].contains(&text.to_ascii_lowercase().as_str());
    if plain
        || text
            .trim_end_matches(|end: char| end.is_ascii_alphabetic())
            .parse::<u64>()
            .is_ok()
    {
        return Ok(Json::String(text.to_owned()));
    }
    bail!("`{text}` is neither JSON nor a plain word")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_have_their_comments_and_defaults() {
        let text = "# About the file.\n\n# One word.\n# @schema {\"enum\": [\"a\", \"b\"]}\none: a\n\nmany:\n  # A list,\n  # on two lines.\n  list: [\"x\"]\n  # How long.\n  time: 30s\n\n# Off.\nlast: false\n";
        let values = parse(text).expect("valid");
        let keys: Vec<_> = values.iter().map(|value| value.key.as_str()).collect();
        assert_eq!(keys, ["one", "many", "last"]);
        assert_eq!(values[0].description, "One word.");
        assert_eq!(values[0].schema, Some(json!({"enum": ["a", "b"]})));
        let Content::Keys(many) = &values[1].content else {
            panic!("{:?}", values[1])
        };
        assert_eq!(many[0].description, "A list, on two lines.");
        assert_eq!(many[0].content, Content::Default(json!(["x"])));
        assert_eq!(many[1].content, Content::Default(json!("30s")));
        assert_eq!(values[2].content, Content::Default(json!(false)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, said) in [
            ("key: 1\n", "no description"),
            ("# x\nkey: yes\n", "neither JSON nor a plain word"),
            ("# x\nkey: a # b\n", "neither JSON nor a plain word"),
            ("# x\nkey:\n", "neither a value nor keys"),
            ("# x\nkey\n", "a key and a colon"),
            ("# x\nkey: 1\n    deep: 1\n", "deeper"),
            ("# x\n# @schema {\nkey: 1\n", "@schema"),
            (" key: 1\n", "1 blanks"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
