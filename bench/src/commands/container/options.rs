//! What `run` and `create` take, and the request that it becomes.

use crate::commands::instance_options::{CommandOptions, PlaceOptions, command_or_shell, network, size};
use crate::instances::capabilities;
use crate::instances::{Kind, Limits, Network, Request, Volume, refuse, rooted, volume_source};
use crate::roots;
use isobench_runtime::parameters;

/// The options of a new container.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) own: CommandOptions,
    /// Mount a directory or file of the host
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]", value_parser = volume)]
    volume: Vec<Volume>,
    /// Let nothing in its root be written
    #[arg(long)]
    read_only: bool,
    /// Limit its memory, such as 64m or 1g
    #[arg(short, long, value_name = "BYTES", value_parser = memory)]
    memory: Option<u64>,
    /// Limit its processor time, such as 0.5 of one CPU
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u64>,
    /// Limit its processes and threads
    #[arg(long, value_name = "NUMBER", value_parser = processes, allow_negative_numbers = true)]
    pids_limit: Option<u64>,
    /// Set a parameter of the kernel for it alone, such as net.ipv4.ip_forward=1
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    sysctl: Vec<(String, String)>,
    /// Give it a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability from it, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Its network: bridge, host, none, container:NAME, or one that `isobench network create` made
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge", value_parser = network)]
    network: Network,
    #[command(flatten)]
    place: PlaceOptions,
    /// Its root: a directory, a tar file, or `toolbox`
    pub(super) root: String,
    /// The command with its arguments; a shell where there is none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Options {
    /// The container's name and what it is to be. Whatever is wrong with it is said before anything is made.
    pub(super) fn request(self, foreground: bool) -> anyhow::Result<(String, Request)> {
        let name = self.own.checked_name(Kind::Container)?;
        self.check()?;
        let directory = roots::resolve(&self.root)?;
        rooted::account(&directory, self.own.user.as_deref())?;
        capabilities::chosen(&self.cap_add, &self.cap_drop)?;
        let mut volumes = self.volume;
        for volume in &mut volumes {
            volume.source = volume_source(&volume.source)?;
        }
        let request = Request {
            root: self.root,
            directory,
            command: command_or_shell(self.command),
            read_only: self.read_only,
            volumes,
            limits: Limits { memory: self.memory, cpu: self.cpus, pids: self.pids_limit },
            parameters: self.sysctl,
            added_capabilities: self.cap_add,
            dropped_capabilities: self.cap_drop,
            network: self.network,
            ..self.own.request(self.place, foreground)
        };
        Ok((name, request))
    }

    /// What makes no sense together.
    fn check(&self) -> anyhow::Result<()> {
        let has_link = matches!(self.network, Network::Named(_));
        let shares = matches!(self.network, Network::Container(_));
        let has_own = has_link || self.network == Network::None;
        self.sysctl.iter().try_for_each(|(name, _)| parameters::check(name, has_own, true))?;
        let network = &self.network;
        let refused = [
            (!self.place.publish.is_empty() && !has_link, "-p", "has no address of its own to which a port could lead"),
            (self.place.ip.is_some() && !has_link, "--ip", "has no address of its own"),
            (self.place.mac_address.is_some() && !has_link, "--mac-address", "has no link of its own"),
            (!self.place.network_alias.is_empty() && !has_link, "--network-alias", "has no names"),
            (shares && self.own.hostname.is_some(), "--hostname", "has the host name of the container that it joins"),
            (shares && !self.place.dns.is_empty(), "--dns", "has the name servers of the container that it joins"),
        ];
        match refused.into_iter().find(|(refused, ..)| *refused) {
            Some((_, option, why)) => refuse(format!("{option}: a container with --network {network} {why}")),
            None => match &self.own.hostname {
                Some(name) if name.is_empty() || name.len() > 64 => {
                    refuse(format!("--hostname {name}: a host name has 1 to 64 bytes"))
                }
                _ => Ok(()),
            },
        }
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE, such as net.ipv4.ip_forward=1".into()),
    }
}

fn volume(text: &str) -> Result<Volume, String> {
    let form = "give SOURCE:TARGET or SOURCE:TARGET:ro, such as /srv/data:/data:ro";
    let mut parts = text.split(':');
    let (source, target, mode) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let (Some(target), None) = (target, parts.next()) else { return Err(form.into()) };
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(mode) => return Err(format!("`{mode}` is neither ro nor rw; {form}")),
    };
    let target = target.trim_end_matches('/');
    let plain = target.len() > 1 && !target.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if source.is_empty() || !target.starts_with('/') || !plain {
        return Err(format!("the target must be a plain absolute path below `/`; {form}"));
    }
    let source = std::path::absolute(source).map_err(|error| error.to_string())?;
    Ok(Volume { source, target: target.into(), read_only })
}

/// At least 6 MiB.
fn memory(text: &str) -> Result<u64, String> {
    size(text)
        .and_then(|bytes| if bytes >= 6 << 20 { Ok(bytes) } else { Err("no container runs in less than 6m".into()) })
}

/// As many as the kernel can number
/// ([pid_max](https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html)).
fn processes(text: &str) -> Result<u64, String> {
    const MOST: u64 = 1 << 22;
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("give 1 to {MOST} processes"))
}

/// Microseconds in each 100,000.
fn cpus(text: &str) -> Result<u64, String> {
    let number: f64 = text.parse().map_err(|_| "give a number of CPUs, such as 0.5".to_owned())?;
    if (0.01..=8192.0).contains(&number) {
        Ok((number * 100_000.0) as u64)
    } else {
        Err("give 0.01 to 8192 CPUs".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(memory("64m"), Ok(64 << 20));
        assert_eq!(memory("1G"), Ok(1 << 30));
        assert_eq!(memory("8388608"), Ok(8 << 20));
        for bad in ["", "m", "64x", "-1", "1.5g", "1k", "99999999999g", "6 m"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert_eq!(cpus("1.5"), Ok(150_000));
        for bad in ["0", "-1", "x", "nan", "inf"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert_eq!((processes("1"), processes("4194304")), (Ok(1), Ok(4_194_304)));
        for bad in ["0", "-1", "x", "4194305", "18446744073709551616"] {
            assert!(processes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_dockers() {
        let read_only = volume("/a:/b:ro").unwrap();
        assert_eq!(
            (read_only.source.as_path(), read_only.target.as_str(), read_only.read_only),
            (Path::new("/a"), "/b", true)
        );
        assert!(volume("a:/b/").is_ok_and(|volume| volume.source.is_absolute() && volume.target == "/b"));
        for bad in ["", "/a", "/a:b", ":/b", "/a:/b:x", "/a:/b:ro:z", "/a:/", "/a:/../b", "/a:/b//c"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_read(text in "\\PC{0,20}") {
            let _ = (volume(&text), memory(&text), cpus(&text), processes(&text));
        }
    }
}
