//! `isobench lab list`.

use super::super::language;
use super::{Status, output};
use crate::labs::record::{LabError, Place};
use crate::labs::words::either;
use crate::labs::{self, Lab, wording};
use isobench_reports::messages::Language;
use serde::Serialize;

/// Show the labs, and how far you are with each
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Language: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How far a student is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    NotStarted,
    Predicted,
    Measured,
    Checked,
    Broken,
}

/// One line of the list.
#[derive(Serialize)]
struct Entry {
    lab: &'static str,
    title: &'static str,
    question: &'static str,
    claims: &'static [String],
    state: State,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let language = language(arguments.lang.as_deref())?;
    let entry = |lab: &'static Lab| Entry {
        lab: lab.id(),
        title: wording(&lab.description.title, language),
        question: wording(&lab.description.question, language),
        claims: &lab.description.claims,
        state: state(&Place::of(lab)),
    };
    let entries: Vec<Entry> = labs::labs().iter().map(entry).collect();
    if arguments.json {
        output::print_json(&entries)?;
    } else {
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| vec![entry.lab.to_owned(), word(entry.state, language).to_owned(), entry.question.to_owned()])
            .collect();
        output::print(&output::table(&rows))?;
    }
    Ok(Status::Success)
}

fn state(place: &Place) -> State {
    match place.read() {
        Err(LabError::NotStarted(_)) => State::NotStarted,
        Err(_) => State::Broken,
        Ok(record) if place.hand_in(&record.student).exists() => State::Checked,
        Ok(record) if record.measured.is_some() => State::Measured,
        Ok(_) => State::Predicted,
    }
}

fn word(state: State, language: Language) -> &'static str {
    match state {
        State::NotStarted => either(language, "not started", "未开始"),
        State::Predicted => either(language, "predicted", "已预测"),
        State::Measured => either(language, "measured", "已测量"),
        State::Checked => either(language, "checked", "已检查"),
        State::Broken => either(language, "record broken", "记录损坏"),
    }
}
