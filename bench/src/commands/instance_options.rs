//! What `container run` and `vm run` take alike, and the part of the request that it becomes.

use crate::instances::{Kind, Limits, Network, Request, names, now};
use crate::networks::PortMapping;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

mod values;
mod variables;

pub(super) use values::{Mac, absolute, network, size};
use values::{mac, port};
use variables::Variables;

/// How a new instance is called, and how its command runs.
///
/// `-h` is the host name's, as Docker has it: help is had by `--help` alone.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct CommandOptions {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help, display_order = 999)]
    help: Option<bool>,
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
    #[arg(short = 'h', long)]
    pub(super) hostname: Option<String>,
    #[command(flatten)]
    variables: VariableOptions,
    /// Where the command begins
    #[arg(short, long, value_name = "DIRECTORY", value_parser = absolute)]
    workdir: Option<String>,
    /// The user and group, by name in the root's own files or by number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
}

/// The variables of a command.
#[derive(Debug, clap::Args)]
pub(super) struct VariableOptions {
    /// Set a variable; NAME alone hands the caller's on, if there is one
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = Variables::of_text)]
    env: Vec<Variables>,
    /// Set the variables of a file, one a line as for --env, which has the last word
    #[arg(long, value_name = "FILE", value_parser = Variables::of_file)]
    env_file: Vec<Variables>,
}

impl VariableOptions {
    /// Each `NAME=value`; of two with one name the later counts.
    pub(super) fn all(self) -> Vec<String> {
        self.env_file.into_iter().chain(self.env).flat_map(|variables| variables.0).collect()
    }
}

/// Its place in its network.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceOptions {
    /// Another name that leads to it on its network
    #[arg(long, value_name = "NAME")]
    pub(super) network_alias: Vec<String>,
    /// Its address on a network of one's own
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ip: Option<Ipv4Addr>,
    /// Its link-layer address
    #[arg(long, value_name = "ADDRESS", value_parser = mac)]
    pub(super) mac_address: Option<Mac>,
    /// Its name server, by an IPv4 or IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub(super) dns: Vec<IpAddr>,
    /// Let a port of the host lead to it
    #[arg(short, long, value_name = "[[ADDRESS:]HOST:]PORT[/udp]", value_parser = port)]
    pub(super) publish: Vec<PortMapping>,
}

impl CommandOptions {
    /// The name that was given, or one that is made up.
    pub(super) fn checked_name(&self, kind: Kind) -> anyhow::Result<String> {
        let name = self.name.clone().unwrap_or_else(names::random);
        names::check(kind, &name)?;
        Ok(name)
    }

    /// The request as far as these options go: of the root, the command and the network nothing is said yet, and nothing is limited.
    pub(super) fn request(self, place: PlaceOptions, foreground: bool) -> Request {
        Request {
            id: names::id(),
            created: now(),
            root: String::new(),
            directory: PathBuf::new(),
            command: Vec::new(),
            environment: self.variables.all(),
            user: self.user,
            working_directory: self.workdir.unwrap_or_else(|| "/".into()),
            host_name: self.hostname,
            terminal: self.tty,
            input: self.interactive,
            input_once: self.interactive && foreground && !self.tty,
            remove: self.rm,
            read_only: false,
            volumes: Vec::new(),
            limits: Limits::default(),
            parameters: Vec::new(),
            added_capabilities: Vec::new(),
            dropped_capabilities: Vec::new(),
            network: Network::None,
            aliases: place.network_alias,
            address: place.ip,
            mac: place.mac_address,
            name_servers: place.dns,
            ports: place.publish,
            further: Vec::new(),
            machine: None,
        }
    }
}

/// The command that was given, or a shell.
pub(super) fn command_or_shell(command: Vec<String>) -> Vec<String> {
    if command.is_empty() { vec!["sh".into()] } else { command }
}
