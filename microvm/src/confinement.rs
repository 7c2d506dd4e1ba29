//! What a thread may still ask of the kernel once it serves a guest: a short list of system calls, each of which can be named a
//! reason. Anything else kills the process (seccomp(2)), so that a guest that has found a hole in the monitor finds little
//! behind it.

use crate::system;
use kvm_bindings::KVMIO;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// The type of vhost's calls (`VHOST_VIRTIO` in linux/vhost.h).
const VHOST: u32 = 0xaf;

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("confine a thread by seccomp")]
pub struct ConfinementError(#[from] seccompiler::Error);

/// A thread's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs a vCPU whose devices have their threads.
    Vcpu,
    /// The same, and moves the frames of its guest's card at times.
    VcpuAndNetwork,
    /// Moves frames.
    Network,
    /// Reads and writes a disk.
    Block,
    /// Gives random numbers.
    Entropy,
    /// Gives memory back to the host.
    Balloon,
    /// Takes orders on a socket.
    Control,
    /// Takes what programs in the guest write.
    Console,
    /// Carries the streams of programs in the guest.
    Session,
}

/// What every thread needs: memory for and of the allocator, locks, its stack's signals, to write what is told or signalled, to
/// give back what it holds, and to end.
const COMMON: [i64; 24] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    // Whoever waits at a channel yields before he sleeps.
    libc::SYS_sched_yield,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    // The allocator asks it for the number of processors, when a second thread first allocates.
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    // pthread_kill(3), of glibc and of musl.
    libc::SYS_tgkill,
    libc::SYS_tkill,
];

/// What moving frames takes beyond that: also to learn on which processor it is done, where the kernel does not tell without a call.
const FRAMES: [i64; 3] = [libc::SYS_readv, libc::SYS_writev, libc::SYS_getcpu];

/// Confines the calling thread, for good.
pub fn confine(role: Role) -> Result<(), ConfinementError> {
    let always = |call: &i64| (*call, Vec::new());
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> = COMMON.iter().map(always).collect();
    // Where assertions are compiled in, the standard library looks whether a descriptor is open before it closes it.
    if cfg!(debug_assertions) {
        rules.insert(libc::SYS_fcntl, vec![argument(SeccompCmpOp::Eq, libc::F_GETFD as u64)?]);
    }
    match role {
        Role::Vcpu | Role::VcpuAndNetwork => {
            // Calls on the descriptors of KVM and of vhost, and the one call on a tap that a card makes when its driver is ready.
            let offload = argument(SeccompCmpOp::Eq, system::SET_TAP_OFFLOAD)?;
            // A session's terminal is again what it was when the guest has ended.
            let terminal = [libc::TCSETS2, libc::TCSETS].map(|call| argument(SeccompCmpOp::Eq, number_of(call)));
            let calls = [calls_of(KVMIO), calls_of(VHOST), Ok(offload)].into_iter().chain(terminal);
            rules.insert(libc::SYS_ioctl, calls.collect::<Result<_, _>>()?);
            // The deadline and its handler.
            rules.extend([libc::SYS_setitimer, libc::SYS_rt_sigaction].iter().map(always));
        }
        Role::Network | Role::Console => {}
        Role::Session => {
            // The terminal's size.
            rules.insert(libc::SYS_ioctl, vec![argument(SeccompCmpOp::Eq, number_of(libc::TIOCGWINSZ))?]);
            rules.insert(libc::SYS_accept4, Vec::new());
        }
        Role::Block => {
            // The last tells whether the file still has what is to be written.
            let calls = [libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_fdatasync, libc::SYS_lseek];
            rules.extend(calls.iter().map(always));
        }
        Role::Entropy => rules.extend([libc::SYS_getrandom].iter().map(always)),
        // It advises on memory, as every thread's allocator does.
        Role::Balloon => {}
        Role::Control => {
            // A card whose frames the kernel moves is stopped for a snapshot.
            rules.insert(libc::SYS_ioctl, vec![calls_of(VHOST)?]);
            let calls = [
                libc::SYS_accept4,
                libc::SYS_sendto,
                // With descriptors of files, and to write a snapshot into them.
                libc::SYS_recvmsg,
                libc::SYS_pwrite64,
                libc::SYS_ftruncate,
                // To work out the digest of the kernel's file.
                libc::SYS_pread64,
                libc::SYS_fstat,
                // How much memory was resident at most.
                libc::SYS_getrusage,
            ];
            rules.extend(calls.iter().map(always));
        }
    }
    if matches!(role, Role::VcpuAndNetwork | Role::Network) {
        rules.extend(FRAMES.iter().map(always));
        // Calls on the calling thread, which is its number 0 (sched_setaffinity(2)).
        rules.insert(libc::SYS_sched_setaffinity, vec![rule(0, SeccompCmpOp::Eq, 0)?]);
    }
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)
        .map_err(seccompiler::Error::from)?;
    let program = BpfProgram::try_from(filter).map_err(seccompiler::Error::from)?;
    Ok(seccompiler::apply_filter(&program)?)
}

/// Calls on a kind of descriptors (ioctl(2)): those whose number has its type in the second byte.
fn calls_of(kind: u32) -> Result<SeccompRule, seccompiler::Error> {
    argument(SeccompCmpOp::MaskedEq(0xff00), u64::from(kind) << 8)
}

/// The number of a call on a descriptor, which has 32 bits whatever type a C library gives it (ioctl(2)).
fn number_of(call: libc::Ioctl) -> u64 {
    u64::from(call as u32)
}

/// Allows a call by its second argument.
fn argument(comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    rule(1, comparison, value)
}

/// Allows a call by one of its arguments, which are counted from 0.
fn rule(index: u8, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, comparison, value)
        .map_err(seccompiler::Error::Backend)?;
    SeccompRule::new(vec![condition]).map_err(seccompiler::Error::Backend)
}
