//! The server's process: sockets, and one loop around them.

use super::answer::{Reply, Way, Zone};
use super::forward::{self, Forwarder};
use super::{DONE, SUBCOMMAND, lock_file, messages, socket};
use crate::networks::{Settings, Store};
use anyhow::Context;
use isobench_microvm::system::close_inherited;
use isobench_runtime::network::LockFile;
use isobench_runtime::network::lock_file::{Held, Sharing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Its argument where it is to serve, not to start who serves.
const SERVE: &str = "serve";

/// The port of name servers.
const PORT: u16 = 53;

/// Connections at a time, those of one network, so that none of them shuts the others out, and how long a question or an answer
/// may take on one.
const CONNECTIONS: usize = 64;
const SHARE: usize = 16;
const SILENCE: Duration = Duration::from_secs(5);

/// The hidden subcommand: starts the server and ends, so that the server has no parent who would have to wait for it.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let Some(state) = arguments.next().map(PathBuf::from) else {
        say(&format!("`{SUBCOMMAND}` is a part of isobench and no command"));
        return ExitCode::FAILURE;
    };
    let result = if arguments.next().is_some_and(|word| word == SERVE) {
        serve(&state)
    } else {
        let program = Command::new("/proc/self/exe").arg(SUBCOMMAND).arg(&state).arg(SERVE).spawn();
        program.map(drop).context("start the name server")
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started it.
fn say(line: &str) {
    let mut output = std::io::stdout();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn serve(state: &Path) -> anyhow::Result<()> {
    // What the caller has open, such as a file that a script has locked, must not stay open as long as there are networks.
    close_inherited(&[]).context("close what the caller has open")?;
    // No terminal's signals are meant for it.
    let _ = rustix::process::setsid();
    let lock = LockFile::create(&lock_file(state))?.begin()?;
    if !lock.take(0, Sharing::Alone)? {
        // Two have started one at the same time. The other one has looked, or will before it serves.
        say(DONE);
        return Ok(());
    }
    // One that was killed has left its socket.
    let path = socket(state);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let orders = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    let mut server = Server {
        store: Store::open(state)?,
        state: state.into(),
        sites: Vec::new(),
        orders,
        forwarder: Forwarder::default(),
        connections: Arc::default(),
    };
    let looked = server.look();
    if server.sites.is_empty() {
        server.end(lock);
        looked?;
        say(DONE);
        return Ok(());
    }
    match looked {
        Ok(()) => say(DONE),
        Err(error) => say(&format!("{error:#}")),
    }
    // Whoever started it waits for no more.
    let nothing = fs::File::options().write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&nothing).context("close the standard output")?;
    server.run(lock)
}

/// A network that is served.
#[derive(Debug)]
struct Site {
    settings: Settings,
    zone: Arc<Zone>,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    connections: Arc<AtomicUsize>,
}

impl Site {
    fn new(directory: &Path, settings: Settings) -> anyhow::Result<Self> {
        let address = SocketAddr::from((settings.gateway, PORT));
        let taken = || format!("listen for questions at {address}");
        let udp = UdpSocket::bind(address).with_context(taken)?;
        udp.set_nonblocking(true)?;
        let tcp = TcpListener::bind(address).with_context(taken)?;
        tcp.set_nonblocking(true)?;
        let zone = Arc::new(Zone::new(directory, &settings)?);
        Ok(Self { settings, zone, udp: Arc::new(udp), tcp, connections: Arc::default() })
    }
}

#[derive(Debug)]
struct Server {
    store: Store,
    state: PathBuf,
    sites: Vec<Site>,
    orders: UnixListener,
    forwarder: Forwarder,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn run(mut self, lock: Held) -> anyhow::Result<()> {
        loop {
            let (order, ready) = self.wait()?;
            for (index, (datagram, connection)) in ready.into_iter().enumerate() {
                if datagram {
                    self.answer_datagrams(index);
                }
                if connection {
                    self.accept(index);
                }
            }
            self.forwarder.go_on();
            if order && let Ok((mut stream, _)) = self.orders.accept() {
                let looked = stream.set_read_timeout(Some(SILENCE)).and_then(|()| stream.read(&mut [0; 16]));
                let looked = looked.map_err(Into::into).and_then(|_| self.look());
                let answer = looked.map_or_else(|error| format!("{error:#}\n"), |()| format!("{DONE}\n"));
                if self.sites.is_empty() {
                    // Whoever gave the order keeps others from making networks meanwhile: nobody counts on this server.
                    self.end(lock);
                    let _ = stream.write_all(answer.as_bytes());
                    return Ok(());
                }
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    }

    /// Waits until there is something to do: an order, and for each site a datagram or a connection.
    fn wait(&self) -> anyhow::Result<(bool, Vec<(bool, bool)>)> {
        let mut wanted = vec![PollFd::new(&self.orders, PollFlags::IN)];
        for site in &self.sites {
            wanted.push(PollFd::new(&site.udp, PollFlags::IN));
            wanted.push(PollFd::new(&site.tcp, PollFlags::IN));
        }
        wanted.extend(self.forwarder.wanted());
        let timeout = self
            .forwarder
            .patience()
            .map(|patience| Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() });
        match poll(&mut wanted, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for questions"),
        }
        let ready: Vec<bool> = wanted.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
        let sites = ready[1..=2 * self.sites.len()].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        Ok((ready[0], sites))
    }

    fn answer_datagrams(&mut self, index: usize) {
        // A few at a time, so that one network cannot keep the others from being served.
        const AT_ONCE: usize = 16;
        let Some(Site { zone, udp, .. }) = self.sites.get(index) else { return };
        let (zone, udp, zones) = (zone.clone(), udp.clone(), self.zones());
        let mut buffer = [0; 4096];
        for _ in 0..AT_ONCE {
            let Ok((length, asker)) = udp.recv_from(&mut buffer) else { return };
            if !zone.serves(asker.ip()) {
                continue;
            }
            match zone.reply(&buffer[..length], asker.ip(), &zones, Way::Udp) {
                Reply::Ignore => {}
                Reply::Answer(answer) => {
                    let _ = udp.send_to(&answer, asker);
                }
                Reply::Forward(failure) => {
                    let (question, resolvers) = (buffer[..length].to_vec(), self.resolvers());
                    self.forwarder.begin(question, (asker, udp.clone()), failure, resolvers);
                }
            }
        }
    }

    /// A connection gets a thread: few ask that way, and it may be silent for long.
    fn accept(&self, index: usize) {
        let Some(site) = self.sites.get(index) else { return };
        let Ok((stream, asker)) = site.tcp.accept() else { return };
        let (all, share) = (Counted::new(&self.connections), Counted::new(&site.connections));
        if !site.zone.serves(asker.ip()) || all.number > CONNECTIONS || share.number > SHARE {
            return;
        }
        let (zone, zones, resolvers) = (site.zone.clone(), self.zones(), self.resolvers());
        let _ = std::thread::Builder::new().name("connection".into()).spawn(move || {
            let _counts = (all, share);
            let _ = answer_connection(&stream, asker.ip(), &zone, &zones, &resolvers);
        });
    }

    fn zones(&self) -> Vec<Arc<Zone>> {
        self.sites.iter().map(|site| site.zone.clone()).collect()
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let own: Vec<Ipv4Addr> = self.sites.iter().map(|site| site.settings.gateway).collect();
        forward::resolvers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), &own)
    }

    /// Looks which networks there are. One that cannot be served does not keep the others from it.
    fn look(&mut self) -> anyhow::Result<()> {
        let wanted: Vec<Settings> = self.store.list()?.into_iter().filter(|settings| !settings.is_default()).collect();
        self.sites.retain(|site| wanted.contains(&site.settings));
        let mut result = Ok(());
        for settings in wanted {
            if self.sites.iter().any(|site| site.settings == settings) {
                continue;
            }
            match Site::new(&self.store.directory(&settings.name), settings) {
                Ok(site) => self.sites.push(site),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Serves no more: the next one that is started finds nothing of it.
    fn end(&self, lock: Held) {
        let _ = fs::remove_file(socket(&self.state));
        drop(lock);
    }
}

fn answer_connection(
    stream: &TcpStream,
    asker: IpAddr,
    zone: &Zone,
    zones: &[Arc<Zone>],
    resolvers: &[SocketAddr],
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    while let Some(question) = messages::receive(stream, SILENCE)? {
        match zone.reply(&question, asker, zones, Way::Tcp) {
            Reply::Ignore => return Ok(()),
            Reply::Answer(answer) => messages::send(stream, &answer, SILENCE)?,
            Reply::Forward(failure) => {
                let answer = forward::ask_by_tcp(&question, resolvers);
                messages::send(stream, &answer.unwrap_or(failure), SILENCE)?;
            }
        }
    }
    Ok(())
}

/// One of the connections that are open.
struct Counted {
    connections: Arc<AtomicUsize>,
    number: usize,
}

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { connections: connections.clone(), number }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
