//! Snapshots of the unikernel from end to end: taken from a machine that serves, and restored as clones that serve. Each test has a
//! network namespace of its own with a bridge, on which the machines' taps are. What can't run on this machine is ignored, with the
//! reason as its kind.

mod served;
mod support;

use isobench_microvm::control::{self, State};
use isobench_microvm::devices::virtio::tap;
use isobench_microvm::judge::judge;
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, RestoredSandbox, UnikernelSandbox};
use isobench_microvm::snapshot::manifest::Manifest;
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::take::{Afterwards, take};
use isobench_microvm::snapshot::{MANIFEST, MEMORY, STATE, SnapshotError};
use isobench_workload::protocol::{Operation, PORT};
use isobench_workload::{Instance, LaunchError, Sandbox, Stage, Workload};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use served::{Machine, changed_state, echoes, place, text};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{check, ip, no_network};

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
const PATIENCE: Duration = Duration::from_secs(30);

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let kvm = (!judge().runs_unikernel()).then(|| judge().to_string());
    let network = no_network();
    let tests: [(&str, Test); 12] = [
        ("a_machine_goes_on_after_its_snapshot", a_machine_goes_on_after_its_snapshot),
        ("a_restored_guest_serves_as_whom_it_is_told", a_restored_guest_serves_as_whom_it_is_told),
        ("clones_answer_at_their_own_addresses", clones_answer_at_their_own_addresses),
        ("a_sandbox_launches_clones_of_one_snapshot", a_sandbox_launches_clones_of_one_snapshot),
        ("a_clone_is_saved_and_restored_again", a_clone_is_saved_and_restored_again),
        ("a_guest_without_a_network_keeps_its_memory", a_guest_without_a_network_keeps_its_memory),
        ("v20_each_flipped_bit_is_found", v20_each_flipped_bit_is_found),
        ("v20_a_snapshot_that_is_none_is_one_sentence", v20_a_snapshot_that_is_none_is_one_sentence),
        ("v20_a_manifest_of_something_else_is_refused", v20_a_manifest_of_something_else_is_refused),
        ("v20_a_hostile_state_ends_in_a_sentence", v20_a_hostile_state_ends_in_a_sentence),
        ("a_name_that_is_taken_meanwhile_is_left_alone", a_name_that_is_taken_meanwhile_is_left_alone),
        ("a_full_disk_leaves_nothing", a_full_disk_leaves_nothing),
    ];
    let obstacle = kvm.or(network);
    let trial = |(name, test): (&str, Test)| {
        Trial::test(name, test).with_ignored_flag(obstacle.is_some()).with_kind(obstacle.clone().unwrap_or_default())
    };
    libtest_mimic::run(&Arguments::from_args(), tests.map(trial).into()).exit_code()
}

/// A unikernel that serves, at 172.17.0.NUMBER.
fn serving(socket: &Path, number: u8) -> Result<Machine, Failed> {
    Machine::begun(&["unikernel", "--control", text(socket)], number)
}

/// A snapshot of a server at 172.17.0.5, which is ended.
fn taken(directory: &Path) -> Result<PathBuf, Failed> {
    let (socket, snapshot) = (directory.join("control"), directory.join("snapshot"));
    let machine = serving(&socket, 5)?;
    machine.greets()?;
    take(&socket, &snapshot, Afterwards::Stay)?;
    Ok(snapshot)
}

fn a_machine_goes_on_after_its_snapshot() -> Result<(), Failed> {
    let directory = place()?;
    let (socket, first, second) =
        (directory.path().join("control"), directory.path().join("first"), directory.path().join("second"));
    let machine = serving(&socket, 5)?;
    let mut stream = machine.ask(Operation::Echo, 0)?;
    echoes(&mut stream, b"before")?;
    take(&socket, &first, Afterwards::Continue)?;
    echoes(&mut stream, b"between")?;
    take(&socket, &second, Afterwards::Continue)?;
    // The same connection, and new ones.
    echoes(&mut stream, &[7; 100_000])?;
    machine.greets()?;
    Snapshot::open(&first)?;
    Snapshot::open(&second)?;
    // Nothing but the two and the socket.
    check(fs::read_dir(directory.path())?.count() == 3, "something is left")
}

fn a_restored_guest_serves_as_whom_it_is_told() -> Result<(), Failed> {
    let directory = place()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let machine = serving(&socket, 5)?;
    let mut stream = machine.ask(Operation::Echo, 0)?;
    echoes(&mut stream, b"one")?;
    take(&socket, &snapshot, Afterwards::Continue)?;
    let manifest = Snapshot::open(&snapshot)?.manifest().clone();
    check(manifest.guest.memory() == 16 << 20 && manifest.guest.network, format!("{manifest:?}"))?;
    let before = fs::read(snapshot.join(MEMORY))?;
    let mut clone = Machine::restored(&snapshot, Some(6), &[])?;
    clone.ready()?;
    clone.greets()?;
    let mut bytes = Vec::new();
    clone.ask(Operation::Source, 3_000_000)?.read_to_end(&mut bytes)?;
    check(bytes.len() == 3_000_000 && bytes.iter().all(|byte| *byte == 0x5a), "other bytes")?;
    // The connection is still the first one's, and what the clone writes stays its own.
    echoes(&mut stream, b"two")?;
    machine.greets()?;
    check(fs::read(snapshot.join(MEMORY))? == before, "the clone has changed the snapshot")
}

fn clones_answer_at_their_own_addresses() -> Result<(), Failed> {
    let directory = place()?;
    let snapshot = taken(directory.path())?;
    let mut clones: Vec<Machine> =
        (10..16).map(|number| Machine::restored(&snapshot, Some(number), &[])).collect::<Result<_, _>>()?;
    clones.iter_mut().try_for_each(Machine::ready)?;
    let mut streams: Vec<TcpStream> =
        clones.iter().map(|clone| clone.ask(Operation::Echo, 0)).collect::<Result<_, _>>()?;
    for round in 0..20_u8 {
        for (number, stream) in (0..).zip(&mut streams) {
            echoes(stream, &[round, number])?;
        }
    }
    clones.iter().try_for_each(Machine::greets)
}

fn a_sandbox_launches_clones_of_one_snapshot() -> Result<(), Failed> {
    let directory = place()?;
    let attached = Cell::new(0_u8);
    let attach = || -> Result<Attachment, AttachError> {
        attached.set(attached.get() + 1);
        let number = attached.get();
        let tap = tap::open(&format!("guest{number}"))?;
        ip(&format!("link set guest{number} master bridge0 up")).map_err(|failed| format!("{failed:?}"))?;
        Ok(Attachment {
            tap,
            mac: [2, 0, 0, 0, 1, number],
            address: Ipv4Addr::new(172, 17, 1, number),
            prefix: 16,
            gateway: None,
            resources: Vec::new(),
        })
    };
    let booted = UnikernelSandbox::new(Housing::VirtualMachine { memory: 16 << 20 }, VMM.into(), attach);
    let mut sandbox = RestoredSandbox::new(booted, directory.path().into());
    let refused = sandbox.launch(&Workload::Program { arguments: vec!["/bin/true".into()] });
    check(matches!(refused, Err(LaunchError::Unsupported(_))), format!("{refused:?}"))?;
    let workload = Workload::Serve { port: PORT };
    let mut clones: Vec<Instance> = (0..3).map(|_| sandbox.launch(&workload)).collect::<Result<_, _>>()?;
    // One guest was booted, and is not there any more; nothing of the snapshot has a name.
    check(attached.get() == 4, format!("{} machines instead of 1 and 3 clones", attached.get()))?;
    check(fs::read_dir(directory.path())?.count() == 0, "a file of the snapshot is left")?;
    let links = fs::read_to_string("/proc/thread-self/net/dev")?;
    check(!links.contains("guest1:") && links.contains("guest4:"), links)?;
    clones.iter_mut().try_for_each(|clone| clone.await_ready(PATIENCE))?;
    for (clone, number) in clones.into_iter().zip(2..) {
        let address = SocketAddr::from((Ipv4Addr::new(172, 17, 1, number), PORT));
        check(clone.server() == Some(address), format!("it is at {:?} instead of {address}", clone.server()))?;
        let stages = clone.destroy().map_err(|errors| format!("{errors:?}"))?;
        check(stages.since_start(Stage::GuestEntered) < stages.since_start(Stage::Answered), format!("{stages:?}"))?;
    }
    Ok(())
}

fn a_clone_is_saved_and_restored_again() -> Result<(), Failed> {
    let directory = place()?;
    let first = taken(directory.path())?;
    let (socket, second) = (directory.path().join("again"), directory.path().join("second"));
    let mut clone = Machine::restored(&first, Some(6), &["--control", text(&socket)])?;
    clone.ready()?;
    clone.greets()?;
    take(&socket, &second, Afterwards::Stay)?;
    drop(clone);
    Snapshot::open(&second)?;
    let mut clone = Machine::restored(&second, Some(7), &[])?;
    clone.ready()?;
    clone.greets()
}

fn a_guest_without_a_network_keeps_its_memory() -> Result<(), Failed> {
    let directory = place()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let mut machine = Machine::start(&["unikernel", "--workload", "memory:8M", "--control", text(&socket)], None)?;
    machine.ready()?;
    take(&socket, &snapshot, Afterwards::Continue)?;
    // Each page that was written to is there, and the others are holes.
    let memory = File::open(snapshot.join(MEMORY))?;
    let mut bytes = Vec::new();
    (&memory).read_to_end(&mut bytes)?;
    let written = bytes.chunks(4096).filter(|page| page[0] == 1 && page[1..].iter().all(|byte| *byte == 0)).count();
    check(written >= 2048, format!("{written} pages"))?;
    use std::os::unix::fs::MetadataExt;
    let used = memory.metadata()?.blocks() * 512;
    check((8 << 20..10 << 20).contains(&used), format!("{used} bytes on the disk"))?;
    let mut clone = Machine::restored(&snapshot, None, &[])?;
    clone.ready()?;
    // A card that it has not is refused, and one that another has is asked for.
    let told = Machine::restored(&snapshot, Some(8), &[])?.told();
    check(told.contains("has no network card"), told)?;
    // So is what it would not heed.
    let told = Machine::restored(&snapshot, None, &["--host-name", "other"])?.told();
    check(told.contains("option --host-name: it is for a Linux guest, and the saved one is a unikernel"), told)
}

fn v20_each_flipped_bit_is_found() -> Result<(), Failed> {
    let directory = place()?;
    let snapshot = taken(directory.path())?;
    Snapshot::open(&snapshot)?;
    for name in [MANIFEST, STATE, MEMORY] {
        let path = snapshot.join(name);
        let file = File::options().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        // At both ends and all over the file, in holes too.
        for place in (0..24).map(|step| step * (length - 1) / 23) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place)?;
            file.write_all_at(&[byte[0] ^ 1 << (place % 8)], place)?;
            match Snapshot::open(&snapshot) {
                Err(SnapshotError::Unusable { path: named, .. }) if named == path => {}
                other => return Err(format!("{name}, byte {place}: {other:?}").into()),
            }
            file.write_all_at(&byte, place)?;
        }
        // Shorter, longer, away.
        for other in [length - 1, length + 1] {
            let bytes = fs::read(&path)?;
            file.set_len(other)?;
            let told = Snapshot::open(&snapshot).err().ok_or("another length was taken")?.to_string();
            check(told.contains(text(&path)), told)?;
            fs::write(&path, bytes)?;
        }
        fs::rename(&path, directory.path().join("away"))?;
        let told = Snapshot::open(&snapshot).err().ok_or("a missing file was taken")?.to_string();
        check(told.contains(text(&path)), told)?;
        fs::rename(directory.path().join("away"), &path)?;
        Snapshot::open(&snapshot)?;
    }
    Ok(())
}

fn v20_a_snapshot_that_is_none_is_one_sentence() -> Result<(), Failed> {
    let directory = place()?;
    let snapshot = taken(directory.path())?;
    let other = directory.path().join("other");
    fs::create_dir(&other)?;
    let refused = |words: &str| {
        let told = Snapshot::open(&other).err().ok_or_else(|| format!("not refused: {words}"))?.to_string();
        check(told.contains(words) && told.contains(text(&other)), format!("{told} instead of {words}"))
    };
    refused("read the snapshot's file")?;
    for (name, bytes) in [(MANIFEST, &b"{}"[..]), (MANIFEST, b"\x7fELF"), (MANIFEST, b"")] {
        fs::write(other.join(name), bytes)?;
        refused("it is no manifest of a snapshot")?;
    }
    // A manifest of another snapshot, and the other way round.
    let (socket, again) = (directory.path().join("more"), directory.path().join("again"));
    let machine = serving(&socket, 9)?;
    take(&socket, &again, Afterwards::Continue)?;
    for name in [MANIFEST, STATE, MEMORY] {
        fs::copy(snapshot.join(name), other.join(name))?;
    }
    fs::copy(again.join(MEMORY), other.join(MEMORY))?;
    refused("its content was changed")?;
    fs::copy(snapshot.join(MEMORY), other.join(MEMORY))?;
    Snapshot::open(&other)?;
    // A name that is taken; a directory that is not there; a machine that is not there.
    let told = take(&socket, &again, Afterwards::Continue).err().ok_or("overwritten")?.to_string();
    check(told.contains("is there already"), told)?;
    let nowhere = directory.path().join("no/where");
    let told = take(&socket, &nowhere, Afterwards::Continue).err().ok_or("made")?.to_string();
    check(told.contains("make the directory of the snapshot"), told)?;
    drop(machine);
    let third = directory.path().join("third");
    let told = take(&socket, &third, Afterwards::Continue).err().ok_or("taken of nothing")?.to_string();
    check(told.contains("reach the machine") && !third.exists(), told)?;
    check(
        fs::read_dir(directory.path())?
            .all(|entry| entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().contains("partial"))),
        "left",
    )
}

/// Whole, and sealed by somebody, and that of something else.
fn v20_a_manifest_of_something_else_is_refused() -> Result<(), Failed> {
    let directory = place()?;
    let snapshot = taken(directory.path())?;
    let whole = Snapshot::open(&snapshot)?.manifest().clone();
    // A guest's memory is for whoever took it alone.
    for (name, mode) in [(".", 0o700), (MANIFEST, 0o600), (STATE, 0o600), (MEMORY, 0o600)] {
        let has = fs::metadata(snapshot.join(name))?.permissions().mode() & 0o777;
        check(has == mode, format!("{name} has mode {has:o}"))?;
    }
    type Change = fn(&mut Manifest);
    let changes: [(Change, &str, &str); 3] = [
        (|manifest| manifest.processor.features = "0".repeat(64), MANIFEST, "on a processor with other features"),
        (|manifest| manifest.guest.program = "0".repeat(64), MANIFEST, "its unikernel is not this program's"),
        (|manifest| manifest.guest.workload = "serve:1".into(), STATE, "that of another guest than the manifest's"),
    ];
    for (change, name, words) in changes {
        let mut manifest = whole.clone();
        change(&mut manifest);
        fs::write(snapshot.join(MANIFEST), manifest.to_text()?)?;
        let told = Snapshot::open(&snapshot).err().ok_or_else(|| format!("not refused: {words}"))?.to_string();
        check(told.contains(words) && told.contains(text(&snapshot.join(name))), told)?;
    }
    fs::write(snapshot.join(MANIFEST), whole.to_text()?)?;
    Snapshot::open(&snapshot).map(drop).map_err(Failed::from)
}

/// Whoever verifies has the last word on what a monitor is handed, but a monitor believes nothing either.
fn v20_a_hostile_state_ends_in_a_sentence() -> Result<(), Failed> {
    let directory = place()?;
    let snapshot = taken(directory.path())?;
    let path = snapshot.join(STATE);
    let whole = fs::read(&path)?;
    let changed = |pointer: &str, to| changed_state(&whole, pointer, to);
    let registers = "/registers/0/1/virtio/registers";
    for (state, words) in [
        (Vec::new(), "it is no state of a guest"),
        (b"{}".into(), "it is no state of a guest"),
        (whole[..whole.len() / 2].into(), "it is no state of a guest"),
        ([&whole[..], &[0]].concat(), "it is no state of a guest: more follows it"),
        (changed("/guest/processors", 2.into())?, "it is no state of a guest"),
        (changed("/guest/regions", serde_json::json!([[4096, 4096]]))?, "it is no state of a guest"),
        (changed("/guest/regions", serde_json::json!([[0, 1_u64 << 32]]))?, "guest memory of 4294967296 bytes"),
        (
            changed("/guest/regions", serde_json::json!([[0, 32 << 20]]))?,
            "guest memory of 33554432 bytes: its file has 16777216 bytes",
        ),
        (changed("/registers/0/0", 77.into())?, "the guest has no device at 0x4d"),
        (changed(&format!("{registers}/status"), 9.into())?, "in no state that a driver can bring them to"),
        (changed(&format!("{registers}/driver_features"), u64::MAX.into())?, "in no state"),
        (changed(&format!("{registers}/queues/0/descriptors"), (1_u64 << 40).into())?, "queues are not valid"),
        (changed(&format!("{registers}/queues"), serde_json::json!([]))?, "queues are not valid"),
        (changed(&format!("{registers}/queues/1/max_size"), 3.into())?, "queues are not valid"),
        (changed(&format!("{registers}/queues/1/max_size"), 32_768.into())?, "queues are not valid"),
        (changed("/registers/0/1/virtio/active/0/used", 64.into())?, "queues are not valid"),
        (changed("/registers/0/1/virtio/active", serde_json::json!([]))?, "queues are not valid"),
    ] {
        fs::write(&path, state)?;
        let mut clone = Machine::restored(&snapshot, Some(6), &[])?;
        let told = clone.told();
        check(told.contains("unix_wait_status(256)") && told.contains(words), format!("{told} instead of {words}"))?;
    }
    // Positions in the queues that no driver has: the device asks for a reset, and the monitor lives.
    fs::write(&path, changed("/registers/0/1/virtio/active/0/next_avail", 40_000.into())?)?;
    let clone = Machine::restored(&snapshot, Some(6), &["--deadline", "1"])?.told();
    check(clone.contains("unix_wait_status(31744)"), clone)
}

/// An empty directory could be replaced by a directory (rename(2)).
fn a_name_that_is_taken_meanwhile_is_left_alone() -> Result<(), Failed> {
    let directory = place()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let (beside, other) = (directory.path().join("beside"), directory.path().join("other"));
    let (machine, _neighbour) = (serving(&socket, 5)?, serving(&beside, 6)?);
    let process = Pid::from_child(&machine.process);
    // While it stands still nobody answers, and the snapshot is under way.
    kill_process(process, Signal::STOP)?;
    let taken = std::thread::scope(|scope| {
        let taken = scope.spawn(|| take(&socket, &snapshot, Afterwards::Stay).map(drop));
        let began = Instant::now();
        while fs::read_dir(directory.path())?.count() < 3 && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Another one leaves it what it has begun.
        take(&beside, &other, Afterwards::Continue)?;
        fs::create_dir(&snapshot)?;
        kill_process(process, Signal::CONT)?;
        taken.join().map_err(|_| Failed::from("it panicked"))
    })?;
    let told = isobench_microvm::chain(&taken.err().ok_or("it was replaced")?);
    check(told.contains("name the snapshot") && told.contains("File exists"), told)?;
    check(fs::read_dir(&snapshot)?.count() == 0, "something is in it")?;
    check(fs::read_dir(directory.path())?.count() == 4, "something is left")?;
    // What was to stay paused, since it was saved, goes on.
    let state = control::describe(&socket)?.state;
    check(state == State::Running, format!("it is {state:?}"))
}

/// The disk is one of 3 MiB, of which the guest's memory needs more.
fn a_full_disk_leaves_nothing() -> Result<(), Failed> {
    use nix::mount::{MsFlags, mount};
    let directory = place()?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let disk = directory.path().join("disk");
    fs::create_dir(&disk)?;
    mount(Some("none"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=3m"))?;
    let socket = directory.path().join("control");
    let mut machine = Machine::start(&["unikernel", "--workload", "memory:8M", "--control", text(&socket)], None)?;
    machine.ready()?;
    for afterwards in [Afterwards::Continue, Afterwards::Stay] {
        let told = take(&socket, &disk.join("snapshot"), afterwards).err().ok_or("it fits")?.to_string();
        check(told.contains("write the guest's memory: No space left on device"), told)?;
        check(fs::read_dir(&disk)?.count() == 0, "something is left on the disk")?;
        let state = control::describe(&socket)?.state;
        check(state == State::Running, format!("it is {state:?}"))?;
    }
    // The machine goes on, and can be saved elsewhere.
    let elsewhere = directory.path().join("snapshot");
    take(&socket, &elsewhere, Afterwards::Continue)?;
    Snapshot::open(&elsewhere)?;
    nix::mount::umount(&disk)?;
    Ok(())
}
