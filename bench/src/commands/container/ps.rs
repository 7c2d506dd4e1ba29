//! `isobench container ps`.

use super::listing;
use crate::commands::{Status, output};
use crate::instances::{Container, Kind, Store};
use serde::Serialize;

/// List containers
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// All, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Only their ids
    #[arg(short, long)]
    quiet: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// The shape: a table, or one JSON object a line
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    format: String,
}

/// One line of `--format json`, with Docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    image: &'a str,
    command: String,
    created_at: &'a str,
    state: &'static str,
    status: String,
    ports: String,
    names: &'a str,
    networks: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let all = Store::of(kind)?.list()?;
    let shown: Vec<_> = all.iter().filter(|one| arguments.all || one.state.status.is_alive()).collect();
    let id = |one: &Container| {
        if arguments.no_trunc { one.request.id.clone() } else { one.request.short_id().to_owned() }
    };
    let text: String = match (arguments.quiet, arguments.format.as_str()) {
        (true, _) => shown.iter().map(|one| id(one) + "\n").collect(),
        (false, "json") => {
            let lines = shown.iter().map(|one| Ok(serde_json::to_string(&line(one))? + "\n"));
            lines.collect::<anyhow::Result<_>>()?
        }
        _ => {
            let id_label = format!("{} ID", kind.label());
            let head = [&id_label, "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"].map(String::from);
            let rows = shown.iter().map(|one| {
                let command = command(one, !arguments.no_trunc);
                let created = format!("{} ago", listing::duration(listing::since(&one.request.created)));
                let ports = listing::ports(&one.state.ports);
                vec![id(one), one.request.root.clone(), command, created, listing::status(one), ports, one.name.clone()]
            });
            listing::table(&std::iter::once(head.to_vec()).chain(rows).collect::<Vec<_>>())
        }
    };
    output::print(&text)?;
    Ok(Status::Success)
}

fn line(container: &Container) -> Line<'_> {
    let networks: Vec<_> = container.state.places.iter().map(|place| place.network.as_str()).collect();
    Line {
        id: &container.request.id,
        image: &container.request.root,
        command: command(container, false),
        created_at: &container.request.created,
        state: container.state.status.name(),
        status: listing::status(container),
        ports: listing::ports(&container.state.ports),
        names: &container.name,
        networks: if networks.is_empty() { container.request.network.to_string() } else { networks.join(",") },
    }
}

/// In quotation marks, as Docker shows it.
fn command(container: &Container, shorten: bool) -> String {
    const LONGEST: usize = 20;
    let mut command = container.request.command.join(" ");
    if shorten && command.chars().count() > LONGEST {
        command = command.chars().take(LONGEST - 1).chain(['…']).collect();
    }
    format!("\"{}\"", command.escape_debug())
}
