//! The part of Docker's `--format` that is a path into the answer: `{{.State.Pid}}`, `{{json .Config}}`,
//! `{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}`, and text around it.

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
    let mut rest = template;
    Ok(block(&mut rest, Some(value), template, false)? + rest)
}

/// Fills up to the end of the template, or of the `range` whose inside this is. Where there is no value it is only passed over.
fn block(rest: &mut &str, value: Option<&Value>, template: &str, inside: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        text += before;
        let Some((expression, after)) = after.split_once("}}") else {
            return refuse(format!("--format {template}: `{{{{` has no `}}}}`"));
        };
        *rest = after;
        let expression = expression.trim();
        if expression == "end" && inside {
            return Ok(text);
        }
        match (expression.strip_prefix("range "), value) {
            (Some(path), value) => {
                let members = value.map(|value| members(path.trim(), value, template)).transpose()?.unwrap_or_default();
                let begin = *rest;
                if members.is_empty() {
                    block(rest, None, template, true)?;
                }
                for member in members {
                    *rest = begin;
                    text += &block(rest, Some(member), template, true)?;
                }
            }
            (None, Some(value)) => text += &evaluate(expression, value, template)?,
            (None, None) => {}
        }
    }
    if inside {
        return refuse(format!("--format {template}: `range` has no `{{{{end}}}}`"));
    }
    Ok(text)
}

fn members<'a>(path: &str, value: &'a Value, template: &str) -> anyhow::Result<Vec<&'a Value>> {
    match follow(path, value, template)? {
        Value::Array(members) => Ok(members.iter().collect()),
        Value::Object(members) => Ok(members.values().collect()),
        Value::Null => Ok(Vec::new()),
        _ => refuse(format!("--format {template}: `{path}` has no members to range over")),
    }
}

fn evaluate(expression: &str, value: &Value, template: &str) -> anyhow::Result<String> {
    Ok(match expression.strip_prefix("json ") {
        Some(path) => serde_json::to_string(follow(path.trim(), value, template)?)?,
        None => match follow(expression, value, template)? {
            Value::String(text) => text.clone(),
            other => serde_json::to_string(other)?,
        },
    })
}

fn follow<'a>(path: &str, value: &'a Value, template: &str) -> anyhow::Result<&'a Value> {
    let Some(names) = path.strip_prefix('.') else {
        return refuse(format!(
            "--format {template}: `{path}` is no path such as .State.Pid, nor `json` or `range` and a path"
        ));
    };
    let mut found = value;
    for name in names.split('.').filter(|name| !name.is_empty()) {
        let next = found.get(name).or_else(|| found.get(name.parse::<usize>().ok()?));
        match next {
            Some(next) => found = next,
            None => return refuse(format!("--format {template}: there is no `{name}`")),
        }
    }
    Ok(found)
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
        let networks = json!({"Networks": {"a": {"IP": "1", "Names": ["x", "y"]}, "b": {"IP": "2", "Names": []}}});
        let shown = |template: &str| fill(template, &networks).map_err(|error| error.to_string());
        assert_eq!(shown("<{{range .Networks}}{{.IP}} {{end}}>").unwrap(), "<1 2 >");
        assert_eq!(
            shown("{{ range .Networks }}{{.IP}}:{{range .Names}}{{.}},{{end}};{{ end }}").unwrap(),
            "1:x,y,;2:;"
        );
        assert_eq!(shown("{{range .Networks.b.Names}}{{range .Absent}}{{.}}{{end}}{{end}}-").unwrap(), "-");
        assert!(shown("{{range .Networks}}{{.IP}}").unwrap_err().contains("no `{{end}}`"));
        assert!(shown("{{range .Networks.a.IP}}{{end}}").unwrap_err().contains("no members"));
        assert!(shown("{{end}}").unwrap_err().contains("`end` is no path"));
        for bad in ["{{.State.Nothing}}", "{{State}}", "{{.State", "{{}}"] {
            assert!(fill(bad, &value).is_err(), "{bad}");
        }
    }
}
