//! `isobench container stats`.

use super::listing;
use crate::commands::{Status, output, template};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Container, Kind, Store, attach, processes, refuse};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Show what containers use
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// The shape: `table`, `json` (an object a line), or a template such as '{{.Name}} {{.MemUsage}}', also after `table `
    #[arg(long, default_value = "table")]
    format: String,
    /// Their names or ids; all that run where none is given
    #[arg(value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

/// How long one look at the processor's use takes, and how often the table is renewed.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a container uses now.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    cpu: u64,
    memory: u64,
    pids: u64,
    received: u64,
    sent: u64,
    /// Read from storage and written to it, where that is counted.
    storage: Option<(u64, u64)>,
}

/// One line, with Docker's names.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "CPUPerc")]
    cpu: String,
    #[serde(rename = "MemUsage")]
    memory: String,
    #[serde(rename = "MemPerc")]
    memory_share: String,
    #[serde(rename = "NetIO")]
    network: String,
    #[serde(rename = "BlockIO")]
    storage: String,
    #[serde(rename = "PIDs")]
    pids: String,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    // Named ones must be there.
    for name in &arguments.names {
        let container = store.find(name)?;
        if !container.state.status.is_alive() {
            return refuse(format!("the {} is not running", container.title()));
        }
    }
    let mut before = look(&store, &arguments.names)?;
    loop {
        // The one wait of this command: processor time is a difference between two looks.
        std::thread::sleep(INTERVAL);
        let now = look(&store, &arguments.names)?;
        show(&lines(&before, &now), &arguments, kind)?;
        if arguments.no_stream || (now.is_empty() && !arguments.names.is_empty()) {
            return Ok(Status::Success);
        }
        before = now;
    }
}

fn look(store: &Store, names: &[String]) -> anyhow::Result<Vec<(Container, Sample)>> {
    let asked = |one: &Container| {
        one.state.status.is_alive()
            && (names.is_empty() || names.iter().any(|name| one.name == *name || one.request.id.starts_with(name)))
    };
    let running = store.list()?.into_iter().filter(asked);
    // One that has just ended has no sample.
    Ok(running.filter_map(|one| sample(&one).map(|sample| (one, sample))).collect())
}

fn sample(container: &Container) -> Option<Sample> {
    let Ok(Answer::Statistics { memory, cpu, pids }) = attach::ask(container, &Order::Statistics) else { return None };
    // What no control group counts is added up over the processes.
    let first = container.state.pid();
    let (processes, (received, sent)) = match container.request.kind() {
        Kind::Container => (processes::of_container(first), traffic(first)),
        Kind::Machine => (processes::one(first), traffic_of_link(container.state.link.as_deref())),
    };
    Some(Sample {
        at: Instant::now(),
        cpu: cpu.unwrap_or_else(|| processes.iter().map(|process| process.used).sum()),
        memory: memory.unwrap_or_else(|| processes.iter().map(|process| process.memory).sum()),
        pids: pids.unwrap_or_else(|| processes.iter().map(|process| process.threads).sum()),
        received,
        sent,
        storage: storage(processes.iter().map(|process| process.pid)),
    })
}

/// What all of them have read from storage and written to it, with what those of their children had that have ended.
fn storage(processes: impl Iterator<Item = i32>) -> Option<(u64, u64)> {
    processes
        .filter_map(processes::storage)
        .reduce(|(read, written), (more_read, more_written)| (read + more_read, written + more_written))
}

/// Bytes received and sent by all links but `lo`.
fn traffic(process: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{process}/net/dev")).unwrap_or_default();
    parse_traffic(&text, |name| name != "lo")
}

/// What a virtual machine has received and sent by its link, of which this host has the other side.
fn traffic_of_link(link: Option<&str>) -> (u64, u64) {
    let Some(link) = link else { return (0, 0) };
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let (received, sent) = parse_traffic(&text, |name| name == link);
    (sent, received)
}

fn parse_traffic(text: &str, wanted: impl Fn(&str) -> bool) -> (u64, u64) {
    let links = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| wanted(name.trim()));
    let counted = links.map(|(_, counts)| {
        let counts: Vec<u64> = counts.split_ascii_whitespace().map(|count| count.parse().unwrap_or(0)).collect();
        (counts.first().copied().unwrap_or(0), counts.get(8).copied().unwrap_or(0))
    });
    counted.fold((0, 0), |(received, sent), (more_received, more_sent)| (received + more_received, sent + more_sent))
}

fn lines(before: &[(Container, Sample)], now: &[(Container, Sample)]) -> Vec<Line> {
    let machine = rustix::system::sysinfo();
    let machine = u64::from(machine.mem_unit) * machine.totalram;
    let line = |(container, sample): &(Container, Sample)| {
        let earlier = before.iter().find(|(earlier, _)| earlier.request.id == container.request.id)?.1;
        let elapsed = sample.at.duration_since(earlier.at).as_nanos().max(1) as f64;
        let guest = container.request.machine.as_ref().map(|machine| machine.memory);
        let limit = guest.or(container.request.limits.memory).unwrap_or(machine).max(1);
        Some(Line {
            id: container.request.short_id().to_owned(),
            name: container.name.clone(),
            cpu: format!("{:.2}%", sample.cpu.saturating_sub(earlier.cpu) as f64 / elapsed * 100.0),
            memory: format!("{} / {}", listing::binary(sample.memory), listing::binary(limit)),
            memory_share: format!("{:.2}%", sample.memory as f64 / limit as f64 * 100.0),
            network: format!("{} / {}", listing::decimal(sample.received), listing::decimal(sample.sent)),
            storage: sample.storage.map_or_else(
                || "-- / --".into(),
                |(read, written)| format!("{} / {}", listing::decimal(read), listing::decimal(written)),
            ),
            pids: sample.pids.to_string(),
        })
    };
    now.iter().filter_map(line).collect()
}

fn show(lines: &[Line], arguments: &Arguments, kind: Kind) -> anyhow::Result<()> {
    if arguments.format != "table" {
        return output::print(&template::list(&arguments.format, lines)?);
    }
    let id = format!("{} ID", kind.label());
    let head = [&id, "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"].map(String::from);
    let rows = lines.iter().map(|line| {
        let Line { id, name, cpu, memory, memory_share, network, storage, pids } = line;
        [id, name, cpu, memory, memory_share, network, storage, pids].map(Clone::clone).to_vec()
    });
    let table = listing::table(&std::iter::once(head.to_vec()).chain(rows).collect::<Vec<_>>());
    // A terminal is cleared, so that the table stands still.
    let clear = if arguments.no_stream || !std::io::stdout().is_terminal() { "" } else { "\x1b[2J\x1b[H" };
    output::print(&format!("{clear}{table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_links_but_lo() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 50 3 0 0 0 0 0 0\n";
        assert_eq!(parse_traffic(text, |name| name != "lo"), (100, 50));
    }
}
