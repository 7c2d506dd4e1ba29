//! Networks that stay, on a real kernel: the store, the name server, and the command. Every test has its own network
//! namespaces and state directory; the name server is this test program again, which answers the hidden subcommand.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use isobench::networks::{Joining, Membership, Network, Request, Store, is_refusal, server};
use isobench_runtime::network::{Endpoint, LockFile, Namespace, Netlink, PeerNamespace, Protocol, inside, sysctl};
use isobench_workload::Resource;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Outcome = Result<(), Failed>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("the default network is made on first use, beside what is routed", the_default_network_is_made_on_first_use),
    ("a network that cannot be is refused, and nothing is left", what_cannot_be_is_refused),
    ("names lead to members in one network alone", names_lead_to_members),
    ("questions come by both ways, and nonsense does no harm", questions_come_by_both_ways),
    ("what is not ours is passed on, or refused at once", what_is_not_ours_is_passed_on),
    ("there is one name server, from the first network to the last", there_is_one_name_server),
    ("what a killed process has left is taken away", what_a_killed_process_left_is_taken_away),
    ("published ports are for both families, and ranges are whole", published_ports_are_written_down),
    ("a running container is connected and disconnected", a_running_container_is_connected),
    ("the command works in a testbed of its own", the_command_works_in_a_testbed),
];

/// A process that joins a network, says its address and waits to be killed.
const HOLD: &str = "hold";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(server::SUBCOMMAND) => return server::main(),
        Some(HOLD) => return hold(&words.next().unwrap_or_default()),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let privileged = Namespace::create().map_err(|error| format!("needs to {error}: run as root"));
    let trials = TESTS.iter().map(|(name, test)| match privileged.as_ref() {
        Ok(_) => Trial::test(*name, move || Namespace::create()?.enter(test)?),
        Err(reason) => Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

const SOON: Duration = Duration::from_secs(3);
const FORWARDING: &str = "ipv4/ip_forward";

struct Host {
    state: TempDir,
    before: String,
}

impl Host {
    fn new() -> Result<Self, Failed> {
        Netlink::open()?.bring_up(inside::LOOPBACK)?;
        // So that it can be seen that it is as it was.
        sysctl::write(&Namespace::current()?, FORWARDING, "0")?;
        Ok(Self { state: tempfile::tempdir()?, before: links()? })
    }

    fn store(&self) -> Result<Store, Failed> {
        Ok(Store::open(self.state.path())?)
    }

    fn is_served(&self) -> Result<bool, Failed> {
        let lock = LockFile::at(&self.state.path().join("names.lock"));
        Ok(lock.path().exists() && lock.is_held(0)?)
    }

    /// Removes everything, and sees that nothing is left.
    fn clear(self) -> Outcome {
        let here = Namespace::current()?;
        assert_eq!(sysctl::read(&here, FORWARDING)?, "1");
        self.store()?.clear()?;
        assert_eq!(links()?, self.before);
        assert_eq!(sysctl::read(&here, FORWARDING)?, "0");
        let begin = Instant::now();
        while self.is_served()? {
            assert!(begin.elapsed() < SOON, "the name server serves on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(std::fs::read_dir(self.state.path().join("networks"))?.count(), 0);
        Ok(())
    }
}

/// Links, addresses and routes of IPv4.
fn links() -> Result<String, Failed> {
    let mut netlink = Netlink::open()?;
    let links: Vec<_> = netlink.links()?.into_iter().map(|link| (link.name, link.up)).collect();
    let (mut addresses, mut routes) = (netlink.addresses()?, netlink.routes()?);
    addresses.retain(|address| address.address.is_ipv4());
    routes.retain(|route| route.destination.is_ipv4());
    Ok(format!("{links:?}\n{addresses:?}\n{routes:?}"))
}

fn named(name: &str) -> Request {
    Request { name: name.into(), ..Request::default() }
}

fn joining(instance: &str, aliases: &[&str]) -> Joining {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    Joining { instance: instance.into(), aliases, ..Joining::default() }
}

/// A container in a network, as far as the network goes. The endpoint is dropped after the rest.
struct Container {
    membership: Membership,
    namespace: Namespace,
    endpoint: Endpoint,
}

fn launch(network: &Network, joining: &Joining) -> Result<Container, Failed> {
    let (endpoint, membership) = network.endpoint(joining)?;
    let namespace = Namespace::create()?;
    endpoint.attach(&PeerNamespace::from(&namespace))?;
    let configured = namespace.enter(|| endpoint.configuration().apply())?;
    configured.map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    endpoint.await_carrier()?;
    Ok(Container { membership, namespace, endpoint })
}

impl Container {
    fn end(self) -> Outcome {
        let Self { membership, namespace, endpoint } = self;
        drop((membership, namespace));
        Box::new(endpoint).release().map(drop).map_err(|error| error.to_string().into())
    }

    fn ask(&self, server: Ipv4Addr, name: &str, kind: RecordType) -> Result<Option<Message>, Failed> {
        ask(&self.namespace, server, name, kind)
    }

    /// The data of an answer that must be a good one.
    fn look_up(&self, server: Ipv4Addr, name: &str, kind: RecordType) -> Result<Vec<String>, Failed> {
        let answer = self.ask(server, name, kind)?.ok_or_else(|| format!("{name}: no answer"))?;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name}");
        Ok(answer.answers.iter().map(|record| record.data.to_string()).collect())
    }
}

fn question(name: &str, kind: RecordType) -> Result<Message, Failed> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(query)
}

/// Asks by a datagram; `None` where no answer comes.
fn ask(namespace: &Namespace, server: Ipv4Addr, name: &str, kind: RecordType) -> Result<Option<Message>, Failed> {
    let query = question(name, kind)?;
    let bytes = query.to_vec()?;
    let answer = namespace.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect((server, 53))?;
        socket.send(&bytes)?;
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok::<_, std::io::Error>(answer)
    })?;
    let Ok(answer) = answer else { return Ok(None) };
    let answer = Message::from_vec(&answer)?;
    assert_eq!(answer.metadata.id, query.metadata.id);
    Ok(Some(answer))
}

fn code(answer: Option<Message>) -> Option<ResponseCode> {
    answer.map(|answer| answer.metadata.response_code)
}

fn the_default_network_is_made_on_first_use() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    assert!(store.list()?.is_empty());
    let network = store.network("bridge")?;
    assert_eq!(network.settings().subnet, "172.17.0.0/16");
    assert_eq!((network.settings().bridge.as_str(), network.resolver()), ("bridge0", None));
    // Again it is the same, and no name server is there for it.
    assert_eq!(host.store()?.network("bridge")?.settings(), network.settings());
    assert!(!host.is_served()?);
    let error = network.endpoint(&Joining { address: Some([172, 17, 0, 9].into()), ..joining("x", &[]) }).unwrap_err();
    assert!(is_refusal(&error), "{error:#}");
    assert!(is_refusal(&store.remove("bridge").unwrap_err()));
    drop(network);
    host.clear()?;

    // Where 172.17.0.0/16 is somebody's, it is the next one.
    let host = Host::new()?;
    let mut netlink = Netlink::open()?;
    netlink.add_address(inside::LOOPBACK, Ipv4Addr::new(172, 17, 3, 1), 24)?;
    assert_eq!(host.store()?.network("bridge")?.settings().subnet, "172.18.0.0/16");
    Ok(())
}

fn what_cannot_be_is_refused() -> Outcome {
    let host = Host::new()?;
    Netlink::open()?.add_address(inside::LOOPBACK, Ipv4Addr::new(10, 77, 0, 1), 24)?;
    let before = links()?;
    let store = host.store()?;
    let subnet = |subnet: &str| Request { subnets: vec![subnet.into()], ..named("web") };
    let error = store.create(&subnet("10.77.0.0/16")).unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("collides with the route to 10.77.0."), "{error:#}");
    let error = store.network("web").unwrap_err().to_string();
    assert!(error.starts_with("there is no network `web`"), "{error}");
    for name in ["../networks", "host", "", "a/b"] {
        let error = store.network(name).unwrap_err();
        assert!(is_refusal(&error) && !error.to_string().contains("network create"), "{name}: {error}");
        assert!(is_refusal(&store.create(&named(name)).unwrap_err()), "{name}");
        assert!(is_refusal(&store.remove(name).unwrap_err()), "{name}");
    }
    // Somebody else answers names everywhere: ours could not be answered.
    let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))?;
    let error = format!("{:#}", store.create(&named("web")).unwrap_err());
    assert!(error.contains("listen for questions at 10.89.0.1:53"), "{error}");
    drop(taken);
    assert_eq!(links()?, before);
    assert!(store.list()?.is_empty() && !host.is_served()?);

    store.create(&named("web"))?;
    assert!(is_refusal(&store.create(&named("web")).unwrap_err()));
    let network = store.network("web")?;
    // A damaged one is in nobody's way.
    let spoiled = host.state.path().join("networks/spoiled");
    std::fs::create_dir(&spoiled)?;
    std::fs::write(spoiled.join("network.json"), "{")?;
    assert_eq!(store.list()?.len(), 1);
    std::fs::remove_dir_all(&spoiled)?;
    let member = launch(&network, &joining("one", &[]))?;
    let error = store.remove("web").unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("in use by one"), "{error:#}");
    assert!(store.prune()?.is_empty());
    member.end()?;
    assert_eq!(store.prune()?, ["web"]);
    assert_eq!(links()?, before);
    Ok(())
}

fn names_lead_to_members() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    let six = isobench_runtime::network::sysctl::has_ipv6();
    let (here, advertisements) = (Namespace::current()?, "ipv6/conf/lo/accept_ra");
    let taken = |value: &str| -> Outcome {
        if six {
            assert_eq!(sysctl::read(&here, advertisements)?, value);
        }
        Ok(())
    };
    if six {
        sysctl::write(&here, advertisements, "1")?;
    }
    // What the first one wrote down is kept when there is more to be written down.
    store.create(&named("other"))?;
    taken("1")?;
    store.create(&Request { ipv6: six, ..named("web") })?;
    taken("2")?;
    let (web, other) = (store.network("web")?, store.network("other")?);
    let (server, foreign) = (web.resolver().ok_or("no server")?, other.resolver().ok_or("no server")?);
    let one = launch(&web, &joining("one", &["www", "api"]))?;
    let two = launch(&web, &joining("two", &["www"]))?;
    let three = launch(&other, &joining("three", &[]))?;
    let (first, second) = (one.endpoint.address(), two.endpoint.address());

    assert_eq!(two.look_up(server, "one.", RecordType::A)?, [first.to_string()]);
    assert_eq!(two.look_up(server, "API.", RecordType::A)?, [first.to_string()]);
    assert_eq!(one.look_up(server, "www.", RecordType::A)?, [first.to_string(), second.to_string()]);
    let addresses: Vec<String> = one.endpoint.ipv6().iter().map(Ipv6Addr::to_string).collect();
    assert_eq!(two.look_up(server, "one.", RecordType::AAAA)?, addresses);
    let [a, b, c, d] = first.octets();
    let reverse = format!("{d}.{c}.{b}.{a}.in-addr.arpa.");
    assert_eq!(two.look_up(server, &reverse, RecordType::PTR)?, ["one.", "www.", "api."]);

    // The other network knows none of them, and is not answered by this one's server.
    assert_eq!(code(three.ask(foreign, "one.", RecordType::A)?), Some(ResponseCode::NXDomain));
    assert_eq!(three.ask(server, "one.", RecordType::A)?, None, "it is not even answered");
    assert_eq!(three.look_up(foreign, "three.", RecordType::A)?, [three.endpoint.address().to_string()]);
    // The host itself may ask.
    assert_eq!(code(ask(&Namespace::current()?, server, "one.", RecordType::A)?), Some(ResponseCode::NoError));

    // A name goes with its member, and another name comes.
    let Container { mut membership, namespace, endpoint } = one;
    membership.rename("uno")?;
    assert_eq!(two.look_up(server, "uno.", RecordType::A)?, [first.to_string()]);
    assert_eq!(code(two.ask(server, "one.", RecordType::A)?), Some(ResponseCode::NXDomain));
    // Names know no case: by the same name in other letters it is still found.
    membership.rename("Uno")?;
    assert_eq!(two.look_up(server, "uno.", RecordType::A)?, [first.to_string()]);
    Container { membership, namespace, endpoint }.end()?;
    assert_eq!(two.look_up(server, "www.", RecordType::A)?, [second.to_string()]);
    two.end()?;
    three.end()?;
    drop((web, other));
    host.clear()?;
    taken("1")
}

fn questions_come_by_both_ways() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    store.create(&named("web"))?;
    let network = store.network("web")?;
    let server = network.resolver().ok_or("no server")?;
    let one = launch(&network, &joining("one", &[]))?;
    // Nonsense of all lengths, and an answer instead of a question: nothing comes back, and the next question is answered.
    one.namespace.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for length in 0..64 {
            socket.send_to(&vec![0xc0; length], (server, 53))?;
        }
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, 53)), SOON)?;
        stream.write_all(&[0, 4, 1, 2, 3, 4])?;
        stream.set_read_timeout(Some(SOON))?;
        assert_eq!(stream.read(&mut [0; 16])?, 0, "the connection ends");
        Ok::<_, std::io::Error>(())
    })??;
    let mut answer = question("one.", RecordType::A)?;
    answer.metadata.message_type = hickory_proto::op::MessageType::Response;
    let bytes = answer.to_vec()?;
    one.namespace.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(&bytes, (server, 53)))??;
    assert_eq!(one.look_up(server, "one.", RecordType::A)?, [one.endpoint.address().to_string()]);

    // Two questions on one connection.
    let query = question("one.", RecordType::A)?.to_vec()?;
    let framed = [(query.len() as u16).to_be_bytes().as_slice(), &query].concat();
    let answers = one.namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, 53)), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        (0..2)
            .map(|_| {
                stream.write_all(&framed)?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut answer)?;
                Ok(answer)
            })
            .collect::<std::io::Result<Vec<_>>>()
    })??;
    for answer in answers {
        assert_eq!(Message::from_vec(&answer)?.answers.len(), 1);
    }
    one.end()?;
    drop(network);
    host.clear()
}

fn what_is_not_ours_is_passed_on() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    store.create(&named("open"))?;
    store.create(&Request { internal: true, ..named("closed") })?;
    let (open, closed) = (store.network("open")?, store.network("closed")?);
    let (one, two) = (launch(&open, &joining("one", &[]))?, launch(&closed, &joining("two", &[]))?);
    let begin = Instant::now();
    // No name server of the machine's can be reached from here.
    let answer = one.ask(open.resolver().ok_or("no server")?, "example.org.", RecordType::A)?;
    assert_eq!(code(answer), Some(ResponseCode::ServFail));
    let answer = two.ask(closed.resolver().ok_or("no server")?, "example.org.", RecordType::A)?;
    assert_eq!(code(answer), Some(ResponseCode::Refused));
    assert!(begin.elapsed() < Duration::from_millis(900), "at once: {:?}", begin.elapsed());
    one.end()?;
    two.end()?;
    drop((open, closed));
    host.clear()
}

fn there_is_one_name_server() -> Outcome {
    let host = Host::new()?;
    let here = Namespace::current()?;
    // Commands that race: each makes a network of its own.
    let made: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let create = |name: String| {
            let store = host.store().map_err(|error| format!("{error:?}"))?;
            store.create(&named(&name)).map(drop).map_err(|error| format!("{error:#}"))
        };
        let here = &here;
        let threads: Vec<_> = (0..6)
            .map(|number| {
                scope.spawn(move || here.enter(|| create(format!("n{number}"))).map_err(|error| error.to_string())?)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into()))).collect()
    });
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let store = host.store()?;
    let servers = || server_processes(host.state.path());
    assert_eq!(servers()?.len(), 1);
    for settings in store.list()? {
        assert_eq!(code(ask(&here, settings.gateway, "nobody.", RecordType::A)?), Some(ResponseCode::NXDomain));
    }
    // Killed, it is there again with whoever comes next.
    let killed = servers()?;
    rustix::process::kill_process(killed[0], rustix::process::Signal::KILL)?;
    let begin = Instant::now();
    while host.is_served()? {
        assert!(begin.elapsed() < SOON, "the killed name server has its lock still");
    }
    let network = store.network("n0")?;
    assert!(host.is_served()? && servers()? != killed);
    assert_eq!(code(ask(&here, network.settings().gateway, "nobody.", RecordType::A)?), Some(ResponseCode::NXDomain));
    drop(network);
    for number in 0..5 {
        store.remove(&format!("n{number}"))?;
        assert!(host.is_served()?);
    }
    store.remove("n5")?;
    assert!(!host.is_served()?, "it has gone with the last network");
    host.clear()
}

/// The processes that serve names for a state directory.
fn server_processes(state: &Path) -> Result<Vec<rustix::process::Pid>, Failed> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(words) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        let serves = words.get(1) == Some(&server::SUBCOMMAND.as_bytes())
            && words.get(2) == Some(&state.as_os_str().as_encoded_bytes())
            && words.get(3) == Some(&b"serve".as_slice());
        found.extend(serves.then(|| rustix::process::Pid::from_raw(pid)).flatten());
    }
    Ok(found)
}

fn hold(state: &str) -> ExitCode {
    let held = Store::open(Path::new(state)).and_then(|store| {
        let (endpoint, mut membership) = store.network("web")?.endpoint(&joining("dead", &["gone"]))?;
        membership.publish(&["8080:80".parse()?, "8081:81/udp".parse()?])?;
        Ok((endpoint, membership))
    });
    match &held {
        Ok((endpoint, _)) => println!("{}", endpoint.address()),
        Err(error) => println!("{error:#}"),
    }
    let _ = std::io::stdin().read_line(&mut String::new());
    ExitCode::SUCCESS
}

fn what_a_killed_process_left_is_taken_away() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    store.create(&named("web"))?;
    let network = store.network("web")?;
    let server = network.resolver().ok_or("no server")?;
    for again in [false, true] {
        let mut child = Command::new(std::env::current_exe()?)
            .args([HOLD.as_ref(), host.state.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address: Ipv4Addr = line.trim().parse().map_err(|_| line.clone())?;
        assert_eq!(network.members()?.len(), 1);
        let other = launch(&network, &joining("other", &[]))?;
        assert_eq!(other.look_up(server, "gone.", RecordType::A)?, [address.to_string()]);
        child.kill()?;
        child.wait()?;
        // At once: no member, no name; the port leads nowhere soon.
        assert_eq!(network.members()?.len(), 1, "the living one");
        assert_eq!(code(other.ask(server, "gone.", RecordType::A)?), Some(ResponseCode::NXDomain));
        let file = host.state.path().join(format!("networks/web/endpoints/{address}.json"));
        assert!(file.exists());
        if again {
            // By whoever gets the address next, who has none of the dead one's names and ports.
            let heir = launch(&network, &Joining { address: Some(address), ..joining("heir", &[]) })?;
            assert_eq!(code(other.ask(server, "gone.", RecordType::A)?), Some(ResponseCode::NXDomain));
            assert_eq!(other.look_up(server, "heir.", RecordType::A)?, [address.to_string()]);
            assert!(heir.membership.member().ports.is_empty());
            heir.end()?;
        } else {
            store.sweep()?;
        }
        assert!(!file.exists() && !host.state.path().join("networks/web/names/gone").exists());
        // The port is a program's again, which is reached by it.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?;
        TcpStream::connect_timeout(&SocketAddr::from((server, 8080)), SOON)?;
        drop(listener);
        other.end()?;
    }
    drop(network);
    host.clear()
}

fn published_ports_are_written_down() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    store.create(&named("web"))?;
    store.create(&Request { internal: true, ..named("closed") })?;
    let network = store.network("web")?;
    let mut one = launch(&network, &joining("one", &[]))?;
    let mut two = launch(&network, &joining("two", &[]))?;
    one.membership.publish(&["9000-9002:80-82".parse()?, "127.0.0.1:9000:80/udp".parse()?, "99".parse()?])?;
    let ports = network.members()?.into_iter().find(|member| member.instance == "one").ok_or("no member")?.ports;
    assert_eq!(ports, one.membership.member().ports);
    let numbers: Vec<_> = ports.iter().map(|port| (port.protocol, port.port, port.target.port())).collect();
    assert_eq!(numbers[..3], [9000, 9001, 9002].map(|port| (Protocol::Tcp, port, port - 8920)));
    assert_eq!((numbers[3].0, numbers[3].1, ports[3].host), (Protocol::Udp, 9000, Some(IpAddr::from([127, 0, 0, 1]))));
    assert!(numbers[4].1 > 0 && numbers[4].2 == 99, "a free one: {:?}", numbers[4]);

    // One of a range is taken: none is published, and nothing is written down.
    let error = two.membership.publish(&["8999-9001:1-3".parse()?]).unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("port 9000 is published already"), "{error:#}");
    assert!(two.membership.member().ports.is_empty());
    drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8999))?);

    let closed = store.network("closed")?;
    let mut three = launch(&closed, &joining("three", &[]))?;
    let error = three.membership.publish(&["8000:80".parse()?]).unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("internal"), "{error:#}");
    one.end()?;
    two.membership.publish(&["9000:80".parse()?])?;
    two.end()?;
    three.end()?;
    drop((network, closed));
    host.clear()
}

fn a_running_container_is_connected() -> Outcome {
    let host = Host::new()?;
    let store = host.store()?;
    store.create(&named("web"))?;
    store.create(&named("more"))?;
    let (web, more) = (store.network("web")?, store.network("more")?);
    let one = launch(&web, &joining("one", &[]))?;
    let mut connection = more.connect(&joining("one", &["late"]), &one.namespace)?;
    assert_eq!(connection.interface(), "eth1");
    let address = connection.membership().ok_or("no membership")?.member().address;
    assert_eq!(one.look_up(more.resolver().ok_or("no server")?, "late.", RecordType::A)?, [address.to_string()]);
    // Whoever is in both hears of both from either server; who is in one alone does not.
    let first = web.resolver().ok_or("no server")?;
    assert_eq!(one.look_up(first, "late.", RecordType::A)?, [address.to_string()]);
    let two = launch(&web, &joining("two", &[]))?;
    assert_eq!(code(two.ask(first, "late.", RecordType::A)?), Some(ResponseCode::NXDomain));
    two.end()?;
    assert!(is_refusal(&store.remove("more").unwrap_err()));
    connection.disconnect()?;
    assert_eq!(code(one.ask(first, "late.", RecordType::A)?), Some(ResponseCode::NXDomain));
    assert_eq!(Netlink::open_in(&one.namespace)?.links()?.len(), 2);
    store.remove("more")?;
    drop(more);
    one.end()?;
    drop(web);
    host.clear()
}

/// Runs the command in a testbed below a runtime directory of its own.
fn isobench(home: &Path, words: &str) -> Result<(i32, String, String), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_isobench"))
        .args(words.split(' '))
        .env("ISOBENCH_HOME", home.join("isobench"))
        .env_remove("ISOBENCH_TESTBED")
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr)))
}

/// What a command ended with, and what it said on either stream.
type Said = Result<(i32, String, String), Failed>;

/// Connected and disconnected while it runs, one with a network and one without.
fn a_container_is_connected_by_command(run: &dyn Fn(&str) -> Said) -> Outcome {
    let (status, _, error) = run("network connect bridge nobody")?;
    assert!(status == 2 && error.contains("nobody"), "{status} {error}");
    if std::fs::metadata("/bin/busybox").is_err() {
        // Without a static program there is nothing to be run in an empty root.
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    std::fs::create_dir(root.path().join("bin"))?;
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox"))?;
    let root = root.path().display();
    let done = |words: &str| -> Result<String, Failed> {
        let (status, output, error) = run(words)?;
        assert_eq!(status, 0, "{words}: {output} {error}");
        Ok(output)
    };
    done("network create one")?;
    done("network create two")?;
    done(&format!("container run -d --name first --network one {root} /bin/busybox sleep 60"))?;
    done(&format!("container run -d --name second --network none {root} /bin/busybox sleep 60"))?;
    done("network connect --alias late two second")?;
    done("network connect two first")?;
    let shown: serde_json::Value = serde_json::from_str(&done("network inspect one two")?)?;
    let members = |index: usize| {
        shown[index]["Containers"].as_object().map(|members| members.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!((members(0), members(1)), (Some(vec!["first".into()]), Some(vec!["first".into(), "second".into()])));
    let names = done("container exec first /bin/busybox nslookup late")?;
    assert!(names.contains("10.89.1."), "{names}");
    done("container exec first /bin/busybox ping -c 1 -W 2 second")?;
    for (words, sentence) in [
        ("network rm two", "in use by second, first"),
        ("network connect two second", "already"),
        ("network disconnect one second", "not in the network"),
        ("network connect three first", "there is no network `three`"),
    ] {
        let (status, _, error) = run(words)?;
        assert!(status == 2 && error.contains(sentence), "{words}: {status} {error}");
    }
    done("network disconnect two first")?;
    done("network disconnect two second")?;
    done("network rm two")?;
    let links = done("container exec second /bin/busybox ls /sys/class/net").unwrap_or_else(|_| "lo".into());
    assert!(!links.contains("eth"), "{links}");
    done("container rm -f first second")?;
    done("network rm one")?;
    Ok(())
}

fn the_command_works_in_a_testbed() -> Outcome {
    let home = tempfile::tempdir()?;
    let run = |words: &str| isobench(home.path(), words);
    let begun = (|| -> Outcome {
        let (status, output, error) =
            run("network create --subnet 10.5.0.0/24 --ip-range 10.5.0.128/25 --mtu 1400 lab")?;
        assert_eq!((status, output.as_str()), (0, "lab\n"), "{error}");
        let (status, output, error) = run("network create --internal vault")?;
        assert_eq!((status, output.as_str()), (0, "vault\n"), "{error}");
        let (_, output, _) = run("network ls -q")?;
        assert_eq!(output, "bridge\nhost\nlab\nnone\nvault\n");
        let (_, output, _) = run("network ls --format json")?;
        let listed: serde_json::Value = serde_json::from_str(&output)?;
        assert_eq!((&listed[2]["Name"], &listed[2]["Subnet"]), (&"lab".into(), &"10.5.0.0/24".into()), "{output}");
        let (_, output, error) = run("network inspect lab bridge")?;
        let shown: serde_json::Value = serde_json::from_str(&output).map_err(|_| error)?;
        assert_eq!(shown[0]["IPAM"]["Config"][0]["IPRange"], "10.5.0.128/25");
        assert_eq!((&shown[0]["MTU"], &shown[1]["Bridge"]), (&1400.into(), &"bridge0".into()));
        for (words, sentence) in [
            ("network create lab", "there is a network `lab` already"),
            ("network create --subnet 10.5.0.0/16 more", "overlaps 10.5.0.0/24 of the network `lab`"),
            ("network create --subnet 198.51.100.0/25 more", "collides with the route"),
            ("network create --subnet 10.6.0.0/31 more", "is no IPv4 subnet"),
            ("network create --gateway nowhere more", "nowhere"),
            ("network inspect more", "there is no network `more`"),
            ("network rm more", "there is no network `more`"),
            ("network rm bridge", "cannot be removed"),
        ] {
            let (status, output, error) = run(words)?;
            assert!(status == 2 && output.is_empty() && error.contains(sentence), "{words}: {status} {error}");
        }
        let (status, output, error) = run("network rm lab more")?;
        assert!(status == 2 && output == "lab\n" && error.contains("`more`"), "{output} {error}");
        assert_eq!(run("network prune -f")?.1, "vault\n");
        a_container_is_connected_by_command(&run)
    })();
    let (status, _, error) = run("testbed rm default")?;
    begun?;
    assert_eq!(status, 0, "{error}");
    Ok(())
}
