//! What `run` and `create` take, and the request that it becomes.

use crate::instances::capabilities;
use crate::instances::{Kind, Limits, Network, Refusal, Request, Volume, names, now, refuse, rooted, volume_source};
use crate::networks::PortMapping;
use crate::roots;
use std::net::Ipv4Addr;

/// The options of a new container.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Keep the standard input open
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Remove it when it ends
    #[arg(long)]
    rm: bool,
    /// Its name; one is made up where none is given
    #[arg(long)]
    name: Option<String>,
    /// Its host name; the beginning of its id where none is given
    #[arg(long)]
    hostname: Option<String>,
    /// Set a variable; NAME alone hands the caller's on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<String>,
    /// Where the command begins
    #[arg(short, long, value_name = "DIRECTORY", value_parser = absolute)]
    workdir: Option<String>,
    /// The user and group, by name in the root's own files or by number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
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
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
    /// Give it a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability from it, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Its network: bridge, host, none, container:NAME, or one that `isobench network create` made
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge", value_parser = network)]
    network: Network,
    /// Another name that leads to it on its network
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
    /// Its address on a network of one's own
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its link-layer address
    #[arg(long, value_name = "ADDRESS", value_parser = mac)]
    mac_address: Option<Mac>,
    /// Its name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<Ipv4Addr>,
    /// Let a port of the host lead to it
    #[arg(short, long, value_name = "[[ADDRESS:]HOST:]CONTAINER[/udp]", value_parser = port)]
    publish: Vec<PortMapping>,
    /// Its root: a directory, a tar file, or `toolbox`
    pub(super) root: String,
    /// The command with its arguments; a shell where there is none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(in crate::commands) type Mac = [u8; 6];

impl Options {
    /// The container's name and what it is to be. Whatever is wrong with it is said before anything is made.
    pub(super) fn request(self, foreground: bool) -> anyhow::Result<(String, Request)> {
        let name = self.name.clone().unwrap_or_else(names::random);
        names::check(Kind::Container, &name)?;
        self.check()?;
        let directory = roots::resolve(&self.root)?;
        rooted::account(&directory, self.user.as_deref())?;
        capabilities::chosen(&self.cap_add, &self.cap_drop)?;
        let mut volumes = self.volume;
        for volume in &mut volumes {
            volume.source = volume_source(&volume.source)?;
        }
        let request = Request {
            id: names::id(),
            created: now(),
            root: self.root,
            directory,
            command: if self.command.is_empty() { vec!["sh".into()] } else { self.command },
            environment: self.env,
            user: self.user,
            working_directory: self.workdir.unwrap_or_else(|| "/".into()),
            host_name: self.hostname,
            terminal: self.tty,
            input: self.interactive,
            input_once: self.interactive && foreground && !self.tty,
            remove: self.rm,
            read_only: self.read_only,
            volumes,
            limits: Limits { memory: self.memory, cpu: self.cpus, pids: self.pids_limit },
            added_capabilities: self.cap_add,
            dropped_capabilities: self.cap_drop,
            network: self.network,
            aliases: self.network_alias,
            address: self.ip,
            mac: self.mac_address,
            name_servers: self.dns,
            ports: self.publish,
            machine: None,
        };
        Ok((name, request))
    }

    /// What makes no sense together.
    fn check(&self) -> anyhow::Result<()> {
        let has_link = matches!(self.network, Network::Named(_));
        let shares = matches!(self.network, Network::Container(_));
        let network = &self.network;
        let refused = [
            (!self.publish.is_empty() && !has_link, "-p", "has no address of its own to which a port could lead"),
            (self.ip.is_some() && !has_link, "--ip", "has no address of its own"),
            (self.mac_address.is_some() && !has_link, "--mac-address", "has no link of its own"),
            (!self.network_alias.is_empty() && !has_link, "--network-alias", "has no names"),
            (shares && self.hostname.is_some(), "--hostname", "has the host name of the container that it joins"),
            (shares && !self.dns.is_empty(), "--dns", "has the name servers of the container that it joins"),
        ];
        match refused.into_iter().find(|(refused, ..)| *refused) {
            Some((_, option, why)) => refuse(format!("{option}: a container with --network {network} {why}")),
            None => match &self.hostname {
                Some(name) if name.is_empty() || name.len() > 64 => {
                    refuse(format!("--hostname {name}: a host name has 1 to 64 bytes"))
                }
                _ => Ok(()),
            },
        }
    }
}

pub(in crate::commands) fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("it has no name: give NAME=VALUE".into()),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("it is empty: give NAME=VALUE".into()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err(format!("{text} is not set here: give {text}=VALUE")),
        },
    }
}

pub(in crate::commands) fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it must begin with `/`".into()) }
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
    let plain = target.len() > 1 && !target.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if source.is_empty() || !target.starts_with('/') || !plain {
        return Err(format!("the target must be a plain absolute path below `/`; {form}"));
    }
    let source = std::path::absolute(source).map_err(|error| error.to_string())?;
    Ok(Volume { source, target: target.into(), read_only })
}

/// As Docker: bytes, or with b, k, m, g and powers of 1024.
pub(in crate::commands) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    let bytes = unit.zip(digits.parse::<u64>().ok()).and_then(|(shift, number)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a number with b, k, m or g, such as 64m".into())
}

/// At least 6 MiB.
fn memory(text: &str) -> Result<u64, String> {
    size(text)
        .and_then(|bytes| if bytes >= 6 << 20 { Ok(bytes) } else { Err("no container runs in less than 6m".into()) })
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

pub(in crate::commands) fn network(text: &str) -> Result<Network, String> {
    Ok(match (text, text.strip_prefix("container:")) {
        ("host", _) => Network::Host,
        ("none", _) => Network::None,
        ("default", _) => Network::Named("bridge".into()),
        (_, Some("")) => return Err("name a container: container:NAME".into()),
        (_, Some(name)) => Network::Container(name.into()),
        ("", _) => return Err("give bridge, host, none, container:NAME or a network's name".into()),
        (name, None) => Network::Named(name.into()),
    })
}

pub(in crate::commands) fn mac(text: &str) -> Result<Mac, String> {
    let wrong = || "give six pairs of hexadecimal digits, such as 02:42:0a:59:00:02, the first of them even".to_owned();
    let mut address = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut address {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // An odd first byte is a group's address; all zeros are no address.
    let sound = parts.next().is_none() && address[0] & 1 == 0 && address != [0; 6];
    if sound { Ok(address) } else { Err(wrong()) }
}

pub(in crate::commands) fn port(text: &str) -> Result<PortMapping, String> {
    text.parse().map_err(|error: Refusal| error.to_string())
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
    }

    #[test]
    fn volumes_are_dockers() {
        let read_only = volume("/a:/b:ro").unwrap();
        assert_eq!(
            (read_only.source.as_path(), read_only.target.as_str(), read_only.read_only),
            (Path::new("/a"), "/b", true)
        );
        assert!(volume("a:/b").unwrap().source.is_absolute());
        for bad in ["", "/a", "/a:b", ":/b", "/a:/b:x", "/a:/b:ro:z", "/a:/", "/a:/../b", "/a:/b//c"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_links_are_read() {
        assert_eq!(mac("02:42:0a:59:00:02"), Ok([2, 0x42, 10, 0x59, 0, 2]));
        for bad in ["", "02:42", "01:00:00:00:00:00", "00:00:00:00:00:00", "02:42:0a:59:00:02:03", "02:42:0a:59:00:0g"]
        {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_read(text in "\\PC{0,20}") {
            let _ = (variable(&text), volume(&text), memory(&text), cpus(&text), network(&text), mac(&text), port(&text));
        }
    }
}
