//! Tar files as roots: unpacked once for each content, and safely.
//!
//! Every path of an archive is looked up by the kernel as in a `chroot` of the new directory
//! ([openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html), `RESOLVE_IN_ROOT`): whatever links the archive has
//! made before, nothing outside is ever opened, made or linked to. Device nodes are skipped: a container gets its own. So are
//! owners where an ordinary user unpacks.

use super::cache::{self, Unfinished};
use super::zstd::{self, Zstd};
use crate::commands::BadInput;
use anyhow::{Context, anyhow, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, fstatvfs,
    futimens, linkat, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// The directory of an archive's content, which is unpacked where the cache does not have it.
pub(super) fn unpacked(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    let cache = cache::directory()?;
    let mut file = File::open(path).with_context(|| BadInput(format!("cannot read the root {shown}")))?;
    let name = name(&cache, &mut file).with_context(|| format!("read the root {shown}"))?;
    if let Some(there) = cache::has(&cache, &name) {
        return Ok(there);
    }
    let unfinished = Unfinished::create(&cache)?;
    let rewound = file.rewind().map_err(Into::into);
    rewound.and_then(|()| unpack(file, unfinished.descriptor().as_fd())).map_err(|error| {
        // A full disk is no fault of the archive.
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
        let errno = |cause: &(dyn std::error::Error + 'static)| {
            let of_io = || Errno::from_io_error(cause.downcast_ref::<io::Error>()?);
            cause.downcast_ref::<Errno>().copied().or_else(of_io)
        };
        let no_fault = error.chain().filter_map(errno).any(|errno| full.contains(&errno));
        if no_fault {
            error.context(format!("unpack {shown} into {}", cache.display()))
        } else {
            error.context(BadInput(format!("{shown} is no root that can be unpacked")))
        }
    })?;
    unfinished.finish(&name)
}

/// The name of an archive's directory, after its content. The digest is kept beside it by what tells the file from others, so
/// that a large one is not read for every launch.
fn name(cache: &Path, file: &mut File) -> anyhow::Result<String> {
    let metadata = file.metadata()?;
    let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
    let changed = format!("{}.{:09}", metadata.ctime(), metadata.ctime_nsec());
    let identity = cache.join("archives").join(format!("{device:x}-{inode:x}-{size:x}-{changed}"));
    if let Ok(known) = std::fs::read_to_string(&identity)
        && known.len() == 16
    {
        return Ok(format!("root-{known}"));
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => digest.update(&buffer[..length]),
        }
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    std::fs::create_dir_all(cache.join("archives"))?;
    std::fs::write(&identity, &digest)?;
    Ok(format!("root-{digest}"))
}

/// The archive inside a file, by its first bytes: plain, gzip or zstd.
fn open(file: impl Read + 'static) -> anyhow::Result<Box<dyn Read>> {
    let mut stream = BufReader::with_capacity(1 << 18, file);
    let begin = io::BufRead::fill_buf(&mut stream)?;
    Ok(match begin {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        begin if zstd::begins(begin) => Box::new(Zstd::new(stream)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] | [b'B', b'Z', b'h', ..] => {
            bail!("it is compressed by xz or bzip2: decompress it first; gzip and zstd are read as they are")
        }
        [] => bail!("it is empty"),
        _ => Box::new(stream),
    })
}

/// Unpacks an archive, plain or compressed, into an empty directory.
///
/// # Errors
/// Where it is broken or cannot be unpacked there; the directory is then to be thrown away.
pub fn unpack(archive: impl Read + 'static, root: BorrowedFd<'_>) -> anyhow::Result<()> {
    let stream = open(archive)?;
    let mut target = Target { root, owners: rustix::process::geteuid().is_root(), modes: Vec::new(), made: 0 };
    let mut archive = Archive::new(Tail { stream, last: [1; 512], filled: 0 });
    for (number, entry) in archive.entries().context("it is no tar archive")?.enumerate() {
        let entry = match entry {
            // The first header is none.
            Err(error) if number == 0 && error.kind() == ErrorKind::Other => bail!("it is no tar archive"),
            // What is told quotes the header, whatever it is.
            Err(error) => Err(io::Error::new(error.kind(), error.to_string().escape_debug().to_string())),
            Ok(entry) => Ok(entry),
        };
        let entry = entry.context("the archive is damaged")?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        target.take(entry).with_context(|| format!("unpack its entry {path}"))?;
    }
    let mut tail = archive.into_inner();
    // Both end blocks are zeros, and an archive that was cut short between two entries has none.
    if !tail.ended() {
        bail!("the archive has no end: it was cut short");
    }
    // What was compressed has its checksum behind all of it.
    io::copy(&mut tail.stream, &mut io::sink()).context("the archive is damaged")?;
    if target.made == 0 {
        bail!("the archive has nothing in it");
    }
    target.close()
}

/// A stream that remembers its last block.
struct Tail<R> {
    stream: R,
    last: [u8; 512],
    filled: usize,
}

impl<R> Tail<R> {
    /// Whether the last whole block that was read is all zeros, as the end of an archive is.
    fn ended(&self) -> bool {
        self.filled >= 512 && self.last.iter().all(|byte| *byte == 0)
    }
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        let new = &buffer[..length];
        let new = &new[new.len().saturating_sub(512)..];
        self.last.copy_within(new.len().., 0);
        self.last[512 - new.len()..].copy_from_slice(new);
        self.filled = (self.filled + length).min(512);
        Ok(length)
    }
}

/// The directory that an archive is unpacked into.
struct Target<'a> {
    root: BorrowedFd<'a>,
    /// Whether files get the owners that the archive names.
    owners: bool,
    /// Modes of directories, given at the end: until then we must be able to write in them.
    modes: Vec<(PathBuf, RawMode)>,
    made: u64,
}

impl Target<'_> {
    fn take(&mut self, mut entry: Entry<'_, impl Read>) -> anyhow::Result<()> {
        let kind = entry.header().entry_type();
        let path = clean(&entry.path()?)?;
        let mode = entry.header().mode()? & 0o7777;
        if path.as_os_str().is_empty() {
            // The root itself: `./`.
            if kind == EntryType::Directory {
                self.modes.push((path, mode));
            }
            return Ok(());
        }
        let (parent, name) = self.parent(&path)?;
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, &name, Mode::RWXU) {
                    Err(Errno::EXIST) if self.is_directory(&path) => {}
                    Err(Errno::EXIST) => {
                        unlinkat(&parent, &name, AtFlags::empty())?;
                        mkdirat(&parent, &name, Mode::RWXU)?;
                    }
                    result => result?,
                }
                self.own(&openat(&parent, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?, &entry)?;
                self.modes.push((path, mode));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(&parent, &name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?);
                let size = entry.size();
                let length = if kind == EntryType::GNUSparse {
                    self.admit(size)?;
                    copy_with_holes(&mut entry, &mut file)?
                } else {
                    io::copy(&mut entry, &mut file)?
                };
                if length != size {
                    bail!("it has {length} of {size} bytes: the archive was cut short");
                }
                self.own(&file, &entry)?;
                fchmod(&file, Mode::from_raw_mode(mode))?;
                let time = Timespec { tv_sec: entry.header().mtime().unwrap_or(0) as i64, tv_nsec: 0 };
                futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
            }
            EntryType::Symlink => {
                let to = entry.link_name_bytes().context("it is a link to nothing")?;
                clear(&parent, &name)?;
                symlinkat(to.as_ref(), &parent, &name)?;
            }
            EntryType::Link => {
                let to = clean(&entry.link_name()?.context("it is a link to nothing")?)?;
                let (to_parent, to_name) = self.parent(&to)?;
                if to == path {
                    bail!("it is a link to itself");
                }
                clear(&parent, &name)?;
                linkat(&to_parent, &to_name, &parent, &name, AtFlags::empty())
                    .map_err(|errno| anyhow!("it is a link to {}, which is not there ({errno})", to.display()))?;
            }
            EntryType::Fifo => {
                clear(&parent, &name)?;
                mknodat(&parent, &name, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
            }
            EntryType::Block | EntryType::Char => return Ok(()),
            // Headers of the archive itself are followed by what they speak of; the library has read them.
            _ => return Ok(()),
        }
        self.made += 1;
        Ok(())
    }

    /// The directory that a path lies in, made where it is missing, and the last part of the path.
    fn parent(&self, path: &Path) -> anyhow::Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().context("it has no name")?.into();
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.directory(parent) {
            Err(Errno::NOENT) => {}
            result => return Ok((result?, name)),
        }
        let mut made = PathBuf::new();
        for part in parent.components() {
            let above = self.directory(&made)?;
            match mkdirat(&above, part.as_os_str(), Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH) {
                // A link may be there, and what it leads to may not.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            made.push(part);
        }
        let lost = |errno| anyhow!("its directory {} is not there ({errno})", parent.display());
        Ok((self.directory(parent).map_err(lost)?, name))
    }

    /// Opens a directory as a process would see it whose root is the target.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(self.root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// A file with holes says itself how large it is, and its archive may be small.
    fn admit(&self, size: u64) -> anyhow::Result<()> {
        let state = fstatvfs(self.root).context("look how much room there is")?;
        let room = state.f_bavail.saturating_mul(state.f_frsize);
        if size > room {
            bail!("it says that it has {size} bytes, and there is room for {room}");
        }
        Ok(())
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.directory(path).is_ok()
    }

    fn own(&self, file: impl AsFd, entry: &Entry<'_, impl Read>) -> anyhow::Result<()> {
        if self.owners {
            let (user, group) = (entry.header().uid()?, entry.header().gid()?);
            let (user, group) = (u32::try_from(user)?, u32::try_from(group)?);
            match fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))) {
                // Root of a user namespace has not all numbers.
                Err(Errno::INVAL | Errno::PERM) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Gives directories their modes, the innermost first.
    fn close(mut self) -> anyhow::Result<()> {
        while let Some((path, mode)) = self.modes.pop() {
            // Something else may have come in its place.
            if let Ok(directory) = self.directory(&path) {
                fchmod(&directory, Mode::from_raw_mode(mode))?;
            }
        }
        Ok(())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Copies a file and leaves its holes open.
fn copy_with_holes(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    let (mut piece, mut length) = (Vec::new(), 0);
    loop {
        piece.clear();
        let read = from.by_ref().take(1 << 16).read_to_end(&mut piece)?;
        if read == 0 {
            to.set_len(length)?;
            return Ok(length);
        }
        length += read as u64;
        if piece.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Start(length))?;
        } else {
            to.write_all(&piece)?;
        }
    }
}

/// Removes what an earlier entry has put there; a directory stays, and is an error.
fn clear(parent: &OwnedFd, name: &Path) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A path below the root: without `/` before it, as tar(1) reads it, and without `.`. A `..` is refused.
fn clean(path: &Path) -> anyhow::Result<PathBuf> {
    if path.as_os_str().as_bytes().contains(&0) {
        bail!("its name holds a zero byte");
    }
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => cleaned.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => bail!("its name leads out of the archive by `..`"),
        }
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests;
