//! How long a sandbox takes from t0 until it is ready, and from the order to end until nothing of it is left.

use super::{Experiment, Point, Scene, WarmUp, ended};
use crate::sandboxes::Network;
use anyhow::{Context, bail};
use isobench_reports::record::{StageTime, Value};
use isobench_workload::{Instance, OutputError, Stage, Workload, clock, protocol::PORT};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "startup",
    text: "launches one instance, waits until it is ready, ends it and waits until nothing of it is left",
    quick_blocks: 20,
    takes_program: true,
    warm_up: WarmUp::Block,
    metrics: &[STAGES, READY, GONE],
    points: |_| [STAGES, READY, GONE].map(Point::plain).into(),
    measure,
};

const STAGES: &str = "start.stages";
const READY: &str = "start.ready";
const GONE: &str = "start.gone";

fn measure(scene: Scene<'_>) -> anyhow::Result<()> {
    let Scene { ground, kind, sandbox, cell, sheet } = scene;
    let workload = match &cell.program {
        Some(program) => Workload::Program { arguments: program.clone() },
        None if kind.network == Network::None => Workload::Idle,
        None => Workload::Serve { port: PORT },
    };
    let mut instance = sandbox.launch(&workload)?;
    let first_line = match workload {
        Workload::Program { .. } => Some(first_line_or_end(&mut instance, ground.patience.deadline(kind))?),
        _ => {
            ground.patience.await_ready(kind, &mut instance)?;
            None
        }
    };
    let mut stages = instance.destroy().map_err(ended)?;
    if let Some(at) = first_line {
        stages.stamp(Stage::Announced, at);
    }
    let ready = stages.since_start(Stage::Answered).or_else(|| stages.since_start(Stage::Announced));
    let gone = stages.since_start(Stage::Gone).zip(stages.since_start(Stage::Ending));
    let started = stages.at(Stage::Started).unwrap_or_default();
    let times = stages.sorted();
    let times =
        times.iter().map(|(stage, at)| StageTime { stage: stage.name().into(), at: at.saturating_sub(started) });
    sheet.value(&Point::plain(STAGES), Value::Stages(times.collect()));
    sheet.value(&Point::plain(READY), Value::Integer(ready.context("it was never seen to be ready")?));
    sheet
        .value(&Point::plain(GONE), Value::Integer(gone.map(|(gone, ending)| gone - ending).context("it never went")?));
    Ok(())
}

/// When the user's own program said its first line or, saying nothing, ended well.
fn first_line_or_end(instance: &mut Instance, deadline: std::time::Duration) -> anyhow::Result<u64> {
    match instance.output().line(deadline) {
        Ok(_) => Ok(clock::now()),
        Err(OutputError::Ended(rest)) => {
            let at = clock::now();
            match instance.wait(deadline)?.code() {
                0 => Ok(at),
                code if rest.is_empty() => bail!("the program ended with status {code}"),
                code => bail!("the program ended with status {code} after `{rest}`"),
            }
        }
        Err(error) => Err(error).context("wait for the program's first line of output"),
    }
}
