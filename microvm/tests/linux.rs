//! Linux guests from end to end: real kernels, real packets. Where KVM can't run Linux, as on most machines that are virtual
//! themselves, `scripts/rig test` runs this program inside an emulated one; what can't run is ignored, with the reason as its
//! kind.

mod clones;
mod inside;
mod jailed;
mod machine;
mod served;
mod support;

use isobench_microvm::control;
use isobench_microvm::devices::virtio::tap;
use isobench_microvm::judge::judge;
use isobench_microvm::linux::kernel::{Kernel, KernelError};
use isobench_microvm::linux::sandbox::{LinuxSandbox, MEMORY};
use isobench_microvm::linux::{Frames, LinuxError, boot_parameters};
use isobench_microvm::memory;
use isobench_microvm::sandbox::{AttachError, Attachment};
use isobench_workload::protocol::{Answer, Operation, PORT, Request};
use isobench_workload::{
    Drive, DriveOutcome, Instance, LaunchError, Probe, Sandbox, Stage, Traffic, Workload, announcement, server,
};
use jailed::{DESCRIPTORS, Monitor, ends_with};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};
use support::{check, ip, no_network};

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
const VHOST: &str = "/dev/vhost-net";
const HOST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 5);
/// In the rig everything is emulated twice.
const PATIENCE: Duration = Duration::from_secs(120);

/// Has this program launch a monitor that is tied to it.
const LAUNCH: &str = "launch-tied";

type Test = fn() -> Result<(), Failed>;
type GuestTest = fn(&Path) -> Result<(), Failed>;

fn main() -> ExitCode {
    if inside::is_guest() {
        inside::run();
    }
    if std::env::args().nth(1).is_some_and(|word| word == LAUNCH) {
        return launch_tied().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let everywhere: [(&str, Test); 9] = [
        ("a_missing_kernel_is_one_sentence", a_missing_kernel_is_one_sentence),
        ("a_foreign_kernel_is_one_sentence", a_foreign_kernel_is_one_sentence),
        ("a_truncated_kernel_is_told", a_truncated_kernel_is_told),
        ("no_kernel_file_brings_the_loader_down", no_kernel_file_brings_the_loader_down),
        ("an_agent_that_cannot_be_read_is_one_sentence", an_agent_that_cannot_be_read_is_one_sentence),
        ("an_initramfs_that_does_not_fit_is_told", an_initramfs_that_does_not_fit_is_told),
        ("a_program_of_ones_own_is_refused", a_program_of_ones_own_is_refused),
        ("a_disk_that_cannot_be_used_is_one_sentence", machine::a_disk_that_cannot_be_used_is_one_sentence),
        (
            "a_number_of_processors_that_is_none_is_one_sentence",
            machine::a_number_of_processors_that_is_none_is_one_sentence,
        ),
    ];
    let both: [(&str, GuestTest); 2] = [
        ("exits_with_status_0_and_every_stage", exits_with_status_0_and_every_stage),
        ("serves_confined_and_leaves_nothing", serves_confined_and_leaves_nothing),
    ];
    let guests: [(&str, GuestTest); 9] = [
        ("drives_traffic_to_a_process_on_the_bridge", drives_traffic_to_a_process_on_the_bridge),
        ("sees_its_own_network", sees_its_own_network),
        ("ends_at_its_deadline", ends_at_its_deadline),
        ("a_failing_agent_is_told", a_failing_agent_is_told),
        ("a_kernel_panic_is_told", a_kernel_panic_is_told),
        ("too_little_memory_is_one_sentence", too_little_memory_is_one_sentence),
        ("a_balloon_gives_memory_back", machine::a_balloon_gives_memory_back),
        ("unused_memory_is_reported", machine::unused_memory_is_reported),
        ("memory_is_taken_at_once_where_asked_for", machine::memory_is_taken_at_once_where_asked_for),
    ];
    // With another kernel the whole machine is seen at once.
    let ours_alone: [(&str, GuestTest); 8] = [
        ("a_clone_reads_the_disk_that_its_guest_had", clones::a_clone_reads_the_disk_that_its_guest_had),
        ("a_guest_is_started_by_its_api_socket", machine::a_guest_is_started_by_its_api_socket),
        ("clones_serve_as_whom_they_are_told", clones::clones_serve_as_whom_they_are_told),
        ("v20_a_hostile_snapshot_is_one_sentence", clones::v20_a_hostile_snapshot_is_one_sentence),
        ("disks_are_read_written_and_flushed", machine::disks_are_read_written_and_flushed),
        ("a_disk_that_shrinks_gives_errors", machine::a_disk_that_shrinks_gives_errors),
        ("random_numbers_come_from_the_host", machine::random_numbers_come_from_the_host),
        ("a_kernel_for_one_processor_is_one_sentence", machine::a_kernel_for_one_processor_is_one_sentence),
    ];
    let several: [(&str, GuestTest); 5] = [
        ("clones_have_both_processors", clones::clones_have_both_processors),
        (
            "more_processors_than_there_can_be_are_one_sentence",
            machine::more_processors_than_there_can_be_are_one_sentence,
        ),
        ("sees_both_processors", machine::sees_both_processors),
        ("ends_where_the_second_processor_panics", machine::ends_where_the_second_processor_panics),
        ("ends_at_its_deadline_while_all_processors_spin", machine::ends_at_its_deadline_while_all_processors_spin),
    ];
    let whole: [(&str, GuestTest); 2] = [
        ("has_a_whole_machine", machine::has_a_whole_machine),
        ("a_clone_of_a_distributions_kernel_serves", clones::a_clone_of_a_distributions_kernel_serves),
    ];
    let mut trials: Vec<Trial> = everywhere.map(|(name, test)| Trial::test(name, test)).into();
    let root = nix::unistd::geteuid().is_root();
    let no_kvm = Trial::test("no_kvm_is_one_sentence", no_kvm_is_one_sentence).with_ignored_flag(!root);
    trials.push(if root { no_kvm } else { no_kvm.with_kind("needs root to hide /dev") });
    let tied = (!judge().runs_unikernel()).then(|| judge().to_string()).or_else(no_network);
    let trial = Trial::test("a_tied_one_ends_with_its_launcher", a_tied_one_ends_with_its_launcher);
    trials.push(trial.with_ignored_flag(tied.is_some()).with_kind(tied.unwrap_or_default()));
    let machine = obstacle();
    // Our kernel boots four times faster, so where it has been built only what depends on the kernel is tested with both.
    let kernel = |file: &str| cache().join(file);
    let (ours, ours_smp, cloud) = (kernel("microvm/vmlinux"), kernel("microvm-smp/vmlinux"), kernel("cloud/vmlinuz"));
    let with_cloud = if ours.exists() { [&both[..], &whole].concat() } else { [&both[..], &guests, &whole].concat() };
    for (kernel, file, remedy, tests) in [
        ("microvm", ours.clone(), "build", [&both[..], &guests, &ours_alone].concat()),
        ("microvm-smp", ours_smp, "build --smp", several.to_vec()),
        ("cloud", cloud.clone(), "fetch", with_cloud),
    ] {
        let missing = (!file.exists()).then(|| format!("needs scripts/guest-kernel {remedy}"));
        let obstacle = machine.clone().or(missing);
        for (name, test) in tests {
            let file = file.clone();
            let trial = Trial::test(format!("{kernel}::{name}"), move || test(&file));
            trials.push(trial.with_ignored_flag(obstacle.is_some()).with_kind(obstacle.clone().unwrap_or_default()));
        }
    }
    let missing = (!Path::new(VHOST).exists()).then(|| format!("needs {VHOST}: modprobe vhost_net"));
    let file = if ours.exists() { ours } else { cloud };
    let built = (!file.exists()).then(|| "needs scripts/guest-kernel build".to_owned());
    let obstacle = machine.or(missing).or(built);
    let trial = Trial::test("the_kernel_moves_its_frames", move || the_kernel_moves_its_frames(&file));
    trials.push(trial.with_ignored_flag(obstacle.is_some()).with_kind(obstacle.unwrap_or_default()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Why Linux guests can't be tested here, if they can't.
fn obstacle() -> Option<String> {
    if !judge().runs_linux() {
        return Some("KVM runs no Linux here: scripts/rig test".into());
    }
    no_network().or_else(|| (!agent().exists()).then(|| "needs the agent: cargo build -p isobench-workload".into()))
}

/// Where `scripts/guest-kernel` puts kernels.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("isobench/kernels")
}

/// The agent, which cargo puts beside the monitor.
fn agent() -> PathBuf {
    Path::new(VMM).with_file_name("isobench-agent")
}

/// A tap on a bridge whose own address is 172.17.0.1.
fn attach() -> Result<Attachment, AttachError> {
    let tap = tap::open("guest0")?;
    ip("link set guest0 master bridge0")?;
    ip("link set guest0 up")?;
    let mac = [2, 0, 0, 0, 0, 5];
    Ok(Attachment { tap, mac, address: GUEST, prefix: 16, gateway: Some(HOST), resources: Vec::new() })
}

/// A guest on a bridge in a network namespace of this test's own.
fn launched(kernel: &Path, workload: &Workload) -> Result<Instance, Failed> {
    launched_with(Frames::Monitor, kernel, workload)
}

fn launched_with(frames: Frames, kernel: &Path, workload: &Workload) -> Result<Instance, Failed> {
    make_bridge()?;
    let sandbox = LinuxSandbox::new(VMM.into(), kernel.into(), agent(), MEMORY, attach)?;
    Ok(sandbox.with_frames(frames).launch(workload)?)
}

fn make_bridge() -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    ip("link add bridge0 type bridge")?;
    ip("address add 172.17.0.1/16 dev bridge0")?;
    Ok(ip("link set bridge0 up")?)
}

/// What launches by the library, in a process of its own: says the number of its monitor and that its guest runs, and waits to be
/// killed. The guest is no Linux but a loop, which runs on any KVM.
fn launch_tied() -> Result<(), Failed> {
    make_bridge()?;
    let (kernel, directory) = (tempfile::NamedTempFile::new()?, tempfile::tempdir()?);
    std::fs::write(kernel.path(), elf())?;
    let path: PathBuf = kernel.path().into();
    let socket = directory.path().join("control");
    let sandbox = LinuxSandbox::new(VMM.into(), path.clone(), path, MEMORY, attach)?;
    let instance = sandbox.with_control(socket.clone()).tied().launch(&Workload::Idle)?;
    let began = Instant::now();
    while control::describe(&socket).is_err() {
        check(began.elapsed() < PATIENCE, "it does not run")?;
        std::thread::sleep(Duration::from_millis(5));
    }
    // Whoever is killed removes no file.
    drop((kernel, directory));
    println!("pid {}\n{}", instance.process().pid(), announcement::READY);
    std::thread::park();
    Ok(())
}

fn a_tied_one_ends_with_its_launcher() -> Result<(), Failed> {
    ends_with(Command::new(std::env::current_exe()?).arg(LAUNCH))
}

fn destroyed(instance: Instance) -> Result<isobench_workload::Stages, Failed> {
    instance.destroy().map_err(|errors| format!("{errors:?}").into())
}

fn exits_with_status_0_and_every_stage(kernel: &Path) -> Result<(), Failed> {
    let mut instance = launched(kernel, &Workload::Exit)?;
    instance.await_ready(PATIENCE)?;
    let exit = instance.wait(PATIENCE)?;
    check(exit.code() == 0, format!("{exit:?}"))?;
    in_order(instance, &[Stage::AgentEntered, Stage::Announced, Stage::Ending])
}

/// Whether the stages came in this order, after those that every guest passes.
fn in_order(instance: Instance, last: &[Stage]) -> Result<(), Failed> {
    let stages = destroyed(instance)?;
    let first = [Stage::Started, Stage::VmmEntered, Stage::VmmReady, Stage::GuestEntered];
    let mut times = Vec::new();
    for stage in first.iter().chain(last) {
        times.push(stages.at(*stage).ok_or_else(|| format!("{} is missing", stage.name()))?);
    }
    check(times.is_sorted(), format!("out of order: {times:?}"))
}

fn serves_confined_and_leaves_nothing(kernel: &Path) -> Result<(), Failed> {
    let mut instance = launched(kernel, &Workload::Serve { port: PORT })?;
    instance.await_ready(PATIENCE)?;
    let monitor = Monitor::new(instance.process().pid());
    monitor.has_no_rights()?;
    monitor.is_not_dumpable()?;
    monitor.has_namespaces(&["mnt", "pid", "ipc", "uts", "net"])?;
    monitor.has_an_empty_root()?;
    monitor.holds_only(&DESCRIPTORS)?;
    moves_bytes_both_ways()?;
    let links = || std::fs::read_to_string("/proc/thread-self/net/dev");
    check(links()?.contains("guest0"), "there is no tap to begin with")?;
    let pid = instance.process().pid();
    in_order(instance, &[Stage::AgentEntered, Stage::Listening, Stage::Announced, Stage::Answered, Stage::Ending])?;
    check(!links()?.contains("guest0"), "the tap is left")?;
    check(!PathBuf::from(format!("/proc/{pid}")).exists(), "the process is left")
}

/// What the kernel moves arrives both ways, as what the monitor moves does, and the monitor is no less confined.
fn the_kernel_moves_its_frames(kernel: &Path) -> Result<(), Failed> {
    let mut instance = launched_with(Frames::Kernel, kernel, &Workload::Serve { port: PORT })?;
    instance.await_ready(PATIENCE)?;
    let pid = instance.process().pid();
    let monitor = Monitor::new(pid);
    monitor.has_no_rights()?;
    monitor.holds_only(&[&DESCRIPTORS[..], &[VHOST]].concat())?;
    let worker = format!("vhost-{pid}");
    check(is_there(&worker)?, format!("there is no worker {worker}"))?;
    moves_bytes_both_ways()?;
    destroyed(instance)?;
    check(!is_there(&worker)?, format!("{worker} is left"))?;
    drives_traffic(Frames::Kernel, kernel)
}

/// Whether there is a thread of this name, the kernel's own (up to Linux 6.3) or one of a process.
fn is_there(name: &str) -> Result<bool, Failed> {
    let named = |path: PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim_end() == name);
    for process in std::fs::read_dir("/proc")? {
        // A process that ends meanwhile has no threads.
        let Ok(threads) = std::fs::read_dir(process?.path().join("task")) else { continue };
        if threads.flatten().any(|thread| named(thread.path())) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn moves_bytes_both_ways() -> Result<(), Failed> {
    for length in [1, 1460, 65_536, 2_000_000] {
        source(length)?;
        sink(length)?;
        echo(length)?;
    }
    Ok(())
}

fn asked(operation: Operation, length: u64) -> Result<TcpStream, Failed> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((GUEST, PORT)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&Request { operation, length }.encode())?;
    Ok(stream)
}

/// Bytes that repeat only after a long while, so that a lost or doubled piece shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn source(length: usize) -> Result<(), Failed> {
    let mut received = Vec::new();
    asked(Operation::Source, length as u64)?.read_to_end(&mut received)?;
    check(received.len() == length, format!("{} bytes of {length}", received.len()))
}

fn sink(length: usize) -> Result<(), Failed> {
    let mut stream = asked(Operation::Sink, 0)?;
    stream.write_all(&pattern(length))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut bytes = [0; Answer::SIZE];
    stream.read_exact(&mut bytes)?;
    let counted = Answer::decode(&bytes)?.value;
    check(counted == length as u64, format!("{counted} bytes counted of {length}"))
}

fn echo(length: usize) -> Result<(), Failed> {
    let bytes = pattern(length);
    let mut stream = asked(Operation::Echo, 0)?;
    let (mut writer, sent) = (stream.try_clone()?, bytes.clone());
    let writing =
        std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(std::net::Shutdown::Write)));
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    writing.join().map_err(|_| "the writer panicked")??;
    check(received == bytes, format!("other bytes came back ({} of {length})", received.len()))
}

fn drives_traffic_to_a_process_on_the_bridge(kernel: &Path) -> Result<(), Failed> {
    drives_traffic(Frames::Monitor, kernel)
}

fn drives_traffic(frames: Frames, kernel: &Path) -> Result<(), Failed> {
    let drive = Drive {
        server: SocketAddr::from((HOST, PORT)),
        traffic: Traffic::RoundTrips { bytes: 1460 },
        warm_up: 0,
        milliseconds: 200,
    };
    let mut instance = launched_with(frames, kernel, &Workload::Drive(drive))?;
    // In this test's namespace; it ends with the test program.
    let sockets = server::Sockets::bind(SocketAddr::from((HOST, PORT)))?;
    std::thread::spawn(move || sockets.serve());
    let outcome: DriveOutcome = serde_json::from_str(&instance.output().line(PATIENCE)?)?;
    check(outcome.error.is_none() && outcome.completed > 0, format!("{outcome:?}"))?;
    check(outcome.bytes == outcome.completed * 1460, format!("{outcome:?}"))?;
    let exit = instance.wait(PATIENCE)?;
    check(exit.code() == 0, format!("{exit:?}"))?;
    destroyed(instance).map(drop)
}

fn sees_its_own_network(kernel: &Path) -> Result<(), Failed> {
    let mut instance = launched(kernel, &Workload::Probe(Probe::default()))?;
    let finding = instance.output().line(PATIENCE)?;
    check(finding.contains("eth0") && finding.contains("172.17.0.5"), finding.clone())?;
    check(!finding.contains("bridge0"), finding)?;
    destroyed(instance).map(drop)
}

/// Runs the monitor without a network to its end.
fn ending(words: &[&str], code: i32, sentence: &str) -> Result<String, Failed> {
    let output = Command::new(VMM).arg("linux").args(words).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(code), format!("{} instead of {code}: {text}", output.status))?;
    check(text.contains(sentence), text.clone())?;
    Ok(text)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn ends_at_its_deadline(kernel: &Path) -> Result<(), Failed> {
    let agent = agent();
    let words = ["--kernel", text(kernel), "--agent", text(&agent), "--argument", "idle", "--deadline", "2"];
    let began = Instant::now();
    ending(&words, 124, "the guest was ended at its deadline")?;
    let taken = began.elapsed().as_secs_f64();
    check((2.0..30.0).contains(&taken), format!("ended after {taken} s"))
}

fn a_failing_agent_is_told(kernel: &Path) -> Result<(), Failed> {
    let agent = agent();
    let words = ["--kernel", text(kernel), "--agent", text(&agent), "--argument", "dance", "--deadline", "100"];
    ending(&words, 1, "isobench-agent: unknown workload `dance`").map(drop)
}

fn a_kernel_panic_is_told(kernel: &Path) -> Result<(), Failed> {
    // No program: the kernel finds nothing to run.
    let agent = tempfile::NamedTempFile::new()?;
    std::fs::write(agent.path(), "nothing to execute")?;
    let words = ["--kernel", text(kernel), "--agent", text(agent.path()), "--deadline", "100"];
    let told = ending(&words, 101, "the guest reset itself")?;
    check(told.contains("Kernel panic - not syncing"), told)
}

fn one_sentence(kernel: &Path, sentence: &str) -> Result<(), Failed> {
    let told = ending(&["--kernel", text(kernel), "--agent", VMM], 1, sentence)?;
    check(told.lines().count() == 1, told)
}

fn a_missing_kernel_is_one_sentence() -> Result<(), Failed> {
    let path = Path::new("/nonexistent/vmlinuz");
    one_sentence(path, "read the kernel /nonexistent/vmlinuz (`isobench vm kernel fetch` gets one): No such file")?;
    let sandbox = LinuxSandbox::new(VMM.into(), path.into(), agent(), MEMORY, attach);
    check(matches!(sandbox, Err(KernelError::Read { .. })), "a sandbox was made without a kernel")
}

fn a_foreign_kernel_is_one_sentence() -> Result<(), Failed> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "#!/bin/sh\n")?;
    one_sentence(file.path(), "is no x86-64 Linux kernel: it is neither an ELF file nor a bzImage")?;
    let mut elf = vec![0; 64];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    std::fs::write(file.path(), elf)?;
    one_sentence(file.path(), "is no x86-64 Linux kernel: it is for another processor")
}

/// The smallest file that passes for a bzImage: one setup sector beside the boot sector, and its system in 64 bytes.
fn bz_image() -> Vec<u8> {
    let mut bytes = vec![0; 1024 + 64];
    bytes[0x1f1] = 1;
    bytes[0x1f4] = 4;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    bytes[0x236] = 1;
    bytes[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    bytes
}

/// The smallest ELF executable: one segment of 16 bytes at 16 MiB, a loop without end.
fn elf() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
    bytes[24..32].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = 1;
    bytes[72] = 120;
    bytes[88..96].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    bytes[96] = 16;
    bytes[104] = 16;
    bytes.extend([0xeb, 0xfe].repeat(8));
    bytes
}

fn a_truncated_kernel_is_told() -> Result<(), Failed> {
    let memory = memory::create(32 << 20)?;
    let path = Path::new("kernel");
    Kernel::from_bytes(path, bz_image())?.load(&memory)?;
    let mut short = bz_image();
    short.truncate(1024 + 32);
    let error = Kernel::from_bytes(path, short).err().ok_or("a cut bzImage was taken")?;
    check(
        error.to_string().starts_with("the kernel kernel is truncated, it has 1056 bytes of 1088: "),
        error.to_string(),
    )?;
    Kernel::from_bytes(path, elf())?.load(&memory)?;
    for (length, wanted) in [(100, 120), (125, 136)] {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &elf()[..length])?;
        let sentence =
            format!("is truncated, it has {length} bytes of {wanted}: get it again (`isobench vm kernel fetch`)");
        one_sentence(file.path(), &sentence)?;
    }
    Ok(())
}

fn an_agent_that_cannot_be_read_is_one_sentence() -> Result<(), Failed> {
    let file = tempfile::NamedTempFile::new()?;
    let refused = |agent: &str, cause: &str| {
        let sentence = format!("read the agent {agent} (cargo build -p isobench-workload makes one): {cause}");
        let told = ending(&["--kernel", VMM, "--agent", agent], 1, &sentence)?;
        check(told.lines().count() == 1, told)
    };
    refused("/nonexistent/agent", "No such file")?;
    refused("/", "Is a directory")?;
    refused(text(file.path()), "it is empty")
}

fn too_little_memory_is_one_sentence(kernel: &Path) -> Result<(), Failed> {
    // Larger than what is left beside the kernel.
    let agent = tempfile::NamedTempFile::new()?;
    agent.as_file().set_len(100 << 20)?;
    let words = ["--kernel", text(kernel), "--agent", text(agent.path()), "--memory", "64M"];
    let told = ending(&words, 1, "give the guest more memory")?;
    check(told.lines().count() == 1, told)?;
    for (size, sentence) in [("16M", "at least 33554432"), ("65M", "a multiple of 2 MiB")] {
        let told = ending(&["--kernel", text(kernel), "--agent", VMM, "--memory", size], 1, sentence)?;
        check(told.lines().count() == 1, told)?;
    }
    Ok(())
}

/// Whether a machine without KVM is told what to do; in a mount namespace of its own, without devices.
fn no_kvm_is_one_sentence() -> Result<(), Failed> {
    let kernel = tempfile::NamedTempFile::new()?;
    std::fs::write(kernel.path(), elf())?;
    let null = std::fs::File::open("/dev/null")?;
    let attempt = move || -> Result<Output, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| told(&error))?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(|error| told(&error))?;
        mount(Some("none"), "/dev", Some("tmpfs"), MsFlags::empty(), nothing).map_err(|error| told(&error))?;
        let mut command = Command::new(VMM);
        command.arg("linux").arg("--kernel").arg(kernel.path()).args(["--agent", VMM]).stdin(null);
        command.output().map_err(|error| told(&error))
    };
    // A thread of its own: the others keep their devices.
    let output = std::thread::spawn(attempt).join().map_err(|_| "the thread panicked")??;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(1) && text.lines().count() == 1, format!("{}: {text}", output.status))?;
    check(text.starts_with("isobench-vmm: open /dev/kvm: this kernel has no KVM; load the module kvm_intel"), text)
}

/// Whatever is done to a kernel file, it is refused or loaded within guest memory; nothing else happens.
fn no_kernel_file_brings_the_loader_down() -> Result<(), Failed> {
    let memory = memory::create(32 << 20)?;
    let change = (0..1100_usize, any::<u8>());
    let changes = proptest::collection::vec(change, 0..8);
    let strategy = (any::<bool>(), changes, 0..1200_usize).prop_map(|(bz, changes, length)| {
        let mut bytes = if bz { bz_image() } else { elf() };
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        bytes.truncate(length.max(8));
        bytes
    });
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    runner.run(&strategy, |bytes| {
        if let Ok(kernel) = Kernel::from_bytes(Path::new("kernel"), bytes) {
            let release = kernel.release().unwrap_or("none");
            if release.contains('/') || release.starts_with('.') {
                return Err(TestCaseError::fail("a release that leads elsewhere"));
            }
            if let Ok(loaded) = kernel.load(&memory) {
                let written = boot_parameters::write(&memory, &loaded, &[0; 100], "quiet", 0);
                if written.is_ok() && loaded.end > 32 << 20 {
                    return Err(TestCaseError::fail("the initramfs lies over the kernel"));
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn an_initramfs_that_does_not_fit_is_told() -> Result<(), Failed> {
    let memory = memory::create(32 << 20)?;
    let loaded = Kernel::from_bytes(Path::new("kernel"), elf())?.load(&memory)?;
    let error = boot_parameters::write(&memory, &loaded, &vec![0; 17 << 20], "quiet", 0).err();
    let error = error.ok_or("an initramfs larger than what is left was taken")?;
    check(matches!(error, LinuxError::InitramfsTooLarge { .. }), error.to_string())?;
    check(error.to_string().ends_with("give the guest more memory"), error.to_string())?;
    let long = boot_parameters::write(&memory, &loaded, &[], &"x".repeat(3000), 0);
    check(matches!(long, Err(LinuxError::CommandLineTooLong { length: 3000 })), format!("{long:?}"))
}

fn a_program_of_ones_own_is_refused() -> Result<(), Failed> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), bz_image())?;
    let mut sandbox =
        LinuxSandbox::new(VMM.into(), file.path().into(), agent(), MEMORY, || Err("no tap today".into()))?;
    let refused = sandbox.launch(&Workload::Program { arguments: vec!["/bin/true".into()] });
    check(matches!(refused, Err(LaunchError::Unsupported(_))), "it was not refused")?;
    let error = sandbox.launch(&Workload::Idle).err().ok_or("launched without a tap")?;
    check(error.to_string() == "launch vm-linux: attach a tap", error.to_string())
}
