//! The peers that take an OCI bundle: runc and crun, with a configuration equal in kind to our own none mode.

use super::root_directory::AGENT;
use super::spawn::{failed, find_program, spawn, version};
use crate::testbed::{cgroups, directory};
use anyhow::Context;
use isobench_runtime::oci;
use isobench_workload::{Family, Instance, LaunchError, Released, Resource, Sandbox, Workload};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// One OCI runtime.
#[derive(Debug)]
pub(super) struct OciRuntime {
    name: &'static str,
    program: PathBuf,
    bundle: PathBuf,
    root: PathBuf,
    host: PathBuf,
    mounts: Option<Arc<File>>,
    /// What `isobench-runtime spec` prints.
    template: Value,
    launched: u64,
}

impl OciRuntime {
    /// Finds the runtime with this name.
    pub(super) fn find(name: &'static str, root: &Path, host: &Path) -> Result<(Self, Option<String>), String> {
        let program = find_program(name).ok_or_else(|| format!("{name} is not installed: apt-get install {name}"))?;
        let version = version(&program);
        if let Some(obstacle) = cgroups::obstacle_to(name) {
            return Err(obstacle);
        }
        let prepared = || -> anyhow::Result<Self> {
            let mounts = if name == "crun" { without_unified()? } else { None };
            let (bundle, root, host) = (directory(name)?, root.to_owned(), host.to_owned());
            let template =
                serde_json::from_str(&oci::template()?).context("read the configuration of our own containers")?;
            Ok(Self { name, program, bundle, root, host, mounts, template, launched: 0 })
        };
        prepared().map(|runtime| (runtime, version)).map_err(|error| format!("{error:#}"))
    }
}

impl Sandbox for OciRuntime {
    fn name(&self) -> &str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Peer
    }

    fn launch(&mut self, workload: &Workload) -> Result<Instance, LaunchError> {
        self.launched += 1;
        let id = format!("{}-{}", self.name, self.launched);
        let configuration = configuration(&self.template, workload, &self.root, &self.host, &format!("/{id}"));
        // One bundle for each container: a runtime may read it again when it deletes the container.
        let bundle = self.bundle.join(&id);
        fs::create_dir_all(&bundle)
            .and_then(|()| fs::write(bundle.join("config.json"), configuration.to_string()))
            .map_err(|source| failed(&id, &format!("write {}/config.json", bundle.display()), source))?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--bundle").arg(&bundle).arg(&id);
        let mounts = self.mounts.as_deref();
        let spawned = in_mounts(mounts, || spawn(id.clone(), &mut command))
            .map_err(|source| failed(&id, "enter its mount namespace", source))??;
        let mut instance = spawned.instance(None)?;
        let container = Container { program: self.program.clone(), id, bundle, mounts: self.mounts.clone() };
        instance.own(Box::new(container));
        Ok(instance)
    }
}

/// What a runtime keeps of a container: its processes, its state and its control groups. Only the runtime itself knows how
/// to remove them all.
#[derive(Debug)]
struct Container {
    program: PathBuf,
    id: String,
    bundle: PathBuf,
    mounts: Option<Arc<File>>,
}

impl Resource for Container {
    fn describe(&self) -> String {
        format!("container {}", self.id)
    }

    fn release(self: Box<Self>) -> Released {
        let mut command = Command::new(&self.program);
        command.args(["delete", "--force", &self.id]).stdin(Stdio::null());
        let output = in_mounts(self.mounts.as_deref(), || command.output())??;
        fs::remove_dir_all(&self.bundle)?;
        // The agent may be ready before the runtime has written down that there is a container; then it knows of none.
        cgroups::remove_named(&self.id)?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // A container whose program has ended by itself was deleted by the runtime already.
        if output.status.success() || message.contains("does not exist") { Ok(None) } else { Err(message.into()) }
    }
}

/// A configuration with what our own container in none mode has: its mounts, masks, capabilities and filter of system calls, and no
/// limits.
fn configuration(template: &Value, workload: &Workload, root: &Path, host: &Path, cgroup: &str) -> Value {
    let (arguments, root) = match workload {
        // A program of the user's own needs the files of the host, which it cannot change.
        Workload::Program { arguments } => (arguments.clone(), host),
        _ => (std::iter::once(AGENT.to_owned()).chain(workload.arguments()).collect(), root),
    };
    let mut configuration = template.clone();
    configuration["process"]["args"] = json!(arguments);
    configuration["process"]["env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    configuration["root"] = json!({"path": root, "readonly": true});
    configuration["linux"]["cgroupsPath"] = json!(cgroup);
    if let Some(mounts) = configuration["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
    for (part, unlimited) in [("process", "rlimits"), ("linux", "resources")] {
        configuration[part].as_object_mut().map(|part| part.remove(unlimited));
    }
    configuration
}

/// Debian's crun 1.8.1 refuses a hybrid layout of control groups: it gets a mount namespace without the unified hierarchy.
fn without_unified() -> anyhow::Result<Option<Arc<File>>> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    if !Path::new(UNIFIED).join("cgroup.procs").exists() {
        return Ok(None);
    }
    let namespace = on_own_thread(|| -> anyhow::Result<File> {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace for crun")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("make mounts private")?;
        // The testbed's own branch lies over the machine's hierarchy.
        while Path::new(UNIFIED).join("cgroup.procs").exists() {
            unmount(UNIFIED, UnmountFlags::DETACH).with_context(|| format!("unmount {UNIFIED} for crun"))?;
        }
        Ok(File::open("/proc/thread-self/ns/mnt")?)
    })?;
    Ok(Some(Arc::new(namespace)))
}

/// Does something in a mount namespace, on a thread of its own that ends with it.
fn in_mounts<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> T + Send) -> nix::Result<T> {
    let Some(namespace) = namespace else { return Ok(work()) };
    on_own_thread(|| {
        // A thread that shares its working directory with others cannot change its mount namespace (setns(2)).
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        Ok(work())
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobench_runtime::root;

    fn configured(workload: &Workload) -> Value {
        let template = serde_json::from_str(&oci::template().unwrap()).unwrap();
        configuration(&template, workload, Path::new("/root"), Path::new("/host"), "/x")
    }

    #[test]
    fn a_program_of_the_users_own_runs_on_the_hosts_files_without_the_agent() {
        let own = configured(&Workload::Program { arguments: vec!["/bin/true".into()] });
        assert_eq!(
            (own["root"]["path"].as_str(), own["process"]["args"][0].as_str()),
            (Some("/host"), Some("/bin/true"))
        );
        let agent = configured(&Workload::Idle);
        assert_eq!(agent["process"]["args"], json!([AGENT, "idle"]));
        assert_eq!(agent["root"]["path"], "/root");
    }

    #[test]
    fn peers_are_confined_as_our_own_containers_are() {
        let peer = configured(&Workload::Idle);
        let (linux, process) = (&peer["linux"], &peer["process"]);
        assert_eq!(linux["maskedPaths"], json!(root::masked()));
        assert_eq!(linux["readonlyPaths"], json!(root::READ_ONLY));
        assert!(linux["seccomp"]["syscalls"].as_array().is_some_and(|rules| !rules.is_empty()));
        assert!(!process["capabilities"]["bounding"].to_string().contains("MKNOD"));
        assert!(linux["resources"].is_null() && process["rlimits"].is_null());
        let targets = peer["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap());
        let ours = root::Mount::standard();
        assert!(targets.eq(ours.iter().map(|mount| mount.target.as_str())), "{}", peer["mounts"]);
    }
}
