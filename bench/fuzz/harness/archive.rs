//! Archives that are to be roots.

use super::{Input, damage};
use isobench::roots;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use tar::{EntryType, Header};

/// Any bytes as an archive: as they are, or as entries with names that lead here and there. Whatever it is, nothing outside of
/// the directory that it is unpacked into is touched.
pub fn archive(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let archive = if input.bool() { composed(&mut input) } else { input.bytes(usize::MAX) };
    let Ok(scratch) = tempfile::tempdir() else { return };
    let (root, precious) = (scratch.path().join("root"), scratch.path().join("precious"));
    let made = fs::create_dir(&root).and_then(|()| fs::write(&precious, "precious"));
    // A link of ours, to something outside, does not help either.
    if made.and_then(|()| symlink("..", root.join("up"))).is_err() {
        return;
    }
    let Ok(before) = precious.symlink_metadata() else { return };
    let Ok(directory) = File::open(&root) else { return };
    let _ = roots::unpack(Cursor::new(archive), directory.as_fd());
    let after = precious.symlink_metadata().expect("what lies outside is still there");
    let same = |of: fn(&fs::Metadata) -> u64| of(&before) == of(&after);
    assert!(same(MetadataExt::ino) && same(MetadataExt::nlink), "what lies outside was replaced or linked to");
    assert!(same(|file| file.mode().into()) && same(|file| file.uid().into()), "what lies outside has changed hands");
    assert_eq!(fs::read(&precious).expect("a file"), b"precious", "what lies outside was written");
    assert_eq!(fs::read_dir(scratch.path()).expect("a directory").count(), 2, "something was made outside");
}

const KINDS: [EntryType; 10] = [
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Fifo,
    EntryType::Char,
    EntryType::Continuous,
    EntryType::GNULongName,
    EntryType::GNULongLink,
    EntryType::XHeader,
];

const PARTS: [&str; 7] = ["a", "b", "up", ".", "", "precious", "root"];

/// Entries whose checksums are right, so that they are looked at; then some damage.
fn composed(input: &mut Input<'_>) -> Vec<u8> {
    let mut archive = Vec::new();
    for _ in 0..=input.below(12) {
        if input.is_empty() {
            break;
        }
        let kind = KINDS[input.below(KINDS.len())];
        let (name, link) = (name(input), name(input));
        let content = match kind {
            EntryType::GNULongName | EntryType::GNULongLink => format!("{link}\0").into_bytes(),
            EntryType::XHeader => record(if input.bool() { "path" } else { "linkpath" }, &link).into_bytes(),
            _ => {
                let length = input.below(600);
                input.bytes(length)
            }
        };
        let mut header = Header::new_ustar();
        let raw = header.as_mut_bytes();
        raw[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        raw[157..157 + link.len().min(100)].copy_from_slice(&link.as_bytes()[..link.len().min(100)]);
        header.set_entry_type(kind);
        // Ours to remove afterwards.
        header.set_mode(u32::from(input.half()) & 0o7777 | 0o700);
        header.set_uid(u64::from(input.byte()) << (8 * (input.byte() % 4)));
        header.set_gid(u64::from(input.byte()));
        header.set_mtime(u64::from(input.word()));
        let lie = if input.byte() == 7 { input.word() } else { 0 };
        header.set_size(content.len() as u64 + u64::from(lie));
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(&content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    damage(&mut archive, input);
    archive
}

fn name(input: &mut Input<'_>) -> String {
    let absolute = if input.byte().is_multiple_of(8) { "/" } else { "" };
    let mut parts: Vec<&str> = (0..=input.below(3)).map(|_| PARTS[input.below(PARTS.len())]).collect();
    if input.byte() % 16 == 15 {
        parts.insert(input.below(parts.len()), "..");
    }
    format!("{absolute}{}", parts.join("/"))
}

/// A record of an extended header ([pax](https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html)): its own length
/// stands first.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (rest.len() + 1..).find(|length| length.to_string().len() + rest.len() == *length);
    format!("{}{rest}", length.unwrap_or_default())
}
