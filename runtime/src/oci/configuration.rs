//! A bundle's `config.json`, translated to a specification. What is not supported is refused, never passed over.

use super::filter;
use crate::capabilities::Capabilities;
use crate::cgroup::{Cgroup, Limits};
use crate::error::Error;
use crate::root::{Mount, MountKind};
use crate::specification::{Namespaces, NetworkMode, Program, Root, Specification, User};
use oci_spec::runtime::{self, LinuxNamespaceType, PosixRlimitType, Spec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use std::path::Path;
use std::sync::Arc;

/// A configuration as the runtime needs it.
#[derive(Debug)]
pub struct Configured {
    /// The container, its standard streams inherited, without its cgroup.
    pub specification: Specification,
    /// Where its cgroup is to be, if the configuration says it.
    pub cgroup_path: Option<String>,
    /// Its limits.
    pub limits: Limits,
    /// Whether it wants to see its cgroup, where and with which flags.
    cgroup_mount: Option<(usize, String, MountFlags)>,
}

/// Reads the configuration of a bundle.
pub fn read(bundle: &Path) -> Result<Configured, Error> {
    let path = bundle.join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", path.display().to_string()))?;
    parse(&bytes, bundle)
}

/// [`read`] from memory.
pub fn parse(config: &[u8], bundle: &Path) -> Result<Configured, Error> {
    let refused = |error| {
        let path = bundle.join("config.json").display().to_string();
        Error::invalid(path, format!("is no runtime configuration: {error}"))
    };
    translate(&serde_json::from_slice::<Spec>(config).map_err(refused)?, bundle)
}

fn unsupported<T>(what: &str) -> Result<T, Error> {
    Err(Error::invalid(format!("{what} in config.json"), "is not supported"))
}

/// What is not supported in the process and its surroundings, and whether it is asked for. A value that changes nothing is
/// no request.
fn absent(spec: &Spec, process: &runtime::Process, linux: &runtime::Linux) -> [(&'static str, bool); 18] {
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    [
        ("process.terminal", process.terminal() == Some(true)),
        // It would change the launching process's as well, whose memory the child shares until exec.
        ("process.oomScoreAdj", process.oom_score_adj().is_some_and(|score| score != own_oom_score())),
        ("process.apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|name| !name.is_empty())),
        ("process.selinuxLabel", process.selinux_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ("domainname", spec.domainname().as_ref().is_some_and(|name| !name.is_empty())),
        ("hooks", spec.hooks().is_some()),
        ("linux.uidMappings", linux.uid_mappings().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.gidMappings", linux.gid_mappings().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.devices", linux.devices().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|all| !all.is_empty())),
        // The root is always private to the container.
        ("linux.rootfsPropagation", !matches!(propagation, "" | "private" | "rprivate" | "slave" | "rslave")),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
    ]
}

/// The same for what `linux.resources` limits.
fn absent_resources(linux: &runtime::Linux) -> impl IntoIterator<Item = (&'static str, bool)> + use<> {
    let Some(resources) = linux.resources() else { return Vec::new() };
    let mut all = vec![
        ("linux.resources.blockIO", resources.block_io().is_some()),
        ("linux.resources.hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.resources.network", resources.network().is_some()),
        ("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|all| !all.is_empty())),
        ("linux.resources.unified", resources.unified().as_ref().is_some_and(|all| !all.is_empty())),
    ];
    if let Some(memory) = resources.memory() {
        all.extend([
            ("linux.resources.memory.reservation", memory.reservation().is_some_and(|bytes| bytes > 0)),
            ("linux.resources.memory.swap", memory.swap().is_some_and(|bytes| bytes > 0)),
            ("linux.resources.memory.kernel", memory.kernel().is_some_and(|bytes| bytes > 0)),
            ("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|bytes| bytes > 0)),
            ("linux.resources.memory.swappiness", memory.swappiness().is_some()),
            ("linux.resources.memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ]);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend([
            ("linux.resources.cpu.shares", cpu.shares().is_some_and(|shares| shares > 0)),
            ("linux.resources.cpu.idle", cpu.idle().is_some_and(|idle| idle != 0)),
            ("linux.resources.cpu.burst", cpu.burst().is_some_and(|burst| burst > 0)),
            ("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|time| time > 0)),
            ("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|time| time > 0)),
            ("linux.resources.cpu.cpus", cpu.cpus().as_ref().is_some_and(|list| !list.is_empty())),
            ("linux.resources.cpu.mems", cpu.mems().as_ref().is_some_and(|list| !list.is_empty())),
        ]);
    }
    all
}

fn own_oom_score() -> i32 {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn translate(spec: &Spec, bundle: &Path) -> Result<Configured, Error> {
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("config.json", "has no process"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("config.json", "has no linux section"))?;
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("config.json", "has no root"))?;
    let mut passed_over = absent(spec, process, linux).into_iter().chain(absent_resources(linux));
    if let Some((name, _)) = passed_over.find(|(_, asked)| *asked) {
        return unsupported(name);
    }

    let arguments = process.args().clone().unwrap_or_default();
    let program = Program::Path(arguments.first().cloned().unwrap_or_default());
    let mut specification = Specification::bare(program, arguments);
    specification.environment = process.env().clone().unwrap_or_default();
    specification.working_directory = text(process.cwd(), "process.cwd")?;
    let path = bundle.join(root.path());
    specification.root = Root::Directory { path, recursive: false, read_only: root.readonly().unwrap_or(false) };
    specification.host_name = spec.hostname().clone();
    specification.parameters = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    specification.masked_paths = linux.masked_paths().clone().unwrap_or_default();
    specification.read_only_paths = linux.readonly_paths().clone().unwrap_or_default();
    specification.no_new_privileges = process.no_new_privileges().unwrap_or(false);
    specification.seccomp = linux.seccomp().as_ref().map(filter::filter).transpose()?;
    specification.capabilities = Some(capabilities(process.capabilities().as_ref())?);
    // Without MKNOD a container has the devices that were made for it and no others, which is what the rules are for.
    let rules = linux.resources().as_ref().and_then(|resources| resources.devices().as_ref());
    let makes_nodes = specification.capabilities.is_some_and(|sets| sets.bounding.contains(CapabilitySet::MKNOD));
    if makes_nodes && rules.is_some_and(|rules| !rules.is_empty()) {
        return unsupported("linux.resources.devices together with CAP_MKNOD");
    }
    for limit in process.rlimits().iter().flatten() {
        let value = |number: u64| (number != u64::MAX).then_some(number);
        let limits = Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) };
        specification.resource_limits.push((resource(limit.typ()), limits));
    }
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    if user.uid() != 0 || user.gid() != 0 || !groups.is_empty() {
        specification.user = Some(User { user: user.uid(), group: user.gid(), groups });
    }
    specification.umask = user.umask().unwrap_or(specification.umask);
    namespaces(linux, &mut specification)?;

    let mut cgroup_mount = None;
    for mount in spec.mounts().iter().flatten() {
        let mount = translate_mount(mount, bundle)?;
        match &mount.kind {
            MountKind::FileSystem { name, .. } if name == "cgroup" => {
                cgroup_mount = Some((specification.mounts.len(), mount.target, mount.flags));
            }
            _ => specification.mounts.push(mount),
        }
    }
    let cgroup_path = linux.cgroups_path().as_ref().map(|path| text(path, "linux.cgroupsPath")).transpose()?;
    Ok(Configured { specification, cgroup_path, limits: limits(linux), cgroup_mount })
}

impl Configured {
    /// Puts the container into its cgroup, and shows it to it where that was asked for.
    pub fn with_cgroup(mut self, cgroup: &Arc<Cgroup>) -> Specification {
        if let Some((position, target, flags)) = self.cgroup_mount {
            let mut mounts = Vec::new();
            if cgroup.unified_directory().is_some() {
                mounts.push(Mount::file_system("cgroup2", &target, flags | MountFlags::RDONLY, ""));
            } else {
                mounts.push(Mount::file_system("tmpfs", &target, flags - MountFlags::RDONLY, "mode=755,size=64k"));
                for (name, path) in cgroup.controllers() {
                    let kind = MountKind::Bind { source: path.into(), recursive: false };
                    let target = format!("{target}/{name}");
                    mounts.push(Mount { target, kind, flags, read_only: true });
                }
            }
            self.specification.mounts.splice(position..position, mounts);
        }
        self.specification.cgroup = Some(cgroup.clone());
        self.specification
    }
}

fn text(path: &Path, what: &str) -> Result<String, Error> {
    path.to_str().map(String::from).ok_or_else(|| Error::invalid(what, "is not UTF-8"))
}

fn namespaces(linux: &runtime::Linux, specification: &mut Specification) -> Result<(), Error> {
    let mut own = Namespaces::NONE;
    for namespace in linux.namespaces().iter().flatten() {
        let joined = namespace.path().as_ref().map(|path| open(path)).transpose()?;
        match (namespace.typ(), joined) {
            (LinuxNamespaceType::Mount, None) => own.mount = true,
            (LinuxNamespaceType::Pid, None) => own.pid = true,
            (LinuxNamespaceType::Ipc, None) => own.ipc = true,
            (LinuxNamespaceType::Uts, None) => own.uts = true,
            (LinuxNamespaceType::Cgroup, None) => own.cgroup = true,
            (LinuxNamespaceType::User, None) => own.user = true,
            (LinuxNamespaceType::Network, None) => specification.network = NetworkMode::None,
            (LinuxNamespaceType::Network, Some(joined)) => specification.network = NetworkMode::Container(joined),
            (LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts | LinuxNamespaceType::Cgroup, Some(joined)) => {
                specification.joined_namespaces.push(joined);
            }
            (LinuxNamespaceType::Time, _) => return unsupported("a time namespace"),
            (_, Some(_)) => return unsupported("joining a mount, pid or user namespace by its path"),
        }
    }
    if !own.mount {
        return unsupported("a container without a mount namespace of its own");
    }
    if own.user && rustix::process::geteuid().is_root() {
        return unsupported("a user namespace made by root");
    }
    // Without privileges there is no other way.
    own.user |= !rustix::process::geteuid().is_root();
    specification.namespaces = own;
    Ok(())
}

/// Opens a namespace. What is none is only looked at: whoever opens a FIFO waits, and a device may do something.
fn open(path: &Path) -> Result<Arc<OwnedFd>, Error> {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NAMESPACES: i64 = 0x6e73_6673;
    let named = || path.display().to_string();
    let failed = |errno| Error::system("open namespace", named())(errno);
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    if rustix::fs::fstatfs(&found).map_err(failed)?.f_type != NAMESPACES {
        return Err(Error::invalid(named(), "is no namespace"));
    }
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let opened = rustix::fs::open(itself, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map(Arc::new).map_err(failed)
}

fn capabilities(asked: Option<&runtime::LinuxCapabilities>) -> Result<Capabilities, Error> {
    let Some(asked) = asked else { return Ok(Capabilities::NONE) };
    let set = |names: &Option<runtime::Capabilities>| {
        names.iter().flatten().try_fold(CapabilitySet::empty(), |set, name| {
            let known = CapabilitySet::from_name(&name.to_string());
            known.map(|one| set | one).ok_or_else(|| Error::invalid(format!("the capability {name}"), "is not known"))
        })
    };
    let (permitted, inheritable) = (set(asked.permitted())?, set(asked.inheritable())?);
    Ok(Capabilities {
        bounding: set(asked.bounding())?,
        effective: set(asked.effective())?,
        permitted,
        inheritable,
        // The kernel lets no other ones be ambient; configurations that name some are common, and runc passes over them.
        ambient: set(asked.ambient())? & permitted & inheritable,
    })
}

fn limits(linux: &runtime::Linux) -> Limits {
    let Some(resources) = linux.resources() else { return Limits::default() };
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    let cpu = resources.cpu().as_ref().and_then(|cpu| {
        let (quota, period) = (positive(cpu.quota()?)?, cpu.period().filter(|period| *period > 0).unwrap_or(100_000));
        Some(quota.saturating_mul(100_000) / period)
    });
    Limits {
        memory: resources.memory().as_ref().and_then(|memory| positive(memory.limit()?)),
        pids: resources.pids().as_ref().and_then(|pids| positive(pids.limit())),
        cpu,
    }
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Translates a mount as [mount(8)](https://man7.org/linux/man-pages/man8/mount.8.html) would its options.
fn translate_mount(mount: &runtime::Mount, bundle: &Path) -> Result<Mount, Error> {
    let mut flags = MountFlags::empty();
    let (mut bind, mut recursive, mut data) = (false, false, Vec::new());
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            // The defaults; and all mounts are private to the container anyway.
            "rw" | "suid" | "dev" | "exec" | "defaults" | "private" | "rprivate" | "slave" | "rslave" => {}
            "shared" | "rshared" | "unbindable" | "runbindable" => return unsupported("a shared mount"),
            other => data.push(other),
        }
    }
    let target = text(mount.destination(), "a mount's destination")?;
    let name = mount.typ().clone().unwrap_or_default();
    let kind = if bind || name == "bind" {
        let source =
            mount.source().clone().ok_or_else(|| Error::invalid(&*target, "is a bind mount without source"))?;
        MountKind::Bind { source: bundle.join(source), recursive }
    } else {
        let mut options = data.join(",");
        if name == "devpts" && !rustix::process::geteuid().is_root() {
            // Only one group is mapped into the user namespace.
            data.retain(|option| !option.starts_with("gid="));
            options = data.join(",");
        }
        MountKind::FileSystem { name, options }
    };
    Ok(Mount { target, kind, flags, read_only: flags.contains(MountFlags::RDONLY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: &str) -> String {
        let mut config = serde_json::to_value(Spec::default()).unwrap();
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        merge(&mut config, &change);
        let spec: Spec = serde_json::from_value(config).unwrap();
        translate(&spec, Path::new("/")).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn merge(into: &mut serde_json::Value, change: &serde_json::Value) {
        match (into, change) {
            (serde_json::Value::Object(into), serde_json::Value::Object(change)) => {
                for (name, value) in change {
                    merge(into.entry(name.clone()).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, value) => *into = value.clone(),
        }
    }

    #[test]
    fn what_is_no_namespace_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let owner = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, owner, 0).unwrap();
        let joins = |path: &Path| {
            let namespaces = serde_json::json!([{"type": "mount"}, {"type": "uts", "path": path}]);
            refusal(
                &serde_json::json!({"process": {"terminal": false}, "linux": {"namespaces": namespaces}}).to_string(),
            )
        };
        assert_eq!(joins(&fifo), format!("{} is no namespace", fifo.display()));
        assert_eq!(joins(Path::new("/proc/self/ns/uts")), "");
    }

    #[test]
    fn nothing_is_passed_over() {
        for (change, name) in [
            (r#"{"process":{"terminal":true}}"#, "process.terminal"),
            (r#"{"process":{"terminal":false,"oomScoreAdj":901}}"#, "process.oomScoreAdj"),
            (r#"{"process":{"terminal":false},"domainname":"example"}"#, "domainname"),
            (r#"{"process":{"terminal":false},"linux":{"rootfsPropagation":"shared"}}"#, "linux.rootfsPropagation"),
            (
                r#"{"process":{"terminal":false},"linux":{"resources":{"cpu":{"shares":512}}}}"#,
                "linux.resources.cpu.shares",
            ),
            (
                r#"{"process":{"terminal":false},"linux":{"resources":{"memory":{"swap":4096}}}}"#,
                "linux.resources.memory.swap",
            ),
            (
                r#"{"process":{"terminal":false},"linux":{"resources":{"unified":{"memory.high":"1"}}}}"#,
                "linux.resources.unified",
            ),
        ] {
            assert_eq!(refusal(change), format!("{name} in config.json is not supported"));
        }
        let harmless = r#"{"process":{"terminal":false,"user":{"umask":63}},"linux":{"rootfsPropagation":"rslave"}}"#;
        assert_eq!(refusal(harmless), "");
    }
}
