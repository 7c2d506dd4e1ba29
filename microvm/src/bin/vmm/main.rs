//! `isobench-vmm`: one virtual machine as one process.
//!
//! It is started by a launcher that hands it an attached tap by file descriptor. It prints the ready line on its standard output
//! when the guest says that it is ready, and how the guest ended on its standard error. SIGTERM ends it at once, and with it
//! all that it made, since the kernel frees what only file descriptors hold.

mod api;
mod configuration;
mod error;
mod exec;
mod guest;
mod open;
mod values;
mod words;

use configuration::{Configuration, Unikernel};
use error::ArgumentError;
use guest::Guest;
use isobench_guest::contract::Task;
use isobench_microvm::chain;
use isobench_microvm::jail::Refused;
use isobench_microvm::snapshot::take::{Afterwards, take};
use isobench_microvm::system;
use isobench_workload::{Stage, Stages, clock};
use open::Descriptors;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use values::{FileName, Word};

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
  --dies-with-parent on|off        whether it is killed when the thread that started it ends (default off)
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
  --vhost auto|on|off              whether the kernel moves the card's frames by /dev/vhost-net (default auto: where it can)
isobench-vmm exec [OPTIONS]        runs a further program in a Linux guest; its streams and exit status are this process's
  --socket PATH|fd:NUMBER          the socket that the machine was given by --exec (needed)
  --command PATH|fd:NUMBER         what to run, as JSON: command, environment, directory, user, group, groups, host_name,
                                   terminal, root (needed)
isobench-vmm restore [OPTIONS]     goes on with a guest from a snapshot, as a clone with the addresses that it is given; the options of
                                   the network, --deadline, --spin, --control and --dies-with-parent as above, and
  --memory-file FILE|fd:NUMBER     the snapshot's memory (needed)
  --state-file FILE|fd:NUMBER      the snapshot's state (needed); both verified by whoever gives them
  --host-name NAME                 Linux: the clone's host name, where it is to have another
  --files FILE|fd:NUMBER           Linux, with a session: texts of files in its /etc, as a JSON object by name
  --exec PATH|fd:NUMBER            Linux, with a session: takes further programs on this socket
  --session yes|no                 Linux: whether the saved guest has a session, and so whose the exit status is
  --disk FILE:ro                   Linux: a disk that the saved guest has, which is only read; repeatable
isobench-vmm --config FILE         runs the guest that a JSON file describes (`-`: the standard input), as
                                   {\"unikernel\": {...}}, {\"linux\": {...}} or {\"restore\": {...}} with the options above as fields
isobench-vmm --print-config ...    prints what follows, such as `linux --kernel FILE`, as such a file, and runs nothing
isobench-vmm --api-socket PATH|fd:NUMBER
                                   takes requests on this socket, of which one gives the configuration and one starts the guest
isobench-vmm snapshot SOCKET DIR   saves the guest whose monitor takes requests on this socket, which goes on
";

/// The exit status for an error of our own where the guest's program has all the others, as a container's has.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let mut stages = Stages::default();
    stages.stamp(Stage::VmmEntered, clock::now());
    system::share_heap();
    let mut words = std::env::args_os().skip(1);
    let first = words.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    let mut session = first == "exec";
    match run(&first, words, stages, &mut session) {
        Ok(code) => code,
        Err(error) => {
            report(&format!("isobench-vmm: {}", chain(error.as_ref())));
            if session { ExitCode::from(OWN_FAILURE) } else { ExitCode::FAILURE }
        }
    }
}

/// `session` becomes true where the standard streams are those of a program in the guest.
fn run(
    first: &str,
    mut words: impl Iterator<Item = OsString>,
    stages: Stages,
    session: &mut bool,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if first == "--config" {
        let configuration = configured(words)?;
        *session = configuration.has_session();
        shut(&configuration.descriptors())?;
        return guest(&configuration, stages);
    }
    // Before anything is opened that could be mistaken for it.
    *session |= has_session();
    shut(&handed_in())?;
    if let Some(configuration) = Configuration::of_words(first, &mut words) {
        return guest(&configuration?, stages);
    }
    match first {
        "--api-socket" => {
            let value = one(first, words)?;
            let name = FileName::read(&value);
            api::run(&name.ok_or_else(|| ArgumentError::wrong("api-socket", &value, FileName::WANTED))?, stages)
        }
        "--print-config" => {
            let subcommand = words.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
            let configuration = match subcommand.as_str() {
                "--config" => configured(words)?,
                _ => match Configuration::of_words(&subcommand, words) {
                    Some(configuration) => configuration?,
                    None => return Err(ArgumentError::Unknown(subcommand).into()),
                },
            };
            println!("{:#}", configuration.json());
            Ok(ExitCode::SUCCESS)
        }
        "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        "--version" | "-V" => {
            println!("isobench-vmm {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        "process" => {
            let settings: Unikernel = words::read(words)?;
            if settings.workload.0.task != Task::Serve {
                return Err(ArgumentError::OnlyServes.into());
            }
            let (tap, network) = guest::network_of_unikernel(&settings, &mut Descriptors::inherited(handed_in()))?;
            match isobench_microvm::unikernel_process::serve(tap, &network, stages, std::io::stdout())? {}
        }
        "exec" => Ok(ExitCode::from(exec::run(words)?)),
        "snapshot" => match (words.next(), words.next(), words.next()) {
            (Some(socket), Some(directory), None) => {
                take(&PathBuf::from(socket), &PathBuf::from(directory), Afterwards::Continue)?;
                Ok(ExitCode::SUCCESS)
            }
            _ => Ok(usage()),
        },
        _ => Ok(usage()),
    }
}

fn usage() -> ExitCode {
    report(USAGE.trim_end());
    ExitCode::from(2)
}

/// The one value of an option that has no others beside it.
fn one(option: &str, mut words: impl Iterator<Item = OsString>) -> Result<String, ArgumentError> {
    let option = option.trim_start_matches("--");
    let value = words.next().ok_or_else(|| ArgumentError::Missing(option.into()))?;
    match words.next() {
        None => {
            value.into_string().map_err(|value| ArgumentError::wrong(option, &value.to_string_lossy(), "text in UTF-8"))
        }
        Some(word) => Err(ArgumentError::Unknown(word.to_string_lossy().into())),
    }
}

fn configured(words: impl Iterator<Item = OsString>) -> Result<Configuration, ArgumentError> {
    Configuration::of_file(&one("--config", words)?)
}

/// Closes what was inherited but these, and has signals end the process that are there for that.
fn shut(keep: &[u32]) -> Result<(), String> {
    system::close_inherited(keep).map_err(|error| format!("close what was inherited: {error}"))?;
    system::end_at_signals();
    system::outlive_large_files();
    Ok(())
}

fn guest(configuration: &Configuration, stages: Stages) -> Result<ExitCode, Box<dyn std::error::Error>> {
    Guest::open(configuration, &mut Descriptors::inherited(configuration.descriptors()))?.run(stages)
}

/// Whether the standard streams are those of a program in the guest.
fn has_session() -> bool {
    let mut words = std::env::args_os().skip_while(|word| word != "--session");
    words.nth(1).is_some_and(|value| value == "yes")
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

fn report(text: &str) {
    // Whoever closed our standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}
