//! The baseline: the agent as a bare process on the simulated host.

use super::spawn::spawn;
use crate::programs::Program;
use isobench_workload::{Family, Instance, LaunchError, Sandbox, Workload};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::rc::Rc;

/// No isolation at all.
#[derive(Debug)]
pub(super) struct BareProcess {
    agent: Rc<Program>,
    launched: u64,
}

impl BareProcess {
    pub(super) fn new(agent: Rc<Program>) -> Self {
        Self { agent, launched: 0 }
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
        let arguments = workload.arguments();
        let mut command = match workload {
            Workload::Program { arguments } => {
                let mut command = Command::new(arguments.first().map_or("", String::as_str));
                command.args(arguments.iter().skip(1));
                command
            }
            _ => {
                let mut command = Command::new(self.agent.path());
                command.args(arguments);
                command
            }
        };
        let server = match workload {
            Workload::Serve { port } => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            _ => None,
        };
        spawn(format!("process-{}", self.launched), &mut command)?.instance(server)
    }
}
