//! What keeps an engine from running for an ordinary user, found out by trying what it does for each container.

use super::Engine;
use crate::testbed::cgroups;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

/// One sentence on what this testbed refuses to an engine, with what mends it.
pub(super) fn to(engine: Engine) -> Option<String> {
    let name = engine.name();
    let sentence = |errno| {
        format!(
            "{name} gives a container's terminals to group 5, which a user namespace of one user does not have ({errno}): run \
             isobench as root"
        )
    };
    cgroups::obstacle_to(name).or_else(|| terminals().err().map(sentence))
}

/// Makes the file system for terminals as the runtimes of engines ask for it, whose group is the one that distributions call
/// `tty`. It goes with the descriptor.
///
/// # Errors
/// `EINVAL` where the group is not mapped ([user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html)): the
/// launch of each container would fail by it. Any other refusal is not what is asked here.
pub(crate) fn terminals() -> Result<(), Errno> {
    let made = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(&context, "gid", "5")?;
        fsconfig_create(&context)
    });
    made.or_else(|errno| if errno == Errno::INVAL { Err(errno) } else { Ok(()) })
}
