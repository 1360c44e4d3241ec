//! Reading JSON that somebody else wrote.
//!
//! Strict: a repeated member is an error (two readers could see two reports), as are NaN, infinities, a byte order
//! mark, nesting deeper than 128 and anything after the value.

use crate::run_report::RunReport;
use invarlock_error::Error;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

/// Objects a document may have; evidence has some hundreds.
const MAX_OBJECTS: usize = 100_000;
/// Members a document may have; two for each token of the largest report.
const MAX_MEMBERS: usize = 10 << 20;

/// Parses strictly; `what` names the document in the error.
pub fn parse(what: &str, bytes: &[u8]) -> Result<Value, Error> {
    // A parsed member takes up to a hundred times the memory of its text.
    let objects = bytes.iter().filter(|byte| **byte == b'{').count();
    let members = bytes.iter().filter(|byte| **byte == b',').count();
    if objects > MAX_OBJECTS || members > MAX_MEMBERS {
        return Err(Error::input(format!(
            "{what} has {objects} objects and {members} members; at most {MAX_OBJECTS} and {MAX_MEMBERS} are read"
        )));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let length = Cell::new(0);
    let value = Strict(&length).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|why| Error::input(format!("{what} is not strict JSON: {why}")))
}

/// Parses a run report strictly; `what` names it in the error.
pub fn parse_run_report(what: &str, bytes: &[u8]) -> Result<RunReport, Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let unique = Unique.deserialize(&mut reader).and_then(|()| reader.end());
    unique.map_err(|why| Error::input(format!("{what} is not strict JSON: {why}")))?;
    serde_json::from_slice(bytes).map_err(|why| Error::input(format!("{what} is not a run report: {why}")))
}

/// Builds a [`Value`] and refuses repeated members.
///
/// It remembers the length of the array read last: lists of windows are lists of equally long lists. A document cannot make it
/// reserve more than twice what the document holds.
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
            if map.contains_key(&name) {
                return Err(repeated(&name));
            }
            let member = members.next_value_seed(self)?;
            map.insert(name, member);
        }
        Ok(Value::Object(map))
    }
}

/// Only looks for repeated members; builds nothing.
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
                return Err(repeated(&name));
            }
            names.insert(name);
        }
        Ok(())
    }
}

fn repeated<E: serde::de::Error>(name: &str) -> E {
    let shown: String = name.chars().take(64).collect();
    E::custom(format_args!("the member {shown:?} is given twice"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_json_reads_as_serde_reads_it() {
        let text = r#"{"a": [1, -2, 2.5, 1e300, true, null, "xé"], "b": {}}"#;
        assert_eq!(parse("it", text.as_bytes()), Ok(serde_json::from_str(text).expect("JSON")));
        assert_eq!(parse("it", b"18446744073709551616"), Ok(json!(18446744073709551616.0)));
    }

    #[test]
    fn what_is_not_strict_is_refused() {
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
        assert!(parse("it", "[".repeat(100_000).as_bytes()).is_err());
        assert!(parse("it", &[0xff, 0xfe]).is_err());
        assert!(parse_run_report("it", br#"{"a": {"b": 1, "b": 1}}"#).is_err());
    }
}
