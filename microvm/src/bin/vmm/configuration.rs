//! What a guest is to be, as the command line or a JSON object says it. A field has the name of its option, and means the same:
//! `--memory 64M` is `"memory": "64M"`.

use crate::error::ArgumentError;
use crate::values::{
    Address, Descriptor, DiskName, FileName, HostName, Mac, Microseconds, Mtu, Processors, Seconds, Segmentation, Size,
    Switch, Value, Workload,
};
use crate::words;
use isobench_guest::contract::Task;
use isobench_microvm::jail::NetworkNamespace;
use isobench_microvm::linux::{BalloonKind, Frames};
use isobench_microvm::memory::Pages;
use isobench_microvm::sandbox::UNIKERNEL_SPIN;
use isobench_workload::protocol::PORT;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// How long the card of a Linux guest looks for frames before it sleeps, in microseconds.
pub(crate) const LINUX_SPIN: u32 = 50;
/// Memory of a Linux guest unless told otherwise: a distribution's kernel unpacks itself in half of it.
const LINUX_MEMORY: u64 = 128 << 20;
/// Memory of a unikernel unless told otherwise.
const UNIKERNEL_MEMORY: u64 = 16 << 20;
/// Largest configuration that is read.
const LARGEST: u64 = 1 << 20;

/// A guest and how it comes about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum Configuration {
    /// The unikernel is booted.
    Unikernel(Unikernel),
    /// Linux is booted, with the agent as /init.
    Linux(Box<Linux>),
    /// A guest goes on from a snapshot.
    Restore(Box<Restore>),
}

/// Declares what one kind of guest is made of, each field with what it is unless told otherwise, and gives it the fields that all kinds have
/// in common: its place on a link, how long it may run, and how its monitor lives. One structure holds them all, since a reader of two
/// (serde's `flatten`) knows neither the line of a mistake nor a field that there is not.
macro_rules! settings {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty = $usual:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $kind,)*
            /// An attached tap.
            pub(crate) tap_fd: Option<Value<Descriptor>>,
            /// The card's Ethernet address.
            pub(crate) mac: Option<Value<Mac>>,
            /// Its IPv4 address.
            pub(crate) address: Option<Value<Address<Ipv4Addr>>>,
            /// Its router.
            pub(crate) gateway: Option<Value<Ipv4Addr>>,
            /// How long it may run, in seconds.
            pub(crate) deadline: Option<Value<Seconds>>,
            /// Whether the monitor makes an empty network to live in, or was started in one.
            pub(crate) network_namespace: Value<NetworkNamespace>,
            /// The socket on which requests are taken.
            pub(crate) control: Option<Value<FileName>>,
            /// Whether it is killed when the thread that started it ends.
            pub(crate) dies_with_parent: Value<Switch>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $usual,)*
                    tap_fd: None,
                    mac: None,
                    address: None,
                    gateway: None,
                    deadline: None,
                    network_namespace: Value(NetworkNamespace::Own),
                    control: None,
                    dies_with_parent: Value(Switch(false)),
                }
            }
        }
    };
}

settings! {
    /// The unikernel.
    Unikernel {
        /// What it runs.
        workload: Value<Workload> = Value(Workload { task: Task::Serve, port: PORT, touched: 0 }),
        /// Size of its memory in bytes.
        memory: Value<Size> = Value(Size(UNIKERNEL_MEMORY)),
        /// How long both sides look for frames before they sleep, in microseconds.
        spin: Value<Microseconds> = Value(Microseconds(UNIKERNEL_SPIN)),
        /// Whether frames may be larger than packets on a wire.
        segmentation: Value<Segmentation> = Value(Segmentation(true)),
    }
}

settings! {
    /// Linux.
    Linux {
        /// A vmlinux or bzImage (needed).
        kernel: Option<PathBuf> = None,
        /// The agent; this or `agent-fd` is needed.
        agent: Option<PathBuf> = None,
        /// The same, open already.
        agent_fd: Option<Value<Descriptor>> = None,
        /// A cpio archive that is a part of the initramfs too.
        archive_fd: Option<Value<Descriptor>> = None,
        /// The agent's arguments.
        argument: Vec<String> = Vec::new(),
        /// Added to the kernel's command line.
        append: String = String::new(),
        /// How many processors it has.
        cpus: Value<Processors> = Value(Processors(1)),
        /// Size of its memory in bytes.
        memory: Value<Size> = Value(Size(LINUX_MEMORY)),
        /// What pages its memory is made of.
        pages: Value<Pages> = Value(Pages::System),
        /// Whether all its memory is taken before it runs.
        populate: Value<Switch> = Value(Switch(false)),
        /// Raw disk images or block devices, each with `:ro` where it is only read.
        disk: Vec<Value<DiskName>> = Vec::new(),
        /// Whether it has a device that gives random numbers.
        rng: Value<Switch> = Value(Switch(false)),
        /// A balloon, which also gives back unused memory by itself.
        balloon: Value<Option<BalloonKind>> = Value(None),
        /// Whether the kernel moves the card's frames (vhost-net).
        vhost: Value<Frames> = Value(Frames::Either),
        /// Whether the standard streams are those of the program that the agent runs.
        session: Value<Switch> = Value(Switch(false)),
        /// With a session: the socket on which further programs are taken.
        exec: Option<Value<FileName>> = None,
        /// Its IPv6 address.
        address6: Option<Value<Address<Ipv6Addr>>> = None,
        /// Its router for IPv6.
        gateway6: Option<Value<Ipv6Addr>> = None,
        /// Its largest packet, where it is not 1500 bytes.
        mtu: Option<Value<Mtu>> = None,
        /// How long the card looks for frames before it sleeps, in microseconds.
        spin: Value<Microseconds> = Value(Microseconds(LINUX_SPIN)),
    }
}

settings! {
    /// A guest from a snapshot.
    Restore {
        /// The snapshot's memory (needed).
        memory_file: Option<Value<FileName>> = None,
        /// The snapshot's state (needed).
        state_file: Option<Value<FileName>> = None,
        /// Its IPv6 address.
        address6: Option<Value<Address<Ipv6Addr>>> = None,
        /// Its router for IPv6.
        gateway6: Option<Value<Ipv6Addr>> = None,
        /// Its largest packet, where it is not 1500 bytes.
        mtu: Option<Value<Mtu>> = None,
        /// Linux: the clone's host name, where it is to have another.
        host_name: Option<Value<HostName>> = None,
        /// Linux, with a session: texts of files in its /etc, as a JSON object by name.
        files: Option<Value<FileName>> = None,
        /// Linux: disks that the saved guest has, each with `:ro`.
        disk: Vec<Value<DiskName>> = Vec::new(),
        /// Linux: whether the saved guest has a session, and so whose the exit status is.
        session: Value<Switch> = Value(Switch(false)),
        /// Linux, with a session: the socket on which further programs are taken.
        exec: Option<Value<FileName>> = None,
        /// How long the card looks for frames before it sleeps, in microseconds.
        spin: Option<Value<Microseconds>> = None,
    }
}

impl Configuration {
    /// What a subcommand with its options says; nothing where there is no such subcommand.
    pub(crate) fn of_words(
        subcommand: &str,
        words: impl Iterator<Item = OsString>,
    ) -> Option<Result<Self, ArgumentError>> {
        match subcommand {
            "unikernel" => Some(words::read(words).map(Self::Unikernel)),
            "linux" => Some(words::read(words).map(Self::Linux)),
            "restore" => Some(words::read(words).map(Self::Restore)),
            _ => None,
        }
    }

    /// Reads a file, or the standard input where it is called `-`.
    pub(crate) fn of_file(name: &str) -> Result<Self, ArgumentError> {
        let mut text = String::new();
        // A pipe is read too, as a shell makes one for `<(...)`.
        let most = LARGEST + 1;
        let read = match name {
            "-" => std::io::stdin().lock().take(most).read_to_string(&mut text),
            _ => std::fs::File::open(name).and_then(|file| file.take(most).read_to_string(&mut text)),
        };
        let read = read.and_then(|length| match length as u64 > LARGEST {
            true => Err(io::Error::other(format!("it has more than {LARGEST} bytes"))),
            false => Ok(()),
        });
        read.map_err(|source| ArgumentError::File { name: name.into(), source })?;
        Self::of_text(if name == "-" { "on the standard input" } else { name }, &text)
    }

    /// Reads JSON; errors name it so, and say in what line and field what is wrong.
    pub(crate) fn of_text(name: &str, text: &str) -> Result<Self, ArgumentError> {
        // Serde has no words for it.
        let of_one_field = |value: serde_json::Value| value.as_object().is_some_and(|fields| fields.len() == 1);
        if serde_json::from_str(text).is_ok_and(|value| !of_one_field(value)) {
            let why = "it must be an object with one field, `unikernel`, `linux` or `restore`".into();
            return Err(ArgumentError::Configuration { name: name.into(), place: String::new(), why });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            // Where it is known only in part, that part.
            let path = error.path().to_string();
            let field = path.trim_end_matches(['.', '?']).to_owned();
            (Some(field).filter(|field| !field.is_empty()), error.into_inner())
        });
        let read = read.and_then(|read| reader.end().map(|()| read).map_err(|error| (None, error)));
        read.map_err(|(field, error)| {
            let (line, column) = (error.line(), error.column());
            let why = error.to_string();
            let why = why.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&why).to_owned();
            let line = if line > 0 { format!(", line {line}") } else { String::new() };
            let field = field.map(|field| format!(", field {field}")).unwrap_or_default();
            ArgumentError::Configuration { name: name.into(), place: line + &field, why }
        })
    }

    /// As JSON, with all that was not said.
    pub(crate) fn json(&self) -> serde_json::Value {
        // There is nothing in it that JSON has not.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether the standard streams are those of a program in the guest.
    pub(crate) fn has_session(&self) -> bool {
        match self {
            Self::Unikernel(_) => false,
            Self::Linux(linux) => linux.session.0.0,
            Self::Restore(restore) => restore.session.0.0,
        }
    }

    /// The socket on which requests are taken.
    pub(crate) fn control(&self) -> Option<&FileName> {
        let control = match self {
            Self::Unikernel(unikernel) => &unikernel.control,
            Self::Linux(linux) => &linux.control,
            Self::Restore(restore) => &restore.control,
        };
        control.as_ref().map(|Value(name)| name)
    }

    /// Whether its monitor is killed when the thread that started it ends.
    pub(crate) fn dies_with_parent(&self) -> bool {
        match self {
            Self::Unikernel(unikernel) => unikernel.dies_with_parent.0.0,
            Self::Linux(linux) => linux.dies_with_parent.0.0,
            Self::Restore(restore) => restore.dies_with_parent.0.0,
        }
    }

    /// The numbers of the descriptors that it names.
    pub(crate) fn descriptors(&self) -> Vec<u32> {
        let (numbers, names, disks): (Vec<_>, Vec<_>, &[Value<DiskName>]) = match self {
            Self::Unikernel(it) => (vec![&it.tap_fd], vec![&it.control], &[]),
            Self::Linux(it) => (vec![&it.tap_fd, &it.agent_fd, &it.archive_fd], vec![&it.control, &it.exec], &it.disk),
            Self::Restore(it) => {
                let names = vec![&it.memory_file, &it.state_file, &it.files, &it.control, &it.exec];
                (vec![&it.tap_fd], names, &it.disk)
            }
        };
        let names = names.into_iter().flatten().map(|Value(name)| name);
        let names = names.chain(disks.iter().map(|Value(disk)| &disk.file));
        let named = names.filter_map(|name| match name {
            FileName::Open(number) => Some(*number),
            FileName::Path(_) => None,
        });
        numbers
            .into_iter()
            .flatten()
            .map(|Value(number)| *number)
            .chain(named)
            .map(|Descriptor(number)| number)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    fn words(line: &str) -> Result<Configuration, ArgumentError> {
        let mut words = line.split_whitespace();
        let subcommand = words.next().unwrap();
        Configuration::of_words(subcommand, words.map(OsString::from)).unwrap()
    }

    const LINES: [&str; 4] = [
        "unikernel --workload serve:7001 --mac 02:00:00:00:00:05 --address 172.17.0.5/16 --gateway 172.17.0.1 --memory 32M --deadline 1.5 --spin 0 --segmentation wire --control /tmp/control --dies-with-parent on",
        "unikernel --workload memory:12M",
        "linux --kernel vmlinux --agent agent --agent-fd 9 --archive-fd 10 --argument serve --argument 7000 --append loglevel=7 --cpus 4 --memory 1G --pages huge --populate on --disk a.img --disk fd:7:ro --rng on --balloon reporting --vhost off --session yes --exec fd:5 --tap-fd 3 --mac 02:00:00:00:00:05 --address 172.17.0.5/16 --gateway 172.17.0.1 --address6 fd00::5/64 --gateway6 fd00::1 --mtu 1400 --deadline 60 --spin 20 --network-namespace given --control fd:8",
        "restore --memory-file fd:4 --state-file state.json --host-name other --files fd:6 --disk a.img:ro --session no --spin 7",
    ];

    #[test]
    fn options_are_read() {
        let Configuration::Unikernel(unikernel) = words(LINES[0]).unwrap() else { panic!() };
        assert_eq!(unikernel.workload.0, Workload { task: Task::Serve, port: 7001, touched: 0 });
        assert_eq!(unikernel.mac, Some(Value(Mac([2, 0, 0, 0, 0, 5]))));
        assert_eq!(unikernel.address, Some(Value(Address(Ipv4Addr::new(172, 17, 0, 5), 16))));
        assert_eq!((unikernel.memory, unikernel.spin), (Value(Size(32 << 20)), Value(Microseconds(0))));
        assert_eq!(unikernel.deadline, Some(Value(Seconds(Duration::from_millis(1500)))));
        let Configuration::Linux(linux) = words(LINES[2]).unwrap() else { panic!() };
        assert_eq!(linux.argument, ["serve", "7000"]);
        assert_eq!(linux.disk.iter().map(|disk| disk.0.read_only).collect::<Vec<_>>(), [false, true]);
        assert_eq!(linux.balloon, Value(Some(BalloonKind::Reporting)));
        assert_eq!(words(LINES[2]).unwrap().descriptors(), [3, 9, 10, 8, 5, 7]);
        // Of an option that is given twice the last value counts.
        let Configuration::Unikernel(twice) = words("unikernel --memory 8M --memory 10M").unwrap() else { panic!() };
        assert_eq!(twice.memory, Value(Size(10 << 20)));
    }

    #[test]
    fn json_says_the_same_as_options() {
        for line in LINES {
            let configuration = words(line).unwrap();
            assert_eq!(
                Configuration::of_text("x", &configuration.json().to_string()).unwrap(),
                configuration,
                "{line}"
            );
        }
        let text = r#"{"linux": {"kernel": "vmlinux", "memory": "64M", "cpus": 2, "populate": true, "balloon": "off",
            "disk": ["a.img:ro"], "spin": 20, "deadline": 2.5, "gateway": null}}"#;
        let line =
            "linux --kernel vmlinux --memory 64M --cpus 2 --populate on --disk a.img:ro --spin 20 --deadline 2.5";
        assert_eq!(Configuration::of_text("x", text).unwrap(), words(line).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        for (line, sentence) in [
            ("unikernel --nothing", "unknown option `--nothing` (run without arguments for the list)"),
            ("unikernel memory 3", "unknown option `memory` (run without arguments for the list)"),
            ("unikernel --kernel a", "unknown option `--kernel` (run without arguments for the list)"),
            ("unikernel --memory", "option --memory needs a value"),
            ("unikernel --memory much", "option --memory: `much` is not a size such as 16M"),
            ("unikernel --memory 99999999999999G", "option --memory: `99999999999999G` is not a size such as 16M"),
            ("unikernel --mac 01:00:00:00:00:05", "option --mac: `01:00:00:00:00:05` is not an Ethernet address"),
            (
                "unikernel --address 172.17.0.5",
                "option --address: `172.17.0.5` is not an IPv4 address with a prefix, such as 172.17.0.5/16",
            ),
            ("unikernel --workload memory:much", "option --workload: `memory:much` is not a workload"),
            ("unikernel --workload serve:0", "option --workload: `serve:0` is not a workload"),
            ("unikernel --network-namespace host", "option --network-namespace: `host` is not own or given"),
            ("unikernel --segmentation none", "option --segmentation: `none` is not offload or wire"),
            ("unikernel --deadline -1", "option --deadline: `-1` is not a number of seconds"),
            ("restore --host-name a/b", "option --host-name: `a/b` is not a host name"),
        ] {
            assert_eq!(words(line).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn a_wrong_configuration_is_told_with_its_line_and_field() {
        for (text, sentence) in [
            ("", "the configuration vm.json, line 1: EOF while parsing a value"),
            ("{\n \"linux\": {\n", "the configuration vm.json, line 3, field linux: EOF while parsing an object"),
            ("[]", "the configuration vm.json: it must be an object with one field, `unikernel`, `linux` or `restore`"),
            (
                "{\"windows\": {}}",
                "the configuration vm.json, line 1: unknown variant `windows`, expected one of `unikernel`, `linux`, `restore`",
            ),
            (
                "{\"unikernel\": {\n\"kernel\": 1}}",
                "the configuration vm.json, line 2, field unikernel.kernel: unknown field `kernel`, expected one of `workload`",
            ),
            (
                "{\"unikernel\": {\n\n\"memory\": \"much\"}}",
                "the configuration vm.json, line 3, field unikernel.memory: `much` is not a size such as 16M",
            ),
            ("{\"linux\": {\"cpus\": 0}}", "field linux.cpus: `0` is not a number of processors, at least 1"),
            (
                "{\"linux\": {\"disk\": [\"a\", \"\"]}}",
                "field linux.disk[1]: `` is not a file or an open file descriptor",
            ),
            ("{\"linux\": {\"memory\": 1, \"memory\": 2}}", "duplicate field `memory`"),
            ("{\"linux\": {}}{}", "the configuration vm.json, line 1: trailing characters"),
            ("{\"linux\": {}, \"unikernel\": {}}", "the configuration vm.json: it must be an object with one field"),
        ] {
            let told = Configuration::of_text("vm.json", text).unwrap_err().to_string();
            assert!(told.contains(sentence) && told.lines().count() == 1, "{told}\n instead of {sentence}");
        }
    }

    /// `UPDATE_SCHEMA=1` writes it anew.
    #[test]
    fn the_committed_schema_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/vmm-configuration.schema.json");
        let text = format!("{:#}\n", schemars::schema_for!(Configuration).to_value());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is out of date: run this test with UPDATE_SCHEMA=1", path.display());
    }
}
