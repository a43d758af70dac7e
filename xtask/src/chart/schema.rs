//! The schema by which Helm refuses values that do not exist.
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json, json};

use super::values::{Content, Value};

/// The whole file.
pub(super) fn render(values: &[Value]) -> Result<String> {
    let mut schema = object(values)?;
    schema.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft-07/schema#"),
    );
    schema.insert("title".to_owned(), json!("Values of the chart sampan"));
    let mut text = serde_json::to_string_pretty(&schema).context("write the schema")?;
    text.push('\n');
    Ok(text)
}

fn object(values: &[Value]) -> Result<Map<String, Json>> {
    let mut properties = Map::new();
    for value in values {
        let schema = one(value).with_context(|| format!("`{}`", value.key))?;
        properties.insert(value.key.clone(), Json::Object(schema));
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Json::Object(properties));
    Ok(schema)
}

fn one(value: &Value) -> Result<Map<String, Json>> {
    let mut schema = match &value.content {
        Content::Keys(keys) => object(keys)?,
        Content::Default(default) => {
            let kind = match default {
                Json::Bool(_) => "boolean",
                Json::Number(_) => "integer",
                Json::String(_) => "string",
                Json::Array(_) => "array",
                Json::Object(_) => "object",
                Json::Null => bail!("null says nothing of its type"),
            };
            let said = |name| {
                value
                    .schema
                    .as_ref()
                    .is_some_and(|said| said.get(name).is_some())
            };
            if (kind == "array" && !said("items"))
                || (kind == "object" && !said("additionalProperties"))
            {
                bail!("a {kind} needs a @schema that says what is in it");
            }
            let mut schema = Map::new();
            schema.insert("type".to_owned(), json!(kind));
            schema.insert("default".to_owned(), default.clone());
            schema
        }
    };
    if !value.description.is_empty() {
        schema.insert("description".to_owned(), json!(value.description));
    }
    if let Some(said) = &value.schema {
        let said = said.as_object().context("its @schema is no object")?;
        schema.extend(said.clone());
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::super::{directory, read};
    use super::*;

    /// Every object either names its keys and takes no other, or says what its values are. None restricts its keys by
    /// `propertyNames`: of a key that is refused by that, Helm's library says a place at random.
    fn closed(at: &str, schema: &Json, open: &mut Vec<String>) {
        if schema.get("propertyNames").is_some() {
            open.push(format!("{at}: propertyNames"));
        }
        if schema["type"] == "object" {
            let rest = &schema["additionalProperties"];
            if !(*rest == json!(false) || rest.is_object()) {
                open.push(at.to_owned());
            }
        }
        if let Some(properties) = schema["properties"].as_object() {
            for (key, schema) in properties {
                closed(&format!("{at}.{key}"), schema, open);
            }
        }
        if schema.get("items").is_some() {
            closed(&format!("{at}[]"), &schema["items"], open);
        }
    }

    #[test]
    fn no_object_takes_keys_that_do_not_exist() {
        let text = render(&read(&directory()).expect("values")).expect("schema");
        let schema: Json = serde_json::from_str(&text).expect("JSON");
        let mut open = Vec::new();
        closed("", &schema, &mut open);
        // Helm puts whatever it likes there.
        assert_eq!(open, [".global"]);
    }
}
