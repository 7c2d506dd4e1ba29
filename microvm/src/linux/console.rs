//! The guest's console: a serial port whose output is read line by line. The agent inside speaks on it, in lines of its own;
//! the kernel's messages are kept for the case that the boot goes wrong.

use crate::bus::{Device, Reaction};
use crate::output::Lines;
use crate::snapshot::devices::{DeviceState, StateError};
use crate::vcpu::Crew;
use isobench_workload::guest::{AWAITS, BECAME};
use isobench_workload::{Stage, Stages, announcement, clock};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// The words before the agent's exit status, with which it takes leave. See `guest_init` in the agent.
pub const LEAVE: &str = "isobench: exit ";
/// Longest line that is taken from the guest: a histogram takes some ten thousand bytes.
const LONGEST_LINE: usize = 1 << 20;
/// How much of the kernel's log is kept for a report.
const LOG_LINES: usize = 60;

/// What came over the console so far; shared by the device and the run's end.
#[derive(Debug)]
pub struct Transcript<W> {
    stages: Stages,
    output: Lines<W>,
    line: Vec<u8>,
    line_began: u64,
    status: Option<u8>,
    log: VecDeque<String>,
    /// Whether the agent can be told that it is another guest's.
    awaits: Arc<AtomicBool>,
}

impl<W: Write> Transcript<W> {
    /// Nothing yet; the agent's lines go to `output`.
    pub fn new(stages: Stages, output: W) -> Self {
        let (line, log, awaits) = (Vec::new(), VecDeque::new(), Arc::default());
        let output = Lines::new(output);
        Self { stages, output, line, line_began: 0, status: None, log, awaits }
    }

    /// Has lines that nobody reads given up once this crew is dismissed, and put off while it is paused.
    pub fn heed(&mut self, crew: Arc<Crew>) {
        self.output.heed(crew);
    }

    /// Whether the agent has said that it can be told that it is another guest's.
    pub fn awaits(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.awaits)
    }

    /// The status with which the agent took leave.
    pub fn status(&self) -> Option<u8> {
        self.status
    }

    /// The last lines of the kernel's log.
    pub fn log(&self) -> impl Iterator<Item = &str> {
        self.log.iter().map(String::as_str)
    }

    /// Stamps a stage with the time now; the first time counts.
    pub fn stamp(&mut self, stage: Stage) {
        if self.stages.at(stage).is_none() {
            self.stages.stamp(stage, clock::now());
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.line.is_empty() {
            self.line_began = clock::now();
        }
        if byte != b'\n' {
            self.line.push(byte);
        }
        if byte == b'\n' || self.line.len() >= LONGEST_LINE {
            let line = std::mem::take(&mut self.line);
            self.take(String::from_utf8_lossy(&line).trim_end_matches('\r'));
        }
    }

    /// One line: the ready line, the agent's leave, a result, or the kernel's.
    fn take(&mut self, line: &str) {
        if let Some(guest) = announcement::parse(line) {
            self.ready(&guest);
        } else if line == AWAITS {
            self.awaits.store(true, Ordering::SeqCst);
        } else if let Some(taken) = line.strip_prefix(BECAME).and_then(|taken| taken.parse::<u32>().ok()) {
            self.became(taken);
        } else if let Some(status) = line.strip_prefix(LEAVE) {
            self.status = status.parse().ok().or(self.status);
        } else if line.starts_with('{') {
            self.output.say(&format!("{line}\n"));
        } else {
            if self.log.len() == LOG_LINES {
                self.log.pop_front();
            }
            self.log.push_back(line.chars().filter(|letter| !letter.is_control()).take(200).collect());
        }
    }

    /// The guest is whom it was told to be; its agent has had so many microseconds for that.
    fn became(&mut self, microseconds: u32) {
        // Whoever sees that it is ready can have it saved again.
        self.awaits.store(true, Ordering::SeqCst);
        let mut stages = Stages::default();
        stages.stamp(Stage::AgentEntered, 0);
        stages.stamp(Stage::Listening, u64::from(microseconds) * 1000);
        self.ready(&stages);
    }

    /// The agent's stamps are on the guest's clock. Its last one is about now, when its line begins to arrive; the others came
    /// as much earlier as the guest says, but not before the guest itself began.
    fn ready(&mut self, guest: &Stages) {
        let stamps = guest.sorted();
        let Some(last) = stamps.last().map(|(_, at)| *at) else { return };
        let earliest = self.stages.at(Stage::GuestEntered).unwrap_or(0);
        for (stage, at) in stamps {
            if matches!(stage, Stage::AgentEntered | Stage::Listening) && self.stages.at(stage).is_none() {
                self.stages.stamp(stage, self.line_began.saturating_sub(last - at).max(earliest));
            }
        }
        let line = announcement::format(&self.stages);
        self.output.say(&line);
    }
}

/// A handle on a transcript that both the serial port and the end of the run hold.
#[derive(Debug)]
pub struct Shared<W>(Arc<Mutex<Transcript<W>>>);

impl<W> Shared<W> {
    /// Shares a transcript.
    pub fn new(transcript: Transcript<W>) -> Self {
        Self(Arc::new(Mutex::new(transcript)))
    }

    /// Works on the transcript.
    pub fn with<R>(&self, work: impl FnOnce(&mut Transcript<W>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|transcript| bytes.iter().for_each(|byte| transcript.byte(*byte)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An interrupt line as an event that KVM listens to.
#[derive(Clone, Debug)]
struct Line(Arc<EventFd>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The serial port.
#[derive(Debug)]
pub struct Console<W: Write> {
    port: Serial<Line, NoEvents, Shared<W>>,
    line: Line,
    transcript: Shared<W>,
    /// Whether the guest goes on from a snapshot and has not been seen yet.
    awaited: bool,
}

impl<W: Write> Console<W> {
    /// A port whose interrupt line is this event.
    pub fn new(line: EventFd, transcript: Shared<W>) -> Self {
        let line = Line(Arc::new(line));
        let port = Serial::new(line.clone(), transcript.clone());
        Self { port, line, transcript, awaited: false }
    }
}

impl<W: Write + Debug + Send> Device for Console<W> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.port.read(offset as u8);
        }
        if std::mem::take(&mut self.awaited) {
            self.transcript.with(|transcript| transcript.stamp(Stage::GuestEntered));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Reaction {
        if let [byte] = data {
            // It fails only where the event is full, and then the line is raised already.
            let _ = self.port.write(offset as u8, *byte);
        }
        Reaction::Continue
    }

    fn go_on(&mut self) {
        self.transcript.with(|transcript| transcript.output.go_on());
    }

    fn save(&mut self) -> Option<DeviceState> {
        Some(DeviceState::Serial(self.port.state()))
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::Serial(registers) = state else { return Err(StateError::Kind) };
        let port = Serial::from_state(registers, self.line.clone(), NoEvents, self.transcript.clone());
        self.port = port.map_err(|_| StateError::Registers)?;
        self.awaited = true;
        // Its agent looks for who it is now. It fails only where the event is full, and takes nothing where the port is connected with itself
        // or full: then no agent of ours waits there.
        let _ = self.port.enqueue_raw_bytes(b"\n");
        // Whatever was on its way to the guest when the machine was paused: one too many does no harm.
        let _ = self.line.trigger();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript<Vec<u8>> {
        let mut stages = Stages::default();
        stages.stamp(Stage::VmmReady, 5);
        Transcript::new(stages, Vec::new())
    }

    fn feed(transcript: &mut Transcript<Vec<u8>>, text: &str) {
        text.bytes().for_each(|byte| transcript.byte(byte));
    }

    #[test]
    fn the_ready_line_is_stamped_on_the_hosts_clock() {
        let mut transcript = transcript();
        transcript.stamp(Stage::GuestEntered);
        let before = clock::now();
        feed(&mut transcript, "[    0.1] kernel\r\nisobench: ready agent-entered=1000 listening=1400\r\n");
        let line = String::from_utf8(transcript.output.output.clone()).unwrap();
        let stages = announcement::parse(&line).unwrap();
        assert_eq!(stages.at(Stage::VmmReady), Some(5));
        let listening = stages.at(Stage::Listening).unwrap();
        assert!(listening >= before);
        assert!(stages.at(Stage::AgentEntered).unwrap() >= listening - 400);
        assert_eq!(transcript.log().collect::<Vec<_>>(), ["[    0.1] kernel"]);
    }

    #[test]
    fn a_guest_cannot_stamp_the_hosts_stages_nor_a_time_before_its_own() {
        let mut transcript = transcript();
        transcript.stamp(Stage::GuestEntered);
        let entered = transcript.stages.at(Stage::GuestEntered).unwrap();
        feed(&mut transcript, "isobench: ready agent-entered=0 started=7 listening=18446744073709551615\n");
        let stages = announcement::parse(std::str::from_utf8(&transcript.output.output).unwrap()).unwrap();
        assert_eq!(stages.at(Stage::AgentEntered), Some(entered));
        assert_eq!(stages.at(Stage::Started), None);
    }

    #[test]
    fn a_guest_that_became_another_is_ready_and_waits_again() {
        let mut transcript = transcript();
        transcript.stamp(Stage::GuestEntered);
        feed(&mut transcript, "became much\r\n");
        assert!(transcript.output.output.is_empty() && !transcript.awaits().load(Ordering::SeqCst));
        feed(&mut transcript, "became 1\r\n");
        let stages = announcement::parse(std::str::from_utf8(&transcript.output.output).unwrap()).unwrap();
        let (entered, listening) = (stages.at(Stage::AgentEntered).unwrap(), stages.at(Stage::Listening).unwrap());
        assert!(listening - entered <= 1000 && entered >= stages.at(Stage::GuestEntered).unwrap());
        assert!(transcript.awaits().load(Ordering::SeqCst));
    }

    #[test]
    fn results_pass_and_leave_is_taken() {
        let mut transcript = transcript();
        feed(&mut transcript, "{\"bytes\":1}\r\nisobench: exit 3\r\n");
        assert_eq!(transcript.output.output, b"{\"bytes\":1}\n");
        assert_eq!(transcript.status(), Some(3));
    }

    #[test]
    fn what_the_guest_says_is_bounded() {
        let mut transcript = transcript();
        for number in 0..1000 {
            feed(&mut transcript, &format!("line {number} {}\n", "x".repeat(1000)));
        }
        assert_eq!(transcript.log().count(), LOG_LINES);
        assert!(transcript.log().all(|line| line.len() <= 200));
        feed(&mut transcript, &"y".repeat(LONGEST_LINE + 10));
        assert!(transcript.line.len() <= 10);
    }
}
