//! The records of labs: check and collect over made-up runs. No figure in them was measured.

#[path = "../../reports/tests/fixture/mod.rs"]
mod fixture;

use isobench::labs::check::{self, CheckRecord, Evidence};
use isobench::labs::prediction::Prediction;
use isobench::labs::record::{LabError, Place};
use isobench::labs::{Lab, collect, named, schema};
use isobench_reports::reader::{RUN_FILE, Records, SAMPLES_FILE};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A student's directory in which a lab was started, with a made-up run in it that has not been taken over yet.
fn started(parent: &Path, lab: &str, student: &str, typed: &str, seed: u32) -> Place {
    let lab = named(lab).expect("a lab");
    let place = Place::below(parent, lab);
    let prediction = Prediction::parse(&lab.description, typed).expect("a prediction");
    place.start(student, seed, typed, prediction).expect("a new directory");
    write(&place.run(), &records(lab, seed));
    place
}

/// A made-up run of what a lab measures.
fn records(lab: &Lab, seed: u32) -> Records {
    let mut records = fixture::records();
    records.run.plan.seed = u64::from(seed);
    let (experiments, sandboxes) = (lab.description.experiments(), lab.description.sandboxes());
    records.samples.retain(|sample| {
        experiments.contains(sample.experiment.as_str()) && sandboxes.contains(sample.sandbox.as_str())
    });
    number(&mut records);
    records
}

fn number(records: &mut Records) {
    for (sequence, sample) in records.samples.iter_mut().enumerate() {
        sample.sequence = sequence as u64;
    }
}

fn write(directory: &Path, records: &Records) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(RUN_FILE), serde_json::to_string(&records.run).unwrap()).unwrap();
    let lines: String = records.samples.iter().map(|sample| serde_json::to_string(sample).unwrap() + "\n").collect();
    fs::write(directory.join(SAMPLES_FILE), lines).unwrap();
}

fn measured(parent: &Path, lab: &str, student: &str, typed: &str, seed: u32) -> Place {
    let place = started(parent, lab, student, typed, seed);
    let record = place.read().unwrap();
    place.measured(record).unwrap();
    place
}

fn checked(place: &Place, lab: &str) -> CheckRecord {
    check::check(named(lab).unwrap(), place).unwrap()
}

/// What differs from machine to machine and from time to time.
fn settled(mut check: CheckRecord) -> CheckRecord {
    check.predicted = "TIME".into();
    check.checked = "TIME".into();
    check.machine.id = Some("MACHINE".into());
    check.machine.kernel = "KERNEL".into();
    check.versions.checked = "isobench VERSION".into();
    check.digests.run = "RUN".into();
    check.digests.samples = "SAMPLES".into();
    check.verdicts.clear();
    check.observations.retain(|observation| observation.claim == "bridge.slower" || observation.claim == "bridge.snat");
    check
}

#[test]
fn prediction_and_measurement_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let place = measured(directory.path(), "bridge", "Lin Mei", "60 us", 7);
    let check = checked(&place, "bridge");
    let (Some(found), Some(comparison)) = (&check.measured, &check.comparison) else { panic!("{check:?}") };
    let Prediction::Number { value, unit } = &found.answer else { panic!("{found:?}") };
    let (low, high) = found.interval.expect("eight blocks");
    // The made-up round trips are 21.1 and 28.4 us, each 1.12 times as long from outside.
    assert!(unit == "us" && low <= *value && *value <= high && (5.0..12.0).contains(value), "{found:?}");
    assert!(!comparison.hit && (comparison.off_by.unwrap() - (60.0 - value)).abs() < 1e-9);
    insta::assert_snapshot!(serde_json::to_string_pretty(&settled(check.clone())).unwrap());

    let place = measured(&directory.path().join("other"), "bridge", "Bo", &format!("{value} us"), 7);
    assert!(checked(&place, "bridge").comparison.unwrap().hit);
}

#[test]
fn each_quantity_is_in_its_unit() {
    let directory = tempfile::tempdir().unwrap();
    // Made up: 15.9 Gbit/s and 27.9 us for lo at 0.75 of that, 28.4 us over the bridge; the ready lines lie at 0.8 of
    // 1.81 ms and 0.8 of 1.04 ms and a bit.
    for (lab, typed, range) in [
        ("host", "0 %", -15.0..15.0),
        ("container", "50", 55.0..90.0),
        ("none", "1 ms", 0.3..1.2),
        ("custom", "0", -15.0..15.0),
    ] {
        let place = measured(directory.path(), lab, "Ann", typed, 3);
        let check = checked(&place, lab);
        let Some(Prediction::Number { value, .. }) = check.measured.map(|measured| measured.answer) else {
            panic!("{lab} measured nothing")
        };
        assert!(range.contains(&value), "{lab}: {value}");
    }
}

#[test]
fn what_the_records_lack_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let place = started(directory.path(), "host", "Ann", "0", 3);
    let mut records = records(named("host").unwrap(), 3);
    records.samples.retain(|sample| !sample.metric.starts_with("tcp.") && sample.metric != "network.addresses");
    number(&mut records);
    write(&place.run(), &records);
    let record = place.read().unwrap();
    place.measured(record).unwrap();
    let check = checked(&place, "host");
    assert_eq!((&check.measured, &check.comparison), (&None, &None));
    let evidence = |text: &str| {
        let found = check.observations.iter().find(|observation| observation.text.contains(text));
        found.unwrap_or_else(|| panic!("{text}")).evidence
    };
    assert_eq!(evidence("namespace inside"), Evidence::Supported);
    assert_eq!(evidence("the host's addresses"), Evidence::Missing);
    assert_eq!(evidence("One stream"), Evidence::Missing);
}

#[test]
fn contradicting_records_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = started(directory.path(), "none", "Ann", "1", 3);
    let mut records = records(named("none").unwrap(), 3);
    for sample in &mut records.samples {
        if sample.metric == "network.interfaces" && sample.sandbox == "container-none" {
            sample.outcome = isobench_reports::record::Outcome::Value(isobench_reports::record::Value::Texts(vec![
                "lo".into(),
                "eth0".into(),
            ]));
        }
    }
    write(&place.run(), &records);
    let record = place.read().unwrap();
    place.measured(record).unwrap();
    let check = checked(&place, "none");
    let found = check.observations.iter().find(|observation| observation.text.contains("no other interface")).unwrap();
    assert_eq!(found.evidence, Evidence::Contradicted);
}

#[test]
fn the_order_of_steps_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let lab = named("bridge").unwrap();
    let place = Place::below(directory.path(), lab);
    let refused = |error: LabError, words: &str| assert!(error.to_string().contains(words), "{error}");
    refused(place.read().unwrap_err(), "was not started here: predict first, with `isobench lab start bridge`");
    let place = started(directory.path(), "bridge", "Ann", "5", 1);
    refused(
        place.start("Ann", 1, "6", Prediction::Yes(true)).unwrap_err(),
        "the lab `bridge` was started before, and a prediction stands",
    );
    refused(check::check(lab, &place).unwrap_err(), "has not been measured: do that with `isobench lab run bridge`");
    let record = place.read().unwrap();
    assert_eq!(place.measured(record).unwrap().measured.unwrap().times, 1);
    let record = place.read().unwrap();
    assert_eq!(place.measured(record).unwrap().measured.unwrap().times, 2, "measuring again is counted");
    check::check(lab, &place).unwrap();
}

#[test]
fn records_that_were_changed_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = measured(directory.path(), "bridge", "Ann", "5", 1);
    let lab = named("bridge").unwrap();
    let (file, samples) = (place.directory().join("lab.json"), place.run().join(SAMPLES_FILE));
    let (text, lines) = (fs::read_to_string(&file).unwrap(), fs::read_to_string(&samples).unwrap());
    let refused = |words: &str| {
        let said = check::check(lab, &place).unwrap_err().to_string();
        assert!(said.contains(words) && !said.contains('\n'), "{said}");
    };
    // A prediction that was mended afterwards.
    fs::write(&file, text.replacen("5.0", "8.0", 1)).unwrap();
    refused("lab.json was changed after isobench wrote it");
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    refused("lab.json is no record of a lab");
    fs::write(&file, text.replace("\"schema\": 1", "\"schema\": 2")).unwrap();
    refused("schema version 2, and this program reads 1");
    fs::write(&file, "[]").unwrap();
    refused("it has no schema version");
    fs::write(&file, &text).unwrap();
    // Samples that were mended, cut short, or are another run's.
    fs::write(&samples, lines.replacen("\"block\":3", "\"block\":2", 1)).unwrap();
    refused("samples.jsonl was changed after isobench wrote it");
    fs::write(&samples, &lines[..lines.len() - 10]).unwrap();
    refused("half written");
    fs::write(&samples, "").unwrap();
    refused("samples.jsonl was changed");
    fs::remove_file(&samples).unwrap();
    refused("samples.jsonl");
    // Another student's whole run, taken over as one's own.
    let other = measured(&directory.path().join("other"), "bridge", "Bo", "5", 2);
    fs::copy(other.run().join(SAMPLES_FILE), &samples).unwrap();
    fs::copy(other.run().join(RUN_FILE), place.run().join(RUN_FILE)).unwrap();
    refused("was changed after isobench wrote it");
    let record = place.read().unwrap();
    place.measured(record).unwrap();
    refused("its seed is 2, and the student's is 1");
}

#[test]
fn a_class_is_one_table() {
    let directory = tempfile::tempdir().unwrap();
    let class = directory.path().join("class");
    fs::create_dir_all(class.join("group")).unwrap();
    let hand_in = |student: &str, lab: &str, typed: &str, seed: u32, at: &str| {
        let place = measured(&directory.path().join(student), lab, student, typed, seed);
        let mut check = checked(&place, lab);
        let path = check::write(&place, &mut check).unwrap();
        let text = fs::read_to_string(path).unwrap();
        fs::write(class.join(at), &text).unwrap();
        text
    };
    hand_in("Ann", "bridge", "5", 1, "a.check.json");
    let bo = hand_in("=Bo, Jr.", "bridge", "70", 1, "group/b.check.json");
    hand_in("Cai", "two-hosts", "yes", 4, "c.check.json");
    fs::write(class.join("d.check.json"), &bo[..bo.len() / 3]).unwrap();
    fs::write(class.join("e.check.json"), bo.replace("70.0", "7.0")).unwrap();
    fs::write(class.join("notes.json"), "{}").unwrap();
    let files = collect::read(std::slice::from_ref(&class)).unwrap();
    assert_eq!(files.len(), 5, "notes are none of ours");
    assert_eq!(collect::duplicates(&files), 2, "the made-up samples of one lab are the same");
    let table = collect::table(&files);
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, name: &str| rows[row][head.iter().position(|column| column == name).unwrap()].to_owned();
    assert_eq!(rows.len(), 5);
    assert_eq!((cell(0, "student"), cell(0, "prediction"), cell(0, "unit")), ("Ann".into(), "5".into(), "us".into()));
    assert_eq!(cell(0, "same_samples_as"), "'=Bo, Jr.");
    assert_eq!(cell(1, "same_samples_as"), "", "another lab has other samples");
    assert_eq!((cell(1, "student"), cell(1, "prediction")), ("Cai".into(), "yes".into()));
    assert!(cell(2, "problem").contains("d.check.json is no record of a lab"), "{table}");
    assert!(cell(3, "problem").contains("e.check.json was changed after isobench wrote it"), "{table}");
    assert_eq!(cell(4, "student"), "'=Bo, Jr.", "a spreadsheet must not take it for a formula");
    assert_eq!(cell(4, "hit"), "no");
    assert!(cell(4, "verdicts").contains("bridge.slower="), "{table}");
    assert!(collect::read(&[directory.path().join("nowhere")]).unwrap_err().to_string().contains("nowhere"));
}

/// `UPDATE_SCHEMA=1` writes them anew.
#[test]
fn the_committed_schemas_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, text) in [("lab", schema::lab_schema()), ("lab-check", schema::check_schema())] {
        let path = directory.join(format!("{name}.schema.json"));
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is out of date: run this test with UPDATE_SCHEMA=1", path.display());
    }
}

/// The program in a directory of its own, with the journals of its runs in it.
struct Desk(tempfile::TempDir);

impl Desk {
    fn types(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command
            .arg("lab")
            .args(arguments)
            .current_dir(self.0.path())
            .env("ISOBENCH_HOME", self.0.path().join("isobench"));
        command.env("LC_ALL", "C").env_remove("ISOBENCH_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn well(&self, arguments: &[&str], input: &str) -> String {
        let output = self.types(arguments, input);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One sentence, status 2, and nothing printed.
    fn refused(&self, arguments: &[&str], words: &str) {
        let output = self.types(arguments, "");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(told.contains(words) && told.trim_end().lines().count() == 1, "{arguments:?}: {told}");
    }
}

#[test]
fn a_student_goes_through_a_lab() {
    let desk = Desk(tempfile::tempdir().unwrap());
    desk.refused(&["start", "brigde"], "did you mean `bridge`");
    desk.refused(&["show", "nothing"], "there is no lab named `nothing`");
    desk.refused(&["run", "none"], "predict first, with `isobench lab start none`");
    desk.refused(&["check", "none"], "predict first, with `isobench lab start none`");
    desk.refused(&["start", "none", "--student", "Ann", "--predict", "much"], "give a number in ms");
    desk.refused(&["start", "none", "--student", " ", "--predict", "1"], "is no name");
    desk.refused(&["start", "none", "--student", "Ann\u{1b}[31m", "--predict", "1"], "is no name");
    desk.refused(&["collect", "nowhere"], "read nowhere");
    desk.refused(&["collect", "."], "there is no file whose name ends in `.check.json`");
    assert!(!desk.0.path().join("isobench-labs").exists(), "a refusal leaves nothing");
    // The question is asked where there is no answer to it.
    let output = desk.types(&["start", "none"], "Lin Mei\n");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("give it with --predict VALUE"), "{output:?}");

    let said = desk.well(&["start", "none"], "Lin Mei\n0,5 ms\n");
    assert!(said.contains("How many milliseconds later") && said.contains("written down: 0.5 ms"), "{said}");
    desk.refused(
        &["start", "none", "--student", "Ann", "--predict", "1"],
        "was started before, and a prediction stands",
    );
    desk.refused(&["check", "none"], "has not been measured");
    let list = |lab: &str| {
        let list: serde_json::Value = serde_json::from_str(&desk.well(&["list", "--json"], "")).unwrap();
        let entry = list.as_array().unwrap().iter().find(|entry| entry["lab"] == lab).unwrap().clone();
        entry["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((list("none"), list("host")), ("predicted".to_owned(), "not-started".to_owned()));

    desk.well(&["run", "none", "--reps", "1"], "");
    assert_eq!(list("none"), "measured");
    desk.refused(&["run", "none"], "has been measured");
    let said = desk.well(&["check", "none"], "");
    assert!(said.contains("predicted") && said.contains("1 blocks, too few for an interval"), "{said}");
    assert!(said.contains("supported") && said.contains("there is lo, and no other interface"), "{said}");
    assert!(desk.well(&["check", "none", "--lang", "zh"], "").contains("你的记录显示"));
    assert_eq!(list("none"), "checked");
    let table = desk.well(&["collect", "."], "");
    assert!(table.contains("Lin Mei,none,") && table.lines().count() == 2, "{table}");

    // A file that was mended by hand has a row with the reason, and all others are there still.
    let file = desk.0.path().join("isobench-labs/none/none-Lin-Mei.check.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(desk.0.path().join("other.check.json"), text.replace("Lin Mei", "Li Mei")).unwrap();
    let output = desk.types(&["collect", "."], "");
    let (told, table) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(told.contains("other.check.json was changed") && table.lines().count() == 3, "{told}{table}");
}
