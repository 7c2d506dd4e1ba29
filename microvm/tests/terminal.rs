//! The terminal of whoever runs a program in a guest: it is raw meanwhile, and afterwards what it was.

use isobench_workload::guest::{FIRST, GuestCommand, Kind, encode};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

#[test]
fn a_terminal_is_afterwards_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (path, command) = (directory.path().join("session"), directory.path().join("command"));
    serde_json::to_writer(File::create(&command).unwrap(), &GuestCommand::default()).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let terminal = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let before = tcgetattr(&terminal).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_isobench-vmm"))
        .args(["exec", "--socket", path.to_str().unwrap(), "--command", command.to_str().unwrap()])
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .spawn()
        .unwrap();
    let (mut session, _) = listener.accept().unwrap();
    // It asks once all is prepared.
    session.read_exact(&mut [0]).unwrap();
    let meanwhile = tcgetattr(&terminal).unwrap();
    let mut frames = Vec::new();
    encode(Kind::Exited, FIRST, &[7], &mut frames);
    session.write_all(&frames).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(7));
    let echoes = |settings: &Termios| settings.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON);
    assert!(echoes(&before) && !echoes(&meanwhile));
    assert_eq!(format!("{:?}", tcgetattr(&terminal).unwrap()), format!("{before:?}"));
}
