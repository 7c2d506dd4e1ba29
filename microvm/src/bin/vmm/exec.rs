//! The subcommand `exec`: a further program in a running Linux guest, whose standard streams are this process's.

use crate::arguments::{ArgumentError, each};
use crate::linux::Handle;
use isobench_microvm::linux::session::program;
use isobench_workload::guest::GuestCommand;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

/// Largest command that is read: what is too long for a frame is refused with its length.
const LARGEST_COMMAND: u64 = 1 << 20;

/// Runs the program and gives its exit status.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<u8, Box<dyn std::error::Error>> {
    let (mut socket, mut command) = (None, None);
    each(words, &[&["--socket", "--command"]], |option, raw| {
        let value = raw.to_string_lossy().into_owned();
        let wrong = ArgumentError::Value { option, value, wanted: "a path or an open file descriptor" };
        let handle = Handle::parse(raw.as_bytes()).ok_or(wrong)?;
        *(if option == "--socket" { &mut socket } else { &mut command }) = Some(handle);
        Ok(())
    })?;
    let command = command.ok_or(ArgumentError::Missing("--command"))?;
    let socket = socket.ok_or(ArgumentError::Missing("--socket"))?;
    Ok(program::run(connect(socket)?, &read(command)?)?)
}

fn connect(handle: Handle) -> io::Result<UnixStream> {
    match handle {
        Handle::Inherited(descriptor, _) => Ok(descriptor.into()),
        Handle::File(path) => UnixStream::connect(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("connect to the session at {}: {error}", path.display()))
        }),
    }
}

fn read(handle: Handle) -> io::Result<GuestCommand> {
    let (file, name) = match handle {
        Handle::Inherited(descriptor, name) => (Ok(File::from(descriptor)), name),
        Handle::File(path) => (File::open(&path), path.display().to_string()),
    };
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("read the command in {name}: {error}"));
    let mut file = file.map_err(failed)?;
    // It may have been written by whoever handed it on; a pipe has no beginning to go to.
    let _ = file.rewind();
    let mut text = Vec::new();
    file.take(LARGEST_COMMAND).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}
