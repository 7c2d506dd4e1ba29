//! What this machine can do: one sentence on each of its parts, and the one command that mends what is missing.
//!
//! Nothing is concluded that can be tried: namespaces and links are made in a process of its own and go with it
//! ([`trial`]), a guest is run on KVM, a program is executed from memory. All of it together takes less than two seconds.

mod control_groups;
mod kvm;
mod programs;
pub(crate) mod remedy;
pub mod trial;

pub use kvm::kvm;

use serde::Serialize;

/// The hidden subcommand that makes this program try things in a process of its own.
pub const SUBCOMMAND: &str = "__doctor";

/// How well a part of the machine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All that is measured can be measured.
    Good,
    /// Some of it cannot.
    Limited,
    /// Nothing that needs it can be measured.
    Missing,
}

/// What was found of one part of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part.
    pub subject: &'static str,
    /// How well it serves.
    pub state: State,
    /// What it is, in one sentence.
    pub sentence: String,
    /// The command that mends it, where one does.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self { subject, state: State::Good, sentence: sentence.into(), remedy: None }
    }

    fn limited(subject: &'static str, sentence: impl Into<String>, remedy: Option<String>) -> Self {
        Self { subject, state: State::Limited, sentence: sentence.into(), remedy }
    }

    fn missing(subject: &'static str, sentence: impl Into<String>, remedy: Option<String>) -> Self {
        Self { subject, state: State::Missing, sentence: sentence.into(), remedy }
    }
}

impl Finding {
    /// The sentence, with the command that mends it.
    pub fn with_remedy(&self) -> String {
        match &self.remedy {
            Some(command) => format!("{}: `{command}`", self.sentence),
            None => self.sentence.clone(),
        }
    }
}

/// Looks at everything, at once.
pub fn examine() -> Vec<Finding> {
    std::thread::scope(|scope| {
        let kvm = scope.spawn(kvm);
        let peers = scope.spawn(programs::peers);
        let memory = scope.spawn(programs::from_memory);
        let mut findings = vec![privilege()];
        findings.extend(trial::findings());
        findings.push(control_groups::control_groups());
        let failed =
            |subject| move |_| Finding::missing(subject, "it could not be looked at: the examination failed", None);
        findings.push(kvm.join().unwrap_or_else(failed("KVM")));
        findings.push(memory.join().unwrap_or_else(failed("programs from memory")));
        findings.push(peers.join().unwrap_or_else(failed("peers")));
        findings
    })
}

fn privilege() -> Finding {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Finding::good("privilege", "you are root, so nothing is refused for want of privilege");
    }
    Finding::good("privilege", format!("you are user {}, so the testbed is made in a user namespace", user.as_raw()))
}
