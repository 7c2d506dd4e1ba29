use super::prediction::{Prediction, PredictionError};
use super::sheet::{Command, Sheet, Shell, is_printed, parse};
use super::*;
use isobench_reports::claims::{self, Rule};
use isobench_reports::literature::publications;
use isobench_reports::metrics;

/// The headings of the seven parts.
const PARTS: [[&str; 2]; 7] = [
    ["Question", "问题"],
    ["Predict", "预测"],
    ["Build it by hand once", "亲手搭建一次"],
    ["Do it", "动手操作"],
    ["Measure", "测量"],
    ["Explain", "解释"],
    ["Check", "检查"],
];

fn sheets(lab: &Lab) -> [Sheet; 2] {
    Language::ALL.map(|language| {
        parse(lab.sheet(language)).unwrap_or_else(|error| panic!("{} in {}: {error}", lab.id(), language.tag()))
    })
}

#[test]
fn every_sheet_has_the_seven_parts_and_three_questions() {
    for lab in labs() {
        for (number, sheet) in sheets(lab).iter().enumerate() {
            let language = Language::ALL[number];
            let name = format!("{} in {}", lab.id(), language.tag());
            assert_eq!(sheet.title, *wording(&lab.description.title, language), "{name}");
            let headings: Vec<&str> = sheet.parts.iter().map(|part| part.heading.as_str()).collect();
            assert_eq!(headings, PARTS.map(|names| names[number]), "{name}");
            let [question, predict, by_hand, by_command, measure, explain, check] = sheet.parts.as_slice() else {
                panic!("{name}")
            };
            assert!(
                question.text.contains(wording(&lab.description.question, language)),
                "{name} asks another question"
            );
            for claim in &lab.description.claims {
                assert!(question.text.contains(claim), "{name} does not name {claim}");
            }
            let id = lab.id();
            let only =
                |part: &sheet::Part| part.commands.iter().map(|command| command.text.clone()).collect::<Vec<_>>();
            assert_eq!(only(predict), [format!("isobench lab start {id}")], "{name}");
            assert_eq!(only(measure), [format!("isobench lab run {id}")], "{name}");
            assert_eq!(only(check), [format!("isobench lab check {id}")], "{name}");
            assert!(by_hand.commands.len() >= 3 && by_command.commands.len() >= 3, "{name}");
            assert_eq!(explain.questions, 3, "{name}");
            assert!(
                predict.text.contains(wording(&lab.description.prediction.ask, language)),
                "{name} asks for another prediction"
            );
        }
    }
}

#[test]
fn both_languages_say_the_same_commands_and_outputs() {
    for lab in labs() {
        let [english, chinese] = sheets(lab);
        for (one, other) in english.parts.iter().zip(&chinese.parts) {
            assert_eq!(one.commands, other.commands, "{}: {}", lab.id(), one.heading);
            assert_eq!(one.questions, other.questions, "{}: {}", lab.id(), one.heading);
            assert_eq!(numbers(&one.text), numbers(&other.text), "{}: numbers in {}", lab.id(), one.heading);
        }
    }
}

/// Numbers that stand in a text, in the order of their size: word order differs between languages.
fn numbers(text: &str) -> Vec<String> {
    let text = text.replace(',', "");
    let digits = text.split(|character: char| !(character.is_ascii_digit() || character == '.'));
    let mut numbers: Vec<String> =
        digits.map(|number| number.trim_matches('.').to_owned()).filter(|number| !number.is_empty()).collect();
    numbers.sort();
    numbers
}

#[test]
fn every_lab_names_what_there_is() {
    for lab in labs() {
        let description = &lab.description;
        let id = lab.id();
        for claim in &description.claims {
            assert!(claims::find(claim).is_some(), "{id}: no claim {claim}");
        }
        for observation in &description.observations {
            assert!(description.claims.contains(&observation.claim), "{id}: {} is no claim of it", observation.claim);
            let claim = claims::find(&observation.claim).unwrap();
            assert!(
                claim.rules.iter().any(|rule| is_looked_at(rule, observation)),
                "{id}: {observation:?} is not in the claim's rule"
            );
        }
        match &description.prediction.measured {
            Measured::Claim { claim } => assert!(description.claims.contains(claim), "{id}"),
            Measured::Number { experiment, metric, unit, .. } => {
                assert!(metrics::find(metric).is_some(), "{id}: no metric {metric}");
                let experiment = crate::experiments::named(experiment).unwrap_or_else(|| panic!("{id}: {experiment}"));
                assert!(experiment.metrics.contains(&metric.as_str()), "{id}");
                assert!(unit == "%" || prediction::nanoseconds(unit).is_some(), "{id}: {unit}");
            }
        }
        assert!(description.sandboxes().iter().all(|name| plan::check_sandbox(name).is_ok()), "{id}");
        assert!(description.blocks >= 6, "{id}: there is no interval below six blocks");
        // The literature holds only what was read, so what is quoted from it was.
        for source in &description.sources {
            let publication = publications().iter().find(|publication| publication.id == *source);
            let publication = publication.unwrap_or_else(|| panic!("{id}: no publication {source}"));
            for sheet in sheets(lab) {
                let text = sheet.parts[5].text.replace(',', "");
                let mut figures =
                    publication.figures.iter().filter(|figure| figure.value.parse::<f64>().is_ok()).peekable();
                let quoted = figures.peek().is_none() || figures.any(|figure| text.contains(&figure.value));
                assert!(quoted, "{id} names {source} and quotes none of its figures");
            }
        }
    }
}

/// Claims that an ordinary machine decides and that are in no lab.
const WITHOUT_A_LAB: [(&str, &str); 2] = [
    ("vm.start.emulation", "it is decided where QEMU is installed"),
    ("vm.density.unikernel", "a block of it takes as long as all of a lab"),
];

#[test]
fn every_claim_that_an_ordinary_machine_decides_has_a_lab() {
    for claim in claims::claims().iter().filter(|claim| !claim.experiments.is_empty() && claim.hardware.is_empty()) {
        let in_a_lab = labs().iter().any(|lab| lab.description.claims.contains(&claim.id));
        let left_out = WITHOUT_A_LAB.iter().any(|(id, _)| *id == claim.id);
        assert!(in_a_lab != left_out, "{} is in a lab: {in_a_lab}; it is left out: {left_out}", claim.id);
    }
}

#[test]
fn every_lab_is_in_the_overview() {
    let overview = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/labs/README.md"));
    for lab in labs() {
        let (id, question) = (lab.id(), &lab.description.question.en);
        let row = format!("| {id} ([en](en/{id}.md), [zh](zh/{id}.md)) | {question} | `{}`", lab.description.claims[0]);
        assert!(overview.contains(&row), "docs/labs/README.md has no row that begins `{row}`");
    }
}

/// Whether a rule looks at what an observation is about.
fn is_looked_at(rule: &Rule, observation: &Observation) -> bool {
    let Some(metric) = &observation.metric else { return true };
    match rule {
        Rule::Facts { expect, control, .. } => expect.iter().chain(control).any(|fact| fact.metric == *metric),
        Rule::Ratio { measures, .. } | Rule::SlopeRatio { measures, .. } => {
            measures.iter().any(|measure| measure.metric == *metric)
        }
        Rule::Threshold { limits } => limits.iter().any(|limit| limit.metric == *metric),
    }
}

#[test]
fn an_unknown_lab_is_answered_with_close_ones() {
    assert_eq!(
        named("brigde").unwrap_err().to_string(),
        "there is no lab named `brigde`, did you mean `bridge`?; `isobench lab list` shows all"
    );
    assert_eq!(named("bridge").unwrap().id(), "bridge");
}

#[test]
fn a_sheet_is_taken_apart() {
    let text = "\
# Title

## One

Text `code`
goes on.

```console
$ isobench testbed enter
# ip link show lo
1: lo: ...
...
# echo a \\
> b
a b
# exit
```

```sh
not a command
```

```console kvm
$ isobench vm ps
```

## Two

1. First?
   - a point of it
2. Second?
";
    let sheet = parse(text).unwrap();
    insta::assert_debug_snapshot!(sheet);
    for (text, error) in [
        ("# T\n\n```console\n$ x\n```\n", "outside of a part"),
        ("# T\n\n## P\n\n```console\nprinted\n```\n", "`printed`, which is no command"),
        ("# T\n\n# T\n", "`T` stands outside of a part"),
    ] {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.contains(error), "{said}");
    }
}

#[test]
fn what_is_printed_is_compared_by_pattern() {
    let holds = |expected: &[&str], printed: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        is_printed(&expected, printed)
    };
    assert!(holds(&["a b", "c"], &["a b  ", "c"]));
    assert!(holds(&["a ... b"], &["a 12 b"]) && holds(&["...b"], &["b"]) && holds(&["a..."], &["a"]));
    assert!(holds(&["...", "x", "..."], &["1", "2", "x"]) && holds(&["..."], &[]));
    assert!(!holds(&["a"], &["a", "b"]) && !holds(&["a", "b"], &["a"]) && !holds(&["a ... b"], &["a 12 c"]));
    assert!(!holds(&["...", "x"], &["x", "y"]));
}

#[test]
fn a_prediction_is_read_in_the_labs_unit() {
    let bridge = &named("bridge").unwrap().description;
    let number = |typed: &str| match Prediction::parse(bridge, typed) {
        Ok(Prediction::Number { value, unit }) if unit == "us" => Some((value * 1e6).round() / 1e6),
        _ => None,
    };
    for (typed, value) in [
        ("12", 12.0),
        (" 12 us ", 12.0),
        ("12µs", 12.0),
        ("0,5 ms", 500.0),
        ("-3", -3.0),
        ("1.5s", 1.5e6),
        ("900ns", 0.9),
    ] {
        assert_eq!(number(typed), Some(value), "{typed}");
    }
    for typed in ["", "us", "many", "12 %", "12 kg", "1e400", "nan", "inf", "1 2", "--3"] {
        assert_eq!(number(typed), None, "{typed}");
    }
    assert_eq!(
        Prediction::parse(bridge, "much").unwrap_err().to_string(),
        "`much` is no answer to it: give a number in us, such as `12 us`"
    );
    let two = &named("two-hosts").unwrap().description;
    assert_eq!(Prediction::parse(two, " Yes"), Ok(Prediction::Yes(true)));
    assert_eq!(Prediction::parse(two, "否"), Ok(Prediction::Yes(false)));
    assert_eq!(Prediction::parse(two, "12"), Err(PredictionError::YesOrNo("12".into())));
}

#[test]
fn commands_know_their_shell() {
    let sheet = parse("# T\n\n## P\n\n```console\n$ a\n# b\n```\n").unwrap();
    let commands: Vec<&Command> = sheet.commands().collect();
    assert_eq!(commands[0].shell, Shell::Own);
    assert_eq!((commands[1].shell, commands[1].text.as_str()), (Shell::Opened, "b"));
}
