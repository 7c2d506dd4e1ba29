//! What a supervisor is told to do.

use super::{Supervisor, own_name};
use crate::instances::connection::Role;
use crate::instances::execution::Executing;
use crate::instances::protocol::{Answer, Order};
use crate::instances::request::{Execution, Request};
use crate::instances::state::Status;
use crate::instances::store::{REQUEST, STATE};
use crate::instances::{attachment, files, launching, monitor, pause, refuse};
use crate::json_file;
use anyhow::Context;
use rustix::process::Signal;
use std::path::Path;

impl Supervisor {
    /// Does what is asked; no answer where it comes later.
    pub(super) fn obey(&mut self, index: usize, order: Order) -> anyhow::Result<Option<Answer>> {
        self.connections[index].role = Role::Answered;
        match order {
            Order::Attach { input, output, .. } => {
                self.connections[index].role = Role::Attached { input, output };
                return Ok(Some(Answer::Started));
            }
            Order::Execute(asked) => return self.execute(index, &asked).map(Some),
            Order::Signal(number) => {
                let signal = Signal::from_named_raw(number).with_context(|| format!("there is no signal {number}"))?;
                self.task.process.signal(signal)?;
            }
            Order::Balloon(target) => return self.balloon(target).map(Some),
            Order::Pause | Order::Unpause => self.pause(order == Order::Pause)?,
            Order::Statistics => {
                let used = self.cgroup.as_ref().map(|cgroup| cgroup.statistics()).unwrap_or_default();
                return Ok(Some(Answer::Statistics { memory: used.memory, cpu: used.cpu, pids: used.pids }));
            }
            Order::Connect(further) => {
                let mut request = self.request.clone();
                request.connect(&self.title()?, further.clone())?;
                self.attachment.connect(self.task.process.pid(), attachment::take(&further, &own_name()?)?)?;
                self.note_networks(request)?;
            }
            Order::Disconnect { network } => {
                let mut request = self.request.clone();
                request.disconnect(&self.title()?, &network)?;
                self.attachment.disconnect(&network)?;
                self.note_networks(request)?;
            }
            Order::Renamed => self.attachment.rename(&own_name()?)?,
        }
        Ok(Some(Answer::Done))
    }

    /// What it is and its name now.
    fn title(&self) -> anyhow::Result<String> {
        Ok(format!("{} {}", self.request.kind().noun(), own_name()?))
    }

    /// The container has other networks now, and has them after its next start too.
    fn note_networks(&mut self, request: Request) -> anyhow::Result<()> {
        self.request = request;
        json_file::write(Path::new(REQUEST), &self.request)?;
        // In place, so that what is mounted inside has it at once.
        files::write(&self.request, self.attachment.places(), self.attachment.resolver())?;
        self.state.places = self.attachment.places().to_vec();
        self.state.ports = self.attachment.ports();
        json_file::write(Path::new(STATE), &self.state)
    }

    fn execute(&mut self, index: usize, asked: &Execution) -> anyhow::Result<Answer> {
        if self.state.status == Status::Paused {
            return refuse(format!("the {} is paused: unpause it first", self.title()?));
        }
        let task = match &self.request.machine {
            Some(machine) => monitor::launch_further(&self.request, machine, self.cgroup.as_ref(), asked)?,
            None => launching::launch_further(&self.request, self.task.process.pid(), self.cgroup.as_ref(), asked)?,
        };
        let number = self.next_further;
        self.next_further += 1;
        self.further.push(Executing { number, task });
        if !asked.detached {
            self.connections[index].role = Role::Executing(number);
        }
        Ok(Answer::Started)
    }

    fn balloon(&self, target: Option<u64>) -> anyhow::Result<Answer> {
        let Some(machine) = &self.request.machine else {
            return refuse(format!("the {} has no balloon: limit its memory when it is made (-m)", self.title()?));
        };
        if self.state.status == Status::Paused {
            return refuse(format!("the {} is paused: unpause it first", self.title()?));
        }
        monitor::balloon(machine, target).map(Answer::Balloon)
    }

    fn pause(&mut self, pause: bool) -> anyhow::Result<()> {
        let (from, to) = if pause { (Status::Running, Status::Paused) } else { (Status::Paused, Status::Running) };
        if self.state.status != from {
            let word = if pause { "is paused already" } else { "is not paused" };
            return refuse(format!("the {} {word}", self.title()?));
        }
        match &self.request.machine {
            // The monitor is one process among others of its namespace.
            Some(_) => self.task.process.signal(if pause { Signal::STOP } else { Signal::CONT })?,
            None => {
                let (first, cgroup) = (self.task.process.pid(), self.cgroup.as_deref());
                if pause { pause::pause(first, cgroup) } else { pause::resume(first, cgroup) }?;
            }
        }
        self.state.status = to;
        json_file::write(Path::new(STATE), &self.state)
    }
}
