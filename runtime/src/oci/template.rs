//! The configuration that a new bundle begins with.

use super::filter;
use crate::capabilities::Capabilities as Sets;
use crate::error::Error;
use crate::root;
use crate::seccomp::Policy;
use oci_spec::OciSpecError;
use oci_spec::runtime::{Capabilities, LinuxCapabilitiesBuilder, Spec};
use rustix::thread::CapabilitySet;

/// A `config.json` with what Docker gives a container by default: all namespaces but that of users, its capabilities less
/// `CAP_MKNOD`, no new privileges, masked paths, and its system call policy.
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

fn names(set: CapabilitySet) -> Result<Capabilities, OciSpecError> {
    set.iter_names()
        .map(|(name, _)| name.parse().map_err(|_| OciSpecError::Other(format!("the capability {name} has no name"))))
        .collect()
}
