//! `isobench lab start`.

use super::super::language;
use super::{BadInput, Status, named, output};
use crate::labs::prediction::Prediction;
use crate::labs::record::Place;
use crate::labs::wording;
use crate::labs::words::{answer, either};
use anyhow::Context;
use isobench_reports::messages::Language;
use std::io::{BufRead, Write};

/// Begin a lab: write down your prediction
///
/// It asks on the terminal for what is not given. The prediction stands: `run` and `check` compare with it.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  isobench lab start bridge\n  isobench lab start bridge --student 'Lin Mei' --predict '12 us'"
)]
pub(super) struct Arguments {
    /// The lab
    lab: String,
    /// Your name, as your teacher knows it
    #[arg(long, value_name = "NAME")]
    student: Option<String>,
    /// Your prediction, with its unit: `12 us`, `5 %`, `yes`
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    predict: Option<String>,
    /// Seed of the order of measurements; by default another one each time
    #[arg(long)]
    seed: Option<u32>,
    /// Language: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
}

/// Longest name of a student.
const LONGEST: usize = 100;

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let language = language(arguments.lang.as_deref())?;
    let lab = named(&arguments.lab)?;
    let place = Place::of(lab);
    place.expect_not_started().map_err(BadInput::from_error)?;
    let student = match arguments.student {
        Some(name) => name,
        None => ask(either(language, "Your name", "你的姓名"), "--student NAME")?,
    };
    let student = student.trim();
    if student.is_empty() || student.chars().count() > LONGEST || student.contains(char::is_control) {
        return Err(BadInput(format!("`{}` is no name: give 1 to {LONGEST} letters", student.escape_debug())).into());
    }
    let question = wording(&lab.description.prediction.ask, language);
    let typed = match arguments.predict {
        Some(typed) => typed,
        None => ask(question, "--predict VALUE")?,
    };
    let prediction = Prediction::parse(&lab.description, &typed).map_err(|error| BadInput::because(question, error))?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u32(..));
    let record = place.start(student, seed, &typed, prediction).map_err(BadInput::from_error)?;
    let said = answer(language, &record.prediction);
    let directory = place.directory().display();
    output::print(&match language {
        Language::English => format!(
            "Your prediction is written down: {said}\nRecords go to {directory}. Build it by hand now, as the sheet says; then measure with `isobench lab run {}`.\n",
            lab.id()
        ),
        Language::Chinese => format!(
            "你的预测已记下：{said}\n记录保存在 {directory}。现在按实验单亲手搭建一次，然后用 `isobench lab run {}` 测量。\n",
            lab.id()
        ),
    })?;
    Ok(Status::Success)
}

/// Asks for one line.
fn ask(question: &str, option: &str) -> anyhow::Result<String> {
    output::print(&format!("{question}\n> "))?;
    std::io::stdout().flush().context("write to the standard output")?;
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line).context("read from the standard input")?;
    if count == 0 {
        return Err(BadInput(format!("there was no answer: give it with {option}")).into());
    }
    Ok(line.trim().to_owned())
}
