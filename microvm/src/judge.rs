//! What the KVM of this machine is good for, found out by timing tiny guests.
//!
//! A KVM without hardware virtualisation runs a guest's user code at full speed and interprets or traps its kernel code. No
//! flag says so reliably; the same loop at CPL 0 and at CPL 3 does, in a few milliseconds.

use crate::bus::Bus;
use crate::machine::{Machine, MachineError};
use crate::memory::{self, MemoryError};
use crate::unikernel::{ExitPort, port, registers};
use crate::vcpu::{Stop, Vcpu, VcpuError};
use isobench_guest::contract::{IMAGE, PORT_EXIT};
use std::fmt;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Turns of the loop: 13 ms where it is interpreted at 3 million instructions a second, 20 us where it is not.
const TURNS: u32 = 20_000;
/// So many times slower at CPL 0 than at CPL 3 means that CPL 0 is emulated. Natively both are the same, and what a loaded machine
/// adds to the shorter of several runs is far less.
const EMULATED: f64 = 8.0;
/// Runs of each loop, of which the shortest counts.
const RUNS: usize = 3;
/// A guest that takes longer is ended.
const DEADLINE: Duration = Duration::from_millis(250);
/// Memory of the tiny guest.
const MEMORY: u64 = 2 << 20;

/// What KVM is good for.
#[derive(Debug)]
pub enum Verdict {
    /// Every guest runs at full speed.
    Full,
    /// CPL 3 runs at full speed and CPL 0 does not: the unikernel runs, Linux guests do not.
    Software {
        /// How many times slower CPL 0 is.
        slowdown: f64,
        /// Whether the processor shows VT-x or AMD-V at all.
        hardware: bool,
    },
    /// No guest runs.
    None(JudgeError),
}

/// Why no guest runs.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The virtual machine could not be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Guest memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The vCPU could not be run.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The tiny guest did not reach its end.
    #[error("a guest of four instructions did not reach its end: {0:?}")]
    Guest(Stop),
}

impl Verdict {
    /// Whether the unikernel runs here.
    pub fn runs_unikernel(&self) -> bool {
        !matches!(self, Self::None(_))
    }

    /// Whether Linux guests run here.
    pub fn runs_linux(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("KVM runs every guest at full speed"),
            Self::Software { slowdown, hardware } => {
                let processor = if *hardware {
                    "although the processor has VT-x or AMD-V"
                } else {
                    "the processor shows no VT-x or AMD-V"
                };
                write!(
                    formatter,
                    "KVM is emulated here ({processor}): kernel code of a guest runs {slowdown:.0} times slower than its user \
                     code, so the unikernel runs at full speed and a Linux guest does not run"
                )
            }
            Self::None(error) => {
                write!(formatter, "no virtual machine runs here: {error}")?;
                match std::error::Error::source(error) {
                    Some(cause) => write!(formatter, " ({cause})"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Finds out; takes well under a second.
pub fn judge() -> Verdict {
    match measure() {
        Ok((user, kernel)) => {
            let slowdown = kernel.as_secs_f64() / user.as_secs_f64();
            if slowdown < EMULATED {
                Verdict::Full
            } else {
                Verdict::Software { slowdown, hardware: shows_virtualisation() }
            }
        }
        Err(error) => Verdict::None(error),
    }
}

/// The time of the loop at CPL 3 and at CPL 0. A loop at CPL 0 that is never done by the deadline counts as that long.
fn measure() -> Result<(Duration, Duration), JudgeError> {
    let kernel = match shortest(0) {
        Err(JudgeError::Guest(_)) => DEADLINE,
        other => other?,
    };
    Ok((shortest(3)?, kernel))
}

/// The shortest time of several runs. One that a busy machine keeps from its end decides nothing where another reaches it.
fn shortest(privilege: u8) -> Result<Duration, JudgeError> {
    let mut shortest = run(privilege);
    for _ in 1..RUNS {
        shortest = match (shortest, run(privilege)) {
            (Ok(before), Ok(now)) => Ok(before.min(now)),
            (Err(_), now) => now,
            (before, Err(_)) => before,
        };
    }
    shortest
}

/// Runs the loop at a privilege level in a virtual machine of its own.
fn run(privilege: u8) -> Result<Duration, JudgeError> {
    let memory = memory::create(MEMORY)?;
    let machine = Machine::new(memory.clone())?;
    let vcpu = machine.create_vcpu(0)?;
    registers::write_tables(&memory, MEMORY)?;
    registers::set(&vcpu, IMAGE, privilege)?;
    memory
        .write_slice(&program(), GuestAddress(IMAGE))
        .map_err(|source| MemoryError::Access { address: IMAGE, source })?;
    let mut ports = Bus::new();
    // The bus is empty, so nothing overlaps.
    let _ = ports.insert(port(PORT_EXIT), Box::new(ExitPort));
    let mut vcpu = Vcpu::new(vcpu, 0);
    let started = Instant::now();
    let stop = vcpu.run(&ports, &Bus::new(), Some(DEADLINE))?;
    let taken = started.elapsed();
    if stop == Stop::Exit(0) { Ok(taken) } else { Err(JudgeError::Guest(stop)) }
}

/// mov ecx, TURNS; again: dec ecx; jnz again; out PORT_EXIT, al (rax is 0).
fn program() -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(TURNS.to_le_bytes());
    code.extend([0xff, 0xc9, 0x75, 0xfc, 0xe6, PORT_EXIT as u8]);
    code
}

/// Whether the processor shows VT-x (CPUID 1, ecx bit 5) or AMD-V (CPUID 8000_0001, ecx bit 2).
fn shows_virtualisation() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(1).ecx & 1 << 5 != 0 || __cpuid(0x8000_0001).ecx & 1 << 2 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_sentence() {
        let software = Verdict::Software { slowdown: 300.0, hardware: false };
        assert!(software.runs_unikernel() && !software.runs_linux());
        assert!(software.to_string().contains("300 times slower"));
        let none = Verdict::None(JudgeError::Machine(MachineError::Open {
            remedy: "load the module",
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        }));
        assert!(!none.runs_unikernel());
        assert!(
            none.to_string().starts_with("no virtual machine runs here: open /dev/kvm: load the module (No such file")
        );
    }
}
