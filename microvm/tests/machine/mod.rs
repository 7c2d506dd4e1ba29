//! The parts of a guest's machine, each seen from both sides: from within by this same program as /init.

use super::{VMM, check, ending, text};
use libtest_mimic::Failed;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

/// Starts the monitor's words for a guest that does these tasks, with a deadline against a guest that hangs.
pub(crate) fn inside(kernel: &Path, tasks: &[&str]) -> Result<Command, Failed> {
    let mut command = Command::new(VMM);
    command.args(["linux", "--kernel", text(kernel), "--deadline", "120", "--agent"]).arg(std::env::current_exe()?);
    tasks.iter().for_each(|task| _ = command.args(["--argument", task]));
    Ok(command)
}

/// The results of a guest that ended well.
pub(crate) fn results(output: Output) -> Result<String, Failed> {
    let told = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    check(output.status.success(), told)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn image(bytes: &[u8]) -> Result<tempfile::NamedTempFile, Failed> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), bytes)?;
    Ok(file)
}

/// Half of what is on the first disk, and all that is on the second.
fn half() -> Vec<u8> {
    (0..256 * 1024_u32).map(|index| (index / 512 + index % 251) as u8).collect()
}

/// Gives a guest one disk by its path and one, read-only, as an open file, has it do its tasks, and looks at the disks; gives what it
/// says beyond that.
fn with_disks(mut command: Command) -> Result<String, Failed> {
    let half = half();
    let written = image(&[half.clone(), vec![0; half.len()]].concat())?;
    let read = image(&half)?;
    command.args(["--disk", text(written.path()), "--disk", "fd:0:ro"]).stdin(File::open(read.path())?);
    let results = results(command.output()?)?;
    let sum: u64 = half.iter().map(|byte| u64::from(*byte)).sum();
    let found = format!("{{\"sectors\":1024,\"sum\":{sum}}}\n");
    check(results.contains(&found), results.clone())?;
    let turned: Vec<u8> = half.iter().map(|byte| !byte).collect();
    check(std::fs::read(written.path())? == [half.clone(), turned].concat(), "vda holds something else")?;
    check(std::fs::read(read.path())? == half, "vdb was changed")?;
    Ok(results.replace(&found, ""))
}

pub(crate) fn disks_are_read_written_and_flushed(kernel: &Path) -> Result<(), Failed> {
    let more = with_disks(inside(kernel, &["disks"])?)?;
    check(more.is_empty(), more)
}

/// All parts at once, for a kernel whose every boot takes long.
pub(crate) fn has_a_whole_machine(kernel: &Path) -> Result<(), Failed> {
    let mut command = inside(kernel, &["processors", "disks"])?;
    command.args(["--cpus", "2"]);
    let found = with_disks(command)?;
    check(found == "{\"processors\":2}\n", found)
}

pub(crate) fn sees_both_processors(kernel: &Path) -> Result<(), Failed> {
    let output = inside(kernel, &["processors"])?.args(["--cpus", "2"]).output()?;
    let results = results(output)?;
    check(results == "{\"processors\":2}\n", results)
}

/// The first processor's thread, which waits in KVM, ends as well.
pub(crate) fn ends_where_the_second_processor_panics(kernel: &Path) -> Result<(), Failed> {
    let output = inside(kernel, &["die-on-the-second"])?.args(["--cpus", "2"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(101), format!("{}: {told}", output.status))?;
    check(told.contains("Attempted to kill init") && told.contains("the guest reset itself"), told)
}

pub(crate) fn ends_at_its_deadline_while_all_processors_spin(kernel: &Path) -> Result<(), Failed> {
    // On a slow machine the guest is not that far at the first deadline.
    for deadline in ["6", "60"] {
        let mut command = inside(kernel, &["spin-on-all"])?;
        let output = command.args(["--cpus", "2", "--deadline", deadline]).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        check(output.status.code() == Some(124), format!("{}: {told}", output.status))?;
        if output.stdout == b"{\"spinning\":true}\n" {
            return Ok(());
        }
    }
    Err("the guest never came to spin".into())
}

pub(crate) fn more_processors_than_there_can_be_are_one_sentence(kernel: &Path) -> Result<(), Failed> {
    for number in ["33", "255", "256", "4294967295"] {
        let told = ending(&["--kernel", text(kernel), "--agent", VMM, "--cpus", number], 1, " on this machine")?;
        check(told.lines().count() == 1 && told.contains("it must have at least 1, and can have 32"), told)?;
    }
    Ok(())
}

pub(crate) fn a_kernel_for_one_processor_is_one_sentence(kernel: &Path) -> Result<(), Failed> {
    let sentence = format!("the kernel {} runs one processor alone: give the guest one", kernel.display());
    let told = ending(&["--kernel", text(kernel), "--agent", VMM, "--cpus", "2"], 1, &sentence)?;
    check(told.lines().count() == 1, told)
}

pub(crate) fn a_number_of_processors_that_is_none_is_one_sentence() -> Result<(), Failed> {
    for number in ["0", "-1", "many", "4294967296"] {
        let sentence = format!("option --cpus: `{number}` is not a number of processors, at least 1");
        let told = ending(&["--kernel", VMM, "--agent", VMM, "--cpus", number], 1, &sentence)?;
        check(told.lines().count() == 1, told)?;
    }
    Ok(())
}

pub(crate) fn a_disk_that_cannot_be_used_is_one_sentence() -> Result<(), Failed> {
    let small = image(&[0; 100])?;
    let small = text(small.path());
    for (disk, sentence) in [
        ("/nonexistent/disk", "open the disk /nonexistent/disk to read and write: No such file"),
        ("/nonexistent/disk:ro", "open the disk /nonexistent/disk to read: No such file"),
        ("/tmp:ro", "the disk /tmp is neither a regular file nor a block device"),
        (small, "has 100 bytes, less than one sector of 512"),
        ("fd:77", "option --disk: `fd:77` is not a file or an open file descriptor"),
        (":ro", "option --disk: `:ro` is not a file or an open file descriptor"),
    ] {
        let told = ending(&["--kernel", VMM, "--agent", VMM, "--disk", disk], 1, sentence)?;
        check(told.lines().count() == 1, told)?;
    }
    Ok(())
}
