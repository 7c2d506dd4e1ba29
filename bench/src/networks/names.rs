//! Names and where they lead: a directory for each name of a network, with an empty file for each address. Making and removing
//! such a file is one step for the kernel, so that no lock is needed.

use super::refuse;
use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What can name a network or a container, and so be a label of the domain name system and a file's name.
///
/// # Errors
/// A refusal that says what a name is made of.
pub fn check_name(kind: &str, name: &str) -> anyhow::Result<()> {
    let sound = (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character));
    if sound {
        return Ok(());
    }
    refuse(format!(
        "`{name}` is no name for a {kind}: it has 1 to 63 letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
    ))
}

/// The names of one network.
#[derive(Clone, Debug)]
pub(crate) struct Names(PathBuf);

impl Names {
    /// Those of the network with this directory.
    pub(crate) fn of(network: &Path) -> Self {
        Self(network.join("names"))
    }

    /// Lets a name lead to an address too.
    pub(crate) fn add(&self, name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
        let directory = self.directory(name);
        loop {
            let made = fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(address.to_string()), ""));
            match made {
                // Another process has just removed the directory with the last of its addresses.
                Err(error) if error.kind() == ErrorKind::NotFound && self.0.parent().is_some_and(Path::exists) => {}
                result => return result.with_context(|| format!("let the name {name} lead to {address}")),
            }
        }
    }

    /// Lets it lead there no more.
    pub(crate) fn remove(&self, name: &str, address: Ipv4Addr) {
        let directory = self.directory(name);
        let _ = fs::remove_file(directory.join(address.to_string()));
        // It stays if there are other addresses.
        let _ = fs::remove_dir(directory);
    }

    /// Where it leads; nothing if there is no such name.
    pub(crate) fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        let Ok(entries) = fs::read_dir(self.directory(name)) else { return Vec::new() };
        let addresses = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort();
        addresses
    }

    /// Names know no case ([RFC 4343](https://www.rfc-editor.org/rfc/rfc4343)).
    fn directory(&self, name: &str) -> PathBuf {
        self.0.join(name.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_all_its_addresses_and_goes_with_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let names = Names::of(directory.path());
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
        names.add("Web", two).unwrap();
        names.add("web", one).unwrap();
        assert_eq!(names.addresses("WEB"), [one, two]);
        names.remove("web", two);
        assert_eq!(names.addresses("web"), [one]);
        names.remove("web", one);
        assert!(names.addresses("web").is_empty());
        assert_eq!(fs::read_dir(&names.0).unwrap().count(), 0);
    }
}
