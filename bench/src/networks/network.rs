//! One network, opened.

use super::endpoint::{Connection, Joining, Member, Membership};
use super::names::Names;
use super::settings::Settings;
use super::{PortMapping, check_name, refuse};
use isobench_runtime::network::{
    BridgeNetwork, Endpoint, EndpointSettings, Firewall, Namespace, Offload, Tap, TapEndpoint,
};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// A network that containers and virtual machines can join.
#[derive(Clone, Debug)]
pub struct Network {
    pub(super) directory: PathBuf,
    pub(super) settings: Settings,
    pub(super) bridge: BridgeNetwork,
}

impl Network {
    /// What it is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The bridge with its addresses.
    pub fn bridge(&self) -> &BridgeNetwork {
        &self.bridge
    }

    /// The name server that its members ask; `None` where names are not answered: on the network that is there by itself the
    /// host's own name servers serve.
    pub fn resolver(&self) -> Option<Ipv4Addr> {
        (!self.settings.is_default()).then_some(self.settings.gateway)
    }

    /// Leases an address for a container that is to be launched, and lets its names lead there.
    ///
    /// # Errors
    /// If the address or a name cannot be had; nothing is left behind.
    pub fn endpoint(&self, joining: &Joining) -> anyhow::Result<(Endpoint, Membership)> {
        let asked = self.check(joining)?;
        let endpoint = self.bridge.endpoint_with(&asked)?;
        let member = self.member(joining, endpoint.address(), endpoint.mac().to_string());
        Ok((endpoint, self.join(member)?))
    }

    /// The same for a virtual machine, whose monitor is handed the tap.
    pub fn tap(&self, joining: &Joining, offload: Offload) -> anyhow::Result<(Tap, TapEndpoint, Membership)> {
        let asked = self.check(joining)?;
        let (tap, endpoint) = self.bridge.tap_with(&asked, offload)?;
        let member = self.member(joining, endpoint.address(), endpoint.mac().to_string());
        Ok((tap, endpoint, self.join(member)?))
    }

    /// Gives a container that runs already a place in this network too, by its network namespace.
    ///
    /// # Errors
    /// If there is no place, or the namespace is gone; nothing is left behind.
    pub fn connect(&self, joining: &Joining, container: &Namespace) -> anyhow::Result<Connection> {
        let (endpoint, membership) = self.endpoint(joining)?;
        Connection::make(endpoint, membership, container)
    }

    /// Who is in it now. What a dead process has left is not told.
    pub fn members(&self) -> anyhow::Result<Vec<Member>> {
        let mut members = Vec::new();
        for member in super::endpoint::recorded(&self.directory)? {
            if self.bridge.pool().is_leased(member.address)? {
                members.push(member);
            }
        }
        Ok(members)
    }

    /// Takes away what processes that died have left.
    pub fn sweep(&self) -> anyhow::Result<()> {
        for member in super::endpoint::recorded(&self.directory)? {
            // Whoever has the lease now looks after it himself.
            if let Ok(_lease) = self.bridge.pool().lease_address(member.address) {
                self.forget(&member)?;
            }
        }
        Ok(())
    }

    fn check(&self, joining: &Joining) -> anyhow::Result<EndpointSettings> {
        check_name("container", &joining.instance)?;
        joining.aliases.iter().try_for_each(|alias| check_name("container", alias))?;
        if joining.address.is_some() && self.settings.is_default() {
            return refuse(
                "an address of one's own choice (--ip) is to be had on networks of one's own only: make one with \
                           `isobench network create --subnet SUBNET NAME`",
            );
        }
        if !joining.aliases.is_empty() && self.settings.is_default() {
            return refuse(
                "names (--network-alias) are answered on networks of one's own only: make one with `isobench \
                           network create NAME`",
            );
        }
        Ok(EndpointSettings { address: joining.address, mac: joining.mac })
    }

    fn member(&self, joining: &Joining, address: Ipv4Addr, mac: String) -> Member {
        let mut names = vec![joining.instance.clone()];
        names.extend(joining.aliases.iter().cloned());
        let ipv6 = self.bridge.settings().ipv6_of(address);
        Member { instance: joining.instance.clone(), address, ipv6, mac, names, ports: Vec::new() }
    }

    /// The lease is held: nobody else has anything to do with this address.
    fn join(&self, member: Member) -> anyhow::Result<Membership> {
        if let Some(dead) = Member::read(&self.directory, member.address) {
            self.forget(&dead)?;
        }
        Membership::begin(self, member)
    }

    fn forget(&self, dead: &Member) -> anyhow::Result<()> {
        self.firewall().forget(&dead.ports)?;
        let names = Names::of(&self.directory);
        dead.names.iter().for_each(|name| names.remove(name, dead.address));
        Member::remove(&self.directory, dead.address);
        Ok(())
    }

    pub(super) fn firewall(&self) -> &Firewall {
        self.bridge.firewall()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The host's addresses and ports for a mapping, and where each leads.
    pub(super) fn redirections(
        &self,
        member: &Member,
        mapping: &PortMapping,
    ) -> anyhow::Result<Vec<isobench_runtime::network::Redirection>> {
        use isobench_runtime::network::Redirection;
        if self.settings.internal {
            return refuse(format!(
                "{mapping}: the network `{}` is internal, nothing of it is published",
                self.settings.name
            ));
        }
        let targets: Vec<IpAddr> = match (mapping.address, member.ipv6) {
            (None, six) => [member.address.into()].into_iter().chain(six.map(IpAddr::from)).collect(),
            (Some(IpAddr::V4(_)), _) => vec![member.address.into()],
            (Some(IpAddr::V6(_)), Some(six)) => vec![six.into()],
            (Some(IpAddr::V6(_)), None) => {
                return refuse(format!("{mapping}: the network `{}` has no IPv6", self.settings.name));
            }
        };
        let redirection = |(host, container): (Option<u16>, u16), target: IpAddr| Redirection {
            protocol: mapping.protocol,
            host: mapping.address,
            port: host.unwrap_or(0),
            target: (target, container).into(),
        };
        Ok(mapping.pairs().flat_map(|pair| targets.iter().map(move |target| redirection(pair, *target))).collect())
    }
}
