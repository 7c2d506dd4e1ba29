//! Containers end to end: each test looks from inside, by a shell in the container, and from outside at what is left.
//!
//! All run in one private network and mount namespace. They need root and a static busybox; where one of these is missing
//! they are ignored, with the reason in their name.

use isobench_runtime::cgroup::{Cgroups, Limits};
use isobench_runtime::launch::{capture_output, launch};
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, Configuration, Firewall};
use isobench_runtime::{
    ContainerSandbox, Error, Launched, Namespaces, NetworkMode, Plan, Program, Root, SandboxNetwork, Specification,
    Step,
};
use isobench_workload::protocol::PORT;
use isobench_workload::{Exit, Output, OutputError, Sandbox, Stage, Workload};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::CloneFlags;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

const BUSYBOX: &str = "/bin/busybox";
const DEADLINE: Duration = Duration::from_secs(20);

/// Set where this program was started again as an ordinary user: what to run in a container.
const AS_USER: &str = "ISOBENCH_TEST_AS_USER";

fn main() -> ExitCode {
    if let Ok(script) = std::env::var(AS_USER) {
        return as_user(&script);
    }
    let mut arguments = Arguments::from_args();
    // One at a time: the leak checks look at the whole machine.
    arguments.test_threads = Some(1);
    let missing = missing();
    if missing.is_none() {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(flags).expect("root can unshare");
        let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).expect("root can make mounts private");
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        let name = missing.as_ref().map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, test).with_ignored_flag(missing.is_some())
    };
    let agent_trial = |name: &str, test: fn() -> Result<(), Failed>| match (&missing, agent()) {
        (None, None) => {
            let name = format!("{name} (needs isobench-agent: cargo build -p isobench-workload)");
            Trial::test(name, test).with_ignored_flag(true)
        }
        _ => trial(name, test),
    };
    let tests = vec![
        trial("exit_codes_and_signals_pass_through", exit_codes_and_signals_pass_through),
        trial("it_is_process_1_of_a_host_of_its_own", it_is_process_1_of_a_host_of_its_own),
        trial("its_namespaces_are_its_own", its_namespaces_are_its_own),
        trial("its_capabilities_are_the_standard_ones", its_capabilities_are_the_standard_ones),
        trial("refused_system_calls_fail", refused_system_calls_fail),
        trial("masked_paths_are_empty_and_read_only_ones_stay_so", masked_paths_are_empty_and_read_only_ones_stay_so),
        trial("no_descriptor_of_the_caller_gets_in", no_descriptor_of_the_caller_gets_in),
        trial("nothing_of_the_old_root_is_left", nothing_of_the_old_root_is_left),
        trial("none_mode_has_nothing_but_lo", none_mode_has_nothing_but_lo),
        trial("host_and_container_mode_share_one_namespace", host_and_container_mode_share_one_namespace),
        trial("limits_hold", limits_hold),
        trial("the_hosts_tree_can_be_the_root", the_hosts_tree_can_be_the_root),
        trial("a_link_in_an_image_leads_nowhere", a_link_in_an_image_leads_nowhere),
        trial("a_failed_step_is_named_and_leaves_nothing", a_failed_step_is_named_and_leaves_nothing),
        trial("an_ordinary_user_can_launch", an_ordinary_user_can_launch),
        trial("bundles_run_by_the_oci_command_line", bundles_run_by_the_oci_command_line),
        trial("a_bundles_kernel_parameters_are_its_own", a_bundles_kernel_parameters_are_its_own),
        trial("bundles_live_by_create_start_kill_delete", bundles_live_by_create_start_kill_delete),
        trial("a_create_that_fails_leaves_nothing", a_create_that_fails_leaves_nothing),
        trial("a_record_whose_maker_was_killed_is_deleted", a_record_whose_maker_was_killed_is_deleted),
        agent_trial("too_little_memory_is_one_sentence", too_little_memory_is_one_sentence),
        agent_trial("every_network_mode_serves_and_goes", every_network_mode_serves_and_goes),
        trial("fifty_launches_leave_nothing", fifty_launches_leave_nothing),
    ];
    let conclusion = libtest_mimic::run(&arguments, tests);
    // Our parent directory goes too, unless somebody else has a cgroup in it.
    for path in Cgroups::discover().map(|cgroups| cgroups.paths("x")).unwrap_or_default() {
        let _ = path.parent().map(fs::remove_dir);
    }
    conclusion.exit_code()
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    (!Path::new(BUSYBOX).exists()).then(|| format!("needs {BUSYBOX}: apt-get install busybox-static"))
}

fn busybox() -> Program {
    Program::Descriptor(Arc::new(OwnedFd::from(File::open(BUSYBOX).expect("busybox can be opened"))))
}

/// A container that runs a shell script.
fn shell(script: &str) -> Specification {
    Specification::container(busybox(), ["busybox", "sh", "-c", script].map(String::from).to_vec())
}

fn begin(mut specification: Specification) -> Result<(Launched, Output), Failed> {
    let output = capture_output(&mut specification)?;
    Ok((Plan::validate(specification).and_then(launch).map_err(in_words)?, output))
}

fn in_words(error: Error) -> Failed {
    format!("{error}: {:?}", std::error::Error::source(&error)).into()
}

fn read_all(output: &mut Output) -> Result<String, Failed> {
    let mut text = String::new();
    loop {
        match output.line(DEADLINE) {
            Ok(line) => text += &(line + "\n"),
            Err(OutputError::Ended(rest)) => return Ok(text + &rest),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs a container to its end: what it wrote and how it ended.
fn finish(specification: Specification) -> Result<(String, Exit), Failed> {
    let (mut container, mut output) = begin(specification)?;
    let text = read_all(&mut output)?;
    Ok((text, container.process.wait(DEADLINE)?))
}

fn inside(script: &str) -> Result<String, Failed> {
    Ok(finish(shell(script))?.0)
}

fn check(holds: bool, what: impl std::fmt::Display) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.to_string().into()) }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), Failed> {
    check(got == expected, format_args!("got {got:?}, expected {expected:?}"))
}

fn exit_codes_and_signals_pass_through() -> Result<(), Failed> {
    same(finish(shell("exit 7"))?.1, Exit::Status(7))?;
    let (mut container, _output) = begin(shell("sleep 100"))?;
    container.process.signal(rustix::process::Signal::KILL)?;
    same(container.process.wait(DEADLINE)?, Exit::Signal(9))
}

fn it_is_process_1_of_a_host_of_its_own() -> Result<(), Failed> {
    let mut specification = shell("echo $$ $(hostname) $(id -u) $(pwd)");
    specification.host_name = Some("lab".into());
    same(finish(specification)?.0.as_str(), "1 lab 0 /\n")?;
    // Host processes are out of sight: this shell is all. A pipe's other programs may come too late to be counted.
    same(inside("set -- /proc/[0-9]*; echo $#")?.trim(), "1")
}

const NAMESPACES: [&str; 6] = ["mnt", "pid", "ipc", "uts", "net", "cgroup"];

fn its_namespaces_are_its_own() -> Result<(), Failed> {
    for name in NAMESPACES {
        let ours = fs::read_link(format!("/proc/self/ns/{name}"))?;
        let its = inside(&format!("readlink /proc/self/ns/{name}"))?;
        check(its.starts_with(name) && Path::new(its.trim()) != ours, format_args!("{name}: {its} is {ours:?}"))?;
    }
    Ok(())
}

fn its_capabilities_are_the_standard_ones() -> Result<(), Failed> {
    let status = inside("grep ^Cap /proc/self/status")?;
    let expected = [("Inh", 0), ("Prm", 0xa004_25fb), ("Eff", 0xa004_25fb), ("Bnd", 0xa004_25fb), ("Amb", 0_u64)];
    let expected: String = expected.iter().map(|(name, set)| format!("Cap{name}:\t{set:016x}\n")).collect();
    same(status, expected)?;
    // So that no node of the host's disk can be made.
    let said = inside("mknod /dev/disk b 8 0 2>&1")?;
    check(said.contains("not permitted"), said)
}

fn refused_system_calls_fail() -> Result<(), Failed> {
    same(inside("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status")?.as_str(), "NoNewPrivs:\t1\nSeccomp:\t2\n")?;
    for (script, refusal) in [
        ("unshare -U true 2>&1", "Operation not permitted"),
        ("mount -t tmpfs none /tmp 2>&1; mkdir /tmp; mount -t tmpfs none /tmp 2>&1", "ermi"),
        ("hostname other 2>&1", "ermi"),
        ("umount /proc/sys 2>&1", "ermi"),
        ("swapoff -a 2>&1; swapon /dev/zero 2>&1", "ermi"),
    ] {
        let said = inside(script)?;
        check(said.contains(refusal), format_args!("{script}: {said}"))?;
    }
    // The control: without the filter (and with the capability) the same call succeeds.
    let mut open = shell("mkdir /tmp; mount -t tmpfs none /tmp && echo mounted");
    (open.seccomp, open.capabilities) = (None, None);
    same(finish(open)?.0.as_str(), "mounted\n")
}

fn masked_paths_are_empty_and_read_only_ones_stay_so() -> Result<(), Failed> {
    for path in ["/proc/interrupts", "/proc/keys", "/proc/timer_list"] {
        if Path::new(path).exists() {
            same(inside(&format!("wc -c < {path}"))?.trim(), "0")?;
        }
    }
    same(inside("ls /sys/firmware | wc -l")?.trim(), "0")?;
    check(fs::read_dir("/sys/firmware")?.count() > 0, "the control: the host's /sys/firmware is empty too")?;
    for path in ["/proc/sys/kernel/panic", "/proc/sys/vm/swappiness", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let write = format!("(echo 0 > {path}) 2>&1");
        let said = inside(&format!("exec 2>&1; mount -o remount,rw /proc/sys; {write}; umount /proc/sys; {write}"))?;
        check(said.matches("ead-only").count() == 2, format_args!("{path}: {said}"))?;
    }
    Ok(())
}

fn no_descriptor_of_the_caller_gets_in() -> Result<(), Failed> {
    // Leaked on purpose: without close-on-exec.
    let mut leaked = Vec::new();
    for _ in 0..40 {
        let file = File::open("/etc")?;
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        leaked.push(file);
    }
    check(leaked.iter().any(|file| file.as_raw_fd() > 20), "the control: nothing was leaked")?;
    for file in &leaked {
        for below in ["", "/made/here"] {
            let mut specification = shell("true");
            specification.working_directory = format!("/proc/self/fd/{}{below}", file.as_raw_fd());
            let failed =
                begin(specification).map(drop).err().ok_or("the working directory led out of the container")?;
            check(failed.message().is_some_and(|said| said.contains("working directory")), "another error")?;
        }
    }
    check(!Path::new("/etc/made").exists(), "a directory was made outside")?;
    // Process 1 is the shell, and ls runs as another process; a pipe between them would be one more descriptor.
    same(inside("ls /proc/1/fd; true")?.as_str(), "0\n1\n2\n")
}

fn nothing_of_the_old_root_is_left() -> Result<(), Failed> {
    let device = |mounts: &str| -> Option<String> {
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
        root.split(' ').nth(2).map(String::from)
    };
    let host = fs::read_to_string("/proc/self/mountinfo")?;
    let host_root = device(&host).ok_or("the host has no root")?;
    let its = inside("cat /proc/self/mountinfo")?;
    check(its.lines().all(|line| line.split(' ').nth(2) != Some(&host_root)), format_args!("{host_root} is in {its}"))?;
    check(!its.contains("shared:") && !its.contains("master:"), format_args!("mounts propagate: {its}"))?;
    same(inside("ls / /..")?.as_str(), "/:\ndev\nproc\nsys\n\n/..:\ndev\nproc\nsys\n")?;
    let nodes = "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let expected: Vec<&str> = nodes.split(' ').filter(|name| *name != "console").collect();
    same(inside("ls /dev")?.split_whitespace().collect::<Vec<_>>(), expected)
}

fn none_mode_has_nothing_but_lo() -> Result<(), Failed> {
    let said = inside(
        "ls /sys/class/net; cat /sys/class/net/lo/flags; wc -l < /proc/net/route; ping -c 1 -W 2 127.0.0.1 > /dev/null && echo reached",
    )?;
    let mut lines = said.lines();
    same(lines.next(), Some("lo"))?;
    // IFF_UP | IFF_LOOPBACK
    same(lines.next(), Some("0x9"))?;
    // The heading alone: no route.
    same(lines.next(), Some("1"))?;
    same(lines.next(), Some("reached"))
}

fn host_and_container_mode_share_one_namespace() -> Result<(), Failed> {
    let namespace = "readlink /proc/self/ns/net";
    let mut host = shell(namespace);
    host.network = NetworkMode::Host;
    same(finish(host)?.0.trim(), fs::read_link("/proc/self/ns/net")?.to_str().unwrap_or_default())?;

    let (named, mut output) = begin(shell(&format!("{namespace}; sleep 100")))?;
    let its = output.line(DEADLINE)?;
    let descriptor = OwnedFd::from(File::open(format!("/proc/{}/ns/net", named.process.pid()))?);
    let mut other = shell(&format!("{namespace}; readlink /proc/self/ns/mnt; ls /proc | grep -c '^[0-9]'"));
    other.network = NetworkMode::Container(Arc::new(descriptor));
    let said = finish(other)?.0;
    same(said.lines().next(), Some(its.as_str()))?;
    let mount = fs::read_link(format!("/proc/{}/ns/mnt", named.process.pid()))?;
    check(said.lines().nth(1) != mount.to_str(), "the mount namespace is shared as well")?;
    // Its own shell, ls and grep; not the other's processes.
    same(said.lines().nth(2), Some("3"))
}

fn limits_hold() -> Result<(), Failed> {
    let cgroups = Cgroups::discover().map_err(in_words)?;
    let limits = Limits { memory: Some(32 << 20), pids: Some(5), cpu: None };
    let name = format!("test-{}", std::process::id());
    let paths = cgroups.paths(&name);

    // Processes: the shell and four more are allowed.
    let cgroup = Arc::new(cgroups.create(&name, &limits).map_err(in_words)?);
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo done; wait";
    let mut specification = Specification { cgroup: Some(cgroup.clone()), ..shell(script) };
    specification.error = isobench_runtime::Stream::Descriptor(File::create("/dev/null")?.into());
    let (mut container, mut output) = begin(specification)?;
    // The shell gives up at the first refused fork.
    let ended = matches!(output.line(DEADLINE), Err(OutputError::Ended(_)));
    check(ended, "nine processes where five are allowed")?;
    container.process.signal(rustix::process::Signal::KILL)?;
    container.process.wait(DEADLINE)?;
    Arc::into_inner(cgroup).ok_or("the cgroup is still held")?.remove(DEADLINE).map_err(in_words)?;
    check(paths.iter().all(|path| !path.exists()), "a removed cgroup is still there")?;

    // Memory: a file in memory of twice the limit.
    let cgroup = Arc::new(cgroups.create(&name, &limits).map_err(in_words)?);
    let (mut container, mut output) = begin(Specification { cgroup: Some(cgroup.clone()), ..shell("echo up; cat") })?;
    let _ = output.line(DEADLINE)?;
    container.process.wait(DEADLINE)?;
    let memory = cgroup.statistics().memory_peak.or(cgroup.statistics().memory);
    check(memory.is_some_and(|bytes| bytes > 0), "no memory was accounted")?;
    let script = "exec dd if=/dev/zero of=/dev/shm/file bs=1M count=60";
    let specification = Specification { cgroup: Some(cgroup.clone()), ..shell(script) };
    let (text, exit) = finish(specification)?;
    check(exit == Exit::Signal(9), format_args!("60 MiB where 32 are allowed: {exit:?} {text}"))?;
    Arc::into_inner(cgroup).ok_or("the cgroup is still held")?.remove(DEADLINE).map_err(in_words)
}

fn the_hosts_tree_can_be_the_root() -> Result<(), Failed> {
    let script = "ls -d /proc/[0-9]* | wc -l; (echo x > /etc/isobench-test) 2>&1; echo x > /tmp/file && echo written";
    let arguments = ["sh", "-c", script].map(String::from).to_vec();
    let mut specification = Specification::container(Program::Path("sh".into()), arguments);
    specification.root = Root::Directory { path: "/".into(), recursive: true, read_only: true };
    specification.mounts = vec![
        isobench_runtime::root::Mount::file_system("proc", "/proc", rustix::mount::MountFlags::empty(), ""),
        isobench_runtime::root::Mount::file_system("tmpfs", "/tmp", rustix::mount::MountFlags::empty(), ""),
    ];
    let said = finish(specification)?.0;
    check(said.contains("ead-only") && said.ends_with("written\n"), &said)?;
    check(!Path::new("/etc/isobench-test").exists() && !Path::new("/tmp/file").exists(), "it wrote to the host")
}

fn a_link_in_an_image_leads_nowhere() -> Result<(), Failed> {
    let image = tempfile::tempdir()?;
    let canary = tempfile::tempdir()?;
    let link = |name: &str| std::os::unix::fs::symlink(canary.path(), image.path().join(name));
    // /dev as a link to a directory of the host: what is made there must not come to light outside.
    link("dev")?;
    let mut specification = shell("true");
    specification.root = Root::Directory { path: image.path().into(), recursive: false, read_only: false };
    let result = begin(specification).map(drop);
    check(result.is_err(), "a dangling /dev was accepted")?;
    same(fs::read_dir(canary.path())?.count(), 0)?;

    let image = tempfile::tempdir()?;
    fs::create_dir(image.path().join("elsewhere"))?;
    std::os::unix::fs::symlink("elsewhere", image.path().join("proc"))?;
    let mut specification = shell("true");
    specification.root = Root::Directory { path: image.path().into(), recursive: false, read_only: false };
    match begin(specification) {
        Err(failed) => check(failed.message().is_some_and(|said| said.contains("symbolic link")), "another error"),
        Ok(_) => Err("a /proc that is a link was accepted".into()),
    }
}

fn a_failed_step_is_named_and_leaves_nothing() -> Result<(), Failed> {
    let before = children()?;
    let specification = Specification::container(Program::Path("/no/such".into()), vec!["no".into()]);
    match Plan::validate(specification).and_then(launch) {
        Err(Error::Child { step: Step::Execute, object, source }) => {
            same((object.as_str(), source), ("/no/such", rustix::io::Errno::NOENT))?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    same(children()?, before)
}

fn an_ordinary_user_can_launch() -> Result<(), Failed> {
    let script = "id -u; cat /proc/self/uid_map; echo $$; echo x > /dev/null && echo wrote; grep ^Seccomp: /proc/self/status; ls /sys/class/net";
    let output = Command::new(std::env::current_exe()?).env(AS_USER, script).uid(65534).gid(65534).output()?;
    let (said, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let words: Vec<&str> = said.split_whitespace().collect();
    check(output.status.success(), format_args!("{said} {complaint}"))?;
    same(words, vec!["0", "0", "65534", "1", "1", "wrote", "Seccomp:", "2", "lo"])
}

/// Runs a script in a container as the user that this process has become.
fn as_user(script: &str) -> ExitCode {
    assert!(Namespaces::standard().user, "this is root");
    match finish(shell(script)) {
        Ok((said, Exit::Status(0))) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        other => {
            print!("{other:?}");
            ExitCode::FAILURE
        }
    }
}

const RUNTIME: &str = env!("CARGO_BIN_EXE_isobench-runtime");

/// A bundle with busybox whose process is a shell script.
fn bundle(script: &str) -> Result<tempfile::TempDir, Failed> {
    let bundle = tempfile::tempdir()?;
    let rootfs = bundle.path().join("rootfs");
    fs::create_dir_all(rootfs.join("bin"))?;
    fs::copy(BUSYBOX, rootfs.join("bin/busybox"))?;
    let spec = Command::new(RUNTIME).arg("spec").output()?;
    let mut spec: serde_json::Value = serde_json::from_slice(&spec.stdout)?;
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", script]);
    spec["hostname"] = "bundled".into();
    spec["linux"]["resources"]["pids"]["limit"] = 20.into();
    spec["linux"]["seccomp"] = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22 }]
    });
    fs::write(bundle.path().join("config.json"), spec.to_string())?;
    Ok(bundle)
}

fn runtime(arguments: &[&str]) -> Result<(String, String, Option<i32>), Failed> {
    let output = Command::new(RUNTIME).args(arguments).output()?;
    Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?, output.status.code()))
}

fn bundles_run_by_the_oci_command_line() -> Result<(), Failed> {
    let script = "hostname; echo $$; (hostname other) 2>&1; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; exit 9";
    let bundle = bundle(script)?;
    let path = bundle.path().to_str().ok_or("no UTF-8")?;
    let id = format!("run-{}", std::process::id());
    let (said, complaint, code) = runtime(&["run", "--bundle", path, &id])?;
    check(code == Some(9), format_args!("{code:?} {said} {complaint}"))?;
    check(said.starts_with("bundled\n1\n") && said.contains("Invalid argument"), &said)?;
    check(said.ends_with("NoNewPrivs:\t1\nSeccomp:\t2\n"), &said)?;
    check(!Path::new("/run/isobench").join(format!("{id}.json")).exists(), "its state is still there")?;
    let (_, complaint, code) = runtime(&["state", &id])?;
    check(code == Some(125) && complaint.contains("does not exist"), complaint)?;
    let (_, complaint, code) = runtime(&["run", "--bundle", "/no/such", &id])?;
    check(code == Some(125) && complaint.lines().count() == 1 && complaint.contains("config.json"), complaint)
}

fn a_bundles_kernel_parameters_are_its_own() -> Result<(), Failed> {
    let bundle = bundle("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")?;
    let (path, file) = (bundle.path().to_str().ok_or("no UTF-8")?, bundle.path().join("config.json"));
    let id = format!("parameters-{}", std::process::id());
    let set = |parameters: serde_json::Value| -> Result<(), Failed> {
        let mut configuration: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
        configuration["linux"]["sysctl"] = parameters;
        Ok(fs::write(&file, configuration.to_string())?)
    };
    set(serde_json::json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4321" }))?;
    let (said, complaint, code) = runtime(&["run", "--bundle", path, &id])?;
    check(code == Some(0) && said == "1\n4321\n", format_args!("{code:?} {said} {complaint}"))?;
    set(serde_json::json!({ "vm.swappiness": "1" }))?;
    let (_, complaint, code) = runtime(&["run", "--bundle", path, &id])?;
    let refused = complaint.lines().count() == 1 && complaint.contains("vm.swappiness");
    check(code == Some(125) && refused, format_args!("{code:?} {complaint}"))?;
    check(!Path::new("/run/isobench").join(format!("{id}.json")).exists(), "its state is still there")
}

fn bundles_live_by_create_start_kill_delete() -> Result<(), Failed> {
    let bundle = bundle("sleep 100")?;
    let path = bundle.path().to_str().ok_or("no UTF-8")?;
    let id = format!("life-{}", std::process::id());
    let state = || -> Result<String, Failed> {
        let (said, complaint, _) = runtime(&["state", &id])?;
        let state: serde_json::Value = serde_json::from_str(&said).map_err(|_| complaint)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    };
    // Its streams must not be pipes that this test waits for.
    let null = || std::process::Stdio::null();
    let mut create = Command::new(RUNTIME);
    create.args(["create", "--bundle", path, &id]).stdin(null()).stdout(null()).stderr(null());
    check(create.status()?.success(), "create")?;
    same(state()?.as_str(), "created")?;
    check(!create.status()?.success(), "the same name was taken twice")?;
    same(runtime(&["start", &id])?.2, Some(0))?;
    same(state()?.as_str(), "running")?;
    check(runtime(&["start", &id])?.1.contains("already"), "it was started twice")?;
    check(runtime(&["delete", &id])?.1.contains("has not ended"), "a running container was deleted")?;
    same(runtime(&["kill", &id, "KILL"])?.2, Some(0))?;
    let mut rounds = 0..2000;
    while state()? != "stopped" && rounds.next().is_some() {
        std::thread::yield_now();
    }
    same(state()?.as_str(), "stopped")?;
    let (_, complaint, code) = runtime(&["delete", &id])?;
    check(code == Some(0), complaint)?;
    check(runtime(&["state", &id])?.1.contains("does not exist"), "it is still there")
}

fn a_create_that_fails_leaves_nothing() -> Result<(), Failed> {
    let bundle = bundle("true")?;
    let path = bundle.path().to_str().ok_or("no UTF-8")?;
    let id = format!("unnoted-{}", std::process::id());
    let groups = Cgroups::discover().map_err(in_words)?.paths(&id);
    let (_, complaint, code) = runtime(&["create", "--bundle", path, "--pid-file", "/no/such/pid", &id])?;
    check(code == Some(125) && complaint.contains("/no/such/pid"), complaint)?;
    check(!Path::new("/run/isobench").join(format!("{id}.json")).exists(), "its state is still there")?;
    check(groups.iter().all(|path| !path.exists()), "its control group is still there")?;
    // Its name is free.
    same(runtime(&["run", "--bundle", path, &id])?.2, Some(0))
}

fn a_record_whose_maker_was_killed_is_deleted() -> Result<(), Failed> {
    let bundle = bundle("true")?;
    let path = bundle.path().to_str().ok_or("no UTF-8")?;
    let id = format!("abandoned-{}", std::process::id());
    // What a command leaves that is killed between taking the name and writing its process down.
    let record = std::path::Path::new("/run/isobench").join(format!("{id}.json"));
    std::fs::create_dir_all("/run/isobench")?;
    let held = File::create(&record)?;
    rustix::fs::fcntl_lock(&held, rustix::fs::FlockOperation::LockExclusive)?;
    check(runtime(&["delete", &id])?.1.contains("is being made"), "a container that is being made was deleted")?;
    drop(held);
    check(runtime(&["run", "--bundle", path, &id])?.1.contains("exists already"), "the name was given twice")?;
    let (_, complaint, _) = runtime(&["state", &id])?;
    check(complaint.contains("was killed; delete it"), complaint)?;
    let (_, complaint, code) = runtime(&["delete", &id])?;
    check(code == Some(0) && !record.exists(), complaint)?;
    same(runtime(&["run", "--bundle", path, &id])?.2, Some(0))
}

fn too_little_memory_is_one_sentence() -> Result<(), Failed> {
    let cgroups = Cgroups::discover().map_err(in_words)?;
    let before = footprint()?;
    let refused = cgroups.create("little", &Limits { memory: Some(1 << 20), ..Limits::default() });
    let told = refused.err().ok_or("it was not refused")?.to_string();
    check(told.contains("1048576") && told.contains("6 MiB"), told)?;
    // With the least that is allowed a container starts and ends.
    let limits = Limits { memory: Some(isobench_runtime::cgroup::LEAST_MEMORY), ..Limits::default() };
    let program = Arc::new(OwnedFd::from(agent().ok_or("no agent")?));
    let mut sandbox = ContainerSandbox::new("least", program, SandboxNetwork::None).limited(cgroups, limits);
    let mut instance = sandbox.launch(&Workload::Exit)?;
    same(instance.wait(DEADLINE)?.code(), 0)?;
    instance.destroy().map_err(|errors| format!("{errors:?}"))?;
    same(footprint()?, before)
}

/// The agent, which cargo puts two directories above this test.
fn agent() -> Option<File> {
    File::open(std::env::current_exe().ok()?.parent()?.parent()?.join("isobench-agent")).ok()
}

fn every_network_mode_serves_and_goes() -> Result<(), Failed> {
    // This process's network namespace is its own; its lo is still down.
    Configuration::loopback().apply().map_err(|(step, errno)| format!("{}: {errno}", step.name()))?;
    let program = Arc::new(OwnedFd::from(agent().ok_or("no agent")?));
    let before = footprint()?;
    let firewall = Firewall::create("isobench_test")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let cgroups = Cgroups::discover().map_err(in_words)?;
    let sandbox = |name: &str, network| {
        ContainerSandbox::new(name, program.clone(), network).limited(cgroups.clone(), Limits::default())
    };
    let serve = Workload::Serve { port: PORT };

    let mut host = sandbox("container-host", SandboxNetwork::Host).launch(&serve)?;
    host.await_ready(DEADLINE)?;
    same(host.server(), Some(([127, 0, 0, 1], PORT).into()))?;

    let bridge = SandboxNetwork::Bridge { network: network.clone(), publish: Some(8080) };
    let mut named = sandbox("container-bridge", bridge).launch(&serve)?;
    named.await_ready(DEADLINE)?;
    check(named.server().is_some_and(|server| server.to_string().starts_with("172.17.0.")), "another address")?;
    for stage in [Stage::Started, Stage::Created, Stage::AgentEntered, Stage::Listening, Stage::Answered] {
        check(named.stages().at(stage).is_some(), format_args!("no {stage:?}"))?;
    }
    check(std::net::TcpStream::connect((Ipv4Addr::new(172, 17, 0, 1), 8080)).is_ok(), "the published port is shut")?;

    let namespace = Arc::new(OwnedFd::from(File::open(format!("/proc/{}/ns/net", named.process().pid()))?));
    let address = named.server().and_then(|server| if let IpAddr::V4(v4) = server.ip() { Some(v4) } else { None });
    let joined = SandboxNetwork::Container { namespace, address };
    let mut joined = sandbox("container-container", joined).launch(&Workload::Serve { port: 7001 })?;
    joined.await_ready(DEADLINE)?;
    same(joined.server().map(|server| server.ip()), named.server().map(|server| server.ip()))?;

    let mut none = sandbox("container-none", SandboxNetwork::None).launch(&serve)?;
    none.await_ready(DEADLINE)?;
    same(none.server(), None)?;

    for instance in [joined, none, named, host] {
        let stages = instance.destroy().map_err(|errors| format!("{errors:?}"))?;
        check(stages.at(Stage::Gone) >= stages.at(Stage::Ending), "gone before it ended")?;
    }
    same(network.pool().leased()?, 0)?;
    drop((network, firewall));
    same(footprint()?, before)
}

/// What a leak would show in: links, mounts, cgroups of ours, children.
fn footprint() -> Result<(BTreeSet<String>, String, BTreeSet<String>, String), Failed> {
    let links = fs::read_to_string("/proc/self/net/dev")?;
    let links = links.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    let cgroups = Cgroups::discover().map_err(in_words)?.paths("x").into_iter().filter_map(|path| {
        let entries = fs::read_dir(path.parent()?).ok()?;
        Some(entries.flatten().filter(|entry| entry.path().is_dir()).map(|entry| entry.path().display().to_string()))
    });
    Ok((links, fs::read_to_string("/proc/self/mountinfo")?, cgroups.flatten().collect(), children()?))
}

fn children() -> Result<String, Failed> {
    let mut all = String::new();
    for task in fs::read_dir("/proc/self/task")? {
        all += &fs::read_to_string(task?.path().join("children"))?;
    }
    Ok(all)
}

fn fifty_launches_leave_nothing() -> Result<(), Failed> {
    let cgroups = Cgroups::discover().map_err(in_words)?;
    let descriptors = || -> Result<usize, Failed> { Ok(fs::read_dir("/proc/self/fd")?.count()) };
    let (before, open) = (footprint()?, descriptors()?);
    for number in 0..50 {
        let name = format!("leak-{}-{number}", std::process::id());
        let cgroup = Arc::new(cgroups.create(&name, &Limits::default()).map_err(in_words)?);
        let mut specification = Specification { cgroup: Some(cgroup.clone()), ..shell("exit 3") };
        if number % 2 == 0 {
            specification.network = NetworkMode::Host;
        }
        same(finish(specification)?.1, Exit::Status(3))?;
        Arc::into_inner(cgroup).ok_or("the cgroup is still held")?.remove(DEADLINE).map_err(in_words)?;
    }
    same(descriptors()?, open)?;
    same(footprint()?, before)
}
