//! The system calls that have no safe wrapper: all of this crate's `unsafe` code.
#![allow(unsafe_code)]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use smallvec::SmallVec;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::{Duration, Instant};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

/// The longest vector of one readv(2) or writev(2).
const MOST_VECTORS: usize = 1024;

/// The time stamp counter of the processor that this runs on.
pub(crate) fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and to read it changes nothing.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Reads into guest memory, [readv(2)](https://man7.org/linux/man-pages/man2/readv.2.html).
pub(crate) fn readv(fd: BorrowedFd<'_>, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
    with_vectors(into, |vectors| {
        // SAFETY: each vector is a slice of guest memory that stays mapped while `into` is borrowed; the guest may write it
        // at the same time, which is why it is never seen as a Rust slice.
        unsafe { libc::readv(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) }
    })
}

/// Writes from guest memory, [writev(2)](https://man7.org/linux/man-pages/man2/writev.2.html).
pub(crate) fn writev(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
    with_vectors(from, |vectors| {
        // SAFETY: as in `readv`, and the kernel only reads.
        unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) }
    })
}

/// Reads into guest memory from an offset on, [preadv(2)](https://man7.org/linux/man-pages/man2/preadv.2.html).
pub(crate) fn preadv(fd: BorrowedFd<'_>, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    with_vectors(into, |vectors| {
        // SAFETY: as in `readv`.
        unsafe { libc::preadv(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset) }
    })
}

/// Writes from guest memory from an offset on, [pwritev(2)](https://man7.org/linux/man-pages/man2/pwritev.2.html).
pub(crate) fn pwritev(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    with_vectors(from, |vectors| {
        // SAFETY: as in `writev`.
        unsafe { libc::pwritev(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset) }
    })
}

fn with_vectors(slices: &[VolatileSlice<'_>], call: impl FnOnce(&[libc::iovec]) -> isize) -> io::Result<usize> {
    let vector = |slice: &VolatileSlice<'_>| libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    };
    // Without the allocator, as far as a driver divides its buffers as Linux does (see the network card's queue handler).
    let vectors: SmallVec<[libc::iovec; 32]> = slices.iter().take(MOST_VECTORS).map(vector).collect();
    let count = call(&vectors);
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The calls on a tap (`linux/if_tun.h`).
mod tun {
    #![allow(missing_docs, reason = "the macros write functions without documentation")]
    nix::ioctl_write_ptr_bad!(set_interface, nix::libc::TUNSETIFF, nix::libc::ifreq);
    nix::ioctl_write_int!(set_offload, b'T', 208);
    nix::ioctl_write_ptr!(set_header_size, b'T', 216, nix::libc::c_int);
}

/// The number of the call behind [`set_tap_offload`].
pub(crate) const SET_TAP_OFFLOAD: u64 = nix::request_code_write!(b'T', 208, size_of::<libc::c_int>()) as u64;

/// Opens a tap of this name in the caller's network namespace, with a header before each frame
/// ([`tuntap.rst`](https://docs.kernel.org/networking/tuntap.html)).
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, which outlives the call.
    unsafe { tun::set_interface(file.as_raw_fd(), &request) }?;
    Ok(file.into())
}

/// Sets which offloads the reader of a tap understands ([`tun.h`](https://docs.kernel.org/networking/tuntap.html)).
pub(crate) fn set_tap_offload(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: the call takes a number and touches no memory of ours.
    unsafe { tun::set_offload(fd.as_raw_fd(), u64::from(flags)) }?;
    Ok(())
}

/// Sets the size of the header before each frame of a tap.
pub(crate) fn set_tap_header_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    let size = size as libc::c_int;
    // SAFETY: the kernel reads one int, which outlives the call.
    unsafe { tun::set_header_size(fd.as_raw_fd(), &size) }?;
    Ok(())
}

/// Takes over a file descriptor that this process was started with; not standard output or error, which this process writes to.
pub fn inherited_fd(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD touches no memory.
    if number < 0 || (1..=2).contains(&number) || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, as just seen, and was inherited: nothing else in this process owns it. The programs
    // call this once for each number, before they open anything.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes all descriptors that this process was started with but 0 to 2 and those in `keep`
/// ([close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html)). The programs call this before they open anything.
/// Kernels before 5.9 have no such call, and then what was inherited stays open.
pub fn close_inherited(keep: &[u32]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().copied().filter(|number| *number > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for last in keep.into_iter().map(|kept| kept - 1).chain([u32::MAX]) {
        // SAFETY: nothing in this process owns a descriptor yet but the standard streams, which are left alone, and those that
        // are named, which are left open for `inherited_fd`.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) };
        }
        first = last.saturating_add(2);
    }
    Ok(())
}

extern "C" fn on_end(signal: libc::c_int) {
    // SAFETY: _exit(2) may be called by a signal's handler (signal-safety(7)).
    unsafe { libc::_exit(128 + signal) }
}

/// Has SIGTERM and SIGINT end this process also where it is process 1 of a pid namespace, for which a signal without a handler does
/// nothing (pid_namespaces(7)).
pub fn end_at_signals() {
    if !rustix::process::getpid().is_init() {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: all zero is a valid sigaction, and the handler only ends the process. The call fails for no valid signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_end as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Has a write beyond the largest file that this process may have fail, in place of ending the process and with it the guest
/// (`RLIMIT_FSIZE`, setrlimit(2)).
pub fn outlive_large_files() {
    // SAFETY: to ignore a signal runs no code. The call fails for no valid signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// An event as something to wait for.
pub(crate) fn borrow_event(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns an open descriptor for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Gives guest memory to a virtual machine, one slot a region.
pub(crate) fn register_memory(vm: &VmFd, memory: &GuestMemoryMmap) -> io::Result<()> {
    for (slot, region) in memory.iter().enumerate() {
        let host = region.get_host_address(MemoryRegionAddress(0)).map_err(io::Error::other)?;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the region is a live mapping of exactly this size; `Machine` keeps it alive until after the virtual
        // machine is closed, by the order of its fields.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}

/// Sets a processor's extended state, floating-point registers and more (KVM_SET_XSAVE).
pub(crate) fn set_extended_state(
    vcpu: &kvm_ioctls::VcpuFd,
    state: &kvm_bindings::kvm_xsave,
) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the kernel reads 4096 bytes, the size of the structure, unless this process has asked for larger features to be given to
    // guests (arch_prctl(2), ARCH_REQ_XCOMP_GUEST_PERM), which nothing here does.
    unsafe { vcpu.set_xsave(state) }
}

/// Advises the kernel on a part of guest memory, [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
pub(crate) fn advise(slice: &VolatileSlice<'_>, advice: i32) -> io::Result<()> {
    // SAFETY: the range is a live mapping of ours, and no advice that is used here (populate, huge pages or none)
    // changes what it holds.
    let result = unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), slice.len(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the host back the pages of a part of guest memory, which then holds zeros, or, in a clone, what the snapshot's file has there:
/// [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html) with `MADV_DONTNEED`.
pub(crate) fn discard(slice: &VolatileSlice<'_>) -> io::Result<()> {
    // SAFETY: the range is a live mapping of ours that stays mapped. What it holds changes, as it may at any time: it is guest
    // memory, which is never seen as a Rust slice.
    let result = unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), slice.len(), libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has all threads allocate from one heap (mallopt(3), `M_ARENA_MAX`), before there is a second one. Each would have one of its own,
/// which is made when the thread first allocates: 16 KB and four system calls for threads that hardly allocate at all. musl has one.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only sets a parameter of the allocator, which takes its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

unsafe extern "C" {
    // The linker's, at the first byte of the program and after the last of its code.
    static __executable_start: u8;
    static etext: u8;
}

/// Gives the pages of the program's code and constants back to the kernel, which brings those that are used again: most were for
/// the start alone, and around each the kernel has mapped fifteen others.
pub(crate) fn release_code() {
    const PAGE: usize = 4096;
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize);
    let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    // SAFETY: from the first symbol to the second lie only constants and code, which nothing ever writes, so that what is dropped
    // comes back from the file as it was.
    unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
}

/// Puts constants of this program, whose file is given, in the place of a piece of guest memory, so that all processes that run the program
/// have them in common until a guest writes to them. Both begin and end with a page.
pub(crate) fn map_constants(slice: &VolatileSlice<'_>, bytes: &'static [u8], program: &File) -> io::Result<()> {
    const PAGE: usize = 4096;
    let (place, from) = (slice.ptr_guard_mut().as_ptr(), bytes.as_ptr() as usize);
    let whole = |number: usize| number.is_multiple_of(PAGE);
    if slice.len() != bytes.len() || !whole(place as usize) || !whole(from) || !whole(bytes.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Constants lie in the file as far from its beginning as in memory from the first symbol: linkers keep what is never written in one
    // piece. Whoever calls looks whether it is so.
    let offset = from.wrapping_sub(&raw const __executable_start as usize) as u64;
    // Behind the end of a file there is nothing that could be looked at.
    if program.metadata()?.len() < offset.saturating_add(bytes.len() as u64) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED);
    // SAFETY: the piece is guest memory, which is mapped while it is borrowed, of which the guest may change all at any time and nobody has
    // a Rust reference; whatever takes its place is as readable and as writable.
    let mapped =
        unsafe { libc::mmap(place.cast(), slice.len(), protection, flags, program.as_raw_fd(), offset as libc::off_t) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Between two alarms of a deadline that has passed.
const AGAIN: Duration = Duration::from_millis(10);
/// Whether the deadline has passed.
static EXPIRED: AtomicBool = AtomicBool::new(false);
/// `kvm_run.immediate_exit` of the vCPU that the deadline ends, or null.
static IMMEDIATE_EXIT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_alarm(_signal: libc::c_int) {
    EXPIRED.store(true, Ordering::SeqCst);
    let flag = IMMEDIATE_EXIT.load(Ordering::SeqCst);
    if !flag.is_null() {
        // SAFETY: a pointer that is not null was stored by `DeadlineGuard`, which puts the null back before the mapping goes.
        unsafe { flag.write_volatile(1) };
    }
}

/// Ends a vCPU's run when time is up: a signal takes it out of the guest or out of a wait, and `immediate_exit` closes the
/// gap before `KVM_RUN` (Documentation/virt/kvm/api.rst, "immediate_exit"). One a process.
#[derive(Debug)]
pub(crate) struct DeadlineGuard {
    began: Instant,
    deadline: Duration,
}

impl DeadlineGuard {
    /// Starts the clock. `immediate_exit` must stay valid while the guard lives: the caller keeps the vCPU.
    pub(crate) fn start(deadline: Duration, immediate_exit: &mut u8) -> io::Result<Self> {
        let began = Instant::now();
        EXPIRED.store(false, Ordering::SeqCst);
        IMMEDIATE_EXIT.store(immediate_exit, Ordering::SeqCst);
        // SAFETY: all zero is a valid sigaction; the handler does only atomic stores and one volatile store.
        let installed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut())
        };
        let timer = libc::itimerval {
            // One that comes when the vCPU is about to wait outside of `KVM_RUN` ends no wait: another comes.
            it_interval: libc::timeval { tv_sec: 0, tv_usec: AGAIN.as_micros() as i64 },
            // A zero would switch the timer off.
            it_value: libc::timeval {
                tv_sec: deadline.as_secs().min(i64::MAX as u64) as i64,
                tv_usec: i64::from(deadline.subsec_micros()).max(i64::from(deadline.as_secs() == 0)),
            },
        };
        // SAFETY: the kernel reads one itimerval, which outlives the call.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        if installed == 0 && set == 0 { Ok(Self { began, deadline }) } else { Err(io::Error::last_os_error()) }
    }

    /// How long it is until then.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.began.elapsed())
    }

    /// Whether time is up.
    pub(crate) fn expired() -> bool {
        EXPIRED.load(Ordering::SeqCst)
    }
}

impl Drop for DeadlineGuard {
    fn drop(&mut self) {
        let off = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let timer = libc::itimerval { it_interval: off, it_value: off };
        // SAFETY: as in `start`.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        IMMEDIATE_EXIT.store(std::ptr::null_mut(), Ordering::SeqCst);
    }
}

/// Held by a test that sets a deadline or is ended by one: there is one a process.
#[cfg(test)]
pub(crate) static ONE_DEADLINE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// What takes a thread out of its vCPU's `KVM_RUN`.
#[derive(Debug)]
pub(crate) struct Kick {
    immediate_exit: *mut u8,
    thread: libc::pthread_t,
}

// SAFETY: the pointer is to one byte of a mapping that is shared with the kernel and belongs to no thread; it is only ever written
// through, as a whole.
unsafe impl Send for Kick {}

extern "C" fn on_kick(_signal: libc::c_int) {}

impl Kick {
    /// A real-time signal, which nobody else sends: those that have a meaning may be handed on to a program in the guest.
    const SIGNAL: libc::c_int = 40;

    /// Has the signal interrupt what a thread does, and nothing more. Once a process.
    pub(crate) fn prepare() -> io::Result<()> {
        // SAFETY: all zero is a valid sigaction; the handler does nothing.
        let installed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(Self::SIGNAL, &action, std::ptr::null_mut())
        };
        if installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A kick of the calling thread. It must be dropped before the vCPU and before the thread ends: the caller keeps both.
    pub(crate) fn new(immediate_exit: &mut u8) -> Self {
        // SAFETY: the call has no precondition.
        Self { immediate_exit, thread: unsafe { libc::pthread_self() } }
    }

    /// Whether it is the calling thread's.
    pub(crate) fn is_for_this_thread(&self) -> bool {
        // SAFETY: as in `new`; and a thread's number is a plain number with this C library.
        self.thread == unsafe { libc::pthread_self() }
    }

    /// Sends it. The flag comes first, for a thread that is about to enter `KVM_RUN` (Documentation/virt/kvm/api.rst,
    /// "immediate_exit"), then the signal, for one that is in it.
    pub(crate) fn send(&self) {
        // SAFETY: the mapping and the thread are there for as long as this is (see `new`).
        unsafe {
            self.immediate_exit.write_volatile(1);
            libc::pthread_kill(self.thread, Self::SIGNAL);
        }
    }
}

/// Keeps the alarm away from the calling thread, so that it reaches the vCPU's.
pub(crate) fn block_alarm() {
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// What KVM left of an instruction that it could not emulate: `suberror` and the raw data words of `KVM_EXIT_INTERNAL_ERROR`.
pub(crate) fn internal_error(run: &kvm_bindings::kvm_run) -> (u32, Vec<u64>) {
    // SAFETY: only called after an exit with this reason, for which this member of the union is the valid one; every bit
    // pattern is a valid value of it.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = (internal.ndata as usize).min(internal.data.len());
    (internal.suberror, internal.data[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU8;

    #[test]
    fn an_alarm_that_has_ended_nothing_comes_again() {
        let _one = ONE_DEADLINE.lock().unwrap();
        let flag = AtomicU8::new(0);
        // SAFETY: the byte outlives the guard, and the reference the call.
        let _guard = DeadlineGuard::start(Duration::from_millis(1), unsafe { &mut *flag.as_ptr() }).unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            while flag.load(Ordering::SeqCst) == 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "no alarm comes");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(DeadlineGuard::expired());
            flag.store(0, Ordering::SeqCst);
        }
        EXPIRED.store(false, Ordering::SeqCst);
    }
}
