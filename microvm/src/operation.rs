//! How a machine is run, whatever its guest is and however it began.

use crate::control::Control;
use crate::jail::Jail;
use std::time::Duration;

/// What is alike of a guest that boots and of one that goes on from a snapshot, of Linux and of the unikernel.
#[derive(Debug)]
pub struct Operation {
    /// Where the machine takes requests, where it does.
    pub control: Option<Control>,
    /// How long it may run; without limit where `None`.
    pub deadline: Option<Duration>,
    /// How long the network card's I/O thread looks for frames before it sleeps.
    pub spin: Duration,
    /// Whether the calling thread is [confined](crate::confinement) before the guest runs, for good: right for a program that
    /// does nothing else.
    pub confined: bool,
    /// The jail that the process enters, for good, before it starts a thread; none for a program that does something else too.
    pub jail: Option<Jail>,
}
