//! One nftables table of ours: address translation, isolation and published ports ([`super::published_port`]).
//!
//! It has two forms. One process alone has the table for as long as it lives ([`Firewall::create`]): the kernel takes it when
//! the process dies. Or several processes change one table that stays ([`Firewall::establish`], [`Firewall::shared`]): what
//! one of them published is then known by the socket that reserves the port and by a lock in a file, both of which the kernel
//! frees when it dies, and the next one takes what is left in the table ([`Firewall::forget`]).

use super::lock_file::LockFile;
use super::netlink::Batch;
use super::nft::{self, Family, Member, Redirection};
use super::sysctl::{self, Changed};
use super::{Namespace, Netlink, NetworkError};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The table, and the forwarding of packets between links.
#[derive(Clone, Debug)]
pub struct Firewall(pub(super) Arc<Table>);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    state: Mutex<State>,
    pub(super) books: Books,
}

#[derive(Debug)]
pub(super) struct State {
    /// Kept open for the table's whole life: where the table is owned, it is owned by this.
    pub(super) netlink: Netlink,
    /// What this process has published.
    pub(super) published: Vec<Redirection>,
}

/// Who else has to do with the table.
#[derive(Debug)]
pub(super) enum Books {
    /// Nobody. Forwarding is as it was once the table goes.
    Own { _forwarding: Changed },
    /// Other processes: the file has a lock for each published port, and one for whoever is changing the table.
    Shared(LockFile),
}

impl Firewall {
    /// Creates the table in the calling thread's network namespace, without networks and ports, for this process alone; it
    /// goes when this and everything that was added by it is dropped.
    ///
    /// # Errors
    /// If there is one of that name, or the kernel lacks nftables.
    pub fn create(table: &str) -> Result<Self, NetworkError> {
        let mut netlink = Netlink::netfilter()?;
        transact(&mut netlink, "create nftables table", table, nft::ruleset(table, &[Family::Four], true))?;
        // Only once the rules are there: nothing is ever forwarded without them.
        let forwarding = Changed::new(Namespace::current()?, FORWARDING, "1")?;
        Ok(Self::new(table, netlink, Books::Own { _forwarding: forwarding }))
    }

    /// Creates the table in another namespace.
    pub fn create_in(namespace: &Namespace, table: &str) -> Result<Self, NetworkError> {
        namespace.enter(|| Self::create(table))?
    }

    /// Creates the table in the calling thread's network namespace unless it is there, for every process that uses the same
    /// file; it stays until it is removed ([`Firewall::remove`]).
    pub fn establish(table: &str, ports: LockFile) -> Result<Self, NetworkError> {
        let firewall = Self::shared(table, ports)?;
        firewall.establish_family(Family::Four)?;
        Ok(firewall)
    }

    /// The table that is in the calling thread's network namespace already.
    pub fn shared(table: &str, ports: LockFile) -> Result<Self, NetworkError> {
        Ok(Self::new(table, Netlink::netfilter()?, Books::Shared(ports)))
    }

    fn new(table: &str, netlink: Netlink, books: Books) -> Self {
        let state = Mutex::new(State { netlink, published: Vec::new() });
        Self(Arc::new(Table { name: table.into(), state, books }))
    }

    fn establish_family(&self, family: Family) -> Result<(), NetworkError> {
        let mut state = self.0.lock();
        let owned = matches!(self.0.books, Books::Own { .. });
        let ruleset = nft::ruleset(&self.0.name, &[family], owned);
        match transact(&mut state.netlink, "create nftables table", &self.0.name, ruleset) {
            Err(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
            _ => {}
        }
        let (namespace, setting) = (state.netlink.namespace(), family.forwarding());
        if sysctl::read(namespace, setting)? == "1" {
            return Ok(());
        }
        if matches!(family, Family::Six) {
            // The machine keeps the routers that it has learnt.
            for setting in sysctl::advertisements_until_forwarding(namespace)? {
                sysctl::write_if_there(namespace, &setting, "2")?;
            }
        }
        sysctl::write(namespace, setting, "1")
    }

    /// Takes the table away, whoever uses it.
    pub fn remove(self) -> Result<(), NetworkError> {
        let mut state = self.0.lock();
        for family in [Family::Four, Family::Six] {
            match transact(&mut state.netlink, "remove nftables table", &self.0.name, nft::remove(&self.0.name, family))
            {
                Err(error) if error.errno() != Some(Errno::NOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The namespace in which it works.
    pub fn namespace(&self) -> Result<Namespace, NetworkError> {
        self.0.lock().netlink.namespace().duplicate()
    }

    /// Admits a network by its bridge: nothing reaches it but answers and what is published, and where it is masked its
    /// addresses are not seen outside.
    pub(crate) fn admit(&self, member: Member) -> Result<Admission, NetworkError> {
        self.establish_families(&member)?;
        self.add(&member)?;
        Ok(Admission { firewall: self.clone(), member })
    }

    /// Admits a network that stays until it is dismissed. One that is there already is admitted anew.
    pub(crate) fn admit_for_good(&self, member: &Member) -> Result<(), NetworkError> {
        self.establish_families(member)?;
        match self.add(member) {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                self.dismiss(member)?;
                self.add(member)
            }
            result => result,
        }
    }

    /// The table for IPv6 is made when the first network has it.
    fn establish_families(&self, member: &Member) -> Result<(), NetworkError> {
        let six = member.subnets.iter().any(|(first, _)| first.is_ipv6());
        if six { self.establish_family(Family::Six) } else { Ok(()) }
    }

    fn add(&self, member: &Member) -> Result<(), NetworkError> {
        super::link::check_name(&member.bridge)?;
        let batch = nft::network(&self.0.name, member, true);
        transact(&mut self.0.lock().netlink, "admit network", &member.bridge, batch)
    }

    pub(crate) fn dismiss(&self, member: &Member) -> Result<(), NetworkError> {
        let batch = nft::network(&self.0.name, member, false);
        match transact(&mut self.0.lock().netlink, "dismiss network", &member.bridge, batch) {
            // The table is gone already, or the network.
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}

impl Table {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The kernel holds the truth; a panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FORWARDING: &str = Family::Four.forwarding();

impl Family {
    /// The setting by which the kernel forwards its packets.
    const fn forwarding(self) -> &'static str {
        match self {
            Self::Four => "ipv4/ip_forward",
            Self::Six => "ipv6/conf/all/forwarding",
        }
    }
}

/// Sends a transaction: all of it is done, or nothing.
pub(super) fn transact(
    netlink: &mut Netlink,
    operation: &'static str,
    object: &str,
    batch: Batch,
) -> Result<(), NetworkError> {
    // The end mark is not acknowledged; the message before it is.
    let last = batch.count() - 1;
    netlink.exchange(batch.as_bytes(), last).map_err(|(_, errno)| NetworkError::system(operation, object, errno))
}

/// A network in the table's sets, until this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    firewall: Firewall,
    member: Member,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let _ = self.firewall.dismiss(&self.member);
    }
}
