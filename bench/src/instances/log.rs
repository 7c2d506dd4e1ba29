//! What a container wrote: a file of one JSON line for each of its lines.
//!
//! The file is bounded: when it is full it becomes `log.1`, in place of the one before.

use super::state::now;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// At that size the file is put aside.
const FULL: u64 = 16 << 20;

/// A line that is longer is written in pieces.
const LONGEST: usize = 16 << 10;

/// Which stream something was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it was read, as in RFC 3339.
    pub(crate) time: String,
    /// Where it was written to.
    pub(crate) stream: Source,
    /// What was written, with the end of the line where it has one.
    pub(crate) text: String,
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    size: u64,
    /// Lines that have no end yet, one a stream.
    open: [Vec<u8>; 2],
}

impl Log {
    /// Goes on with the file in the working directory.
    pub(super) fn open() -> io::Result<Self> {
        let file = append()?;
        Ok(Self { size: file.metadata()?.len(), file, open: [Vec::new(), Vec::new()] })
    }

    /// Takes what was read from a stream.
    pub(super) fn write(&mut self, source: Source, bytes: &[u8]) -> io::Result<()> {
        let mut lines = Vec::new();
        let open = &mut self.open[source as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(piece);
            if open.ends_with(b"\n") || open.len() >= LONGEST {
                describe(source, open, &mut lines);
                open.clear();
            }
        }
        self.append(&lines)
    }

    /// Writes down lines that will never have an end.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        for source in [Source::Stdout, Source::Stderr] {
            let open = std::mem::take(&mut self.open[source as usize]);
            if !open.is_empty() {
                describe(source, &open, &mut lines);
            }
        }
        self.append(&lines)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.size > FULL {
            fs::rename("log", "log.1")?;
            self.file = append()?;
            self.size = 0;
        }
        self.size += lines.len() as u64;
        self.file.write_all(lines)
    }
}

fn append() -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open("log")
}

fn describe(source: Source, text: &[u8], into: &mut Vec<u8>) {
    let entry = Entry { time: now(), stream: source, text: String::from_utf8_lossy(text).into_owned() };
    if serde_json::to_writer(&mut *into, &entry).is_ok() {
        into.push(b'\n');
    }
}

/// The reading side: goes through the file, and later through what has been added since.
#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    /// A line that is not complete yet.
    partial: String,
}

impl Reader {
    /// Begins a file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), partial: String::new() })
    }

    /// The next entry; `None` at the end so far. A line that is no entry is passed over.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if self.file.read_line(&mut self.partial)? == 0 || !self.partial.ends_with('\n') {
                return Ok(None);
            }
            let entry = serde_json::from_str(&self.partial);
            self.partial.clear();
            if let Ok(entry) = entry {
                return Ok(Some(entry));
            }
        }
    }
}

/// All entries so far in a container's directory, the one put aside first, and the reader of what follows.
pub(crate) fn read(directory: &Path) -> io::Result<(Vec<Entry>, Option<Reader>)> {
    let mut entries = Vec::new();
    let mut last = None;
    for name in ["log.1", "log"] {
        let mut reader = match Reader::open(&directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            reader => reader?,
        };
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        last = Some(reader);
    }
    Ok((entries, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut log = Log { file, size: 0, open: [Vec::new(), Vec::new()] };
        log.write(Source::Stdout, b"one\ntw").unwrap();
        log.write(Source::Stderr, b"\xffbad\n").unwrap();
        log.write(Source::Stdout, b"o\nrest").unwrap();
        log.finish().unwrap();
        let (entries, _) = read(place.path()).unwrap();
        let said: Vec<_> = entries.iter().map(|entry| (entry.stream, entry.text.as_str())).collect();
        use Source::{Stderr, Stdout};
        assert_eq!(said, [(Stdout, "one\n"), (Stderr, "\u{fffd}bad\n"), (Stdout, "two\n"), (Stdout, "rest")]);
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut log = Log { file, size: 0, open: [Vec::new(), Vec::new()] };
        log.write(Source::Stdout, &vec![b'a'; LONGEST + 1]).unwrap();
        assert_eq!(read(place.path()).unwrap().0.len(), 1);
    }
}
