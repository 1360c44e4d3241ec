//! Paths in settings: each is replaced in the text, which otherwise keeps every byte, because another YAML parser reads it.

use crate::error::{Error, Result};
use serde_norway::Value;
use std::collections::BTreeMap;

/// A step to a value in a document: the key of a mapping, or the place in a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(&'static str),
    Place(usize),
}

/// The value at a place of a document.
pub fn at<'a>(document: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.as_mapping_mut()?.get_mut(*key),
        Step::Place(place) => value.as_sequence_mut()?.get_mut(*place),
    })
}

/// The text with these paths replaced. `expected` is the document with the same values replaced: if the text then means something else, a path
/// was written in a way that is not recognised.
pub fn replace(text: &str, replaced: &BTreeMap<String, String>, expected: &Value) -> Result<String> {
    let mut text = text.to_owned();
    // A longer path can contain a shorter one.
    let mut paths: Vec<_> = replaced.iter().collect();
    paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    for (path, inside) in paths {
        text = replace_one(&text, path, inside);
    }
    match serde_norway::from_str::<Value>(&text) {
        Ok(found) if found == *expected => Ok(text),
        _ => {
            let names: Vec<&str> = replaced.keys().map(String::as_str).collect();
            Err(Error::input(format!("the paths {names:?} cannot be replaced by those in the container"))
                .with_hint("write each path on one line, in quotes or without, and use it for nothing else"))
        }
    }
}

fn replace_one(text: &str, path: &str, inside: &str) -> String {
    let of_path = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '~');
    let (mut result, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find(path) {
        let (before, after) = (&rest[..start], &rest[start + path.len()..]);
        let alone = !before.ends_with(of_path) && !after.starts_with(of_path);
        result.push_str(before);
        result.push_str(if alone { inside } else { path });
        rest = after;
    }
    result.push_str(rest);
    result
}

/// Every string of a document with the name of its place.
pub fn strings(value: &Value) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    collect(value, &mut String::new(), &mut found);
    found
}

fn collect<'a>(value: &'a Value, place: &mut String, found: &mut Vec<(String, &'a str)>) {
    let mut within = |name: &str, value: &'a Value, found: &mut Vec<(String, &'a str)>| {
        let length = place.len();
        if length > 0 {
            place.push('.');
        }
        place.push_str(name);
        collect(value, place, found);
        place.truncate(length);
    };
    match value {
        Value::String(text) => found.push((place.clone(), text)),
        Value::Sequence(items) => {
            items.iter().enumerate().for_each(|(i, item)| within(&i.to_string(), item, found));
        }
        Value::Mapping(members) => {
            members.iter().for_each(|(key, item)| within(key.as_str().unwrap_or("?"), item, found));
        }
        Value::Tagged(tagged) => within("", &tagged.value, found),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn replaced(text: &str, path: &str) -> Result<String> {
        let mut expected: Value = serde_norway::from_str(text).unwrap();
        *at(&mut expected, &[Step::Key("dataset"), Step::Key("file")]).unwrap() = "/in/x.jsonl".into();
        replace(text, &BTreeMap::from([(path.to_owned(), "/in/x.jsonl".to_owned())]), &expected)
    }

    #[test]
    fn only_the_path_is_replaced() {
        for (text, expected) in [
            (
                "dataset:\n  file: a b.jsonl # a b.jsonl\n  on: yes\n",
                "dataset:\n  file: /in/x.jsonl # /in/x.jsonl\n  on: yes\n",
            ),
            ("{dataset: {file: 'a b.jsonl', n: 1e-3}}", "{dataset: {file: '/in/x.jsonl', n: 1e-3}}"),
            (
                "dataset: {file: \"a b.jsonl\", other: /a b.jsonl}",
                "dataset: {file: \"/in/x.jsonl\", other: /a b.jsonl}",
            ),
        ] {
            assert_eq!(replaced(text, "a b.jsonl").unwrap(), expected);
        }
    }

    #[test]
    fn a_path_that_cannot_be_replaced_is_an_error() {
        for (text, path) in [
            // An escape; the same text at another place; two lines.
            ("dataset: {file: \"a\\u002ejsonl\"}", "a.jsonl"),
            ("dataset: {file: a, split: a}", "a"),
            ("dataset:\n  file: a\n    b\n", "a b"),
        ] {
            let error = replaced(text, path).unwrap_err();
            assert!(error.message().contains("cannot be replaced"), "{error}");
        }
    }

    #[test]
    fn strings_have_the_names_of_their_places() {
        let value: Value = serde_norway::from_str("a: {b: [x, {c: y}]}\nd: 1").unwrap();
        assert_eq!(strings(&value), [("a.b.0".to_owned(), "x"), ("a.b.1.c".to_owned(), "y")]);
    }
}
