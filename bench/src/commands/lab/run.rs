//! `isobench lab run`.

use super::{BadInput, Status, measuring, named};
use crate::labs::record::{LabError, Place};

/// Measure what a lab asks for, on this machine
///
/// The experiments of the lab's claims, in the sandboxes that they compare, with the seed of your record. It takes a few
/// minutes; after Ctrl-C, the same command goes on.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  isobench lab run bridge\n  isobench lab run bridge --again")]
pub(super) struct Arguments {
    /// The lab
    lab: String,
    /// Measure once more and forget what was measured before; the record counts how often
    #[arg(long)]
    again: bool,
    /// How many blocks, in place of the lab's number; below six there is no interval
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: Option<u32>,
    /// Language of the report: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let lab = named(&arguments.lab)?;
    let place = Place::of(lab);
    let record = place.read().map_err(BadInput::from_error)?;
    if record.measured.is_some() && !arguments.again {
        return Err(BadInput::from_error(LabError::MeasuredBefore(lab.id().to_owned())));
    }
    if arguments.again {
        place.forget_run().map_err(BadInput::from_error)?;
    }
    let description = &lab.description;
    let status = measuring::run(measuring::Arguments::of_lab(measuring::LabRun {
        experiments: description.experiments().into_iter().map(str::to_owned).collect(),
        sandboxes: description.sandboxes().into_iter().map(str::to_owned).collect(),
        blocks: arguments.reps.unwrap_or(description.blocks),
        seed: u64::from(record.seed),
        directory: place.run(),
        resume: place.has_run(),
        language: arguments.lang,
    }))?;
    if status == Status::Success {
        place.measured(record).map_err(BadInput::from_error)?;
    }
    Ok(status)
}
