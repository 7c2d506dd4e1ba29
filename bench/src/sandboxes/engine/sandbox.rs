//! One container of an engine: its launch by the engine's client, and what it leaves.

use super::{CUSTOM, Engine, IMAGE, NAMED, RunningEngine, read};
use crate::sandboxes::client::Complaint;
use crate::sandboxes::root_directory::AGENT;
use crate::sandboxes::spawn::spawn;
use crate::sandboxes::{docker, podman};
use crate::testbed::cgroups;
use anyhow::Context;
use isobench_runtime::Mode;
use isobench_runtime::network::inside::LOOPBACK;
use isobench_runtime::network::{Namespace, Netlink};
use isobench_workload::{
    ENDS_WITHIN, Family, Instance, LaunchError, Located, Locator, Released, Resource, Sandbox, Unsupported, Workload,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::cell::OnceCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One way in which an engine launches.
#[derive(Debug)]
pub(crate) struct EngineSandbox {
    pub(super) engine: Rc<RunningEngine>,
    pub(super) name: String,
    pub(super) mode: Option<Mode>,
    pub(super) options: Vec<String>,
}

impl EngineSandbox {
    fn network(&self) -> Option<String> {
        Some(match self.mode? {
            Mode::Custom => CUSTOM.into(),
            Mode::Container => format!("container:{}", self.named()),
            mode => mode.name().into(),
        })
    }

    /// The name under which the engine knows the container that others join.
    fn named(&self) -> String {
        self.engine.named.borrow().as_ref().map_or(NAMED.into(), |named| named.name().to_owned())
    }
}

impl Sandbox for EngineSandbox {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        if matches!(workload, Workload::Program { .. }) {
            let name = self.engine.engine.name();
            let why = format!("its image holds the agent alone, and {name} takes no directory of the host as an image");
            return Err(Unsupported { what: format!("a program of your own in {}", self.name), why }.into());
        }
        let number = self.engine.launched.get() + 1;
        self.engine.launched.set(number);
        let name = format!("{}-{number}", self.name);
        let id_file = self.engine.files.join(format!("{name}.id"));
        let mut command = self.engine.client.command();
        command.args(["run", "--name", &name, "--cidfile"]).arg(&id_file);
        command.args(self.network().iter().flat_map(|network| ["--network", network]));
        command.args(&self.options).args([IMAGE, AGENT]).args(workload.arguments());
        let server = match (self.mode, workload) {
            (Some(Mode::Host), Workload::Serve { port }) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            _ => None,
        };
        let mut instance = spawn(name.clone(), &mut command)?.instance(server)?;
        let container = Container { engine: Rc::clone(&self.engine), name, id_file, inside: Rc::default() };
        let port = match workload {
            Workload::Serve { port } => Some(*port),
            _ => None,
        };
        instance.locate_by(container.locator(server, port));
        instance.own(Box::new(container));
        Ok(instance)
    }
}

/// What an engine keeps of a container. Only the engine itself knows how to remove it all.
#[derive(Debug)]
struct Container {
    engine: Rc<RunningEngine>,
    name: String,
    id_file: PathBuf,
    inside: Rc<OnceCell<OwnedFd>>,
}

impl Container {
    /// Finds the container once it has said that it runs.
    fn locator(&self, server: Option<SocketAddr>, port: Option<u16>) -> Locator {
        let (engine, id_file, inside) = (self.engine.engine, self.id_file.clone(), Rc::clone(&self.inside));
        Locator::new(move || {
            let (pid, pidfd) = first_process(engine, &id_file)?;
            let server = match (server, port) {
                (None, Some(port)) => address(&pidfd)?.map(|address| SocketAddr::from((address, port))),
                _ => server,
            };
            let kept = pidfd.try_clone().context("keep the pidfd of the process inside")?;
            // It is located once.
            let _ = inside.set(kept);
            Ok(Located { pid, pidfd, server })
        })
    }
}

impl Resource for Container {
    fn describe(&self) -> String {
        format!("container {}", self.name)
    }

    fn release(self: Box<Self>) -> Released {
        let Self { engine, name, id_file, inside } = *self;
        let client = engine.client.clone().patient(ENDS_WITHIN);
        let remove = || match engine.engine {
            Engine::Docker => client.ask(&["rm", "--force", &name], None),
            // It would ask kindly for 10 s first.
            Engine::Podman => client.ask(&["rm", "--force", "--time", "0", &name], None),
        };
        let removed = match remove() {
            // The runtime below the engine was told to kill what ended by itself at that moment.
            Err(error) if complains(&error, &["no such process"]) => remove(),
            removed => removed,
        };
        // Where the client was ended before the engine had heard of the container, there is none.
        if let Err(error) = removed
            && !complains(&error, &UNKNOWN)
        {
            return Err(error.into());
        }
        if let Some(inside) = inside.get() {
            let patience = Timespec { tv_sec: ENDS_WITHIN.as_secs() as i64, tv_nsec: 0 };
            if poll(&mut [PollFd::new(inside, PollFlags::IN)], Some(&patience))? == 0 {
                return Err(format!("its first process did not end within {ENDS_WITHIN:?}").into());
            }
        }
        if let Ok(id) = fs::read_to_string(&id_file) {
            fs::remove_file(&id_file)?;
            let group = match engine.engine {
                Engine::Docker => format!("docker/{}", id.trim()),
                Engine::Podman => format!("libpod_parent/libpod-{}", id.trim()),
            };
            cgroups::remove_named(&group)?;
        }
        Ok(None)
    }
}

/// What engines say where there is no such container.
const UNKNOWN: [&str; 2] = ["no such container", "no container with"];

/// Whether an engine complained in such words.
fn complains(error: &anyhow::Error, words: &[&str]) -> bool {
    error.downcast_ref::<Complaint>().is_some_and(|complaint| words.iter().any(|words| complaint.has(words)))
}

/// The first process inside a container, which the engine wrote down before it started it.
fn first_process(engine: Engine, id_file: &Path) -> anyhow::Result<(i32, OwnedFd)> {
    let id = read(id_file)?;
    let file = match engine {
        Engine::Docker => docker::process_file(id.trim()),
        Engine::Podman => podman::process_file(id.trim()),
    };
    let text = read(&file)?;
    let number = text.trim().parse().with_context(|| format!("read `{}` in {}", text.trim(), file.display()))?;
    let pid = Pid::from_raw(number).with_context(|| format!("{number} is no process"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("open the process {number}"))?;
    Ok((number, pidfd))
}

/// The IPv4 address that a process has in its network namespace beside that of lo.
fn address(process: &OwnedFd) -> anyhow::Result<Option<Ipv4Addr>> {
    use std::os::fd::AsFd;
    let mut netlink = Netlink::open_in(&Namespace::of_pidfd(process.as_fd())?)?;
    let addresses = netlink.addresses()?;
    Ok(addresses.iter().filter(|address| address.link != LOOPBACK).find_map(|address| match address.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandboxes::client::Client;
    use std::time::Duration;

    #[test]
    fn an_unknown_container_is_told_from_another_failure() {
        let unknown = |said: &str| {
            let client = Client::new("/bin/sh".into(), Path::new("/"), Duration::from_secs(60));
            let error = client.argument("-c").ask(&["echo \"$0\" >&2; exit 1", said], None).expect_err("a failure");
            complains(&error, &UNKNOWN)
        };
        assert!(unknown("Error: No such container: docker-bridge-1"));
        assert!(unknown("Error: no container with ID or name \"x\" found: no such container"));
        assert!(!unknown("Cannot connect to the Docker daemon"));
    }
}
