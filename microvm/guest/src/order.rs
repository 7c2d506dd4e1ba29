//! What connections on which something is done by order have in common, be it work or another connection.

use smoltcp::socket::tcp::{Socket, State};

/// What has become of such a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There was nothing to do.
    None,
    /// It went on.
    Some,
    /// It is over.
    Ended,
}

/// What has come of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// All of it.
    All,
    /// Not all yet.
    Less,
    /// Not all, and no more will come.
    Closed,
}

/// Takes all of some bytes, or none of them.
pub(crate) fn receive(socket: &mut Socket<'_>, bytes: &mut [u8]) -> Received {
    if socket.recv_queue() >= bytes.len() {
        // They are there, as just seen.
        let _ = socket.recv_slice(bytes);
        return Received::All;
    }
    // What is cut short is there for good where the peer has closed.
    if socket.state() == State::Established { Received::Less } else { Received::Closed }
}
