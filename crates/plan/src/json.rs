//! JSON from outside, and the name of the field that is wrong in it.
//!
//! The path is looked up where the text could not be taken, and not kept for every value that could: that took a tenth of
//! the reading and made every type's code twice as large.

use serde::de::DeserializeOwned;

/// Why a text could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub struct JsonError {
    /// The path of the field inside the document, as in `process.args[0]`; `.` is the document. For a field that is
    /// missing, that of the object.
    pub field: String,
    /// What is wrong with it, with line and column.
    pub reason: String,
}

/// Reads a whole document.
///
/// # Errors
/// Where the text is not JSON, or a value is not what its field takes.
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError {
        field: path_at(text, offset(text, error.line(), error.column())),
        reason: error.to_string(),
    })
}

/// How many bytes were read until a line (from 1) and a column (in bytes, from 1; 0 is the end of the line before).
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column).min(text.len())
}

/// Where in the document one is after so many bytes.
fn path_at(text: &[u8], read: usize) -> String {
    enum Step {
        Key(String),
        Index(usize),
    }
    let mut steps = Vec::new();
    // The last string, which may be a key, and since when it is read.
    let mut string = String::new();
    let mut quoted = None;
    let mut bytes = text.iter().enumerate().take(read);
    while let Some((at, byte)) = bytes.next() {
        if let Some(since) = quoted {
            match byte {
                b'\\' => drop(bytes.next()),
                b'"' => {
                    string = String::from_utf8_lossy(&text[since..at]).into_owned();
                    quoted = None;
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = Some(at + 1),
            b'{' => steps.push(Step::Key(String::new())),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b':' => {
                if let Some(Step::Key(key)) = steps.last_mut() {
                    *key = std::mem::take(&mut string);
                }
            }
            b',' => match steps.last_mut() {
                Some(Step::Key(key)) => key.clear(),
                Some(Step::Index(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
    }
    let mut path = String::new();
    for step in &steps {
        match step {
            // Between two fields one is in the object.
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if path.is_empty() {
        path.push('.');
    }
    path
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    fn field(text: &str) -> String {
        from_json::<Spec>(text.as_bytes())
            .expect_err("it is wrong")
            .field
    }

    #[test]
    fn the_field_of_a_wrong_value_is_named() {
        for (text, named) in [
            (
                r#"{"ociVersion":"1.1.0","process":{"cwd":"/","user":{"uid":"zero","gid":0}}}"#,
                "process.user.uid",
            ),
            (
                r#"{"ociVersion":"1.1.0","process":{"cwd":"/","args":["a,]", "}\"", 7],"user":{"uid":0,"gid":0}}}"#,
                "process.args[2]",
            ),
            (
                "{\"ociVersion\":\"1.1.0\",\n \"linux\": {\n  \"namespaces\": [{\"type\":\"pid\"},\n {\"type\":\"pigs\"}]}}",
                "linux.namespaces[1].type",
            ),
            (
                r#"{"ociVersion":"1.1.0","process":{"cwd":{}}}"#,
                "process.cwd",
            ),
            (r#"{"ociVersion":"1.1.0","process":"init"}"#, "process"),
            (r#"{"ociVersion":7}"#, "ociVersion"),
            ("7", "."),
            ("", "."),
            ("{\"ociVersion\":\"1.1.0\",\n}", "."),
            (r#"{"ociVersion":"1.1.0","hostname":"a"#, "hostname"),
            (r#"{"ociVersion":"1.1.0"} x"#, "."),
        ] {
            assert_eq!(field(text), named, "{text}");
        }
    }

    #[test]
    fn the_object_of_a_missing_field_is_named() {
        let text = r#"{"ociVersion":"1.1.0","mounts":[{"destination":"/a"},{"type":"tmpfs"}]}"#;
        assert_eq!(field(text), "mounts[1]");
    }
}
