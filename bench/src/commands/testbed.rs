//! `isobench testbed`.

use super::place::{self, DEFAULT};
use super::{BadInput, Status, output};
use crate::home;
use crate::roots::toolbox;
use crate::testbed::enter::{self, Target};
use crate::testbed::kept;
use crate::testbed::record::{self, Record};
use crate::testbed::view::LinkView;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

/// Make, show, enter and remove a simulated host with its outside client
///
/// A testbed is a machine of its own inside this one: its network, mounts, processes and host name are private, and nothing in
/// it touches the links or the firewall of this machine. `isobench container` and `isobench network` work in the testbed
/// `default` where none is named; it is made when it is first needed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench testbed create lab             a simulated host, 198.51.100.1, and its outside client, 198.51.100.2
  isobench testbed enter lab              a shell on the host
  isobench testbed enter lab ip addr      one command on the host
  isobench testbed enter lab/client ping -c 1 198.51.100.1
  isobench testbed inspect lab            its links, addresses and processes
  isobench testbed create pair --second-host
  isobench testbed enter pair/two ping -c 1 192.0.2.1
  isobench testbed rm lab                 end it with all that runs in it";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    Ls(List),
    Inspect(Inspect),
    Enter(Enter),
    Rm(Remove),
}

/// Make a testbed and keep it until it is removed
#[derive(Debug, clap::Args)]
struct Create {
    /// Its name
    #[arg(default_value = DEFAULT)]
    name: Target,
    /// Make a second host too, NAME/two, joined to the first one by a link called `wire`
    ///
    /// It has the address 203.0.113.1 towards an outside client of its own, and 192.0.2.2 on the wire, at whose other end the
    /// first host is 192.0.2.1.
    #[arg(long)]
    second_host: bool,
}

/// List the testbeds
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show a testbed's hosts with their links, addresses and processes
#[derive(Debug, clap::Args)]
struct Inspect {
    /// Its name
    #[arg(default_value = DEFAULT)]
    name: Target,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Run a command in a testbed, or a shell; its exit status is the command's
///
/// The files are this machine's but for /proc and /run, and the working directory stays where it can. Programs that the machine
/// lacks are taken from the toolbox, where one was built: see `isobench toolbox`.
#[derive(Debug, clap::Args)]
struct Enter {
    /// Where: NAME, NAME/two, NAME/client or NAME/two/client
    #[arg(default_value = DEFAULT)]
    place: Target,
    /// The command with its arguments; a shell where there is none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// End a testbed with all that runs in it
#[derive(Debug, clap::Args)]
#[command(visible_alias = "remove")]
struct Remove {
    /// Their names
    #[arg(default_value = DEFAULT)]
    names: Vec<Target>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::Enter(arguments) => return enter(arguments),
        _ if home::inside().is_some() => {
            let here = home::inside().unwrap_or_default();
            return Err(BadInput(format!("this is inside the testbed {here}: leave it first")).into());
        }
        Command::Create(arguments) => create(arguments)?,
        Command::Ls(arguments) => list(&arguments)?,
        Command::Inspect(arguments) => inspect(&arguments)?,
        Command::Rm(arguments) => remove(&arguments)?,
    }
    Ok(Status::Success)
}

/// A testbed as a whole is meant.
fn whole(target: &Target) -> anyhow::Result<String> {
    if target.second || target.client {
        let sentence = format!("`{target}` is a part of the testbed `{}`: name the testbed", target.testbed);
        return Err(BadInput(sentence).into());
    }
    Ok(target.testbed.clone())
}

fn create(arguments: Create) -> anyhow::Result<()> {
    let name = whole(&arguments.name)?;
    let (record, made) = kept::make(&kept::Request { name, second: arguments.second_host })?;
    if !made {
        let sentence =
            format!("there is a testbed `{0}` already: give another name, or `isobench testbed rm {0}`", record.name);
        return Err(BadInput(sentence).into());
    }
    output::print(&format!("{}\n", record.name))
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    created: &'a str,
    rootless: bool,
    hosts: Vec<&'a str>,
}

fn list(arguments: &List) -> anyhow::Result<()> {
    let records = record::all();
    if arguments.json {
        let entry = |record: &'_ record::Record| -> serde_json::Value {
            let hosts = record.hosts.iter().map(|host| host.name.as_str()).collect();
            serde_json::json!(Entry { name: &record.name, created: &record.created, rootless: record.rootless, hosts })
        };
        return output::print_json(&records.iter().map(entry).collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| vec![record.name.clone(), record.created.clone(), hosts(record.hosts.len()).to_owned()])
        .collect();
    output::print(&output::table(&rows))
}

fn hosts(count: usize) -> &'static str {
    if count > 1 { "two hosts" } else { "one host" }
}

/// What `inspect` shows.
#[derive(Serialize)]
struct Inspection {
    name: String,
    created: String,
    rootless: bool,
    /// The state directory of each host, seen from inside.
    state: &'static str,
    /// The group that all of it is below, in each hierarchy of control groups that could have one.
    control_groups: Vec<PathBuf>,
    parts: Vec<Part>,
}

/// A host or an outside client.
#[derive(Serialize)]
struct Part {
    /// As `testbed enter` knows it.
    name: String,
    /// Number of its first process on this machine; a client has none.
    pid: Option<i32>,
    links: Vec<LinkView>,
}

fn inspect(arguments: &Inspect) -> anyhow::Result<()> {
    whole(&arguments.name)?;
    let record = place::there(&arguments.name, false)?;
    let control_groups = record.groups.paths();
    let links = enter::join(&arguments.name, &record)?.links()?;
    let pid = |name: &str| record.hosts.iter().find(|host| host.name == name)?.pid().map(|pid| pid.as_raw_pid());
    let part = |(part, links)| {
        let name = format!("{}{part}", record.name);
        Part { pid: pid(&name), name, links }
    };
    let parts = links.into_iter().map(part).collect();
    let Record { name, created, rootless, .. } = record.clone();
    let inspection = Inspection { name, created, rootless, state: home::INSIDE, control_groups, parts };
    if arguments.json { output::print_json(&inspection) } else { output::print(&text(&inspection)) }
}

fn text(inspection: &Inspection) -> String {
    let user = if inspection.rootless { ", by an ordinary user" } else { "" };
    let mut text = format!("made {}{user}; state in {} inside\n", inspection.created, inspection.state);
    if inspection.control_groups.is_empty() {
        text += "without control groups: this user may make none here\n";
    }
    for part in &inspection.parts {
        let process = part.pid.map_or("outside client".to_owned(), |pid| format!("process {pid}"));
        text += &format!("\n{}{process}\n", output::heading(&part.name).trim_end().to_owned() + ", ");
        let row = |link: &LinkView| {
            let state = if link.up { "up" } else { "down" };
            vec![link.name.clone(), state.to_owned(), link.mac.clone(), link.addresses.join(" ")]
        };
        text += &output::table(&part.links.iter().map(row).collect::<Vec<_>>());
    }
    text
}

fn enter(arguments: Enter) -> anyhow::Result<Status> {
    let target = arguments.place;
    let record = place::there(&target, target.testbed == DEFAULT)?;
    let shell = || vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let words = if arguments.command.is_empty() { shell() } else { arguments.command };
    // For a machine without ip, nft and their like.
    let toolbox = toolbox::find().map(|toolbox| toolbox::programs_for_outside(&toolbox));
    enter::join(&target, &record)?.program(words, toolbox.as_slice())
}

fn remove(arguments: &Remove) -> anyhow::Result<()> {
    for target in &arguments.names {
        let name = whole(target)?;
        if !kept::remove(&name)? {
            return Err(BadInput(format!("there is no testbed `{name}`: `isobench testbed ls` lists them")).into());
        }
        output::print(&format!("{name}\n"))?;
    }
    Ok(())
}
