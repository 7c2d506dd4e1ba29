//! What can be seen and reached from inside.

use isobench_workload::{Finding, Probe, client};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Short enough for an address that nobody has, and long enough for two packets that are lost: the kernel asks for a link
/// address, and sends a SYN, again after a second (RFC 6298), and a bridge may drop what a program sends in its first moment.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Looks at the network and tries what is asked.
pub(crate) fn look(questions: &Probe) -> Finding {
    let (interfaces, addresses) = interfaces();
    Finding {
        interfaces,
        addresses,
        routes: routes(&std::fs::read_to_string("/proc/self/net/route").unwrap_or_default()),
        namespace: std::fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).unwrap_or(0),
        connects: questions
            .connect
            .iter()
            .map(|server| client::hello(*server, PATIENCE).map_err(|error| error.to_string()))
            .collect(),
        listens: questions.listen.iter().map(|port| listen(*port)).collect(),
    }
}

fn interfaces() -> (Vec<String>, Vec<String>) {
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        if let Some(address) = interface.address.as_ref().and_then(|address| address.as_sockaddr_in()) {
            let mask = interface.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in());
            let prefix = mask.map_or(32, |mask| mask.ip().to_bits().count_ones());
            addresses.insert(format!("{} {}/{prefix}", interface.interface_name, address.ip()));
        }
        names.insert(interface.interface_name);
    }
    (names.into_iter().collect(), addresses.into_iter().collect())
}

/// Reads `/proc/net/route`: addresses there are hexadecimal in the machine's byte order (proc_net(5)).
fn routes(table: &str) -> Vec<String> {
    let mut routes: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let address = |text: &&str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
            let interface = fields.first()?;
            let (destination, gateway, mask) =
                (address(fields.get(1)?)?, address(fields.get(2)?)?, address(fields.get(7)?)?);
            let prefix = mask.to_bits().count_ones();
            Some(format!("{destination}/{prefix} via {gateway} dev {interface}"))
        })
        .collect();
    routes.sort();
    routes
}

fn listen(port: u16) -> Result<(), String> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err("EADDRINUSE".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_table_is_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routes(table), ["0.0.0.0/0 via 172.17.0.1 dev eth0", "172.17.0.0/16 via 0.0.0.0 dev eth0"]);
    }

    #[test]
    fn the_machines_loopback_is_seen() {
        let finding = look(&Probe::default());
        assert!(finding.interfaces.contains(&"lo".to_owned()));
        assert_ne!(finding.namespace, 0);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen(port), Err("EADDRINUSE".into()));
    }
}
