//! `isobench container inspect`.

use super::each;
use crate::commands::{Status, output, template};
use crate::instances::{Container, Guest, Kind, Store, monitor_socket};
use isobench_microvm::control;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "\
Examples:
  isobench container inspect web
  isobench container inspect -f '{{.NetworkSettings.IPAddress}}' web
  isobench container inspect -f '{{json .State}}' web

A template is text with paths into the answer, each `{{.A.B}}` or `{{json .A.B}}`.";

/// Show all that is known of containers, as JSON
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Only what this template names
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Their names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::completer())]
    names: Vec<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let store = Store::of(kind)?;
    let mut all = Vec::new();
    // Those that are there are shown though others are not.
    let found = each(&arguments.names, |name| {
        all.push(describe(&store.find(name)?));
        Ok(())
    });
    match arguments.format.as_deref() {
        None | Some("json") => output::print_json(&all)?,
        Some(format) => output::print(&template::list(format, &all)?)?,
    }
    found
}

/// With Docker's names, as far as there is such a thing here.
fn describe(container: &Container) -> Value {
    let (request, state) = (&container.request, &container.state);
    let first = state.places.first();
    let networks: Map<String, Value> = state
        .places
        .iter()
        .map(|place| {
            let value = json!({
                "IPAddress": place.address, "IPPrefixLen": place.prefix, "Gateway": place.gateway,
                "MacAddress": place.mac, "Interface": place.interface, "Aliases": request.aliases,
            });
            (place.network.clone(), value)
        })
        .collect();
    let never = || "0001-01-01T00:00:00Z".to_owned();
    let mut described = json!({
        "Id": request.id,
        "Name": format!("/{}", container.name),
        "Created": request.created,
        "Path": request.command.first(),
        "Args": request.command.get(1..).unwrap_or_default(),
        "Image": request.root,
        "State": {
            "Status": state.status.name(),
            "Running": state.status.is_alive(),
            "Paused": state.status == crate::instances::Status::Paused,
            "Pid": state.pid(),
            "ExitCode": state.exit_code,
            "Error": state.error.clone().unwrap_or_default(),
            "StartedAt": state.started.clone().unwrap_or_else(never),
            "FinishedAt": state.finished.clone().unwrap_or_else(never),
        },
        "LogPath": container.log(),
        "Config": {
            "Hostname": request.host_name(), "User": request.user.clone().unwrap_or_default(), "Tty": request.terminal,
            "OpenStdin": request.input, "StdinOnce": request.input_once, "Env": request.environment,
            "Cmd": request.command, "Image": request.root, "WorkingDir": request.working_directory,
        },
        "HostConfig": {
            "NetworkMode": request.network.to_string(), "AutoRemove": request.remove,
            "ReadonlyRootfs": request.read_only, "Memory": request.limits.memory.unwrap_or(0),
            "NanoCpus": request.limits.cpu.unwrap_or(0) * 10_000, "PidsLimit": request.limits.pids,
            "CapAdd": request.added_capabilities, "CapDrop": request.dropped_capabilities, "Dns": request.name_servers,
            "PortBindings": request.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "Mounts": request.volumes.iter().map(|volume| json!({
            "Type": "bind", "Source": volume.source, "Destination": volume.target, "RW": !volume.read_only,
        })).collect::<Vec<_>>(),
        "NetworkSettings": {
            "IPAddress": first.map(|place| place.address.to_string()).unwrap_or_default(),
            "IPPrefixLen": first.map_or(0, |place| place.prefix),
            "Gateway": first.and_then(|place| place.gateway).map(|gateway| gateway.to_string()).unwrap_or_default(),
            "MacAddress": first.map(|place| place.mac.clone()).unwrap_or_default(),
            "Ports": ports(container),
            "Networks": networks,
        },
    });
    if let Some(machine) = &request.machine {
        described["HostConfig"]["Memory"] = machine.memory.into();
        described["VirtualMachine"] = json!({
            "Guest": match &machine.guest { Guest::Unikernel(_) => "unikernel", Guest::Linux(_) => "linux" },
            "Kernel": match &machine.guest { Guest::Unikernel(_) => None, Guest::Linux(kernel) => Some(kernel) },
            "KernelDigest": kernel_digest(container),
            "Memory": machine.memory, "Processors": machine.processors, "Link": state.link,
        });
    }
    described
}

/// The digest of the kernel file from which a virtual machine that runs was booted, or the guest that it is a clone of; its monitor has the file
/// open, where another may have its name by now. Null for one that does not run, and where the file was written to.
fn kernel_digest(machine: &Container) -> Option<String> {
    if !machine.state.status.is_alive() {
        return None;
    }
    // By a descriptor, since the path of a socket must be short.
    let directory = File::open(machine.path()).ok()?;
    let socket = monitor_socket(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
    // One that has ended meanwhile has none either.
    let digest = control::guest(&socket).ok()?.linux?.kernel_sha256?;
    Some(format!("sha256:{digest}"))
}

/// As Docker: the host's addresses and ports by the container's port.
fn ports(container: &Container) -> Map<String, Value> {
    let mut ports = Map::new();
    for port in &container.state.ports {
        let key = format!("{}/{}", port.target.port(), super::listing::protocol(port.protocol));
        let binding = json!({"HostIp": super::listing::host_address(port), "HostPort": port.port.to_string()});
        if let Value::Array(bindings) = ports.entry(key).or_insert_with(|| json!([])) {
            bindings.push(binding);
        }
    }
    ports
}
