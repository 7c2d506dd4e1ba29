//! The part of Docker's `--format` that is a path into the answer: `{{.State.Pid}}`, `{{json .Config}}`, and text around it.

use crate::instances::refuse;
use serde_json::Value;

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
            None => return refuse(format!("--format {template}: there is no `{name}` in .{path}")),
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
