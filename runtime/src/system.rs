//! The system calls that no safe wrapper offers: the one file with `unsafe`.
//!
//! Everything here that the child calls is a bare system call: between clone3 and exec the child shares this process's
//! memory, so it must neither allocate nor take a lock nor touch thread-local storage, and libc's wrappers would write
//! this thread's `errno`.

use crate::child;
use crate::plan::Plan;
use crate::shared::Shared;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::CpuSet;
use std::arch::asm;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::thread::JoinHandleExt;
use std::ptr::null;
use std::thread::JoinHandle;

/// A NULL-terminated vector of strings, as [execve(2)](https://man7.org/linux/man-pages/man2/execve.2.html) takes it.
#[derive(Debug)]
pub(crate) struct Strings {
    /// Keeps alive what `pointers` points to.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the heap blocks of `_strings`, which never change and live as long.
unsafe impl Send for Strings {}
// SAFETY: as above; nothing is ever written through them.
unsafe impl Sync for Strings {}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// The own stack of a child that shares this process's memory: it must not use its parent's.
#[derive(Debug)]
struct Stack {
    memory: *mut c_void,
    size: usize,
}

impl Stack {
    /// In bytes, for a child that becomes a program; it needs about 4 KiB.
    const SMALL: usize = 64 << 10;

    fn new(size: usize) -> Result<Self, Errno> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE);
        // SAFETY: a new anonymous mapping at an address that the kernel chooses.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), size, protection, flags)? };
        Ok(Self { memory, size })
    }

    fn top(&self) -> *mut c_void {
        self.memory.wrapping_byte_add(self.size)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its owners drop it only after the child has left it.
        let _ = unsafe { munmap(self.memory, self.size) };
    }
}

/// A child between clone3 and exec. It borrows the plan and the shared block, and dropping it waits until the child has
/// left this process's memory, by exec or by its end.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    shared: &'a Shared,
    _stack: Stack,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.await_departure();
    }
}

/// `struct clone_args` of [clone3(2)](https://man7.org/linux/man-pages/man2/clone3.2.html).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

// Flags beyond 32 bits, which libc's constants cannot hold.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Creates the child: `CLONE_VM` because copying page tables would cost what the parent's memory is large, and because a
/// shared block reports errors for free; `CLONE_CHILD_CLEARTID` because the kernel then clears a word and wakes its waiter
/// when the child leaves this memory, at exec or at its end; `CLONE_CLEAR_SIGHAND` because no handler of ours may run in
/// the child.
pub(crate) fn clone3<'a>(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    plan: &'a Plan,
    shared: &'a Shared,
) -> Result<(Pid, OwnedFd, Running<'a>), Errno> {
    let stack = Stack::new(Stack::SMALL)?;
    let mut pidfd: i32 = -1;
    let always = (libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID) as u64 | CLONE_CLEAR_SIGHAND;
    let arguments = CloneArguments {
        flags: flags | always | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: (&raw mut pidfd) as u64,
        child_tid: shared.departure_word() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.memory as u64,
        stack_size: stack.size as u64,
        cgroup: cgroup.map_or(0, |directory| directory.as_raw_fd() as u64),
        ..CloneArguments::default()
    };
    shared.begin();
    let result: isize;
    // SAFETY: the arguments are a valid `clone_args`. The child starts at the system call's return with rax = 0 on its own
    // stack, whose top is page-aligned, and goes straight to `enter`, which never returns. Plan, shared block and stack
    // outlive the child's stay in this memory, because `Running` borrows or owns them and its drop waits for the child's
    // departure. Registers r12 and r13 survive a system call; rcx and r11 do not.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "mov rsi, r13",
            "call {enter}",
            "ud2",
            "2:",
            enter = sym enter,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") plan,
            in("r13") shared,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    let running = Running { shared, _stack: stack };
    // SAFETY: the kernel has just put a new descriptor there, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(result as i32).ok_or(Errno::SRCH)?;
    Ok((pid, pidfd, running))
}

/// The child's first function.
extern "C" fn enter(plan: &Plan, shared: &Shared) -> ! {
    let failure = child::become_program(plan, shared);
    shared.fail(failure);
    exit(127)
}

/// A system call without libc: no `errno` is written.
///
/// # Safety
/// The arguments must be valid for the system call, whose effects must not break memory safety.
unsafe fn system_call(number: i64, arguments: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(result as usize) }
}

/// Ends the child at once: nothing of its parent's is flushed or run.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: exit_group does not return.
        let _ = unsafe { system_call(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Signals as a new program expects them: none blocked, and none ignored, be it by Rust's runtime (SIGPIPE) or by whoever started
/// this program (`nohup`, or a shell's `&`): a shell cannot trap again what it began with ignored
/// ([sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html); real-time signals nobody ignores for others).
pub(crate) fn reset_signals() -> Result<(), Errno> {
    let empty: u64 = 0;
    // `struct kernel_sigaction`: handler (SIG_DFL), flags, restorer, mask.
    let default = [0_u64; 4];
    for signal in (1..libc::SIGSYS + 1).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the kernel reads 32 bytes of action and writes nothing.
        unsafe {
            system_call(libc::SYS_rt_sigaction, [signal as usize, default.as_ptr() as usize, 0, 8, 0, 0])?;
        }
    }
    // SAFETY: the kernel reads 8 bytes of mask and writes nothing.
    unsafe {
        system_call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, (&raw const empty) as usize, 0, 8, 0, 0])?;
    }
    Ok(())
}

/// A cgroup namespace whose root is the cgroup that the child is in now.
pub(crate) fn unshare_cgroup() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWCGROUP changes nothing about memory or descriptors.
    unsafe { system_call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Whether the working directory can be reached from the root
/// ([getcwd(2)](https://man7.org/linux/man-pages/man2/getcwd.2.html): otherwise its name does not begin with a slash).
pub(crate) fn working_directory_is_reachable() -> Result<bool, Errno> {
    let mut name = [0_u8; 4096];
    // SAFETY: the kernel writes at most the buffer's length.
    unsafe { system_call(libc::SYS_getcwd, [name.as_mut_ptr() as usize, name.len(), 0, 0, 0, 0])? };
    Ok(name[0] == b'/')
}

/// A new session keyring, so that the caller's keys are out of reach
/// ([keyctl(2)](https://man7.org/linux/man-pages/man2/keyctl.2.html)).
pub(crate) fn join_session_keyring() -> Result<(), Errno> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with no name takes no memory.
    unsafe { system_call(libc::SYS_keyctl, [libc::KEYCTL_JOIN_SESSION_KEYRING as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Marks every descriptor from `first` up to be closed by exec
/// ([close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html)).
/// That flag is there since Linux 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    let arguments = [first as usize, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: only flags of this process's own descriptor table change.
    unsafe { system_call(libc::SYS_close_range, arguments) }.map(drop)
}

/// Divides this process in two ([fork(2)](https://man7.org/linux/man-pages/man2/fork.2.html)): `None` in the new one, its
/// number in the old one.
///
/// # Errors
/// `EINVAL` where this process has more than one thread: the others' locks would stay locked in the copy.
pub fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: CLONE_THREAD changes nothing; the kernel refuses it to a process with several threads (unshare(2)).
    unsafe { system_call(libc::SYS_unshare, [libc::CLONE_THREAD as usize, 0, 0, 0, 0, 0])? };
    // SAFETY: with one thread, the copy is as good as the original: nobody holds a lock or is in the middle of anything.
    match unsafe { libc::fork() } {
        -1 => Err(last_error()),
        number => Ok(Pid::from_raw(number)),
    }
}

/// Does `work` in a process of its own, which has one descriptor and the standard streams and nothing else that is open here;
/// it ends with the status that `work` gives. What `work` captures must not be a descriptor: it is closed.
///
/// It is nobody's child here, but the first process's of the pid namespace in which children of this process are
/// ([pid_namespaces(7)](https://man7.org/linux/man-pages/man7/pid_namespaces.7.html)), which need not be this process's own: it
/// is made by a process that shares this memory, as after [vfork(2)](https://man7.org/linux/man-pages/man2/vfork.2.html), and is
/// gone when this returns.
///
/// # Errors
/// As [`fork`] has them.
pub fn fork_apart<F: FnOnce(OwnedFd) -> i32>(kept: OwnedFd, work: F) -> Result<(), Errno> {
    let stack = Stack::new(Apart::<F>::STACK)?;
    let mut apart = Apart { kept: Some(kept), work: Some(work), outcome: Err(Errno::CHILD) };
    // SAFETY: CLONE_THREAD changes nothing; the kernel refuses it to a process with several threads (unshare(2)).
    unsafe { system_call(libc::SYS_unshare, [libc::CLONE_THREAD as usize, 0, 0, 0, 0, 0])? };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is fresh and its top is page-aligned. This thread, which is the only one, stands still until the other
    // process has ended (CLONE_VFORK), so that the two never use this memory at once, and `apart` and the stack outlive it.
    let number = unsafe { libc::clone(Apart::<F>::divide, stack.top(), flags, (&raw mut apart).cast()) };
    let number = if number < 0 { Err(last_error()) } else { Ok(Pid::from_raw(number)) };
    rustix::process::waitpid(number?, WaitOptions::empty())?;
    apart.outcome
}

/// Says where a thread may run ([pthread_setaffinity_np(3)]).
///
/// [pthread_setaffinity_np(3)]: https://man7.org/linux/man-pages/man3/pthread_setaffinity_np.3.html
pub(crate) fn set_affinity<T>(thread: &JoinHandle<T>, processors: &CpuSet) -> Result<(), Errno> {
    // SAFETY: the thread is neither joined nor detached as long as there is its handle, and a set of processors is an array of
    // bits to libc and to rustix (CPU_SET(3)).
    let error = unsafe {
        let thread = thread.as_pthread_t() as libc::pthread_t;
        libc::pthread_setaffinity_np(thread, size_of::<CpuSet>(), (&raw const *processors).cast())
    };
    if error == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(error)) }
}

/// What [`fork_apart`] hands to the process between.
struct Apart<F> {
    kept: Option<OwnedFd>,
    work: Option<F>,
    outcome: Result<(), Errno>,
}

impl<F: FnOnce(OwnedFd) -> i32> Apart<F> {
    /// As large as the stack of a first thread usually is: `work` runs on it.
    const STACK: usize = 8 << 20;

    /// Forks, and ends here. The new process has a copy of this memory, in which it does the work on this stack.
    extern "C" fn divide(apart: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `fork_apart` gives its own, which nobody else uses meanwhile.
        let apart = unsafe { &mut *apart.cast::<Self>() };
        // SAFETY: there is no other thread in this memory that runs: nobody holds a lock or is in the middle of anything.
        apart.outcome = match unsafe { libc::fork() } {
            0 => apart.work(),
            -1 => Err(last_error()),
            _ => Ok(()),
        };
        0
    }

    fn work(&mut self) -> ! {
        // A panic must not unwind into what was called before: those frames have descriptors that are closed now.
        let (kept, work) = (self.kept.take(), self.work.take());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (Some(kept), Some(work)) = (kept, work) else { return Err(Errno::INVAL) };
            Ok(work(alone(kept)?))
        }));
        exit(outcome.unwrap_or(Ok(101)).unwrap_or(1))
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Closes all but the standard streams and one more.
fn alone(kept: OwnedFd) -> Result<OwnedFd, Errno> {
    let number = kept.as_raw_fd() as usize;
    let close = |first: usize, last: usize| {
        // SAFETY: only `fork_apart` calls this, in a process that never comes back to whoever has these descriptors.
        unsafe { system_call(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) }.map(drop)
    };
    if number > 3 {
        close(3, number - 1)?;
    }
    close(number.max(2) + 1, u32::MAX as usize)?;
    Ok(kept)
}

/// Makes all flags of a mount tree read-only
/// ([mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html)).
pub(crate) fn set_read_only(tree: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    // `struct mount_attr`: attr_set, attr_clr, propagation, userns_fd.
    let attributes = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let arguments = [
        tree.as_raw_fd() as usize,
        c"".as_ptr() as usize,
        flags as usize,
        attributes.as_ptr() as usize,
        size_of_val(&attributes),
        0,
    ];
    // SAFETY: the kernel reads the path and 32 bytes of attributes.
    unsafe { system_call(libc::SYS_mount_setattr, arguments) }.map(drop)
}

/// `struct sock_filter` of [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html): one instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) operand: u32,
}

/// Installs a seccomp filter in the calling thread.
pub(crate) fn install_filter(program: &[Instruction]) -> Result<(), Errno> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    let arguments = [libc::SECCOMP_SET_MODE_FILTER as usize, 0, (&raw const program) as usize, 0, 0, 0];
    // SAFETY: `Program` is `struct sock_fprog` with as many instructions as it says; the kernel copies and checks them.
    unsafe { system_call(libc::SYS_seccomp, arguments) }.map(drop)
}

/// Becomes the program behind a descriptor; returns only on failure
/// ([execveat(2)](https://man7.org/linux/man-pages/man2/execveat.2.html) with `AT_EMPTY_PATH`).
pub(crate) fn execute_descriptor(program: BorrowedFd<'_>, arguments: &Strings, environment: &Strings) -> Errno {
    execute_at(program.as_raw_fd(), c"", arguments, environment, libc::AT_EMPTY_PATH)
}

/// Becomes the program at a path; returns only on failure.
pub(crate) fn execute_path(program: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    execute_at(libc::AT_FDCWD, program, arguments, environment, 0)
}

fn execute_at(directory: i32, path: &CStr, arguments: &Strings, environment: &Strings, flags: i32) -> Errno {
    let arguments = [
        directory as usize,
        path.as_ptr() as usize,
        arguments.pointers.as_ptr() as usize,
        environment.pointers.as_ptr() as usize,
        flags as usize,
        0,
    ];
    // SAFETY: path and vectors are terminated; on success this memory is left for ever.
    match unsafe { system_call(libc::SYS_execveat, arguments) } {
        Ok(_) => Errno::NOEXEC,
        Err(errno) => errno,
    }
}

/// Sets `lo` up in the calling thread's network namespace: two system calls, no netlink
/// ([netdevice(7)](https://man7.org/linux/man-pages/man7/netdevice.7.html)).
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    /// `struct ifreq`: a name and a union of 24 bytes, here the flags.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut request = Request { name: [0; 16], flags: (libc::IFF_UP | libc::IFF_RUNNING) as i16, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    let arguments = [socket.as_raw_fd() as usize, libc::SIOCSIFFLAGS as usize, (&raw mut request) as usize, 0, 0, 0];
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq` of 40 bytes.
    unsafe { system_call(libc::SYS_ioctl, arguments) }.map(drop)
}

// The tap (network/tap.rs).

/// Makes an open `/dev/net/tun` a tap of this name, of 15 bytes at most, whose frames begin with a header of
/// `header` bytes that says how they are segmented and summed
/// ([tun(4)](https://www.kernel.org/doc/html/latest/networking/tuntap.html)).
pub(crate) fn become_tap(device: BorrowedFd<'_>, name: &str, header: i32) -> Result<(), Errno> {
    /// `struct ifreq`: a name and a union of 24 bytes, here the flags.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    request
        .name
        .get_mut(..name.len())
        .filter(|_| name.len() < 16)
        .ok_or(Errno::INVAL)?
        .copy_from_slice(name.as_bytes());
    let device = device.as_raw_fd() as usize;
    let set_interface = [device, libc::TUNSETIFF as usize, (&raw mut request) as usize, 0, 0, 0];
    let set_header = [device, libc::TUNSETVNETHDRSZ as usize, (&raw const header) as usize, 0, 0, 0];
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq` of 40 bytes, TUNSETVNETHDRSZ reads an `int`.
    unsafe {
        system_call(libc::SYS_ioctl, set_interface)?;
        system_call(libc::SYS_ioctl, set_header).map(drop)
    }
}

/// Says which frames the reader of a tap takes: a set of `TUN_F_` bits.
pub(crate) fn set_tap_offload(tap: BorrowedFd<'_>, offload: u32) -> Result<(), Errno> {
    let arguments = [tap.as_raw_fd() as usize, libc::TUNSETOFFLOAD as usize, offload as usize, 0, 0, 0];
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { system_call(libc::SYS_ioctl, arguments) }.map(drop)
}
