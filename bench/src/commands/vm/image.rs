//! `isobench vm image`.

use crate::commands::{Status, output};
use crate::kernels::script;

/// Build the disk of a complete distribution for the peer qemu-distribution, and print its directory
///
/// It is this machine's own distribution with systemd, made by debootstrap from where apt gets its packages, with the distribution's
/// kernel for virtual machines. It takes a minute or two, root, and 500 MB in ~/.cache/isobench/distribution. One that is there
/// stays; remove the directory to have another.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: Arguments) -> anyhow::Result<Status> {
    output::print(&format!("{}\n", script::distribution_image()?.display()))?;
    Ok(Status::Success)
}
