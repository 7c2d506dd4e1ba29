//! `isobench vm`: virtual machines by the words of `isobench container`.

mod kernel;

use super::Status;
pub(super) use kernel::completer as kernel_completer;

/// Run virtual machines and look after them and their kernels
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isobench vm kernel fetch             the distribution's kernel for guests; nothing is installed
  isobench vm kernel ls";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Kernel(kernel::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    match arguments.command {
        Command::Kernel(arguments) => kernel::run(arguments),
    }
}
