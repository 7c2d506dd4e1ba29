//! What the parent and the testbed say to each other: one JSON value a message, after its length in four bytes.

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest message in bytes, so that a broken peer cannot make us allocate without end.
const LONGEST: usize = 64 << 20;

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// How long [`Channel::receive`] waits for the other side, `None` for ever.
    pub(crate) fn wait_at_most(&self, deadline: Option<Duration>) -> anyhow::Result<()> {
        self.stream.set_read_timeout(deadline).context("set the deadline of a testbed's answer")
    }

    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> anyhow::Result<()> {
        let body = serde_json::to_vec(message)?;
        if body.len() > LONGEST {
            bail!("a message of {} bytes is longer than {LONGEST}", body.len());
        }
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame).context("send a message")
    }

    /// The next message, or `None` where the other side has ended.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("receive a message"),
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            bail!("a message of {length} bytes is longer than {LONGEST}");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("receive a message")?;
        Ok(Some(serde_json::from_slice(&body).context("read a message")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        (Channel::new(ours), theirs)
    }

    proptest! {
        #[test]
        fn messages_arrive_in_order_and_whole(messages in proptest::collection::vec(".{0,200}", 0..20)) {
            let (mut ours, theirs) = pair();
            let mut theirs = Channel::new(theirs);
            for message in &messages {
                theirs.send(message).unwrap();
            }
            drop(theirs);
            for message in &messages {
                prop_assert_eq!(ours.receive::<String>().unwrap(), Some(message.clone()));
            }
            prop_assert!(ours.receive::<String>().unwrap().is_none());
        }
    }

    #[test]
    fn a_giant_length_is_refused_without_allocation() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(ours.receive::<String>().unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn half_a_message_is_an_error() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&[9, 0, 0, 0, b'"']).unwrap();
        drop(theirs);
        assert!(ours.receive::<String>().is_err());
    }
}
