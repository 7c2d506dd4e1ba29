//! From what was asked for to a running virtual machine: its process is our monitor, `isobench-vmm`.

use super::attachment::Attachment;
use super::launching::{self, Running};
use super::machine::{Guest, Machine};
use super::request::Request;
use super::task::Ends;
use crate::programs;
use anyhow::Context;
use isobench_runtime::{Launched, Plan, Program, Specification, launch};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Launches a virtual machine; the working directory is its own.
pub(super) fn launch_machine(request: &Request, machine: &Machine, name: &str) -> anyhow::Result<Running> {
    let monitor = programs::Program::vmm(Path::new("."))?;
    let mut words = vec!["isobench-vmm".to_owned()];
    match &machine.guest {
        Guest::Unikernel(workload) => words.extend(["unikernel", "--workload", workload].map(str::to_owned)),
        Guest::Linux(_) => anyhow::bail!("a Linux guest cannot be launched yet"),
    }
    words.extend(["--memory".to_owned(), machine.memory.to_string()]);
    let (attachment, tap) = Attachment::make_tap(request, name)?;
    if let Some(tap) = &tap {
        words.extend(network(&attachment, tap));
    }

    let program = monitor.file().try_clone_to_owned().context("keep the monitor's descriptor")?;
    let mut specification = Specification::bare(Program::Descriptor(Arc::new(program)), words);
    specification.environment = Vec::new();
    specification.no_new_privileges = true;
    specification.dies_with_parent = true;
    specification.kept = tap.into_iter().collect();
    let cgroup = launching::make_cgroup(request)?;
    let control_group = cgroup.as_ref().map(|cgroup| cgroup.describe());
    specification.cgroup = cgroup.clone();
    let ends = Ends::prepare(&mut specification, None, request.input)?;
    let Launched { process, .. } = Plan::validate(specification).and_then(launch)?;
    Ok(Running { task: ends.task(process)?, cgroup, control_group, attachment })
}

/// The monitor's words for a place in a network.
fn network(attachment: &Attachment, tap: &OwnedFd) -> Vec<String> {
    let Some(place) = attachment.places().first() else { return Vec::new() };
    let mut words = vec![
        "--tap-fd".to_owned(),
        tap.as_raw_fd().to_string(),
        "--mac".to_owned(),
        place.mac.clone(),
        "--address".to_owned(),
        format!("{}/{}", place.address, place.prefix),
    ];
    if let Some(gateway) = place.gateway {
        words.extend(["--gateway".to_owned(), gateway.to_string()]);
    }
    words
}
