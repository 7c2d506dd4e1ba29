//! The part of Docker's `--format` that is a path into the answer: `{{.State.Pid}}`, `{{json .Config}}`, and text around it.

use crate::instances::refuse;
use serde::Serialize;
use serde_json::{Map, Value};

/// A list in a format: `json` gives one object a line, and a template one line each; after `table ` the columns of a template,
/// told apart by `\t`, stand below each other with headings.
pub(super) fn list(format: &str, lines: &[impl Serialize]) -> anyhow::Result<String> {
    let values = lines.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if format == "json" {
        return Ok(values.iter().map(|value| format!("{value}\n")).collect());
    }
    // As with Docker, a shell need not be made to write a tab.
    let template = format.replace("\\t", "\t").replace("\\n", "\n");
    let Some(columns) = template.strip_prefix("table ") else {
        return values.iter().map(|value| Ok(fill(&template, value)? + "\n")).collect();
    };
    let head = values.first().and_then(Value::as_object).map(headings);
    let rows = head.iter().chain(&values);
    let rows = rows.map(|value| Ok(fill(columns, value)?.split('\t').map(str::to_owned).collect()));
    Ok(super::container::table(&rows.collect::<anyhow::Result<Vec<_>>>()?))
}

/// `CreatedAt` has the heading `CREATED AT`.
fn headings(value: &Map<String, Value>) -> Value {
    let heading = |name: &String| {
        let mut text = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && text.ends_with(char::is_lowercase) {
                text.push(' ');
            }
            text.push(letter);
        }
        (name.clone(), Value::from(text.to_uppercase()))
    };
    value.keys().map(heading).collect()
}

/// Fills a template from a value.
pub(super) fn fill(template: &str, value: &Value) -> anyhow::Result<String> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        text += before;
        let Some((expression, after)) = after.split_once("}}") else {
            return refuse(format!("--format {template}: `{{{{` has no `}}}}`"));
        };
        text += &evaluate(expression.trim(), value, template)?;
        rest = after;
    }
    Ok(text + rest)
}

fn evaluate(expression: &str, value: &Value, template: &str) -> anyhow::Result<String> {
    let (as_json, path) = match expression.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, expression),
    };
    let Some(path) = path.strip_prefix('.') else {
        return refuse(format!(
            "--format {template}: `{expression}` is no path such as .State.Pid, or `json` and a path"
        ));
    };
    let mut found = value;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let next = found.get(name).or_else(|| found.get(name.parse::<usize>().ok()?));
        match next {
            Some(next) => found = next,
            None => return refuse(format!("--format {template}: there is no `{name}`")),
        }
    }
    Ok(match found {
        Value::String(text) if !as_json => text.clone(),
        other => serde_json::to_string(other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_have_the_format_that_was_asked_for() {
        let lines = [json!({"ID": "1", "CreatedAt": "now"}), json!({"ID": "2", "CreatedAt": "then"})];
        let shown = |format| list(format, &lines).unwrap();
        assert_eq!(shown("json"), "{\"CreatedAt\":\"now\",\"ID\":\"1\"}\n{\"CreatedAt\":\"then\",\"ID\":\"2\"}\n");
        assert_eq!(shown("{{.ID}}\\t{{.CreatedAt}}"), "1\tnow\n2\tthen\n");
        assert_eq!(shown("table {{.ID}}\\t{{.CreatedAt}}"), "ID        CREATED AT\n1         now\n2         then\n");
        assert_eq!(list("table {{.ID}}", &[] as &[Value]).unwrap(), "");
        assert!(list("{{.Absent}}", &lines).is_err());
    }

    #[test]
    fn paths_are_followed() {
        let value = json!({"State": {"Pid": 7, "Status": "running"}, "List": ["a"]});
        assert_eq!(fill("pid={{.State.Pid}} {{ .State.Status }}", &value).unwrap(), "pid=7 running");
        assert_eq!(fill("{{json .State.Status}}{{.List.0}}", &value).unwrap(), "\"running\"a");
        assert_eq!(fill("plain", &value).unwrap(), "plain");
        for bad in ["{{.State.Nothing}}", "{{State}}", "{{.State", "{{}}"] {
            assert!(fill(bad, &value).is_err(), "{bad}");
        }
    }
}
