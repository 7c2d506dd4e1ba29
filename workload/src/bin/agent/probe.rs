//! What can be seen and reached from inside.

use crate::lookup::lookup;
use isobench_workload::{Finding, Probe, client};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Short enough for an address that nobody has, and long enough for two packets that are lost: the kernel asks for a link
/// address, and sends a SYN, again after a second (RFC 6298), and a bridge may drop what a program sends in its first moment.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Looks around and tries what is asked.
pub(crate) fn look(questions: &Probe) -> Finding {
    let (interfaces, addresses) = interfaces();
    let patience = questions.patience.map_or(PATIENCE, Duration::from_millis);
    let commands = commands();
    Finding {
        interfaces,
        addresses,
        routes: routes(&std::fs::read_to_string("/proc/self/net/route").unwrap_or_default()),
        namespace: namespace("net"),
        connects: connects(&questions.connect, patience),
        listens: questions.listen.iter().map(|port| listen(*port)).collect(),
        listeners: listeners(&std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default()),
        mount_namespace: namespace("mnt"),
        process_namespace: namespace("pid"),
        sees_itself: std::fs::read(format!("/proc/{}/cmdline", std::process::id())).is_ok(),
        files: questions.files.iter().map(|path| std::path::Path::new(path).exists()).collect(),
        processes: questions
            .processes
            .iter()
            .map(|end| commands.iter().any(|command| command.ends_with(end.as_str())))
            .collect(),
        lookups: questions.lookups.iter().map(|question| lookup(question, patience)).collect(),
    }
}

/// The inode number of one of the probe's own namespaces.
fn namespace(kind: &str) -> u64 {
    std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |metadata| metadata.ino())
}

/// Says hello to each server, to all at the same time: one that drops what it gets keeps the others from nothing.
fn connects(servers: &[SocketAddr], patience: Duration) -> Vec<Result<Ipv4Addr, String>> {
    std::thread::scope(|scope| {
        let ask = |server: &SocketAddr| {
            let server = *server;
            scope.spawn(move || client::hello(server, patience).map_err(|error| error.to_string()))
        };
        let asked: Vec<_> = servers.iter().map(ask).collect();
        asked.into_iter().map(|answer| answer.join().unwrap_or_else(|_| Err("the probe failed".into()))).collect()
    })
}

/// The command lines of all processes that are seen, arguments parted by spaces.
fn commands() -> Vec<String> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    numbers
        .filter_map(|path| std::fs::read(path.join("cmdline")).ok())
        .map(|command| String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "))
        .collect()
}

/// Ports in state 0A (TCP_LISTEN) of `/proc/net/tcp` (proc_net(5)).
fn listeners(table: &str) -> Vec<u16> {
    let listener = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    let ports: BTreeSet<u16> = table.lines().skip(1).filter_map(listener).collect();
    ports.into_iter().collect()
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
    fn a_listener_and_a_process_are_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = commands().into_iter().find(|command| command.contains("agent")).expect("this test's own process");
        let questions = Probe {
            files: vec!["/proc/self/exe".into(), "/no/such/file".into()],
            processes: vec![own, "no such process 7".into()],
            ..Probe::default()
        };
        let finding = look(&questions);
        assert!(finding.listeners.contains(&port) && finding.sees_itself);
        assert_eq!((finding.files, finding.processes), (vec![true, false], vec![true, false]));
        assert!(finding.mount_namespace != 0 && finding.process_namespace != 0);
        drop(listener);
        assert!(!look(&Probe::default()).listeners.contains(&port));
    }

    #[test]
    fn one_server_that_is_silent_keeps_no_other_from_answering() {
        // It takes connections and says nothing.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let questions =
            Probe { connect: vec![silent.local_addr().unwrap(), gone], patience: Some(50), ..Probe::default() };
        assert!(look(&questions).connects.iter().all(Result::is_err));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen(port), Err("EADDRINUSE".into()));
    }
}
