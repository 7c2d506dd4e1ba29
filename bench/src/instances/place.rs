//! A container's place in its network, got ready on another processor while the launching thread does the rest.

use super::attachment::Attachment;
use super::files;
use super::request::{Network, Request};
use anyhow::Context;
use isobench_runtime::elsewhere;
use isobench_runtime::network::EmptyNamespace;
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A thread that makes a network namespace, takes what the container asks of its network, and attaches the one to the other.
///
/// Both take as long as all else does. Dropped, it is waited for, and what it took is given back.
#[derive(Debug)]
pub(super) struct Place {
    /// The order to take what is asked for.
    order: Option<SyncSender<()>>,
    namespace: Receiver<Arc<OwnedFd>>,
    attached: Receiver<anyhow::Result<Attachment>>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Starts the thread, if the container is one that can be launched so. Until it is told to go on ([`Place::go_on`]) it makes
    /// nothing but the namespace.
    pub(super) fn begin(request: &Request, name: &str) -> anyhow::Result<Option<Self>> {
        // A virtual machine has a tap. An ordinary user has no right to a network namespace but in the user namespace that the
        // container is yet to get.
        let network = match &request.network {
            Network::Named(network) if request.machine.is_none() && rustix::process::geteuid().is_root() => network,
            _ => return Ok(None),
        };
        let ((order, ordered), (made, namespace), (done, attached)) =
            (sync_channel(1), sync_channel(1), sync_channel(1));
        let (network, request, name) = (network.clone(), request.clone(), name.to_owned());
        let work = move || {
            // Whoever does not listen has given up: then all goes at once.
            drop(done.send(attach(&network, &request, &name, &made, &ordered)));
        };
        let thread = elsewhere::spawn("network", work).context("start a thread for the network")?;
        Ok(Some(Self { order: Some(order), namespace, attached, thread: Some(thread) }))
    }

    /// Has it go on: the container is locked, and its directory the working directory.
    pub(super) fn go_on(&self) {
        // A thread that has ended says why.
        self.order.as_ref().map(|order| order.send(()));
    }

    /// The namespace, as soon as it is there.
    pub(super) fn namespace(&self) -> anyhow::Result<Arc<OwnedFd>> {
        match self.namespace.recv() {
            Ok(namespace) => Ok(namespace),
            // It says why there is none.
            Err(_) => self.attachment().and(Err(gone())),
        }
    }

    /// Waits until it is attached, and the container's files say so. What is then left of the thread need not be waited for.
    pub(super) fn attachment(&self) -> anyhow::Result<Attachment> {
        self.attached.recv().map_err(|_| gone())?
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.order = None;
        // A panic has been told.
        self.thread.take().map(JoinHandle::join);
    }
}

fn attach(
    network: &str,
    request: &Request,
    name: &str,
    made: &SyncSender<Arc<OwnedFd>>,
    ordered: &Receiver<()>,
) -> anyhow::Result<Attachment> {
    let namespace = EmptyNamespace::create_and_return()?;
    if made.send(Arc::clone(namespace.descriptor())).is_err() || ordered.recv().is_err() {
        return Err(gone());
    }
    let (attachment, endpoint) = Attachment::join(network, request, name)?;
    files::write(request, attachment.places(), attachment.resolver())?;
    endpoint.attach_ahead(&namespace).context("connect the container to its network")?;
    Ok(attachment.launched(Some(endpoint)))
}

fn gone() -> anyhow::Error {
    anyhow::anyhow!("the thread that connects the container to its network has ended")
}
