//! The network settings that netlink cannot reach: files under `/proc/sys/net`
//! ([proc_sys_net(5)](https://man7.org/linux/man-pages/man5/proc_sys_net.5.html)).

use super::{Namespace, NetworkError};
use rustix::io::Errno;

/// Writes a setting such as `ipv4/ip_forward`. The kernel resolves the path in the namespace of the thread that opens it,
/// which is why the namespace is entered for it.
pub fn write(namespace: &Namespace, setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/net/{setting}");
    let written = namespace.enter(|| std::fs::write(&path, value))?;
    written.map_err(|error| {
        let source = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        NetworkError::System { operation: "write", object: format!("{value} to {path}"), source }
    })
}

/// Reads a setting, without white space around it.
pub fn read(namespace: &Namespace, setting: &str) -> Result<String, NetworkError> {
    let path = format!("/proc/sys/net/{setting}");
    let read = namespace.enter(|| std::fs::read_to_string(&path))?;
    read.map(|value| value.trim().to_owned()).map_err(|error| NetworkError::System {
        operation: "read",
        object: path,
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

/// Whether this kernel has IPv6: without it (or with `ipv6.disable=1`) its settings and netlink attributes do not exist.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}
