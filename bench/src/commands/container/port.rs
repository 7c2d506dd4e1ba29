//! `isobench container port`.

use super::listing;
use crate::commands::{Status, output};
use crate::instances::{Kind, Store, refuse};

/// Show the ports of the host that lead to a container
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Its name or id
    #[arg(value_name = "CONTAINER", add = super::completer())]
    name: String,
    /// Only those that lead to this port
    #[arg(value_name = "PORT[/udp]")]
    port: Option<String>,
}

pub(in crate::commands) fn run(arguments: Arguments, kind: Kind) -> anyhow::Result<Status> {
    let container = Store::of(kind)?.find(&arguments.name)?;
    let all = container.state.ports.iter().map(|port| {
        let inside = format!("{}/{}", port.target.port(), listing::protocol(port.protocol));
        (inside, format!("{}:{}", listing::host_address(port), port.port))
    });
    let text: String = match &arguments.port {
        None => all.map(|(inside, outside)| format!("{inside} -> {outside}\n")).collect(),
        Some(asked) => {
            let asked = if asked.contains('/') { asked.clone() } else { format!("{asked}/tcp") };
            let text: String = all.filter(|(inside, _)| *inside == asked).map(|(_, outside)| outside + "\n").collect();
            if text.is_empty() {
                return refuse(format!("no port of the host leads to {asked} of the {}", container.title()));
            }
            text
        }
    };
    output::print(&text)?;
    Ok(Status::Success)
}
