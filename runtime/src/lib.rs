//! A container runtime: what a container is, as one recipe.
//!
//! A container is a process that the kernel lets see and do less. Launching one is this list, and nothing else; the
//! functions carry the names of the steps and stand in this order.
//!
//! In the launching process ([`launch()`]):
//!
//! 1. **validate** ([`Plan::validate`]): check what is asked for, and lay out in memory all that the new process will need.
//! 2. **create** (`system::clone3`): one [clone3(2)](https://man7.org/linux/man-pages/man2/clone3.2.html) makes the process
//!    in its new namespaces, with version 2 also in its [cgroup]. It *shares* this process's memory until exec, on a stack
//!    of its own: nothing is copied, so that a launch costs the same whatever this process holds.
//! 3. **attach** ([`network::Endpoint::attach`]): connect the host's side of the network, meanwhile.
//! 4. **settle** ([`network::Endpoint::await_carrier`]): the bridge catches up with the new link, so that the program's first
//!    packet is not lost.
//! 5. **watch** (`Shared::await_departure`): the kernel clears a shared word when the process leaves the shared memory, by
//!    becoming the program or by its end; which of the two it was stands in the block beside it. No pipe is needed.
//!
//! In the new process (`child::become_program`), which only makes system calls on what was laid out:
//!
//! 1. **join_cgroups**: only with version 1; from here on its own cgroup pays for all that it does.
//! 2. **map_user**: an ordinary user becomes root of a new user namespace.
//! 3. **join_namespaces**: another container's network; and a cgroup namespace.
//! 4. **name_host**; **set_parameters** ([`parameters`]): what else belongs to its own namespaces.
//! 5. **change_root** ([`root`]): enter the new root, make its mounts, hide what Docker hides, detach the old root.
//! 6. **await_host**: until step 3 above is done.
//! 7. **configure_network**: bring `lo` up, or send the prepared messages now that the link is there. Both are left out where
//!    the launching process does all of the network meanwhile ([`NetworkMode::Awaited`]): then step 3 above is that.
//! 8. **redirect_streams**: and mark every other descriptor to be closed (CVE-2024-21626).
//! 9. **limit_resources**: limits, a session and a keyring of its own.
//! 10. **open_terminal** ([`terminal`]): only where it is asked for.
//! 11. **await_network**: until step 4 above is done.
//! 12. **await_start**: only where creating and starting are two orders.
//! 13. **drop_capabilities** ([`capabilities`]).
//! 14. **refuse_privileges**: no exec can gain any from now on.
//! 15. **tie_to_parent**: only where the container is to end with the launching process.
//! 16. **filter_system_calls** ([`seccomp`]): last, so that the steps above need not be allowed.
//! 17. **execute**: the program becomes process 1 of the container.
//!
//! Another strategy, *pooled*, joins a network that was made ahead of the launch ([`prepared`]).
//!
//! A further process in a container that runs already takes the same steps, with the container's namespaces to join in place
//! of those to make ([`join()`]).
//!
//! ```
//! use isobench_runtime::{NetworkMode, Plan, Program, Specification, launch};
//! use isobench_runtime::launch::capture_output;
//! use std::{fs::File, os::fd::OwnedFd, sync::Arc, time::Duration};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any static program, which need not be in the container's root: this one may be missing on a machine.
//! let Ok(busybox) = File::open("/bin/busybox") else { return Ok(()) };
//! let program = Program::Descriptor(Arc::new(OwnedFd::from(busybox)));
//!
//! let arguments = ["busybox", "sh", "-c", "echo I am process $$ of $(hostname); exit 7"].map(String::from);
//! let mut specification = Specification::container(program, arguments.to_vec());
//! specification.network = NetworkMode::None;
//! specification.host_name = Some("lab".into());
//! let mut output = capture_output(&mut specification)?;
//!
//! let mut container = launch(Plan::validate(specification)?)?;
//! assert_eq!(output.line(Duration::from_secs(5))?, "I am process 1 of lab");
//! assert_eq!(container.process.wait(Duration::from_secs(5))?.code(), 7);
//! # Ok(())
//! # }
//! ```

pub mod capabilities;
pub mod cgroup;
mod child;
pub mod elsewhere;
mod error;
pub mod join;
pub mod launch;
pub mod network;
pub mod oci;
pub mod parameters;
mod plan;
pub mod prepared;
pub mod root;
mod sandbox;
pub mod seccomp;
mod shared;
mod specification;
mod syscalls;
mod system;
pub mod terminal;

pub use capabilities::Capabilities;
pub use child::Step;
pub use error::Error;
pub use join::join;
pub use launch::{Launched, launch, launch_while};
pub use plan::Plan;
pub use sandbox::{ContainerSandbox, Mode, SandboxNetwork};
pub use specification::{Namespaces, NetworkMode, Program, Root, Specification, Stream, User};
