//! Archives as they should be, broken ones and hostile ones.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use tar::{Builder, Header};

/// Something in an archive.
#[derive(Clone, Debug)]
enum Item {
    File(String, Vec<u8>),
    Directory(String),
    Link(String, String),
    HardLink(String, String),
    Device(String),
}

/// An archive with these names as they are: the library would refuse some of them.
fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let (name, kind, content, to) = match item {
            Item::File(name, content) => (name, EntryType::Regular, &content[..], None),
            Item::Directory(name) => (name, EntryType::Directory, &[][..], None),
            Item::Link(name, to) => (name, EntryType::Symlink, &[][..], Some(to)),
            Item::HardLink(name, to) => (name, EntryType::Link, &[][..], Some(to)),
            Item::Device(name) => (name, EntryType::Char, &[][..], None),
        };
        let mut header = Header::new_ustar();
        let raw = header.as_mut_bytes();
        raw[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        if let Some(to) = to {
            raw[157..157 + to.len().min(100)].copy_from_slice(&to.as_bytes()[..to.len().min(100)]);
        }
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A scratch directory with the target inside and something precious beside it.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scratch.root()).unwrap();
        fs::write(scratch.precious(), "precious").unwrap();
        scratch
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn precious(&self) -> PathBuf {
        self.0.path().join("precious")
    }

    fn unpack(&self, bytes: &[u8]) -> anyhow::Result<()> {
        unpack(io::Cursor::new(bytes.to_vec()), File::open(self.root()).unwrap().as_fd())
    }

    fn is_untouched(&self) -> bool {
        let names = fs::read_dir(self.0.path()).unwrap().count();
        let metadata = self.precious().symlink_metadata().unwrap();
        names == 2 && metadata.nlink() == 1 && metadata.is_file() && fs::read(self.precious()).unwrap() == b"precious"
    }
}

fn file(name: &str) -> Item {
    Item::File(name.into(), b"content".to_vec())
}

fn link(name: &str, to: &str) -> Item {
    Item::Link(name.into(), to.into())
}

/// A file of `size` bytes with a hole up to its last block.
fn sparse(name: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    gnu.sparse[0].set_offset(size - 512);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &[7; 512][..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn holes_stay_holes_and_must_have_room() {
    let scratch = Scratch::new();
    scratch.unpack(&sparse("holes", 1 << 28)).unwrap();
    let file = File::open(scratch.root().join("holes")).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), 1 << 28);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks are taken", metadata.blocks());
    let mut last = [0; 513];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, (1 << 28) - 513).unwrap();
    assert_eq!((last[0], &last[1..]), (0, &[7; 512][..]));
    let error = format!("{:#}", scratch.unpack(&sparse("more", 1 << 60)).unwrap_err());
    assert!(error.starts_with("unpack its entry more: it says that it has 1152921504606846976 bytes"), "{error}");
}

#[test]
fn files_directories_and_links_are_unpacked() {
    let scratch = Scratch::new();
    let items = [
        Item::Directory("./".into()),
        Item::Directory("usr/lib".into()),
        link("lib", "usr/lib"),
        // By the link, as images have it.
        file("lib/libc.so"),
        file("/absolute"),
        Item::HardLink("second".into(), "usr/lib/libc.so".into()),
        Item::Device("dev/null".into()),
        file("without/parents/file"),
    ];
    scratch.unpack(&archive(&items)).unwrap();
    let root = scratch.root();
    assert_eq!(fs::read(root.join("usr/lib/libc.so")).unwrap(), b"content");
    assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(fs::read(root.join("absolute")).unwrap(), b"content");
    assert_eq!(root.join("second").metadata().unwrap().ino(), root.join("usr/lib/libc.so").metadata().unwrap().ino());
    assert!(!root.join("dev/null").exists(), "a device was made");
    assert_eq!(root.join("without/parents/file").metadata().unwrap().mtime(), 1_000_000);
    assert_eq!(root.join("usr/lib/libc.so").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one() {
    let scratch = Scratch::new();
    let second = Item::File("a".into(), b"second".to_vec());
    scratch.unpack(&archive(&[file("a"), second, link("a-link", "a"), Item::Directory("a-link".into())])).unwrap();
    assert_eq!(fs::read(scratch.root().join("a")).unwrap(), b"second");
    assert!(scratch.root().join("a-link").is_dir());
}

#[test]
fn nothing_leads_out() {
    let outside = |scratch: &Scratch| scratch.0.path().to_str().unwrap().to_owned();
    let cases: [fn(String) -> Vec<Item>; 8] = [
        |_| vec![file("../escaped")],
        |_| vec![file("a/../../escaped")],
        |_| vec![link("up", ".."), file("up/precious")],
        |outside| vec![link("up", &outside), file("up/precious")],
        |outside| vec![link("file", &format!("{outside}/precious")), file("file")],
        |_| vec![Item::HardLink("mine".into(), "../precious".into())],
        |outside| vec![Item::HardLink("mine".into(), format!("{outside}/precious"))],
        |outside| vec![link("up", &outside), Item::HardLink("mine".into(), "up/precious".into())],
    ];
    for case in cases {
        let scratch = Scratch::new();
        let items = case(outside(&scratch));
        let _ = scratch.unpack(&archive(&items));
        assert!(scratch.is_untouched(), "{items:?}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn broken_archives_are_refused_with_the_reason() {
    let whole = archive(&[file("a"), file("b")]);
    let mut damaged = whole.clone();
    damaged[1024 + 5] ^= 0x40;
    let mut noise = vec![0x55; 4096];
    noise[0] = b'x';
    // A second header that is text.
    let mut lines = whole.clone();
    lines[1024..1536].fill(b'\n');
    let compressed = gzip(&whole);
    // The checksum, behind the archive's own end.
    let mut other = compressed.clone();
    let end = other.len();
    other[end - 8] ^= 1;
    // A frame of one block that is longer than what is there (RFC 8878, 3.1.1).
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x40, 0x01, 0x02, 0x00, b'x'];
    let cases: [(&[u8], &str); 12] = [
        (&compressed[..end - 8], "damaged"),
        (&other, "damaged"),
        (&zstd, "its zstd stream is broken or cut short"),
        (&zstd[..5], "its zstd stream is broken or cut short"),
        (&whole[..whole.len() - 1024], "cut short"),
        (&whole[..1024], "cut short"),
        (&whole[..700], ""),
        (&damaged, "damaged"),
        (&noise, "it is no tar archive"),
        (&lines, "damaged"),
        (&archive(&[]), "nothing in it"),
        (&archive(&[Item::HardLink("a".into(), "nowhere".into())]), "not there"),
    ];
    for (bytes, reason) in cases {
        let scratch = Scratch::new();
        let error = format!("{:#}", scratch.unpack(bytes).unwrap_err());
        assert!(
            error.contains(reason) && !error.contains("Error(") && !error.contains('\n'),
            "`{error}` does not say `{reason}`"
        );
    }
}

#[test]
fn an_archive_is_unpacked_once_and_a_broken_one_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let plain = archive(&[file("a")]);
    for (name, bytes) in [("plain.tar", plain.clone()), ("root.tar.gz", gzip(&plain))] {
        let path = scratch.path().join(name);
        fs::write(&path, &bytes).unwrap();
        let named = self::name(&cache, &mut File::open(&path).unwrap()).unwrap();
        assert_eq!(self::name(&cache, &mut File::open(&path).unwrap()).unwrap(), named);
        let unfinished = Unfinished::create(&cache).unwrap();
        unpack(File::open(&path).unwrap(), unfinished.descriptor().as_fd()).unwrap();
        assert!(unfinished.finish(&named).unwrap().join("a").is_file());
    }
    fs::write(scratch.path().join("broken.tar"), &plain[..600]).unwrap();
    let before = fs::read_dir(&cache).unwrap().count();
    let unfinished = Unfinished::create(&cache).unwrap();
    let broken = File::open(scratch.path().join("broken.tar")).unwrap();
    assert!(unpack(broken, unfinished.descriptor().as_fd()).is_err());
    drop(unfinished);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), before);
}

/// Names that meet each other, with links among them that lead anywhere.
fn item() -> impl Strategy<Value = Item> {
    let part = || prop::sample::select(vec!["a", "b", "up", "..", ".", "precious", "x"]);
    let name = || prop::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/"));
    let to = || prop_oneof![name(), name().prop_map(|name| format!("/{name}")), Just("../precious".to_owned())];
    prop_oneof![
        (name(), prop::collection::vec(any::<u8>(), 0..700)).prop_map(|(name, content)| Item::File(name, content)),
        name().prop_map(Item::Directory),
        (name(), to()).prop_map(|(name, to)| Item::Link(name, to)),
        (name(), to()).prop_map(|(name, to)| Item::HardLink(name, to)),
        name().prop_map(Item::Device),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_archive_touches_anything_outside(items in prop::collection::vec(item(), 1..12)) {
        let scratch = Scratch::new();
        // A link of ours, to something outside, does not help either.
        symlink("..", scratch.root().join("up")).unwrap();
        let _ = scratch.unpack(&archive(&items));
        prop_assert!(scratch.is_untouched());
    }
}
