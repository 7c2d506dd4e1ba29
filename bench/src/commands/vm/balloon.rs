//! `isobench vm balloon`.

use crate::commands::instance_options::size;
use crate::commands::{Status, output};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Kind, Store, attach};
use isobench_microvm::devices::virtio::balloon::BalloonState;

/// Show or set how much memory a Linux guest is asked to leave unused, and what it tells of its memory
///
/// The guest gives memory up in its own time, and as much as it can do without: run this again to see how far it is. What it has
/// given up is the host's again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How much memory it is to leave unused, such as 64m; 0 gives it all back
    #[arg(long, value_name = "BYTES", value_parser = size)]
    target: Option<u64>,
    /// The shape: a table, or a JSON object with sizes in bytes
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    format: String,
    /// Its name or id
    #[arg(value_name = "VM", add = super::completer_of(Kind::Machine))]
    name: String,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm balloon web
  isobench vm balloon --target 64m web
  isobench vm balloon --target 0 web
  isobench vm balloon --format json web";

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let machine = Store::of(Kind::Machine)?.find(&arguments.name)?;
    if let Answer::Balloon(state) = attach::ask(&machine, &Order::Balloon(arguments.target))? {
        match arguments.format.as_str() {
            "json" => output::print_json(&state)?,
            _ => output::print(&table(&state))?,
        }
    }
    Ok(Status::Success)
}

fn table(state: &BalloonState) -> String {
    let told = &state.statistics;
    let size =
        |bytes: Option<u64>| bytes.map_or("not told".into(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0));
    let count = |number: Option<u64>| number.map_or("not told".into(), |number| number.to_string());
    let rows = [
        ("asked to leave unused", size(Some(state.target))),
        ("leaves unused", size(Some(state.actual))),
        ("memory in all", size(told.total)),
        ("free", size(told.free)),
        ("available without swapping", size(told.available)),
        ("content of files", size(told.caches)),
        ("swapped in", size(told.swapped_in)),
        ("swapped out", size(told.swapped_out)),
        ("major page faults", count(told.major_faults)),
        ("minor page faults", count(told.minor_faults)),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}
