//! Every text that people read, in two languages, from `messages/en.ftl` and `messages/zh.ftl`.

use fluent_bundle::{FluentArgs, FluentBundle, FluentResource};
use std::str::FromStr;
use unic_langid::LanguageIdentifier;

/// A language that reports are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// Every language, in the order of the page's switch.
    pub const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// The language of a locale such as `zh_CN.UTF-8`, as `LC_ALL`, `LC_MESSAGES` and `LANG` hold it: Chinese for `zh`,
    /// else English.
    #[must_use]
    pub fn of_locale(locale: &str) -> Self {
        let language = locale.split(['_', '-', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("zh") { Self::Chinese } else { Self::English }
    }

    /// Its tag, as `--lang` and HTML's `lang` have it.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }

    /// Its name in itself.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::English => include_str!("../messages/en.ftl"),
            Self::Chinese => include_str!("../messages/zh.ftl"),
        }
    }

    fn identifier(self) -> LanguageIdentifier {
        self.tag().parse().expect("both tags are well formed")
    }
}

/// A language that there are no messages in.
#[derive(Debug, thiserror::Error)]
#[error("no reports are written in the language {0:?}: choose en or zh")]
pub struct UnknownLanguage(String);

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(tag: &str) -> Result<Self, UnknownLanguage> {
        Self::ALL.into_iter().find(|language| language.tag() == tag).ok_or_else(|| UnknownLanguage(tag.to_owned()))
    }
}

/// The messages of one language.
pub struct Messages {
    language: Language,
    bundle: FluentBundle<FluentResource>,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Messages").field("language", &self.language).finish_non_exhaustive()
    }
}

impl Messages {
    /// The messages of a language.
    ///
    /// # Panics
    /// Never: the embedded files are parsed by a test.
    #[must_use]
    pub fn new(language: Language) -> Self {
        let resource =
            FluentResource::try_new(language.source().to_owned()).expect("an embedded file that a test parses");
        let mut bundle = FluentBundle::new(vec![language.identifier()]);
        // Both languages run from left to right: Unicode's isolation marks would only be seen in CSV and on terminals.
        bundle.set_use_isolating(false);
        bundle.add_resource(resource).expect("keys that a test finds to be unique");
        Self { language, bundle }
    }

    /// Which language this is.
    #[must_use]
    pub const fn language(&self) -> Language {
        self.language
    }

    /// A text without arguments, or the key itself where there is none (a test finds those).
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        self.format(key, &[])
    }

    /// A text with its arguments filled in.
    #[must_use]
    pub fn format(&self, key: &str, arguments: &[(&str, &str)]) -> String {
        self.lookup(key, arguments).unwrap_or_else(|| key.to_owned())
    }

    /// The text for one of several names, such as `stage-` plus `listening`; the name itself where it has no text, since
    /// names come from records and may be any.
    #[must_use]
    pub fn named(&self, prefix: &str, name: &str) -> String {
        self.lookup_named(prefix, name).unwrap_or_else(|| name.to_owned())
    }

    /// The text for one of several names, where it has one.
    #[must_use]
    pub fn lookup_named(&self, prefix: &str, name: &str) -> Option<String> {
        self.lookup(&format!("{prefix}{name}"), &[])
    }

    /// The text of a key, where it has one. Arguments that are missing stay visible as their names: a test finds those.
    fn lookup(&self, key: &str, arguments: &[(&str, &str)]) -> Option<String> {
        let pattern = self.bundle.get_message(key)?.value()?;
        let arguments: FluentArgs<'_> = arguments.iter().copied().collect();
        let text = self.bundle.format_pattern(pattern, Some(&arguments), &mut Vec::new());
        Some(if self.language == Language::Chinese { spaced(&text) } else { text.into_owned() })
    }
}

/// Sets a space between Chinese characters and Latin letters or digits, as Chinese typography wants it; the messages cannot,
/// because they do not know which kind an argument begins or ends with.
fn spaced(text: &str) -> String {
    let han = |character: char| ('\u{4e00}'..='\u{9fff}').contains(&character);
    let mut spaced = String::with_capacity(text.len() + 8);
    let mut previous = ' ';
    for character in text.chars() {
        if (han(previous) && character.is_ascii_alphanumeric()) || (previous.is_ascii_alphanumeric() && han(character))
        {
            spaced.push(' ');
        }
        spaced.push(character);
        previous = character;
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    /// Keys with the arguments that each names.
    fn entries(language: Language) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        let mut entries = BTreeMap::new();
        for line in language.source().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (key, text) = line.split_once(" = ").expect("one message a line");
            let arguments = text.split("{ $").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
            assert!(entries.insert(key, arguments).is_none(), "{key} is there twice");
        }
        entries
    }

    #[test]
    fn both_languages_have_the_same_keys_and_arguments() {
        let (english, chinese) = (entries(Language::English), entries(Language::Chinese));
        let keys = |entries: &BTreeMap<&'static str, _>| entries.keys().copied().collect::<BTreeSet<_>>();
        assert_eq!(keys(&english).symmetric_difference(&keys(&chinese)).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(english, chinese);
    }

    #[test]
    fn every_message_can_be_read() {
        for language in Language::ALL {
            let messages = Messages::new(language);
            for (key, arguments) in entries(language) {
                let pattern = messages.bundle.get_message(key).and_then(|message| message.value()).expect(key);
                let arguments: FluentArgs<'_> = arguments.into_iter().map(|name| (name, "x")).collect();
                let mut errors = Vec::new();
                messages.bundle.format_pattern(pattern, Some(&arguments), &mut errors);
                assert!(errors.is_empty(), "{key}: {errors:?}");
            }
        }
    }

    fn source(directory: &Path, text: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                source(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    /// Prefixes of keys whose rest is a name from a closed list or from the records.
    const NAMED: [&str; 18] = [
        "answer-",
        "chart-segmentation-",
        "family-",
        "grade-",
        "key-",
        "kind-",
        "metric-",
        "mode-",
        "parameter-",
        "path-",
        "published-",
        "read-",
        "reason-",
        "remark-",
        "sandbox-",
        "section-",
        "stage-",
        "target-",
    ];

    #[test]
    fn every_key_is_used_and_every_key_used_exists() {
        let mut text = String::new();
        source(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut text);
        let entries = entries(Language::English);
        for key in entries.keys() {
            let used = text.contains(&format!("\"{key}\"")) || NAMED.iter().any(|prefix| key.starts_with(prefix));
            let ratio = ["startup", "throughput", "cost", "strips"]
                .iter()
                .any(|chart| key.starts_with(&format!("chart-{chart}-")) || *key == format!("chart-alone-{chart}"));
            assert!(used || ratio, "nothing uses {key}");
        }
        for call in ["messages.text(\"", "messages.format(\""] {
            for rest in text.split(call).skip(1) {
                let key = rest.split('"').next().unwrap_or_default();
                assert!(entries.contains_key(key), "there is no message {key}");
            }
        }
        // Keys that stand in lists: every text in the shape of a key whose first word is that of one.
        let words: BTreeSet<_> = entries.keys().filter_map(|key| key.split_once('-')).map(|(word, _)| word).collect();
        let lists = [
            "column-",
            "table-",
            "method-",
            "markdown-",
            "figure-",
            "errors-",
            "rule-",
            "expect-",
            "expected-",
            "machine-",
            "fact-",
        ];
        for candidate in text.split('"').filter(|text| lists.iter().any(|list| text.starts_with(list))) {
            let key = candidate.chars().all(|character| character.is_ascii_lowercase() || character == '-');
            if key && !candidate.ends_with('-') && words.contains(candidate.split('-').next().unwrap_or_default()) {
                assert!(entries.contains_key(candidate), "there is no message {candidate}");
            }
        }
    }

    #[test]
    fn every_name_of_a_closed_list_has_its_message() {
        use crate::palette::{FAMILIES, family_name};
        use crate::render::facts::MODES;
        use crate::render::words::ANSWERS;
        let entries = entries(Language::English);
        let mut keys: Vec<String> = Vec::new();
        keys.extend(ANSWERS.map(|answer| format!("answer-{}", answer.key())));
        keys.extend(
            FAMILIES
                .into_iter()
                .flat_map(|family| [format!("family-{}", family_name(family)), format!("key-{}", family_name(family))]),
        );
        keys.extend(crate::literature::Direction::ALL.map(|direction| format!("published-{}", direction.key())));
        keys.extend(crate::literature::Grade::ALL.map(|grade| format!("grade-{}", grade.key())));
        keys.extend(crate::literature::Read::ALL.map(|read| format!("read-{}", read.key())));
        keys.extend(crate::metrics::METRICS.iter().map(|metric| format!("metric-{}", metric.name.replace('.', "-"))));
        keys.extend(MODES.iter().flat_map(|(mode, sandbox)| {
            [format!("mode-{mode}-title"), format!("mode-{mode}-when"), format!("sandbox-{sandbox}")]
        }));
        let stages = isobench_workload::Stage::ALL.into_iter();
        let shown = stages
            .filter(|stage| (isobench_workload::Stage::Created..=isobench_workload::Stage::Answered).contains(stage));
        keys.extend(shown.map(|stage| format!("stage-{}", stage.name())));
        for key in keys {
            assert!(entries.contains_key(key.as_str()), "there is no message {key}");
        }
    }

    #[test]
    fn every_parameter_of_a_probe_has_its_words() {
        use crate::claims::Rule;
        let entries = entries(Language::English);
        let rules = crate::claims::claims().iter().flat_map(|claim| &claim.rules);
        let facts = rules.filter_map(|rule| match rule {
            Rule::Facts { expect, control, .. } => Some(expect.iter().chain(control)),
            _ => None,
        });
        for (name, value) in facts.flatten().flat_map(|fact| &fact.parameters) {
            let key = if name == "target" { format!("target-{value}") } else { format!("parameter-{name}-{value}") };
            assert!(entries.contains_key(key.as_str()), "there is no message {key}");
        }
    }

    #[test]
    fn languages_are_chosen_by_tag_and_by_locale() {
        assert_eq!("zh".parse::<Language>().unwrap(), Language::Chinese);
        let error = "fr".parse::<Language>().unwrap_err();
        assert_eq!(error.to_string(), "no reports are written in the language \"fr\": choose en or zh");
        for (locale, language) in [
            ("zh_CN.UTF-8", Language::Chinese),
            ("zh-Hans", Language::Chinese),
            ("zh", Language::Chinese),
            ("en_GB.UTF-8", Language::English),
            ("C", Language::English),
            ("", Language::English),
            ("zhuang", Language::English),
        ] {
            assert_eq!(Language::of_locale(locale), language, "{locale}");
        }
    }

    #[test]
    fn chinese_and_latin_stand_apart() {
        assert_eq!(spaced("是bridge模式（2 ms）的2倍"), "是 bridge 模式（2 ms）的 2 倍");
        assert_eq!(Messages::new(Language::English).named("stage-", "no such stage"), "no such stage");
    }
}
