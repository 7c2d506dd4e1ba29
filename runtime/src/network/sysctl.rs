//! The network settings that netlink cannot reach: files under `/proc/sys/net`
//! ([proc_sys_net(5)](https://man7.org/linux/man-pages/man5/proc_sys_net.5.html)).

use super::{Namespace, NetworkError};
use rustix::io::Errno;

/// Writes a setting such as `ipv4/ip_forward`. The kernel resolves the path in the namespace of the thread that opens it,
/// which is why the namespace is entered for it.
pub fn write(namespace: &Namespace, setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/net/{setting}");
    let written = namespace.enter(|| std::fs::write(&path, value))?;
    written.map_err(NetworkError::io("write", format!("{value} to {path}")))
}

/// Reads a setting, without white space around it.
pub fn read(namespace: &Namespace, setting: &str) -> Result<String, NetworkError> {
    let path = format!("/proc/sys/net/{setting}");
    let read = namespace.enter(|| std::fs::read_to_string(&path))?;
    read.map(|value| value.trim().to_owned()).map_err(NetworkError::io("read", path))
}

/// The settings of links that take router advertisements now, but no more once they forward packets, when the kernel also drops
/// the routes that were learnt so: `accept_ra` of 1, where 2 overrules forwarding
/// ([ip-sysctl](https://docs.kernel.org/networking/ip-sysctl.html)). Not that of links to come, such as those that lead to
/// containers: whoever is at the other end could become the machine's router.
pub fn advertisements_until_forwarding(namespace: &Namespace) -> Result<Vec<String>, NetworkError> {
    const LINKS: &str = "/proc/sys/net/ipv6/conf";
    let listed = namespace.enter(|| {
        let entries = std::fs::read_dir(LINKS)?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>())
    })?;
    let names: Vec<String> = listed.map_err(NetworkError::io("list", LINKS))?;
    let of = |name: &str, setting: &str| format!("ipv6/conf/{name}/{setting}");
    // A link that has gone meanwhile takes none.
    let has = |name: &str, setting, value| read(namespace, &of(name, setting)).is_ok_and(|now| now == value);
    let links = names.iter().filter(|name| !["all", "default"].contains(&name.as_str()));
    let taking = links.filter(|name| has(name, "accept_ra", "1") && has(name, "forwarding", "0"));
    Ok(taking.map(|name| of(name, "accept_ra")).collect())
}

/// Writes a setting of a link, unless that has gone.
pub fn write_if_there(namespace: &Namespace, setting: &str, value: &str) -> Result<(), NetworkError> {
    match write(namespace, setting, value) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// A setting that has its former value again when this is dropped.
#[derive(Debug)]
pub struct Changed {
    namespace: Namespace,
    setting: &'static str,
    former: String,
}

impl Changed {
    /// Gives a setting a value in a namespace.
    pub fn new(namespace: Namespace, setting: &'static str, value: &str) -> Result<Self, NetworkError> {
        let former = read(&namespace, setting)?;
        if former != value {
            write(&namespace, setting, value)?;
        }
        Ok(Self { namespace, setting, former })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if read(&self.namespace, self.setting).is_ok_and(|now| now != self.former) {
            let _ = write(&self.namespace, self.setting, &self.former);
        }
    }
}

/// Whether the packets that a bridge of this namespace forwards pass the firewall like routed ones: so it is where the
/// module br_netfilter is loaded, as dockerd does. It costs every packet, so it belongs to what is recorded with a figure.
pub fn filters_bridged_packets(namespace: &Namespace) -> bool {
    read(namespace, FILTERS_BRIDGED_PACKETS).is_ok_and(|value| value == "1")
}

/// Keeps bridged packets from the firewall until this is dropped; `None` where they do not pass it anyway.
pub fn spare_bridged_packets(namespace: &Namespace) -> Result<Option<Changed>, NetworkError> {
    if !filters_bridged_packets(namespace) {
        return Ok(None);
    }
    Changed::new(namespace.duplicate()?, FILTERS_BRIDGED_PACKETS, "0").map(Some)
}

const FILTERS_BRIDGED_PACKETS: &str = "bridge/bridge-nf-call-iptables";

/// Whether this kernel has IPv6: without it (or with `ipv6.disable=1`) its settings and netlink attributes do not exist.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}
