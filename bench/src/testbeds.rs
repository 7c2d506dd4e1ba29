//! The testbeds of one run: that of our own sandboxes, and one for each engine whose sandboxes take part.

use crate::cell::{Cell, Measure, Measured};
use crate::journal::{Journal, Kind};
use crate::sandboxes::Engine;
use crate::testbed::{self, EngineSettings, Forbidden, Settings, Starting, Testbed};
use anyhow::{Context, anyhow};
use isobench_reports::record::{Machine, SandboxRecord};
use isobench_workload::Family;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every testbed of a run. A cell goes to the one that has its sandbox.
#[derive(Debug)]
pub struct Testbeds {
    own: Testbed,
    engines: Vec<EngineTestbed>,
    machine: Machine,
    sandboxes: Vec<SandboxRecord>,
}

/// The testbed of one engine, and the directory that goes after it.
#[derive(Debug)]
struct EngineTestbed {
    engine: Engine,
    testbed: Testbed,
    _data: Data,
}

impl Testbeds {
    /// Makes the testbed of our own sandboxes and, at the same time, one for each engine of which `takes_part` wants a sandbox.
    /// An engine that is not here, breaks or hangs is no error: its sandboxes say so.
    ///
    /// # Errors
    /// Where our own testbed cannot be made, or the journal not be written.
    pub fn start(settings: &Settings, journal: &Journal, takes_part: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let own = Testbed::begin(settings)?;
        let mut starting = Vec::new();
        let mut refused = Vec::new();
        for engine in Engine::ALL {
            let wanted = engine.kinds().any(|kind| takes_part(kind.name));
            match engine.installed() {
                Ok(()) if wanted => starting.push((engine, begin(engine, settings, journal)?)),
                Ok(()) => refused.push((engine, None)),
                Err(reason) => refused.push((engine, Some(reason))),
            }
        }
        let own = own.await_started()?;
        let (mut machine, mut sandboxes) = (own.machine().clone(), own.sandboxes().to_vec());
        let mut engines = Vec::new();
        for (engine, (testbed, data)) in starting {
            match testbed.await_started() {
                Ok(testbed) => {
                    let facts = testbed.machine().facts.iter().filter(|(name, _)| name.starts_with(engine.name()));
                    machine.facts.extend(facts.map(|(name, value)| (name.clone(), value.clone())));
                    engines.push(EngineTestbed { engine, testbed, _data: data });
                }
                Err(error) => {
                    refused.push((engine, Some(told(engine, &error))));
                    testbed::remove_groups(&part(settings, engine))?;
                }
            }
        }
        for engine in Engine::ALL {
            match engines.iter().find(|testbed| testbed.engine == engine) {
                Some(testbed) => sandboxes.extend(testbed.testbed.sandboxes().iter().cloned()),
                None => {
                    let reason = refused.iter().find(|(refused, _)| *refused == engine);
                    let reason = reason.and_then(|(_, reason)| reason.clone());
                    sandboxes.extend(engine.kinds().map(|kind| record(kind.name, reason.clone())));
                }
            }
        }
        Ok(Self { own, engines, machine, sandboxes })
    }

    /// Every sandbox that this program knows, in the order of every table; one that cannot run here says why.
    pub fn sandboxes(&self) -> &[SandboxRecord] {
        &self.sandboxes
    }

    /// Facts of the machine and of the testbeds that bear on a figure.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Ends every testbed in good order and sees it gone.
    ///
    /// # Errors
    /// Where one of them reported something that it could not remove, or had to be killed.
    pub fn stop(self) -> anyhow::Result<()> {
        let mut stopped = self.own.stop();
        for EngineTestbed { engine, testbed, .. } in self.engines {
            let result = testbed.stop().with_context(|| format!("end the testbed of {}", engine.name()));
            stopped = stopped.and(result);
        }
        stopped
    }

    fn of(&mut self, sandbox: &str) -> anyhow::Result<&mut Testbed> {
        let Some(engine) = Engine::of(sandbox) else { return Ok(&mut self.own) };
        let found = self.engines.iter_mut().find(|testbed| testbed.engine == engine);
        found.map(|testbed| &mut testbed.testbed).ok_or_else(|| anyhow!("{} was not started", engine.name()))
    }
}

impl Measure for Testbeds {
    fn measure(&mut self, cell: &Cell) -> anyhow::Result<Measured> {
        self.of(&cell.sandbox)?.measure(cell)
    }
}

/// Begins the testbed of an engine, whose control groups and files are written down before.
fn begin(engine: Engine, settings: &Settings, journal: &Journal) -> anyhow::Result<(Starting, Data)> {
    let run = part(settings, engine);
    journal.note_control_groups_of(&run).context("write down the control groups of an engine")?;
    let data = Data::make(&run, journal)?;
    let engine = Some(EngineSettings { engine, data: data.0.clone() });
    Ok((Testbed::begin(&Settings { run, engine, ..settings.clone() })?, data))
}

/// The name of an engine's part of the run.
fn part(settings: &Settings, engine: Engine) -> String {
    format!("{}.{}", settings.run, engine.name())
}

/// Why an engine is not measured: what it was refused, a sentence that names it, or what broke as it was started.
fn told(engine: Engine, error: &anyhow::Error) -> String {
    match error.downcast_ref::<Forbidden>() {
        Some(forbidden) => forbidden.to_string(),
        None => format!("{} does not start: {error:#}", engine.name()),
    }
}

fn record(name: &str, unavailable: Option<String>) -> SandboxRecord {
    SandboxRecord {
        name: name.into(),
        family: Family::Peer,
        version: None,
        unavailable,
        emulation: None,
        gaps: BTreeMap::new(),
    }
}

/// The directory of an engine's images and layers, on a disk as the machine's own engine would have it: in memory, each layer
/// would count as memory of its container. It is removed when this is dropped, after the testbed that mounts from it.
#[derive(Debug)]
struct Data(PathBuf);

impl Data {
    fn make(run: &str, journal: &Journal) -> anyhow::Result<Self> {
        let places = ["/var/tmp".into(), std::env::temp_dir()];
        let mut refused = None;
        for place in places {
            let path = place.join(format!("{}{run}", crate::journal::DIRECTORY_PREFIX));
            journal.note(Kind::Directory, &path).context("write down the directory of an engine")?;
            match make_private(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| anyhow!("there is no place for the files of an engine")))
    }
}

fn make_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("make {}", path.display()))
}

impl Drop for Data {
    fn drop(&mut self) {
        // What is left is told by whoever closes the journal.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
