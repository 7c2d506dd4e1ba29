//! The agent: one static program that runs the workload inside every sandbox.
//!
//! It is PID 1 in a container and /init in a Linux guest. Its standard output carries the ready line and results, one line
//! each; nothing else is written there.
#![deny(unsafe_code)]

mod guest_command;
mod guest_identity;
mod guest_init;
mod guest_tasks;
mod lookup;
mod netlink;
mod probe;
mod system;

use isobench_workload::server::Sockets;
use isobench_workload::{Drive, Probe, Stage, Stages, announcement, client, clock};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut stages = Stages::default();
    stages.stamp(Stage::AgentEntered, clock::now());
    let guest = guest_init::is_guest();
    let arguments = if guest { guest_init::enter() } else { Ok(std::env::args().skip(1).collect()) };
    let result = arguments.and_then(|arguments| run(arguments.into_iter(), stages));
    if let Err(error) = &result {
        // A closed standard error must not turn the message into a panic.
        let _ = writeln!(std::io::stderr(), "isobench-agent: {error}");
    }
    let status = result.unwrap_or(1);
    if guest {
        guest_init::leave(status);
    }
    ExitCode::from(status)
}

type Failure = Box<dyn std::error::Error>;

/// Runs a workload and gives the exit status.
fn run(mut arguments: impl Iterator<Item = String>, stages: Stages) -> Result<u8, Failure> {
    let workload = arguments
        .next()
        .ok_or("no workload given: exit, idle, serve PORT [--spin MICROSECONDS], memory BYTES, freed BYTES, drive JSON or probe JSON")?;
    let mut argument = |what: &str| arguments.next().ok_or_else(|| format!("{workload} needs {what}"));
    match workload.as_str() {
        "exit" => say(&announcement::format(&stages)).map(|()| 0),
        "idle" => {
            say(&announcement::format(&stages))?;
            rest()
        }
        "serve" => {
            let port = argument("a port")?;
            let spin = match arguments.next().as_deref() {
                None => Duration::ZERO,
                Some("--spin") => microseconds(arguments.next())?,
                Some(other) => return Err(format!("serve has no argument `{other}`").into()),
            };
            serve(&port, spin, stages).map(|()| 0)
        }
        "memory" => {
            let _held = hold(&argument("a number of bytes")?)?;
            say(&announcement::format(&stages))?;
            rest()
        }
        "freed" => {
            // More than the allocator keeps for itself: it goes back to the kernel at once.
            drop(hold(&argument("a number of bytes")?)?);
            say(&announcement::format(&stages))?;
            rest()
        }
        isobench_workload::guest::RUN if std::process::id() == 1 => guest_command::run(),
        guest_command::BECOME => guest_command::become_program(&argument("its command as JSON")?),
        "drive" => {
            let drive: Drive = serde_json::from_str(&argument("its traffic as JSON")?)?;
            say(&(serde_json::to_string(&client::drive(&drive))? + "\n")).map(|()| 0)
        }
        "probe" => {
            let questions: Probe = serde_json::from_str(&argument("its questions as JSON")?)?;
            say(&(serde_json::to_string(&probe::look(&questions))? + "\n")).map(|()| 0)
        }
        other => Err(format!("unknown workload `{other}`").into()),
    }
}

fn microseconds(text: Option<String>) -> Result<Duration, Failure> {
    let text = text.ok_or("--spin needs a number of microseconds")?;
    let number: u32 = text.parse().map_err(|_| format!("`{text}` is no number of microseconds"))?;
    Ok(Duration::from_micros(number.into()))
}

fn serve(port: &str, spin: Duration, mut stages: Stages) -> Result<(), Failure> {
    let number: u16 = port.parse().map_err(|_| format!("`{port}` is no TCP port"))?;
    let sockets = Sockets::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, number)))
        .map_err(|error| format!("listen on TCP and UDP port {number}: {error}"))?;
    stages.stamp(Stage::Listening, clock::now());
    say(&announcement::format(&stages))?;
    Ok(sockets.with_huge_pages(system::huge_pages).with_spin(spin).serve()?)
}

/// Memory of which each page was written to, so that the kernel had to give it.
fn hold(bytes: &str) -> Result<Vec<u8>, Failure> {
    const PAGE: usize = 4096;
    let number: usize = bytes.parse().map_err(|_| format!("`{bytes}` is no number of bytes"))?;
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(number).map_err(|error| format!("get {number} bytes of memory: {error}"))?;
    memory.resize(number, 0);
    // Each page with other contents, so that none can be merged with another or kept as one of zeros.
    memory.iter_mut().step_by(PAGE).zip(1_u64..).for_each(|(byte, page)| *byte = (page % 251) as u8 + 1);
    Ok(std::hint::black_box(memory))
}

/// Writes one line in one call, past the standard library's buffer.
fn say(line: &str) -> Result<(), Failure> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), line.as_bytes()))
        .map(drop)
        .map_err(|error| format!("write to the standard output: {error}"))?)
}

fn rest() -> ! {
    loop {
        std::thread::park();
    }
}
