//! The subcommand `exec`: a further program in a running Linux guest, whose standard streams are this process's.

use crate::error::ArgumentError;
use crate::open::Descriptors;
use crate::values::{FileName, Value, Word};
use crate::words;
use isobench_microvm::linux::session::program;
use isobench_workload::guest::GuestCommand;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::net::UnixStream;

/// Largest command that is read: what is too long for a frame is refused with its length.
const LARGEST_COMMAND: u64 = 1 << 20;

/// The options.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Execution {
    socket: Option<Value<FileName>>,
    command: Option<Value<FileName>>,
}

/// Runs the program and gives its exit status.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<u8, Box<dyn std::error::Error>> {
    let Execution { socket, command } = words::read(words)?;
    let Value(command) = command.ok_or(ArgumentError::Missing("command".into()))?;
    let Value(socket) = socket.ok_or(ArgumentError::Missing("socket".into()))?;
    let mut descriptors = Descriptors::inherited(crate::handed_in());
    let socket = connect(&socket, &mut descriptors)?;
    Ok(program::run(socket, &read(&command, &mut descriptors)?)?)
}

fn connect(name: &FileName, descriptors: &mut Descriptors) -> Result<UnixStream, Box<dyn std::error::Error>> {
    match name {
        FileName::Open(number) => Ok(descriptors.take("socket", *number)?.into()),
        FileName::Path(path) => Ok(UnixStream::connect(path).map_err(|error| {
            io::Error::new(error.kind(), format!("connect to the session at {}: {error}", path.display()))
        })?),
    }
}

fn read(name: &FileName, descriptors: &mut Descriptors) -> Result<GuestCommand, Box<dyn std::error::Error>> {
    let said = name.json();
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("read the command in {}: {error}", said.as_str().unwrap_or_default()))
    };
    let mut file = match name {
        FileName::Open(number) => File::from(descriptors.take("command", *number)?),
        FileName::Path(path) => File::open(path).map_err(failed)?,
    };
    // It may have been written by whoever handed it on; a pipe has no beginning to go to.
    let _ = file.rewind();
    let mut text = Vec::new();
    file.take(LARGEST_COMMAND).read_to_end(&mut text).map_err(failed)?;
    Ok(serde_json::from_slice(&text).map_err(|error| failed(error.into()))?)
}
