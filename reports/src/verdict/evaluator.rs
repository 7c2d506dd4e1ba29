//! From records to verdicts: what a claim needs, then its rule, then the family that its figures belong to.

use super::figures::{self, Draft};
use super::{Answer, FactResult, Figure, Reason, Verdict, facts};
use crate::claims::{Claim, Kind, Limit, Rule, Subject, claims};
use crate::reader::Records;
use crate::record::{Run, SandboxRecord};
use crate::statistics::holm::holm;
use crate::summary::{Series, summary};
use std::collections::BTreeMap;

/// Answers every claim.
pub fn evaluate(records: &Records) -> Vec<Verdict> {
    evaluate_series(&records.run, &summary(records))
}

/// Answers every claim from the [`summary`] of a run, where that was already made.
pub fn evaluate_series(run: &Run, series: &[Series]) -> Vec<Verdict> {
    let mut cases: Vec<Case> = claims().iter().map(|claim| Case::examine(claim, run, series)).collect();
    adjust(&mut cases);
    cases.into_iter().map(Case::decide).collect()
}

/// A claim with everything that its rule found.
struct Case {
    claim: &'static Claim,
    /// What keeps the claim from being answered at all.
    obstacle: Option<(Answer, Reason)>,
    figures: Vec<Draft>,
    /// Figures that could not be made.
    missing: Vec<Reason>,
    facts: Vec<(FactResult, bool)>,
    emulation: Option<String>,
}

impl Case {
    fn examine(claim: &'static Claim, run: &Run, series: &[Series]) -> Self {
        let mut case = Self {
            claim,
            obstacle: obstacle(claim, run),
            figures: Vec::new(),
            missing: Vec::new(),
            facts: Vec::new(),
            emulation: None,
        };
        if case.obstacle.is_some() {
            return case;
        }
        case.emulation = needed(claim).find_map(|name| find(run, name)?.emulation.clone());
        if case.emulation.is_none() {
            case.emulation = run.machine.emulation().map(str::to_owned);
        }
        claim.rules.iter().for_each(|rule| case.apply(rule, run, series));
        // Controls stand last, whatever rule they belong to.
        case.facts.sort_by_key(|(fact, _)| fact.control);
        case
    }

    fn apply(&mut self, rule: &Rule, run: &Run, series: &[Series]) {
        let claim = self.claim;
        match rule {
            Rule::Facts { expect, control, .. } => {
                for subject in present(rule, claim, run, series) {
                    let observed = expect.iter().map(|rule| facts::observe(series, &subject.sandbox, rule, false));
                    let elsewhere = subject.control.as_ref().unwrap_or(&subject.sandbox);
                    let controls = control.iter().map(|rule| {
                        let place = if rule.in_subject { &subject.sandbox } else { elsewhere };
                        facts::observe(series, place, rule, true)
                    });
                    self.facts.extend(observed.chain(controls).map(|fact| (fact, subject.peer)));
                }
            }
            Rule::Ratio { measures, expect, margin, .. } => {
                for subject in present(rule, claim, run, series) {
                    for measure in measures {
                        self.add(figures::ratio(series, subject, measure, *expect, *margin));
                    }
                }
            }
            Rule::SlopeRatio { measures, expect, margin, .. } => {
                for subject in present(rule, claim, run, series) {
                    for measure in measures {
                        self.add(figures::slope_ratio(series, subject, measure, *expect, *margin));
                    }
                }
            }
            Rule::Threshold { limits } => limits.iter().for_each(|limit| self.add(figures::value(series, limit))),
        }
    }

    fn add(&mut self, figure: Result<Draft, Reason>) {
        match figure {
            Ok(figure) => self.figures.push(figure),
            Err(reason) => self.missing.push(reason),
        }
    }

    fn decide(self) -> Verdict {
        let figures: Vec<_> = self.figures.into_iter().map(Draft::decide).collect();
        // Facts that are nothing but a control of figures decide no more than that.
        let by_facts =
            self.claim.rules.iter().any(|rule| matches!(rule, Rule::Facts { expect, .. } if !expect.is_empty()));
        let by_figures = self.claim.rules.iter().any(|rule| !matches!(rule, Rule::Facts { .. }));
        let facts = || facts::decide(&self.facts, self.claim.kind == Kind::Choice);
        let broken = || facts::broken(self.facts.iter().map(|(fact, _)| fact));
        let (answer, reason) = match self.obstacle {
            Some((answer, reason)) => (answer, Some(reason)),
            None if by_facts && by_figures => both(facts(), self::figures(&figures, self.missing)),
            None if by_facts => facts(),
            None => match broken() {
                Some(reason) => (Answer::Inconclusive, Some(reason)),
                None => self::figures(&figures, self.missing),
            },
        };
        let facts = self.facts.into_iter().map(|(fact, _)| fact).collect();
        Verdict { claim: self.claim, answer, reason, figures, facts, emulation: self.emulation }
    }
}

/// The answer from figures.
fn figures(figures: &[Figure], missing: Vec<Reason>) -> (Answer, Option<Reason>) {
    match missing.into_iter().next() {
        Some(reason) => (Answer::Inconclusive, Some(reason)),
        None => {
            let answer = Answer::all(figures.iter().map(|figure| figure.answer));
            (answer, (answer == Answer::Inconclusive).then(|| undecided(figures)))
        }
    }
}

/// Why figures decide nothing: an interval across its margin or, where there is none, too large a probability.
fn undecided(figures: &[Figure]) -> Reason {
    let mut open = figures.iter().filter(|figure| figure.answer == Answer::Inconclusive);
    match open.next() {
        Some(figure) if figure.clear && open.all(|figure| figure.clear) => {
            Reason::Improbable { probability: figure.probability(), blocks: figure.blocks }
        }
        _ => Reason::Undecided,
    }
}

/// The answer where facts and figures decide together: what is open in one of them leaves the claim open.
fn both(facts: (Answer, Option<Reason>), figures: (Answer, Option<Reason>)) -> (Answer, Option<Reason>) {
    match [facts, figures] {
        [(Answer::Inconclusive, reason), _] | [_, (Answer::Inconclusive, reason)] => (Answer::Inconclusive, reason),
        answers if answers.iter().any(|(answer, _)| *answer == Answer::Split) => (Answer::Split, None),
        answers => (Answer::all(answers.iter().map(|(answer, _)| *answer)), None),
    }
}

/// Adjusts the probabilities of all figures of each family: those for the claims among themselves, and those against them.
/// So the chance of any false confirmation in a family stays at 5 %, and that of any false refutation as well.
fn adjust(cases: &mut [Case]) {
    let mut families: BTreeMap<&str, Vec<&mut Draft>> = BTreeMap::new();
    for case in cases {
        families.entry(&case.claim.family).or_default().extend(&mut case.figures);
    }
    for figures in families.values_mut() {
        // A figure that stands in several claims is one test. Of each test: the place of its first figure.
        let mut tests: Vec<usize> = Vec::new();
        let mut test_of = Vec::new();
        for (place, figure) in figures.iter().enumerate() {
            let known = tests.iter().position(|&first| figures[first].is_same_test(figure));
            test_of.push(known.unwrap_or(tests.len()));
            if known.is_none() {
                tests.push(place);
            }
        }
        for side in [Draft::confirm, Draft::refute] {
            let adjusted = holm(&tests.iter().map(|&first| *side(figures[first])).collect::<Vec<f64>>());
            figures.iter_mut().zip(&test_of).for_each(|(figure, &test)| *side(figure) = adjusted[test]);
        }
    }
}

/// What keeps a claim from being answered: no rule, no experiment, or a sandbox that is not there.
fn obstacle(claim: &Claim, run: &Run) -> Option<(Answer, Reason)> {
    if claim.rules.is_empty() {
        return Some((Answer::NotTested, Reason::NoExperiment));
    }
    let not_in_run = |name: &str| (Answer::NotTested, Reason::NotInRun { name: name.to_owned() });
    if let Some(experiment) = claim.experiments.iter().find(|name| !run.plan.experiments.contains(name)) {
        return Some(not_in_run(experiment));
    }
    for name in needed(claim) {
        let Some(sandbox) = find(run, name) else { return Some(not_in_run(name)) };
        if let Some(why) = sandbox.unavailable.clone() {
            return Some((Answer::NotMeasurable, Reason::Unavailable { sandbox: name.to_owned(), why }));
        }
        if sandbox.emulation.is_none() && claim.emulated.iter().any(|needed| needed == name) {
            return Some((Answer::NotMeasurable, Reason::OnHardware { sandbox: name.to_owned() }));
        }
        let emulation = sandbox.emulation.clone().or_else(|| run.machine.emulation().map(str::to_owned));
        if let Some(emulation) = emulation.filter(|_| claim.hardware.iter().any(|needed| needed == name)) {
            return Some((Answer::NotMeasurable, Reason::Emulated { sandbox: name.to_owned(), emulation }));
        }
    }
    None
}

/// The sandboxes without which a claim cannot be answered: all but peers.
fn needed(claim: &Claim) -> impl Iterator<Item = &str> {
    claim.rules.iter().flat_map(|rule| {
        let (subjects, limits): (&[Subject], &[Limit]) = match rule {
            Rule::Facts { subjects, .. } | Rule::Ratio { subjects, .. } | Rule::SlopeRatio { subjects, .. } => {
                (subjects, &[])
            }
            Rule::Threshold { limits } => (&[], limits),
        };
        let named = subjects.iter().filter(|subject| !subject.peer).flat_map(places);
        named.chain(limits.iter().map(|limit| limit.sandbox.as_str()))
    })
}

/// Subjects of a rule that take part in it: our own, and each peer of which every sandbox was measured in something that the
/// rule looks at. A short run may see a peer's facts and leave its figures out.
fn present<'a>(
    rule: &'a Rule,
    claim: &'a Claim,
    run: &'a Run,
    series: &'a [Series],
) -> impl Iterator<Item = &'a Subject> {
    let (subjects, metrics): (&[Subject], Vec<&str>) = match rule {
        Rule::Facts { subjects, expect, control } => {
            (subjects, expect.iter().chain(control).map(|fact| fact.metric.as_str()).collect())
        }
        Rule::Ratio { subjects, measures, .. } | Rule::SlopeRatio { subjects, measures, .. } => {
            (subjects, measures.iter().map(|measure| measure.metric.as_str()).collect())
        }
        Rule::Threshold { .. } => (&[], Vec::new()),
    };
    let measured = move |name: &str| {
        find(run, name).is_some_and(|sandbox| sandbox.unavailable.is_none())
            && series.iter().any(|series| {
                series.sandbox == name
                    && claim.experiments.contains(&series.experiment)
                    && metrics.contains(&series.metric.as_str())
            })
    };
    subjects.iter().filter(move |subject| !subject.peer || places(subject).all(&measured))
}

/// The sandboxes that a subject looks at.
fn places(subject: &Subject) -> impl Iterator<Item = &str> {
    [Some(&subject.sandbox), subject.against.as_ref(), subject.control.as_ref()]
        .into_iter()
        .flatten()
        .map(String::as_str)
}

fn find<'a>(run: &'a Run, name: &str) -> Option<&'a SandboxRecord> {
    run.sandboxes.iter().find(|sandbox| sandbox.name == name)
}
