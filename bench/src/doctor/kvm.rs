//! What KVM is here: absent, forbidden, or there and good for what.

use super::{Finding, remedy};
use isobench_microvm::judge::{Verdict, judge};
use std::io::ErrorKind;

const SUBJECT: &str = "KVM";

/// Judges the machine's KVM.
pub fn kvm() -> Finding {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => judged(&judge()),
        Err(error) if error.kind() == ErrorKind::NotFound && load_module().is_some() => {
            Finding::missing(SUBJECT, "there is no /dev/kvm, so no virtual machine of ours can run", load_module())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::missing(
            SUBJECT,
            "there is no /dev/kvm and the processor shows no VT-x or AMD-V: switch it on in the firmware, or nested \
             virtualisation in the hypervisor, to run a virtual machine of ours",
            None,
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::missing(SUBJECT, "/dev/kvm is not for you", Some(remedy::kvm_for_user()))
        }
        Err(error) => Finding::missing(SUBJECT, format!("/dev/kvm cannot be opened: {error}"), load_module()),
    }
}

fn judged(verdict: &Verdict) -> Finding {
    match verdict {
        Verdict::Full => Finding::good(SUBJECT, verdict.to_string()),
        // The processor has it, and something between it and this machine keeps it back.
        Verdict::Software { hardware: true, .. } => Finding::limited(SUBJECT, verdict.to_string(), load_module()),
        Verdict::Software { hardware: false, .. } => Finding::limited(SUBJECT, verdict.to_string(), None),
        // It could be opened: a container, for one, may show another device at that path.
        Verdict::None(_) => Finding::missing(
            SUBJECT,
            format!("{verdict}, though there is a /dev/kvm: see that it is the kernel's, `mknod /dev/kvm c 10 232`"),
            load_module(),
        ),
    }
}

/// The module for this machine's processor, where it has what KVM needs.
fn load_module() -> Option<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    match (has("vmx"), has("svm")) {
        (true, _) => Some("sudo modprobe kvm_intel".into()),
        (_, true) => Some("sudo modprobe kvm_amd".into()),
        _ => None,
    }
}
