//! Guest kernels: which there are, which one is meant by a name, and which one is the default.
//!
//! They lie in the cache, `isobench/kernels/NAME/`, as `vmlinux` or `vmlinuz` with the modules beside it; [`script`] puts them
//! there. The machine's own kernel in /boot is one more, by the name [`HOST`].

pub(crate) mod script;

use crate::commands::BadInput;
use anyhow::Context;
use isobench_microvm::linux::identity::{Format, Identity};
use isobench_microvm::linux::kernel::{self, Kernel};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The name of the machine's own kernel.
pub(crate) const HOST: &str = "host";

/// The word for no choice: the best one that there is.
pub(crate) const AUTOMATIC: &str = "auto";

/// A kernel file in a directory of the cache, by either name.
const FILES: [&str; 2] = ["vmlinux", "vmlinuz"];

/// A guest kernel as it is found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GuestKernel {
    /// The name by which it is asked for.
    pub(crate) name: String,
    /// Whether it is the one that is used where none is named.
    pub(crate) default: bool,
    /// The file.
    pub(crate) path: PathBuf,
    /// What it is, where it can be read.
    #[serde(flatten)]
    pub(crate) facts: Option<Facts>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// What is known of a kernel file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// `vmlinux` or `bzImage`.
    pub(crate) kind: &'static str,
    /// How a bzImage is packed.
    pub(crate) compression: Option<&'static str>,
    /// Its release, such as `6.1.0-42-cloud-amd64`.
    pub(crate) release: Option<String>,
    /// Release, builder, number and time of the build.
    pub(crate) banner: Option<String>,
    /// Whether it runs several processors.
    pub(crate) smp: Option<bool>,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
}

impl Facts {
    fn of(path: &Path) -> Result<Self, String> {
        let kernel = Kernel::open(path).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let identity = Identity::of(&kernel);
        let (kind, compression) = match identity.format {
            Format::Vmlinux => ("vmlinux", None),
            Format::BzImage(compression) => ("bzImage", Some(compression.name())),
        };
        let bytes = fs::read(path).map_err(|error| format!("read the kernel {}: {error}", path.display()))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let smp = identity.multiprocessor();
        let Identity { release, banner, .. } = identity;
        Ok(Self { kind, compression, release, banner, smp, size: bytes.len() as u64, sha256 })
    }
}

/// Which kernel a file is, for records: its release and the beginning of its digest. `None` where it cannot be read.
pub(crate) fn describe(path: &Path) -> Option<String> {
    let Facts { release, sha256, .. } = Facts::of(path).ok()?;
    Some(format!("Linux {}, SHA-256 {}", release.as_deref().unwrap_or("of no known release"), sha256.get(..16)?))
}

/// Every guest kernel that there is, by name, the machine's own last.
pub(crate) fn list() -> Vec<GuestKernel> {
    let default = kernel::find();
    let describe = |(name, path): (String, PathBuf)| {
        let (facts, problem) = match Facts::of(&path) {
            Ok(facts) => (Some(facts), None),
            Err(problem) => (None, Some(problem)),
        };
        GuestKernel { default: default.as_ref() == Some(&path), name, path, facts, problem }
    };
    let mut all: Vec<_> = named().into_iter().map(describe).collect();
    // A chosen file is of no directory of the cache, or has gone.
    if let Some(path) = default.clone().filter(|path| all.iter().all(|kernel| kernel.path != *path)) {
        all.push(describe((path.display().to_string(), path)));
    }
    all
}

/// Names with their files. Nothing is read of them.
pub(crate) fn named() -> Vec<(String, PathBuf)> {
    let entries = kernel::cache().and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    let directories = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
        let file = FILES.iter().map(|file| entry.path().join(file)).find(|file| file.exists())?;
        Some((name, file))
    });
    let mut all: Vec<_> = directories.collect();
    all.sort();
    let own = kernel::of_host();
    if own.exists() {
        all.push((HOST.into(), own));
    }
    all
}

/// The file of a kernel that is asked for by name or path.
///
/// # Errors
/// [`BadInput`] where there is none, or where it cannot be booted.
pub(crate) fn resolve(asked: &str) -> anyhow::Result<PathBuf> {
    let all = named();
    let found = all.iter().find(|(name, _)| name == asked).map(|(_, path)| path.clone());
    let path = match found {
        Some(path) => path,
        None if Path::new(asked).is_file() => {
            Path::new(asked).canonicalize().with_context(|| format!("find the kernel {asked}"))?
        }
        None => {
            let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
            let there = match names[..] {
                [] => "there are none yet: `isobench vm kernel fetch` gets one".to_owned(),
                _ => format!("there are {}, or give a file", names.join(", ")),
            };
            return Err(BadInput(format!("there is no guest kernel `{asked}`: {there}")).into());
        }
    };
    Kernel::open(&path).map_err(|error| BadInput(format!("{:#}", anyhow::Error::from(error))))?;
    Ok(path)
}

/// Makes a kernel, by name or path, the one that is used where none is named; [`AUTOMATIC`] takes the choice back.
///
/// # Errors
/// As [`resolve`], and where the choice cannot be written down.
pub(crate) fn choose(asked: &str) -> anyhow::Result<()> {
    let cache = kernel::cache().ok_or_else(|| BadInput("there is no place for the cache: set HOME".into()))?;
    let file = cache.join(kernel::CHOICE);
    if asked == AUTOMATIC {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", file.display()))
            }
            _ => Ok(()),
        };
    }
    let path = resolve(asked)?;
    let text = path.strip_prefix(&cache).unwrap_or(&path).display().to_string();
    let new = cache.join(format!(".{}-{:016x}", kernel::CHOICE, fastrand::u64(..)));
    let written = fs::create_dir_all(&cache)
        .and_then(|()| fs::write(&new, format!("{text}\n")))
        .and_then(|()| fs::rename(&new, &file));
    written.with_context(|| format!("write {}", file.display()))
}
