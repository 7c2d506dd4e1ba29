//! The values of options, each as the command line has it and as JSON has it: any may be written in JSON as the text that its option
//! takes, and numbers and switches also as numbers, `true` and `false`.

use isobench_guest::contract::Task;
use isobench_microvm::jail::NetworkNamespace;
use isobench_microvm::linux::{BalloonKind, Frames};
use isobench_microvm::memory::Pages;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Sizes of packets that a link can have: IPv4's least, and the most of a frame.
const LEAST_MTU: u32 = 68;
/// See [`LEAST_MTU`].
const MOST_MTU: u32 = 65_535;
/// Longest host name that Linux takes (gethostname(2)).
const LONGEST_NAME: usize = 64;

/// What is written as one word.
pub(crate) trait Word: Sized {
    /// What it is, for somebody who has written something else.
    const WANTED: &'static str;

    /// Reads it.
    fn read(text: &str) -> Option<Self>;

    /// As JSON has it, which is read again as the same.
    fn json(&self) -> Json;
}

/// A value of an option.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value<T>(pub(crate) T);

impl<T: Word> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json().serialize(serializer)
    }
}

impl<'de, T: Word> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Self)
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::WANTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::read(text).ok_or_else(|| E::custom(format_args!("`{text}` is not {}", T::WANTED)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "on" } else { "off" })
    }
}

#[cfg(test)]
impl<T: Word> schemars::JsonSchema for Value<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::WANTED.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"], "description": T::WANTED })
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size(pub(crate) u64);

impl Word for Size {
    const WANTED: &'static str = "a size such as 16M";

    fn read(text: &str) -> Option<Self> {
        size(text).map(Self)
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A time in seconds, more than none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl Word for Seconds {
    const WANTED: &'static str = "a number of seconds";

    fn read(text: &str) -> Option<Self> {
        let seconds: f64 = text.parse().ok()?;
        (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok().map(Self)).flatten()
    }

    fn json(&self) -> Json {
        self.0.as_secs_f64().into()
    }
}

/// A time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Microseconds(pub(crate) u32);

impl Word for Microseconds {
    const WANTED: &'static str = "a number of microseconds";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Switch(pub(crate) bool);

impl Word for Switch {
    const WANTED: &'static str = "on or off";

    fn read(text: &str) -> Option<Self> {
        match text {
            "on" | "yes" => Some(Self(true)),
            "off" | "no" => Some(Self(false)),
            _ => None,
        }
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

/// The number of an open file descriptor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Descriptor(pub(crate) u32);

impl Word for Descriptor {
    const WANTED: &'static str = "a file descriptor";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| i32::try_from(*number).is_ok()).map(Self)
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

/// A file: `FILE`, or `fd:NUMBER` where it is open already.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FileName {
    Open(Descriptor),
    Path(PathBuf),
}

impl Word for FileName {
    const WANTED: &'static str = "a path or an open file descriptor";

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("fd:") {
            Some(number) => Descriptor::read(number).map(Self::Open),
            None if text.is_empty() => None,
            None => Some(Self::Path(text.into())),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Open(Descriptor(number)) => format!("fd:{number}").into(),
            Self::Path(path) => path.to_string_lossy().into(),
        }
    }
}

/// A disk: a file with `:ro` or `:rw` after it; without, it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DiskName {
    pub(crate) file: FileName,
    pub(crate) read_only: bool,
}

impl Word for DiskName {
    const WANTED: &'static str = "a file or an open file descriptor";

    fn read(text: &str) -> Option<Self> {
        let (name, read_only) = match text.strip_suffix(":ro") {
            Some(name) => (name, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        Some(Self { file: FileName::read(name)?, read_only })
    }

    fn json(&self) -> Json {
        let file = self.file.json();
        format!("{}:{}", file.as_str().unwrap_or_default(), if self.read_only { "ro" } else { "rw" }).into()
    }
}

/// What the unikernel runs, the port on which it serves, and the bytes that it writes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) task: Task,
    pub(crate) port: u16,
    pub(crate) touched: u64,
}

/// Those without a value. From the third on they end wrongly, so that it can be tested how that is reported.
const TASKS: [(&str, Task); 8] = [
    ("exit", Task::Exit),
    ("idle", Task::Idle),
    ("wild-pointer", Task::WildPointer),
    ("wild-jump", Task::WildJump),
    ("halt", Task::Halt),
    ("panic", Task::Panic),
    ("stack-overflow", Task::StackOverflow),
    ("loop", Task::Loop),
];

impl Word for Workload {
    const WANTED: &'static str = "a workload";

    fn read(text: &str) -> Option<Self> {
        if let Some((_, task)) = TASKS.iter().find(|(name, _)| *name == text) {
            return Some(Self { task: *task, port: 0, touched: 0 });
        }
        if let Some(bytes) = text.strip_prefix("memory:") {
            return Some(Self { task: Task::Memory, port: 0, touched: size(bytes)? });
        }
        let port = text.strip_prefix("serve:")?.parse().ok().filter(|port| *port != 0)?;
        Some(Self { task: Task::Serve, port, touched: 0 })
    }

    fn json(&self) -> Json {
        let plain = TASKS.iter().find(|(_, task)| *task == self.task);
        match (plain, self.task) {
            (Some((name, _)), _) => (*name).into(),
            (None, Task::Memory) => format!("memory:{}", self.touched).into(),
            (None, _) => format!("serve:{}", self.port).into(),
        }
    }
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Word for Mac {
    const WANTED: &'static str = "an Ethernet address";

    fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    fn json(&self) -> Json {
        self.0.map(|byte| format!("{byte:02x}")).join(":").into()
    }
}

/// An address of one host, with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Address<A>(pub(crate) A, pub(crate) u8);

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    let of_one = !address.is_multicast() && !address.is_unspecified() && address != IpAddr::V4(Ipv4Addr::BROADCAST);
    (of_one && prefix <= most).then_some((address, prefix))
}

impl Word for Address<Ipv4Addr> {
    const WANTED: &'static str = "an IPv4 address with a prefix, such as 172.17.0.5/16";

    fn read(text: &str) -> Option<Self> {
        match address(text)? {
            (IpAddr::V4(address), prefix) => Some(Self(address, prefix)),
            (IpAddr::V6(_), _) => None,
        }
    }

    fn json(&self) -> Json {
        format!("{}/{}", self.0, self.1).into()
    }
}

impl Word for Address<Ipv6Addr> {
    const WANTED: &'static str = "an IPv6 address with a prefix, such as fd00::5/64";

    fn read(text: &str) -> Option<Self> {
        match address(text)? {
            (IpAddr::V6(address), prefix) => Some(Self(address, prefix)),
            (IpAddr::V4(_), _) => None,
        }
    }

    fn json(&self) -> Json {
        format!("{}/{}", self.0, self.1).into()
    }
}

impl Word for Ipv4Addr {
    const WANTED: &'static str = "an IPv4 address";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

impl Word for Ipv6Addr {
    const WANTED: &'static str = "an IPv6 address";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

/// The largest packet of a link, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mtu(pub(crate) u32);

impl Word for Mtu {
    const WANTED: &'static str = "a number of bytes from 68 to 65535";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|bytes| (LEAST_MTU..=MOST_MTU).contains(bytes)).map(Self)
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

/// How many processors; more than any guest can have is refused with what it can have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Processors(pub(crate) u8);

impl Word for Processors {
    const WANTED: &'static str = "a number of processors, at least 1";

    fn read(text: &str) -> Option<Self> {
        let number = text.parse::<u32>().ok().filter(|number| *number > 0)?;
        Some(Self(number.try_into().unwrap_or(u8::MAX)))
    }

    fn json(&self) -> Json {
        self.0.into()
    }
}

/// A host name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostName(pub(crate) String);

impl Word for HostName {
    const WANTED: &'static str = "a host name";

    fn read(text: &str) -> Option<Self> {
        let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter));
        (plain && !text.is_empty() && text.len() <= LONGEST_NAME).then(|| Self(text.into()))
    }

    fn json(&self) -> Json {
        json!(self.0)
    }
}

/// Whether frames may be larger than packets on a wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segmentation(pub(crate) bool);

/// A choice between names.
macro_rules! choice {
    ($type:ty, $wanted:literal, $($name:literal => $value:pat = $made:expr),+) => {
        impl Word for $type {
            const WANTED: &'static str = $wanted;

            fn read(text: &str) -> Option<Self> {
                match text {
                    $($name => Some($made),)+
                    _ => None,
                }
            }

            fn json(&self) -> Json {
                match self {
                    $($value => $name.into(),)+
                }
            }
        }
    };
}

choice!(Segmentation, "offload or wire", "offload" => Self(true) = Self(true), "wire" => Self(false) = Self(false));
choice!(NetworkNamespace, "own or given", "own" => Self::Own = Self::Own, "given" => Self::Given = Self::Given);
choice!(Pages, "system, small or huge",
    "system" => Self::System = Self::System, "small" => Self::Small = Self::Small, "huge" => Self::Huge = Self::Huge);
choice!(Frames, "auto, on or off",
    "auto" => Self::Either = Self::Either, "on" => Self::Kernel = Self::Kernel, "off" => Self::Monitor = Self::Monitor);
choice!(Option<BalloonKind>, "plain, reporting or off", "plain" => Some(BalloonKind::Plain) = Some(BalloonKind::Plain),
    "reporting" => Some(BalloonKind::Reporting) = Some(BalloonKind::Reporting), "off" => None = None);
