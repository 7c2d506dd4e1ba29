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

/// One disk by its path and one, read-only, as an open file.
pub(crate) fn disks_are_read_written_and_flushed(kernel: &Path) -> Result<(), Failed> {
    let half: Vec<u8> = (0..256 * 1024_u32).map(|index| (index / 512 + index % 251) as u8).collect();
    let written = image(&[half.clone(), vec![0; half.len()]].concat())?;
    let read = image(&half)?;
    let mut command = inside(kernel, &["disks"])?;
    command.args(["--disk", text(written.path()), "--disk", "fd:0:ro"]).stdin(File::open(read.path())?);
    let results = results(command.output()?)?;
    let sum: u64 = half.iter().map(|byte| u64::from(*byte)).sum();
    check(results == format!("{{\"sectors\":1024,\"sum\":{sum}}}\n"), results)?;
    let turned: Vec<u8> = half.iter().map(|byte| !byte).collect();
    check(std::fs::read(written.path())? == [half.clone(), turned].concat(), "vda holds something else")?;
    check(std::fs::read(read.path())? == half, "vdb was changed")
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
