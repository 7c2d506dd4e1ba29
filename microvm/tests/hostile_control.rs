//! Hostile clients of a monitor's control socket: each line has one answer, whatever is in it, and the next client is served.

use isobench_microvm::control::protocol::LONGEST_REQUEST;
use isobench_microvm::control::{self, Asked, Control, Server};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const DESCRIBE: &[u8] = b"{\"version\":1,\"request\":\"describe\"}\n";

/// A control socket of a machine without a configuration.
fn listening(socket: &Path) -> Control {
    Control::new(UnixListener::bind(socket).unwrap(), Value::Null).unwrap()
}

/// What a machine with nothing answers to these bytes, and then to no more.
fn said(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_no_request_is_refused_and_the_next_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let _server = Server::start(listening(&socket), Asked::default()).unwrap();
    let kinds = |bytes: &[u8]| -> Vec<String> {
        let text = said(&socket, bytes);
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["error"]["kind"].to_string()).collect()
    };
    assert_eq!(kinds(b"dance\n"), ["\"malformed\""]);
    assert_eq!(kinds(b"{\"version\":1,\"request\":\"dance\"}\n"), ["\"unknown-request\""]);
    assert_eq!(kinds(b"{\"version\":1,\"request\":\"balloon\"}"), ["\"unsupported\""]);
    assert_eq!(kinds(&[0xff; 100]), ["\"malformed\""]);
    assert_eq!(kinds(b"\n\0\n{}\n"), ["\"malformed\"", "\"malformed\"", "\"malformed\""]);
    assert_eq!(kinds(b""), [""; 0]);
    assert_eq!(kinds("[".repeat(60_000).as_bytes()), ["\"malformed\""]);
    assert_eq!(kinds("{\"version\":".repeat(5_000).as_bytes()), ["\"malformed\""]);
    // A line without an end is refused once, and what comes after its end is a request again.
    let endless = [&vec![b'x'; 1_000_000][..], b"\n{\"version\":1,\"request\":\"pause\"}\n"].concat();
    assert_eq!(kinds(&endless), ["\"too-long\"", "\"unsupported\""]);
    // Somebody who comes and goes, and many who stay and say nothing.
    drop(UnixStream::connect(&socket).unwrap());
    let _quiet: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let refused = control::set_balloon(&socket, 1).unwrap_err();
    assert!(refused.to_string().ends_with("refused: the machine has no balloon"), "{refused}");
}

/// A connection to a server of its own, whose directory and thread live as long as the test.
fn connected() -> (tempfile::TempDir, Server, impl Fn() -> BufReader<UnixStream>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let server = Server::start(listening(&socket), Asked::default()).unwrap();
    let connect = move || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    };
    (directory, server, connect)
}

fn answer(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

fn described(stream: &mut BufReader<UnixStream>) -> String {
    stream.get_mut().write_all(DESCRIBE).unwrap();
    answer(stream)
}

#[test]
fn a_line_is_too_long_before_it_has_an_end() {
    let (_directory, _server, connect) = connected();
    let mut stream = connect();
    stream.get_mut().write_all(&[b'x'; LONGEST_REQUEST]).unwrap();
    assert!(answer(&mut stream).contains("too-long"));
}

#[test]
fn of_more_than_sixteen_the_quietest_is_closed() {
    let (_directory, _server, connect) = connected();
    let mut all = Vec::new();
    for _ in 0..17 {
        let mut stream = connect();
        assert!(described(&mut stream).contains("running"));
        all.push(stream);
    }
    assert_eq!(answer(&mut all[0]), "");
    assert!(all[1..].iter_mut().all(|stream| described(stream).contains("running")));
}

#[test]
fn who_does_not_read_is_cut_off() {
    let (_directory, _server, connect) = connected();
    let deaf = connect();
    let cut = (0..100_000).find_map(|_| deaf.get_ref().write_all(DESCRIBE).err()).unwrap();
    assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&cut.kind()), "{cut}");
    assert!(described(&mut connect()).contains("running"));
}

#[test]
fn no_more_descriptors_are_kept_than_a_request_can_have() {
    let (_directory, _server, connect) = connected();
    let (held, mut other) = (connect(), connect());
    let (_reader, writer) = std::io::pipe().unwrap();
    let name = std::fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let kept = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let same =
            links.filter(|link| std::fs::read_link(link.as_ref().unwrap().path()).is_ok_and(|link| link == name));
        // The two of this test are no one's else.
        same.count() - 2
    };
    let writers = [writer.as_fd(); 8];
    for _ in 0..3 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&writers)));
        sendmsg(held.get_ref(), &[IoSlice::new(b" ")], &mut ancillary, SendFlags::empty()).unwrap();
    }
    // Each answer comes after what was there before its request was looked at.
    for _ in 0..8 {
        assert!(described(&mut other).contains("running"));
    }
    assert_eq!(kept(), 8);
    drop(held);
    for _ in 0..8 {
        described(&mut other);
    }
    assert_eq!(kept(), 0);
}

#[test]
fn requests_in_one_connection_are_answered_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let _server = Server::start(listening(&socket), Asked::default()).unwrap();
    let line = |id: u32, request: &str| format!("{{\"version\":1,\"id\":{id},\"request\":\"{request}\"}}\n");
    let text: String = (0..200).map(|id| line(id, if id % 2 == 0 { "describe" } else { "start" })).collect();
    let answers = said(&socket, text.as_bytes());
    for (id, answer) in answers.lines().enumerate() {
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["id"], id);
        match id % 2 {
            0 => assert_eq!(answer["result"]["state"], "running"),
            _ => assert_eq!(answer["error"]["kind"], "state"),
        }
    }
    assert_eq!(answers.lines().count(), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, in whatever pieces, there is one answer to a line, and the next client is served.
    #[test]
    fn any_bytes_leave_the_socket_serving(pieces in vec(vec(any::<u8>(), 0..300), 0..8)) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control");
        let _server = Server::start(listening(&socket), Asked::default()).unwrap();
        let bytes = pieces.concat();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
        prop_assert_eq!(said(&socket, &bytes).lines().count(), lines);
        prop_assert!(control::describe(&socket).is_ok());
    }
}
