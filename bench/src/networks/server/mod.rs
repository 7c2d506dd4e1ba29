//! The name server of a host's networks: one process for all of them, from the first network of one's own to the last.
//!
//! It is this program under a hidden subcommand. It holds a lock as long as it serves, so that there is one; it takes one order
//! on a socket, to look again which networks there are, and answers once it has. Whoever makes or removes a network gives the
//! order, and starts the server where nobody hears it; whoever joins a network looks at the lock alone. It keeps nothing in
//! memory that is not in the files, so that one that was killed is mended by the next command.

mod answer;
mod forward;
mod messages;
mod serve;

pub use serve::main;

use anyhow::{Context, bail};
use isobench_runtime::network::LockFile;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The hidden subcommand; [`main`] answers it.
pub const SUBCOMMAND: &str = "__names";

/// How long the server may take to look again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server answers when it has looked and all is well.
const DONE: &str = "done";

/// The file that the server holds locked.
fn lock_file(state: &Path) -> PathBuf {
    state.join("names.lock")
}

/// Where it takes orders.
fn socket(state: &Path) -> PathBuf {
    state.join("names.socket")
}

/// Sees to it that a server is there: one look at its lock, as a rule.
pub(super) fn see_to(state: &Path) -> anyhow::Result<()> {
    let lock = LockFile::at(&lock_file(state));
    if lock.path().exists() && lock.is_held(0)? { Ok(()) } else { look_again(state) }
}

/// Lets the server look again which networks there are, and waits until it serves them. It is started if there is none and
/// there are networks that need it.
pub(super) fn look_again(state: &Path) -> anyhow::Result<()> {
    match UnixStream::connect(socket(state)) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"look\n").and_then(|()| heard(&mut stream)).context("speak to the name server")?
        }
        Err(_) => start(state),
    }
}

/// Starts a server that is nobody's child, so that it is no zombie of ours when it ends.
fn start(state: &Path) -> anyhow::Result<()> {
    LockFile::create(&lock_file(state))?;
    let mut child = Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .arg(state)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the name server")?;
    let heard = child.stdout.take().map(|mut output| heard(&mut output));
    child.wait().context("start the name server")?;
    heard.context("start the name server")?.context("start the name server")?
}

/// The server's answer in a line: the outer error is one of hearing it.
fn heard(stream: &mut impl Read) -> std::io::Result<anyhow::Result<()>> {
    let mut line = String::new();
    BufReader::new(stream.take(4096)).read_line(&mut line)?;
    Ok(match line.trim() {
        DONE => Ok(()),
        "" => (|| bail!("it has ended without a word"))(),
        refusal => Err(super::Refusal(refusal.into()).into()),
    })
}
