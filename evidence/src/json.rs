//! Strict parser for untrusted JSON.
//!
//! Errors are: a duplicate member (two readers could read different reports), NaN, infinities, a byte order mark, nesting deeper than 128 and
//! trailing data.

use crate::run_report::RunReport;
use invarlock_error::Error;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

/// The most objects of a document; evidence has some hundreds.
const MAX_OBJECTS: usize = 100_000;
/// The most lists of a document: four for each window of the largest report.
const MAX_LISTS: usize = 1 << 20;
/// The most members of a document: two for each token of the largest report.
const MAX_MEMBERS: usize = 10 << 20;

/// How many values a document has, by its punctuation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// `{`
    pub objects: usize,
    /// `[`
    pub lists: usize,
    /// `,`
    pub commas: usize,
    /// `:`
    pub colons: usize,
}

impl Size {
    /// Checks the size of a document with `fits`, before it is parsed.
    ///
    /// # Errors
    /// The size does not fit.
    pub fn check(bytes: &[u8], fits: impl Fn(&Self) -> bool) -> Result<(), Self> {
        // Counting the punctuation in texts too is faster, and nearly always enough.
        if fits(&Self::bound(bytes)) {
            return Ok(());
        }
        let size = Self::outside_texts(bytes);
        if fits(&size) { Ok(()) } else { Err(size) }
    }

    fn add(&mut self, byte: u8) {
        match byte {
            b'{' => self.objects += 1,
            b'[' => self.lists += 1,
            b',' => self.commas += 1,
            b':' => self.colons += 1,
            _ => {}
        }
    }

    fn bound(bytes: &[u8]) -> Self {
        let count = |wanted| count(bytes, wanted);
        Self { objects: count(b'{'), lists: count(b'['), commas: count(b','), colons: count(b':') }
    }

    /// Exact up to the first error of syntax, where a parser stops.
    fn outside_texts(bytes: &[u8]) -> Self {
        let (mut size, mut in_text, mut escaped) = (Self::default(), false, false);
        for byte in bytes {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                byte if !in_text => size.add(*byte),
                _ => {}
            }
        }
        size
    }
}

/// Refuses a document with more objects, lists or members than evidence has, before it is parsed: a parsed member takes up to a
/// hundred times the memory of its text.
pub fn check_size(what: &str, bytes: &[u8]) -> Result<(), Error> {
    let fits =
        |size: &Size| size.objects <= MAX_OBJECTS && size.lists <= MAX_LISTS && size.commas <= MAX_MEMBERS;
    Size::check(bytes, fits).map_err(|Size { objects, lists, commas: members, .. }| {
        Error::input(format!(
            "{what} has {objects} objects, {lists} lists and {members} members; at most {MAX_OBJECTS}, {MAX_LISTS} and \
             {MAX_MEMBERS} are read"
        ))
    })
}

/// How often a byte occurs. Sums of 255 bytes fit in a byte, so that many of them are added at once.
fn count(bytes: &[u8], wanted: u8) -> usize {
    let within = |part: &[u8]| part.iter().fold(0u8, |sum, byte| sum.wrapping_add(u8::from(*byte == wanted)));
    bytes.chunks(255).map(|part| usize::from(within(part))).sum()
}

/// Parses strictly; `what` names the document in errors.
pub fn parse(what: &str, bytes: &[u8]) -> Result<Value, Error> {
    check_size(what, bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let length = Cell::new(0);
    let value = Strict(&length).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|why| Error::input(format!("{what} is not strict JSON: {why}")))
}

/// Parses a run report strictly; `what` names it in errors.
pub fn parse_run_report(what: &str, bytes: &[u8]) -> Result<RunReport, Error> {
    check_size(what, bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let unique = Unique.deserialize(&mut reader).and_then(|()| reader.end());
    unique.map_err(|why| Error::input(format!("{what} is not strict JSON: {why}")))?;
    serde_json::from_slice(bytes).map_err(|why| Error::input(format!("{what} is not a run report: {why}")))
}

/// Builds a [`Value`] and rejects duplicate members.
///
/// Reserves the length of the previous array, because lists of windows contain lists of equal length. A document cannot cause a
/// reservation of more than twice its own content.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut array = Vec::with_capacity(self.0.replace(0));
        while let Some(member) = members.next_element_seed(self)? {
            array.push(member);
        }
        self.0.set(array.len());
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            match map.entry(name) {
                Entry::Occupied(member) => return Err(duplicate(member.key())),
                Entry::Vacant(place) => {
                    place.insert(members.next_value_seed(self)?);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// Rejects duplicate members; builds no value.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_element_seed(Unique)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Unique)?;
            if names.contains(&name) {
                return Err(duplicate(&name));
            }
            names.insert(name);
        }
        Ok(())
    }
}

fn duplicate<E: serde::de::Error>(name: &str) -> E {
    let shown: String = name.chars().take(64).collect();
    E::custom(format_args!("the member {shown:?} is a duplicate"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_json_parses_like_serde_json() {
        let text = r#"{"a": [1, -2, 2.5, 1e300, true, null, "xé"], "b": {}}"#;
        assert_eq!(parse("report", text.as_bytes()), Ok(serde_json::from_str(text).expect("JSON")));
        assert_eq!(parse("report", b"18446744073709551616"), Ok(json!(18446744073709551616.0)));
    }

    #[test]
    fn rejects_json_that_is_not_strict() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"x": [{"a": 1, "b": 2, "\u0061": 3}]}"#,
            "NaN",
            "[Infinity]",
            "{} {}",
            "",
            "\u{feff}{}",
            "1e999",
            "[1,]",
        ] {
            let found = parse("the report", text.as_bytes());
            let message = found.expect_err(text).to_string();
            assert!(message.starts_with("the report is not strict JSON: "), "{message}");
        }
        assert!(parse("report", "[".repeat(100_000).as_bytes()).is_err());
        assert!(parse("report", &[0xff, 0xfe]).is_err());
        assert!(parse_run_report("report", br#"{"a": {"b": 1, "b": 1}}"#).is_err());
    }

    #[test]
    fn punctuation_in_texts_is_no_member() {
        let text = r#"{"a,[{\":\\": ["}{", {}], "b": 1}"#;
        let size = Size { objects: 2, lists: 1, commas: 2, colons: 2 };
        assert_eq!(Size::check(text.as_bytes(), |found| *found == size), Ok(()));
        assert_eq!(Size::check(text.as_bytes(), |_| false), Err(size));
        let braces = format!("[\"{}\"]", "{".repeat(MAX_OBJECTS + 1));
        assert!(parse("report", braces.as_bytes()).is_ok());
        let objects = format!("[{}{{}}]", "{},".repeat(MAX_OBJECTS));
        assert!(parse("report", objects.as_bytes()).is_err());
    }
}
