//! The network settings that netlink cannot reach: files under `/proc/sys/net`
//! ([proc_sys_net(5)](https://man7.org/linux/man-pages/man5/proc_sys_net.5.html)).

use super::{Namespace, NetworkError};

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
