//! The agent as /init of a Linux guest: what a container's runtime does for it, it must do here for itself.
//!
//! The monitor puts the agent's arguments and the modules that the guest needs into the initramfs, and its addresses on the
//! kernel's command line. Its console is the agent's standard output.

use crate::Failure;
use crate::guest_identity;
use crate::netlink::Netlink;
use isobench_workload::guest::Network;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The agent's arguments, separated by zeros. Only a guest of ours has it.
const ARGUMENTS: &str = "/isobench/arguments";
/// The modules, in the order of their names.
const MODULES: &str = "/isobench/modules";
/// The words before the exit status, by which the monitor learns it.
const LEAVE: &str = "isobench: exit ";
/// `MODULE_INIT_COMPRESSED_FILE`, finit_module(2): the kernel unpacks the module.
const COMPRESSED_FILE: i32 = 4;

/// Whether this process is /init of a Linux guest of ours.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(ARGUMENTS).exists()
}

/// Makes the guest ready and gives the agent's arguments.
pub(crate) fn enter() -> Result<Vec<String>, Failure> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        let flags = MountFlags::NOSUID | if kind == "devtmpfs" { MountFlags::empty() } else { MountFlags::NODEV };
        match rustix::mount::mount(kind, target, kind, flags, None) {
            // A kernel that mounts /dev itself has done so.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(format!("mount {target}: {error}").into()),
        }
    }
    load_modules()?;
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let network = network(&command_line)?;
    let mut netlink = Netlink::open()?;
    netlink.up("lo")?;
    if let Some(network) = &network {
        // Reno, as on the host: congestion control must not be what differs. Every kernel has it.
        let _ = fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno");
        netlink.configure(network)?;
    }
    if parameter::<u8>(&command_line, "isobench.clones")?.is_some() {
        guest_identity::listen(netlink, network)?;
    }
    let arguments = fs::read_to_string(ARGUMENTS).map_err(|error| format!("read {ARGUMENTS}: {error}"))?;
    Ok(arguments.split('\0').map(str::to_owned).collect())
}

/// Takes leave with a status and ends the guest, since the kernel panics where /init just returns.
pub(crate) fn leave(status: u8) -> ! {
    let console = rustix::stdio::stdout();
    // The monitor gives the guest up at its deadline where none of this works.
    let _ = rustix::io::write(console, format!("{LEAVE}{status}\n").as_bytes());
    let _ = rustix::termios::tcdrain(console);
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}

/// Loads the modules and frees their files, which lie in memory.
fn load_modules() -> Result<(), Failure> {
    let mut files: Vec<_> = fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    for file in files {
        let fd = rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let plain = file.extension().is_some_and(|extension| extension == "ko");
        match rustix::system::finit_module(&fd, c"", if plain { 0 } else { COMPRESSED_FILE }) {
            Ok(()) | Err(Errno::EXIST) => fs::remove_file(&file)?,
            Err(error) => return Err(format!("load the module {}: {error}", file.display()).into()),
        }
    }
    Ok(())
}

/// The value of a parameter on the kernel's command line.
fn parameter<T: FromStr>(command_line: &str, name: &str) -> Result<Option<T>, Failure> {
    let value = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let parsed = value.map(|value| value.parse().map_err(|_| format!("`{name}={value}` is malformed"))).transpose()?;
    Ok(parsed)
}

/// The network card's place, where there is a card. Its Ethernet address is the one that it has.
fn network(command_line: &str) -> Result<Option<Network>, Failure> {
    let Some(text) = parameter::<String>(command_line, "isobench.address")? else { return Ok(None) };
    let (address, prefix) = text.split_once('/').ok_or("isobench.address has no prefix")?;
    let six = parameter::<String>(command_line, "isobench.address6")?;
    let six = six.as_deref().map(|six| six.split_once('/').ok_or("isobench.address6 has no prefix")).transpose()?;
    let six = six.map(|(address, prefix)| Ok::<_, Failure>((address.parse()?, prefix.parse()?))).transpose()?;
    Ok(Some(Network {
        mac: [0; 6],
        address: address.parse()?,
        prefix: prefix.parse()?,
        gateway: parameter(command_line, "isobench.gateway")?,
        address6: six,
        gateway6: parameter(command_line, "isobench.gateway6")?,
        mtu: parameter(command_line, "isobench.mtu")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_network_is_read_from_the_command_line() {
        let line = "quiet isobench.address=172.17.0.5/16 isobench.gateway=172.17.0.1 isobench.address6=fd00::5/64 isobench.mtu=1400";
        let network = network(line).unwrap().unwrap();
        assert_eq!((network.address, network.prefix), (Ipv4Addr::new(172, 17, 0, 5), 16));
        assert_eq!(network.gateway, Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!((network.address6, network.mtu), (Some(("fd00::5".parse().unwrap(), 64)), Some(1400)));
        assert!(super::network("quiet").unwrap().is_none() && super::network("isobench.address=1.2.3.4").is_err());
    }

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        let line = "quiet xisobench.gateway=1 isobench.gateway=172.17.0.1\n";
        assert_eq!(parameter::<Ipv4Addr>(line, "isobench.gateway").unwrap(), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(parameter::<String>(line, "isobench.address").unwrap(), None);
        assert!(parameter::<Ipv4Addr>("isobench.gateway=x", "isobench.gateway").is_err());
    }

    #[test]
    fn a_test_is_no_guest() {
        assert!(!is_guest());
    }
}
