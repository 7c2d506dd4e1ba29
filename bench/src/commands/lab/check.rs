//! `isobench lab check`.

use super::super::language;
use super::{BadInput, Status, named, output};
use crate::labs::check::{self, CheckRecord};
use crate::labs::record::Place;
use crate::labs::words::{self, either};
use crate::labs::{Lab, wording};
use isobench_reports::claims;
use isobench_reports::messages::{Language, Messages};
use isobench_reports::render::words::wording as claim_wording;
use std::path::Path;

/// Compare your prediction with what was measured, and write the file to hand in
///
/// It looks through the records for what the sheet says, and tells what they support and what is missing. Prose is not
/// looked at: that is your teacher's.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  isobench lab check bridge\n  isobench lab check bridge --json")]
pub(super) struct Arguments {
    /// The lab
    lab: String,
    /// Language: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
    /// Print the file to hand in
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let language = language(arguments.lang.as_deref())?;
    let lab = named(&arguments.lab)?;
    let place = Place::of(lab);
    let mut check = check::check(lab, &place).map_err(BadInput::from_error)?;
    let path = check::write(&place, &mut check).map_err(BadInput::from_error)?;
    if arguments.json {
        output::print_json(&check)?;
    } else {
        output::print(&text(lab, &check, &path, language))?;
    }
    Ok(Status::Success)
}

fn text(lab: &Lab, check: &CheckRecord, path: &Path, language: Language) -> String {
    let mut text = output::heading(wording(&lab.description.prediction.ask, language));
    let mut rows = vec![
        vec![either(language, "predicted", "预测").to_owned(), words::answer(language, &check.prediction)],
        vec![either(language, "measured", "测量").to_owned(), words::measured(language, check)],
    ];
    if let Some(comparison) = &check.comparison {
        rows.push(vec![String::new(), words::comparison(language, &check.prediction, comparison)]);
    }
    text += &output::table(&rows);
    text += "\n";
    text += &output::heading(either(language, "What your records show", "你的记录显示"));
    let rows: Vec<Vec<String>> = lab
        .description
        .observations
        .iter()
        .zip(&check.observations)
        .map(|(observation, result)| {
            let evidence = words::evidence(language, result.evidence).to_owned();
            vec![evidence, wording(&observation.text, language).to_owned()]
        })
        .collect();
    text += &output::table(&rows);
    text += "\n";
    text += &output::heading(either(language, "The claims on this machine", "各论断在这台机器上的结论"));
    let messages = Messages::new(language);
    let rows: Vec<Vec<String>> = check
        .verdicts
        .iter()
        .map(|verdict| {
            let answer = messages.named("answer-", &verdict.answer);
            let wording = claims::find(&verdict.claim).map_or("", |claim| claim_wording(claim, language));
            vec![verdict.claim.clone(), answer, wording.to_owned()]
        })
        .collect();
    text += &output::table(&rows);
    let path = path.display();
    text += &match language {
        Language::English => format!("\nHand in {path}, with your answers to the questions.\n"),
        Language::Chinese => format!("\n请上交 {path}，并附上各思考题的回答。\n"),
    };
    text
}
