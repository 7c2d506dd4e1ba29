//! Tables and times as Docker shows them.

use crate::instances::{Container, Status};
use isobench_runtime::network::{Protocol, Redirection};
use std::time::{Duration, SystemTime};

/// Columns as wide as their widest cell and at least 10, three blanks between them.
pub(in crate::commands) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(7)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<0$}", width + 3)).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time in words, such as `About a minute`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        _ if minutes < 46 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ => format!("{} months", hours / 24 / 30),
    }
}

/// How long ago a time of RFC 3339 was.
pub(super) fn since(time: &str) -> Duration {
    let then = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    then.elapsed().unwrap_or_default()
}

/// How a container fares, such as `Up 3 minutes (Paused)`.
pub(super) fn status(container: &Container) -> String {
    let state = &container.state;
    let ago = |time: &Option<String>| duration(time.as_deref().map(since).unwrap_or_default());
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}", ago(&state.started)),
        Status::Paused => format!("Up {} (Paused)", ago(&state.started)),
        // A killed supervisor wrote no time down.
        Status::Exited if state.finished.is_none() => format!("Exited ({})", state.exit_code),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(&state.finished)),
    }
}

/// Published ports in one line, such as `0.0.0.0:8080->80/tcp`; neighbours of a range in one item.
pub(super) fn ports(ports: &[Redirection]) -> String {
    let mut items: Vec<String> = Vec::new();
    let mut rest = ports;
    while let Some(first) = rest.first() {
        let continues = |(index, next): (usize, &Redirection)| {
            (next.host, next.protocol) == (first.host, first.protocol)
                && next.target.ip() == first.target.ip()
                && usize::from(next.port) == usize::from(first.port) + index
                && usize::from(next.target.port()) == usize::from(first.target.port()) + index
        };
        let count = rest.iter().enumerate().take_while(|pair| continues(*pair)).count().max(1);
        let range = |first: u16| {
            if count == 1 { first.to_string() } else { format!("{first}-{}", usize::from(first) + count - 1) }
        };
        let (host, target) = (range(first.port), range(first.target.port()));
        items.push(format!("{}:{host}->{target}/{}", host_address(first), protocol(first.protocol)));
        rest = &rest[count..];
    }
    items.join(", ")
}

/// The address of the host at which a port is open.
pub(super) fn host_address(port: &Redirection) -> String {
    match (port.host, port.target.is_ipv6()) {
        (Some(address), false) => address.to_string(),
        (Some(address), true) => format!("[{address}]"),
        (None, false) => "0.0.0.0".into(),
        (None, true) => "[::]".into(),
    }
}

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Bytes with a unit of powers of 1024 and four figures, such as `1.5MiB`.
pub(super) fn binary(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bytes with a unit of powers of 1000 and three figures, such as `1.5kB`.
pub(super) fn decimal(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, 3, &["B", "kB", "MB", "GB", "TB"])
}

/// As Docker has it: so many figures at most, and no zeros at the end of a fraction.
fn scaled(mut value: f64, base: f64, figures: usize, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = figures.saturating_sub((value as u64).to_string().len());
    let number = format!("{value:.decimals$}");
    let number = if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_docker_tells_them() {
        let told = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(told(0), "Less than a second");
        assert_eq!(told(59), "59 seconds");
        assert_eq!(told(61), "About a minute");
        assert_eq!(told(150), "2 minutes");
        assert_eq!(told(3600), "About an hour");
        assert_eq!(told(7200), "2 hours");
        assert_eq!(told(3 * 86400), "3 days");
    }

    #[test]
    fn ports_of_a_range_are_one_item() {
        let port = |host: u16, container: u16| Redirection {
            protocol: Protocol::Tcp,
            host: None,
            port: host,
            target: (std::net::Ipv4Addr::new(172, 17, 0, 2), container).into(),
        };
        let all = [port(8000, 80), port(8001, 81), port(9000, 80)];
        assert_eq!(ports(&all), "0.0.0.0:8000-8001->80-81/tcp, 0.0.0.0:9000->80/tcp");
        assert_eq!(ports(&[]), "");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((binary(0), binary(1536), binary(64 << 20)), ("0B".into(), "1.5KiB".into(), "64MiB".into()));
        assert_eq!((binary(1000 << 10), binary(25_275_000_000)), ("1000KiB".into(), "23.54GiB".into()));
        assert_eq!((decimal(656), decimal(8192), decimal(100_000)), ("656B".into(), "8.19kB".into(), "100kB".into()));
    }
}
