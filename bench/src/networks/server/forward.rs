//! Questions that are passed on to the host's own name servers, by datagrams that are waited for beside everything else.

use super::messages::{receive, send};
use rustix::event::{PollFd, PollFlags};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one name server may take. Clients give up after five seconds (`options timeout` in resolv.conf(5)).
const PATIENCE: Duration = Duration::from_millis(1500);

/// As many questions may be under way, and as many of one network, so that none of them denies the others an answer; who asks
/// more is answered that it failed.
const MOST: usize = 512;
const SHARE: usize = 128;

/// The name servers of the host, as resolv.conf(5) names them, but for those that are ourselves.
pub(super) fn resolvers(text: &str, own: &[Ipv4Addr]) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    named
        .filter(|address| !own.iter().any(|own| IpAddr::from(*own) == *address))
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

/// A question under way.
#[derive(Debug)]
struct Pending {
    /// Connected to the name server that is asked now: only that one is heard, on a port that the kernel chose.
    socket: UdpSocket,
    /// The number that we gave the question; the asker's own is put back into the answer.
    number: [u8; 2],
    question: Vec<u8>,
    /// Whom to ask next.
    others: Vec<SocketAddr>,
    asker: SocketAddr,
    through: Arc<UdpSocket>,
    failure: Vec<u8>,
    deadline: Instant,
}

/// All questions under way.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    pending: Vec<Pending>,
}

impl Forwarder {
    /// Asks the first of the name servers that can be asked. Where there is none, `failure` is the answer at once.
    pub(super) fn begin(
        &mut self,
        question: Vec<u8>,
        (asker, through): (SocketAddr, Arc<UdpSocket>),
        failure: Vec<u8>,
        resolvers: Vec<SocketAddr>,
    ) {
        // A network has one socket.
        let share = self.pending.iter().filter(|pending| Arc::ptr_eq(&pending.through, &through)).count();
        let others = if self.pending.len() < MOST && share < SHARE { resolvers } else { Vec::new() };
        self.ask_next(question, others, asker, through, failure);
    }

    fn ask_next(
        &mut self,
        mut question: Vec<u8>,
        mut others: Vec<SocketAddr>,
        asker: SocketAddr,
        through: Arc<UdpSocket>,
        failure: Vec<u8>,
    ) {
        let own = [question[0], question[1]];
        while !others.is_empty() {
            let server = others.remove(0);
            let number = fastrand::u16(..).to_be_bytes();
            question[..2].copy_from_slice(&number);
            if let Ok(socket) = ask(&question, server) {
                question[..2].copy_from_slice(&own);
                let deadline = Instant::now() + PATIENCE;
                self.pending.push(Pending { socket, number, question, others, asker, through, failure, deadline });
                return;
            }
        }
        let _ = through.send_to(&failure, asker);
    }

    /// What is to be waited for.
    pub(super) fn wanted(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.pending.iter().map(|pending| PollFd::new(&pending.socket, PollFlags::IN))
    }

    /// How long at most.
    pub(super) fn patience(&self) -> Option<Duration> {
        let next = self.pending.iter().map(|pending| pending.deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Hands on the answers that have come, and asks the next name server where one is silent or refuses to be asked.
    pub(super) fn go_on(&mut self) {
        let now = Instant::now();
        let mut buffer = [0_u8; 4096];
        for pending in std::mem::take(&mut self.pending) {
            match pending.socket.recv(&mut buffer) {
                Ok(length) if length >= 12 && buffer[..2] == pending.number && buffer[2] & 0x80 != 0 => {
                    buffer[..2].copy_from_slice(&pending.question[..2]);
                    let _ = pending.through.send_to(&buffer[..length], pending.asker);
                }
                // Something else came, or nothing yet.
                Ok(_) if pending.deadline > now => self.pending.push(pending),
                Err(error) if error.kind() == ErrorKind::WouldBlock && pending.deadline > now => {
                    self.pending.push(pending)
                }
                _ => {
                    let Pending { question, others, asker, through, failure, .. } = pending;
                    self.ask_next(question, others, asker, through, failure);
                }
            }
        }
    }
}

fn ask(question: &[u8], server: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(question)?;
    Ok(socket)
}

/// Asks by TCP, one name server after the other, and waits for it.
pub(super) fn ask_by_tcp(question: &[u8], resolvers: &[SocketAddr]) -> Option<Vec<u8>> {
    resolvers.iter().find_map(|server| {
        let stream = TcpStream::connect_timeout(server, PATIENCE).ok()?;
        send(&stream, question, PATIENCE).ok()?;
        let answer = receive(&stream, PATIENCE).ok()??;
        (answer.len() >= 12 && answer[..2] == question[..2]).then_some(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_servers_are_read_but_for_our_own() {
        let text = "# nameserver 9.9.9.9\nsearch a\nnameserver 10.0.0.53\n nameserver\t10.89.0.1\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver x\n";
        let expected: Vec<SocketAddr> = vec!["10.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(resolvers(text, &[Ipv4Addr::new(10, 89, 0, 1)]), expected);
    }

    #[test]
    fn where_nobody_can_be_asked_the_failure_comes_at_once() {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let through = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let mut forwarder = Forwarder::default();
        forwarder.begin(vec![0; 12], (client.local_addr().unwrap(), through.clone()), b"failed".to_vec(), Vec::new());
        let mut buffer = [0; 64];
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);

        // A name server that answers: the asker's number comes back; then one where nobody listens, which the kernel tells.
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let question = [[7, 7].as_slice(), &[0; 10]].concat();
        let asker = || (client.local_addr().unwrap(), through.clone());
        forwarder.begin(question.clone(), asker(), b"failed".to_vec(), vec![address]);
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        buffer[2] = 0x80;
        server.send_to(&buffer[..length], from).unwrap();
        forwarder.go_on();
        assert_eq!(client.recv(&mut buffer).unwrap(), 12);
        assert_eq!(buffer[..3], [7, 7, 0x80]);

        drop(server);
        forwarder.begin(question, asker(), b"failed".to_vec(), vec![address]);
        let begin = Instant::now();
        while !forwarder.pending.is_empty() && begin.elapsed() < PATIENCE / 2 {
            forwarder.go_on();
        }
        assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    }

    #[test]
    fn one_network_has_no_more_than_its_share() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = vec![silent.local_addr().unwrap()];
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_nonblocking(true).unwrap();
        let network = || Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let (greedy, modest) = (network(), network());
        let mut forwarder = Forwarder::default();
        let mut ask = |network: &Arc<UdpSocket>| {
            let asker = (client.local_addr().unwrap(), network.clone());
            forwarder.begin(vec![0; 12], asker, b"failed".to_vec(), server.clone());
            client.recv(&mut [0; 64]).is_ok()
        };
        assert!((0..SHARE).all(|_| !ask(&greedy)), "it is asked on");
        assert!(ask(&greedy), "it has failed");
        assert!(!ask(&modest), "another network is asked for");
    }
}
