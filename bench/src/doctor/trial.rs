//! Namespaces and networks, tried for real in a process of its own: what it makes goes with it.

use super::{Finding, SUBCOMMAND, remedy};
use crate::programs::Program;
use crate::sandboxes::{Engine, terminals};
use isobench_runtime::launch::bare;
use isobench_runtime::network::{Firewall, Mac, Netlink, Offload, PeerNamespace, Tap, Veth};
use isobench_workload::{Exit, Output, Process};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long the trial, which takes some milliseconds, may take: what a busy machine delays must not be told as refused.
const DEADLINE: Duration = Duration::from_secs(10);

/// One thing that was tried.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    /// What was tried, such as `mount namespace`.
    what: String,
    /// What the system said, where it refused.
    refused: Option<String>,
}

/// The hidden subcommand: tries, and prints all attempts as one line of JSON.
pub fn main() -> ExitCode {
    let line = serde_json::to_string(&attempts()).unwrap_or_default();
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The findings on processes, namespaces and the network.
pub(super) fn findings() -> Vec<Finding> {
    match run() {
        Ok(attempts) => {
            let installed = Engine::ALL.into_iter().filter(|engine| engine.installed().is_ok()).map(Engine::name);
            let mut findings = vec![processes(&attempts), namespaces(&attempts), network(&attempts)];
            findings.extend(engines(&attempts, &installed.collect::<Vec<_>>()));
            findings
        }
        Err(error) => {
            let sentence = format!("could not be tried: {error:#}");
            let missing = |subject| Finding::missing(subject, sentence.clone(), None);
            ["processes", "namespaces", "network"].map(missing).into()
        }
    }
}

fn run() -> anyhow::Result<Vec<Attempt>> {
    let mut child =
        Command::new("/proc/self/exe").arg(SUBCOMMAND).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow::anyhow!("it has no output"))?;
    let mut process = Process::from_child(child.id())?;
    let line = Output::new(OwnedFd::from(stdout)).line(DEADLINE);
    if line.is_err() {
        process.signal(Signal::KILL)?;
    }
    process.wait(DEADLINE)?;
    Ok(serde_json::from_str(&line?)?)
}

/// Namespaces first: the network is tried inside a new one, so that nothing of the machine's is touched.
fn attempts() -> Vec<Attempt> {
    let (user, group) = (geteuid(), getegid());
    let mut attempts = Vec::new();
    let mut attempt = |what: &str, result: Result<(), String>| {
        let well = result.is_ok();
        attempts.push(Attempt { what: what.to_owned(), refused: result.err() });
        well
    };
    attempt(CLONE3, launch());
    // An ordinary user needs this one for all others. Root does without, and tries it last: it would lose its privilege.
    if !user.is_root() {
        attempt(USER, user_namespace(user.as_raw(), group.as_raw()));
    }
    for (what, flag) in [
        ("mount", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ] {
        attempt(what, leave(flag));
    }
    if !user.is_root() {
        attempt(TERMINALS, terminals().map_err(|errno| errno.to_string()));
    }
    if attempt(NETWORK, leave(CloneFlags::CLONE_NEWNET)) {
        for (what, result) in links() {
            attempt(what, result);
        }
    }
    if user.is_root() {
        attempt(USER, user_namespace(0, 0));
    }
    attempts
}

const CLONE3: &str = "clone3";
const USER: &str = "user";
const NETWORK: &str = "network";
const TERMINALS: &str = "terminals";

/// Launches the agent as the baseline and every container of ours are launched.
pub(crate) fn launch() -> Result<(), String> {
    let agent = Program::agent(&std::env::temp_dir()).map_err(|error| format!("{error:#}"))?;
    let descriptor = agent.file().try_clone_to_owned().map_err(|error| error.to_string())?;
    let launched = bare(Arc::new(descriptor), vec!["agent".to_owned(), "exit".to_owned()]);
    let (mut process, _output) = launched.map_err(|error| reason(&error))?;
    match process.wait(DEADLINE).map_err(|error| error.to_string())? {
        Exit::Status(0) => Ok(()),
        exit => Err(format!("the agent ended with {exit:?}")),
    }
}

fn leave(namespace: CloneFlags) -> Result<(), String> {
    unshare(namespace).map_err(|errno| errno.desc().to_owned())
}

/// Becomes root of a user namespace, as the testbed of an ordinary user does (user_namespaces(7)).
fn user_namespace(user: u32, group: u32) -> Result<(), String> {
    leave(CloneFlags::CLONE_NEWUSER)?;
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        std::fs::write(path, text).map_err(|error| format!("write {path}: {error}"))?;
    }
    Ok(())
}

/// The links that the simulated host is made of.
fn links() -> Vec<(&'static str, Result<(), String>)> {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return vec![("netlink", Err(reason(&error)))],
    };
    let bridge = netlink.create_bridge("bridge0", Mac::of(Ipv4Addr::new(172, 17, 0, 1)));
    let veth = Veth {
        name: "veth0",
        mac: None,
        bridge: bridge.as_ref().ok().copied(),
        peer_name: "veth1",
        peer_mac: None,
        peer_index: None,
        segments: None,
        hairpin: false,
    };
    let made = netlink.create_veth(&veth, &PeerNamespace::Process(rustix::process::getpid()));
    let tap = Tap::create(&mut netlink, "tap0", veth.bridge.unwrap_or_default(), Offload::None).map(drop);
    let firewall = Firewall::create("isobench").map(drop);
    let results = [("bridge", bridge.map(drop)), ("veth", made), ("tap", tap), ("nftables", firewall)];
    results.into_iter().map(|(what, result)| (what, result.map_err(|error| reason(&error)))).collect()
}

fn reason(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// What is said of making processes.
fn processes(attempts: &[Attempt]) -> Finding {
    const SUBJECT: &str = "processes";
    match attempts.iter().find(|attempt| attempt.what == CLONE3).and_then(|attempt| attempt.refused.as_ref()) {
        None => Finding::good(SUBJECT, "clone3 makes a process in all its namespaces by one call"),
        Some(refused) => Finding::missing(SUBJECT, without_processes(refused), Some(remedy::UNFILTERED.into())),
    }
}

/// Why neither the baseline nor a container of ours can be launched.
fn without_processes(refused: &str) -> String {
    format!(
        "clone3 is refused ({refused}), as by the system call filter of an old container engine, so neither the bare process \
         nor a container of ours can be launched"
    )
}

/// Why no process of ours can be launched here, with what mends it, if that is so.
pub(crate) fn obstacle_to_launches() -> Option<String> {
    launch().err().map(|refused| format!("{}: `{}`", without_processes(&refused), remedy::UNFILTERED))
}

/// What is said of the namespaces, by what was refused.
fn namespaces(attempts: &[Attempt]) -> Finding {
    const SUBJECT: &str = "namespaces";
    let names = ["user", "mount", "pid", "ipc", "uts", "cgroup", "network"];
    let refused: Vec<String> = attempts
        .iter()
        .filter(|attempt| names.contains(&attempt.what.as_str()))
        .filter_map(|attempt| Some(format!("{} ({})", attempt.what, attempt.refused.as_ref()?)))
        .collect();
    let only_user = attempts.iter().all(|attempt| attempt.refused.is_none() || attempt.what == USER);
    if refused.is_empty() {
        return Finding::good(SUBJECT, "network, mount, pid, ipc, uts, cgroup and user namespaces can be made");
    }
    if only_user && geteuid().is_root() {
        let sentence =
            format!("all namespaces can be made but {}, which only runs without root need", refused.join(", "));
        return Finding::limited(SUBJECT, sentence, None);
    }
    let remedy = match geteuid().is_root() {
        true if remedy::is_in_a_container() => remedy::PRIVILEGED.into(),
        true => "run it on the machine itself, or in a container started with --privileged".into(),
        false => remedy::user_namespace(),
    };
    Finding::missing(SUBJECT, format!("no testbed can be made: refused are {}", refused.join(", ")), Some(remedy))
}

/// What is said of the network, by what was refused.
fn network(attempts: &[Attempt]) -> Finding {
    const SUBJECT: &str = "network";
    let of = |what: &str| attempts.iter().find(|attempt| attempt.what == what);
    if of(NETWORK).is_none_or(|attempt| attempt.refused.is_some()) {
        return Finding::missing(SUBJECT, "without a network namespace there is no simulated host", None);
    }
    let tried: Vec<&Attempt> = PARTS.iter().filter_map(|what| of(what)).collect();
    let refused: Vec<&&Attempt> = tried.iter().filter(|attempt| attempt.refused.is_some()).collect();
    let list =
        |attempts: &[&Attempt]| attempts.iter().map(|attempt| attempt.what.as_str()).collect::<Vec<_>>().join(", ");
    let [first, ..] = refused.as_slice() else {
        return Finding::good(SUBJECT, format!("{} work in a namespace of their own", list(&tried)));
    };
    let reasons: Vec<String> = refused
        .iter()
        .map(|attempt| format!("{} ({})", attempt.what, attempt.refused.as_deref().unwrap_or_default()))
        .collect();
    Finding::limited(SUBJECT, format!("refused are {}", reasons.join(", ")), remedy::network(&first.what))
}

/// What is said of the engines that are installed, where an ordinary user cannot run them.
fn engines(attempts: &[Attempt], installed: &[&str]) -> Option<Finding> {
    let refused = attempts.iter().find(|attempt| attempt.what == TERMINALS)?.refused.as_ref()?;
    let sentence = format!(
        "{} cannot be measured without root: they give a container's terminals to group 5, which a user namespace of one user \
         does not have ({refused})",
        installed.join(" and ")
    );
    (!installed.is_empty()).then(|| Finding::limited("engines", sentence, Some("sudo isobench run".into())))
}

/// What the simulated host is made of.
const PARTS: [&str; 4] = ["bridge", "veth", "tap", "nftables"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn attempt(what: &str, refused: Option<&str>) -> Attempt {
        Attempt { what: what.into(), refused: refused.map(str::to_owned) }
    }

    #[test]
    fn a_refused_part_of_the_network_names_its_module() {
        let all = [attempt(NETWORK, None), attempt("bridge", None), attempt("veth", Some("Operation not supported"))];
        let finding = network(&all);
        assert_eq!((finding.state, finding.remedy.as_deref()), (State::Limited, Some("sudo modprobe veth")));
        let finding = network(&all[..2]);
        assert_eq!(finding.state, State::Good);
        assert_eq!(network(&[attempt(NETWORK, Some("Operation not permitted"))]).state, State::Missing);
    }

    #[test]
    fn engines_that_an_ordinary_user_cannot_run_are_named() {
        let refused = [attempt(TERMINALS, Some("Invalid argument"))];
        let finding = engines(&refused, &["docker", "podman"]).unwrap();
        assert_eq!((finding.state, finding.remedy.as_deref()), (State::Limited, Some("sudo isobench run")));
        assert!(finding.sentence.starts_with("docker and podman cannot"), "{}", finding.sentence);
        assert!(engines(&refused, &[]).is_none());
        assert!(engines(&[attempt(TERMINALS, None)], &["podman"]).is_none());
        assert!(engines(&[], &["podman"]).is_none());
    }

    #[test]
    fn a_refused_namespace_is_named_with_its_reason() {
        let finding = namespaces(&[attempt("mount", Some("Operation not permitted")), attempt("pid", None)]);
        assert_eq!(finding.state, State::Missing);
        assert!(finding.sentence.contains("mount (Operation not permitted)"), "{}", finding.sentence);
        assert!(finding.remedy.is_some());
        assert_eq!(namespaces(&[attempt("mount", None)]).state, State::Good);
    }
}
