//! A one-byte port by which the guest says how far it has come: the host stamps the time on its own clock, so that nothing
//! is read out of a log (after Firecracker's `boot_timer.rs`).

use crate::bus::{Device, Reaction};
use crate::output::Lines;
use crate::vcpu::Crew;
use isobench_guest::contract::Milestone;
use isobench_workload::{Stage, Stages, announcement, clock};
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;

/// The boot timer. The ready line goes to `output` when the guest says that it listens.
#[derive(Debug)]
pub struct BootTimer<W> {
    stages: Stages,
    output: Lines<W>,
}

impl<W: Write + Debug> BootTimer<W> {
    /// A timer with the monitor's own stamps.
    pub fn new(stages: Stages, output: W) -> Self {
        Self { stages, output: Lines::new(output) }
    }

    /// Has a line that nobody reads given up once this crew is dismissed, and put off while it is paused.
    pub fn heed(&mut self, crew: Arc<Crew>) {
        self.output.heed(crew);
    }
}

impl<W: Write + Debug + Send> Device for BootTimer<W> {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Reaction {
        let now = clock::now();
        let Some(milestone) = data.first().and_then(|number| Milestone::from_number(*number)) else {
            return Reaction::Continue;
        };
        let stage = match milestone {
            Milestone::Entered => Stage::GuestEntered,
            Milestone::Ready => Stage::Listening,
        };
        // The first time counts: a guest that says it again changes nothing.
        if self.stages.at(stage).is_none() {
            self.stages.stamp(stage, now);
            if milestone == Milestone::Ready {
                self.output.say(&announcement::format(&self.stages));
                // Whoever has waited for that goes first: woken by this thread, it often waits for this thread's processor, on which the guest
                // would look for frames that nobody can send yet.
                std::thread::yield_now();
            }
        }
        Reaction::Continue
    }

    fn go_on(&mut self) {
        self.output.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_comes_once_with_every_stamp() {
        let mut stages = Stages::default();
        stages.stamp(Stage::VmmEntered, 1);
        let mut timer = BootTimer::new(stages, Vec::new());
        timer.write(0, &[Milestone::Entered as u8]);
        timer.write(0, &[Milestone::Ready as u8]);
        timer.write(0, &[Milestone::Ready as u8]);
        timer.write(0, &[99]);
        let line = String::from_utf8(timer.output.output).unwrap();
        assert_eq!(line.lines().count(), 1);
        let stages = announcement::parse(&line).unwrap();
        assert_eq!(stages.at(Stage::VmmEntered), Some(1));
        assert!(stages.at(Stage::GuestEntered) <= stages.at(Stage::Listening));
    }
}
