//! Markdown.

use serde_json::Value;

const COLUMNS: usize = 120;

/// A paragraph in lines; those after the first of a list's item are indented.
pub(crate) fn wrapped(text: &str) -> String {
    let indent = if text.starts_with("- ") { "  " } else { "" };
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

/// Names in code.
pub(crate) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A JSON text in lines. The order of its fields stays.
pub(crate) fn json_block(text: &str) -> String {
    let (mut lines, mut depth, mut is_string, mut is_escaped) = (String::new(), 0, false, false);
    let new_line = |lines: &mut String, depth: usize| lines.push_str(&format!("\n{}", "  ".repeat(depth)));
    for (index, c) in text.char_indices() {
        let is_empty = |close: char| text[index + 1..].starts_with(close);
        match c {
            '"' if !is_escaped => is_string = !is_string,
            '{' | '[' if !is_string && !is_empty(if c == '{' { '}' } else { ']' }) => {
                depth += 1;
                lines.push(c);
                new_line(&mut lines, depth);
                continue;
            }
            '}' | ']' if !is_string && !text[..index].ends_with(['{', '[']) => {
                depth -= 1;
                new_line(&mut lines, depth);
            }
            ',' if !is_string => {
                lines.push(c);
                new_line(&mut lines, depth);
                continue;
            }
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
        lines.push(c);
        if c == ':' && !is_string {
            lines.push(' ');
        }
    }
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    format!("```json\n{lines}\n```\n")
}

/// A table of the fields in a schema's `properties`, those of objects and lists within it included.
pub(crate) fn fields(schema: &Value) -> String {
    let mut rows = Vec::new();
    collect(schema, schema, "", &mut rows);
    let mut text = "| field of `data` | type | |\n|---|---|---|\n".to_owned();
    for (name, kind, description) in rows {
        text.push_str(&format!("| `{name}` | {kind} | {} |\n", description.replace('|', "\\|")));
    }
    text + "\n"
}

fn collect(root: &Value, schema: &Value, prefix: &str, rows: &mut Vec<(String, String, String)>) {
    let branches = schema.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    for part in branches.iter().chain([schema]) {
        for (name, field) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let (kind, target) = kind(root, field);
            let own = |schema: &Value| schema.get("description").and_then(Value::as_str).map(str::to_owned);
            let description = own(field).or_else(|| own(&target)).unwrap_or_default();
            let path = format!("{prefix}{name}");
            rows.push((path.clone(), kind, description));
            let items = target.get("items").map_or_else(|| target.clone(), |items| resolved(root, items));
            let nested = if target.get("items").is_some() { format!("{path}[].") } else { format!("{path}.") };
            collect(root, &items, &nested, rows);
        }
    }
}

fn resolved(root: &Value, schema: &Value) -> Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    reference.and_then(|reference| root.pointer(reference.trim_start_matches('#'))).unwrap_or(schema).clone()
}

/// The type of a field in words, and its schema without references.
fn kind(root: &Value, field: &Value) -> (String, Value) {
    let schema = resolved(root, field);
    if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
        let kinds: Vec<_> = branches.iter().map(|branch| kind(root, branch).0).collect();
        return (kinds.join(" or "), resolved(root, &branches[0]));
    }
    let constants: Vec<_> =
        schema["oneOf"].as_array().into_iter().flatten().filter_map(|one| one.get("const")).collect();
    let text = if !constants.is_empty() {
        constants.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ").replace('"', "")
    } else {
        match &schema["type"] {
            Value::String(kind) => kind.clone(),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "object".to_owned(),
        }
    };
    (text, schema)
}
