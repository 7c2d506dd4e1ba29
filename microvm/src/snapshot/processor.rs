//! A processor's state, and what a virtual machine's processors share: everything that KVM tells
//! ([api.rst](https://docs.kernel.org/virt/kvm/api.html)).

use crate::system;
use crate::vcpu::VcpuError;
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, Msrs,
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

/// Model-specific registers (Intel SDM, volume 4): the time-stamp counter, and the deadline of the local timer, which makes sense only
/// once the counter is set and the local interrupt controller is there.
const COUNTER: u32 = 0x10;
const COUNTER_DEADLINE: u32 = 0x6e0;

/// One processor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorState {
    /// Its number.
    pub number: u8,
    features: Vec<kvm_cpuid_entry2>,
    counter_khz: u32,
    registers: kvm_regs,
    special: kvm_sregs,
    #[serde(with = "super::extended")]
    extended: kvm_xsave,
    extended_control: Option<kvm_xcrs>,
    debug: kvm_debugregs,
    /// Only where the interrupt controllers are KVM's.
    local: Option<kvm_lapic_state>,
    activity: Option<kvm_mp_state>,
    model_specific: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// What the processors share; nothing where the interrupt controllers are not KVM's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmState {
    controllers: Vec<kvm_irqchip>,
    clock: Option<kvm_clock_data>,
}

/// Saves a processor that is not running and that has nothing under way with user space. `shared`: the interrupt controllers are KVM's.
pub fn save(kvm: &Kvm, vcpu: &VcpuFd, number: u8, shared: bool) -> Result<ProcessorState, VcpuError> {
    let read = VcpuError::system;
    if shared {
        // A guest without the clock refuses.
        let _ = vcpu.kvmclock_ctrl();
    }
    // In this order, since reading one may change another (api.rst, "KVM_GET_MP_STATE" and "KVM_GET_VCPU_EVENTS").
    let activity = shared.then(|| vcpu.get_mp_state()).transpose().map_err(read("read whether it halts"))?;
    let registers = vcpu.get_regs().map_err(read("read the registers"))?;
    let special = vcpu.get_sregs().map_err(read("read the special registers"))?;
    let extended = vcpu.get_xsave().map_err(read("read the extended state"))?;
    let extended_control = vcpu.get_xcrs().ok();
    let debug = vcpu.get_debug_regs().map_err(read("read the debug registers"))?;
    let local = shared.then(|| vcpu.get_lapic()).transpose().map_err(read("read the local interrupt controller"))?;
    let counter_khz = vcpu.get_tsc_khz().map_err(read("read the counter's frequency"))?;
    let features = features(vcpu)?;
    let model_specific = model_specific(kvm, vcpu)?;
    let events = vcpu.get_vcpu_events().map_err(read("read the events"))?;
    Ok(ProcessorState {
        number,
        features,
        counter_khz,
        registers,
        special,
        extended,
        extended_control,
        debug,
        local,
        activity,
        model_specific,
        events,
    })
}

/// Reads what cpuid says. KVM leaves the number of entries as it was asked for (Linux 6.1), and those at the end empty.
fn features(vcpu: &VcpuFd) -> Result<Vec<kvm_cpuid_entry2>, VcpuError> {
    let read = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(VcpuError::system("read the features"))?;
    let entries = read.as_slice();
    let used = entries.iter().rposition(|entry| *entry != kvm_cpuid_entry2::default());
    Ok(entries[..used.map_or(0, |last| last + 1)].to_vec())
}

/// Reads each model-specific register that KVM says must be saved and that this processor has.
fn model_specific(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    let list = kvm.get_msr_index_list().map_err(VcpuError::system("list the model-specific registers"))?;
    let mut wanted: Vec<kvm_msr_entry> =
        list.as_slice().iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    let mut found = Vec::with_capacity(wanted.len());
    // KVM stops at the first that it cannot read.
    while !wanted.is_empty() {
        let mut batch = Msrs::from_entries(&wanted)
            .map_err(|_| VcpuError::Unexpected("KVM names more registers than it reads".into()))?;
        let read = vcpu.get_msrs(&mut batch).map_err(VcpuError::system("read the model-specific registers"))?;
        found.extend_from_slice(&batch.as_slice()[..read]);
        wanted.drain(..(read + 1).min(wanted.len()));
    }
    found.sort_by_key(|entry| (entry.index == COUNTER_DEADLINE, entry.index != COUNTER));
    Ok(found)
}

/// Saves what the processors share.
pub fn save_shared(vm: &VmFd) -> Result<VmState, VcpuError> {
    let mut controllers = Vec::new();
    for chip in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
        let mut controller = kvm_irqchip { chip_id: chip, ..Default::default() };
        vm.get_irqchip(&mut controller).map_err(VcpuError::system("read an interrupt controller"))?;
        controllers.push(controller);
    }
    let mut clock = vm.get_clock().map_err(VcpuError::system("read the clock"))?;
    // What else is in it is for those who read it.
    clock.flags = 0;
    Ok(VmState { controllers, clock: Some(clock) })
}

/// Restores what the processors share, of a machine whose controllers and processors are made.
pub fn restore_shared(vm: &VmFd, state: &VmState) -> Result<(), VcpuError> {
    for controller in &state.controllers {
        vm.set_irqchip(controller).map_err(VcpuError::system("set an interrupt controller"))?;
    }
    if let Some(clock) = &state.clock {
        vm.set_clock(clock).map_err(VcpuError::system("set the clock"))?;
    }
    Ok(())
}

/// Restores a processor that was just made; gives the frequency of its time-stamp counter in kHz.
pub fn restore(vcpu: &VcpuFd, state: &ProcessorState) -> Result<u32, VcpuError> {
    let set = VcpuError::system;
    // The features first, since KVM checks what follows against them.
    if !state.features.is_empty() {
        let features = CpuId::from_entries(&state.features)
            .map_err(|_| VcpuError::Unexpected("the snapshot has more features than KVM takes".into()))?;
        vcpu.set_cpuid2(&features).map_err(set("set the features"))?;
    }
    let frequency = || vcpu.get_tsc_khz().map_err(set("read the counter's frequency"));
    let mut counter_khz = frequency()?;
    if counter_khz != state.counter_khz {
        // A processor that can't scale its counter goes at its own pace, and the guest is told the time.
        let _ = vcpu.set_tsc_khz(state.counter_khz);
        counter_khz = frequency()?;
    }
    if let Some(activity) = state.activity {
        vcpu.set_mp_state(activity).map_err(set("set whether it halts"))?;
    }
    vcpu.set_sregs(&state.special).map_err(set("set the special registers"))?;
    vcpu.set_regs(&state.registers).map_err(set("set the registers"))?;
    system::set_extended_state(vcpu, &state.extended).map_err(set("set the extended state"))?;
    // What is as it is after a reset need not be set: each call loads the processor first.
    if let Some(control) = state.extended_control.as_ref().filter(|control| **control != reset_control()) {
        vcpu.set_xcrs(control).map_err(set("set the extended control registers"))?;
    }
    if state.debug != reset_debug() {
        vcpu.set_debug_regs(&state.debug).map_err(set("set the debug registers"))?;
    }
    if let Some(local) = &state.local {
        vcpu.set_lapic(local).map_err(set("set the local interrupt controller"))?;
    }
    set_model_specific(vcpu, &state.model_specific)?;
    // The flags say which of the rest are valid.
    if (kvm_vcpu_events { flags: 0, ..state.events }) != kvm_vcpu_events::default() {
        vcpu.set_vcpu_events(&state.events).map_err(set("set the events"))?;
    }
    if state.local.is_some() {
        // That time has passed is no fault of the guest's; one without the clock refuses.
        let _ = vcpu.kvmclock_ctrl();
    }
    Ok(counter_khz)
}

/// The extended control registers after a reset: the x87's state alone is enabled (Intel SDM, volume 3, 10.1.1, table 10-1).
fn reset_control() -> kvm_xcrs {
    let mut control = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    control.xcrs[0].value = 1;
    control
}

/// The debug registers after a reset (the same table).
fn reset_debug() -> kvm_debugregs {
    kvm_debugregs { dr6: 0xffff_0ff0, dr7: 0x400, ..Default::default() }
}

/// Sets the model-specific registers that hold something else. KVM lists some that it lets nobody write but as they are.
fn set_model_specific(vcpu: &VcpuFd, wanted: &[kvm_msr_entry]) -> Result<(), VcpuError> {
    let batch = |entries: &[kvm_msr_entry]| {
        Msrs::from_entries(entries)
            .map_err(|_| VcpuError::Unexpected("the snapshot has more registers than KVM takes".into()))
    };
    let mut there = batch(wanted)?;
    let read = vcpu.get_msrs(&mut there).map_err(VcpuError::system("read the model-specific registers"))?;
    let there = &there.as_slice()[..read.min(wanted.len())];
    // KVM stops at the first that it cannot read: of what follows nothing is known.
    let differs =
        |(place, entry): &(usize, &kvm_msr_entry)| there.get(*place).is_none_or(|there| there.data != entry.data);
    let other: Vec<_> = wanted.iter().enumerate().filter(differs).map(|(_, entry)| *entry).collect();
    let written = vcpu.set_msrs(&batch(&other)?).map_err(VcpuError::system("set the model-specific registers"))?;
    match other.get(written) {
        None => Ok(()),
        Some(refused) => Err(VcpuError::Unexpected(format!(
            "the model-specific register {:#x} cannot be set to {:#x}",
            refused.index, refused.data
        ))),
    }
}
