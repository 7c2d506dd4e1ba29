//! `isobench vm run`.

use super::options::Options;
use crate::commands::Status;
use crate::commands::container::run::begin;
use crate::instances::attach::{self, Part};

/// Run a command in a new virtual machine
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do not wait for its end: print its id and go on
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    pub(super) options: Options,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  isobench vm run --rm toolbox ip addr                       one command, nothing is left
  isobench vm run -it --kernel cloud -m 512m toolbox sh      a shell on the distribution's kernel
  isobench vm run -d --name web -p 8080:80 toolbox httpd -f
  isobench vm run -d -p 8080:7000 --unikernel serve          a server without an operating system
  echo one two | isobench vm run --rm -i --network none toolbox wc

The root is never changed: the guest has a copy of it in its memory, which must hold it twice while it begins. Its kernel, its
network card and its root user are its own; it has no volumes, and ends with its command.
A virtual machine has a network card of its own: `--network host` and `--network container:NAME`, which share somebody else's
network, are for containers.";

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { detach, options } = arguments;
    let part = Part { terminal: options.own.tty, input: options.own.interactive && !detach, signals: true };
    attach::check_terminal(part.terminal, part.input)?;
    let (name, request) = options.request(!detach)?;
    begin(&name, &request, part, detach)
}
