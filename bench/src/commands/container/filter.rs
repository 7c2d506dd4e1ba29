//! `isobench container ps --filter`.

use crate::instances::{Container, Status};
use std::mem::discriminant;

/// What a container that is listed must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Name(String),
    Id(String),
    Status(String),
    Exited(i32),
    Network(String),
    Ancestor(String),
}

impl Filter {
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else { return Err("give KEY=VALUE, such as name=web".into()) };
        let value = value.to_owned();
        Ok(match key {
            "name" => {
                let part = value.trim_start_matches('^').trim_end_matches('$');
                if part.contains(|letter: char| !letter.is_ascii_alphanumeric() && !"_.-/".contains(letter)) {
                    return Err("give a part of the name, with ^ at its beginning and $ at its end".into());
                }
                Self::Name(value)
            }
            "id" => Self::Id(value),
            "status" => match value.as_str() {
                "created" | "running" | "paused" | "exited" => Self::Status(value),
                _ => return Err("a status is created, running, paused or exited".into()),
            },
            "exited" => Self::Exited(value.parse().map_err(|_| "give an exit status, such as exited=0")?),
            "network" => Self::Network(value),
            "ancestor" => Self::Ancestor(value),
            _ => return Err("the keys are name, id, status, exited, network and ancestor".into()),
        })
    }

    fn lets(&self, container: &Container) -> bool {
        let (request, state) = (&container.request, &container.state);
        match self {
            Self::Name(pattern) => is_named(&container.name, pattern),
            Self::Id(beginning) => request.id.starts_with(beginning),
            Self::Status(name) => state.status.name() == name,
            Self::Exited(code) => state.status == Status::Exited && state.exit_code == *code,
            Self::Network(name) => {
                request.network.to_string() == *name || state.places.iter().any(|place| place.network == *name)
            }
            Self::Ancestor(root) => request.root == *root,
        }
    }
}

/// As with Docker, one of several of a kind is enough.
pub(super) fn let_pass(filters: &[Filter], container: &Container) -> bool {
    filters.iter().all(|filter| {
        let mut alike = filters.iter().filter(|other| discriminant(*other) == discriminant(filter));
        alike.any(|filter| filter.lets(container))
    })
}

/// Whether containers are asked for that do not run.
pub(super) fn names_a_status(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| matches!(filter, Filter::Status(_)))
}

/// Of Docker's regular expressions what is used: a part of the name, and the ends of it. A name there begins with a slash.
fn is_named(name: &str, pattern: &str) -> bool {
    let (at_start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (at_end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
    let (at_start, pattern) = pattern.strip_prefix('/').map_or((at_start, pattern), |rest| (true, rest));
    match (at_start, at_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_is_enough() {
        for pattern in ["web", "eb-", "^web", "^web-1$", "/web-1", "^/web-1$", "-1$", ""] {
            assert!(is_named("web-1", pattern), "{pattern}");
        }
        for pattern in ["^eb", "web$", "^web$", "/eb", "web-12"] {
            assert!(!is_named("web-1", pattern), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["web", "name=a.*b", "name=(a|b)", "status=dead", "exited=x", "label=a"] {
            assert!(Filter::of(bad).is_err(), "{bad}");
        }
        assert_eq!(Filter::of("exited=137"), Ok(Filter::Exited(137)));
    }
}
