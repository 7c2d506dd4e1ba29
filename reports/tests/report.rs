//! The whole report of made-up records: what is in it, that hostile or missing records do no harm, that it is the same
//! every time, and that it is whole on disk.

mod fixture;

use isobench_reports::chart::{Chart, charts};
use isobench_reports::font;
use isobench_reports::messages::{Language, Messages};
use isobench_reports::reader::Records;
use isobench_reports::record::{Outcome, Sample, Value};
use isobench_reports::render::quantity::quantity;
use isobench_reports::render::view::View;
use isobench_reports::render::{self, WriteError, terminal};
use isobench_reports::{csv, html, markdown};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// The whole run, summarized once for all tests: its intervals take seconds without optimization.
static RECORDS: LazyLock<Records> = LazyLock::new(fixture::records);
static VIEW: LazyLock<View<'static>> = LazyLock::new(|| View::new(&RECORDS));

fn sheets(view: &View<'_>) -> Vec<(Messages, Vec<Chart>)> {
    Language::ALL
        .map(|language| {
            let messages = Messages::new(language);
            let charts = charts(view, &messages);
            (messages, charts)
        })
        .into()
}

fn page(view: &View<'_>) -> String {
    html::page(view, &sheets(view), Language::English)
}

/// What stands between two texts of the page, one element a line.
fn between(page: &str, from: &str, to: &str) -> String {
    let start = page.find(from).unwrap_or_else(|| panic!("{from} is not on the page"));
    let length = page[start..].find(to).unwrap_or_else(|| panic!("{to} is not after {from}"));
    page[start..start + length].replace("><", ">\n<")
}

#[test]
fn titles_state_findings() {
    let titles: Vec<String> = sheets(&VIEW)
        .iter()
        .flat_map(|(_, charts)| {
            charts.iter().map(|chart| format!("{}: {} | {}", chart.name, chart.title, chart.section))
        })
        .collect();
    insta::assert_snapshot!(titles.join("\n"));
}

#[test]
fn markdown_in_english() {
    let (messages, charts) = &sheets(&VIEW)[0];
    let markdown = markdown::markdown(&VIEW, messages, charts);
    // The claims' own wording is left out, so that a better word there needs no change here.
    // What was published stands at the end: the literature grows on its own.
    let (own, published) = markdown.split_once("\n## What was published\n").expect("published results");
    assert!(published.contains("felter") || published.contains("Felter"));
    let kept = own.lines().filter(|line| VIEW.verdicts.iter().all(|verdict| !line.contains(&verdict.claim.wording.en)));
    insta::assert_snapshot!(kept.collect::<Vec<_>>().join("\n"));
    assert!(VIEW.verdicts.iter().all(|verdict| markdown.contains(&verdict.claim.id)));
}

#[test]
fn fragments_of_the_page_in_both_languages() {
    let page = page(&VIEW);
    let mut fragments = String::new();
    for tag in ["en", "zh"] {
        let sheet = between(&page, &format!("<main lang=\"{tag}\">"), "</main>");
        fragments.push_str(&between(&sheet, "<header>", "</header>"));
        fragments.push_str(&between(
            &sheet,
            &format!("<section id=\"unavailable-{tag}\">"),
            &format!("<section id=\"untested-{tag}\">"),
        ));
    }
    insta::assert_snapshot!(fragments);
}

#[test]
fn terminal_in_both_languages() {
    let tables = Language::ALL.map(|language| terminal::table(&VIEW, &Messages::new(language)));
    insta::assert_snapshot!(tables.join("\n"));
}

#[test]
fn csv_has_a_row_for_each_sample_used() {
    let text = csv::samples(&VIEW);
    let expected: usize = RECORDS
        .samples
        .iter()
        .filter(|sample| !sample.warm_up)
        .map(|sample| match &sample.outcome {
            Outcome::Value(Value::Stages(stages)) => stages.len(),
            Outcome::Value(_) => 1,
            Outcome::Error(_) => 0,
        })
        .sum();
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.records().map(Result::unwrap).count(), expected);
    let summary = csv::summary(&VIEW);
    let mut reader = ::csv::Reader::from_reader(summary.as_bytes());
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let bridge = rows.iter().find(|row| &row[1] == "container-bridge" && &row[2] == "start.ready").unwrap();
    assert_eq!((&bridge[4], &bridge[5], &bridge[10]), ("median", "ns", "20"));
    let (low, value, high) = (bridge[7].parse::<f64>(), bridge[6].parse::<f64>(), bridge[8].parse::<f64>());
    let (low, value, high) = (low.unwrap(), value.unwrap(), high.unwrap());
    assert!(low < value && value < high && (2.4e6..2.9e6).contains(&value), "{low} {value} {high}");
}

#[test]
fn csv_has_a_row_for_each_figure_with_both_of_its_adjusted_probabilities() {
    let text = csv::figures(&VIEW);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let figures: Vec<_> = VIEW.verdicts.iter().flat_map(|verdict| &verdict.figures).collect();
    assert_eq!(rows.len(), figures.len());
    for (row, figure) in rows.iter().zip(figures) {
        for (cell, probability) in [(&row[15], figure.p_confirm), (&row[16], figure.p_refute)] {
            let cell: f64 = cell.parse().unwrap();
            assert!((cell - probability).abs() <= probability * 1e-5, "{cell} for {probability}");
        }
        assert_eq!(&row[17], figure.answer.key());
    }
}

#[test]
fn every_figure_shows_the_adjusted_probability_that_decides_it() {
    let shown: Vec<String> = VIEW
        .verdicts
        .iter()
        .flat_map(|verdict| &verdict.figures)
        .map(|figure| match figure.p_confirm.min(figure.p_refute) {
            probability if probability < 0.001 => "p < 0.001".to_owned(),
            probability => format!("p = {}", quantity(probability, "")),
        })
        .collect();
    assert!(shown.iter().any(|text| text.starts_with("p <")) && shown.iter().any(|text| text.starts_with("p =")));
    let page = page(&VIEW);
    for (messages, charts) in &sheets(&VIEW) {
        let tag = messages.language().tag();
        let sheet = between(&page, &format!("<main lang=\"{tag}\">"), "</main>");
        let terms = |text: &str| {
            let found = text.match_indices("p = ").chain(text.match_indices("p &lt; "));
            let mut found: Vec<(usize, String)> = found
                .map(|(at, _)| (at, text[at..].chars().take_while(|next| !"<,)，）".contains(*next)).collect()))
                .collect();
            found.sort();
            found.into_iter().map(|(_, term)| term.replace("&lt;", "<")).collect::<Vec<_>>()
        };
        assert_eq!(terms(&sheet), shown, "the page in {tag}");
        assert_eq!(terms(&markdown::markdown(&VIEW, messages, charts)), shown, "the Markdown in {tag}");
    }
}

#[test]
fn charts_use_no_character_that_the_font_lacks() {
    for (messages, charts) in sheets(&VIEW) {
        for chart in charts {
            assert_eq!(font::missing(&chart.svg), [], "{} in {:?}", chart.name, messages.language());
        }
    }
}

#[test]
fn texts_from_records_are_only_texts() {
    let mut records = fixture::small();
    let hostile = "</style></svg><script>alert('1')</script><img src=x onerror=alert(1)>\"&";
    let victim = "container-bridge";
    for sandbox in records.run.sandboxes.iter_mut().filter(|sandbox| sandbox.name == victim) {
        sandbox.name = hostile.to_owned();
        sandbox.version = Some(hostile.to_owned());
        sandbox.emulation = Some(hostile.to_owned());
    }
    for sandbox in records.run.sandboxes.iter_mut().filter(|sandbox| sandbox.unavailable.is_some()) {
        sandbox.unavailable = Some(hostile.to_owned());
    }
    for sample in &mut records.samples {
        if sample.sandbox == victim {
            sample.sandbox = hostile.to_owned();
        }
        match &mut sample.outcome {
            Outcome::Error(error) => *error = hostile.to_owned(),
            Outcome::Value(Value::Texts(texts)) => texts.push(hostile.to_owned()),
            Outcome::Value(Value::Stages(stages)) => stages[1].stage = hostile.to_owned(),
            Outcome::Value(_) => {}
        }
    }
    records.run.machine.host = hostile.to_owned();
    records.run.machine.kvm = hostile.to_owned();
    records.run.program = hostile.to_owned();
    records.run.plan.command_line = vec![hostile.to_owned()];
    records.run.machine.facts.insert(hostile.to_owned(), hostile.to_owned());

    let view = View::new(&records);
    let page = page(&view);
    for element in ["<script", "<img", "<iframe", "<link", "<object"] {
        assert!(!page.contains(element), "{element} got into the page");
    }
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("<svg ").count(), page.matches("</svg>").count());
    for (messages, charts) in &sheets(&view) {
        let markdown = markdown::markdown(&view, messages, charts);
        assert!(!markdown.contains("<script") && !markdown.contains("<img"), "HTML got into the Markdown");
    }
    for chart in &sheets(&view)[0].1 {
        let tree = resvg::usvg::Tree::from_str(&chart.svg, &resvg::usvg::Options::default());
        assert!(tree.is_ok(), "{} is no well-formed SVG any more", chart.name);
    }
}

#[test]
fn the_page_asks_for_nothing_from_outside() {
    let page = page(&VIEW);
    let addresses: Vec<&str> = page.match_indices("http").map(|(at, _)| &page[at..(at + 28).min(page.len())]).collect();
    assert_eq!(addresses, ["http-equiv=\"Content-Security"], "an address got into the page");
    assert!(!page.contains("<script") && !page.contains("url(\"") && !page.contains("@import"));
}

#[test]
fn whatever_is_missing_the_rest_is_shown() {
    let whole = fixture::small();
    let mut variants = vec![fixture::without_samples()];
    let mut nothing = fixture::without_samples();
    nothing.run.sandboxes.clear();
    nothing.run.machine = Default::default();
    nothing.run.plan = Default::default();
    variants.push(nothing);
    for keep in 1..4 {
        let mut part = whole.clone();
        part.samples.truncate(whole.samples.len() * keep / 4);
        variants.push(part);
    }
    let mut failed = whole.clone();
    for sample in &mut failed.samples {
        sample.outcome = Outcome::Error("no".to_owned());
    }
    variants.push(failed);
    let mut warm_ups = whole.clone();
    warm_ups.samples.retain(|sample| sample.warm_up);
    variants.push(warm_ups);
    let mut zeros = whole.clone();
    for sample in &mut zeros.samples {
        match &mut sample.outcome {
            Outcome::Value(Value::Integer(value)) => *value = 0,
            Outcome::Value(Value::Transfer { amount, nanoseconds }) => (*amount, *nanoseconds) = (0, 0),
            Outcome::Value(Value::Stages(stages)) => stages.clear(),
            _ => {}
        }
    }
    variants.push(zeros);
    let mut huge = whole.clone();
    for sample in &mut huge.samples {
        match &mut sample.outcome {
            Outcome::Value(Value::Integer(value)) => *value = u64::MAX,
            Outcome::Value(Value::Transfer { amount, nanoseconds }) => (*amount, *nanoseconds) = (u64::MAX, 1),
            Outcome::Value(Value::Histogram(text)) => "not base64".clone_into(text),
            _ => {}
        }
    }
    variants.push(huge);
    for rate in ["inf", "NaN", "1.7e308", "-1", "many"] {
        let mut odd = whole.clone();
        let rates = odd.samples.iter_mut().filter_map(|sample| sample.parameters.get_mut("rate"));
        rates.for_each(|value| rate.clone_into(value));
        variants.push(odd);
    }
    for one in &whole.run.sandboxes {
        let mut alone = whole.clone();
        alone.run.sandboxes.retain(|sandbox| sandbox.name == one.name);
        alone.samples.retain(|sample| sample.sandbox == one.name);
        variants.push(alone);
    }
    for records in variants {
        let view = View::new(&records);
        let page = page(&view);
        assert!(page.ends_with("</html>") && page.contains("isobench"));
        for (messages, charts) in sheets(&view) {
            assert!(!markdown::markdown(&view, &messages, &charts).contains("NaN"));
            assert!(terminal::table(&view, &messages).ends_with('\n'));
        }
    }
}

#[test]
fn nothing_that_has_samples_is_left_out() {
    for (messages, charts) in sheets(&VIEW) {
        let startup = charts.iter().find(|chart| chart.name == "startup").unwrap();
        for sandbox in VIEW.measured() {
            assert!(startup.svg.contains(&sandbox.name), "{}", sandbox.name);
            assert!(
                startup.table.rows.iter().any(|row| row[0] == VIEW.labelled(&messages, &sandbox.name)),
                "{}",
                sandbox.name
            );
        }
        assert!(charts.iter().all(|chart| chart.table.rows.iter().all(|row| row.len() == chart.table.head.len())));
    }
}

/// The texts of a chart as they are drawn.
fn drawn(chart: &Chart) -> Vec<String> {
    let texts = chart.svg.split("<text").skip(1).filter_map(|text| text.split_once('>')?.1.split("</text>").next());
    texts.map(|text| text.trim().to_owned()).collect()
}

#[test]
fn every_chart_says_in_its_own_language_what_emulates_a_sandbox() {
    let emulated = |chart: &&Chart| drawn(chart).iter().any(|text| text.starts_with("vm-unikernel"));
    for (_, charts) in sheets(&VIEW) {
        let labels = |chart: &Chart| drawn(chart).into_iter().filter(|text| text.contains("KVM")).collect::<Vec<_>>();
        let shown: Vec<&Chart> = charts.iter().filter(emulated).collect();
        assert!(shown.iter().any(|chart| chart.name == "load-client"), "{:?}", shown.len());
        for chart in shown {
            assert!(!labels(chart).is_empty(), "{}: {:?}", chart.name, drawn(chart));
        }
    }
    let [english, chinese] = Language::ALL.map(|language| VIEW.labelled(&Messages::new(language), "vm-unikernel"));
    assert_eq!([english, chinese], ["vm-unikernel (software KVM)", "vm-unikernel（软件 KVM）"]);
}

#[test]
fn a_load_chart_shows_every_rate_that_was_tried() {
    // Where most rates have too few requests for a 99th percentile, that of the one that has enough would stand alone.
    let mut records = RECORDS.clone();
    let rate = |sample: &Sample| sample.parameters.get("rate").cloned().unwrap_or_default();
    records.samples.retain(|sample| sample.experiment == "load" && (sample.block == 1 || rate(sample) == "256000"));
    let view = View::new(&records);
    let charts = charts(&view, &Messages::new(Language::English));
    let chart = charts.iter().find(|chart| chart.name == "load-client").unwrap();
    assert!(chart.section.starts_with("90 %"), "{}", chart.section);
    let texts = drawn(chart);
    for rate in ["8", "16", "32", "64", "128", "256"] {
        assert!(texts.contains(&format!("{rate}\u{a0}k/s")), "{rate}: {texts:?}");
    }
}

#[test]
fn memory_that_the_machine_gave_back_is_drawn_below_nought() {
    let mut records = fixture::small();
    for sample in records.samples.iter_mut().filter(|sample| sample.metric == "memory.host") {
        if let (Outcome::Value(Value::Integer(value)), "1") = (&mut sample.outcome, &*sample.parameters["instances"]) {
            *value = value.saturating_sub(40 << 20);
        }
    }
    let view = View::new(&records);
    let charts = charts(&view, &Messages::new(Language::English));
    let chart = charts.iter().find(|chart| chart.name == "memory").unwrap();
    assert!(drawn(chart).iter().any(|text| text.starts_with('−')), "{:?}", drawn(chart));
}

#[test]
fn markdown_names_what_a_claim_has_against_it_and_what_was_not_tested_with_the_reason() {
    let mut records = RECORDS.clone();
    for sample in records.samples.iter_mut().filter(|sample| sample.sandbox == "container-none") {
        if sample.metric == "network.routes" {
            sample.outcome = Outcome::Value(Value::Texts(vec!["0.0.0.0/0 via 10.0.0.1 dev eth0".to_owned()]));
        }
    }
    records.run.plan.experiments.retain(|name| name != "attachment");
    records.samples.retain(|sample| sample.experiment != "attachment");
    let view = View::new(&records);
    let text = markdown::markdown(&view, &Messages::new(Language::English), &[]);
    assert!(
        text.contains("refuted: routes (container-none): 0.0.0.0/0 via 10.0.0.1 dev eth0; the claim says: nothing")
    );
    let untested = text.lines().find(|line| line.starts_with("- none.manual")).unwrap();
    assert!(untested.ends_with("This run did not include attachment."), "{untested}");
}

#[test]
fn only_sandboxes_with_samples_are_counted() {
    let mut records = fixture::small();
    let before = View::new(&records).sampled();
    records.samples.retain(|sample| sample.sandbox != "process");
    assert_eq!(View::new(&records).sampled() + 1, before);
    assert_eq!(View::new(&fixture::without_samples()).sampled(), 0);
}

#[test]
fn every_claim_is_on_the_page() {
    let page = page(&VIEW);
    for verdict in &VIEW.verdicts {
        let id = format!("<code>{}</code>", verdict.claim.id);
        assert_eq!(page.matches(&id).count(), Language::ALL.len(), "{}", verdict.claim.id);
    }
    assert!(RECORDS.run.sandboxes.iter().all(|sandbox| page.contains(&sandbox.name)));
}

#[test]
fn a_chart_in_pixels_is_painted_with_the_embedded_font() {
    let (_, charts) = &sheets(&VIEW)[1];
    let png = charts[0].png().unwrap();
    let pixels = resvg::tiny_skia::Pixmap::decode_png(&png).unwrap();
    assert_eq!(pixels.width(), 1520);
    // Without a font there would be no dark pixel in the upper left, where the title is.
    let dark = |x: u32, y: u32| pixels.pixel(x, y).is_some_and(|pixel| pixel.red() < 80 && pixel.blue() < 80);
    let ink = (0..400).flat_map(|x| (0..90).map(move |y| (x, y))).filter(|(x, y)| dark(*x, *y)).count();
    assert!(ink > 800, "{ink} dark pixels in the title");
}

#[test]
fn a_report_is_whole_on_disk_and_the_same_every_time() {
    let records = fixture::small();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = render::write(first.path(), &records, Language::English).unwrap();
    let other = render::write(second.path(), &records, Language::English).unwrap();
    assert_eq!(one.page, first.path().join("report.html"));
    assert!(one.paths.len() > 15, "{:?}", one.paths);
    for (one, other) in one.paths.iter().zip(&other.paths) {
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} differs", one.display());
        assert!(fs::metadata(one).unwrap().len() > 100);
    }
    let left: Vec<_> = fs::read_dir(first.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|extension| extension != "partial")), "{left:?}");
}

/// Not a test of much: it leaves a whole report in `$CARGO_TARGET_TMPDIR/report` to be looked at in a browser.
#[test]
fn a_report_to_look_at() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    let written = render::write(&directory, &RECORDS, Language::English).unwrap();
    assert!(written.paths.iter().all(|path| path.starts_with(&directory) && path.is_file()));
}

#[test]
fn an_error_names_file_and_operation() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("blocked");
    fs::write(&blocked, "a file, not a directory").unwrap();
    let error = render::write(&blocked, &fixture::without_samples(), Language::English).unwrap_err();
    assert!(matches!(error, WriteError::File { operation: "create the directory", .. }));
    assert_eq!(error.to_string(), format!("cannot create the directory {}", blocked.join("charts").display()));
    assert!(std::error::Error::source(&error).is_some());

    let report = directory.path().join("report");
    fs::create_dir_all(report.join("report.html/in the way")).unwrap();
    let error = render::write(&report, &fixture::without_samples(), Language::English).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot rename into place {}", report.join("report.html").display()));
}
