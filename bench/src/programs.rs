//! The small programs inside this one, executed from memory.
//!
//! Each is copied into a sealed memfd ([memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html)), so
//! that nothing has to be installed and nothing inside a sandbox can write to the program that runs on the host
//! (CVE-2019-5736). Where `vm.memfd_noexec` forbids to execute one, an unlinked file does the same.

use anyhow::Context;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

static AGENT: &[u8] = include_bytes!(env!("ISOBENCH_AGENT"));
static VMM: &[u8] = include_bytes!(env!("ISOBENCH_VMM"));

/// A program in memory, ready to be executed.
#[derive(Debug)]
pub struct Program {
    bytes: &'static [u8],
    file: File,
    copied: Duration,
}

impl Program {
    /// The agent, which runs the workload inside every sandbox and drives traffic outside.
    ///
    /// # Errors
    /// Where neither a memfd nor a file in `fallback` can be made.
    pub fn agent(fallback: &Path) -> anyhow::Result<Self> {
        Self::new("isobench-agent", AGENT, fallback)
    }

    /// The virtual machine monitor, with the unikernel inside.
    ///
    /// # Errors
    /// As for [`Program::agent`].
    pub fn vmm(fallback: &Path) -> anyhow::Result<Self> {
        Self::new("isobench-vmm", VMM, fallback)
    }

    fn new(name: &str, bytes: &'static [u8], fallback: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let file = match sealed(name, bytes) {
            Ok(file) => file,
            Err(Errno::ACCESS | Errno::NOSYS) => unlinked(bytes, fallback).with_context(|| {
                format!("put {name} into a file in {} (vm.memfd_noexec forbids a memfd)", fallback.display())
            })?,
            Err(errno) => return Err(errno).with_context(|| format!("put {name} into a memfd")),
        };
        Ok(Self { bytes, file, copied: began.elapsed() })
    }

    /// The descriptor to execute.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path that executes it, good in this process and in the children that it makes.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Its bytes, for a peer that wants a file in a root directory.
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// How long the one copy took; no launch pays for it.
    pub fn copied(&self) -> Duration {
        self.copied
    }
}

fn sealed(name: &str, bytes: &[u8]) -> Result<File, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no MFD_EXEC and each memfd can be executed.
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = File::from(descriptor);
    file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// A file without a name, reopened for reading: execve(2) refuses a file that somebody may write (ETXTBSY).
fn unlinked(bytes: &[u8], directory: &Path) -> anyhow::Result<File> {
    let writer = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU)?;
    let mut writer = File::from(writer);
    writer.write_all(bytes)?;
    Ok(File::open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn says_what_it_is(program: &Program) {
        let output = Command::new(program.path()).arg("exit").output().expect("the agent runs");
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(isobench_workload::announcement::READY));
    }

    #[test]
    fn a_sealed_program_runs_and_cannot_be_changed() {
        let file = sealed("isobench-agent", AGENT).expect("a memfd");
        let program = Program { bytes: AGENT, file, copied: Duration::ZERO };
        says_what_it_is(&program);
        assert!((&program.file).write_all(b"x").is_err());
    }

    #[test]
    fn the_fallback_file_runs_too() {
        let file = unlinked(AGENT, &std::env::temp_dir()).expect("a file");
        says_what_it_is(&Program { bytes: AGENT, file, copied: Duration::ZERO });
    }
}
