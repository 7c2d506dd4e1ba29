//! The machine as the guest sees it: ports, registers, the time-stamp counter, memory at fixed places. With [`runtime`] the
//! image's only `unsafe` code.
//!
//! [`runtime`]: crate::runtime

use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use isobench_guest::contract::{
    self, BootParameters, GENERATION, Milestone, Network, PORT_BOOT_TIMER, PORT_EXCHANGE, PORT_EXIT, PORT_PANIC,
    PORT_SLEEP,
};
use isobench_guest::platform::Platform;
use isobench_guest::virtio::{Arena, NetworkCard, Ring};
use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::{Duration, Instant};

fn out8(port: u16, value: u8) {
    // SAFETY: the port is open to the guest; the monitor's ports touch no memory of the guest.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) }
}

/// Says how far the guest has come.
pub(crate) fn reached(milestone: Milestone) {
    out8(PORT_BOOT_TIMER, milestone as u8);
}

/// Ends the guest.
pub(crate) fn exit(status: u8) -> ! {
    loop {
        out8(PORT_EXIT, status);
    }
}

/// Reports a panic, which ends the guest.
pub(crate) fn panicked(message: &[u8]) -> ! {
    loop {
        // SAFETY: as in `out8`; the monitor reads the message.
        unsafe {
            asm!("out dx, al", in("dx") PORT_PANIC, in("al") 0_u8, in("rdi") message.as_ptr(), in("rsi") message.len(),
                options(nostack, preserves_flags, readonly));
        }
    }
}

/// Sleeps until the card has something to say, at most so long.
pub(crate) fn sleep(limit: Option<Duration>) {
    wait_at(PORT_SLEEP, limit);
}

/// Has the card's frames moved at once, both ways, and sleeps until there is one, at most so long.
fn exchange(limit: Option<Duration>) {
    wait_at(PORT_EXCHANGE, limit);
}

fn wait_at(port: u16, limit: Option<Duration>) {
    let microseconds = limit.map_or(u32::MAX, |limit| u32::try_from(limit.total_micros()).unwrap_or(u32::MAX - 1));
    // SAFETY: as in `out8`; what the monitor writes to are the card's buffers and rings, as it may at any time.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") microseconds, options(nostack, preserves_flags)) }
}

/// The parameters of this boot.
pub(crate) fn parameters() -> Option<BootParameters> {
    // SAFETY: the monitor mapped the page and wrote the parameters before the guest was entered.
    BootParameters::decode(unsafe { &*(contract::BOOT_PARAMETERS as *const [u8; BootParameters::SIZE]) })
}

/// How often this guest has gone on from a snapshot.
fn generation() -> u32 {
    // SAFETY: as in `parameters`, and aligned; the monitor may have written another number while the guest was stopped.
    unsafe { ((contract::BOOT_PARAMETERS as usize + GENERATION) as *const u32).read_volatile() }
}

/// Sees when this guest has become a clone.
pub(crate) struct Generation(u32);

impl Generation {
    /// As it was when these parameters were read.
    pub(crate) fn of(parameters: &BootParameters) -> Self {
        Self(parameters.generation)
    }

    /// The parameters of the clone that this guest has become since the last call; says that it has begun.
    pub(crate) fn renewed(&mut self) -> Option<BootParameters> {
        let now = generation();
        if now == self.0 {
            return None;
        }
        self.0 = now;
        reached(Milestone::Entered);
        parameters()
    }
}

/// The rings of the receive and the transmit queue, and all memory after the image. To be called once.
pub(crate) fn memory(parameters: &BootParameters) -> (&'static Ring, &'static Ring, Arena<'static>) {
    let length = parameters.memory.saturating_sub(contract::BUFFERS) as usize;
    // SAFETY: these addresses are mapped, aligned to pages, belong to nothing else (`contract`), and hold zeros or, in the
    // case of rings, atomics, for which every value is valid. Of the callers, `serve` and `hold`, one
    // is called, and never returns.
    unsafe {
        let [receive, transmit] = contract::RINGS.map(|address| &*(address as *const Ring));
        let memory = core::slice::from_raw_parts_mut(contract::BUFFERS as *mut u8, length);
        (receive, transmit, Arena::new(memory))
    }
}

/// Makes the processor fault, for the test of how that is reported.
pub(crate) fn write_to_null() -> ! {
    // SAFETY: not sound, which is the point: page 0 is not mapped, so this faults and does not come back.
    unsafe { asm!("mov byte ptr [rdi], 1", in("rdi") 0, options(nostack)) }
    exit(1)
}

/// Halts the processor, for the same test: a general protection fault at CPL 3 (Intel SDM, volume 2, HLT).
pub(crate) fn halt() -> ! {
    // SAFETY: the instruction touches no memory; here it faults and does not come back.
    unsafe { asm!("hlt", options(nomem, nostack)) }
    exit(1)
}

/// Executes data, for the same test: the boot parameters' page is not executable.
pub(crate) fn jump_into_data() -> ! {
    // SAFETY: not sound, which is the point: the page can't be executed, so this faults and does not come back.
    unsafe { asm!("jmp {0}", in(reg) contract::BOOT_PARAMETERS, options(noreturn)) }
}

/// The network card with the time-stamp counter as clock.
pub(crate) struct Machine<'a> {
    card: NetworkCard<'a>,
    counter_khz: u64,
    spin: u64,
    /// Whether the monitor moves frames in exchanges alone: from one until this has slept.
    exchanges: bool,
    /// How many of the next waits are exchanges.
    ahead: u32,
    /// How many followed the last time that looking for a frame was in vain; none since it was not. At first as many as ever: nobody has
    /// asked anything yet, and the first frame comes soonest to whoever waits in an exchange.
    last_ahead: u32,
    /// When the last exchange ended.
    exchanged: u64,
    generation: Generation,
}

/// Who has moved so many bytes since the last wait has the monitor exchange frames at once: an exit for it costs less than waking another
/// thread, and frames are moved where they were written and are read.
const MUCH: usize = 32 << 10;

/// Where looking for a frame was in vain, the next waits are exchanges, twice as many each time, up to so many: most often whoever is
/// to send the frame waits for this processor, and an exchange lets others go first. It also spares the wake-up of the card's thread.
/// Once in a while it is just that this processor did something else meanwhile.
const EXCHANGES: u32 = 64;

/// After so many microseconds of something else to do, frames are left to the card's thread again: they would wait for it.
const LEFT_ALONE: u64 = 1000;

impl<'a> Machine<'a> {
    pub(crate) fn new(card: NetworkCard<'a>, parameters: &BootParameters) -> Self {
        let counter_khz = parameters.counter_khz.max(1);
        let spin = u64::from(parameters.network.spin_microseconds) * counter_khz / 1000;
        let generation = Generation::of(parameters);
        Self { card, counter_khz, spin, exchanges: false, ahead: 0, last_ahead: EXCHANGES, exchanged: 0, generation }
    }

    fn exchange(&mut self, limit: Option<Duration>) {
        self.exchanges = true;
        self.ahead = self.ahead.saturating_sub(1);
        exchange(limit);
        self.exchanged = counter();
    }

    /// Sleeps, and leaves frames to the card's thread from then on.
    fn sleep(&mut self, limit: Option<Duration>) {
        self.exchanges = false;
        sleep(limit);
    }
}

fn counter() -> u64 {
    // SAFETY: the monitor leaves CR4.TSD clear.
    unsafe { _rdtsc() }
}

impl Platform for Machine<'_> {
    fn now(&mut self) -> Instant {
        // 128 bits, since the product passes 64 after days.
        Instant::from_micros((u128::from(counter()) * 1000 / u128::from(self.counter_khz)) as i64)
    }

    fn flush(&mut self) {
        // SAFETY: the register window is mapped and answers to aligned 32-bit writes.
        self.card.flush(|offset, value| unsafe {
            ((contract::NETWORK_CARD + offset) as *mut u32).write_volatile(value);
        });
        if self.exchanges && counter().wrapping_sub(self.exchanged) > LEFT_ALONE * self.counter_khz / 1000 {
            self.sleep(Some(Duration::ZERO));
        }
    }

    fn wait(&mut self, limit: Option<Duration>) {
        // What there is no room for waits for all that is to be sent, and for its answer there may have been no room either.
        let room = self.card.has_room();
        if !room || self.card.take_moved() >= MUCH || self.spin == 0 {
            self.ahead = EXCHANGES;
        }
        if self.ahead > 0 {
            return self.exchange(if room && !self.card.has_frame() { limit } else { Some(Duration::ZERO) });
        }
        // After an exchange nobody else moves frames before this has slept, however often it finds that it need not.
        let spin = if self.exchanges { 0 } else { self.spin };
        let started = counter();
        let limit_ticks = limit.map(|limit| limit.total_micros().saturating_mul(self.counter_khz) / 1000);
        loop {
            // The time first: else a frame that came while this processor did something else would seem not to be there.
            let waited = counter().wrapping_sub(started);
            if self.card.has_frame() {
                break;
            }
            if !self.exchanges && limit_ticks.is_some_and(|limit| waited >= limit) {
                return;
            }
            if waited >= spin {
                if spin > 0 {
                    self.last_ahead = (self.last_ahead * 2).clamp(1, EXCHANGES);
                    self.ahead = self.last_ahead;
                    self.exchange(limit);
                } else if !self.card.ask_to_be_told() {
                    self.sleep(limit);
                }
                return;
            }
            core::hint::spin_loop();
        }
        if spin > 0 {
            self.last_ahead = 0;
        }
    }

    fn renewed(&mut self) -> Option<(Network, u64)> {
        let parameters = self.generation.renewed()?;
        self.counter_khz = parameters.counter_khz.max(1);
        self.spin = u64::from(parameters.network.spin_microseconds) * self.counter_khz / 1000;
        Some((parameters.network, parameters.seed))
    }

    fn listens_again(&mut self) {
        reached(Milestone::Ready);
    }
}

impl<'a> Device for Machine<'a> {
    type RxToken<'t>
        = <NetworkCard<'a> as Device>::RxToken<'t>
    where
        Self: 't;
    type TxToken<'t>
        = <NetworkCard<'a> as Device>::TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.card.receive(now)
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.card.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.card.capabilities()
    }
}
