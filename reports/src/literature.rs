//! What was published on the claims, as data: `reports/claims/literature.toml`. It stands beside our own verdict and is never
//! mixed with it: values and units are those of the publication, and no statistics of ours touches them.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Every publication, in the order of the file.
pub fn publications() -> &'static [Publication] {
    static PUBLICATIONS: LazyLock<Vec<Publication>> = LazyLock::new(parse);
    &PUBLICATIONS
}

/// Those that bear on a claim, each with what it says of it.
pub fn on(claim: &str) -> impl Iterator<Item = (&'static Publication, Direction)> {
    publications().iter().filter_map(move |publication| Some((publication, *publication.claims.get(claim)?)))
}

fn parse() -> Vec<Publication> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        publication: Vec<Publication>,
    }
    match toml::from_str::<File>(include_str!("../claims/literature.toml")) {
        Ok(file) => file.publication,
        Err(error) => unreachable!("the literature is part of the program and tested: {error}"),
    }
}

/// One published result.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// A name of its own.
    pub id: String,
    /// What it says of each claim that it bears on.
    pub claims: BTreeMap<String, Direction>,
    /// Who wrote it.
    pub authors: String,
    /// Its title.
    pub title: String,
    /// Where it appeared.
    pub venue: String,
    /// When.
    pub year: u16,
    /// Where in it the figures stand.
    pub source: String,
    /// Who vouches for it.
    pub grade: Grade,
    /// What of it was read.
    pub read: Read,
    /// What was measured or stated.
    pub metric: String,
    /// The figures.
    pub figures: Vec<PublishedFigure>,
}

/// A figure as it was published.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFigure {
    /// What it was measured on.
    pub system: String,
    /// The number, or what is said where there is none.
    pub value: String,
    /// The publication's own unit.
    #[serde(default)]
    pub unit: String,
    /// Under which condition, and which statistic it is.
    #[serde(default)]
    pub condition: String,
}

/// What a publication says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It confirms it.
    Confirms,
    /// It refutes it.
    Refutes,
    /// Partly one, partly the other.
    Mixed,
}

impl Direction {
    /// Every direction, in the order in which they are counted.
    pub const ALL: [Self; 3] = [Self::Confirms, Self::Refutes, Self::Mixed];

    /// Its message key after `published-`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Confirms => "confirms",
            Self::Refutes => "refutes",
            Self::Mixed => "mixed",
        }
    }
}

/// Who vouches for a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Peers reviewed it.
    PeerReviewed,
    /// Nobody has yet.
    Preprint,
    /// The makers of what it is about.
    Project,
    /// An issue report or a blog.
    Grey,
}

impl Grade {
    /// Every grade.
    pub const ALL: [Self; 4] = [Self::PeerReviewed, Self::Preprint, Self::Project, Self::Grey];

    /// Its message key after `grade-`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::PeerReviewed => "peer-reviewed",
            Self::Preprint => "preprint",
            Self::Project => "project",
            Self::Grey => "grey",
        }
    }
}

/// What of a publication was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Read {
    /// All of it.
    FullText,
    /// The authors' own data files, not the article.
    DataSet,
    /// A part of it.
    Excerpt,
    /// The abstract alone.
    Abstract,
}

impl Read {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::FullText, Self::DataSet, Self::Excerpt, Self::Abstract];

    /// Its message key after `read-`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::FullText => "full-text",
            Self::DataSet => "data-set",
            Self::Excerpt => "excerpt",
            Self::Abstract => "abstract",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims;
    use std::collections::BTreeSet;

    #[test]
    fn each_publication_is_whole_and_names_claims_that_there_are() {
        let mut ids = BTreeSet::new();
        for publication in publications() {
            assert!(ids.insert(&publication.id), "{} stands twice", publication.id);
            assert!(!publication.claims.is_empty() && !publication.figures.is_empty(), "{}", publication.id);
            for claim in publication.claims.keys() {
                assert!(claims::find(claim).is_some(), "{} names {claim}, which is no claim", publication.id);
            }
            for text in [&publication.authors, &publication.title, &publication.venue, &publication.source] {
                assert!(!text.trim().is_empty(), "{}", publication.id);
            }
            assert!((1970..2100).contains(&publication.year), "{}", publication.id);
            for figure in &publication.figures {
                assert!(!figure.system.is_empty() && !figure.value.is_empty(), "{}", publication.id);
            }
        }
    }

    #[test]
    fn publications_are_found_by_the_claim() {
        let found: Vec<_> = on("bridge.slower").map(|(publication, _)| publication.id.as_str()).collect();
        assert!(found.contains(&"felter2015-latency") && !found.contains(&"manco2017-start"), "{found:?}");
        assert_eq!(on("no.such-claim").count(), 0);
    }
}
