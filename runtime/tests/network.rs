//! The network objects on a real kernel: real links, real packets, real TCP. Every test has its own network namespaces,
//! which its own threads enter; the machine's own links and rules are never touched.

use isobench_runtime::network::{Configuration, Link, Mac, Namespace, Netlink, PeerNamespace, Veth, inside, sysctl};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fd::AsFd;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

type Outcome = Result<(), Failed>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("a veth and its inside carry TCP", a_veth_and_its_inside_carry_tcp),
    ("links end with their namespace", links_end_with_their_namespace),
    ("a failed step is named", a_failed_step_is_named),
];

fn main() {
    let arguments = Arguments::from_args();
    let trials = TESTS.iter().map(|(name, test)| match Namespace::create() {
        Ok(_) => Trial::test(*name, move || in_a_fresh_namespace(*test)),
        Err(error) => Trial::test(format!("{name} (needs to {error}: run as root)"), || Ok(())).with_ignored_flag(true),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Runs a test on a thread of its own in a namespace of its own.
fn in_a_fresh_namespace(test: fn() -> Outcome) -> Outcome {
    let namespace = Namespace::create()?;
    namespace.enter(test)?
}

const SOON: Duration = Duration::from_secs(2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// The inside of a container with [`GUEST`]'s address.
fn guest() -> Configuration {
    Configuration::new(&inside::Interface {
        address: GUEST,
        prefix: 24,
        gateway: HOST,
        gateway_mac: None,
        ipv6: sysctl::has_ipv6(),
    })
}

/// A bridge with [`HOST`]'s address and a container's namespace on it.
fn bridge_and_guest(segments: Option<u32>) -> Result<(Netlink, Namespace), Failed> {
    let mut host = Netlink::open()?;
    let bridge = host.create_bridge("bridge0", Mac::of(HOST))?;
    host.add_address(bridge, HOST, 24)?;
    let container = Namespace::create()?;
    let veth = Veth {
        name: "v0",
        mac: None,
        bridge: Some(bridge),
        peer_name: inside::INTERFACE_NAME,
        peer_mac: Some(Mac::of(GUEST)),
        peer_index: Some(inside::INTERFACE),
        segments,
    };
    host.create_veth(&veth, &PeerNamespace::Descriptor(container.as_fd()))?;
    container.enter(|| guest().apply())?.map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    Ok((host, container))
}

/// Listens in a namespace, for good: connections are answered with the address that the listener saw.
fn serve(namespace: &Namespace, port: u16) -> Result<(), Failed> {
    let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            if let Ok(peer) = stream.peer_addr() {
                let _ = stream.write_all(peer.ip().to_string().as_bytes());
            }
        }
    });
    Ok(())
}

/// Connects from a namespace and gives back the address that the server saw.
fn ask(namespace: &Namespace, server: (Ipv4Addr, u16)) -> Result<std::io::Result<String>, Failed> {
    Ok(namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(server), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?)
}

fn find(links: &[Link], name: &str) -> Result<Link, Failed> {
    Ok(links.iter().find(|link| link.name == name).ok_or(format!("there is no {name} among {links:?}"))?.clone())
}

fn a_veth_and_its_inside_carry_tcp() -> Outcome {
    let (mut host, container) = bridge_and_guest(None)?;
    serve(&container, 7000)?;
    assert_eq!(ask(&Namespace::current()?, (GUEST, 7000))??, HOST.to_string());

    let links = host.links()?;
    let (bridge, port) = (find(&links, "bridge0")?, find(&links, "v0")?);
    assert_eq!((bridge.kind.as_str(), port.kind.as_str()), ("bridge", "veth"));
    assert_eq!(port.bridge, Some(bridge.index));
    assert_eq!(bridge.mac, Mac::of(HOST).0);
    assert!(bridge.up && port.up && port.sent_packets > 0);

    let mut inside = Netlink::open_in(&container)?;
    let names: Vec<_> = inside.links()?.into_iter().map(|link| (link.index, link.name, link.up)).collect();
    assert_eq!(names, [(1, "lo".into(), true), (2, "eth0".into(), true)]);
    let own: Vec<_> = inside.addresses()?.into_iter().filter(|address| address.link == 2).collect();
    assert_eq!(own.len(), 1, "one address and no other, IPv6 least of all: {own:?}");
    assert_eq!((own[0].address, own[0].prefix), (GUEST.into(), 24));
    let default: Vec<_> =
        inside.routes()?.into_iter().filter(|route| route.prefix == 0 && route.gateway.is_some()).collect();
    assert_eq!(default.iter().map(|route| route.gateway).collect::<Vec<_>>(), [Some(HOST.into())]);
    Ok(())
}

fn links_end_with_their_namespace() -> Outcome {
    let (mut host, container) = bridge_and_guest(None)?;
    assert!(host.link("v0")?.is_some());
    drop(container);
    let begin = std::time::Instant::now();
    while host.link("v0")?.is_some() {
        assert!(begin.elapsed() < Duration::from_secs(10), "v0 is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn a_failed_step_is_named() -> Outcome {
    // There is no link with index 2 in a fresh namespace.
    let (step, errno) = guest().apply().unwrap_err();
    assert_eq!(errno, rustix::io::Errno::NODEV);
    assert!(matches!(step, inside::Step::NoIpv6Address | inside::Step::Address), "{step:?}");

    let mut host = Netlink::open()?;
    host.create_bridge("bridge0", Mac::of(HOST))?;
    let error = host.create_bridge("bridge0", Mac::of(HOST)).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.errno()), ("create bridge bridge0", Some(rustix::io::Errno::EXIST)));
    assert_eq!(host.add_route(GUEST, 32, HOST).unwrap_err().to_string(), "add route to 10.1.0.2/32 by 10.1.0.1");
    // The socket is in order after a failure.
    assert_eq!(host.links()?.len(), 2);
    Ok(())
}
