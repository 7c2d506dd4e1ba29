//! The lines of the protocol: a request becomes a value of [`Request`] or a [`Failure`], and an answer a line.

use super::once::Once;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The protocol's version, which every request names. Within a version, requests and fields are only added.
pub const VERSION: u64 = 1;

/// Longest request, in bytes, with its end of line.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// As much of a client's own words as an answer repeats, in letters.
const LONGEST_QUOTE: usize = 80;

/// What can be asked of a monitor.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// What the machine is and how it is doing.
    Describe,
    /// What the guest is, as a snapshot of it would say.
    Guest,
    /// Take this configuration of a guest that is not started yet.
    Create(Value),
    /// Start the guest.
    Start,
    /// Let no processor of the guest go on.
    Pause,
    /// Let a paused guest go on.
    Resume,
    /// Tell the balloon's state, after it was given a target where there is one, in bytes.
    Balloon(Option<u64>),
    /// Write memory and state into the two files whose descriptors come with the request; the guest stays paused afterwards where it is to.
    Snapshot {
        /// Whether it stays paused.
        stay: bool,
    },
    /// End the guest and the monitor.
    Stop,
}

/// What kind of error it is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum FailureKind {
    /// The line is no JSON object, or not that of a request.
    Malformed,
    /// The line is longer than [`LONGEST_REQUEST`].
    TooLong,
    /// The request is of another version than [`VERSION`].
    Version,
    /// There is no such request.
    UnknownRequest,
    /// The request's arguments are not what it takes.
    Arguments,
    /// The machine is not in a state for that.
    State,
    /// The machine has not what it takes, or cannot do that.
    Unsupported,
    /// It was tried and did not succeed.
    Failed,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// What kind of error it is.
    pub kind: FailureKind,
    /// One sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind, in these words.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The name that a client has given to a request, a text or a number; the answer repeats it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Id(Option<Value>);

/// Reads a request, without its end of line.
pub fn read(line: &[u8]) -> (Id, Result<Request, Failure>) {
    let malformed = |message: String| Failure::new(FailureKind::Malformed, message);
    let mut fields = match serde_json::from_slice(line) {
        Ok(Once(Value::Object(fields))) => fields,
        Ok(_) => return (Id(None), Err(malformed("a request is a JSON object".into()))),
        Err(error) => return (Id(None), Err(malformed(format!("the request is no JSON: {error}")))),
    };
    let id = match fields.remove("id") {
        None => Id(None),
        Some(id @ (Value::String(_) | Value::Number(_))) => Id(Some(id)),
        Some(_) => return (Id(None), Err(malformed("the request's `id` is neither a text nor a number".into()))),
    };
    (id, request(fields))
}

fn request(mut fields: Map<String, Value>) -> Result<Request, Failure> {
    let malformed = |message: &str| Failure::new(FailureKind::Malformed, message);
    match fields.remove("version") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(version) => {
            let message = format!("the request is of version {}, and this is version {VERSION}", quoted(&version));
            return Err(Failure::new(FailureKind::Version, message));
        }
        None => return Err(malformed("the request has no `version`")),
    }
    let Some(Value::String(name)) = fields.remove("request") else {
        return Err(malformed("the request has no `request` that is a text"));
    };
    let arguments = match fields.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(malformed("the request's `arguments` are no object")),
    };
    if let Some(field) = fields.keys().next() {
        let field = quoted(&Value::String(field.clone()));
        return Err(malformed(&format!("a request has no field {field}, but `version`, `id`, `request`, `arguments`")));
    }
    named(&name, arguments)
}

fn named(name: &str, mut arguments: Map<String, Value>) -> Result<Request, Failure> {
    let wrong = |message: String| Failure::new(FailureKind::Arguments, message);
    let request = match name {
        "describe" => Request::Describe,
        "guest" => Request::Guest,
        "create" => Request::Create(Value::Object(std::mem::take(&mut arguments))),
        "start" => Request::Start,
        "pause" => Request::Pause,
        "resume" => Request::Resume,
        "stop" => Request::Stop,
        "balloon" => match arguments.remove("target") {
            None => Request::Balloon(None),
            Some(target) => Request::Balloon(Some(
                target.as_u64().ok_or_else(|| wrong(format!("`target`: {} is no number of bytes", quoted(&target))))?,
            )),
        },
        "snapshot" => match arguments.remove("stay") {
            None => Request::Snapshot { stay: false },
            Some(Value::Bool(stay)) => Request::Snapshot { stay },
            Some(other) => return Err(wrong(format!("`stay`: {} is neither true nor false", quoted(&other)))),
        },
        _ => {
            let message = format!("there is no request {}", quoted(&Value::String(name.into())));
            return Err(Failure::new(FailureKind::UnknownRequest, message));
        }
    };
    match arguments.keys().next() {
        None => Ok(request),
        Some(field) => {
            let field = quoted(&Value::String(field.clone()));
            Err(wrong(format!("the request `{name}` has no argument {field}")))
        }
    }
}

/// A client's own words, in bounds: as JSON, which has no control characters and no line's end.
fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// The line of a request.
pub fn request_line(request: &Request) -> String {
    let (name, arguments) = match request {
        Request::Describe => ("describe", Value::Null),
        Request::Guest => ("guest", Value::Null),
        Request::Create(configuration) => ("create", configuration.clone()),
        Request::Start => ("start", Value::Null),
        Request::Pause => ("pause", Value::Null),
        Request::Resume => ("resume", Value::Null),
        Request::Balloon(None) => ("balloon", Value::Null),
        Request::Balloon(Some(target)) => ("balloon", json!({ "target": target })),
        Request::Snapshot { stay } => ("snapshot", json!({ "stay": stay })),
        Request::Stop => ("stop", Value::Null),
    };
    let mut line = json!({ "version": VERSION, "request": name });
    if !arguments.is_null() {
        line["arguments"] = arguments;
    }
    format!("{line}\n")
}

/// The line of an answer.
pub fn answer_line(id: &Id, answer: &Result<Value, Failure>) -> String {
    let mut line = match answer {
        Ok(result) => json!({ "result": result }),
        Err(failure) => json!({ "error": failure }),
    };
    if let Id(Some(id)) = id {
        line["id"] = id.clone();
    }
    format!("{line}\n")
}

/// What an answer's line says.
pub(super) fn read_answer<A: serde::de::DeserializeOwned>(line: &str) -> serde_json::Result<Result<A, Failure>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Answer<A> {
        Result(A),
        Error(Failure),
    }
    serde_json::from_str(line).map(|answer| match answer {
        Answer::Result(result) => Ok(result),
        Answer::Error(failure) => Err(failure),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(line: &str) -> Failure {
        read(line.as_bytes()).1.unwrap_err()
    }

    #[test]
    fn every_request_is_read_as_it_is_written() {
        for request in [
            Request::Describe,
            Request::Guest,
            Request::Create(json!({"unikernel": {"workload": "idle"}})),
            Request::Start,
            Request::Pause,
            Request::Resume,
            Request::Balloon(None),
            Request::Balloon(Some(1 << 40)),
            Request::Snapshot { stay: true },
            Request::Stop,
        ] {
            assert_eq!(read(request_line(&request).as_bytes()), (Id(None), Ok(request)));
        }
    }

    #[test]
    fn what_is_no_request_is_told_by_kind_and_in_words() {
        for (line, kind, words) in [
            ("", FailureKind::Malformed, "the request is no JSON"),
            ("{\"version\":1,\"requ", FailureKind::Malformed, "EOF while parsing"),
            ("[]", FailureKind::Malformed, "a request is a JSON object"),
            (
                "{\"version\":1,\"request\":\"describe\",\"request\":\"stop\"}",
                FailureKind::Malformed,
                "a field is there twice",
            ),
            ("{\"request\":\"stop\"}", FailureKind::Malformed, "has no `version`"),
            (
                "{\"version\":2,\"request\":7,\"more\":1}",
                FailureKind::Version,
                "is of version 2, and this is version 1",
            ),
            ("{\"version\":1}", FailureKind::Malformed, "has no `request`"),
            ("{\"version\":1,\"request\":\"stop\",\"now\":1}", FailureKind::Malformed, "has no field \"now\""),
            ("{\"version\":1,\"request\":\"stop\",\"arguments\":[]}", FailureKind::Malformed, "are no object"),
            ("{\"version\":1,\"id\":{},\"request\":\"stop\"}", FailureKind::Malformed, "`id` is neither"),
            ("{\"version\":1,\"request\":\"dance\"}", FailureKind::UnknownRequest, "there is no request \"dance\""),
            (
                "{\"version\":1,\"request\":\"balloon\",\"arguments\":{\"target\":-1}}",
                FailureKind::Arguments,
                "-1 is no number of bytes",
            ),
            (
                "{\"version\":1,\"request\":\"stop\",\"arguments\":{\"force\":true}}",
                FailureKind::Arguments,
                "the request `stop` has no argument \"force\"",
            ),
        ] {
            let failure = failed(line);
            assert!(failure.kind == kind && failure.message.contains(words), "{line}: {failure:?}");
        }
    }

    #[test]
    fn a_long_name_is_not_repeated_and_brings_no_line_to_its_end() {
        let line = json!({"version": 1, "id": "a", "request": "x\n".repeat(10_000)}).to_string();
        let (id, request) = read(line.as_bytes());
        let answer = answer_line(&id, &request.map(|_| Value::Null));
        assert!(answer.len() < 300 && answer.trim_end().lines().count() == 1, "{answer}");
        assert!(answer.contains("\"id\":\"a\""), "{answer}");
    }

    #[test]
    fn a_deep_line_is_refused() {
        let failure = failed(&"[".repeat(10_000));
        assert!(failure.message.contains("recursion limit"), "{failure:?}");
    }
}
