//! What a program needs before and beneath its first function: the entry point, the entry code of exceptions, the panic
//! handler, and the memory functions that compiled code calls.

use crate::machine;
use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::panic::PanicInfo;

// Exceptions are taken at CPL 3 by gates of DPL 3, so the processor pushes its frame on the current stack (or the interrupt
// stack) and stays in the guest. Each entry pushes 0 where the processor pushes no error code (Intel SDM, volume 3, 6.15),
// then the vector, and tells the monitor, which reads stack and registers and ends the guest. `out` with an immediate port
// changes no register. 16 bytes each (`contract::EXCEPTION_ENTRY_SIZE`).
global_asm!(
    ".section .exceptions, \"ax\", @progbits",
    ".balign 16",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)",
    "push 0",
    ".endif",
    "push vector",
    "out 0xf2, al",
    "ud2",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    ".text",
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    // The stack pointer is a multiple of 16 here, as the ABI wants before a call.
    "call {enter}",
    "ud2",
    enter = sym enter,
);

extern "C" fn enter() -> ! {
    crate::run()
}

/// A message of bounded length.
struct Message {
    bytes: [u8; 512],
    length: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = &mut self.bytes[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

#[panic_handler]
fn panic(information: &PanicInfo<'_>) -> ! {
    let mut message = Message { bytes: [0; 512], length: 0 };
    let _ = write!(message, "{information}");
    machine::panicked(&message.bytes[..message.length])
}

// The memory functions: `rep movsb` and `rep stosb` are the fastest there are on processors with ERMS (Intel Optimization
// Reference Manual, 3.7.6), and written in assembly they can't be compiled into calls of themselves.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: copying upwards overwrites only what is copied already.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller vouches for both ranges; copied downwards, with the direction flag put back as the ABI wants it.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rdi") to.add(count).wrapping_sub(1) => _,
            inout("rsi") from.add(count).wrapping_sub(1) => _, inout("rcx") count => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, inout("rcx") count => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the caller vouches for both ranges. Volatile, so that this loop is not made into a call of memcmp.
        let (left, right) = unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller vouches for both ranges.
    unsafe { memcmp(left, right, count) }
}
