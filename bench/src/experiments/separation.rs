//! Whether two networks with subnets of their own reach each other: a server in each, and a client in each that tries both.

use super::{Experiment, Point, Scene, WarmUp, answer, ended};
use crate::sandboxes::Kind;
use anyhow::Context;
use isobench_reports::record::Value;
use isobench_workload::{Family, Finding, Probe, Workload, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "separation",
    text: "tries from each of two networks to reach a server in either",
    quick_blocks: 1,
    takes_program: false,
    warm_up: WarmUp::Nothing,
    metrics: &[CONNECTS],
    points,
    measure,
};

const CONNECTS: &str = "separation.connects";

fn points(kind: &Kind) -> Vec<Point> {
    if !matches!(kind.family, Family::Container | Family::Peer) || !kind.is_custom() {
        return Vec::new();
    }
    ["neighbour", "other-network", "neighbour-there", "this-network"].map(connects).into()
}

fn connects(to: &str) -> Point {
    Point::with(CONNECTS, &[("to", to)])
}

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox: here, sheet, .. } = scene;
    let deadline = ground.settings.deadline;
    let mut there = ground.in_second_network(kind)?;
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for sandbox in [&mut *here, there.as_mut()] {
        let mut server = sandbox.launch(&Workload::Serve { port: PORT })?;
        server.await_ready(deadline)?;
        addresses.push(server.server().context("a server in a network has no address")?);
        servers.push(server);
    }
    let question = Workload::Probe(Probe { connect: addresses, patience: Some(super::PATIENCE), ..Probe::default() });
    // Both wait for what does not come at the same time.
    let (client_here, client_there) = (here.launch(&question)?, there.launch(&question)?);
    let seen_here: Finding = answer(client_here, deadline)?;
    let seen_there: Finding = answer(client_there, deadline)?;
    for server in servers {
        server.destroy().map_err(ended)?;
    }
    for (seen, [to_first, to_second]) in
        [(seen_here, ["neighbour", "other-network"]), (seen_there, ["this-network", "neighbour-there"])]
    {
        for (to, outcome) in [to_first, to_second].into_iter().zip(&seen.connects) {
            sheet.value(&connects(to), Value::Boolean(outcome.is_ok()));
        }
    }
    Ok(())
}
