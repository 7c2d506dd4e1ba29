//! Options on the command line as a structure: `--memory 16M` is the field `memory`. What options there are, and what each takes, the
//! structure's type says alone.

use crate::error::ArgumentError;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::ffi::OsString;
use std::fmt;

/// Reads pairs of an option and its value. Of an option that is given twice the last value counts, but where it takes several.
pub(crate) fn read<T: DeserializeOwned>(words: impl Iterator<Item = OsString>) -> Result<T, ArgumentError> {
    let words = collect(words)?;
    T::deserialize(Words { left: words.iter(), next: None }).map_err(|error| match error {
        Wrong::Unknown(option) => ArgumentError::Unknown(format!("--{option}")),
        Wrong::Missing(option) => ArgumentError::Missing(option),
        Wrong::Value(option, why) => ArgumentError::Value { option, why },
        // No value has an error without its option.
        Wrong::Other(why) => ArgumentError::Unknown(why),
    })
}

/// An option's name with what was given; nothing where a value is missing.
type Given = (String, Vec<String>);

fn collect(mut words: impl Iterator<Item = OsString>) -> Result<Vec<Given>, ArgumentError> {
    let mut given: Vec<Given> = Vec::new();
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let Some(option) = word.strip_prefix("--") else { return Err(ArgumentError::Unknown(word.into())) };
        let value = words.next().map(OsString::into_string).transpose();
        let value = value.map_err(|value| ArgumentError::wrong(option, &value.to_string_lossy(), "text in UTF-8"))?;
        match given.iter_mut().find(|(name, _)| name == option) {
            Some((_, values)) => values.extend(value),
            None => given.push((option.to_owned(), value.into_iter().collect())),
        }
    }
    Ok(given)
}

#[derive(Debug)]
enum Wrong {
    Unknown(String),
    Missing(String),
    Value(String, String),
    Other(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(text) | Self::Missing(text) | Self::Value(_, text) | Self::Other(text) => {
                formatter.write_str(text)
            }
        }
    }
}

impl std::error::Error for Wrong {}

impl Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(field.into())
    }
}

struct Words<'w> {
    left: std::slice::Iter<'w, Given>,
    next: Option<&'w Given>,
}

impl<'de> Deserializer<'de> for Words<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Words<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.next = self.left.next();
        self.next.map(|(option, _)| seed.deserialize(option.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (option, values) = self.next.ok_or_else(|| Wrong::custom("no option"))?;
        let last = values.last().ok_or_else(|| Wrong::Missing(option.clone()))?;
        seed.deserialize(Values { last, all: values }).map_err(|wrong| Wrong::Value(option.clone(), wrong.to_string()))
    }
}

struct Values<'w> {
    last: &'w str,
    all: &'w [String],
}

impl<'de> Deserializer<'de> for Values<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.last)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let each = |value: &'de String| -> StrDeserializer<'de, Wrong> { value.as_str().into_deserializer() };
        visitor.visit_seq(SeqDeserializer::new(self.all.iter().map(each)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map
        struct enum identifier ignored_any
    }
}
