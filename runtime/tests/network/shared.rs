//! Networks that several processes share: each test has its own namespaces, and its holders are processes of their own that
//! can be killed at any step.

use super::{OUTSIDE, Outcome, SOON, Test, UPLINK, ask, host_and_outside, refused, serve, state_of};
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{
    BridgeNetwork, Configuration, Endpoint, EndpointSettings, Firewall, LockFile, Mac, Namespace, Netlink,
    NetworkError, PeerNamespace, Protocol, Redirection, sysctl,
};
use isobench_workload::Resource;
use libtest_mimic::Failed;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) const TESTS: &[Test] = &[
    ("a shared network is made once, opened by all and leaves nothing", a_shared_network_leaves_nothing),
    ("twenty processes at once never share an address", twenty_processes_never_share_an_address),
    ("a holder that is killed gives its address and port back", a_killed_holder_gives_everything_back),
    ("a full pool is refused until one goes", a_full_pool_is_refused),
    ("an interrupted network is made anew", an_interrupted_network_is_made_anew),
    ("ports are published by number, range and address, by TCP and UDP", ports_are_published_in_every_form),
    ("a port that is published anew leads its old clients too", a_port_leads_its_old_clients_anew),
    ("a port that another process has is refused with its reason", a_port_of_another_process_is_refused),
    ("range, gateway, address, MAC and MTU are as asked for", a_network_is_as_asked_for),
    ("an internal network has no way out", an_internal_network_has_no_way_out),
    ("a running container is connected and disconnected", a_running_container_is_connected),
    ("IPv6 goes in, out and apart", ipv6_goes_in_out_and_apart),
];

const TABLE: &str = "isobench_shared";

/// Set for a process that only holds something; says where the state is and how far to go.
const HOLDER: &str = "ISOBENCH_TEST_HOLDER";

/// What the tests' processes share.
struct State(TempDir);

impl State {
    fn new() -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        LockFile::create(&directory.path().join("ports"))?;
        LockFile::create(&directory.path().join("leases"))?;
        Ok(Self(directory))
    }

    fn establish(&self, settings: Settings) -> Result<BridgeNetwork, Failed> {
        let firewall = Firewall::establish(TABLE, ports(self.0.path()))?;
        Ok(BridgeNetwork::establish(&firewall, settings, self.leases("leases"))?)
    }

    /// A second network beside the first.
    fn establish_beside(&self, network: &BridgeNetwork, settings: Settings) -> Result<BridgeNetwork, Failed> {
        LockFile::create(&self.0.path().join("more"))?;
        Ok(BridgeNetwork::establish(network.firewall(), settings, self.leases("more"))?)
    }

    fn leases(&self, name: &str) -> LockFile {
        LockFile::at(&self.0.path().join(name))
    }

    fn hold(&self, step: &str) -> Result<Holder, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(HOLDER, format!("{} {step}", self.0.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the holder has no output")?;
        Ok(Holder { child, output: BufReader::new(output) })
    }
}

fn ports(directory: &Path) -> LockFile {
    LockFile::at(&directory.join("ports"))
}

/// A process that holds an endpoint.
struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    /// The address that it holds, once it is as far as it should go.
    fn address(&mut self) -> Result<Ipv4Addr, Failed> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().map_err(|_| format!("the holder says {line:?}").into())
    }

    fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What such a process does; it ends when its standard input does. False if this is no such process.
pub(crate) fn hold_if_asked() -> bool {
    let Ok(order) = std::env::var(HOLDER) else { return false };
    let (directory, step) = order.rsplit_once(' ').unwrap_or_default();
    let held = held(Path::new(directory), step);
    let line = match &held {
        Ok((endpoint, _)) => endpoint.address().to_string(),
        Err(error) => format!("{error:?}"),
    };
    println!("{line}");
    let _ = std::io::stdin().read_line(&mut String::new());
    true
}

fn held(directory: &Path, step: &str) -> Result<(Endpoint, Box<dyn std::any::Any>), Failed> {
    let firewall = Firewall::shared(TABLE, ports(directory))?;
    let network = BridgeNetwork::open(&firewall, settings(), LockFile::at(&directory.join("leases")))?;
    let endpoint = network.endpoint()?;
    let more: Box<dyn std::any::Any> = match step {
        "leased" => Box::new(()),
        "reserved" => Box::new(firewall.reserve(vec![tcp(8080, &endpoint)])?),
        "published" => Box::new(firewall.publish_all(vec![tcp(8080, &endpoint)])?),
        "attached" => {
            let container = Namespace::create()?;
            endpoint.attach(&PeerNamespace::from(&container))?;
            Box::new((container, firewall.publish_all(vec![tcp(8080, &endpoint)])?))
        }
        other => return Err(format!("there is no step {other}").into()),
    };
    Ok((endpoint, more))
}

/// Answers connections as [`serve`] does, until this is dropped: a listener would keep its namespace from going.
struct Serving(TcpListener, Option<std::thread::JoinHandle<()>>);

impl Serving {
    fn new(namespace: &Namespace) -> Result<Self, Failed> {
        let listener = namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)))??;
        let own = listener.try_clone()?;
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = own.accept() {
                let _ = stream.write_all(peer.ip().to_string().as_bytes());
            }
        });
        Ok(Self(listener, Some(thread)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
        self.1.take().map(std::thread::JoinHandle::join);
    }
}

fn settings() -> Settings {
    Settings { bridge: "br-shared".into(), ..Settings::custom() }
}

fn tcp(port: u16, endpoint: &Endpoint) -> Redirection {
    let target = SocketAddr::new(endpoint.address().into(), 7000);
    Redirection { protocol: Protocol::Tcp, host: None, port, target }
}

fn launch(network: &BridgeNetwork, asked: &EndpointSettings) -> Result<(Endpoint, Namespace), Failed> {
    let (endpoint, container) = (network.endpoint_with(asked)?, Namespace::create()?);
    endpoint.attach(&PeerNamespace::from(&container))?;
    let configured = container.enter(|| endpoint.configuration().apply())?;
    configured.map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    endpoint.await_carrier()?;
    Ok((endpoint, container))
}

/// A container that runs without a network, as the mode `none` has it.
fn without_network() -> Result<Namespace, Failed> {
    let container = Namespace::create()?;
    container
        .enter(|| Configuration::loopback().apply())?
        .map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    Ok(container)
}

/// Takes a network down whose users are gone, and the table.
fn dismantle(network: BridgeNetwork) -> Outcome {
    let (firewall, settings) = (network.firewall().clone(), network.settings().clone());
    drop(network);
    BridgeNetwork::dismantle(&firewall, &settings)?;
    firewall.remove()?;
    Ok(())
}

fn a_shared_network_leaves_nothing() -> Outcome {
    let (host, outside) = host_and_outside()?;
    sysctl::write(&host, "ipv4/ip_forward", "1")?;
    let (before, state) = (state_of(&host)?, State::new()?);
    let made = state.establish(settings())?;
    let opened = BridgeNetwork::open(made.firewall(), settings(), state.leases("leases"))?;
    // What was opened is no owner: the bridge stays when it goes.
    let (one, container) = launch(&opened, &EndpointSettings::default())?;
    let (two, other) = launch(&made, &EndpointSettings::default())?;
    assert_ne!(one.address(), two.address());
    let serving = Serving::new(&container)?;
    assert_eq!(ask(&other, (one.address(), 7000))??, two.address().to_string());
    drop((made, opened));
    assert_eq!(ask(&other, (one.address(), 7000))??, two.address().to_string());
    let link = one.link().ok_or("there is no link")?.to_owned();
    assert!(link.starts_with('v') && link.ends_with("-2"), "named by the address: {link}");

    let network = one.network().clone();
    let published = network.firewall().publish_all(vec![tcp(8080, &one)])?;
    assert_eq!(ask(&outside, (UPLINK, 8080))??, OUTSIDE.to_string());
    drop((serving, container, other, published));
    Box::new(one).release().map_err(|error| error.to_string())?;
    Box::new(two).release().map_err(|error| error.to_string())?;
    assert_eq!(network.pool().leased()?, 0);
    dismantle(network)?;
    assert_eq!(state_of(&host)?, before);
    // The table's name is free again.
    drop(Firewall::create(TABLE)?);
    Ok(())
}

fn twenty_processes_never_share_an_address() -> Outcome {
    let (_host, _outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    let mut holders = (0..20).map(|_| state.hold("leased")).collect::<Result<Vec<_>, _>>()?;
    let mut addresses = holders.iter_mut().map(Holder::address).collect::<Result<Vec<_>, _>>()?;
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    assert_eq!(network.pool().leased()?, 20);
    drop(holders);
    assert_eq!(network.pool().leased()?, 0);
    dismantle(network)
}

fn a_killed_holder_gives_everything_back() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    let firewall = network.firewall().clone();
    for step in ["leased", "reserved", "published", "attached"] {
        let mut holder = state.hold(step)?;
        let address = holder.address()?;
        assert!(matches!(network.pool().lease_address(address), Err(NetworkError::AddressInUse { .. })), "{step}");
        let has_port = step != "leased";
        assert_eq!(host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)))?.is_err(), has_port, "{step}");
        holder.kill()?;
        assert_eq!(network.pool().leased()?, 0, "{step}");
        let asked = EndpointSettings { address: Some(address), mac: None };
        let (endpoint, container) = launch(&network, &asked)?;
        let serving = Serving::new(&container)?;
        // What it has left in the table is either taken over by who publishes next …
        let published = firewall.publish_all(vec![tcp(8080, &endpoint)])?;
        assert_eq!(ask(&outside, (UPLINK, 8080))??, OUTSIDE.to_string(), "{step}");
        drop(published);
        assert!(refused(ask(&outside, (UPLINK, 8080))?), "{step}");

        // … or taken away by who finds it, and nothing of the living is.
        let mut holder = state.hold("published")?;
        holder.address()?;
        let dead = tcp(8080, &endpoint);
        let living = firewall.publish_all(vec![tcp(8081, &endpoint)])?;
        firewall.forget(&[dead, tcp(8081, &endpoint)])?;
        assert_eq!(ask(&outside, (UPLINK, 8081))??, OUTSIDE.to_string(), "{step}");
        holder.kill()?;
        firewall.forget(&[dead])?;
        // A program of the host's has the port again, and is reached.
        let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)))??;
        outside.enter(|| TcpStream::connect_timeout(&SocketAddr::from((UPLINK, 8080)), SOON))??;
        drop((listener, living, serving, container));
        Box::new(endpoint).release().map_err(|error| error.to_string())?;
    }
    dismantle(network)
}

fn a_full_pool_is_refused() -> Outcome {
    let (_host, _outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(Settings { subnet: "10.89.0.0/29".parse()?, ..settings() })?;
    let mut leases = (0..5).map(|_| network.pool().lease()).collect::<Result<Vec<_>, _>>()?;
    assert!(matches!(network.endpoint(), Err(NetworkError::Exhausted(_))));
    let gone = leases.swap_remove(2).address();
    assert_eq!(network.endpoint()?.address(), gone);
    drop(leases);
    dismantle(network)
}

fn an_interrupted_network_is_made_anew() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    sysctl::write(&host, "ipv4/ip_forward", "1")?;
    let (before, state) = (state_of(&host)?, State::new()?);
    // Rules and bridge are there, and whoever made them believes that nothing is.
    drop(state.establish(settings())?);
    let network = state.establish(settings())?;
    let (endpoint, container) = launch(&network, &EndpointSettings::default())?;
    let serving = Serving::new(&container)?;
    assert_eq!(ask(&host, (endpoint.address(), 7000))??, "10.89.0.1");
    drop((serving, container));
    Box::new(endpoint).release().map_err(|error| error.to_string())?;
    dismantle(network)?;
    assert_eq!(state_of(&host)?, before);
    // One whose bridge is gone cannot be opened, and says so by its error number.
    let firewall = Firewall::establish(TABLE, ports(state.0.path()))?;
    let error = BridgeNetwork::open(&firewall, settings(), state.leases("leases")).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::NODEV), "{error}");
    firewall.remove()?;
    Ok(())
}

/// Sends a datagram from a namespace and gives back who the answer says has asked.
fn ask_by_datagram(namespace: &Namespace, server: SocketAddr) -> Result<std::io::Result<String>, Failed> {
    Ok(namespace.enter(|| {
        let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(SOON / 4))?;
        socket.connect(server)?;
        socket.send(b"who am I?")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    })?)
}

fn serve_datagrams(namespace: &Namespace, address: IpAddr, port: u16) -> Outcome {
    let socket = namespace.enter(|| UdpSocket::bind((address, port)))??;
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, asker)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(asker.ip().to_string().as_bytes(), asker);
        }
    });
    Ok(())
}

fn ports_are_published_in_every_form() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    let firewall = network.firewall();
    let (endpoint, container) = launch(&network, &EndpointSettings::default())?;
    let (_neighbour, other) = launch(&network, &EndpointSettings::default())?;
    for port in 7000..7003 {
        serve(&container, port)?;
    }
    serve_datagrams(&container, endpoint.address().into(), 7000)?;
    let target = |port| SocketAddr::new(endpoint.address().into(), port);
    let to = |protocol, host: Option<IpAddr>, port, inner| Redirection { protocol, host, port, target: target(inner) };

    // A range by one transaction, and UDP, from everywhere.
    let range = (0..3).map(|index| to(Protocol::Tcp, None, 9000 + index, 7000 + index)).collect();
    let published = firewall.publish_all(range)?;
    let datagrams = firewall.publish_all(vec![to(Protocol::Udp, None, 9000, 7000)])?;
    for port in 9000..9003 {
        assert_eq!(ask(&outside, (UPLINK, port))??, OUTSIDE.to_string());
    }
    for (who, namespace, address) in [
        ("outside", &outside, UPLINK),
        ("the host", &host, UPLINK),
        ("the host by 127.0.0.1", &host, Ipv4Addr::LOCALHOST),
        ("a neighbour", &other, UPLINK),
        ("itself", &container, UPLINK),
    ] {
        let answer = ask_by_datagram(namespace, SocketAddr::new(address.into(), 9000))?;
        answer.map_err(|error| format!("UDP from {who}: {error}"))?;
        ask(namespace, (address, 9001))?.map_err(|error| format!("TCP from {who}: {error}"))?;
    }
    drop((published, datagrams));
    assert!(refused(ask(&outside, (UPLINK, 9001))?));

    // At one address of the host alone.
    let own = firewall.publish_all(vec![to(Protocol::Tcp, Some(Ipv4Addr::LOCALHOST.into()), 9000, 7000)])?;
    assert!(ask(&host, (Ipv4Addr::LOCALHOST, 9000))?.is_ok());
    assert!(refused(ask(&outside, (UPLINK, 9000))?));
    // Another one has the same number at another address.
    let uplink = firewall.publish_all(vec![to(Protocol::Tcp, Some(UPLINK.into()), 9000, 7001)])?;
    assert_eq!(ask(&outside, (UPLINK, 9000))??, OUTSIDE.to_string());
    drop(own);
    assert!(refused(ask(&host, (Ipv4Addr::LOCALHOST, 9000))?));
    assert!(ask(&outside, (UPLINK, 9000))?.is_ok());
    drop(uplink);
    let nowhere = to(Protocol::Tcp, Some(Ipv4Addr::new(192, 0, 2, 77).into()), 9000, 7000);
    let error = firewall.publish_all(vec![nowhere]).unwrap_err().to_string();
    assert!(error.starts_with("192.0.2.77 is no address of this machine"), "{error}");

    // Without a number, one that is free.
    let chosen = firewall.publish_all(vec![to(Protocol::Tcp, None, 0, 7000)])?;
    let number = chosen.ports()[0].port;
    assert!(number > 0 && ask(&outside, (UPLINK, number))?.is_ok());
    Ok(())
}

/// From one and the same port of theirs, by which the kernel keeps where they were led.
fn a_port_leads_its_old_clients_anew() -> Outcome {
    let (_host, outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    // Somebody else's connection, by another port, goes on all the while.
    let (other, bystander) = launch(&network, &EndpointSettings::default())?;
    let listener = bystander.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)))??;
    let kept = network.firewall().publish_all(vec![tcp(9200, &other)])?;
    let mut talker = outside.enter(|| TcpStream::connect_timeout(&SocketAddr::from((UPLINK, 9200)), SOON))??;
    let (mut listening, _) = listener.accept()?;
    listening.set_read_timeout(Some(SOON))?;

    let client = outside.enter(|| UdpSocket::bind((OUTSIDE, 40_000)))??;
    client.connect((UPLINK, 9100))?;
    let mut received = Vec::new();
    for _ in 0..2 {
        let (endpoint, container) = launch(&network, &EndpointSettings::default())?;
        let server = container.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7000)))??;
        server.set_read_timeout(Some(SOON))?;
        let target = SocketAddr::new(endpoint.address().into(), 7000);
        let port = Redirection { protocol: Protocol::Udp, host: None, port: 9100, target };
        let published = network.firewall().publish_all(vec![port])?;
        client.send(b"who are you?")?;
        received.push(server.recv(&mut [0; 64]).map_err(|error| error.to_string()));
        drop(published);
        talker.write_all(b"still there?")?;
        listening.read_exact(&mut [0; 12])?;
    }
    drop(kept);
    assert_eq!(received, [Ok(12), Ok(12)]);
    Ok(())
}

fn a_port_of_another_process_is_refused() -> Outcome {
    let (host, outside) = host_and_outside()?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    let mut holder = state.hold("published")?;
    holder.address()?;
    let endpoint = network.endpoint()?;
    let range = |first: u16| (first..first + 3).map(|port| tcp(port, &endpoint)).collect::<Vec<_>>();
    let error = network.firewall().publish_all(range(8079)).unwrap_err();
    assert!(error.to_string().starts_with("TCP port 8080 is published already"), "{error}");
    // The rest of the range is free for anybody, so nothing is left behind.
    let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)))??;
    outside.enter(|| TcpStream::connect_timeout(&SocketAddr::from((UPLINK, 8081)), SOON))??;
    let error = network.firewall().publish_all(range(8081)).unwrap_err();
    assert!(error.to_string().starts_with("TCP port 8081 is in use by a program of this machine"), "{error}");
    drop(listener);
    holder.kill()?;
    network.firewall().publish_all(range(8079))?;
    drop(endpoint);
    dismantle(network)
}

fn a_network_is_as_asked_for() -> Outcome {
    let (host, _outside) = host_and_outside()?;
    let state = State::new()?;
    let settings = Settings {
        subnet: "10.5.0.0/24".parse()?,
        gateway: Ipv4Addr::new(10, 5, 0, 254),
        range: Some("10.5.0.128/25".parse()?),
        mtu: Some(1400),
        ..settings()
    };
    let network = state.establish(settings)?;
    let mac: Mac = "02:00:00:00:05:07".parse()?;
    let asked = EndpointSettings { address: Some(Ipv4Addr::new(10, 5, 0, 7)), mac: Some(mac) };
    let (endpoint, container) = launch(&network, &asked)?;
    let (next, _other) = launch(&network, &EndpointSettings::default())?;
    assert_eq!(next.address(), Ipv4Addr::new(10, 5, 0, 128));
    assert!(matches!(network.endpoint_with(&asked), Err(NetworkError::AddressInUse { .. })));
    let foreign = EndpointSettings { address: Some(Ipv4Addr::new(10, 6, 0, 7)), mac: None };
    assert!(matches!(network.endpoint_with(&foreign), Err(NetworkError::ForeignAddress { .. })));

    let inner = Netlink::open_in(&container)?.link("eth0")?.ok_or("there is no eth0")?;
    assert_eq!((inner.mac.as_slice(), inner.mtu), (mac.0.as_slice(), 1400));
    let mut outer = Netlink::open()?;
    let link = outer.link(endpoint.link().ok_or("there is no link")?)?.ok_or("the link is gone")?;
    assert_eq!((link.mtu, network.link()?.mtu), (1400, 1400));
    // The gateway is known from the start: nobody asks for its link-layer address.
    let known = container.enter(|| std::fs::read_to_string("/proc/thread-self/net/arp"))??;
    let gateway = Mac::of(network.settings().gateway).to_string();
    assert!(known.lines().any(|line| line.starts_with("10.5.0.254 ") && line.contains(&gateway)), "{known}");
    serve(&container, 7000)?;
    assert_eq!(ask(&host, (endpoint.address(), 7000))??, "10.5.0.254");
    Ok(())
}

fn an_internal_network_has_no_way_out() -> Outcome {
    let (host, outside) = host_and_outside()?;
    serve(&outside, 7000)?;
    let state = State::new()?;
    let open = state.establish(settings())?;
    let closed = Settings {
        bridge: "br-closed".into(),
        subnet: "10.90.0.0/24".parse()?,
        gateway: Ipv4Addr::new(10, 90, 0, 1),
        internal: true,
        ..settings()
    };
    let closed = state.establish_beside(&open, closed)?;
    let (published, server) = launch(&open, &EndpointSettings::default())?;
    let (one, first) = launch(&closed, &EndpointSettings::default())?;
    let (two, second) = launch(&closed, &EndpointSettings::default())?;
    serve(&server, 7000)?;
    serve(&first, 7000)?;
    let _port = open.firewall().publish_all(vec![tcp(8080, &published)])?;

    assert_eq!(ask(&second, (one.address(), 7000))??, two.address().to_string(), "its members reach each other");
    assert_eq!(ask(&host, (one.address(), 7000))??, "10.90.0.1", "the host reaches them");
    assert_eq!(ask(&server, (OUTSIDE, 7000))??, UPLINK.to_string(), "the control: the other one has a way out");
    let routes = Netlink::open_in(&first)?.routes()?;
    assert!(
        routes.iter().filter(|route| route.destination.is_ipv4()).all(|route| route.gateway.is_none()),
        "{routes:?}"
    );
    let unreachable = |answer: std::io::Result<String>| answer.is_err();
    assert!(unreachable(ask(&first, (OUTSIDE, 7000))?));
    // Nor with a route that somebody has added, nor through what the other network publishes.
    Netlink::open_in(&first)?.add_route(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 90, 0, 1))?;
    assert!(refused(ask(&first, (OUTSIDE, 7000))?));
    assert!(refused(ask(&first, (published.address(), 7000))?));
    assert!(refused(ask(&first, (UPLINK, 8080))?));
    assert!(refused(ask(&server, (one.address(), 7000))?), "nor is there a way in");
    Ok(())
}

fn a_running_container_is_connected() -> Outcome {
    let (host, outside) = host_and_outside()?;
    serve(&outside, 7000)?;
    let state = State::new()?;
    let network = state.establish(settings())?;
    let second = Settings {
        bridge: "br-second".into(),
        subnet: "10.90.0.0/24".parse()?,
        gateway: Ipv4Addr::new(10, 90, 0, 1),
        ..settings()
    };
    let second = state.establish_beside(&network, second)?;
    let container = without_network()?;
    serve(&container, 7000)?;
    let (first, other) = (network.endpoint()?, second.endpoint()?);
    assert_eq!(first.connect(&container)?, "eth0");
    assert_eq!(other.connect(&container)?, "eth1");
    assert_eq!(ask(&host, (first.address(), 7000))??, "10.89.0.1");
    assert_eq!(ask(&host, (other.address(), 7000))??, "10.90.0.1");
    assert_eq!(ask(&container, (OUTSIDE, 7000))??, UPLINK.to_string(), "the first network is the way out");

    other.disconnect()?;
    Box::new(other).release().map_err(|error| error.to_string())?;
    assert_eq!(second.pool().leased()?, 0);
    let names: Vec<_> = Netlink::open_in(&container)?.links()?.into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "eth0"]);
    assert!(ask(&host, (first.address(), 7000))?.is_ok(), "the other one stays");
    first.disconnect()?;
    assert_eq!(Netlink::open_in(&container)?.links()?.len(), 1);
    Ok(())
}

fn ipv6_goes_in_out_and_apart() -> Outcome {
    if !sysctl::has_ipv6() {
        // The kernel's lack is told by `isobench doctor`; here is nothing to be tested.
        return Ok(());
    }
    let (_host, outside) = host_and_outside()?;
    let (ours, theirs): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse()?, "2001:db8::2".parse()?);
    let mut host = Netlink::open()?;
    for (side, address) in [(&mut host, ours), (&mut Netlink::open_in(&outside)?, theirs)] {
        let index = side.index("uplink")?;
        side.add_address6(index, address, 64)?;
    }
    let state = State::new()?;
    let six = |text: &str| Ok::<_, Failed>(Some(text.parse()?));
    // Who forwards takes router advertisements only where it is told to: a link that takes them goes on, and no other begins.
    let here = Namespace::current()?;
    let taken = |link: &str| sysctl::read(&here, &format!("ipv6/conf/{link}/accept_ra"));
    for (link, value) in [("uplink", "1"), ("lo", "0"), ("default", "1")] {
        sysctl::write(&here, &format!("ipv6/conf/{link}/accept_ra"), value)?;
    }
    let network = state.establish(Settings { ipv6: six("fd00:89::/64")?, ..settings() })?;
    assert_eq!((taken("uplink")?, taken("lo")?, taken("default")?), ("2".into(), "0".into(), "1".into()));
    assert_eq!(taken(&settings().bridge)?, "0");
    let second = Settings {
        bridge: "br-second".into(),
        subnet: "10.90.0.0/24".parse()?,
        gateway: Ipv4Addr::new(10, 90, 0, 1),
        ipv6: six("fd00:90::/64")?,
        ..settings()
    };
    let second = state.establish_beside(&network, second)?;
    let (one, container) = launch(&network, &EndpointSettings::default())?;
    let (_two, neighbour) = launch(&network, &EndpointSettings::default())?;
    let (_three, foreign) = launch(&second, &EndpointSettings::default())?;
    let address = one.ipv6().ok_or("there is no IPv6 address")?;
    assert_eq!(address.to_string(), "fd00:89::2");
    for (namespace, port) in [(&container, 7000), (&outside, 7001)] {
        serve_datagrams(namespace, Ipv6Addr::UNSPECIFIED.into(), port)?;
    }
    let ask = |namespace: &Namespace, address: Ipv6Addr, port: u16| ask_by_datagram(namespace, (address, port).into());
    let reached = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    assert_eq!(ask(&neighbour, address, 7000)?.map_err(reached("a neighbour"))?, "fd00:89::3");
    assert_eq!(
        ask(&container, theirs, 7001)?.map_err(reached("outside"))?,
        ours.to_string(),
        "outside it has the host's address"
    );
    assert!(ask(&foreign, address, 7000)?.is_err(), "the networks are apart");
    Netlink::open_in(&outside)?.add_route6("fd00:89::".parse()?, 64, ours)?;
    assert!(ask(&outside, address, 7000)?.is_err(), "nothing comes in unless published");

    // A port that is published is for both families.
    let to = |target: IpAddr| Redirection {
        protocol: Protocol::Udp,
        host: None,
        port: 0,
        target: SocketAddr::new(target, 7000),
    };
    let published = network.firewall().publish_all(vec![to(one.address().into()), to(address.into())])?;
    let number = published.ports()[0].port;
    assert!(number > 0 && published.ports()[1].port == number);
    assert_eq!(ask(&outside, ours, number)?.map_err(reached("published"))?, theirs.to_string());
    assert!(ask(&neighbour, ours, number)?.is_ok(), "from a neighbour");
    assert!(ask(&container, ours, number)?.is_ok(), "from itself");
    assert!(ask(&foreign, ours, number)?.is_ok(), "from another network");
    drop(published);
    assert!(ask(&outside, ours, number)?.is_err());

    // An address of its own for a container that runs.
    let late = without_network()?;
    let endpoint = network.endpoint()?;
    endpoint.connect(&late)?;
    assert_eq!(
        ask(&late, address, 7000)?.map_err(reached("late"))?,
        endpoint.ipv6().ok_or("there is no IPv6 address")?.to_string()
    );
    Ok(())
}
