//! `isobench-vmm`: one virtual machine as one process.
//!
//! It is started by a launcher that hands it an attached tap by file descriptor. It prints the ready line on its standard output
//! when the guest says that it is ready, and how the guest ended on its standard error. SIGTERM ends it at once, and with it
//! all that it made, since the kernel frees what only file descriptors hold.

mod arguments;
mod exec;
mod linux;
mod network;
mod restore;

use isobench_microvm::jail::Refused;
use isobench_microvm::outcome::Outcome;
use isobench_microvm::{system, unikernel};
use isobench_workload::{Stage, Stages, clock};
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
isobench-vmm unikernel [OPTIONS]   runs the unikernel guest in a virtual machine
isobench-vmm process [OPTIONS]     runs the unikernel's server as this process, on the tap
  --workload exit|idle|serve:PORT  what it runs (default serve:7000)
  --tap-fd NUMBER                  an attached tap, opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
  --mac AA:BB:CC:DD:EE:FF          its Ethernet address
  --address ADDRESS/PREFIX         its IPv4 address
  --gateway ADDRESS                its router
  --memory SIZE                    guest memory, such as 16M (default 16M)
  --deadline SECONDS               ends the guest after this time
  --spin MICROSECONDS              how long both sides look for frames before they sleep (default 50)
  --segmentation offload|wire      whether frames may be larger than packets on a wire (default offload)
  --network-namespace own|given    whether it makes an empty network to live in, or was started in one (default own)
  --control PATH|fd:NUMBER         takes requests on this socket, which is made at the path and left there, or listens already
isobench-vmm linux [OPTIONS]       runs Linux in a virtual machine, with the agent as /init; the options above, less
                                   --workload and with a default of 128M for --memory, and
  --kernel FILE                    a vmlinux or bzImage (needed)
  --agent FILE                     the agent (needed)
  --address6 ADDRESS/PREFIX        its IPv6 address
  --gateway6 ADDRESS               its router for IPv6
  --mtu BYTES                      its largest packet, where it is not 1500 bytes
  --argument WORD                  one of the agent's arguments, such as `serve` and then `7000`; repeatable
  --append WORDS                   added to the kernel's command line
  --cpus NUMBER                    how many processors it has (default 1)
  --agent-fd NUMBER                the same as --agent, open already
  --archive-fd NUMBER              a cpio archive that is a part of the initramfs too
  --session yes|no                 whether the standard streams are those of the program that the agent runs (default no)
  --exec PATH|fd:NUMBER            with a session: takes further programs on this socket, as --control is made
  --disk FILE[:ro|:rw]             a raw disk image or block device, as fd:NUMBER where it is open already; repeatable
  --pages system|small|huge        what pages its memory is made of (default system: the machine's setting)
  --populate on|off                whether all its memory is taken before it runs (default off)
  --rng on|off                     whether it has a device that gives random numbers (default off)
  --balloon plain|reporting|off    a balloon, which also gives back unused memory by itself (default off)
isobench-vmm exec [OPTIONS]        runs a further program in a Linux guest; its streams and exit status are this process's
  --socket PATH|fd:NUMBER          the socket that the machine was given by --exec (needed)
  --command PATH|fd:NUMBER         what to run, as JSON: command, environment, directory, user, group, groups, host_name,
                                   terminal, root (needed)
isobench-vmm restore [OPTIONS]     goes on with a guest from a snapshot, as a clone with the addresses that it is given; the options of
                                   the network, --deadline, --spin and --control as above, and
  --memory-file FILE|fd:NUMBER     the snapshot's memory (needed)
  --state-file FILE|fd:NUMBER      the snapshot's state (needed); both verified by whoever gives them
  --host-name NAME                 Linux: the clone's host name, where it is to have another
  --files FILE|fd:NUMBER           Linux, with a session: texts of files in its /etc, as a JSON object by name
  --exec PATH|fd:NUMBER            Linux, with a session: takes further programs on this socket
  --session yes|no                 Linux: whether the saved guest has a session, and so whose the exit status is
  --disk FILE:ro                   Linux: a disk that the saved guest has, which is only read; repeatable
";

/// The exit status for an error of our own where the guest's program has all the others, as a container's has.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let mut stages = Stages::default();
    stages.stamp(Stage::VmmEntered, clock::now());
    // Before anything is opened that could be mistaken for it.
    if let Err(error) = system::close_inherited(&handed_in()) {
        report(&format!("isobench-vmm: close what was inherited: {error}"));
        return ExitCode::FAILURE;
    }
    system::end_at_signals();
    let session = has_session() || std::env::args_os().nth(1).is_some_and(|word| word == "exec");
    match run(stages) {
        Ok(code) => code,
        Err(error) => {
            report(&format!("isobench-vmm: {}", chain(error.as_ref())));
            if session { ExitCode::from(OWN_FAILURE) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether the standard streams are those of a program in the guest.
fn has_session() -> bool {
    let mut words = std::env::args_os().skip_while(|word| word != "--session");
    words.nth(1).is_some_and(|value| value == "yes")
}

fn run(stages: Stages) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_ref().and_then(|word| word.to_str()) {
        Some("unikernel") => {
            let config = arguments::parse(words)?.into_unikernel()?;
            let outcome = unikernel::run(config, stages, std::io::stdout())?;
            Ok(ending(&outcome, false))
        }
        Some("restore") => restore::run(words, stages),
        Some("process") => {
            let (tap, network) = arguments::parse(words)?.into_process()?;
            match isobench_microvm::unikernel_process::serve(tap, &network, stages, std::io::stdout())? {}
        }
        Some("exec") => Ok(ExitCode::from(exec::run(words)?)),
        Some("linux") => linux::run(words, stages),
        _ => {
            report(USAGE.trim_end());
            Ok(ExitCode::from(2))
        }
    }
}

/// The descriptors that the command line names: numbers after an option that ends in `-fd`, and as `fd:NUMBER`.
fn handed_in() -> Vec<u32> {
    let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let named = words.windows(2).filter(|pair| pair[0].ends_with("-fd")).map(|pair| pair[1].as_str());
    let prefixed = words.iter().filter_map(|word| word.strip_prefix("fd:")?.split(':').next());
    named.chain(prefixed).filter_map(|number| number.parse().ok()).collect()
}

/// Tells what of the jail can't be had.
pub(crate) fn refused(refused: &Refused) {
    report(&format!("isobench-vmm: {}", chain(refused)));
}

/// The exit code: the guest's own status; 101 where it panicked or crashed, as a Rust program does; 124 at the deadline, as
/// timeout(1) does. How it ended is said where it has not been told.
fn ending(outcome: &Outcome, told: bool) -> ExitCode {
    let code = match outcome {
        Outcome::Exited(status) => *status,
        Outcome::Deadline(_) => 124,
        _ => 101,
    };
    if code != 0 && !told {
        report(&format!("isobench-vmm: {outcome}"));
    }
    ExitCode::from(code)
}

/// An error with its causes in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn report(text: &str) {
    // Whoever closed our standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}
