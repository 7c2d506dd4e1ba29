//! How the values of options are written.

use crate::instances::{Network, Refusal};
use crate::networks::PortMapping;

/// A link-layer address.
pub(in crate::commands) type Mac = [u8; 6];

pub(in crate::commands) fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it must begin with `/`".into()) }
}

/// As Docker: bytes, or with b, k, m, g and powers of 1024.
pub(in crate::commands) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    let bytes = unit.zip(digits.parse::<u64>().ok()).and_then(|(shift, number)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a number with b, k, m or g, such as 64m".into())
}

pub(in crate::commands) fn network(text: &str) -> Result<Network, String> {
    Ok(match (text, text.strip_prefix("container:")) {
        ("host", _) => Network::Host,
        ("none", _) => Network::None,
        ("default", _) => Network::Named("bridge".into()),
        (_, Some("")) => return Err("name a container: container:NAME".into()),
        (_, Some(name)) => Network::Container(name.into()),
        ("", _) => return Err("give bridge, host, none, container:NAME or a network's name".into()),
        (name, None) => Network::Named(name.into()),
    })
}

pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let wrong = || "give six pairs of hexadecimal digits, such as 02:42:0a:59:00:02, the first of them even".to_owned();
    let mut address = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut address {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // An odd first byte is a group's address; all zeros are no address.
    let sound = parts.next().is_none() && address[0] & 1 == 0 && address != [0; 6];
    if sound { Ok(address) } else { Err(wrong()) }
}

pub(super) fn port(text: &str) -> Result<PortMapping, String> {
    text.parse().map_err(|error: Refusal| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_links_are_read() {
        assert_eq!(mac("02:42:0a:59:00:02"), Ok([2, 0x42, 10, 0x59, 0, 2]));
        for bad in ["", "02:42", "01:00:00:00:00:00", "00:00:00:00:00:00", "02:42:0a:59:00:02:03", "02:42:0a:59:00:0g"]
        {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_read(text in "\\PC{0,20}") {
            let _ = (size(&text), network(&text), mac(&text), port(&text));
        }
    }
}
