//! The baseline: the agent as a bare process on the simulated host.

use super::spawn::{failed, spawn};
use crate::programs::Program;
use anyhow::Context;
use isobench_runtime::launch::bare;
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Stage, Stages, Workload, clock};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;

/// No isolation at all.
#[derive(Debug)]
pub(super) struct BareProcess {
    program: Arc<OwnedFd>,
    launched: u64,
}

impl BareProcess {
    pub(super) fn new(agent: &Program) -> anyhow::Result<Self> {
        let program = agent.file().try_clone_to_owned().context("keep the agent's descriptor")?;
        Ok(Self { program: Arc::new(program), launched: 0 })
    }
}

impl Sandbox for BareProcess {
    fn name(&self) -> &str {
        "process"
    }

    fn family(&self) -> Family {
        Family::Process
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launched += 1;
        let name = format!("process-{}", self.launched);
        if let Workload::Program { arguments } = workload {
            let mut command = Command::new(arguments.first().map_or("", String::as_str));
            command.args(arguments.iter().skip(1));
            return spawn(name, &mut command)?.instance(None);
        }
        let server = match workload {
            Workload::Serve { port } => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            _ => None,
        };
        let arguments = std::iter::once("agent".to_owned()).chain(workload.arguments()).collect();
        // The same clone3 as our containers, without anything that isolates.
        let mut stages = Stages::default();
        stages.stamp(Stage::Started, clock::now());
        let launched = bare(Arc::clone(&self.program), arguments);
        stages.stamp(Stage::Created, clock::now());
        let (process, output) = launched.map_err(|source| failed(&name, "create the process", source))?;
        Ok(Instance::new(name, process, output, server, stages))
    }
}
