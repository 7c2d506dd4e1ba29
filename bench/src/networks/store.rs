//! All networks of a host: made, found, removed.

use super::network::Network;
use super::settings::{DEFAULT, Request, Settings};
use super::{Refusal, refuse, server};
use crate::doctor::remedy;
use crate::json_file;
use anyhow::Context;
use isobench_runtime::network::{BridgeNetwork, Firewall, LockFile, Namespace, Netlink, NetworkError, Sharing, sysctl};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Our nftables table. The testbed of a measured run has another one.
const TABLE: &str = "isobench_networks";

/// The file in which it is written whether packets were forwarded before there was a network.
const FORWARDING: &str = "forwarding.json";

/// The networks whose state lies below one state directory. They live in the network namespace of the calling thread, which
/// must always be the same for one state directory.
#[derive(Clone, Debug)]
pub struct Store {
    state: PathBuf,
}

impl Store {
    /// The store in a state directory ([`crate::home`]), made if need be.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn open(state: &Path) -> anyhow::Result<Self> {
        let store = Self { state: state.into() };
        let directory = store.networks();
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        LockFile::create(&store.ports())?;
        Ok(store)
    }

    /// The network of this name. `bridge` is made when it is first asked for; what else is missing of a network, for instance
    /// its name server, is made too.
    ///
    /// # Errors
    /// A [`super::Refusal`] if there is no such network.
    pub fn network(&self, name: &str) -> anyhow::Result<Network> {
        let settings = match self.settings(name)? {
            Some(settings) => settings,
            None if name == DEFAULT => self.make_default()?,
            None => return refuse(Settings::absent(name)),
        };
        let network = match self.opened(&settings) {
            Err(error) if errno(&error) == Some(Errno::NODEV) => {
                let _lock = self.lock()?;
                // Somebody may have mended it, or removed it, meanwhile.
                match self.settings(name)? {
                    Some(settings) => self.opened(&settings).or_else(|_| self.establish(&settings))?,
                    None => return refuse(format!("the network `{name}` has just been removed")),
                }
            }
            result => result?,
        };
        if !settings.is_default() {
            server::see_to(&self.state)?;
        }
        Ok(network)
    }

    /// The settings of all networks, by name.
    pub fn list(&self) -> anyhow::Result<Vec<Settings>> {
        let directory = self.networks();
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", directory.display()))?;
            if let Some(name) = entry.file_name().to_str().filter(|_| entry.path().is_dir()) {
                match self.settings(name) {
                    Ok(settings) => found.extend(settings),
                    // The others are none the worse for it.
                    Err(error) => crate::commands::note(&format!("the network `{name}` is damaged: {error:#}")),
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// A [`super::Refusal`] if it cannot be what is asked for, else what failed. Nothing is left behind.
    pub fn create(&self, request: &Request) -> anyhow::Result<Settings> {
        let _lock = self.lock()?;
        let settings = Settings::choose(request, &self.list()?, &Netlink::open()?.routes()?)?;
        self.make(&settings)?;
        if let Err(error) = server::look_again(&self.state) {
            let _ = self.unmake(&settings);
            let _ = server::look_again(&self.state);
            return Err(error.context(format!("let the names of the network `{}` be answered", settings.name)));
        }
        Ok(settings)
    }

    /// Removes a network that nobody uses.
    ///
    /// # Errors
    /// A [`super::Refusal`] if somebody uses it, or there is none.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        if [DEFAULT, "host", "none"].contains(&name) {
            return refuse(format!("the network `{name}` is there by itself and cannot be removed"));
        }
        let Some(settings) = self.settings(name)? else { return refuse(format!("there is no network `{name}`")) };
        self.remove_idle(&settings)
    }

    /// Removes all networks that nobody uses but the one that is there by itself; gives their names.
    pub fn prune(&self) -> anyhow::Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut removed = Vec::new();
        for settings in self.list()? {
            if !settings.is_default() && !self.is_in_use(&settings)? {
                self.remove_idle(&settings)?;
                removed.push(settings.name);
            }
        }
        Ok(removed)
    }

    /// Takes away what processes that died have left in any network.
    pub fn sweep(&self) -> anyhow::Result<()> {
        for settings in self.list()? {
            // One that is not whole has no members.
            if let Ok(network) = self.opened(&settings) {
                network.sweep()?;
            }
        }
        Ok(())
    }

    /// Removes everything, also the network that is there by itself and our rules, unless somebody uses a network; gives the
    /// networks' names. Packets are forwarded again as they were before there was a network.
    ///
    /// # Errors
    /// A [`super::Refusal`] that names the network that is in use.
    pub fn clear(&self) -> anyhow::Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut removed = Vec::new();
        for settings in self.list()? {
            self.remove_idle(&settings)?;
            removed.push(settings.name);
        }
        self.firewall()?.remove()?;
        let (path, here) = (self.state.join(FORWARDING), Namespace::current()?);
        if let Some(former) = self.former_forwarding()? {
            for (setting, value) in former {
                sysctl::write_if_there(&here, &setting, &value)?;
            }
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(removed)
    }

    /// Writes down whether packets are forwarded, before the first network changes that, and which links take router
    /// advertisements, before the first with IPv6 does.
    fn note_forwarding(&self, settings: &Settings) -> anyhow::Result<()> {
        let (path, here) = (self.state.join(FORWARDING), Namespace::current()?);
        let mut former = self.former_forwarding()?.unwrap_or_default();
        let known = former.len();
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            // A kernel without IPv6 has no setting for it.
            if let (false, Ok(value)) = (former.contains_key(setting), sysctl::read(&here, setting)) {
                former.insert(setting.to_owned(), value);
            }
        }
        if settings.ipv6.is_some() {
            for setting in sysctl::advertisements_until_forwarding(&here)? {
                former.entry(setting).or_insert_with(|| "1".to_owned());
            }
        }
        if former.len() == known {
            return Ok(());
        }
        // What is truncated could be given back by nobody.
        json_file::write(&path, &former)
    }

    /// What was written down of the time before there was a network.
    fn former_forwarding(&self) -> anyhow::Result<Option<BTreeMap<String, String>>> {
        json_file::read(&self.state.join(FORWARDING))
    }

    /// The settings of a network, if there is one of that name.
    fn settings(&self, name: &str) -> anyhow::Result<Option<Settings>> {
        // What is no name is no path either.
        if super::check_name("network", name).is_err() {
            return Ok(None);
        }
        json_file::read(&self.directory(name).join("network.json"))
    }

    fn make_default(&self) -> anyhow::Result<Settings> {
        let _lock = self.lock()?;
        if let Some(settings) = self.settings(DEFAULT)? {
            return Ok(settings);
        }
        let settings = Settings::default_network(&self.list()?, &Netlink::open()?.routes()?)?;
        self.make(&settings)?;
        Ok(settings)
    }

    /// The store is locked. What is to be made is written down first, so that an interruption can be mended.
    fn make(&self, settings: &Settings) -> anyhow::Result<()> {
        let directory = self.directory(&settings.name);
        let prepare = || -> anyhow::Result<()> {
            fs::create_dir_all(directory.join("endpoints"))?;
            fs::create_dir_all(directory.join("names"))?;
            LockFile::create(&directory.join("leases"))?;
            let new = directory.join("network.new");
            fs::write(&new, serde_json::to_vec_pretty(settings)?)?;
            Ok(fs::rename(new, directory.join("network.json"))?)
        };
        let made = prepare()
            .with_context(|| format!("write down the network `{}` in {}", settings.name, directory.display()))
            .and_then(|()| self.establish(settings));
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        made.map(drop)
    }

    fn establish(&self, settings: &Settings) -> anyhow::Result<Network> {
        self.note_forwarding(settings)?;
        let firewall = Firewall::establish(TABLE, LockFile::at(&self.ports())).map_err(without_firewall)?;
        let bridge = BridgeNetwork::establish(&firewall, settings.of_bridge()?, self.leases(settings))?;
        Ok(Network { directory: self.directory(&settings.name), settings: settings.clone(), bridge })
    }

    fn opened(&self, settings: &Settings) -> anyhow::Result<Network> {
        let bridge = BridgeNetwork::open(&self.firewall()?, settings.of_bridge()?, self.leases(settings))?;
        Ok(Network { directory: self.directory(&settings.name), settings: settings.clone(), bridge })
    }

    fn is_in_use(&self, settings: &Settings) -> anyhow::Result<bool> {
        Ok(!self.leases(settings).begin()?.take_all(Sharing::Shared)?)
    }

    /// The store is locked.
    fn remove_idle(&self, settings: &Settings) -> anyhow::Result<()> {
        if let Ok(network) = self.opened(settings) {
            network.sweep()?;
        }
        // As long as this is held nobody can join. A container that has ended bars it no more, though its address is not free
        // until the kernel has removed its link (`Lease::retire`).
        let all = self.leases(settings).begin()?;
        if !all.take_all(Sharing::Shared)? {
            let name = &settings.name;
            let members = self.opened(settings).and_then(|network| network.members()).unwrap_or_default();
            let instances: Vec<_> = members.into_iter().map(|member| member.instance).collect();
            let who = if instances.is_empty() { String::new() } else { format!(" by {}", instances.join(", ")) };
            return refuse(format!("the network `{name}` is in use{who}: stop or disconnect what uses it first"));
        }
        self.unmake(settings)?;
        if !settings.is_default() {
            server::look_again(&self.state)?;
        }
        Ok(())
    }

    fn unmake(&self, settings: &Settings) -> anyhow::Result<()> {
        BridgeNetwork::dismantle(&self.firewall()?, &settings.of_bridge()?)?;
        let directory = self.directory(&settings.name);
        // Its settings first: without them it is no network any more.
        fs::remove_file(directory.join("network.json"))
            .and_then(|()| fs::remove_dir_all(&directory))
            .with_context(|| format!("remove {}", directory.display()))
    }

    fn firewall(&self) -> anyhow::Result<Firewall> {
        Firewall::shared(TABLE, LockFile::at(&self.ports())).map_err(without_firewall)
    }

    /// Until the result is dropped, nobody else makes or removes a network.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.state.join("networks.lock");
        let lock = || {
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        };
        lock().with_context(|| format!("lock {}", path.display()))
    }

    fn networks(&self) -> PathBuf {
        self.state.join("networks")
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.networks().join(name)
    }

    fn ports(&self) -> PathBuf {
        self.state.join("ports")
    }

    fn leases(&self, settings: &Settings) -> LockFile {
        LockFile::at(&self.directory(&settings.name).join("leases"))
    }
}

/// What is missing where the kernel has no netfilter by netlink (`EPROTONOSUPPORT`), no nftables in it (`EOPNOTSUPP`), or not all
/// of nftables that a network takes (`ENOENT`). A network without it would be open to all others and closed to the outside.
fn without_firewall(error: NetworkError) -> anyhow::Error {
    match error.errno() {
        Some(errno @ (Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT)) => Refusal(format!(
            "a network needs nftables, by which addresses are translated, ports published and networks kept apart, and this \
             kernel lacks it ({error}: {errno}): `{}`, or take --network none or host",
            remedy::network("nftables").unwrap_or_default()
        ))
        .into(),
        _ => error.into(),
    }
}

fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<isobench_runtime::network::NetworkError>()?.errno()
}
