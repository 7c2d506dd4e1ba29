//! The modules that a distribution's kernel needs for our devices, and the order in which they load, from `modules.dep`
//! (modules.dep(5)). A kernel that has them built in has no use for any.

use std::io;
use std::path::{Path, PathBuf};

/// What every guest needs that has devices on memory-mapped registers.
const TRANSPORT: &str = "virtio_mmio";

/// Why modules can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A file can't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Modules in the order in which they are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules(Vec<PathBuf>);

impl Modules {
    /// Finds a kernel's modules: in `lib/modules/RELEASE` beside the kernel file, where `scripts/guest-kernel` puts them, or in
    /// the system's: the transport, and `drivers`. A kernel without a release, such as a vmlinux of one's own, has none.
    pub fn find(kernel: &Path, release: Option<&str>, drivers: &[&str]) -> Result<Self, ModulesError> {
        let Some(release) = release else { return Ok(Self::default()) };
        let beside = kernel.parent().unwrap_or(Path::new(".")).join("lib/modules");
        for root in [beside.as_path(), Path::new("/lib/modules")] {
            let root = root.join(release);
            let table = root.join("modules.dep");
            if table.exists() {
                let text =
                    std::fs::read_to_string(&table).map_err(|source| ModulesError::Read { path: table, source })?;
                return Ok(Self(load_order(&text, drivers).into_iter().map(|file| root.join(file)).collect()));
            }
        }
        Ok(Self::default())
    }

    /// Each module's file name and content, in order.
    pub fn read(&self) -> Result<Vec<(String, Vec<u8>)>, ModulesError> {
        let read = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = std::fs::read(path).map_err(|source| ModulesError::Read { path: path.clone(), source })?;
            Ok((name, content))
        };
        self.0.iter().map(read).collect()
    }
}

/// The files of the wanted modules, each after all that it needs.
fn load_order<'t>(table: &'t str, drivers: &[&str]) -> Vec<&'t str> {
    let mut order: Vec<&str> = Vec::new();
    for wanted in [TRANSPORT].iter().chain(drivers) {
        let line = table.lines().find_map(|line| line.split_once(':').filter(|(file, _)| name(file) == *wanted));
        let Some((file, needs)) = line else { continue };
        // What is needed last is named first (kmod loads from right to left).
        for each in needs.split_ascii_whitespace().rev().chain([file]) {
            if !order.contains(&each) {
                order.push(each);
            }
        }
    }
    order
}

/// A module's name: dashes and underscores are the same to the kernel.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let table = "kernel/drivers/net/virtio_net.ko: kernel/net/net_failover.ko kernel/core/failover.ko kernel/v/virtio.ko\n\
                     kernel/v/virtio.ko:\n\
                     kernel/v/virtio-mmio.ko.xz: kernel/v/virtio_ring.ko kernel/v/virtio.ko\n";
        assert_eq!(
            load_order(table, &["virtio_net"]),
            [
                "kernel/v/virtio.ko",
                "kernel/v/virtio_ring.ko",
                "kernel/v/virtio-mmio.ko.xz",
                "kernel/core/failover.ko",
                "kernel/net/net_failover.ko",
                "kernel/drivers/net/virtio_net.ko",
            ]
        );
    }

    #[test]
    fn a_kernel_with_everything_built_in_needs_none() {
        assert_eq!(load_order("kernel/fs/fat.ko:\n", &["virtio_blk"]), Vec::<&str>::new());
        assert_eq!(Modules::find(Path::new("vmlinux"), None, &["virtio_net"]).unwrap(), Modules::default());
    }
}
