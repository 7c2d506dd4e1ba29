//! The program as its users run it: the real binary, its output, its exit status, and what it leaves behind.

use isobench_reports::reader;
use isobench_reports::record::{Run, Sample};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let root = rustix::process::geteuid().is_root();
    let mut trials = vec![
        Trial::test("help_teaches", help_teaches),
        Trial::test("list_shows_experiments_sandboxes_and_claims", list),
        Trial::test("doctor_is_quick_and_names_remedies", doctor),
        Trial::test("bad_input_is_one_sentence_and_leaves_nothing", bad_input),
        Trial::test("damaged_records_are_refused_in_one_sentence", damaged_records),
        Trial::test("other_programs_are_told_what_they_ask_for", for_other_programs),
        Trial::test("a_closed_pipe_is_no_failure", closed_pipe),
        Trial::test("a_short_run_ends_in_a_report_and_compares", short_run),
        Trial::test("a_program_of_the_users_own_is_measured", own_program),
        Trial::test("a_required_sandbox_that_cannot_be_measured_is_refused", required),
        Trial::test("ctrl_c_leaves_valid_records_and_resume_goes_on", interrupt_and_resume),
        Trial::test("a_second_ctrl_c_ends_at_once", second_interrupt),
        Trial::test("a_run_resumes_on_the_same_boot_and_program_only", resume_elsewhere),
        Trial::test("nothing_is_left_after_a_kill_and_gc", kill_and_sweep),
        Trial::test("selftest_finds_the_planted_slowdown", selftest),
    ];
    // chroot(2) needs root; all else here works in a user namespace, or says why not.
    let chroot = if root {
        "the_file_alone_works_in_an_empty_root"
    } else {
        "the_file_alone_works_in_an_empty_root (needs root)"
    };
    trials.push(Trial::test(chroot, empty_root).with_ignored_flag(!root));
    // So do the others: a mount over /dev/kvm, and another user's number.
    for (name, test) in [
        ("without_kvm_the_run_goes_on_and_names_the_remedy", without_kvm as fn() -> Outcome),
        ("an_ordinary_user_without_user_namespaces_is_told", without_user_namespaces),
        ("an_unwritable_directory_is_refused", unwritable),
    ] {
        let name = if root { name.to_owned() } else { format!("{name} (needs root)") };
        trials.push(Trial::test(name, test).with_ignored_flag(!root));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A directory of this test's own, with the journals of its runs in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("ISOBENCH_HOME", self.0.path().join("isobench")).env("LC_ALL", "C").env_remove("ISOBENCH_LOG");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs and expects success; gives the standard output.
    fn well(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.run(arguments);
        expect(output.status.code() == Some(0), || format!("{arguments:?}: {output:?}"))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, Failed> {
        Ok(serde_json::from_str(&self.well(arguments)?)?)
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

fn help_teaches() -> Outcome {
    let place = Place::new();
    let help = place.well(&["--help"])?;
    for word in ["Examples:", "Exit status:", "run", "report", "compare", "list", "doctor", "selftest", "lab", "gc"] {
        expect(help.contains(word), || format!("`--help` does not say {word}: {help}"))?;
    }
    expect(!help.contains("__"), || "a hidden command is shown".into())?;
    for command in
        ["run", "report", "compare", "list", "doctor", "selftest", "lab", "gc", "completions", "man", "schema"]
    {
        place.well(&[command, "--help"])?;
    }
    expect(place.well(&["run", "--help"])?.contains("isobench run --resume"), || "no example of --resume".into())?;
    expect(place.run(&[]).status.code() == Some(2), || "no command is wrong usage".into())
}

fn list() -> Outcome {
    let place = Place::new();
    let text = place.well(&["list"])?;
    for word in ["Experiments", "startup", "Sandboxes", "process", "Claims", "bridge.snat"] {
        expect(text.contains(word), || format!("`list` does not say {word}: {text}"))?;
    }
    let listing = place.json(&["list", "--json"])?;
    let names = |key: &str| -> Vec<String> {
        let entries = listing[key].as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect()
    };
    expect(names("experiments").contains(&"startup".into()), || format!("{listing}"))?;
    let sandboxes = names("sandboxes");
    expect(sandboxes.first().is_some_and(|name| name == "process"), || format!("{sandboxes:?}"))?;
    expect(sandboxes.iter().collect::<BTreeSet<_>>().len() == sandboxes.len(), || format!("{sandboxes:?}"))
}

fn doctor() -> Outcome {
    let place = Place::new();
    let before = State::now();
    let began = Instant::now();
    let findings = place.json(&["doctor", "--json"])?;
    let took = began.elapsed();
    expect(took < Duration::from_secs(4), || format!("it took {took:?} beside other tests"))?;
    let findings = findings.as_array().ok_or("no array")?;
    for subject in ["privilege", "namespaces", "network", "control groups", "KVM", "programs from memory", "peers"] {
        let of = findings.iter().filter(|finding| finding["subject"] == subject);
        expect(of.count() == 1, || format!("{subject} is not there once: {findings:?}"))?;
    }
    for finding in findings {
        let sentence = finding["sentence"].as_str().unwrap_or_default();
        expect(sentence.len() > 10, || format!("{finding}"))?;
    }
    State::now().same_as(&before)
}

fn bad_input() -> Outcome {
    let place = Place::new();
    fs::create_dir(place.path("full"))?;
    fs::write(place.path("full/notes"), "")?;
    fs::create_dir(place.path("corrupt"))?;
    fs::write(place.path("corrupt/run.json"), "{\"schema\": 1, ")?;
    fs::write(place.path("corrupt/samples.jsonl"), "")?;
    fs::create_dir(place.path("future"))?;
    fs::write(place.path("future/run.json"), "{\"schema\": 999}")?;
    fs::write(place.path("future/samples.jsonl"), "")?;
    let before = place.entries();
    let state = State::now();
    let cases: [(&[&str], &str); 18] = [
        (&["run", "--only", "startpu"], "there is no experiment named `startpu`, did you mean `startup`?"),
        (&["run", "--sandbox", "container-brigde"], "did you mean `container-bridge`"),
        (&["run", "--require", "vm-linuks"], "did you mean `vm-linux`"),
        (&["run", "--only", "memory", "--", "/bin/true"], "has a workload of its own"),
        (&["run", "--out", "full"], "is not empty"),
        (&["run", "--out", "/proc/nowhere"], "give one that you may write with --out"),
        (&["run", "--out", "full/notes/below"], "give one that you may write with --out"),
        (&["run", "--kernel", "/nonexistent/vmlinuz"], "there is no guest kernel `/nonexistent/vmlinuz`"),
        (&["run", "--budget", "soon"], "--budget"),
        (&["run", "--reps", "0"], "--reps"),
        (&["run", "--lang", "fr"], "choose en or zh"),
        (&["run", "--resume", "nowhere"], "cannot resume nowhere"),
        (&["run", "--resume", "full", "--seed", "1"], "cannot be used with"),
        (&["report", "nowhere"], "name a directory that `isobench run` wrote"),
        (&["report", "corrupt"], "run.json line 1"),
        (&["report", "future"], "schema version 999"),
        (&["compare", "corrupt", "nowhere"], "cannot compare corrupt"),
        (&["compare", "full", "full", "--fail-above", "0.5"], "such as 1.1 for 10 %"),
    ];
    for (arguments, sentence) in cases {
        let output = place.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(2), || format!("{arguments:?} ended with {:?}: {told}", output.status))?;
        expect(told.contains(sentence), || format!("{arguments:?} does not say `{sentence}`: {told}"))?;
        expect(output.stdout.is_empty(), || format!("{arguments:?} printed a result"))?;
    }
    let output = place.command(&["testbed", "ls"]).env("ISOBENCH_HOME", "isobench").output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(2) && told.contains("ISOBENCH_HOME=isobench: give an absolute path"), || told)?;
    expect(place.entries() == before, || format!("something was left: {:?}, before {before:?}", place.entries()))?;
    State::now().same_as(&state)
}

/// Runs and expects one sentence of refusal, with the status for bad input, that contains all of these words.
fn refused(place: &Place, arguments: &[&str], words: &[&str]) -> Outcome {
    let output = place.run(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(2), || format!("{arguments:?} ended with {:?}: {told}", output.status))?;
    expect(told.trim_end().lines().count() == 1, || format!("{arguments:?} says more than a sentence: {told}"))?;
    expect(words.iter().all(|word| told.contains(word)), || format!("{arguments:?} does not say {words:?}: {told}"))
}

fn damaged_records() -> Outcome {
    let place = Place::new();
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--json"]);
    place.well(&arguments)?;
    let (run, samples) = (place.path("out/run.json"), place.path("out/samples.jsonl"));
    let (description, records) = (fs::read(&run)?, fs::read_to_string(&samples)?);
    // A line in the middle that is none of ours, and one that is missing.
    let mut lines: Vec<&str> = records.lines().collect();
    lines[4] = "\u{0}\u{1} garbage";
    fs::write(&samples, lines.join("\n") + "\n")?;
    let entries = place.entries();
    let commands: [&[&str]; 3] = [&["report", "out"], &["run", "--resume", "out"], &["compare", "out", "out"]];
    for command in commands {
        refused(&place, command, &["samples.jsonl line 5"])?;
    }
    lines.remove(4);
    fs::write(&samples, lines.join("\n") + "\n")?;
    for command in commands {
        refused(&place, command, &["samples.jsonl line 5"])?;
    }
    fs::write(&samples, &records)?;
    // A description that was cut short.
    fs::write(&run, &description[..description.len() / 2])?;
    for command in commands {
        refused(&place, command, &["run.json line"])?;
    }
    fs::remove_file(&run)?;
    for command in commands {
        refused(&place, command, &["out"])?;
    }
    expect(fs::read_to_string(&samples)? == records, || "the samples were touched".into())?;
    expect(place.entries() == entries, || format!("something was left: {:?}", place.entries()))
}

/// The program behind a shell that first makes the machine poorer, in namespaces of its own.
fn poorer(place: &Place, unshare: &[&str], preparation: &str, arguments: &[&str]) -> Result<Output, Failed> {
    let program = env!("CARGO_BIN_EXE_isobench");
    let script = format!("{preparation} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &script, "sh", program]).args(arguments);
    command.current_dir(place.0.path()).stdin(Stdio::null());
    command.env("ISOBENCH_HOME", place.0.path().join("isobench")).env("LC_ALL", "C").env_remove("ISOBENCH_LOG");
    Ok(command.output()?)
}

fn without_kvm() -> Outcome {
    let place = Place::new();
    let state = State::now();
    // A device that is no KVM; where there is no node to cover, there is no KVM to begin with.
    let cover = "{ [ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; }";
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--sandbox", "vm-unikernel"]);
    let output = poorer(&place, &["--mount"], cover, &arguments)?;
    expect(output.status.code() == Some(0), || format!("{output:?}"))?;
    let records = reader::read(&place.path("out"))?;
    let unikernel = records.run.sandboxes.iter().find(|sandbox| sandbox.name == "vm-unikernel");
    let reason =
        unikernel.and_then(|sandbox| sandbox.unavailable.as_deref()).ok_or("vm-unikernel is not unavailable")?;
    expect(reason.contains("/dev/kvm"), || format!("the reason does not name the device: {reason}"))?;

    arguments = SHORT.to_vec();
    arguments.extend(["required", "--require", "vm-unikernel"]);
    let output = poorer(&place, &["--mount"], cover, &arguments)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(1), || format!("{output:?}"))?;
    expect(told.contains("vm-unikernel is required and cannot be measured here: "), || told.clone())?;
    expect(!place.path("required").exists(), || "an empty directory was left".into())?;
    State::now().same_as(&state)
}

fn without_user_namespaces() -> Outcome {
    let place = Place::new();
    fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
    let mut arguments = SHORT.to_vec();
    arguments.push("out");
    let output = poorer(&place, &["--user", "--map-user=65534", "--keep-caps"], forbid, &arguments)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(3), || format!("{output:?}"))?;
    expect(told.trim_end().lines().count() == 1, || format!("more than a sentence: {told}"))?;
    for word in ["user namespace", "user.max_user_namespaces", "run it as root"] {
        expect(told.contains(word), || format!("it does not say `{word}`: {told}"))?;
    }
    expect(!place.path("out").exists(), || "an empty directory was left".into())
}

fn unwritable() -> Outcome {
    let place = Place::new();
    fs::create_dir(place.path("theirs"))?;
    fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let other = dead_run("4999999-1")?;
    for out in ["theirs", "theirs/new"] {
        let mut arguments = SHORT.to_vec();
        arguments.push(out);
        // As another user, to whom the open program is lent: its file may lie where only root can look.
        let program = fs::File::open(env!("CARGO_BIN_EXE_isobench"))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&program)));
        rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty())?;
        command.args(&arguments).current_dir(place.0.path()).stdin(Stdio::null()).env("LC_ALL", "C");
        command.env_remove("XDG_RUNTIME_DIR").env_remove("ISOBENCH_LOG");
        let output = std::os::unix::process::CommandExt::uid(&mut command, 65534).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(2), || format!("{out}: {output:?}"))?;
        expect(told.trim_end().lines().count() == 1 && told.contains(out), || format!("{out}: {told}"))?;
    }
    // Another user's leftover is neither touched nor talked about; a test beside this one may have swept it by now.
    let _ = other.map(fs::remove_dir);
    expect(fs::read_dir(place.path("theirs"))?.count() == 0, || "something was left".into())
}

/// A control group of root's as a run leaves it that was killed.
fn dead_run(number: &str) -> Result<Option<PathBuf>, Failed> {
    let hierarchies = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
    let Some(hierarchy) = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists()) else {
        return Ok(None);
    };
    // No process has such a number: it is above the kernel's greatest (PID_MAX_LIMIT).
    let group = hierarchy.join("isobench").join(number);
    fs::create_dir_all(&group)?;
    Ok(Some(group))
}

impl Place {
    /// Files and directories, but for the directory of journals, which stays and is empty.
    fn entries(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.0.path()).expect("a directory").flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.ends_with("isobench")).collect()
    }
}

fn for_other_programs() -> Outcome {
    let place = Place::new();
    expect(place.well(&["completions", "bash"])?.contains("isobench"), || "no completions".into())?;
    expect(place.well(&["man"])?.contains(".TH isobench"), || "no man page".into())?;
    fs::create_dir(place.path("man"))?;
    place.well(&["man", "man"])?;
    expect(place.path("man/isobench-run.1").exists(), || "no page for run".into())?;
    let schema = place.json(&["schema"])?;
    expect(schema["properties"]["sandboxes"].is_object(), || format!("{schema}"))?;
    let schema = place.json(&["schema", "sample"])?;
    expect(schema["properties"]["outcome"].is_object(), || format!("{schema}"))?;
    for (name, property) in [("lab", "prediction"), ("lab-check", "observations")] {
        let schema = place.json(&["schema", name])?;
        expect(schema["properties"][property].is_object(), || format!("{schema}"))?;
    }
    expect(place.well(&["--version"])?.starts_with("isobench "), || "no version".into())
}

fn closed_pipe() -> Outcome {
    let place = Place::new();
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = place.command(&["list"]).stdout(writer).output()?;
    expect(output.status.code() == Some(0) && output.stderr.is_empty(), || format!("{output:?}"))
}

const SHORT: [&str; 8] = ["run", "--only", "startup", "--sandbox", "process", "--reps", "6", "--out"];

fn short_run() -> Outcome {
    let place = Place::new();
    let state = State::now();
    let mut arguments = SHORT.to_vec();
    arguments.extend(["old", "--seed", "7", "--lang", "en"]);
    let text = place.well(&arguments)?;
    expect(text.trim_end().ends_with("old/report.html"), || format!("the report's path does not end it: {text}"))?;
    expect(text.contains("process"), || text.clone())?;
    let records = reader::read(&place.path("old"))?;
    let run = &records.run;
    expect(run.plan.seed == 7 && run.plan.blocks["startup"] == 6, || format!("{:?}", run.plan))?;
    expect(run.machine.kvm.len() > 10 && !run.machine.host.is_empty(), || format!("{:?}", run.machine))?;
    let ready: Vec<&Sample> = records.samples.iter().filter(|sample| sample.metric == "start.ready").collect();
    expect(ready.iter().filter(|sample| sample.warm_up).count() == 1 && ready.len() == 7, || format!("{ready:?}"))?;
    let page = fs::read_to_string(place.path("old/report.html"))?;
    expect(page.contains("<html") && page.contains("</html>"), || "the page is not whole".into())?;
    State::now().same_as(&state)?;

    fs::remove_file(place.path("old/report.html"))?;
    expect(place.well(&["report", "old", "--lang", "zh"])?.contains("old/report.html"), || "no path".into())?;
    expect(fs::read_to_string(place.path("old/report.html"))?.contains("lang=\"zh"), || "not in Chinese".into())?;

    place.well(&["compare", "old", "old", "--fail-above", "1.1"])?;
    slower(&place.path("old"), &place.path("new"))?;
    let output = place.run(&["compare", "old", "new", "--fail-above", "1.1"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(output.status.code() == Some(1), || format!("{output:?}"))?;
    expect(told.contains("start.ready in process became worse"), || told.clone())?;
    let output = place.run(&["compare", "old", "new", "--fail-above", "1000000", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    expect(output.status.code() == Some(0) && document["failed"] == false, || format!("{document}"))?;

    // An empty directory is taken, a full one is not, and without --out a new one is made.
    fs::create_dir(place.path("empty"))?;
    let mut arguments = SHORT.to_vec();
    arguments.extend(["empty", "--json"]);
    let summary = place.json(&arguments)?;
    let results = summary["results"].as_array().ok_or("no results")?;
    let ready = results.iter().find(|result| result["metric"] == "start.ready").ok_or("no start.ready")?;
    expect(ready["blocks"] == 6 && ready["unit"] == "ns" && ready["median"].is_number(), || format!("{ready}"))?;
    let text = place.well(&["run", "--only", "startup", "--sandbox", "process", "--reps", "1", "--lang", "en"])?;
    let page = place.0.path().join(text.trim_end().lines().last().unwrap_or_default());
    expect(page.is_file() && page.starts_with(place.path("isobench-results")), || text.clone())
}

/// A copy of a run in which every launch took a thousand times as long, which no busy machine's spread hides.
fn slower(old: &Path, new: &Path) -> Outcome {
    fs::create_dir(new)?;
    fs::copy(old.join("run.json"), new.join("run.json"))?;
    let mut text = String::new();
    for line in fs::read_to_string(old.join("samples.jsonl"))?.lines() {
        let mut sample: serde_json::Value = serde_json::from_str(line)?;
        if sample["metric"] == "start.ready" {
            let value = sample["outcome"]["value"]["integer"].as_u64().ok_or("no integer")?;
            sample["outcome"]["value"]["integer"] = (value * 1000).into();
        }
        text += &format!("{sample}\n");
    }
    Ok(fs::write(new.join("samples.jsonl"), text)?)
}

fn own_program() -> Outcome {
    let place = Place::new();
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--json", "--", "/bin/sh", "-c", "echo hello"]);
    place.well(&arguments)?;
    let records = reader::read(&place.path("out"))?;
    expect(records.run.plan.program.as_deref() == Some(&["/bin/sh".into(), "-c".into(), "echo hello".into()]), || {
        format!("{:?}", records.run.plan)
    })?;
    let errors =
        records.samples.iter().filter(|sample| matches!(sample.outcome, isobench_reports::record::Outcome::Error(_)));
    expect(errors.count() == 0, || format!("{:?}", records.samples))?;

    // One that fails everywhere has its report, and is no success.
    let mut arguments = SHORT.to_vec();
    arguments.extend(["failed", "--", "/bin/false"]);
    let output = place.run(&arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(3) && told.contains("every measurement failed"), || format!("{output:?}"))?;
    expect(place.path("failed/report.html").exists(), || "it has no report".into())
}

fn required() -> Outcome {
    let place = Place::new();
    let listing = place.json(&["list", "--json"])?;
    let sandboxes = listing["sandboxes"].as_array().ok_or("no sandboxes")?;
    let Some(absent) = sandboxes.iter().find(|sandbox| sandbox["unavailable"].is_string()) else {
        println!("every sandbox can be measured on this machine");
        return Ok(());
    };
    let name = absent["name"].as_str().ok_or("no name")?;
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--require", name]);
    let output = place.run(&arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(1), || format!("{output:?}"))?;
    expect(told.contains(&format!("{name} is required and cannot be measured here")), || told.clone())?;
    expect(!place.path("out").exists(), || "an empty directory was left".into())?;
    // Where nothing at all can be measured, nothing is written.
    let output = place.run(&["run", "--only", "startup", "--sandbox", name, "--reps", "2", "--out", "out"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(3) && told.contains("nothing of what was asked for"), || {
        format!("{output:?}")
    })?;
    expect(!place.path("out").exists(), || "an empty run was left".into())
}

/// Starts a run that is long enough to be stopped in its middle, and waits for its first samples.
fn long_run(place: &Place, out: &str) -> Result<Child, Failed> {
    // Containers too, where there are any: they have control groups, mounts and links.
    let sandboxes = ["--sandbox", "process", "--sandbox", "container-none", "--sandbox", "container-bridge"];
    let arguments = ["run", "--only", "startup", "--reps", "2000", "--seed", "3", "--out", out];
    let arguments = [arguments.as_slice(), sandboxes.as_slice()].concat();
    let mut child = place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let samples = place.path(out).join("samples.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&samples).map_or(true, |metadata| metadata.len() < 4096) {
        if Instant::now() > deadline || child.try_wait()?.is_some() {
            let _ = child.kill();
            return Err(format!("the run has no samples: {:?}", child.wait_with_output()?).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

fn signal(child: &Child, signal: rustix::process::Signal) -> Outcome {
    let pid = rustix::process::Pid::from_child(child);
    Ok(rustix::process::kill_process(pid, signal)?)
}

fn interrupt_and_resume() -> Outcome {
    let place = Place::new();
    let state = State::now();
    let child = long_run(&place, "out")?;
    signal(&child, rustix::process::Signal::INT)?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(130), || format!("{output:?}"))?;
    expect(told.contains("isobench run --resume out"), || format!("it does not say how to go on: {told}"))?;
    State::now().same_as(&state)?;
    let before = reader::read(&place.path("out"))?;

    // The rest would take minutes: let it go on, see that it does, and stop it again.
    let mut child = place.command(&["run", "--resume", "out"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let samples = place.path("out").join("samples.jsonl");
    let length = fs::metadata(&samples)?.len();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&samples)?.len() < length + 4096 {
        expect(Instant::now() < deadline && child.try_wait()?.is_none(), || "the run does not go on".into())?;
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, rustix::process::Signal::TERM)?;
    let mut told = String::new();
    child.stderr.take().ok_or("no standard error")?.read_to_string(&mut told)?;
    expect(child.wait()?.code() == Some(130), || told.clone())?;
    let after = reader::read(&place.path("out"))?;
    expect(after.run == before.run, || "the description has changed".into())?;
    expect(after.samples[..before.samples.len()] == before.samples[..], || "samples have changed".into())?;
    let ends = after.samples.iter().filter(|sample| sample.metric == "cell.duration");
    let cells: Vec<(u32, u32)> = ends.map(|sample| (sample.block, sample.position)).collect();
    let in_order = cells.windows(2).all(|pair| pair[0] < pair[1]);
    expect(in_order && cells[0] == (0, 0), || format!("a cell is missing or there twice: {cells:?}"))?;
    let times: Vec<u64> = after.samples.iter().map(|sample| sample.time).collect();
    expect(times.is_sorted(), || "time runs backwards".into())?;
    // A run that was stopped has a report of what there is.
    place.well(&["report", "out"]).map(drop)
}

fn second_interrupt() -> Outcome {
    let place = Place::new();
    let state = State::now();
    // A cell that would last until the deadline of each step, 10 s.
    let arguments = ["run", "--only", "startup", "--sandbox", "process", "--reps", "5", "--out", "out"];
    let arguments = [arguments.as_slice(), &["--", "/bin/sleep", "600"]].concat();
    let child = place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let sleeps = |process: &Process| {
        fs::read_to_string(format!("/proc/{}/comm", process.pid)).is_ok_and(|name| name.trim() == "sleep")
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !descendants(child.id()).iter().any(sleeps) {
        expect(Instant::now() < deadline, || "the cell does not begin".into())?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let (run, family) = (child.id(), descendants(child.id()));
    signal(&child, rustix::process::Signal::INT)?;
    // Seen to have been taken before the second one: two that wait are one.
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        status
            .lines()
            .filter(|line| line.starts_with("SigPnd") || line.starts_with("ShdPnd"))
            .all(|line| line.split_ascii_whitespace().nth(1).is_some_and(|set| u64::from_str_radix(set, 16) == Ok(0)))
    };
    while !caught() {
        expect(Instant::now() < deadline, || "the signal is not taken".into())?;
        std::thread::yield_now();
    }
    expect(family.iter().any(|process| sleeps(process) && process.lives()), || "the first one ended the cell".into())?;
    signal(&child, rustix::process::Signal::INT)?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(output.status.code() == Some(130), || format!("{output:?}"))?;
    expect(!told.contains("--resume"), || format!("it ended in good order: {told}"))?;
    while family.iter().any(Process::lives) {
        expect(Instant::now() < deadline, || format!("a process of the run lives on: {family:?}"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    reader::read_interrupted(&place.path("out"))?;
    swept(&place, run)?;
    State::now().same_as(&state)
}

/// `gc` removes all of a dead run. What it tells may be of runs that other tests kill meanwhile.
fn swept(place: &Place, run: u32) -> Outcome {
    place.well(&["gc"])?;
    let groups = control_groups_of(run);
    expect(groups.is_empty(), || format!("control groups are left: {groups:?}"))?;
    let journals = fs::read_dir(place.path("isobench"))?.flatten().count();
    expect(journals == 0, || format!("{journals} journals are left"))
}

fn resume_elsewhere() -> Outcome {
    let place = Place::new();
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--json"]);
    place.well(&arguments)?;
    let path = place.path("out/run.json");
    let text = fs::read_to_string(&path)?;
    let run: Run = serde_json::from_str(&text)?;
    type Change = fn(&mut Run);
    let changes: [(Change, &str); 4] = [
        (|run| run.machine.boot = "00000000-0000-0000-0000-000000000000".into(), "started again"),
        (|run| run.machine.kernel = "0.0.1".into(), "another kernel"),
        (|run| run.program_digest = "00".into(), "another build"),
        (|run| drop(run.machine.facts.insert("guest-kernel".into(), "Linux 0.0.1".into())), "another guest kernel"),
    ];
    for (change, reason) in changes {
        let mut other = run.clone();
        change(&mut other);
        fs::write(&path, serde_json::to_vec(&other)?)?;
        let output = place.run(&["run", "--resume", "out"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.code() == Some(2) && told.contains(reason), || format!("{reason}: {output:?}"))?;
    }
    // A finished run has nothing left to measure; its report is written again.
    fs::write(&path, &text)?;
    let samples = fs::read(place.path("out/samples.jsonl"))?;
    place.well(&["run", "--resume", "out", "--json"])?;
    expect(fs::read(place.path("out/samples.jsonl"))? == samples, || "samples were added".into())
}

fn kill_and_sweep() -> Outcome {
    let place = Place::new();
    let state = State::now();
    for attempt in 0..3 {
        let out = format!("out-{attempt}");
        let mut child = long_run(&place, &out)?;
        std::thread::sleep(Duration::from_millis(37 * attempt));
        let processes = descendants(child.id());
        expect(!processes.is_empty(), || "the run has no testbed".into())?;
        signal(&child, rustix::process::Signal::KILL)?;
        expect(child.wait()?.signal() == Some(9), || "it was not killed".into())?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes.iter().any(Process::lives) {
            expect(Instant::now() < deadline, || format!("a process of the testbed lives on: {processes:?}"))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        reader::read_interrupted(&place.path(&out))?;
        if attempt == 0 {
            place.well(&["gc", "--dry-run"])?;
        }
        swept(&place, child.id())?;
    }
    State::now().same_as(&state)
}

fn selftest() -> Outcome {
    let place = Place::new();
    let output = place.run(&["selftest", "--comparisons", "20", "--reps", "6", "--slowdown", "3", "--json"]);
    let findings: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    // Beside other tests the machine is no quiet one, so only what must be seen is asked for.
    expect(findings["comparisons"] == 20 && findings["detected"] == true, || format!("{findings}"))?;
    let expected = if findings["holds"] == true { 0 } else { 1 };
    expect(output.status.code() == Some(expected), || format!("{output:?}"))
}

fn empty_root() -> Outcome {
    let place = Place::new();
    let mut arguments = SHORT.to_vec();
    arguments.extend(["out", "--json"]);
    place.well(&arguments)?;
    let root = place.path("root");
    fs::create_dir(&root)?;
    fs::copy(env!("CARGO_BIN_EXE_isobench"), root.join("isobench"))?;
    fs::create_dir(root.join("out"))?;
    for name in ["run.json", "samples.jsonl"] {
        fs::copy(place.path("out").join(name), root.join("out").join(name))?;
    }
    let inside = |arguments: &[&str]| Command::new("chroot").arg(&root).arg("/isobench").args(arguments).output();
    let output = inside(&["list"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(output.status.code() == Some(0) && text.contains("no testbed can be made here"), || format!("{output:?}"))?;
    let output = inside(&["report", "/out", "--lang", "zh"])?;
    expect(output.status.code() == Some(0), || format!("{output:?}"))?;
    expect(fs::metadata(root.join("out/report.html"))?.len() > 10_000, || "the page is empty".into())
}

/// What of the machine must be as before: its links, its mounts and its firewall.
#[derive(Debug, PartialEq)]
struct State {
    links: Vec<String>,
    mounts: Vec<String>,
    firewall: String,
}

impl State {
    fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let links = read("/proc/net/dev")
            .lines()
            .skip(2)
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect();
        let mounts =
            read("/proc/self/mountinfo").lines().filter_map(|line| Some(line.split(' ').nth(4)?.to_owned())).collect();
        let firewall = Command::new("nft").args(["list", "tables"]).output();
        let firewall = firewall.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self { links, mounts, firewall }
    }

    fn same_as(&self, before: &Self) -> Outcome {
        expect(self == before, || format!("the machine has changed from {before:?} to {self:?}"))
    }
}

/// A process by number and start time, since a number is given again.
#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
    started: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        // A zombie runs nothing and holds nothing.
        (fields[0] != "Z").then(|| Self { pid, parent: fields[1].parse().unwrap_or(0), started: fields[19].to_owned() })
    }

    fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

fn descendants(pid: u32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let all: Vec<Process> =
        entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect();
    let mut family = BTreeSet::from([pid]);
    while let Some(child) =
        all.iter().find(|process| family.contains(&process.parent) && !family.contains(&process.pid))
    {
        family.insert(child.pid);
    }
    family.remove(&pid);
    all.into_iter().filter(|process| family.contains(&process.pid)).collect()
}

/// Control groups below `isobench` whose name begins with a run's process number.
fn control_groups_of(pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let groups =
        points.flat_map(|point| fs::read_dir(Path::new(point).join("isobench")).into_iter().flatten().flatten());
    groups
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&format!("{pid}-")))
        })
        .collect()
}
