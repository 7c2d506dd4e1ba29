//! Real runs whose reports decide the claims on networks for our own runtime, and one whose control is sabotaged.

use isobench_microvm::judge::judge;
use isobench_reports::claims::{self, Kind, Rule};
use isobench_reports::reader;
use isobench_reports::record::{Outcome, Value};
use isobench_reports::render::remarks;
use isobench_reports::verdict::{Answer, Reason, Verdict, evaluate};
use isobench_runtime::network::{Namespace, Netlink};
use libtest_mimic::{Arguments, Trial};
use rustix::process::Pid;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let root = rustix::process::geteuid().is_root();
    let sabotage =
        if root { "a_sabotaged_control_confirms_nothing" } else { "a_sabotaged_control_confirms_nothing (needs root)" };
    let kvm = judge();
    let unikernel = match kvm.runs_unikernel() {
        true => "a_unikernel_works_and_connects_by_order".to_owned(),
        false => format!("a_unikernel_works_and_connects_by_order ({kvm})"),
    };
    let trials = vec![
        Trial::test("reports_know_what_is_said_of_a_missing_sandbox", || {
            reports_know_what_is_said_of_a_missing_sandbox();
            Ok(())
        }),
        Trial::test("a_short_run_decides_every_claim_that_probes_decide", || {
            a_short_run_decides_every_claim_that_probes_decide();
            Ok(())
        }),
        Trial::test("work_is_done_in_a_process_and_in_a_container", || {
            work_is_done_in_a_process_and_in_a_container();
            Ok(())
        }),
        Trial::test(unikernel, || {
            a_unikernel_works_and_connects_by_order();
            Ok(())
        })
        .with_ignored_flag(!kvm.runs_unikernel()),
        // Only root may enter the testbed's network to sabotage it.
        Trial::test(sabotage, || {
            a_sabotaged_control_confirms_nothing();
            Ok(())
        })
        .with_ignored_flag(!root),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const OWN: [&str; 6] =
    ["process", "container-host", "container-container", "container-none", "container-bridge", "container-custom"];

fn run(place: &Path, only: &[&str], repetitions: &str) -> Command {
    run_in(place, only, repetitions, &OWN)
}

fn run_in(place: &Path, only: &[&str], repetitions: &str, sandboxes: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(["run", "--reps", repetitions, "--seed", "7", "--out"]).arg(place.join("run"));
    command.args(only.iter().flat_map(|name| ["--only", name]));
    command.args(sandboxes.iter().flat_map(|name| ["--sandbox", name]));
    command.env("ISOBENCH_HOME", place.join("isobench")).current_dir(place).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn verdicts(place: &Path) -> Vec<Verdict> {
    evaluate(&reader::read(&place.join("run")).expect("the run's records"))
}

fn find<'a>(verdicts: &'a [Verdict], id: &str) -> &'a Verdict {
    verdicts.iter().find(|verdict| verdict.claim.id == id).expect("a verdict on every claim")
}

/// Each sample of `overhead` is there, and none is an error: an order that came to another result would be one.
fn work_is_done_in_a_process_and_in_a_container() {
    let place = tempfile::tempdir().expect("a directory");
    let output = run(place.path(), &["overhead"], "1").stderr(Stdio::piped()).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = reader::read(&place.path().join("run")).expect("the run's records");
    let of = |sandbox: &'static str| {
        let own = records.samples.iter().filter(move |sample| sample.sandbox == sandbox && !sample.warm_up);
        own.filter(|sample| sample.metric.starts_with("overhead."))
    };
    for sandbox in ["process", "container-bridge"] {
        let errors: Vec<_> = of(sandbox).filter(|sample| matches!(sample.outcome, Outcome::Error(_))).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        // Nine kinds of work, three times each, and four facts about them.
        assert_eq!(of(sandbox).count(), 31, "{sandbox}");
        let file_system =
            of(sandbox).find(|sample| sample.metric == "overhead.file-system").map(|sample| &sample.outcome);
        assert_eq!(file_system, Some(&Outcome::Value(Value::Texts(vec!["tmpfs".into()]))));
    }
    assert_eq!(of("container-host").count(), 0, "a network mode makes no difference to work");
}

/// What is ordered from the server in a virtual machine without programs: work, and connections to others.
fn a_unikernel_works_and_connects_by_order() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = run_in(place.path(), &["overhead", "network"], "1", &["vm-unikernel"]);
    let output = command.stderr(Stdio::piped()).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = reader::read(&place.path().join("run")).expect("the run's records");
    let samples = || records.samples.iter().filter(|sample| !sample.warm_up);
    let errors: Vec<_> = samples().filter(|sample| matches!(sample.outcome, Outcome::Error(_))).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // Five kinds of work that need no kernel, three times each, and three facts about them.
    assert_eq!(samples().filter(|sample| sample.metric.starts_with("overhead.")).count(), 18);
    let verdict = evaluate(&records).into_iter().find(|verdict| verdict.claim.id == "bridge.snat.unikernel");
    let verdict = verdict.expect("a verdict on every claim");
    assert_eq!((verdict.answer, &verdict.reason), (Answer::ShownByConstruction, &None), "{verdict:#?}");
}

/// The claims that probes decide in containers alone, with what they need.
fn by_probes() -> Vec<&'static claims::Claim> {
    let tested = |claim: &&claims::Claim| !claim.rules.is_empty();
    let in_containers = |claim: &&claims::Claim| {
        claim.rules.iter().all(|rule| match rule {
            Rule::Facts { subjects, .. } => {
                subjects.iter().all(|subject| subject.peer || OWN.contains(&subject.sandbox.as_str()))
            }
            _ => true,
        })
    };
    let by_probes = claims::claims().iter().filter(tested).filter(|claim| claim.kind != Kind::Figure);
    by_probes.filter(in_containers).collect()
}

fn a_short_run_decides_every_claim_that_probes_decide() {
    let place = tempfile::tempdir().expect("a directory");
    let mut only: Vec<&str> = by_probes().iter().flat_map(|claim| &claim.experiments).map(String::as_str).collect();
    only.sort_unstable();
    only.dedup();
    let output = run(place.path(), &only, "1").stderr(Stdio::piped()).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let verdicts = verdicts(place.path());
    for claim in by_probes() {
        let verdict = find(&verdicts, &claim.id);
        // What a runtime chooses is only shown by our own, which was written to do so.
        let expected = if claim.kind == Kind::Choice { Answer::ShownByConstruction } else { Answer::Confirmed };
        assert_eq!((verdict.answer, &verdict.reason), (expected, &None), "{verdict:#?}");
    }
    // Where the claims are shown, they are shown with their controls.
    let page = fs::read_to_string(place.path().join("run/report.html")).expect("the report");
    for claim in by_probes() {
        assert!(page.contains(&format!("<code>{}</code>", claim.id)), "{} is not on the page", claim.id);
    }
}

/// A report in another language translates these sentences, and knows them by their English words.
fn reports_know_what_is_said_of_a_missing_sandbox() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    // Without a path no other project's program is found.
    command.args(["list", "--json"]).env("ISOBENCH_HOME", place.path().join("isobench")).env("PATH", "");
    let output = command.output().expect("the program starts");
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut missing = 0;
    for sandbox in listing["sandboxes"].as_array().expect("sandboxes") {
        let Some(reason) = sandbox["unavailable"].as_str() else { continue };
        assert!(remarks::is_known(reason), "no report translates `{reason}`");
        missing += 1;
    }
    assert!(missing >= 3, "{missing}");
}

/// The process of a run that lives in the testbed's network: the first descendant that has the link to the outside client.
fn testbed_of(run: u32) -> Option<Namespace> {
    let own = Namespace::current().ok()?;
    let mut found = vec![run];
    while let Some(process) = found.pop() {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { continue };
        let Ok(namespace) = Namespace::of_process(pid) else { continue };
        let ready = !namespace.same(&own).ok()? && Netlink::open_in(&namespace).ok()?.link("custom0").ok()?.is_some();
        if ready {
            return Some(namespace);
        }
    }
    None
}

fn a_sabotaged_control_confirms_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let mut child = run(place.path(), &["network"], "2").stderr(Stdio::null()).spawn().expect("the program starts");
    // While the testbed warms up, its way to the outside is cut: then nobody reaches the server there, not even the control.
    let end = Instant::now() + Duration::from_secs(60);
    let testbed = loop {
        if let Some(namespace) = testbed_of(child.id()) {
            break namespace;
        }
        assert!(Instant::now() < end && child.try_wait().expect("its state").is_none(), "there is no testbed");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut netlink = Netlink::open_in(&testbed).expect("a socket in the testbed");
    let uplink = netlink.index("uplink").expect("the uplink");
    netlink.delete_link(uplink).expect("cut the way to the outside");
    drop((netlink, testbed));
    assert!(child.wait().expect("its end").success());

    let verdicts = verdicts(place.path());
    let verdict = find(&verdicts, "none.alone");
    let broken = Reason::ControlBroken { metric: "network.connects".into(), sandbox: "container-bridge".into() };
    assert_eq!((verdict.answer, verdict.reason.as_ref()), (Answer::Inconclusive, Some(&broken)), "{verdict:#?}");
    let none = verdict.facts.iter().filter(|fact| !fact.control);
    assert!(none.clone().count() > 2 && none.clone().all(|fact| fact.answer == Answer::Confirmed), "{verdict:#?}");
    assert_eq!(find(&verdicts, "bridge.snat").answer, Answer::Inconclusive);
    // What needs no way to the outside is decided all the same.
    assert_eq!(find(&verdicts, "host.port-conflict").answer, Answer::Confirmed);
}
