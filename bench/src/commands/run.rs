//! `isobench run`.

mod directory;

use self::directory::Directory;
use super::{BadInput, Status, gc, output, report, status};
use crate::cell::Cell;
use crate::interrupt::Interrupt;
use crate::journal::{self, Journal};
use crate::plan::{self, Request, Suite};
use crate::progress::Progress;
use crate::recorder::{CELL_DURATION, CELL_LEAK, MACHINE_STEAL, MONOTONIC_START, Recorder, key};
use crate::session::{Ending, Session};
use crate::testbed::Settings;
use crate::testbeds::Testbeds;
use crate::{doctor, machine, schedule};
use anyhow::{Context, bail};
use isobench_microvm::linux::kernel;
use isobench_reports::messages::{Language, Messages};
use isobench_reports::metrics;
use isobench_reports::reader::{self, Records};
use isobench_reports::record::{Outcome as SampleOutcome, Run, SCHEMA_VERSION, Sample, SandboxRecord};
use isobench_reports::render::{terminal::table, view::View};
use isobench_workload::clock;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Measure, then write the report
///
/// Without options everything is measured in everything that this machine offers, in randomised blocks, and the report and
/// its records go to a new directory below ./isobench-results. The testbed lives in namespaces of its own: the machine's
/// links, firewall and control groups are as before afterwards, also after a kill (the next start, or `isobench gc`, removes
/// what is left).
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Measure this experiment only (may be given again)
    #[arg(long, value_name = "EXPERIMENT")]
    only: Vec<String>,
    /// Measure in this sandbox only (may be given again)
    #[arg(long, value_name = "NAME")]
    sandbox: Vec<String>,
    /// End with status 1 where this sandbox cannot be measured here (may be given again)
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// How many blocks of each experiment, in place of the suite's number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reps: Option<u32>,
    /// Stop measuring when the next block would take longer than this, as in 60s or 5min; the whole quick suite has just under three minutes
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Seed of the order of measurements; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// How much to measure
    #[arg(long, value_enum, default_value_t)]
    suite: Suite,
    /// Where to write, a directory that is empty or does not exist yet
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The guest kernel for vm-linux, by a name that `isobench vm kernel ls` shows, or a file [default: the one marked there]
    #[arg(long, value_name = "KERNEL", add = super::vm::kernel_completer())]
    kernel: Option<String>,
    /// Go on with a run that was interrupted, on the same boot, kernel and program
    #[arg(long, value_name = "DIR", conflicts_with_all = ["only", "sandbox", "reps", "seed", "suite", "out", "program"])]
    resume: Option<PathBuf>,
    /// Language of the report: en or zh; by default that of the locale
    #[arg(long, value_name = "LANGUAGE")]
    lang: Option<String>,
    /// Print a summary as JSON in place of the table
    #[arg(long)]
    json: bool,
    /// A program of your own to measure in place of the built-in workload: its path inside the sandboxes, and arguments
    #[arg(last = true, value_name = "COMMAND")]
    program: Vec<String>,
}

/// What a lab has measured.
pub(super) struct LabRun {
    pub(super) experiments: Vec<String>,
    pub(super) sandboxes: Vec<String>,
    pub(super) blocks: u32,
    pub(super) seed: u64,
    pub(super) directory: PathBuf,
    /// Whether the directory holds a run that was interrupted.
    pub(super) resume: bool,
    pub(super) language: Option<String>,
}

impl Arguments {
    /// The command line that measures a lab.
    pub(super) fn of_lab(lab: LabRun) -> Self {
        let (out, resume) = if lab.resume { (None, Some(lab.directory)) } else { (Some(lab.directory), None) };
        Self {
            only: lab.experiments,
            sandbox: lab.sandboxes,
            require: Vec::new(),
            reps: Some(lab.blocks),
            budget: None,
            seed: Some(lab.seed),
            suite: Suite::Quick,
            out,
            kernel: None,
            resume,
            lang: lab.language,
            json: false,
            program: Vec::new(),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  isobench run
  isobench run --only startup --sandbox process --sandbox container-bridge --reps 30
  isobench run --budget 60s --seed 7 --out results
  isobench run --require vm-unikernel --json          for CI: status 1 where there is no usable KVM
  isobench run --only startup -- /bin/busybox true    the start of a program of your own
  isobench run --resume results                       goes on after Ctrl-C

Exit status: 0 done, 1 a required sandbox cannot be measured here, 2 bad input, 3 measuring failed, 130 interrupted.";

/// How long the whole quick suite may measure: with the report it is done in three minutes on two cores, engines included.
const QUICK: Duration = Duration::from_secs(176);

/// A run that is about to be measured.
struct Prepared {
    directory: PathBuf,
    run: Run,
    recorder: Recorder,
    done: BTreeSet<crate::recorder::CellKey>,
    cells: Vec<Cell>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let language = super::language(arguments.lang.as_deref())?;
    let request = request(&arguments)?;
    let kernel = arguments.kernel.as_deref().map(crate::kernels::resolve).transpose()?.or_else(kernel::find);
    let guest = kernel.as_deref().and_then(crate::kernels::describe);
    let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
    for leftover in journal::sweep(false) {
        tracing::warn!("a run was killed before: {} {}", removed(&leftover), gc::describe(&leftover));
    }
    let resumed = arguments.resume.as_deref().map(|directory| resumable(directory, guest.as_ref())).transpose()?;
    let directory = match &arguments.resume {
        Some(directory) => Directory::existing(directory),
        None => Directory::fresh(arguments.out.as_deref())?,
    };
    let journal = Journal::open().context("begin the journal of what outlives a kill")?;
    let suite = resumed.as_ref().and_then(|run| run.plan.scale()).unwrap_or(arguments.suite.name());
    let quick = suite == Suite::Quick.name();
    journal.note_control_groups().context("write down the run's control groups")?;
    let settings = Settings { kernel, run: journal.run().to_owned(), quick, ..Settings::default() };
    let began = Instant::now();
    // An engine is started only where one of its sandboxes is to be measured.
    let takes_part = |name: &str| match &resumed {
        Some(run) => run.sandboxes.iter().any(|planned| planned.name == name && planned.unavailable.is_none()),
        None => request.wants(name) || arguments.require.iter().any(|required| required == name),
    };
    let mut testbed = Testbeds::start(&settings, &journal, takes_part).context("make the testbed")?;
    let start = Start { arguments: &arguments, request, resumed, directory, guest, began };
    let outcome = start.measure(&mut testbed, &interrupt);
    let stopped = testbed.stop().context("end the testbed");
    for leftover in journal.close() {
        tracing::warn!("{} {}", removed(&leftover), gc::describe(&leftover));
    }
    let (directory, ending) = match outcome? {
        Outcome::Measured(directory, ending) => (directory, ending),
        Outcome::Refused => return Ok(Status::Refused),
    };
    stopped?;
    finish(&directory, ending, language, arguments.json)
}

fn removed(leftover: &journal::Leftover) -> &'static str {
    if leftover.error.is_some() { "could not remove" } else { "removed" }
}

fn request(arguments: &Arguments) -> anyhow::Result<Request> {
    let request = Request {
        suite: arguments.suite,
        experiments: arguments.only.clone(),
        sandboxes: arguments.sandbox.clone(),
        blocks: arguments.reps,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        program: (!arguments.program.is_empty()).then(|| arguments.program.clone()),
    };
    request.check().map_err(BadInput::from_error)?;
    arguments.require.iter().try_for_each(|name| plan::check_sandbox(name)).map_err(BadInput::from_error)?;
    Ok(request)
}

/// What became of measuring.
enum Outcome {
    Measured(PathBuf, Ending),
    Refused,
}

/// What a run begins with.
struct Start<'a> {
    arguments: &'a Arguments,
    request: Request,
    resumed: Option<Run>,
    directory: Directory,
    /// The guest kernel.
    guest: Option<String>,
    began: Instant,
}

impl Start<'_> {
    fn measure(self, testbed: &mut Testbeds, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
        let missing = required(&self.arguments.require, testbed.sandboxes());
        if !missing.is_empty() {
            missing.iter().for_each(|sentence| status::say(sentence));
            return Ok(Outcome::Refused);
        }
        let mut prepared = match self.resumed {
            Some(run) => resume(self.directory, run, testbed.sandboxes())?,
            None => prepare(self.directory, &self.request, testbed, self.guest)?,
        };
        let mut cells = std::mem::take(&mut prepared.cells);
        let usual = (prepared.run.plan.suite == Suite::Quick.name()).then_some(QUICK);
        cells.retain(|cell| !prepared.done.contains(&key(cell)));
        let mut progress = Progress::new(&cells, false);
        let ending = Session {
            recorder: &mut prepared.recorder,
            progress: &mut progress,
            interrupt,
            end: self.arguments.budget.or(usual).map(|budget| self.began + budget),
        }
        .run(&cells, testbed);
        progress.finish();
        prepared.recorder.finish()?;
        Ok(Outcome::Measured(prepared.directory, ending?))
    }
}

/// One sentence for each sandbox that was required and cannot be measured.
fn required(names: &[String], sandboxes: &[SandboxRecord]) -> Vec<String> {
    let reason = |name: &String| {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.name == *name);
        sandbox.map_or_else(|| Some("it is not part of this build".into()), |sandbox| sandbox.unavailable.clone())
    };
    names
        .iter()
        .filter_map(|name| Some(format!("{name} is required and cannot be measured here: {}", reason(name)?)))
        .collect()
}

fn prepare(
    directory: Directory,
    request: &Request,
    testbed: &Testbeds,
    guest: Option<String>,
) -> anyhow::Result<Prepared> {
    let started = clock::now();
    let mut machine = machine::complete(testbed.machine().clone(), doctor::kvm().sentence);
    machine.facts.extend(guest.map(|guest| (GUEST_KERNEL.into(), guest)));
    machine.facts.insert(MONOTONIC_START.into(), started.to_string());
    let run = Run {
        schema: SCHEMA_VERSION,
        program: format!("isobench {}", machine::version()),
        program_digest: machine::program_digest().context("read this program's own file")?,
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        machine,
        plan: request.plan(std::env::args().collect()),
        sandboxes: request.choose(testbed.sandboxes()),
        metrics: metrics::table(),
    };
    let cells = cells(&run)?;
    let recorder = Recorder::create(&directory.path, &run, started)?;
    Ok(Prepared { directory: directory.keep(), run, recorder, done: BTreeSet::new(), cells })
}

/// What is to be measured; there is something, or nothing is written.
fn cells(run: &Run) -> anyhow::Result<Vec<Cell>> {
    let cells = schedule::cells(&run.plan, |experiment| plan::taking_part(experiment, &run.sandboxes));
    if cells.is_empty() {
        bail!("nothing of what was asked for can be measured here: `isobench list` tells why");
    }
    Ok(cells)
}

/// The fact that names the guest kernel of `vm-linux` and of QEMU's machines.
const GUEST_KERNEL: &str = "guest-kernel";

/// Reads a run that is to go on, and sees that it is the same machine, boot, kernel, guest kernel and program.
fn resumable(directory: &Path, guest: Option<&String>) -> anyhow::Result<Run> {
    let refused = format!("cannot resume {}", directory.display());
    let run = reader::read_interrupted(directory).map_err(|error| BadInput::because(&refused, error))?.records.run;
    let (boot, kernel) = machine::boot_and_kernel();
    let digest = machine::program_digest().context("read this program's own file")?;
    let different = match () {
        () if run.machine.boot != boot => Some("the machine has been started again since (or it is another machine)"),
        () if run.machine.kernel != kernel => Some("another kernel runs"),
        () if run.program_digest != digest => Some("this is another build of isobench"),
        () if run.machine.facts.get(GUEST_KERNEL) != guest => Some("it had another guest kernel (see --kernel)"),
        () => None,
    };
    match different {
        Some(reason) => {
            Err(BadInput(format!("{refused}: {reason}, so its figures would not be comparable; start a new run"))
                .into())
        }
        None => Ok(run),
    }
}

fn resume(directory: Directory, run: Run, there: &[SandboxRecord]) -> anyhow::Result<Prepared> {
    for planned in run.sandboxes.iter().filter(|sandbox| sandbox.unavailable.is_none()) {
        let now = there.iter().find(|sandbox| sandbox.name == planned.name);
        if let Some(reason) = now.and_then(|sandbox| sandbox.unavailable.as_ref()) {
            bail!("{} took part in the run and cannot be measured any more: {reason}", planned.name);
        }
    }
    let started = run.machine.facts.get(MONOTONIC_START).and_then(|text| text.parse().ok()).unwrap_or_else(clock::now);
    let cells = cells(&run)?;
    let (recorder, done) = Recorder::resume(&directory.path, started)?;
    Ok(Prepared { directory: directory.keep(), run, recorder, done, cells })
}

fn finish(directory: &Path, ending: Ending, language: Language, json: bool) -> anyhow::Result<Status> {
    let shown = directory.display();
    let note = match ending {
        Ending::Complete => None,
        Ending::OutOfTime(left) => {
            Some(format!("the time was out with {left} cells to go: fewer blocks, wider intervals"))
        }
        Ending::Interrupted(left) => {
            Some(format!("interrupted with {left} cells to go; `isobench run --resume {shown}` goes on"))
        }
    };
    if let Some(note) = &note {
        Progress::new(&[], false).note(note);
    }
    if matches!(ending, Ending::Interrupted(_)) {
        return Ok(Status::Interrupted);
    }
    let records: Records = reader::read(directory)?;
    let page = report::write(directory, &records, language)?;
    if json {
        output::print_json(&super::summary::Summary::new(&records, &page))?;
    } else {
        output::print(&table(&View::new(&records), &Messages::new(language)))?;
        output::print(&format!("\n{}\n", page.display()))?;
    }
    // What a cell says of itself comes about in any case.
    let of_sandbox = |sample: &&Sample| ![CELL_DURATION, CELL_LEAK, MACHINE_STEAL].contains(&sample.metric.as_str());
    let mut outcomes = records.samples.iter().filter(of_sandbox).map(|sample| &sample.outcome).peekable();
    if outcomes.peek().is_some() && outcomes.all(|outcome| matches!(outcome, SampleOutcome::Error(_))) {
        status::say("every measurement failed: the report tells why");
        return Ok(Status::Failed);
    }
    Ok(Status::Success)
}
