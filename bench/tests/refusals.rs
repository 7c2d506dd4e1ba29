//! What a machine may refuse, each simulated: `doctor` finds it out by trying and names the command that mends it, and `run`
//! measures what remains and gives the gap its reason.
//!
//! A refusal is a system call filter, a mount over the real thing or a setting of a namespace, and goes with the processes that
//! it is made for.

use isobench_reports::reader;
use isobench_reports::render::remarks;
use libtest_mimic::{Arguments, Failed, Trial};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};

type Outcome = Result<(), Failed>;

/// A test by its name.
type Test = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    let obstacle = (!rustix::process::geteuid().is_root()).then_some("needs root to take something away");
    let tests: [Test; 10] = [
        ("clone3_of_an_old_container_engine", clone3),
        ("no_tun_device", no_tun),
        ("tun_device_for_root_alone", tun_for_root),
        ("no_nf_tables", no_nf_tables),
        ("no_user_namespaces_by_the_kernels_limit", no_user_namespaces),
        ("no_user_namespaces_by_ubuntus_restriction", ubuntu),
        ("kvm_for_a_group_alone", kvm_for_a_group),
        ("no_delegated_control_group", no_control_group),
        ("engine_of_an_ordinary_user", engine_of_an_ordinary_user),
        ("no_program_from_memory", no_program_from_memory),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, test).with_ignored_flag(obstacle.is_some()).with_kind(obstacle.unwrap_or_default())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn clone3() -> Outcome {
    let place = Place::new()?;
    let filter = || refuse(libc::SYS_clone3, libc::ENOSYS, &[]);
    let (mended, sentence) = finding(&place.doctor(&[], "true", filter()?)?, "processes", "missing")?;
    expect(sentence.contains("clone3"), &sentence)?;
    expect(mended.contains("seccomp=unconfined"), &mended)?;
    let gaps = place.run(&[], "true", filter()?, &["container-none", "process", "unikernel-process"])?;
    expect(gaps["process"].as_deref().is_some_and(|gap| gap.contains("clone3")), &gaps)?;
    expect(gaps["container-none"].as_deref().is_some_and(|gap| gap.contains("clone3")), &gaps)?;
    expect(gaps["unikernel-process"].is_none(), &gaps)
}

fn no_tun() -> Outcome {
    let place = Place::new()?;
    let (mended, sentence) =
        finding(&place.doctor(&["--mount"], "mount -t tmpfs none /dev/net", vec![])?, "network", "limited")?;
    expect(sentence.contains("tap"), &sentence)?;
    expect(mended.contains("/dev/net/tun") || mended.contains("modprobe tun"), &mended)?;
    let gaps = place.run(
        &["--mount"],
        "mount -t tmpfs none /dev/net",
        vec![],
        &["process", "unikernel-process", "vm-unikernel"],
    )?;
    expect(gaps["process"].is_none(), &gaps)?;
    for name in ["unikernel-process", "vm-unikernel"] {
        expect(gaps[name].as_deref().is_some_and(|gap| gap.contains("no tap can be made")), &gaps)?;
    }
    Ok(())
}

fn tun_for_root() -> Outcome {
    let place = Place::new()?;
    let closed = format!("{} && {AS_NOBODY}", node_in_place("tun", 200, 600));
    let (mended, sentence) = finding(&place.doctor(&["--mount"], &closed, vec![])?, "network", "limited")?;
    expect(sentence.contains("tap"), &sentence)?;
    expect(mended == "sudo chmod 666 /dev/net/tun", &mended)?;
    let gaps = place.run(&["--mount"], &closed, vec![], &["process", "unikernel-process"])?;
    expect(gaps["process"].is_none(), &gaps)?;
    expect(gaps["unikernel-process"].as_deref().is_some_and(|gap| gap.contains("no tap can be made")), &gaps)
}

fn no_nf_tables() -> Outcome {
    let place = Place::new()?;
    // What a kernel without nfnetlink answers to socket(AF_NETLINK, ..., NETLINK_NETFILTER).
    let netfilter =
        || refuse(libc::SYS_socket, libc::EPROTONOSUPPORT, &[(0, libc::AF_NETLINK), (2, libc::NETLINK_NETFILTER)]);
    let (mended, sentence) = finding(&place.doctor(&[], "true", netfilter()?)?, "network", "limited")?;
    expect(sentence.contains("nftables"), &sentence)?;
    expect(mended == "sudo modprobe nf_tables", &mended)?;
    // Without a firewall there is no simulated host: refused as a whole, in one sentence.
    let arguments = ["run", "--only", "startup", "--reps", "1", "--out", "out"];
    let output = place.isobench(&[], "true", netfilter()?, &arguments)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(3), &output)?;
    expect(told.trim_end().lines().count() == 1 && told.contains(&mended), &told)?;
    expect(!place.path("out").exists(), "an empty directory was left")?;

    // A kept host has none until a network is asked for: that is refused with what it is missed for, and the rest works.
    let home = format!("export ISOBENCH_HOME={}", place.path("state").display());
    let isobench = |filter, arguments: &[&str]| place.isobench(&[], &home, filter, arguments);
    let made = isobench(netfilter()?, &["testbed", "create"])?;
    expect(made.status.success(), &made)?;
    let outcome = (|| {
        let run = |network| isobench(netfilter()?, &["container", "run", "--rm", "--network", network, "/", "true"]);
        let output = run("bridge")?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(125) && told.trim_end().lines().count() == 1, &output)?;
        expect(told.contains("needs nftables, by which addresses are translated") && told.contains(&mended), &told)?;
        let output = run("none")?;
        expect(output.status.success(), &output)?;
        let output = isobench(vec![], &["container", "ps", "-aq"])?;
        expect(output.status.success() && output.stdout.is_empty(), &output)
    })();
    let removed = isobench(vec![], &["testbed", "rm"])?;
    outcome?;
    expect(removed.status.success(), &removed)
}

fn no_user_namespaces() -> Outcome {
    let place = Place::new()?;
    let flags = ["--user", "--map-user=65534", "--keep-caps"];
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
    let (mended, sentence) = finding(&place.doctor(&flags, forbid, vec![])?, "namespaces", "missing")?;
    expect(sentence.contains("user ("), &sentence)?;
    expect(mended == "sudo sysctl user.max_user_namespaces=15000", &mended)
}

fn ubuntu() -> Outcome {
    let place = Place::new()?;
    // The setting is not there on another kernel, and what it does is what this filter does: nobody becomes root of a
    // namespace.
    let setting =
        "mount -t tmpfs none /proc/sys/kernel && echo 1 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let filter = refuse(libc::SYS_unshare, libc::EPERM, &[(0, libc::CLONE_NEWUSER)])?;
    let output =
        place.isobench(&["--mount"], &format!("{setting} && {AS_NOBODY}"), filter.clone(), &["doctor", "--json"])?;
    let (mended, _) = finding(&serde_json::from_slice(&output.stdout)?, "namespaces", "missing")?;
    expect(mended == "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0", &mended)?;
    let arguments = ["run", "--only", "startup", "--reps", "1", "--out", "out"];
    let output = place.isobench(&["--mount"], &format!("{setting} && {AS_NOBODY}"), filter, &arguments)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(3), &output)?;
    expect(told.trim_end().lines().count() == 1 && told.contains(&mended), &told)?;
    expect(!place.path("out").exists(), "an empty directory was left")
}

fn kvm_for_a_group() -> Outcome {
    let place = Place::new()?;
    // A node of the same device for a group of this machine's in which nobody is.
    let groups = fs::read_to_string("/etc/group")?;
    let there = |name: &str| groups.lines().any(|line| line.starts_with(name));
    let name = if there("kvm:") { "kvm" } else { "audio" };
    // What is asked here is whether KVM alone is missing.
    let cover = format!(
        "{} && {} && chgrp {name} /dev/kvm && {AS_NOBODY}",
        node_in_place("tun", 200, 666),
        node_in_place("kvm", 232, 660)
    );
    let output = place.isobench(&["--mount"], &cover, vec![], &["doctor", "--json"])?;
    let (mended, sentence) = finding(&serde_json::from_slice(&output.stdout)?, "KVM", "missing")?;
    expect(sentence.contains("not for you"), &sentence)?;
    expect(mended == format!("sudo usermod -aG {name} $USER && newgrp {name}"), &mended)?;
    let gaps = place.run(&["--mount"], &cover, vec![], &["process", "container-bridge", "vm-unikernel"])?;
    expect(gaps["process"].is_none() && gaps["container-bridge"].is_none(), &gaps)?;
    expect(gaps["vm-unikernel"].as_deref().is_some_and(|gap| gap.contains("/dev/kvm is not for you: `sudo ")), &gaps)
}

fn no_control_group() -> Outcome {
    let place = Place::new()?;
    let (mended, sentence) = finding(&place.doctor(&[], AS_NOBODY, vec![])?, "control groups", "limited")?;
    expect(sentence.contains("by process alone"), &sentence)?;
    expect(mended.contains("isobench run"), &mended)?;
    let gaps = place.run(&[], AS_NOBODY, vec![], &["process", "container-none"])?;
    expect(gaps.values().all(Option::is_none), &gaps)
}

/// Whatever is installed: here a program that does nothing is.
fn engine_of_an_ordinary_user() -> Outcome {
    let place = Place::new()?;
    fs::create_dir(place.path("programs"))?;
    let program = place.path("programs/podman");
    fs::write(&program, "#!/bin/sh\nexit 1\n")?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let with_program = format!("export PATH={}:$PATH", place.path("programs").display());
    let as_nobody = format!("{with_program} && {AS_NOBODY}");
    let (mended, sentence) = finding(&place.doctor(&[], &as_nobody, vec![])?, "engines", "limited")?;
    expect(sentence.contains("podman") && sentence.contains("group 5"), &sentence)?;
    expect(mended == "sudo isobench run", &mended)?;
    // Root lacks nothing, so nothing is said of it.
    let found = place.doctor(&[], &with_program, vec![])?;
    expect(finding(&found, "engines", "limited").is_err(), &found)?;
    // By control groups or, where the user has been given some, by the terminals' group.
    let gaps = place.run(&[], &as_nobody, vec![], &["process", "podman-none"])?;
    expect(gaps["process"].is_none(), &gaps)?;
    let gap = gaps["podman-none"].as_deref().unwrap_or_default();
    expect(gap.starts_with("podman ") && gap.ends_with(": run isobench as root"), &gaps)
}

fn no_program_from_memory() -> Outcome {
    if !fs::exists("/proc/sys/vm/memfd_noexec")? {
        println!("skipped: this kernel (before 6.3) cannot forbid to execute a memfd");
        return Ok(());
    }
    let place = Place::new()?;
    // The setting belongs to the pid namespace.
    let own = ["--pid", "--fork", "--mount-proc"];
    let forbid = "echo 2 > /proc/sys/vm/memfd_noexec";
    let (mended, sentence) = finding(&place.doctor(&own, forbid, vec![])?, "programs from memory", "limited")?;
    expect(sentence.contains("unlinked file"), &sentence)?;
    expect(mended == "sudo sysctl vm.memfd_noexec=1", &mended)?;
    let gaps = place.run(&own, forbid, vec![], &["process", "container-none"])?;
    expect(gaps.values().all(Option::is_none), &gaps)
}

/// Puts another node of a miscellaneous device (major number 10) in the place of the machine's own, in a mount namespace.
fn node_in_place(name: &str, minor: u32, mode: u32) -> String {
    let directory = if name == "tun" { "/dev/net" } else { "/dev" };
    let path = format!("{directory}/{name}");
    // The next one covers this mount on /mnt; the node stays where it is bound.
    format!(
        "mount -t tmpfs none /mnt && mknod -m {mode} /mnt/{name} c 10 {minor} && mkdir -p {directory} && \
         {{ [ -e {path} ] || touch {path}; }} && mount --bind /mnt/{name} {path}"
    )
}

/// Ends a preparation: what follows runs as a user without any group or privilege.
const AS_NOBODY: &str = "set -- setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \"$@\"";

/// A directory that everybody may use, with the program in it: cargo's own may lie where only root can look.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self, Failed> {
        let place = Self(tempfile::tempdir()?);
        fs::set_permissions(place.0.path(), PermissionsExt::from_mode(0o777))?;
        let program = place.path("isobench");
        // A hard link where that can be, since it is large.
        fs::hard_link(env!("CARGO_BIN_EXE_isobench"), &program)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_isobench"), &program).map(drop))?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program where something has been taken away: in namespaces of its own, after a preparation in them, behind a
    /// filter.
    fn isobench(
        &self,
        namespaces: &[&str],
        preparation: &str,
        filter: BpfProgram,
        arguments: &[&str],
    ) -> Result<Output, Failed> {
        let mut command = Command::new("unshare");
        let script = format!("{preparation} && exec \"$@\"");
        command.args(namespaces).args(["sh", "-c", &script, "sh"]).arg(self.path("isobench")).args(arguments);
        command.current_dir(self.0.path()).stdin(Stdio::null()).env("LC_ALL", "C");
        command.env_remove("XDG_RUNTIME_DIR").env_remove("ISOBENCH_LOG");
        // A filter is the thread's and its children's.
        let thread = std::thread::spawn(move || {
            if !filter.is_empty() {
                seccompiler::apply_filter(&filter).map_err(|error| error.to_string())?;
            }
            command.output().map_err(|error| error.to_string())
        });
        Ok(thread.join().map_err(|_| "the thread ended early")??)
    }

    fn doctor(&self, namespaces: &[&str], preparation: &str, filter: BpfProgram) -> Result<Value, Failed> {
        let output = self.isobench(namespaces, preparation, filter, &["doctor", "--json"])?;
        expect(output.status.code() == Some(0), &output)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Measures these sandboxes; each with the reason why it was not measured, if it was not. A finished report is expected,
    /// and no failed sample.
    fn run(
        &self,
        namespaces: &[&str],
        preparation: &str,
        filter: BpfProgram,
        sandboxes: &[&str],
    ) -> Result<BTreeMap<String, Option<String>>, Failed> {
        let mut arguments = vec!["run", "--only", "startup", "--reps", "1", "--lang", "en", "--out", "out"];
        sandboxes.iter().for_each(|name| arguments.extend(["--sandbox", name]));
        let output = self.isobench(namespaces, preparation, filter, &arguments)?;
        expect(output.status.code() == Some(0), &output)?;
        let records = reader::read(&self.path("out"))?;
        let failed =
            records.samples.iter().find(|sample| matches!(sample.outcome, isobench_reports::record::Outcome::Error(_)));
        expect(failed.is_none(), failed)?;
        let page = fs::read_to_string(self.path("out/report.html"))?;
        let chosen = records.run.sandboxes.into_iter().filter(|sandbox| sandboxes.contains(&sandbox.name.as_str()));
        let gaps: BTreeMap<_, _> = chosen.map(|sandbox| (sandbox.name, sandbox.unavailable)).collect();
        expect(gaps.len() == sandboxes.len(), &gaps)?;
        for (name, gap) in &gaps {
            let measured = records.samples.iter().any(|sample| sample.sandbox == *name);
            let said = gap.as_deref().is_none_or(remarks::is_known);
            expect(said, format!("no report translates what is said of {name}: {gap:?}"))?;
            expect(measured == gap.is_none(), format!("{name}: measured is {measured}, and yet {gap:?}"))?;
            expect(
                gap.is_none() || page.contains(&format!("<code>{name}</code></td><td>")),
                format!("the report does not list {name}"),
            )?;
        }
        Ok(gaps)
    }
}

/// The remedy and the sentence of a finding, which must be in this state.
fn finding(findings: &Value, subject: &str, state: &str) -> Result<(String, String), Failed> {
    let all = findings.as_array().ok_or("no array")?;
    let found = all.iter().find(|finding| finding["subject"] == subject).ok_or_else(|| format!("no {subject}"))?;
    expect(found["state"] == state, found)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("remedy"), text("sentence")))
}

/// A filter by which a system call with these arguments fails, and all others pass.
fn refuse(call: libc::c_long, error: i32, arguments: &[(u8, i32)]) -> Result<BpfProgram, Failed> {
    let conditions = arguments
        .iter()
        .map(|(index, value)| {
            SeccompCondition::new(*index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value as u32 as u64)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // No rule at all means: whatever the arguments are.
    let rules = if conditions.is_empty() { vec![] } else { vec![SeccompRule::new(conditions)?] };
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(error as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

fn expect(holds: bool, otherwise: impl std::fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("{otherwise:?}").into()) }
}
