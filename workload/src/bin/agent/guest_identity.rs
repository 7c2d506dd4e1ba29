//! How a Linux guest that goes on from a snapshot becomes another one: the monitor writes into its memory who it is and ends a line on
//! the serial console, which is the agent's standard input; the agent reads that and says when it is.
//!
//! A program that keeps random numbers of its own keeps them, as it keeps all that it has in memory; the kernel's are new.

use crate::Failure;
use crate::guest_init::leave;
use crate::netlink::Netlink;
use crate::system;
use isobench_workload::clock;
use isobench_workload::guest::{AWAITS, BECAME, IDENTITY, Identity, Network};
use nix::sys::signal::SigSet;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::fs::{File, Permissions};
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;

/// Stack of the thread.
const STACK: usize = 128 << 10;
/// How the random numbers' kernel is given something.
const RANDOM: &str = "/dev/urandom";

/// Listens for who the guest is to become, in a thread of its own.
pub(crate) fn listen(netlink: Netlink, network: Option<Network>) -> Result<(), Failure> {
    // Random numbers are in it.
    if let Err(error) = std::fs::set_permissions(IDENTITY, Permissions::from_mode(0o400)) {
        // The guest serves all the same, and is not saved.
        let _ = writeln!(std::io::stderr(), "isobench-agent: look for who it is to become in {IDENTITY}: {error}");
        return Ok(());
    }
    // What comes here is not to be repeated.
    let console = std::io::stdin();
    if let Ok(mut settings) = tcgetattr(&console) {
        settings.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&console, OptionalActions::Now, &settings)?;
    }
    // Signals are the first thread's, which waits for some of them.
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    let mut clone = Clone { netlink, network };
    let thread = std::thread::Builder::new().name("identity".into()).stack_size(STACK).spawn(move || {
        if let Err(error) = clone.attend() {
            let _ = writeln!(std::io::stderr(), "isobench-agent: become another guest: {error}");
            // As somebody else's double it must not go on.
            leave(1);
        }
    });
    before.thread_set_mask()?;
    thread?;
    crate::say(&format!("{AWAITS}\n"))
}

/// A guest that may become another.
struct Clone {
    netlink: Netlink,
    network: Option<Network>,
}

impl Clone {
    fn attend(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        while std::io::stdin().lock().read_line(&mut line)? != 0 {
            line.clear();
            let begun = clock::now();
            let text = std::fs::read(IDENTITY).map_err(|error| format!("read {IDENTITY}: {error}"))?;
            let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            // Before it is a clone, there is nothing.
            if length > 0 {
                self.become_another(serde_json::from_slice(&text[..length])?)?;
                crate::say(&format!("{BECAME}{}\n", (clock::now() - begun) / 1000))?;
            }
        }
        Ok(())
    }

    fn become_another(&mut self, identity: Identity) -> Result<(), Failure> {
        reseed(identity.seed.as_bytes()).map_err(|error| format!("take new random numbers: {error}"))?;
        let (seconds, nanoseconds) = (identity.time / 1_000_000_000, identity.time % 1_000_000_000);
        let time = Timespec { tv_sec: seconds.try_into()?, tv_nsec: nanoseconds.try_into()? };
        clock_settime(ClockId::Realtime, time).map_err(|error| format!("set the clock: {error}"))?;
        if let Some(name) = &identity.host_name {
            rustix::system::sethostname(name.as_bytes()).map_err(|error| format!("take the name {name}: {error}"))?;
        }
        for (name, text) in &identity.files {
            // A root need not have the directory.
            if !name.contains('/') && std::fs::exists("/etc")? {
                let path = format!("/etc/{name}");
                std::fs::write(&path, text).map_err(|error| format!("write {path}: {error}"))?;
            }
        }
        if let Some(network) = identity.network {
            self.netlink.reconfigure(self.network.as_ref(), &network)?;
            self.network = Some(network);
        }
        Ok(())
    }
}

/// Gives the kernel's random numbers something that no other guest has, and has it used at once: else it would go on for a minute
/// with what all clones have alike (random(4)).
fn reseed(seed: &[u8]) -> Result<(), Failure> {
    let mut random = File::options().write(true).open(RANDOM)?;
    random.write_all(seed)?;
    Ok(system::reseed(&random)?)
}
