//! The agent as /init of a Linux guest: what a container's runtime does for it, it must do here for itself.
//!
//! The monitor puts the agent's arguments and the modules that the guest needs into the initramfs, and its addresses on the
//! kernel's command line. Its console is the agent's standard output.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

type Failure = Box<dyn std::error::Error>;

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
    configure(&command_line)?;
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

/// Whether the guest's kernel has IPv6 (proc(5)).
fn has_ipv6() -> bool {
    fs::exists("/proc/net/if_inet6").unwrap_or(false)
}

/// Gives the network card its packets' size, its addresses and its routers.
fn configure(command_line: &str) -> Result<(), Failure> {
    let mut netlink = Netlink::open()?;
    netlink.up("lo")?;
    let Some(network) = parameter::<String>(command_line, "isobench.address")? else { return Ok(()) };
    // Reno, as on the host: congestion control must not be what differs. Every kernel has it.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno");
    if let Some(mtu) = parameter(command_line, "isobench.mtu")? {
        netlink.limit_packets("eth0", mtu)?;
    }
    let (address, prefix) = network.split_once('/').ok_or("isobench.address has no prefix")?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse()?, prefix.parse()?);
    netlink.address("eth0", address.into(), prefix)?;
    netlink.up("eth0")?;
    if let Some(gateway) = parameter::<Ipv4Addr>(command_line, "isobench.gateway")? {
        netlink.default_route(gateway.into())?;
    }
    let six = parameter::<String>(command_line, "isobench.address6")?.filter(|_| has_ipv6());
    if let Some((address, prefix)) =
        six.as_deref().map(|six| six.split_once('/').ok_or("isobench.address6 has no prefix")).transpose()?
    {
        let (address, prefix): (Ipv6Addr, u8) = (address.parse()?, prefix.parse()?);
        netlink.address("eth0", address.into(), prefix)?;
        if let Some(gateway) = parameter::<Ipv6Addr>(command_line, "isobench.gateway6")? {
            netlink.default_route(gateway.into())?;
        }
    }
    Ok(())
}

/// A route netlink socket: the few messages that a guest needs (rtnetlink(7)).
struct Netlink {
    socket: rustix::fd::OwnedFd,
    sequence: u32,
}

impl Netlink {
    const REQUEST_ACKNOWLEDGED: u16 = 1 | 4;
    const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
    const HEADER: usize = 16;

    fn open() -> Result<Self, Failure> {
        // The protocol NETLINK_ROUTE is number 0, the default.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Switches a link on: RTM_NEWLINK with the flag IFF_UP.
    fn up(&mut self, link: &str) -> Result<(), Failure> {
        let index = self.index(link)?;
        let mut body = vec![0, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend([1_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        self.ask(&format!("switch {link} on"), 16, 0, &body)
    }

    /// Limits a link's packets: RTM_NEWLINK with IFLA_MTU.
    fn limit_packets(&mut self, link: &str, mtu: u32) -> Result<(), Failure> {
        let mut body = vec![0, 0, 0, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attribute(4, &mtu.to_ne_bytes()));
        self.ask(&format!("limit packets of {link} to {mtu} bytes"), 16, 0, &body)
    }

    /// Adds an address: RTM_NEWADDR with IFA_ADDRESS and IFA_LOCAL; nobody is asked whether it is taken (IFA_F_NODAD), since the
    /// network gives no address twice.
    fn address(&mut self, link: &str, address: IpAddr, prefix: u8) -> Result<(), Failure> {
        const NO_QUESTION: u8 = 2;
        let mut body = vec![family(address), prefix, if address.is_ipv6() { NO_QUESTION } else { 0 }, 0];
        body.extend(self.index(link)?.to_ne_bytes());
        body.extend(attribute(1, &octets(address)));
        body.extend(attribute(2, &octets(address)));
        self.ask(&format!("give {link} the address {address}/{prefix}"), 20, Self::CREATE_EXCLUSIVE, &body)
    }

    /// Adds the default route: RTM_NEWROUTE in the main table, static, unicast, with RTA_GATEWAY.
    fn default_route(&mut self, gateway: IpAddr) -> Result<(), Failure> {
        let mut body = vec![family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        body.extend(attribute(5, &octets(gateway)));
        self.ask(&format!("route through {gateway}"), 24, Self::CREATE_EXCLUSIVE, &body)
    }

    fn index(&self, link: &str) -> Result<u32, Failure> {
        // Any socket will do for this question.
        let index = rustix::net::netdevice::name_to_index(&self.socket, link);
        Ok(index.map_err(|error| format!("find the link {link}: {error}"))?)
    }

    /// Sends one message and waits for its acknowledgement.
    fn ask(&mut self, what: &str, kind: u16, flags: u16, body: &[u8]) -> Result<(), Failure> {
        self.sequence += 1;
        let mut message = ((Self::HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((Self::REQUEST_ACKNOWLEDGED | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0_u8; 1024];
        let (_, length) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        // NLMSG_ERROR: the error number, negative, follows the header; 0 is success.
        let error = answer[..length].get(Self::HEADER..Self::HEADER + 4).ok_or("the kernel's answer is cut short")?;
        match i32::from_ne_bytes([error[0], error[1], error[2], error[3]]) {
            0 => Ok(()),
            error => Err(format!("{what}: {}", std::io::Error::from_raw_os_error(-error)).into()),
        }
    }
}

/// A route attribute of whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    family.as_raw() as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
