//! Snapshots of Linux guests.

use crate::agent;
use crate::machine::{Running, inside};
use crate::served::{Machine, changed_state, echoes, place, text};
use crate::support::check;
use isobench_microvm::snapshot::open::Snapshot;
use isobench_microvm::snapshot::take::{Afterwards, take};
use isobench_microvm::snapshot::{MANIFEST, MEMORY, STATE, SnapshotError};
use isobench_workload::protocol::{Operation, PORT};
use libtest_mimic::Failed;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A server at 172.17.0.5 that can be saved; the kernel moves its frames where it can.
fn serving(kernel: &Path, socket: &Path, more: &[&str]) -> Result<Machine, Failed> {
    let (agent, port) = (agent(), PORT.to_string());
    let words =
        ["linux", "--kernel", text(kernel), "--agent", text(&agent), "--memory", "64M", "--control", text(socket)];
    let serve = ["--argument", "serve", "--argument", &port];
    Machine::begun(&[&words[..], &serve, more].concat(), 5)
}

/// A snapshot of a server, which goes on, is restored to several clones with connections to and from each.
fn clones(kernel: &Path, more: &[&str], processors: u8) -> Result<(tempfile::TempDir, PathBuf), Failed> {
    let directory = place()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let machine = serving(kernel, &socket, more)?;
    let mut stream = machine.ask(Operation::Echo, 0)?;
    echoes(&mut stream, b"before")?;
    take(&socket, &snapshot, Afterwards::Continue)?;
    echoes(&mut stream, b"after")?;
    let opened = Snapshot::open(&snapshot)?;
    let guest = &opened.manifest().guest;
    let linux = guest.linux.clone().ok_or("no word of what the guest is made of")?;
    check(guest.processors == processors && linux.kernel.contains("6."), format!("{guest:?}"))?;
    let digest: String = Sha256::digest(fs::read(kernel)?).iter().map(|byte| format!("{byte:02x}")).collect();
    check(linux.kernel_sha256 == Some(digest.clone()), format!("{linux:?} instead of {digest}"))?;
    let before = fs::read(snapshot.join(MEMORY))?;
    let mut clones = [6, 7].map(|number| Machine::restored(&snapshot, Some(number), &["--host-name", "other"]));
    for clone in &mut clones {
        let clone = clone.as_mut().map_err(|failed| format!("{failed:?}"))?;
        clone.ready()?;
        clone.greets()?;
        let mut other = clone.ask(Operation::Echo, 0)?;
        echoes(&mut other, &[3; 200_000])?;
    }
    // The first one's connection is still its own, and nobody has changed the snapshot.
    echoes(&mut stream, b"beside clones")?;
    machine.greets()?;
    check(fs::read(snapshot.join(MEMORY))? == before, "the clones have changed the snapshot")?;
    Ok((directory, snapshot))
}

pub(crate) fn clones_serve_as_whom_they_are_told(kernel: &Path) -> Result<(), Failed> {
    let more = ["--rng", "on", "--balloon", "plain"];
    let (directory, snapshot) = clones(kernel, &more, 1)?;
    // A clone is saved and restored again, and has no more than it had.
    let (socket, second) = (directory.path().join("again"), directory.path().join("second"));
    let mut clone = Machine::restored(&snapshot, Some(8), &["--control", text(&socket)])?;
    clone.ready()?;
    clone.greets()?;
    take(&socket, &second, Afterwards::Stay)?;
    drop(clone);
    let mut clone = Machine::restored(&second, Some(9), &[])?;
    clone.ready()?;
    clone.greets()
}

/// A distribution's kernel takes more memory, and unpacks itself.
pub(crate) fn a_clone_of_a_distributions_kernel_serves(kernel: &Path) -> Result<(), Failed> {
    clones(kernel, &["--memory", "128M", "--rng", "on", "--vhost", "off"], 1).map(drop)
}

/// A clone goes on reading the disk of the guest that was saved, and no other.
pub(crate) fn a_clone_reads_the_disk_that_its_guest_had(kernel: &Path) -> Result<(), Failed> {
    let directory = place()?;
    let path = |name: &str| directory.path().join(name);
    let (disk, socket, snapshot) = (path("disk"), path("control"), path("snapshot"));
    fs::write(&disk, [7; 8192])?;
    let read_only = |disk: &Path| format!("{}:ro", disk.display());
    let mut command = inside(kernel, &["disk-of-a-clone"])?;
    command.args(["--memory", "64M", "--control", text(&socket), "--disk", &read_only(&disk)]);
    let mut running = Running::start(command)?;
    running.says("waiting")?;
    take(&socket, &snapshot, Afterwards::Stay)?;
    drop(running);
    let restored = |words: &[&str]| Machine::restored(&snapshot, None, words);
    let goes_on = |disk: &Path| {
        let mut clone = restored(&["--disk", &read_only(disk)])?;
        let line = clone.line()?;
        check(line == format!("{{\"sum\":{}}}\n", 7 * 4096), format!("`{line}`"))
    };
    goes_on(&disk)?;
    let refused = |words: &[&str], sentence: &str| {
        let told = restored(words)?.told();
        check(
            told.contains("unix_wait_status(256)") && told.contains(sentence),
            format!("{told} instead of {sentence}"),
        )
    };
    refused(&[], "has disks of [8192] bytes, and was given some of [] by --disk")?;
    refused(&["--disk", text(&disk)], "give it each as --disk FILE:ro")?;
    refused(&["--disk", &read_only(&path("gone"))], "gone to read: No such file")?;
    let other = path("other");
    fs::write(&other, [7; 4096])?;
    refused(&["--disk", &read_only(&other)], "was given some of [4096] by --disk")?;
    // As large, but another file; a copy with its time is as good as the first.
    let changed = "of which number 1 was changed or is another file: give it the one that it had";
    fs::write(&other, [7; 8192])?;
    refused(&["--disk", &read_only(&other)], changed)?;
    File::options().write(true).open(&other)?.set_modified(fs::metadata(&disk)?.modified()?)?;
    goes_on(&other)?;
    File::options().write(true).open(&disk)?.write_all_at(&[8], 0)?;
    refused(&["--disk", &read_only(&disk)], changed)
}

pub(crate) fn clones_have_both_processors(kernel: &Path) -> Result<(), Failed> {
    clones(kernel, &["--cpus", "2"], 2).map(drop)
}

pub(crate) fn v20_a_hostile_snapshot_is_one_sentence(kernel: &Path) -> Result<(), Failed> {
    let directory = place()?;
    let (socket, snapshot) = (directory.path().join("control"), directory.path().join("snapshot"));
    let machine = serving(kernel, &socket, &[])?;
    take(&socket, &snapshot, Afterwards::Stay)?;
    drop(machine);
    for name in [MANIFEST, STATE, MEMORY] {
        let path = snapshot.join(name);
        let file = File::options().read(true).write(true).open(&path)?;
        let place = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, place)?;
        file.write_all_at(&[byte[0] ^ 4], place)?;
        match Snapshot::open(&snapshot) {
            Err(SnapshotError::Unusable { path: named, .. }) if named == path => {}
            other => return Err(format!("{name}: {other:?}").into()),
        }
        file.write_all_at(&byte, place)?;
    }
    Snapshot::open(&snapshot)?;
    // A monitor believes nothing that is in a state either.
    let path = snapshot.join(STATE);
    let whole = fs::read(&path)?;
    let changed = |pointer: &str, to| changed_state(&whole, pointer, to);
    for (state, words) in [
        (changed("/guest/linux", serde_json::Value::Null)?, "does not say what the guest is made of"),
        (
            changed("/guest/linux/disks", serde_json::json!([{"bytes": 512, "modified": null}]))?,
            "has disks of [512] bytes",
        ),
        (changed("/guest/regions", serde_json::json!([[0, 32 << 20], [64 << 20, 32 << 20]]))?, "it has other memory"),
        (changed("/ports/0/1/serial/input", serde_json::json!(vec![1; 65]))?, "in no state that a driver can bring"),
        (changed("/vm/controllers/0/0", 99.into())?, "set an interrupt controller"),
        (changed("/guest/kind", "unikernel".into())?, "it is Linux"),
        (
            changed("/registers/0/1/virtio/registers/queues/0/descriptors", (1_u64 << 40).into())?,
            "queues are not valid",
        ),
    ] {
        fs::write(&path, state)?;
        let told = Machine::restored(&snapshot, Some(6), &[])?.told();
        check(told.contains("unix_wait_status(256)") && told.contains(words), format!("{told} instead of {words}"))?;
    }
    Ok(())
}
