//! The one command that mends a refusal, found from what the machine tells of itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What lets an ordinary user make user namespaces and be root in them.
pub(crate) fn user_namespace() -> String {
    user_namespace_by(Path::new("/proc/sys"), is_in_a_container())
}

/// Settings that forbid it, each with the value that does and the command that mends it: the kernel's own limit
/// ([namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html)), Debian's switch, and Ubuntu's since 23.10, which
/// lets the namespace be made and then takes all privilege in it away.
const FORBIDS: [(&str, &str, &str); 3] = [
    ("user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
];

fn user_namespace_by(settings: &Path, in_a_container: bool) -> String {
    let is = |file: &str, value: &str| fs::read_to_string(settings.join(file)).is_ok_and(|text| text.trim() == value);
    let forbidding = FORBIDS.iter().find(|(file, value, _)| is(file, value));
    match forbidding {
        Some((_, _, command)) => (*command).to_owned(),
        None if in_a_container => PRIVILEGED.to_owned(),
        None => "sudo isobench run".to_owned(),
    }
}

/// What gives a container of a common engine what a testbed needs.
pub(super) const PRIVILEGED: &str = "docker run --privileged ...";

/// What lets an old container engine's system call filter pass clone3.
pub(super) const UNFILTERED: &str = "docker run --security-opt seccomp=unconfined ...";

/// Whether this machine is a container of docker's or podman's, by the file that they put into each.
pub(super) fn is_in_a_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
}

/// What makes a part of the simulated host's network work.
pub(crate) fn network(part: &str) -> Option<String> {
    Some(match part {
        // The driver is there and its node is not, as in a container.
        "tap" if Path::new("/sys/class/misc/tun").exists() && !Path::new("/dev/net/tun").exists() => {
            "sudo sh -c 'mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200'".to_owned()
        }
        "tap" if Path::new("/dev/net/tun").exists() => "sudo chmod 666 /dev/net/tun".to_owned(),
        "tap" => "sudo modprobe tun".to_owned(),
        "nftables" => "sudo modprobe nf_tables".to_owned(),
        "bridge" | "veth" => format!("sudo modprobe {part}"),
        _ => return None,
    })
}

/// What opens /dev/kvm to this user: the group that may use it where there is one, else the node itself.
pub(super) fn kvm_for_user() -> String {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    // In a testbed of an ordinary user the node's group has no number of its own; most distributions call it kvm.
    let unmapped = fs::read_to_string("/proc/sys/kernel/overflowgid").ok().and_then(|text| text.trim().parse().ok());
    let group = fs::metadata("/dev/kvm").ok().and_then(|node| match node.gid() {
        gid if Some(gid) == unmapped => groups.lines().any(|line| line.starts_with("kvm:")).then(|| "kvm".to_owned()),
        gid => group_of(node.mode(), gid, &groups),
    });
    match group {
        Some(name) => format!("sudo usermod -aG {name} $USER && newgrp {name}"),
        None => "sudo chmod o+rw /dev/kvm".to_owned(),
    }
}

/// The name of the group that may read and write a node, from the text of group(5); root's own group is nobody else's.
fn group_of(mode: u32, gid: u32, groups: &str) -> Option<String> {
    if gid == 0 || mode & 0o060 != 0o060 {
        return None;
    }
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_user_namespaces_is_named() {
        let settings = tempfile::tempdir().unwrap();
        for directory in ["user", "kernel"] {
            fs::create_dir(settings.path().join(directory)).unwrap();
        }
        let with = |file: &str, value: &str| {
            fs::write(settings.path().join(file), format!("{value}\n")).unwrap();
            user_namespace_by(settings.path(), false)
        };
        assert_eq!(with("user/max_user_namespaces", "15000"), "sudo isobench run");
        let ubuntu = "kernel/apparmor_restrict_unprivileged_userns";
        assert_eq!(with(ubuntu, "1"), "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0");
        assert_eq!(with(ubuntu, "0"), "sudo isobench run");
        let debian = "kernel/unprivileged_userns_clone";
        assert_eq!(with(debian, "0"), "sudo sysctl kernel.unprivileged_userns_clone=1");
        assert_eq!(with("user/max_user_namespaces", "0"), "sudo sysctl user.max_user_namespaces=15000");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(user_namespace_by(elsewhere.path(), true), PRIVILEGED);
    }

    #[test]
    fn a_device_for_a_group_names_it() {
        let groups = "root:x:0:\nkvm:x:105:alice\n";
        assert_eq!(group_of(0o20660, 105, groups).as_deref(), Some("kvm"));
        assert_eq!(group_of(0o20600, 105, groups), None);
        assert_eq!(group_of(0o20660, 0, groups), None);
        assert_eq!(group_of(0o20660, 77, groups), None);
    }
}
