//! One question to a name server (RFC 1035), for the probe: the standard library asks those of the machine alone, in a way
//! that a test cannot choose.

use isobench_workload::Lookup;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// Length of a message's heading.
const HEADER: usize = 12;

/// The identifier of the one question that is ever asked from a socket.
const IDENTIFIER: u16 = 7;

/// The IPv4 addresses of a name; none where the server says that there is no such name, or none of that kind.
pub(crate) fn lookup(question: &Lookup, patience: Duration) -> Result<Vec<Ipv4Addr>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).map_err(failed)?;
    socket.connect(question.server).map_err(failed)?;
    socket.send(&query(&question.name)?).map_err(failed)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).map_err(failed)?;
    read(&answer[..length]).ok_or_else(|| "its answer is none that can be read".to_owned())?
}

/// A question for addresses (type A, class IN), with recursion asked for.
fn query(name: &str) -> Result<Vec<u8>, String> {
    let mut message = [IDENTIFIER, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        message.push(length.ok_or_else(|| format!("`{name}` is no name"))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(message)
}

/// The addresses in an answer to [`query`]; `None` where it is malformed, an error where the server refuses.
fn read(message: &[u8]) -> Option<Result<Vec<Ipv4Addr>, String>> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let flags = word(2)?;
    if word(0)? != IDENTIFIER || flags & 0x8000 == 0 {
        return None;
    }
    match flags & 0xf {
        0 => {}
        // NXDOMAIN
        3 => return Some(Ok(Vec::new())),
        code => return Some(Err(format!("the server answers with error {code}"))),
    }
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = HEADER;
    for _ in 0..questions {
        at = after_name(message, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let record = after_name(message, at)?;
        let (kind, length) = (word(record)?, usize::from(word(record + 8)?));
        let data = message.get(record + 10..record + 10 + length)?;
        if let (1, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
            addresses.push(octets.into());
        }
        at = record + 10 + length;
    }
    Some(Ok(addresses))
}

/// Where a name ends: at a length of nought, or after a pointer (RFC 1035, 4.1.4).
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    /// A server that answers one question with these flags and, after the question itself, these records.
    fn server(flags: u16, answers: u16, records: &'static [u8]) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut message = [0; 1500];
            let (length, client) = socket.recv_from(&mut message).unwrap();
            let mut answer = message[..length].to_vec();
            answer[2..4].copy_from_slice(&flags.to_be_bytes());
            answer[6..8].copy_from_slice(&answers.to_be_bytes());
            answer.extend_from_slice(records);
            socket.send_to(&answer, client).unwrap();
        });
        address
    }

    fn ask(server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        lookup(&Lookup { server, name: name.into() }, Duration::from_millis(2000))
    }

    #[test]
    fn addresses_are_read_after_an_alias() {
        // A pointer to the name asked for; CNAME of 2 bytes, then A of 4.
        const RECORDS: &[u8] =
            &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 89, 0, 2];
        assert_eq!(ask(server(0x8180, 2, RECORDS), "web.example"), Ok(vec![Ipv4Addr::new(10, 89, 0, 2)]));
    }

    #[test]
    fn no_such_name_is_no_address_and_a_refusal_an_error() {
        assert_eq!(ask(server(0x8183, 0, &[]), "nobody"), Ok(Vec::new()));
        assert!(ask(server(0x8185, 0, &[]), "nobody").is_err());
        assert!(ask(server(0x0100, 0, &[]), "nobody").is_err(), "a question is no answer");
        assert!(ask(server(0x8180, 1, &[0xc0]), "nobody").is_err(), "a record that is cut off");
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_is_refused() {
        assert!(query("a..b").is_err() && query(&"x".repeat(64)).is_err() && query("").is_err());
        assert_eq!(query("ab.c").unwrap()[HEADER..], [2, b'a', b'b', 1, b'c', 0, 0, 1, 0, 1]);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm() {
        let mut random = 1_u32;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 24) as u8
                })
                .collect();
            let mut message = [IDENTIFIER, 0x8180, 1, 9, 0, 0].map(u16::to_be_bytes).concat();
            message.extend_from_slice(&bytes);
            let _ = read(&message);
        }
    }
}
