//! `isobench vm kernel` as its users run it: the real binary, with a cache of the test's own.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A cache of this test's own.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(lab.kernels()).unwrap();
        lab
    }

    fn kernels(&self) -> PathBuf {
        self.0.path().join("isobench/kernels")
    }

    /// A kernel file that looks like one, in a directory of the cache.
    fn add(&self, name: &str, file: &str, content: &[u8]) -> PathBuf {
        let directory = self.kernels().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file), content).unwrap();
        directory.join(file)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(["vm", "kernel"]).args(words).env("XDG_CACHE_HOME", self.0.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs and expects success; gives the standard output.
    fn well(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and expects one sentence with these words.
    fn refused(&self, words: &[&str], sentence: &str) {
        one_sentence(&self.run(words), sentence);
    }

    fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.well(&["ls", "--json"])).unwrap()
    }

    /// The name of the kernel that is used where none is named.
    fn default(&self) -> Option<String> {
        let all = self.list();
        let marked: Vec<_> = all.iter().filter(|kernel| kernel["default"] == true).collect();
        assert!(marked.len() <= 1, "{marked:?}");
        marked.first().and_then(|kernel| Some(kernel["name"].as_str()?.to_owned()))
    }
}

fn one_sentence(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
    assert!(told.lines().count() == 1 && told.contains(words), "{told}");
}

/// A bzImage with one sector of setup code, a banner, and a payload that is packed by LZ4.
fn bz_image(banner: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[0x1f1] = 1;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    bytes[0x300..0x300 + banner.len()].copy_from_slice(banner.as_bytes());
    bytes.extend([0x02, 0x21, 0x4c, 0x18]);
    bytes
}

/// An ELF executable for x86-64 with nothing but a banner.
fn vmlinux(banner: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18]) = (2, 62);
    bytes.extend(format!("Linux version %s\0Linux version {banner}\n\0").bytes());
    bytes
}

#[test]
fn kernels_are_listed_with_what_they_are() {
    let lab = Lab::new();
    lab.add("cloud", "vmlinuz", &bz_image("6.1.0-9-cloud-amd64 (a@b) #1 SMP Debian"));
    lab.add("microvm", "vmlinux", &vmlinux("6.1.9 (isobench@isobench) #1 Thu"));
    lab.add("broken", "vmlinuz", b"nothing of the kind");
    fs::create_dir(lab.kernels().join(".new.half")).unwrap();
    fs::create_dir(lab.kernels().join("empty")).unwrap();

    let all = lab.list();
    let named = |name: &str| all.iter().find(|kernel| kernel["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let cloud = named("cloud");
    assert_eq!((&cloud["kind"], &cloud["compression"]), (&"bzImage".into(), &"lz4".into()));
    assert_eq!((&cloud["release"], &cloud["smp"]), (&"6.1.0-9-cloud-amd64".into(), &true.into()));
    assert_eq!(cloud["size"], 1028);
    assert_eq!(cloud["sha256"].as_str().map(str::len), Some(64));
    let own = named("microvm");
    assert_eq!((&own["kind"], &own["release"], &own["smp"]), (&"vmlinux".into(), &"6.1.9".into(), &false.into()));
    assert!(named("broken")["problem"].as_str().unwrap().contains("neither an ELF file nor a bzImage"));
    assert!(all.iter().all(|kernel| !["empty", ".new.half"].contains(&kernel["name"].as_str().unwrap())));

    let table = lab.well(&["ls"]);
    let line = table.lines().find(|line| line.contains("cloud")).unwrap();
    assert!(line.contains("bzImage (lz4)") && line.contains("several"), "{table}");
    assert!(table.lines().any(|line| line.trim_start().starts_with("* ") && line.contains("microvm")), "{table}");
}

#[test]
fn the_chosen_kernel_is_the_default_until_the_choice_is_taken_back() {
    let lab = Lab::new();
    lab.add("cloud", "vmlinuz", &bz_image("6.1.0-9-cloud-amd64 (a@b) #1 SMP"));
    lab.add("microvm", "vmlinux", &vmlinux("6.1.9 (a) #1"));
    assert_eq!(lab.default().as_deref(), Some("microvm"));
    lab.well(&["use", "cloud"]);
    assert_eq!(lab.default().as_deref(), Some("cloud"));

    // One that has gone is still the chosen one: no other takes its place unseen.
    let file = lab.add("mine", "vmlinux", &vmlinux("6.9 (a) #1 SMP"));
    lab.well(&["use", file.to_str().unwrap()]);
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    assert_eq!(lab.default().as_deref(), Some(file.to_str().unwrap()));
    lab.well(&["use", "auto"]);
    assert_eq!(lab.default().as_deref(), Some("microvm"));
}

#[test]
fn what_is_no_kernel_is_refused_and_changes_nothing() {
    let lab = Lab::new();
    lab.add("cloud", "vmlinuz", &bz_image("6.1.0-9-cloud-amd64 (a@b) #1 SMP"));
    lab.refused(&["use", "nowhere"], "there is no guest kernel `nowhere`: there are cloud");
    lab.refused(&["use", "/etc/passwd"], "is no x86-64 Linux kernel");
    lab.refused(&["use", ".."], "there is no guest kernel `..`");
    assert_eq!(lab.default().as_deref(), Some("cloud"));
    let names: Vec<_> = fs::read_dir(lab.kernels()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["cloud"]);
}

/// Programs of the test's own in place of the distribution's.
fn programs(lab: &Lab, programs: &[(&str, &str)]) -> PathBuf {
    let directory = lab.0.path().join("bin");
    fs::create_dir(&directory).unwrap();
    for (name, script) in programs {
        fs::write(directory.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

#[test]
fn a_distributions_kernel_is_unpacked_into_the_cache() {
    let lab = Lab::new();
    fs::write(lab.0.path().join("image"), bz_image("6.1.0-9-cloud-amd64 (a@b) #1 SMP")).unwrap();
    let unpack = format!(
        "mkdir -p \"$3/boot\" \"$3/lib/modules/6.1.0-9\" && cp {}/image \"$3/boot/vmlinuz-6.1.0-9\"",
        lab.0.path().display()
    );
    let own = programs(
        &lab,
        &[
            ("apt-get", ": >\"$2_1_amd64.deb\""),
            ("apt-cache", "echo linux-image-6.1.0-9-cloud-amd64"),
            ("dpkg", &unpack),
            ("busybox", ":"),
        ],
    );
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let output = lab.command(&["fetch"]).env("PATH", &path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let kernel = lab.kernels().join("cloud/vmlinuz");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), kernel.to_str().unwrap());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unpack linux-image-6.1.0-9-cloud-amd64"), "{output:?}");
    assert_eq!(lab.default().as_deref(), Some("cloud"));

    // A package that nobody has.
    fs::write(own.join("apt-cache"), "#!/bin/sh\nexit 100\n").unwrap();
    let output = lab.command(&["fetch", "linux-nothing"]).env("PATH", &path).output().unwrap();
    one_sentence(&output, "apt knows no kernel package linux-nothing: apt-get update");
    // A download that fails: the old kernel stays, and nothing else.
    fs::write(own.join("apt-cache"), "#!/bin/sh\necho linux-image-6.1.0-10-cloud-amd64\n").unwrap();
    fs::write(own.join("apt-get"), "#!/bin/sh\necho 'E: no network' >&2; exit 100\n").unwrap();
    let output = lab.command(&["fetch"]).env("PATH", &path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && told.contains("failed: E: no network"), "{output:?}");
    let names: Vec<_> = fs::read_dir(lab.kernels()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["cloud"]);
}

#[test]
fn what_a_build_needs_is_named() {
    let lab = Lab::new();
    let tools = ["mkdir", "mktemp", "rm", "chmod", "dirname", "cat", "grep", "tail", "sh"];
    let own = programs(&lab, &[]);
    for tool in tools {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|path| path.join(tool))
            .find(|path| path.exists());
        std::os::unix::fs::symlink(found.unwrap(), own.join(tool)).unwrap();
    }
    let output = lab.command(&["build", "--smp"]).env("PATH", &own).output().unwrap();
    one_sentence(&output, "make is missing: apt-get install make");
    assert_eq!(fs::read_dir(lab.kernels()).unwrap().count(), 0);
}

#[test]
fn names_complete_in_the_shell() {
    let lab = Lab::new();
    lab.add("cloud", "vmlinuz", &bz_image("6.1 (a) #1"));
    let words = ["--", "isobench", "vm", "kernel", "use", "cl"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(words).env("XDG_CACHE_HOME", lab.0.path()).env("COMPLETE", "bash");
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", "4").env("_CLAP_COMPLETE_COMP_TYPE", "9");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "cloud", "{output:?}");
}
