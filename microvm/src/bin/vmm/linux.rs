//! The subcommand `linux`: its options, read by hand like the others, and its run.

use crate::arguments::{ArgumentError, address, each, mac, seconds, size};
use isobench_microvm::linux::{self, Config, Network};
use isobench_microvm::outcome::Outcome;
use isobench_microvm::system::inherited_fd;
use isobench_workload::Stages;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Memory unless told otherwise: a distribution's kernel unpacks itself in half of it.
const MEMORY: u64 = 128 << 20;
/// Largest agent that is read.
const LARGEST_AGENT: u64 = 256 << 20;

/// Runs a Linux guest; the outcome, and the guest's last words where it is bad.
pub(crate) fn run(
    words: impl Iterator<Item = OsString>,
    stages: Stages,
) -> Result<(Outcome, Vec<String>), Box<dyn std::error::Error>> {
    let ending = linux::run(parse(words)?, stages, std::io::stdout())?;
    Ok((ending.outcome, ending.log))
}

/// Reads the options after the subcommand.
fn parse(words: impl Iterator<Item = OsString>) -> Result<Config, ArgumentError> {
    let mut config = Config {
        kernel: Default::default(),
        agent: Vec::new(),
        arguments: Vec::new(),
        append: String::new(),
        network: None,
        memory: MEMORY,
        deadline: None,
        spin: Duration::from_micros(50),
        confined: true,
    };
    let (mut tap, mut card, mut place, mut gateway) = (None, None, None, None);
    let options = [
        "--kernel",
        "--agent",
        "--tap-fd",
        "--mac",
        "--address",
        "--gateway",
        "--memory",
        "--deadline",
        "--spin",
        "--append",
        "--argument",
    ];
    each(words, options, |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = |wanted| ArgumentError::Value { option, value: value.clone(), wanted };
        match option {
            "--kernel" => config.kernel = raw.into(),
            "--agent" => {
                config.agent = read_agent(&raw).map_err(|source| ArgumentError::Agent { path: raw.into(), source })?;
            }
            "--tap-fd" => {
                let number = value.parse().map_err(|_| wrong("a file descriptor"))?;
                tap = Some(inherited_fd(number).map_err(|_| wrong("an open file descriptor"))?);
            }
            "--mac" => card = Some(mac(&value).ok_or_else(|| wrong("an Ethernet address"))?),
            "--address" => {
                place =
                    Some(address(&value).ok_or_else(|| wrong("an IPv4 address with a prefix, such as 172.17.0.5/16"))?);
            }
            "--gateway" => {
                let router: Ipv4Addr = value.parse().map_err(|_| wrong("an IPv4 address"))?;
                gateway = Some(router).filter(|router| !router.is_unspecified());
            }
            "--argument" => config.arguments.push(value),
            "--append" => config.append = value,
            "--memory" => config.memory = size(&value).ok_or_else(|| wrong("a size such as 128M"))?,
            "--deadline" => config.deadline = Some(seconds(&value).ok_or_else(|| wrong("a number of seconds"))?),
            _ => config.spin = Duration::from_micros(value.parse().map_err(|_| wrong("a number of microseconds"))?),
        }
        Ok(())
    })?;
    if config.kernel.as_os_str().is_empty() {
        return Err(ArgumentError::Missing("--kernel"));
    }
    if config.agent.is_empty() {
        return Err(ArgumentError::Missing("--agent"));
    }
    config.network = match (tap, card, place) {
        (Some(tap), Some(mac), Some((address, prefix))) => Some((tap, Network { mac, address, prefix, gateway })),
        (None, ..) => None,
        _ => return Err(ArgumentError::NoNetwork),
    };
    Ok(config)
}

fn read_agent(path: &OsString) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_AGENT).read_to_end(&mut bytes)?;
    if bytes.is_empty() { Err(io::Error::other("it is empty")) } else { Ok(bytes) }
}
