//! Monitors whose guests serve, in a network namespace of the test's own with a bridge.

use crate::support::{check, ip};
use isobench_microvm::devices::virtio::tap;
use isobench_microvm::snapshot::{MEMORY, MachineState, STATE};
use isobench_workload::protocol::{Answer, Operation, PORT, Request};
use isobench_workload::{Stage, announcement};
use libtest_mimic::Failed;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
/// In the rig everything is emulated twice.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory for a test's files, in a network namespace with a bridge at 172.17.0.1.
pub(crate) fn place() -> Result<tempfile::TempDir, Failed> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    ip("link add bridge0 type bridge")?;
    ip("link set bridge0 up")?;
    ip("address add 172.17.0.1/16 dev bridge0")?;
    Ok(tempfile::tempdir()?)
}

/// A monitor, which is killed where a test gives up.
pub(crate) struct Machine {
    pub(crate) process: Child,
    output: BufReader<std::process::ChildStdout>,
    address: Ipv4Addr,
}

impl Machine {
    /// Starts a monitor with these words and the card number so many: 172.17.0.NUMBER.
    pub(crate) fn start(words: &[&str], number: Option<u8>) -> Result<Self, Failed> {
        let mut command = Command::new(VMM);
        // Of an option that is given twice the last counts.
        command
            .args(&words[..1])
            .args(["--deadline", "300"])
            .args(&words[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(number) = number {
            let tap = tap::open(&format!("guest{number}"))?;
            ip(&format!("link set guest{number} master bridge0 up"))?;
            command.args(["--tap-fd", "0", "--mac", &format!("02:00:00:00:00:{number:02x}")]);
            command.args(["--address", &format!("172.17.0.{number}/16")]).stdin(Stdio::from(tap));
        } else {
            command.stdin(Stdio::null());
        }
        let mut process = command.spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        Ok(Self { process, output, address: Ipv4Addr::new(172, 17, 0, number.unwrap_or(0)) })
    }

    /// The same, once it is ready.
    pub(crate) fn begun(words: &[&str], number: u8) -> Result<Self, Failed> {
        let mut machine = Self::start(words, Some(number))?;
        machine.ready()?;
        Ok(machine)
    }

    /// Goes on from a snapshot.
    pub(crate) fn restored(snapshot: &Path, number: Option<u8>, more: &[&str]) -> Result<Self, Failed> {
        let (memory, state) = (snapshot.join(MEMORY), snapshot.join(STATE));
        Self::start(
            &[&["restore", "--memory-file", text(&memory), "--state-file", text(&state)], more].concat(),
            number,
        )
    }

    /// Waits for its ready line.
    pub(crate) fn ready(&mut self) -> Result<(), Failed> {
        let line = self.line()?;
        match announcement::parse(&line) {
            Some(stages) => check(stages.at(Stage::Listening) >= stages.at(Stage::GuestEntered), line),
            None => Err(format!("no ready line but `{line}`: {}", self.told()).into()),
        }
    }

    /// A line of its output.
    pub(crate) fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() { Err(self.told().into()) } else { Ok(line) }
    }

    /// What it says on its standard error, once it has ended.
    pub(crate) fn told(&mut self) -> String {
        let mut told = String::new();
        let status = self.process.wait();
        let _ = self.process.stderr.take().map(|mut stream| stream.read_to_string(&mut told));
        format!("{status:?}: {told}")
    }

    /// Begins an operation.
    pub(crate) fn ask(&self, operation: Operation, length: u64) -> Result<TcpStream, Failed> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((self.address, PORT)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(&Request { operation, length }.encode())?;
        Ok(stream)
    }

    /// Whether it answers a greeting.
    pub(crate) fn greets(&self) -> Result<(), Failed> {
        let mut bytes = [0; Answer::SIZE];
        self.ask(Operation::Hello, 0)?.read_exact(&mut bytes)?;
        check(Answer::decode(&bytes)?.value == u64::from(Ipv4Addr::new(172, 17, 0, 1).to_bits()), "another address")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

/// Sends bytes on an echo's stream and takes them back.
pub(crate) fn echoes(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Failed> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    check(back == bytes, "other bytes came back")
}

/// A snapshot's state, as it is written, with another value at a place that is named as in JSON.
pub(crate) fn changed_state(whole: &[u8], pointer: &str, to: serde_json::Value) -> Result<Vec<u8>, Failed> {
    let mut value = serde_json::to_value(MachineState::from_bytes(whole)?)?;
    *value.pointer_mut(pointer).ok_or_else(|| format!("no {pointer}"))? = to;
    Ok(serde_json::from_value::<MachineState>(value)?.to_bytes()?)
}
