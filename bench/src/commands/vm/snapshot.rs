//! `isobench vm snapshot`.

use crate::commands::{Status, output};
use crate::instances::protocol::Order;
use crate::instances::{Kind, Status as State, Store, attach, monitor_socket, refuse};
use crate::journal::{Journal, Kind as JournalKind};
use anyhow::Context;
use isobench_microvm::snapshot::SnapshotError;
use isobench_microvm::snapshot::take::{Afterwards, take_with_note, temporary};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Save a running virtual machine into a directory, from which `vm restore` makes clones
///
/// The guest is paused while its memory is written, and goes on afterwards. The directory is made whole or not at all; it holds the guest's
/// memory, secrets in it included, and is for its owner alone. A Linux guest is saved with all that runs in it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The directory that is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// End the virtual machine once it is saved
    #[arg(long)]
    stop: bool,
    /// Its name or id
    #[arg(value_name = "VM", add = super::completer_of(Kind::Machine))]
    name: String,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm run -d --name web --unikernel serve
  isobench vm snapshot web --out warm
  isobench vm restore warm --clones 3
  isobench vm snapshot --stop guest --out asleep";

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { out, stop, name } = arguments;
    let shown = out.display().to_string();
    let machine = Store::of(Kind::Machine)?.find(&name)?;
    let title = machine.title();
    if machine.state.status != State::Running {
        return refuse(format!("the {title} is {}: only one that runs can be saved", machine.state.status.name()));
    }
    // Of a clone it is told what a further program in it must know.
    let note = serde_json::to_value(&machine.request).context("write down what the virtual machine is")?;
    // By a descriptor, since the path of a socket must be short.
    let directory = File::open(machine.path()).with_context(|| format!("open the directory of the {title}"))?;
    let socket = monitor_socket(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
    // A process that is killed while it writes leaves a directory, of which the journal tells `isobench gc`.
    let out = std::path::absolute(&out).with_context(|| format!("find the place of {}", out.display()))?;
    let journal = Journal::open().context("open the journal")?;
    journal.note(JournalKind::Directory, &temporary(&out)?)?;
    let taken = take_with_note(&socket, &out, if stop { Afterwards::Stay } else { Afterwards::Continue }, Some(note));
    journal.close();
    match taken {
        Ok(_) => {}
        Err(error @ SnapshotError::Exists { .. }) => return refuse(error.to_string()),
        Err(error) => return Err(error).with_context(|| format!("save the {title} into {shown}")),
    }
    if stop {
        attach::ask(&machine, &Order::Signal(rustix::process::Signal::KILL.as_raw()))?;
    }
    output::print(&format!("{shown}\n"))?;
    Ok(Status::Success)
}
