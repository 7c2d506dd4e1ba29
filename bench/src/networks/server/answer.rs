//! The answer to one question, from the files of the network on which it was asked.

use crate::networks::names::Names;
use crate::networks::{Member, Settings};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use isobench_runtime::network::{LockFile, Subnet, Subnet6};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names can change at any time, so nobody is to remember an answer.
const TIME_TO_LIVE: u32 = 0;

/// What a datagram holds where the asker does not say that he takes more
/// ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035), 4.2.1).
const SMALL: usize = 512;

/// What we send at most in a datagram, and say that we take
/// ([DNS flag day 2020](https://www.dnsflagday.net/2020/)).
const LARGE: u16 = 1232;

/// How a question came, which bounds the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What is to be done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Nothing: it is no question.
    Ignore,
    /// Send this back.
    Answer(Vec<u8>),
    /// Ask somebody else; where nobody can be asked, send this back.
    Forward(Vec<u8>),
}

/// The names of one network.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    directory: PathBuf,
    names: Names,
    leases: LockFile,
    subnet: Subnet,
    six: Option<Subnet6>,
    /// Nothing outside is asked on behalf of a network without a way out.
    internal: bool,
}

impl Zone {
    pub(super) fn new(directory: &Path, settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            directory: directory.into(),
            names: Names::of(directory),
            leases: LockFile::at(&directory.join("leases")),
            subnet: settings.subnet.parse()?,
            six: settings.ipv6.as_deref().map(str::parse).transpose()?,
            internal: settings.internal,
        })
    }

    /// Whether an asker is in the network, or is the host itself by its own address there.
    pub(super) fn serves(&self, asker: IpAddr) -> bool {
        match asker {
            IpAddr::V4(asker) => self.subnet.contains(asker),
            IpAddr::V6(asker) => self.six.is_some_and(|six| six.contains(asker)),
        }
    }

    /// What is to be done with a message. Whatever is in it, this neither fails nor takes long. Who is in `others` too has
    /// answers from there as well.
    pub(super) fn reply(&self, message: &[u8], asker: IpAddr, others: &[Arc<Self>], way: Way) -> Reply {
        let Ok(query) = Message::from_vec(message) else { return Reply::Ignore };
        if query.metadata.message_type != MessageType::Query {
            return Reply::Ignore;
        }
        let mut response = Message::response(query.metadata.id, query.metadata.op_code);
        response.metadata.recursion_desired = query.metadata.recursion_desired;
        response.metadata.recursion_available = !self.internal;
        response.add_queries(query.queries.iter().cloned());
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGE);
            response.set_edns(edns);
        }
        let found = match &query.queries[..] {
            _ if query.metadata.op_code != OpCode::Query => Err(ResponseCode::NotImp),
            [question] if question.query_class == DNSClass::IN => {
                let (name, kind) = (&question.name, question.query_type);
                match self.find(name, kind) {
                    Ok(Found::Records(records)) => Ok(Found::Records(records)),
                    unknown => self.find_beside(name, kind, asker, others).map_or(unknown, Ok),
                }
            }
            [_] => Err(ResponseCode::Refused),
            _ => Err(ResponseCode::FormErr),
        };
        let forward = matches!(found, Ok(Found::Foreign));
        match found {
            Ok(Found::Records(records)) => {
                response.metadata.authoritative = true;
                response.insert_answers(records);
            }
            Ok(Found::Foreign) => response.metadata.response_code = ResponseCode::ServFail,
            Err(code) => response.metadata.response_code = code,
        }
        let Ok(mut bytes) = response.to_vec() else { return Reply::Ignore };
        let room = query.edns.as_ref().map_or(SMALL, |edns| usize::from(edns.max_payload().clamp(SMALL as u16, LARGE)));
        if way == Way::Udp && bytes.len() > room {
            // The asker comes again by TCP.
            let Ok(short) = response.truncate().to_vec() else { return Reply::Ignore };
            bytes = short;
        }
        if forward { Reply::Forward(bytes) } else { Reply::Answer(bytes) }
    }

    fn find(&self, name: &Name, kind: RecordType) -> Result<Found, ResponseCode> {
        if let Some(address) = reverse(name) {
            return self.find_names(name, address, kind);
        }
        let text = name.to_ascii();
        let text = text.trim_end_matches('.');
        let addresses: Vec<Ipv4Addr> = if super::super::check_name("container", text).is_ok() {
            self.names.addresses(text).into_iter().filter(|address| self.is_alive(*address)).collect()
        } else {
            Vec::new()
        };
        if addresses.is_empty() {
            return self.elsewhere(text);
        }
        let data: Vec<RData> = match kind {
            RecordType::A => addresses.into_iter().map(|address| RData::A(A(address))).collect(),
            RecordType::AAAA => {
                let six = |address| Some(self.six?.address_of(address, self.subnet));
                addresses.into_iter().filter_map(six).map(|address| RData::AAAA(AAAA(address))).collect()
            }
            // The name is there, but has nothing of that kind: an empty answer, so that nobody looks elsewhere.
            _ => Vec::new(),
        };
        Ok(Found::Records(records(name, data)))
    }

    /// Looks in the other networks of whoever asks.
    fn find_beside(&self, name: &Name, kind: RecordType, asker: IpAddr, others: &[Arc<Self>]) -> Option<Found> {
        let IpAddr::V4(asker) = asker else { return None };
        let instance = Member::read(&self.directory, asker)?.instance;
        let its_own = |zone: &&Arc<Self>| zone.directory != self.directory && zone.has(&instance);
        others.iter().filter(its_own).find_map(|zone| match zone.find(name, kind) {
            Ok(Found::Records(records)) => Some(Found::Records(records)),
            _ => None,
        })
    }

    /// Whether a container is in this network.
    fn has(&self, instance: &str) -> bool {
        let is_it = |address: &Ipv4Addr| {
            let member = Member::read(&self.directory, *address);
            member.is_some_and(|member| member.instance == instance) && self.is_alive(*address)
        };
        self.names.addresses(instance).iter().any(is_it)
    }

    fn find_names(&self, name: &Name, address: IpAddr, kind: RecordType) -> Result<Found, ResponseCode> {
        if !self.serves(address) {
            return self.elsewhere(&name.to_ascii());
        }
        let four = match address {
            IpAddr::V4(address) => Some(address),
            // The host part is the same in both families.
            IpAddr::V6(address) => {
                let host = Ipv4Addr::from(u32::from(self.subnet.network()) | u128::from(address) as u32);
                self.six.filter(|six| six.address_of(host, self.subnet) == address).map(|_| host)
            }
        };
        let member = four.filter(|four| self.is_alive(*four)).and_then(|four| Member::read(&self.directory, four));
        let member = member.ok_or(ResponseCode::NXDomain)?;
        if kind != RecordType::PTR {
            return Ok(Found::Records(Vec::new()));
        }
        let names = member.names.iter().filter_map(|name| Name::from_ascii(format!("{name}.")).ok());
        Ok(Found::Records(records(name, names.map(|name| RData::PTR(PTR(name))).collect())))
    }

    /// A name without a dot can only be one of ours.
    fn elsewhere(&self, name: &str) -> Result<Found, ResponseCode> {
        match (name.contains('.'), self.internal) {
            (false, _) => Err(ResponseCode::NXDomain),
            (true, true) => Err(ResponseCode::Refused),
            (true, false) => Ok(Found::Foreign),
        }
    }

    /// Whether whoever had the address when the name was written down still lives.
    fn is_alive(&self, address: Ipv4Addr) -> bool {
        self.subnet.index_of(address).is_some_and(|index| self.leases.is_held(index.into()).unwrap_or(false))
    }
}

enum Found {
    Records(Vec<Record>),
    Foreign,
}

fn records(name: &Name, data: Vec<RData>) -> Vec<Record> {
    data.into_iter().map(|data| Record::from_rdata(name.clone(), TIME_TO_LIVE, data)).collect()
}

/// The address that is asked about by a name under `in-addr.arpa` or `ip6.arpa`.
fn reverse(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    let whole = network.prefix_len() == network.max_prefix_len();
    whole.then(|| network.addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use isobench_runtime::network::Pool;
    use isobench_runtime::network::pool::Lease;
    use proptest::prelude::*;

    const ASKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 89, 0, 2));

    /// A network with one living member `web` at 10.89.0.2 and a dead one `gone`.
    fn zone(internal: bool) -> (tempfile::TempDir, Zone, Lease) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir_all(path.join("endpoints")).unwrap();
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "name": "n", "created": "", "bridge": "br-n", "subnet": "10.89.0.0/24", "gateway": "10.89.0.1",
            "ipv6": "fd00:1::/64", "internal": internal,
        }))
        .unwrap();
        let file = LockFile::create(&path.join("leases")).unwrap();
        let pool = Pool::shared("10.89.0.0/24".parse().unwrap(), settings.gateway, None, file).unwrap();
        let lease = pool.lease().unwrap();
        let names = Names::of(path);
        names.add("web", lease.address()).unwrap();
        names.add("gone", Ipv4Addr::new(10, 89, 0, 9)).unwrap();
        let member = serde_json::json!({
            "instance": "web", "address": lease.address(), "mac": "", "names": ["web", "www"], "ports": [],
        });
        std::fs::write(path.join("endpoints/10.89.0.2.json"), member.to_string()).unwrap();
        let zone = Zone::new(path, &settings).unwrap();
        (directory, zone, lease)
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> (bool, Message) {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let (forward, bytes) = match zone.reply(&query.to_vec().unwrap(), ASKER, &[], Way::Udp) {
            Reply::Answer(bytes) => (false, bytes),
            Reply::Forward(bytes) => (true, bytes),
            Reply::Ignore => panic!("no reply"),
        };
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (query.metadata.id, &query.queries));
        (forward, answer)
    }

    fn data(message: &Message) -> Vec<String> {
        message.answers.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn names_and_addresses_are_answered_both_ways() {
        let (_directory, zone, lease) = zone(false);
        for (name, kind, expected) in [
            ("web.", RecordType::A, vec!["10.89.0.2"]),
            ("WEB.", RecordType::A, vec!["10.89.0.2"]),
            ("web.", RecordType::AAAA, vec!["fd00:1::2"]),
            ("web.", RecordType::MX, vec![]),
            ("2.0.89.10.in-addr.arpa.", RecordType::PTR, vec!["web.", "www."]),
            (
                "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
                RecordType::PTR,
                vec!["web.", "www."],
            ),
        ] {
            let (forward, answer) = ask(&zone, name, kind);
            assert_eq!((forward, answer.metadata.response_code), (false, ResponseCode::NoError), "{name}");
            assert_eq!(data(&answer), expected, "{name} {kind}");
        }
        // With its holder the name is gone, though its file is still there.
        drop(lease);
        assert_eq!(ask(&zone, "web.", RecordType::A).1.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn what_is_not_ours_is_passed_on_or_refused() {
        let ((_one, open, _a), (_two, closed, _b)) = (zone(false), zone(true));
        for (name, kind) in [("example.org.", RecordType::A), ("1.1.1.1.in-addr.arpa.", RecordType::PTR)] {
            let (forward, answer) = ask(&open, name, kind);
            assert_eq!((forward, answer.metadata.response_code), (true, ResponseCode::ServFail), "{name}");
            let (forward, answer) = ask(&closed, name, kind);
            assert_eq!((forward, answer.metadata.response_code), (false, ResponseCode::Refused), "{name}");
        }
        for name in ["nobody.", "gone.", "9.0.89.10.in-addr.arpa."] {
            let (forward, answer) = ask(&open, name, RecordType::A);
            assert_eq!((forward, answer.metadata.response_code), (false, ResponseCode::NXDomain), "{name}");
        }
        for name in ["..", "a/b.", "../names/web."] {
            // Where it can be asked at all, it is no path.
            if let Ok(name) = Name::from_ascii(name) {
                assert!(data(&ask(&open, &name.to_ascii(), RecordType::A).1).is_empty());
            }
        }
        assert!(open.serves([10, 89, 0, 77].into()) && !open.serves([10, 90, 0, 77].into()));
    }

    #[test]
    fn a_long_answer_is_cut_in_a_datagram_alone() {
        let (directory, zone, _lease) = zone(false);
        let file = LockFile::at(&directory.path().join("leases"));
        let pool = Pool::shared("10.89.0.0/24".parse().unwrap(), Ipv4Addr::new(10, 89, 0, 1), None, file).unwrap();
        let leases: Vec<_> = (0..100).map(|_| pool.lease().unwrap()).collect();
        leases.iter().for_each(|lease| zone.names.add("web", lease.address()).unwrap());
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii("web.").unwrap(), RecordType::A));
        let question = query.to_vec().unwrap();
        let answered = |way| match zone.reply(&question, ASKER, &[], way) {
            Reply::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        let (short, long) = (answered(Way::Udp), answered(Way::Tcp));
        assert_eq!((short.metadata.truncation, short.answers.len()), (true, 0));
        assert_eq!((long.metadata.truncation, long.answers.len()), (false, 101));
    }

    proptest! {
        /// Whatever comes, there is an answer to a question or none, and an answer repeats the question's number.
        #[test]
        fn any_datagram_is_answered_or_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_directory, zone, _lease) = zone(false);
            if let Reply::Answer(answer) | Reply::Forward(answer) = zone.reply(&bytes, ASKER, &[], Way::Udp) {
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(answer[2] & 0x80 != 0, "a response");
                prop_assert!(answer.len() <= usize::from(LARGE));
            }
        }

        /// A real question with some bytes changed or cut away.
        #[test]
        fn a_damaged_question_does_no_harm(at in 0_usize..40, value: u8, cut in 0_usize..40) {
            let (_directory, zone, _lease) = zone(false);
            let mut query = Message::query();
            query.add_query(Query::query(Name::from_ascii("web.example.").unwrap(), RecordType::A));
            query.set_edns(Edns::new());
            let mut bytes = query.to_vec().unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Reply::Answer(answer) | Reply::Forward(answer) = zone.reply(&bytes, ASKER, &[], Way::Udp) {
                prop_assert!(Message::from_vec(&answer).is_ok());
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
        }
    }
}
