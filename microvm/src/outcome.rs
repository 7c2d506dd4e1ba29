//! How a guest ended.

use kvm_bindings::{kvm_regs, kvm_sregs};
use std::fmt;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this status.
    Exited(u8),
    /// It stopped its processor for ever, here.
    Halted(Box<Registers>),
    /// Its program panicked.
    Panicked {
        /// What it said: the guest's words, bounded and made printable.
        message: String,
        /// Where it said so.
        registers: Box<Registers>,
    },
    /// An exception that it did not handle.
    Crashed(Box<Crash>),
    /// It reset itself (triple fault or reset port), which some guests do to end.
    Reset,
    /// Whoever looks after it has ended it ([`crate::control`]).
    Stopped,
    /// Its time was up, when it was here.
    Deadline(Box<Registers>),
    /// KVM could not go on.
    Internal {
        /// KVM's number for the cause: 1 is an instruction that it could not emulate.
        suberror: u32,
        /// Where the guest was.
        instruction_pointer: u64,
        /// The bytes there, as far as they can be read.
        bytes: Vec<u8>,
    },
}

/// An exception and the registers at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What happened.
    pub cause: CrashCause,
    /// The registers.
    pub registers: Registers,
}

/// A processor's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction.
    pub instruction_pointer: u64,
    /// The stack pointer.
    pub stack_pointer: u64,
    /// The flags.
    pub flags: u64,
    /// The address of the last page fault.
    pub fault_address: u64,
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub general: [u64; 15],
}

/// What kind of exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// An exception with this vector and error code, reported by the guest's own handler.
    Exception {
        /// The vector (Intel SDM, volume 3, 6.3.1).
        vector: u8,
        /// The error code, 0 where it has none.
        error: u64,
    },
    /// The stack is used up: a page fault on the page below it.
    StackOverflow,
    /// A fault in handling a fault in handling a fault: the processor shut down.
    TripleFault,
}

impl Registers {
    /// Registers as KVM gives them.
    pub fn new(registers: &kvm_regs, special: &kvm_sregs) -> Self {
        let r = registers;
        Self {
            instruction_pointer: r.rip,
            stack_pointer: r.rsp,
            flags: r.rflags,
            fault_address: special.cr2,
            general: [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,
            ],
        }
    }
}

/// Names of the exceptions that a program can cause.
fn exception(vector: u8) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        3 => "breakpoint",
        6 => "invalid instruction",
        8 => "double fault",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 | 19 => "floating-point error",
        17 => "misaligned access",
        _ => "exception",
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "the guest exited with status {status}"),
            Self::Halted(registers) => write!(formatter, "the guest halted at {registers}"),
            Self::Panicked { message, registers } => write!(formatter, "the guest panicked: {message} at {registers}"),
            Self::Crashed(crash) => crash.fmt(formatter),
            Self::Reset => formatter.write_str("the guest reset itself"),
            Self::Stopped => formatter.write_str("the guest was ended on request"),
            Self::Deadline(registers) => write!(formatter, "the guest was ended at its deadline, at {registers}"),
            Self::Internal { suberror, instruction_pointer, bytes } => {
                let cause = if *suberror == 1 { "KVM can't emulate an instruction" } else { "KVM gave up" };
                write!(formatter, "{cause} of the guest at {instruction_pointer:#x} (suberror {suberror}), bytes")?;
                bytes.iter().try_for_each(|byte| write!(formatter, " {byte:02x}"))
            }
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the guest crashed: ")?;
        match self.cause {
            CrashCause::Exception { vector, error } => {
                write!(formatter, "{} (vector {vector}, error {error:#x})", exception(vector))?;
                if vector == 14 {
                    write!(formatter, " on address {:#x}", self.registers.fault_address)?;
                }
            }
            CrashCause::StackOverflow => formatter.write_str("stack overflow")?,
            CrashCause::TripleFault => formatter.write_str("triple fault")?,
        }
        write!(formatter, " at {}", self.registers)
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rip={:#x} rsp={:#x} rflags={:#x}",
            self.instruction_pointer, self.stack_pointer, self.flags
        )?;
        let names =
            ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
        names.iter().zip(self.general).try_for_each(|(name, value)| write!(formatter, " {name}={value:#x}"))
    }
}
