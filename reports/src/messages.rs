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

    fn lookup(&self, key: &str, arguments: &[(&str, &str)]) -> Option<String> {
        let pattern = self.bundle.get_message(key)?.value()?;
        let arguments: FluentArgs<'_> = arguments.iter().copied().collect();
        Some(self.bundle.format_pattern(pattern, Some(&arguments), &mut Vec::new()).into_owned())
    }
}
