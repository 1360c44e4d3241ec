//! Tolerant access to untrusted JSON: evidence that another machine wrote.
//!
//! A [`Node`] is a place in a document: the value there, if any, and the path to it. Looking up a member of something that is not an
//! object gives a node without a value, so that look-ups chain. There are two ways to read a node: `str()`, `u64()`, … give `None` for a
//! missing or unsuitable value; `require_str()`, `require_u64()`, … give an error with the path and what was expected:
//! `evaluation.report.json: metrics.ratio_ci[1]: expected a finite number, found a string`.
//!
//! Nothing is allocated until an error or a path is printed.

use serde_json::{Map, Value};
use std::fmt;

/// The value of a missing member.
static NULL: Value = Value::Null;

/// How many steps of a path are remembered; `at("a.b.c")` is one step.
const MAX_STEPS: usize = 8;

/// A place in an untrusted document.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    value: Option<&'a Value>,
    path: Path<'a>,
}

/// The path of a [`Node`]; printed as `context.sides.baseline.outputs[1].sha256`, behind the name of its document if that has one.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    document: &'a str,
    steps: [Step<'a>; MAX_STEPS],
    /// Steps taken; may exceed [`MAX_STEPS`].
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// A member, or several separated by dots.
    Name(&'a str),
    /// An element of an array.
    Index(usize),
}

/// A value of untrusted JSON is missing or is not of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct Unexpected {
    /// The document and the path in it.
    pub path: String,
    /// What was expected, with its article: `a string`.
    pub expected: &'static str,
    /// What is there, with its article; `nothing` for a missing value.
    pub found: &'static str,
}

impl<'a> Node<'a> {
    /// The whole of a document. `document` is in front of each printed path; it may be empty.
    pub fn root(document: &'a str, value: &'a Value) -> Self {
        let path = Path { document, steps: [Step::Index(0); MAX_STEPS], depth: 0 };
        Self { value: Some(value), path }
    }

    /// A part of a document, at `path` in it.
    pub fn part(path: &'a str, value: &'a Value) -> Self {
        let root = Self::root("", value);
        Self { path: root.path.then(Step::Name(path)), ..root }
    }

    /// The member `name`.
    pub fn get(self, name: &'a str) -> Self {
        let value = self.object().and_then(|object| object.get(name));
        Self { value, path: self.path.then(Step::Name(name)) }
    }

    /// The member at a path of names separated by dots.
    pub fn at(self, names: &'a str) -> Self {
        let value = self
            .value
            .and_then(|value| names.split('.').try_fold(value, |value, name| value.as_object()?.get(name)));
        Self { value, path: self.path.then(Step::Name(names)) }
    }

    /// The element `index` of an array.
    pub fn index(self, index: usize) -> Self {
        let value = self.array().and_then(|array| array.get(index));
        Self { value, path: self.path.then(Step::Index(index)) }
    }

    /// Each element of an array; none if this is not an array.
    pub fn elements(self) -> impl Iterator<Item = Node<'a>> {
        let array = self.array().unwrap_or_default();
        array
            .iter()
            .enumerate()
            .map(move |(index, value)| Node { value: Some(value), path: self.path.then(Step::Index(index)) })
    }

    /// Each member of an object with its name; none if this is not an object.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.object().into_iter().flatten().map(move |(name, value)| {
            (name.as_str(), Node { value: Some(value), path: self.path.then(Step::Name(name)) })
        })
    }

    /// The value; null if it is missing.
    pub fn value(self) -> &'a Value {
        self.value.unwrap_or(&NULL)
    }

    /// The path to this node.
    pub fn path(self) -> Path<'a> {
        self.path
    }

    /// Whether there is a value; null is one.
    pub fn exists(self) -> bool {
        self.value.is_some()
    }

    /// Whether the value is missing or null.
    pub fn is_null(self) -> bool {
        self.value().is_null()
    }

    /// A string.
    pub fn str(self) -> Option<&'a str> {
        self.value().as_str()
    }

    /// A number. Numbers of parsed JSON are finite.
    pub fn f64(self) -> Option<f64> {
        self.value().as_f64().filter(|number| number.is_finite())
    }

    /// An integer of 0 or more.
    pub fn u64(self) -> Option<u64> {
        self.value().as_u64()
    }

    /// True or false.
    pub fn bool(self) -> Option<bool> {
        self.value().as_bool()
    }

    /// The elements of an array.
    pub fn array(self) -> Option<&'a [Value]> {
        self.value().as_array().map(Vec::as_slice)
    }

    /// The members of an object.
    pub fn object(self) -> Option<&'a Map<String, Value>> {
        self.value().as_object()
    }

    /// A string, or an error with the path.
    pub fn require_str(self) -> Result<&'a str, Unexpected> {
        self.str().ok_or_else(|| self.unexpected("a string"))
    }

    /// A finite number, or an error with the path.
    pub fn require_f64(self) -> Result<f64, Unexpected> {
        self.f64().ok_or_else(|| self.unexpected("a finite number"))
    }

    /// An integer of 0 or more, or an error with the path.
    pub fn require_u64(self) -> Result<u64, Unexpected> {
        self.u64().ok_or_else(|| self.unexpected("an integer of 0 or more"))
    }

    /// True or false, or an error with the path.
    pub fn require_bool(self) -> Result<bool, Unexpected> {
        self.bool().ok_or_else(|| self.unexpected("true or false"))
    }

    /// The elements of an array, or an error with the path.
    pub fn require_array(self) -> Result<&'a [Value], Unexpected> {
        self.array().ok_or_else(|| self.unexpected("an array"))
    }

    /// The members of an object, or an error with the path.
    pub fn require_object(self) -> Result<&'a Map<String, Value>, Unexpected> {
        self.object().ok_or_else(|| self.unexpected("an object"))
    }

    /// The error for a value that is not what was `expected` ("a string").
    pub fn unexpected(self, expected: &'static str) -> Unexpected {
        let found = match self.value {
            None => "nothing",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "a boolean",
            Some(Value::Number(number)) if number.is_f64() => "a number",
            Some(Value::Number(_)) => "an integer",
            Some(Value::String(_)) => "a string",
            Some(Value::Array(_)) => "an array",
            Some(Value::Object(_)) => "an object",
        };
        Unexpected { path: self.path.to_string(), expected, found }
    }
}

/// As its value, `null` if it is missing: for messages.
impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.value())
    }
}

/// Values are compared, paths are not.
impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl<T> PartialEq<T> for Node<'_>
where
    Value: PartialEq<T>,
{
    fn eq(&self, other: &T) -> bool {
        self.value() == other
    }
}

impl<'a> Path<'a> {
    fn then(mut self, step: Step<'a>) -> Self {
        if let Some(free) = self.steps.get_mut(self.depth) {
            *free = step;
        }
        self.depth += 1;
        self
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.document)?;
        if !self.document.is_empty() && self.depth > 0 {
            f.write_str(": ")?;
        }
        for (position, step) in self.steps.iter().take(self.depth).enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) if position == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
            }
        }
        if self.depth > MAX_STEPS {
            f.write_str(".…")?;
        }
        Ok(())
    }
}

/// A value short enough for a message.
#[cfg(feature = "verify")]
pub(crate) fn brief(value: &Value) -> String {
    if value.is_null() {
        return "missing".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "metrics": {"ratio_ci": [1.0, "high"], "reps": 800, "ok": true, "none": null},
            "name": "gpt2",
        })
    }

    #[test]
    fn reads_members_and_elements() {
        let value = document();
        let report = Node::root("report.json", &value);
        assert_eq!(report.get("name").str(), Some("gpt2"));
        assert_eq!(report.at("metrics.reps").u64(), Some(800));
        assert_eq!(report.at("metrics.ratio_ci").index(0).f64(), Some(1.0));
        assert_eq!(report.get("metrics").get("ok").bool(), Some(true));
        assert_eq!(report.at("metrics.ratio_ci").array().map(<[Value]>::len), Some(2));
        assert_eq!(report.get("metrics").object().map(Map::len), Some(4));
        assert_eq!(report.at("metrics.reps"), json!(800));
    }

    #[test]
    fn missing_and_unsuitable_values_are_none() {
        let value = document();
        let report = Node::root("report.json", &value);
        for node in [report.at("a.b.c"), report.get("name").get("x"), report.get("name").index(3)] {
            assert!(node.is_null());
            assert_eq!(node.str(), None);
            assert_eq!(node.f64(), None);
            assert_eq!(node.array(), None);
            assert_eq!(node.elements().count() + node.members().count(), 0);
        }
        assert!(report.at("metrics.none").is_null());
        assert!(report.at("metrics.none").exists());
        assert!(!report.at("metrics.other").exists());
    }

    #[test]
    fn errors_name_path_and_expectation() {
        let value = document();
        let report = Node::root("evaluation.report.json", &value);
        let text = |error: Unexpected| error.to_string();
        assert_eq!(
            report.at("metrics.ratio_ci").index(1).require_f64().map_err(text),
            Err("evaluation.report.json: metrics.ratio_ci[1]: expected a finite number, found a string"
                .to_owned())
        );
        assert_eq!(
            report.get("metrics").get("x").require_str().map_err(text),
            Err("evaluation.report.json: metrics.x: expected a string, found nothing".to_owned())
        );
        assert_eq!(
            report.require_array().map_err(text),
            Err("evaluation.report.json: expected an array, found an object".to_owned())
        );
        assert_eq!(
            report.at("metrics.none").require_bool().map_err(text),
            Err("evaluation.report.json: metrics.none: expected true or false, found null".to_owned())
        );
        assert_eq!(
            report.get("name").require_object().map_err(text),
            Err("evaluation.report.json: name: expected an object, found a string".to_owned())
        );
        assert_eq!(
            report.at("metrics.ratio_ci").index(0).require_u64().map_err(text),
            Err("evaluation.report.json: metrics.ratio_ci[0]: expected an integer of 0 or more, found a number"
                .to_owned())
        );
    }

    #[test]
    fn iteration_keeps_paths() {
        let value = document();
        let metrics = Node::root("", &value).get("metrics");
        let paths: Vec<String> = metrics.members().map(|(_, member)| member.path().to_string()).collect();
        assert!(paths.contains(&"metrics.reps".to_owned()), "{paths:?}");
        let last = metrics.get("ratio_ci").elements().last().map(|element| element.path().to_string());
        assert_eq!(last.as_deref(), Some("metrics.ratio_ci[1]"));
    }

    #[test]
    fn part_of_a_document_keeps_its_path() {
        let value = document();
        let part = Node::part("context.sides.baseline", &value);
        assert_eq!(part.at("metrics.reps").path().to_string(), "context.sides.baseline.metrics.reps");
    }

    #[test]
    fn path_deeper_than_remembered_is_cut() {
        let value = json!([[[[[[[[[[1]]]]]]]]]]);
        let deep = (0..10).fold(Node::root("", &value), |node, _| node.index(0));
        assert_eq!(deep.u64(), Some(1));
        assert_eq!(deep.path().to_string(), "[0][0][0][0][0][0][0][0].…");
    }
}
