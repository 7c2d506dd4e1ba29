//! The network objects on a real kernel: real links, real packets, real TCP. Every test has its own network namespaces,
//! which its own threads enter; the machine's own links and rules are never touched.

#[path = "network/shared.rs"]
mod shared;

use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{
    BridgeNetwork, Configuration, Endpoint, Firewall, Link, Mac, Namespace, Netlink, Offload, PeerNamespace, Protocol,
    Tap, Veth, forget_connections, inside, sysctl,
};
use isobench_workload::Resource;
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::io::Errno;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

type Outcome = Result<(), Failed>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("a veth and its inside carry TCP", a_veth_and_its_inside_carry_tcp),
    ("links end with their namespace", links_end_with_their_namespace),
    ("a failed step is named", a_failed_step_is_named),
    ("a published port leads inside, and only while it is published", a_published_port_leads_inside),
    ("tracked connections are forgotten on request", tracked_connections_are_forgotten),
    ("nothing reaches inside unless published, even with a route", nothing_reaches_inside_unless_published),
    ("outbound traffic has the address of the host", outbound_traffic_has_the_address_of_the_host),
    ("a published port is reached from everywhere on the host", a_published_port_is_reached_from_everywhere),
    (ATTACK, loopback_of_the_host_is_closed_to_containers),
    ("two networks are apart", two_networks_are_apart),
    ("leases made at once are distinct", leases_made_at_once_are_distinct),
    ("a colliding subnet is refused", a_colliding_subnet_is_refused),
    ("a port in use is refused", a_port_in_use_is_refused),
    ("everything goes when dropped", everything_goes_when_dropped),
    ("an endpoint is released once its link has gone", an_endpoint_is_released_once_its_link_has_gone),
    ("no first packet is lost", no_first_packet_is_lost),
    ("no first packet is lost on links of one's own", no_first_packet_is_lost_on_links_of_ones_own),
    ("nothing is on the wire that nobody asked for", nothing_is_on_the_wire_that_nobody_asked_for),
    ("a tap carries frames both ways", a_tap_carries_frames_both_ways),
    ("a tap that is held goes when its place is released", a_tap_that_is_held_goes_when_its_place_is_released),
    ("packets are as large as on a wire where asked", packets_are_as_large_as_on_a_wire),
];

/// The one test that needs a program of the machine's.
const ATTACK: &str = "loopback of the host is closed to containers";

/// The program ip routes a container's 127.0.0.0/8 astray, which is nothing that the product should be able to do.
fn has_ip() -> Result<(), String> {
    let found = std::process::Command::new("ip").arg("-V").output().is_ok();
    found.then_some(()).ok_or("needs the program ip: install iproute2".into())
}

fn main() {
    if shared::hold_if_asked() {
        return;
    }
    let arguments = Arguments::from_args();
    let privileged = Namespace::create().map_err(|error| format!("needs to {error}: run as root"));
    let trials = TESTS.iter().chain(shared::TESTS).map(|(name, test)| {
        let possible = if *name == ATTACK { has_ip() } else { Ok(()) };
        match privileged.as_ref().map_err(Clone::clone).and(possible) {
            Ok(()) => Trial::test(*name, move || in_a_fresh_namespace(*test)),
            Err(reason) => Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true),
        }
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
    let ipv6 = inside::Ipv6::silent_if(sysctl::has_ipv6());
    Configuration::new(&inside::Interface { address: GUEST, prefix: 24, gateway: Some(HOST), mtu: None, ipv6 })
}

/// A bridge with [`HOST`]'s address and a container's namespace on it.
fn bridge_and_guest(segments: Option<u32>) -> Result<(Netlink, Namespace), Failed> {
    let mut host = Netlink::open()?;
    let bridge = host.create_bridge("bridge0", Mac::of(HOST))?;
    host.add_address(bridge, HOST, 24)?;
    let container = Namespace::create()?;
    let veth = Veth {
        name: "veth0",
        mac: None,
        bridge: Some(bridge),
        hairpin: false,
        peer_name: inside::INTERFACE_NAME,
        peer_mac: Some(Mac::of(GUEST)),
        peer_index: Some(inside::INTERFACE),
        segments,
    };
    host.create_veth(&veth, &PeerNamespace::from(&container))?;
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

const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NO_SEGMENTS: Option<u32> = None;

/// The calling thread's namespace as a host with an uplink, and the namespace of a client outside.
fn host_and_outside() -> Result<(Namespace, Namespace), Failed> {
    let mut host = Netlink::open()?;
    let outside = Namespace::create()?;
    let mut client = Netlink::open_in(&outside)?;
    let veth = Veth {
        name: "uplink",
        mac: None,
        bridge: None,
        hairpin: false,
        peer_name: "uplink",
        peer_mac: None,
        peer_index: None,
        segments: None,
    };
    host.create_veth(&veth, &PeerNamespace::from(&outside))?;
    for (side, address) in [(&mut host, UPLINK), (&mut client, OUTSIDE)] {
        let index = side.index("uplink")?;
        side.add_address(index, address, 24)?;
        side.bring_up(index)?;
        side.bring_up(inside::LOOPBACK)?;
    }
    Ok((Namespace::current()?, outside))
}

/// A container on a network: its place there and its namespace.
fn launch(network: &BridgeNetwork) -> Result<(Endpoint, Namespace), Failed> {
    let (endpoint, container) = (network.endpoint()?, Namespace::create()?);
    endpoint.attach(&PeerNamespace::from(&container))?;
    let configured = container.enter(|| endpoint.configuration().apply())?;
    configured.map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    endpoint.await_carrier()?;
    Ok((endpoint, container))
}

/// What a leak check looks at: links, addresses and routes of a namespace, and whether it forwards packets.
fn state_of(namespace: &Namespace) -> Result<String, Failed> {
    let mut netlink = Netlink::open_in(namespace)?;
    let links: Vec<_> = netlink.links()?.into_iter().map(|link| (link.name, link.kind, link.up, link.bridge)).collect();
    let (mut addresses, mut routes) = (netlink.addresses()?, netlink.routes()?);
    // Without the IPv6 of the uplink, which comes by and by.
    addresses.retain(|address| address.address.is_ipv4());
    routes.retain(|route| route.destination.is_ipv4());
    let forwarding = sysctl::read(namespace, "ipv4/ip_forward")?;
    Ok(format!("{links:?}\n{addresses:?}\n{routes:?}\nforwarding {forwarding}"))
}

/// Whether connecting fails for lack of an answer or of a listener: not for some other reason.
fn refused(answer: std::io::Result<String>) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, TimedOut};
    matches!(answer, Err(error) if matches!(error.kind(), ConnectionRefused | HostUnreachable | TimedOut))
}

fn a_veth_and_its_inside_carry_tcp() -> Outcome {
    let (mut host, container) = bridge_and_guest(None)?;
    serve(&container, 7000)?;
    assert_eq!(ask(&Namespace::current()?, (GUEST, 7000))??, HOST.to_string());

    let links = host.links()?;
    let (bridge, port) = (find(&links, "bridge0")?, find(&links, "veth0")?);
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
    assert!(host.link("veth0")?.is_some());
    drop(container);
    let begin = Instant::now();
    while host.link("veth0")?.is_some() {
        assert!(begin.elapsed() < Duration::from_secs(10), "veth0 is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn a_failed_step_is_named() -> Outcome {
    // There is no link with index 2 in a fresh namespace.
    let (step, errno) = guest().apply().unwrap_err();
    assert_eq!(errno, Errno::NODEV);
    assert!(matches!(step, inside::Step::NoIpv6Address | inside::Step::Address), "{step:?}");

    let mut host = Netlink::open()?;
    host.create_bridge("bridge0", Mac::of(HOST))?;
    let error = host.create_bridge("bridge0", Mac::of(HOST)).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.errno()), ("create bridge bridge0", Some(Errno::EXIST)));
    assert_eq!(host.add_route(GUEST, 32, HOST).unwrap_err().to_string(), "add route to 10.1.0.2/32 by 10.1.0.1");
    // The socket is in order after a failure.
    assert_eq!(host.links()?.len(), 2);
    Ok(())
}

fn a_published_port_leads_inside() -> Outcome {
    let (_host, outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (endpoint, container) = launch(&network)?;
    serve(&container, 7000)?;
    assert_eq!(endpoint.address(), Ipv4Addr::new(172, 17, 0, 2));

    let port = || ask(&outside, (UPLINK, 8080));
    assert!(refused(port()?));
    let published = firewall.publish(Protocol::Tcp, 8080, SocketAddrV4::new(endpoint.address(), 7000))?;
    assert_eq!(port()??, OUTSIDE.to_string(), "the container sees who it is that connects");
    assert_eq!(published.describe(), "published TCP port 8080 to 172.17.0.2:7000");
    Box::new(published).release().map_err(|error| error.to_string())?;
    assert!(refused(port()?));
    Ok(())
}

fn tracked_connections_are_forgotten() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (endpoint, container) = launch(&network)?;
    serve(&container, 7000)?;
    let _published = firewall.publish(Protocol::Tcp, 8080, SocketAddrV4::new(endpoint.address(), 7000))?;
    assert_eq!(ask(&outside, (UPLINK, 8080))??, OUTSIDE.to_string());
    let tracked = || sysctl::read(&host, "netfilter/nf_conntrack_count");
    assert_ne!(tracked()?, "0", "a closed connection is remembered for a while");
    forget_connections()?;
    assert_eq!(tracked()?, "0");
    assert_eq!(ask(&outside, (UPLINK, 8080))??, OUTSIDE.to_string(), "the port still leads inside");
    Ok(())
}

fn nothing_reaches_inside_unless_published() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::custom())?;
    let (endpoint, container) = launch(&network)?;
    serve(&container, 7000)?;
    Netlink::open_in(&outside)?.add_route(Ipv4Addr::new(10, 89, 0, 0), 24, UPLINK)?;
    assert!(refused(ask(&outside, (endpoint.address(), 7000))?));
    assert_eq!(ask(&host, (endpoint.address(), 7000))??, "10.89.0.1", "the host itself gets in");

    // The control: a bridge that was not admitted is reached by the same way.
    drop((endpoint, network));
    let (_netlink, container) = bridge_and_guest(None)?;
    serve(&container, 7000)?;
    Netlink::open_in(&outside)?.add_route(Ipv4Addr::new(10, 1, 0, 0), 24, UPLINK)?;
    assert_eq!(ask(&outside, (GUEST, 7000))??, OUTSIDE.to_string());
    Ok(())
}

fn outbound_traffic_has_the_address_of_the_host() -> Outcome {
    let (_host, outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    serve(&outside, 7000)?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (_endpoint, container) = launch(&network)?;
    assert_eq!(ask(&container, (OUTSIDE, 7000))??, UPLINK.to_string());

    // The control: without NAT, and with a way back, the container's own address is seen.
    let bare = BridgeNetwork::create(&firewall, Settings { nat: false, ..Settings::custom() })?;
    let (endpoint, container) = launch(&bare)?;
    Netlink::open_in(&outside)?.add_route(Ipv4Addr::new(10, 89, 0, 0), 24, UPLINK)?;
    assert_eq!(ask(&container, (OUTSIDE, 7000))??, endpoint.address().to_string());
    Ok(())
}

fn a_published_port_is_reached_from_everywhere() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    // Once as the machine has it, once with bridged packets kept from the firewall (the same, where br_netfilter is not
    // loaded).
    for spare in [false, true] {
        let spared = if spare { sysctl::spare_bridged_packets(&host)? } else { None };
        let filtered = sysctl::filters_bridged_packets(&host);
        assert!(!(spare && filtered));
        let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
        let (endpoint, container) = launch(&network)?;
        let (_other, neighbour) = launch(&network)?;
        serve(&container, 7000)?;
        let _published = firewall.publish(Protocol::Tcp, 8080, SocketAddrV4::new(endpoint.address(), 7000))?;
        for address in [UPLINK, Ipv4Addr::LOCALHOST, Ipv4Addr::new(172, 17, 0, 1)] {
            assert!(ask(&host, (address, 8080))?.is_ok(), "from the host by {address}");
        }
        // By the host's address from the network itself, and from the very container that serves (hairpin).
        for (who, namespace) in [("a neighbour", &neighbour), ("itself", &container)] {
            let seen = ask(namespace, (UPLINK, 8080))?
                .map_err(|error| format!("from {who}: {error}, filtered: {filtered}"))?;
            assert_eq!(seen, "172.17.0.1", "from {who}");
        }
        drop(spared);
    }
    Ok(())
}

fn loopback_of_the_host_is_closed_to_containers() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (_endpoint, container) = launch(&network)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000))?;
    listener.set_nonblocking(true)?;
    // A container that sends to 127.0.0.1 by its gateway, as whoever has CAP_NET_ADMIN inside can.
    sysctl::write(&container, "ipv4/conf/all/route_localnet", "1")?;
    sysctl::write(&container, "ipv4/conf/eth0/route_localnet", "1")?;
    let status = container.enter(|| {
        let ip = |arguments: &str| std::process::Command::new("ip").args(arguments.split(' ')).status();
        ip("route del local 127.0.0.0/8 dev lo table local")?;
        ip("route del local 127.0.0.1 dev lo table local")?;
        ip("route add 127.0.0.0/8 via 172.17.0.1 src 172.17.0.2")
    });
    if !status?.is_ok_and(|status| status.success()) {
        return Err("ip has failed".into());
    }
    let sent = Netlink::open_in(&container)?.link("eth0")?.map(|link| link.sent_packets);
    assert!(refused(ask(&container, (Ipv4Addr::LOCALHOST, 9000))?));
    let now = Netlink::open_in(&container)?.link("eth0")?.map(|link| link.sent_packets);
    assert!(now > sent, "the attack was sent: {sent:?} {now:?}");
    assert!(listener.accept().is_err());
    // The control: the listener is in order.
    assert!(host.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9000)))?.is_ok());
    Ok(())
}

fn two_networks_are_apart() -> Outcome {
    let (_host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let (one, other) = (
        BridgeNetwork::create(&firewall, Settings::default_bridge())?,
        BridgeNetwork::create(&firewall, Settings::custom())?,
    );
    let (a, a_namespace) = launch(&one)?;
    let (b, b_namespace) = launch(&one)?;
    let (c, c_namespace) = launch(&other)?;
    for namespace in [&a_namespace, &b_namespace, &c_namespace] {
        serve(namespace, 7000)?;
    }
    assert_eq!(c.address(), Ipv4Addr::new(10, 89, 0, 2));
    assert!(refused(ask(&a_namespace, (c.address(), 7000))?));
    assert!(refused(ask(&c_namespace, (a.address(), 7000))?));
    // The control: within a network they reach each other.
    assert_eq!(ask(&a_namespace, (b.address(), 7000))??, a.address().to_string());
    Ok(())
}

fn leases_made_at_once_are_distinct() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let launched: Result<Vec<_>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..20).map(|_| scope.spawn(|| launch(&network).map_err(|error| format!("{error:?}")))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a launch panicked".to_owned())?).collect()
    });
    let launched = launched?;
    let mut addresses: Vec<_> = launched.iter().map(|(endpoint, _)| endpoint.address()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    assert_eq!(network.pool().leased()?, 20);
    for (endpoint, namespace) in &launched {
        serve(namespace, 7000)?;
        assert_eq!(ask(&host, (endpoint.address(), 7000))??, "172.17.0.1");
    }
    drop(launched);
    assert_eq!(network.pool().leased()?, 0);
    Ok(())
}

fn a_colliding_subnet_is_refused() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let before = state_of(&host)?;
    let settings = Settings {
        subnet: "198.51.0.0/16".parse()?,
        gateway: Ipv4Addr::new(198, 51, 0, 1),
        ..Settings::default_bridge()
    };
    let error = BridgeNetwork::create(&firewall, settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        "subnet 198.51.0.0/16 collides with the route to 198.51.100.0/24 over uplink: choose another subnet"
    );
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let settings = Settings { bridge: "bridge1".into(), ..Settings::default_bridge() };
    assert!(BridgeNetwork::create(&firewall, settings).unwrap_err().to_string().contains("over bridge0"));
    // A bridge of that name is there: the network's place in the firewall is given back.
    let settings = Settings { bridge: "uplink".into(), ..Settings::custom() };
    assert_eq!(BridgeNetwork::create(&firewall, settings).unwrap_err().to_string(), "create bridge uplink");
    drop(network);
    assert_eq!(state_of(&host)?, before);
    Ok(())
}

fn a_port_in_use_is_refused() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (endpoint, container) = launch(&network)?;
    serve(&container, 7000)?;
    let target = SocketAddrV4::new(endpoint.address(), 7000);

    // A program of the host's listens: refused, and it keeps its port.
    serve(&host, 8080)?;
    let error = firewall.publish(Protocol::Tcp, 8080, target).unwrap_err();
    assert!(error.to_string().starts_with("TCP port 8080 is in use by a program of this machine"), "{error}");
    assert_eq!(ask(&outside, (UPLINK, 8080))??, OUTSIDE.to_string());

    // Published already: refused, and the first stays.
    let published = firewall.publish(Protocol::Tcp, 8081, target)?;
    let error = firewall.publish(Protocol::Tcp, 8081, target).unwrap_err();
    assert!(error.to_string().starts_with("TCP port 8081 is published already"), "{error}");
    assert!(ask(&outside, (UPLINK, 8081))?.is_ok());
    // The other protocol's port of that number is another port.
    drop(firewall.publish(Protocol::Udp, 8081, target)?);

    // No program can listen on what is published, even one that allows others to have the port too; afterwards it can, and
    // a connection that ended a moment ago is no obstacle to publishing it again.
    let taken = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)))?;
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(published);
    let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)))??;
    let client = host.enter(|| TcpStream::connect((UPLINK, 8081)))??;
    let (served, _) = listener.accept()?;
    // The end that closes first keeps the port in TIME_WAIT.
    drop(served);
    std::thread::sleep(Duration::from_millis(20));
    drop((client, listener));
    let _published = firewall.publish(Protocol::Tcp, 8081, target)?;
    assert!(ask(&outside, (UPLINK, 8081))?.is_ok());
    Ok(())
}

fn everything_goes_when_dropped() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let before = state_of(&host)?;
    let firewall = Firewall::create("isobench")?;
    assert_eq!(Firewall::create("isobench").unwrap_err().to_string(), "create nftables table isobench");
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (endpoint, container) = launch(&network)?;
    let published = firewall.publish(Protocol::Tcp, 8080, SocketAddrV4::new(endpoint.address(), 7000))?;
    assert_ne!(state_of(&host)?, before);
    drop(container);
    Box::new(published).release().map_err(|error| error.to_string())?;
    Box::new(endpoint).release().map_err(|error| error.to_string())?;
    drop(network);
    drop(firewall);
    assert_eq!(state_of(&host)?, before);
    // The table's name is free again, so the table is gone.
    drop(Firewall::create("isobench")?);
    Ok(())
}

fn an_endpoint_is_released_once_its_link_has_gone() -> Outcome {
    let (_host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (endpoint, container) = launch(&network)?;
    let link = endpoint.link().ok_or("the endpoint has no link")?.to_owned();
    let mut netlink = Netlink::open()?;
    assert_eq!(endpoint.describe(), format!("address 172.17.0.2 and link {link}"));
    assert_eq!(netlink.link(&link)?.and_then(|link| link.bridge), Some(network.bridge()));
    // Nobody has sent it anything, and the host need not ask for it.
    let known = || std::fs::read_to_string("/proc/thread-self/net/arp");
    let entry = known()?.lines().find(|line| line.starts_with("172.17.0.2 ")).map(str::to_owned);
    let entry = entry.ok_or("the host does not know the container's link-layer address")?;
    assert!(entry.contains(&endpoint.mac().to_string()) && entry.ends_with("bridge0"), "{entry}");
    drop(container);
    Box::new(endpoint).release().map_err(|error| error.to_string())?;
    assert!(netlink.link(&link)?.is_none());
    assert_eq!(network.pool().leased()?, 0);
    assert!(!known()?.contains("172.17.0.2 "), "an entry is left");
    Ok(())
}

/// Sends bytes and sees that they have arrived.
fn transfer(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.write_all(&vec![1; bytes]));
        to.read_exact(&mut vec![0; bytes])?;
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn packets_are_as_large_as_on_a_wire() -> Outcome {
    const BYTES: usize = 4 << 20;
    // Payload of a packet: 1500 less 20 for IP, 20 for TCP and 12 for its timestamps.
    const PAYLOAD: usize = 1448;
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let mut packets = Vec::new();
    for segments in [Some(1), NO_SEGMENTS] {
        let network = BridgeNetwork::create(&firewall, Settings { segments, ..Settings::default_bridge() })?;
        let (endpoint, container) = launch(&network)?;
        let listener = container.enter(|| TcpListener::bind((endpoint.address(), 7000)))??;
        let mut client = host.enter(|| TcpStream::connect((endpoint.address(), 7000)))??;
        let (mut server, _) = listener.accept()?;
        transfer(&mut client, &mut server, BYTES)?;
        transfer(&mut server, &mut client, BYTES)?;
        let link = Netlink::open_in(&container)?.link("eth0")?.ok_or("there is no eth0")?;
        packets.push((link.received_packets as usize, link.sent_packets as usize));
    }
    let whole = BYTES / PAYLOAD;
    let ((wire_in, wire_out), (large_in, large_out)) = (packets[0], packets[1]);
    assert!(wire_in >= whole && wire_out >= whole, "{packets:?} against {whole}");
    assert!(large_in < whole / 2 && large_out < whole / 2, "{packets:?} against {whole}");
    Ok(())
}

fn a_tap_carries_frames_both_ways() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (tap, endpoint) = network.tap(Offload::Segmentation)?;
    let mut netlink = Netlink::open()?;
    let link = netlink.link(endpoint.link())?.ok_or("there is no tap")?;
    assert_eq!((link.kind.as_str(), link.up, link.bridge), ("tun", true, Some(network.bridge())));

    // The host sends a datagram; the guest, which is us, is asked for its link-layer address first.
    let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.send_to(b"ping", (endpoint.address(), 9))?;
    let (own, gateway) = (endpoint.mac().0, Mac::of(network.settings().gateway).0);
    let request = frame(&tap, [0x08, 0x06])?;
    assert_eq!(request[6..12], gateway, "the bridge asks");
    assert_eq!(request[38..42], endpoint.address().octets(), "for us");
    let mut answer = vec![0; Tap::HEADER];
    answer.extend([gateway, own].concat());
    answer.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend(
        [own.as_slice(), &endpoint.address().octets(), &gateway, &network.settings().gateway.octets()].concat(),
    );
    rustix::io::write(&tap, &answer)?;
    let datagram = frame(&tap, [0x08, 0x00])?;
    assert_eq!(datagram[..6], own);
    assert_eq!(&datagram[42..46], b"ping");

    // While it is held the link stays; with its last descriptor it goes, and the address is free again.
    assert_eq!(endpoint.describe(), format!("address 172.17.0.2 and tap {}", link.name));
    let descriptor = rustix::fd::OwnedFd::from(tap);
    assert!(netlink.link(&link.name)?.is_some());
    drop(descriptor);
    Box::new(endpoint).release().map_err(|error| error.to_string())?;
    assert!(netlink.link(&link.name)?.is_none());
    assert_eq!(network.pool().leased()?, 0);
    Ok(())
}

fn a_tap_that_is_held_goes_when_its_place_is_released() -> Outcome {
    let _outside = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (tap, mut endpoint) = network.tap(Offload::Segmentation)?;
    endpoint.hold(&tap)?;
    let (mut netlink, name) = (Netlink::open()?, endpoint.link().to_owned());
    // The monitor has ended.
    drop(tap);
    assert!(netlink.link(&name)?.is_some());
    let aftermath = Box::new(endpoint).release().map_err(|error| error.to_string())?;
    assert!(netlink.link(&name)?.is_none());
    assert_eq!(network.pool().leased()?, 0);
    aftermath.ok_or("nothing was left to wait for")?.wait();
    Ok(())
}

/// The next frame of this type that comes out of a tap, without its header.
fn frame(tap: &Tap, kind: [u8; 2]) -> Result<Vec<u8>, Failed> {
    let begin = Instant::now();
    let mut buffer = vec![0; 2048];
    while begin.elapsed() < SOON {
        match rustix::io::read(tap, &mut buffer) {
            Ok(length) if buffer[Tap::HEADER + 12..][..2] == kind => return Ok(buffer[Tap::HEADER..length].to_vec()),
            Ok(_) => {}
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err("no such frame came".into())
}

/// The kernel sends a lost first packet again after a second.
const LOST: Duration = Duration::from_millis(900);

fn no_first_packet_is_lost_on_links_of_ones_own() -> Outcome {
    (0..30).try_for_each(|_| in_a_fresh_namespace(a_first_packet_arrives))
}

fn a_first_packet_arrives() -> Outcome {
    let (mut host, container) = bridge_and_guest(None)?;
    host.await_carrier("veth0")?;
    host.await_carrier("bridge0")?;
    let _listener = container.enter(|| TcpListener::bind((GUEST, 7000)))??;
    let begin = Instant::now();
    TcpStream::connect((GUEST, 7000))?;
    assert!(begin.elapsed() < LOST, "{:?}", begin.elapsed());
    Ok(())
}

fn no_first_packet_is_lost() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    for round in 0..30 {
        let (endpoint, container) = launch(&network)?;
        let listener = container.enter(|| TcpListener::bind((endpoint.address(), 7000)))??;
        let begin = Instant::now();
        let stream = host.enter(|| TcpStream::connect((endpoint.address(), 7000)))??;
        assert!(begin.elapsed() < LOST, "container {round}: {:?}", begin.elapsed());
        drop((stream, listener));

        let (tap, endpoint) = network.tap(Offload::None)?;
        let socket = host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let begin = Instant::now();
        socket.send_to(b"ping", (endpoint.address(), 9))?;
        frame(&tap, [0x08, 0x06])?;
        assert!(begin.elapsed() < LOST, "tap {round}: {:?}", begin.elapsed());
    }
    Ok(())
}

fn nothing_is_on_the_wire_that_nobody_asked_for() -> Outcome {
    let (_host, _outside) = host_and_outside()?;
    let firewall = Firewall::create("isobench")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let (_endpoint, container) = launch(&network)?;
    // IPv6 would have announced itself seven times by then.
    std::thread::sleep(Duration::from_secs(3));
    let link = Netlink::open_in(&container)?.link("eth0")?.ok_or("there is no eth0")?;
    assert_eq!((link.received_packets, link.sent_packets), (0, 0));
    Ok(())
}
