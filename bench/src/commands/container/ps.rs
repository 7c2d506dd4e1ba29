//! `isobench container ps`.

use super::filter::{self, Filter};
use super::listing;
use crate::commands::{Status, output, template};
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
    /// Those alone of which this is true: name, id, status, exited, network or ancestor, such as name=web or status=exited
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = Filter::of)]
    filter: Vec<Filter>,
    /// Only so many that were made last, also of those that do not run
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only the one that was made last, also where it does not run
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// The shape: `table`, `json` (an object a line), or a template such as '{{.Names}} {{.Status}}', also after `table `
    #[arg(long, default_value = "table")]
    format: String,
}

/// One line, with Docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    image: &'a str,
    command: String,
    created_at: &'a str,
    running_for: String,
    state: &'static str,
    status: String,
    ports: String,
    names: &'a str,
    networks: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let last = if arguments.latest { Some(1) } else { arguments.last };
    let also_ended = arguments.all || last.is_some() || filter::names_a_status(&arguments.filter);
    let mut shown = Store::of(kind)?.list()?;
    shown.retain(|one| also_ended || one.state.status.is_alive());
    shown.retain(|one| filter::let_pass(&arguments.filter, one));
    shown.truncate(last.unwrap_or(usize::MAX));
    let shorten = !arguments.no_trunc;
    let text = match (arguments.quiet, arguments.format.as_str()) {
        (true, _) => shown.iter().map(|one| format!("{}\n", id(one, shorten))).collect(),
        (false, "table") => table(&shown, shorten, kind),
        (false, format) => {
            let shorten = shorten && format != "json";
            template::list(format, &shown.iter().map(|one| line(one, shorten)).collect::<Vec<_>>())?
        }
    };
    output::print(&text)?;
    Ok(Status::Success)
}

fn table(shown: &[Container], shorten: bool, kind: Kind) -> String {
    let id_label = format!("{} ID", kind.label());
    let head = [&id_label, "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"].map(String::from);
    let rows = shown.iter().map(|one| {
        let Line { id, image, command, running_for, status, ports, names, .. } = line(one, shorten);
        vec![id.into(), image.into(), command, running_for, status, ports, names.into()]
    });
    listing::table(&std::iter::once(head.to_vec()).chain(rows).collect::<Vec<_>>())
}

fn id(container: &Container, shorten: bool) -> &str {
    if shorten { container.request.short_id() } else { &container.request.id }
}

fn line(container: &Container, shorten: bool) -> Line<'_> {
    let networks: Vec<_> = container.state.places.iter().map(|place| place.network.as_str()).collect();
    Line {
        id: id(container, shorten),
        image: &container.request.root,
        command: command(container, shorten),
        created_at: &container.request.created,
        running_for: format!("{} ago", listing::duration(listing::since(&container.request.created))),
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
