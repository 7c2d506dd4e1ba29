//! The configuration that a new bundle begins with.

use super::filter;
use crate::capabilities::Capabilities as Sets;
use crate::error::Error;
use crate::root::{self, Mount, MountKind};
use crate::seccomp::Policy;
use oci_spec::OciSpecError;
use oci_spec::runtime::{self, Capabilities, LinuxCapabilitiesBuilder, MountBuilder, Spec};
use rustix::thread::CapabilitySet;

/// A `config.json` with what Docker gives a container by default: all namespaces but that of users, its capabilities less
/// `CAP_MKNOD`, no new privileges, its mounts as our own containers have them, masked paths, and its system call policy.
pub fn template() -> Result<String, Error> {
    let spec = specification().map_err(|error| Error::invalid("the configuration", error.to_string()))?;
    let unwritten = |error: serde_json::Error| Error::invalid("the configuration", error.to_string());
    let mut spec = serde_json::to_value(&spec).map_err(unwritten)?;
    // Sets have no order of their own; the text is to be the same each time.
    for set in spec["process"]["capabilities"].as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        set.as_array_mut().into_iter().for_each(|names| names.sort_by(|a, b| a.as_str().cmp(&b.as_str())));
    }
    serde_json::to_string_pretty(&spec).map_err(unwritten)
}

fn specification() -> Result<Spec, OciSpecError> {
    let mut spec = Spec::default();
    spec.set_hostname(Some("container".into()));
    // Of its own mounts the one that ours do not have: the control groups.
    let shown = spec.mounts_mut().take().into_iter().flatten().filter(|mount| mount.typ().as_deref() == Some("cgroup"));
    let mounts = Mount::standard().iter().map(describe).chain(shown.map(Ok)).collect::<Result<_, _>>()?;
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let sets = Sets::STANDARD;
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(names(sets.bounding)?)
            .effective(names(sets.effective)?)
            .permitted(names(sets.permitted)?)
            .inheritable(names(sets.inheritable)?)
            .ambient(names(sets.ambient)?)
            .build()?;
        process.set_terminal(Some(false)).set_capabilities(Some(capabilities)).set_no_new_privileges(Some(true));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(filter::describe(&Policy::standard())?));
        linux.set_masked_paths(Some(root::masked()));
        linux.set_readonly_paths(Some(root::READ_ONLY.map(str::to_owned).to_vec()));
    }
    Ok(spec)
}

/// A new file system with the options that [mount(8)](https://man7.org/linux/man-pages/man8/mount.8.html) knows, which are the flags'
/// names.
fn describe(mount: &Mount) -> Result<runtime::Mount, OciSpecError> {
    let MountKind::FileSystem { name, options } = &mount.kind else {
        return Err(OciSpecError::Other(format!("{} is no file system of its own", mount.target)));
    };
    let flags = mount.flags.iter_names().map(|(name, _)| name.to_lowercase());
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned);
    MountBuilder::default()
        .destination(&mount.target)
        .typ(name)
        .source(name)
        .options(flags.chain(mount.read_only.then(|| "ro".into())).chain(options).collect::<Vec<String>>())
        .build()
}

fn names(set: CapabilitySet) -> Result<Capabilities, OciSpecError> {
    set.iter_names()
        .map(|(name, _)| name.parse().map_err(|_| OciSpecError::Other(format!("the capability {name} has no name"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::parse;
    use rustix::mount::MountFlags;
    use std::path::Path;

    #[test]
    fn a_bundle_has_the_mounts_of_our_own_containers() {
        let read = parse(template().unwrap().as_bytes(), Path::new("/")).unwrap();
        let ours = Mount::standard();
        assert_eq!(read.specification.mounts.len(), ours.len());
        for (read, ours) in read.specification.mounts.iter().zip(&ours) {
            assert_eq!((&read.target, &read.kind, read.read_only), (&ours.target, &ours.kind, ours.read_only));
            assert_eq!(read.flags - MountFlags::RDONLY, ours.flags, "{}", ours.target);
        }
        assert!(template().unwrap().contains("\"/sys/fs/cgroup\""));
    }
}
