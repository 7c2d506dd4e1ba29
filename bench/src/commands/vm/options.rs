//! What `vm run` and `vm create` take, and the request that it becomes.

use crate::commands::instance_options::{CommandOptions, PlaceOptions, command_or_shell, network, size};
use crate::doctor;
use crate::instances::{Guest, Kind, Machine, Network, Request, check_memory, refuse, rooted, usual_memory};
use crate::kernels;
use crate::roots;
use isobench_microvm::judge::{Verdict, judge};
use isobench_microvm::linux::initramfs::Tree;
use isobench_microvm::linux::kernel;
use isobench_microvm::linux::multiprocessor::MOST_PROCESSORS;
use isobench_microvm::{layout, sandbox, unikernel};
use isobench_workload::protocol;
use std::path::PathBuf;

/// The network of whoever names none.
const BRIDGE: &str = "bridge";

/// Memory is given in whole pages of 2 MiB.
const STEP: u64 = 2 << 20;

/// The options of a new virtual machine.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) own: CommandOptions,
    /// The guest's kernel, by a name that `isobench vm kernel ls` shows, or a file [default: the one marked there]
    #[arg(long, value_name = "KERNEL", add = super::kernel_completer())]
    kernel: Option<String>,
    /// The guest's memory, such as 256m or 1g [default: 128m, or what the root needs; 16m for the unikernel]
    #[arg(short, long, value_name = "BYTES", value_parser = memory)]
    memory: Option<u64>,
    /// How many processors it has, up to 32
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_PROCESSORS)))]
    cpus: u32,
    /// Its network: bridge, none, or one that `isobench network create` made [default: bridge]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network)]
    network: Option<Network>,
    #[command(flatten)]
    place: PlaceOptions,
    /// Run the unikernel in place of Linux: `serve` or `serve:PORT` (else port 7000), `idle`, or `exit`
    #[arg(long, value_name = "WORKLOAD", value_parser = workload, conflicts_with_all = [
        "interactive", "tty", "hostname", "env", "env_file", "workdir", "user", "kernel", "dns", "root", "command",
    ])]
    unikernel: Option<String>,
    /// Its root: a directory, a tar file, or `toolbox`
    #[arg(required_unless_present = "unikernel")]
    pub(super) root: Option<String>,
    /// The command with its arguments; a shell where there is none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Options {
    /// The virtual machine's name and what it is to be. Whatever is wrong with it is said before anything is made.
    pub(super) fn request(self, foreground: bool) -> anyhow::Result<(String, Request)> {
        let name = self.own.checked_name(Kind::Machine)?;
        let network = self.network()?;
        let (machine, directory, command) = match &self.unikernel {
            Some(workload) => (self.unikernel(workload)?, PathBuf::new(), vec![workload.clone()]),
            None => {
                let root = self.root.as_deref().unwrap_or_default();
                let (machine, directory) = self.linux(root)?;
                rooted::account(&directory, self.own.user.as_deref())?;
                (machine, directory, command_or_shell(self.command.clone()))
            }
        };
        let request = Request {
            root: self.root.unwrap_or_else(|| "unikernel".into()),
            directory,
            command,
            network,
            machine: Some(machine),
            ..self.own.request(self.place, foreground)
        };
        Ok((name, request))
    }

    /// The network that it joins, and what makes no sense with it.
    fn network(&self) -> anyhow::Result<Network> {
        let why =
            "it has a network card of its own: give bridge, none, or a network that `isobench network create` made";
        // Of the unikernel's workloads only the server uses a network.
        let uses = self.unikernel.as_deref().is_none_or(|workload| workload.starts_with("serve"));
        let network = match (&self.network, uses) {
            (Some(Network::Host), _) => {
                return refuse(format!("--network host: a virtual machine cannot share the host's network, {why}"));
            }
            (Some(Network::Container(other)), _) => {
                return refuse(format!(
                    "--network container:{other}: a virtual machine cannot share a container's network, {why}"
                ));
            }
            (Some(Network::Named(_)), false) => {
                return refuse("--network: the unikernel uses a network for --unikernel serve alone");
            }
            (Some(Network::None), true) if self.unikernel.is_some() => {
                return refuse("--network none: nobody could reach the unikernel's server");
            }
            (Some(network), _) => network.clone(),
            (None, true) => Network::Named(BRIDGE.into()),
            (None, false) => Network::None,
        };
        let has_link = matches!(network, Network::Named(_));
        let refused = [
            (!self.place.publish.is_empty(), "-p", "has no address to which a port could lead"),
            (self.place.ip.is_some(), "--ip", "has no address"),
            (self.place.mac_address.is_some(), "--mac-address", "has no link"),
            (!self.place.network_alias.is_empty(), "--network-alias", "has no names"),
        ];
        match refused.iter().find(|(wrong, ..)| *wrong && !has_link) {
            Some((_, option, why)) => refuse(format!("{option}: a virtual machine without a network {why}")),
            None => Ok(network),
        }
    }

    fn linux(&self, root: &str) -> anyhow::Result<(Machine, PathBuf)> {
        let verdict = judge();
        if !verdict.runs_linux() {
            return refuse(match verdict {
                Verdict::None(_) => doctor::kvm().with_remedy(),
                _ => format!("{verdict}: run the unikernel (--unikernel serve), or take a machine with VT-x or AMD-V"),
            });
        }
        let kernel = match self.kernel.as_deref() {
            Some(asked) => kernels::resolve(asked)?,
            None => match kernel::find_for(self.cpus.try_into().unwrap_or(u8::MAX)) {
                Some(kernel) => kernel,
                None => {
                    return refuse("there is no guest kernel: get one by `isobench vm kernel fetch`, or give --kernel");
                }
            },
        };
        let directory = roots::resolve(root)?;
        let files = Tree::look(&directory)?.size();
        let memory = self.memory.unwrap_or_else(|| usual_memory(files));
        check_memory(memory, files, root)?;
        Ok((Machine { guest: Guest::Linux(kernel), memory, processors: self.cpus, snapshot: None }, directory))
    }

    fn unikernel(&self, workload: &str) -> anyhow::Result<Machine> {
        let memory = self.memory.unwrap_or(sandbox::MEMORY);
        let (least, most) = (unikernel::LEAST_MEMORY, layout::MOST_UNIKERNEL_MEMORY);
        if !(least..=most).contains(&memory) {
            return refuse(format!("-m: the unikernel takes {} to {} MiB of memory", least >> 20, most >> 20));
        }
        if self.cpus != 1 {
            return refuse("--cpus: the unikernel runs on one processor");
        }
        if let Verdict::None(_) = judge() {
            return refuse(doctor::kvm().with_remedy());
        }
        Ok(Machine { guest: Guest::Unikernel(workload.into()), memory, processors: 1, snapshot: None })
    }
}

/// A size in steps of 2 MiB.
fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes.is_multiple_of(STEP) && bytes > 0 {
        Ok(bytes)
    } else {
        Err("a virtual machine's memory is a multiple of 2 MiB, such as 128m".into())
    }
}

/// What the unikernel does, in the monitor's words.
fn workload(text: &str) -> Result<String, String> {
    let wrong = || "give serve, serve:PORT, idle or exit".to_owned();
    match (text, text.strip_prefix("serve:")) {
        ("exit" | "idle", _) => Ok(text.into()),
        ("serve", _) => Ok(format!("serve:{}", protocol::PORT)),
        (_, Some(port)) => match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok(format!("serve:{number}")),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_the_monitors() {
        assert_eq!(workload("serve").as_deref(), Ok("serve:7000"));
        assert_eq!(workload("serve:80").as_deref(), Ok("serve:80"));
        for bad in ["", "serve:", "serve:0", "serve:70000", "panic", "serve80"] {
            assert!(workload(bad).is_err(), "{bad}");
        }
        assert_eq!(memory("128m"), Ok(128 << 20));
        assert!(memory("3m").is_err() && memory("0").is_err());
    }
}
