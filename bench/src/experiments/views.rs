//! What of files and processes is seen from inside a container that shares somebody's network.

use super::{Experiment, Place, Point, Scene, WarmUp, answer, ended};
use crate::sandboxes::{Kind, Network};
use crate::testbed::directory;
use anyhow::Context;
use isobench_reports::record::Value;
use isobench_workload::{Family, Finding, Probe, Workload};
use std::fs;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "views",
    text: "looks from inside for a file of the host and for processes of the host and of a neighbour",
    quick_blocks: 2,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[SEEN, NAMESPACE],
    points,
    measure,
};

const SEEN: &str = "views.seen";
const NAMESPACE: &str = "views.namespace-is-host";

/// Ports on which nobody else serves: a process is known by its command line.
const HOST_PORT: u16 = 7005;
const NEIGHBOUR_PORT: u16 = 7004;

fn points(kind: &Kind) -> Vec<Point> {
    let looked_at = match kind.family {
        // The control: it sees all.
        Family::Process => !kind.is_unikernel(),
        Family::Container | Family::Peer => matches!(kind.network, Network::Host | Network::Joined),
        Family::Unikernel | Family::Linux => false,
    };
    if !looked_at {
        return Vec::new();
    }
    let seen = ["host-file", "host-process", "neighbour-process", "own-process"].map(seen);
    seen.into_iter().chain(["mnt", "pid"].map(namespace)).collect()
}

fn seen(what: &str) -> Point {
    Point::with(SEEN, &[("what", what)])
}

fn namespace(kind: &str) -> Point {
    Point::with(NAMESPACE, &[("kind", kind)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, sandbox, sheet, .. } = scene;
    let deadline = ground.settings.deadline;
    let file = directory("views")?.join("canary");
    fs::write(&file, "a file of the host\n").with_context(|| format!("write {}", file.display()))?;
    let mut process = ground.agent(Place::Host, &Workload::Serve { port: HOST_PORT })?;
    process.await_ready(deadline)?;
    let mut neighbour = sandbox.launch(&Workload::Serve { port: NEIGHBOUR_PORT })?;
    neighbour.await_ready(deadline)?;

    let question = Workload::Probe(Probe {
        files: vec![file.display().to_string()],
        processes: vec![format!("serve {HOST_PORT}"), format!("serve {NEIGHBOUR_PORT}")],
        ..Probe::default()
    });
    let inside: Finding = answer(sandbox.launch(&question)?, deadline)?;
    let host: Finding = answer(ground.agent(Place::Host, &question)?, deadline)?;

    neighbour.destroy().map_err(ended)?;
    process.destroy().map_err(ended)?;
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    let answers = inside.files.iter().chain(&inside.processes).chain([&inside.sees_itself]);
    for (what, answer) in ["host-file", "host-process", "neighbour-process", "own-process"].into_iter().zip(answers) {
        sheet.value(&seen(what), Value::Boolean(*answer));
    }
    for (kind, inside, host) in [
        ("mnt", inside.mount_namespace, host.mount_namespace),
        ("pid", inside.process_namespace, host.process_namespace),
    ] {
        anyhow::ensure!(inside != 0 && host != 0, "the number of the {kind} namespace cannot be read");
        sheet.value(&namespace(kind), Value::Boolean(inside == host));
    }
    Ok(())
}
