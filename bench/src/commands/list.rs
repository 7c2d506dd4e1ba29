//! `isobench list`.

use super::{Status, output};
use crate::experiments;
use crate::journal::Journal;
use crate::sandboxes::KINDS;
use crate::testbed::Settings;
use crate::testbeds::Testbeds;
use isobench_reports::claims;
use isobench_reports::record::SandboxRecord;
use serde::Serialize;
use std::collections::BTreeMap;

/// Show the experiments, the sandboxes and whether they can be measured here, and the claims
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    experiments: Vec<ExperimentEntry>,
    sandboxes: Vec<SandboxRecord>,
    claims: Vec<ClaimEntry>,
}

#[derive(Serialize)]
struct ExperimentEntry {
    name: &'static str,
    text: &'static str,
    quick_blocks: u32,
    takes_program: bool,
    metrics: Vec<&'static str>,
}

#[derive(Serialize)]
struct ClaimEntry {
    id: String,
    kind: &'static str,
    wording: String,
    experiments: Vec<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let listing = Listing { experiments: experiments(), sandboxes: sandboxes(), claims: claims() };
    if arguments.json {
        output::print_json(&listing)?;
    } else {
        output::print(&text(&listing))?;
    }
    Ok(Status::Success)
}

fn experiments() -> Vec<ExperimentEntry> {
    let all = experiments::all().iter();
    all.map(|experiment| ExperimentEntry {
        name: experiment.name,
        text: experiment.text,
        quick_blocks: experiment.quick_blocks,
        takes_program: experiment.takes_program,
        metrics: experiment.metrics.to_vec(),
    })
    .collect()
}

/// A testbed knows what it offers; where none can be made, nothing can be measured, for the reason that it gives.
fn sandboxes() -> Vec<SandboxRecord> {
    let started = Journal::open().map_err(anyhow::Error::from).and_then(|journal| {
        let settings = Settings { run: journal.run().to_owned(), ..Settings::default() };
        Ok((Testbeds::start(&settings, &journal, |_| true)?, journal))
    });
    let reason = match started {
        Ok((testbed, journal)) => {
            let sandboxes = testbed.sandboxes().to_vec();
            let stopped = testbed.stop();
            journal.close();
            match stopped {
                Ok(()) => return sandboxes,
                Err(error) => format!("the testbed does not end: {error:#}"),
            }
        }
        Err(error) => format!("no testbed can be made here: {error:#}"),
    };
    let record = |kind: &crate::sandboxes::Kind| SandboxRecord {
        name: kind.name.to_owned(),
        family: kind.family,
        version: None,
        unavailable: Some(reason.clone()),
        emulation: None,
        gaps: BTreeMap::new(),
    };
    KINDS.iter().map(record).collect()
}

fn claims() -> Vec<ClaimEntry> {
    let all = claims::claims().iter();
    all.map(|claim| ClaimEntry {
        id: claim.id.clone(),
        kind: claim.kind.key(),
        wording: claim.wording.en.clone(),
        experiments: claim.experiments.clone(),
    })
    .collect()
}

fn text(listing: &Listing) -> String {
    let mut text = output::heading("Experiments");
    let rows: Vec<_> =
        listing.experiments.iter().map(|entry| vec![entry.name.to_owned(), entry.text.to_owned()]).collect();
    text += &output::table(&rows);
    text += "\n";
    text += &output::heading("Sandboxes");
    let rows: Vec<_> = listing.sandboxes.iter().map(|entry| vec![entry.name.clone(), availability(entry)]).collect();
    text += &output::table(&rows);
    text += "\n";
    text += &output::heading("Claims");
    let rows: Vec<_> =
        listing.claims.iter().map(|entry| vec![entry.id.clone(), tested(entry), entry.wording.clone()]).collect();
    text += &output::table(&rows);
    text
}

fn availability(sandbox: &SandboxRecord) -> String {
    let mut text = match &sandbox.unavailable {
        Some(reason) => format!("not measurable here: {reason}"),
        None => "available".to_owned(),
    };
    if let Some(version) = &sandbox.version {
        text += &format!(", {version}");
    }
    if let Some(emulation) = &sandbox.emulation {
        text += &format!(", {emulation}");
    }
    for (experiment, reason) in &sandbox.gaps {
        text += &format!(", but not in {experiment}: {reason}");
    }
    text
}

fn tested(claim: &ClaimEntry) -> String {
    if claim.experiments.is_empty() { "not tested yet".into() } else { claim.experiments.join(", ") }
}
