//! The guest's processors at work: one thread each, all confined, and all over when one is.

use super::LinuxError;
use crate::bus::Bus;
use crate::confinement::{self, Role};
use crate::system;
use crate::vcpu::{Crew, Stop, Vcpu, VcpuError};
use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

/// How the run of the guest's processors is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift<'b> {
    pub(super) ports: &'b Bus,
    pub(super) registers: &'b Bus,
    pub(super) deadline: Option<Duration>,
    pub(super) confined: bool,
}

/// How one processor ended.
type Ended = (Result<Stop, LinuxError>, Vcpu);

/// Runs the first processor on this thread and the others each on one of its own, until one of them ends the guest: gives why, and
/// that one. `begin` is called when all is ready.
pub(super) fn run(
    first: Vcpu,
    others: Vec<Vcpu>,
    shift: Shift<'_>,
    crew: &Crew,
    begin: impl FnOnce(),
) -> Result<(Stop, Vcpu), LinuxError> {
    std::thread::scope(|scope| {
        // Whatever happens from here on, the threads end.
        let over = Over(crew);
        let mut threads = Vec::new();
        for (number, vcpu) in (1..).zip(others) {
            threads.push(start(scope, number, vcpu, shift, crew)?);
        }
        let mut ended = vec![work(first, shift, shift.deadline, crew, begin)];
        drop(over);
        for thread in threads {
            ended.push(thread.join().map_err(|_| LinuxError::Vcpu(VcpuError::Unexpected("a panic".into())))?);
        }
        // All others were dismissed by one.
        let dismissed = |(stop, _): &Ended| matches!(stop, Ok(Stop::Dismissed));
        let cause = ended.iter().position(|each| !dismissed(each)).unwrap_or(0);
        let (stop, vcpu) = ended.swap_remove(cause);
        Ok((stop?, vcpu))
    })
}

/// Starts the thread of a processor, which waits until the guest wakes it (Intel SDM, volume 3, 9.4).
fn start<'s>(
    scope: &'s Scope<'s, '_>,
    number: usize,
    vcpu: Vcpu,
    shift: Shift<'s>,
    crew: &'s Crew,
) -> Result<ScopedJoinHandle<'s, Ended>, LinuxError> {
    let thread = Builder::new().name(format!("vcpu{number}")).spawn_scoped(scope, move || {
        let _over = Over(crew);
        // The deadline is the first one's.
        system::block_alarm();
        work(vcpu, shift, None, crew, || {})
    });
    thread.map_err(|source: io::Error| LinuxError::System { operation: "start a processor's thread", source })
}

fn work(mut vcpu: Vcpu, shift: Shift<'_>, deadline: Option<Duration>, crew: &Crew, begin: impl FnOnce()) -> Ended {
    if shift.confined
        && let Err(error) = confinement::confine(Role::Vcpu)
    {
        return (Err(error.into()), vcpu);
    }
    begin();
    let stop = vcpu.run_in(crew, shift.ports, shift.registers, deadline);
    (stop.map_err(LinuxError::from), vcpu)
}

/// Dismisses a crew when it is dropped.
struct Over<'c>(&'c Crew);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}
