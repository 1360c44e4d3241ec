//! Rows with choices: a prompt, the choices, and which of them is right.

use std::collections::HashSet;
use std::sync::Arc;

use invarlock_evidence::format::choices::MAX_CHOICES;
use serde_json::{Map, Value};

use super::Row;
use super::table::missing;
use invarlock_error::{Error, Result, bail};

/// The fields of a row with choices, besides its prompt.
#[derive(Debug, Clone, Copy)]
pub struct ChoiceFields<'a> {
    /// The choices.
    pub choices: &'a str,
    /// The right one.
    pub answer: &'a str,
}

/// The choices of a row, and the position of the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// At least two different texts.
    pub choices: Arc<[String]>,
    /// The position of the right one.
    pub answer: usize,
}

/// The row of an object; `prompt` is the field with its prompt. A blank prompt gives a blank row.
pub(super) fn row(object: &Map<String, Value>, prompt: &str, fields: ChoiceFields<'_>) -> Result<Row> {
    let member = |field: &str| object.get(field).ok_or_else(|| missing(field));
    let Value::String(text) = member(prompt)? else { bail!(Input, "the field {prompt:?} is not a string") };
    if text.trim().is_empty() {
        return Ok(Row::default());
    }
    let (choices, keys) = listed(fields.choices, member(fields.choices)?)?;
    let answer = answer(fields.answer, member(fields.answer)?, &choices, &keys)?;
    Ok(Row { question: Some(Question { choices: choices.into(), answer }), ..Row::text(text) })
}

/// The choices of a field, and their keys if they have any.
fn listed(field: &str, value: &Value) -> Result<(Vec<String>, Vec<String>)> {
    let (choices, keys) = match value {
        Value::Array(_) => (strings(value), Some(Vec::new())),
        Value::Object(members) => {
            (members.get("text").and_then(strings), members.get("label").and_then(strings))
        }
        _ => (None, None),
    };
    let (Some(choices), Some(keys)) = (choices, keys) else {
        bail!(
            Input,
            "the field {field:?} is neither a list of strings nor an object with the lists of strings `text` and `label`"
        )
    };
    let count = choices.len();
    if !(2..=MAX_CHOICES).contains(&count) {
        bail!(Input, "the field {field:?} has {count} choices; supported: 2 to {MAX_CHOICES}");
    }
    if value.is_object() && keys.len() != count {
        bail!(Input, "the field {field:?} has {count} choices and {} labels", keys.len());
    }
    for (what, texts) in [("choice", &choices), ("label", &keys)] {
        if texts.iter().any(|text| text.trim().is_empty()) {
            bail!(Input, "the field {field:?} has a {what} without text");
        }
        let mut seen = HashSet::new();
        if let Some(twice) = texts.iter().find(|text| !seen.insert(*text)) {
            bail!(Input, "the field {field:?} has the {what} {twice:?} twice");
        }
    }
    Ok((choices, keys))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The position of the answer: a number counts from 0, a string is a key of a choice or, where there are no keys, its text.
fn answer(field: &str, value: &Value, choices: &[String], keys: &[String]) -> Result<usize> {
    let texts = if keys.is_empty() { choices } else { keys };
    let found = match value {
        Value::Number(number) => number
            .as_u64()
            .and_then(|place| usize::try_from(place).ok())
            .filter(|place| *place < choices.len()),
        Value::String(text) => texts.iter().position(|choice| choice == text),
        _ => bail!(Input, "the field {field:?} is neither a whole number nor a string"),
    };
    let what = if keys.is_empty() { "text of a choice" } else { "label of a choice" };
    found.ok_or_else(|| {
        Error::input(format!(
            "the field {field:?} is {value}, which is none of the {} choices",
            choices.len()
        ))
        .with_hint(format!("write the position of the right choice, counted from 0, or the exact {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Row> {
        let fields = ChoiceFields { choices: "choices", answer: "answer" };
        row(value.as_object().expect("an object"), "question", fields)
    }

    fn answered(choices: &Value, answer: &Value) -> Result<usize> {
        let row = read(&json!({"question": "q", "choices": choices, "answer": answer}))?;
        Ok(row.question.expect("a question").answer)
    }

    #[test]
    fn answers_are_positions_texts_or_keys() {
        let list = json!(["a", "b", "1"]);
        for (answer, place) in [(json!(1), 1), (json!("b"), 1), (json!("1"), 2)] {
            assert_eq!(answered(&list, &answer), Ok(place));
        }
        let keyed = json!({"text": ["x", "A"], "label": ["A", "B"]});
        for (answer, place) in [(json!("A"), 0), (json!("B"), 1), (json!(1), 1)] {
            assert_eq!(answered(&keyed, &answer), Ok(place));
        }
    }

    #[test]
    fn other_rows_are_refused_by_name() {
        let list = json!(["a", "b"]);
        for (choices, answer, word) in [
            (&list, json!(2), "\"answer\" is 2, which is none of the 2 choices"),
            (&list, json!(-1), "is -1"),
            (&list, json!(0.5), "is 0.5"),
            (&list, json!("c"), "\"answer\" is \"c\""),
            (&list, json!(true), "neither a whole number nor a string"),
            (&json!({"text": ["x", "y"], "label": ["A", "B"]}), json!("x"), "is \"x\""),
            (&json!({"text": ["x", "y"], "label": ["A"]}), json!("A"), "2 choices and 1 labels"),
            (&json!({"text": ["x", "y"]}), json!(0), "neither a list of strings nor an object"),
            (&json!("a, b"), json!(0), "neither a list of strings nor an object"),
            (&json!(["a", 1]), json!(0), "neither a list of strings nor an object"),
            (&json!(["a"]), json!(0), "has 1 choices; supported: 2 to 256"),
            (&json!(vec!["a"; 257]), json!(0), "has 257 choices"),
            (&json!(["a", "a"]), json!(0), "has the choice \"a\" twice"),
            (&json!(["a", " "]), json!(0), "has a choice without text"),
        ] {
            let error = answered(choices, &answer).expect_err(word);
            assert!(error.message().contains(word), "{error}");
        }
        let error = read(&json!({"question": "q", "choices": ["a", "b"]})).expect_err("no answer");
        assert!(error.message().contains("the field \"answer\" is missing"), "{error}");
        let error = read(&json!({"question": 1})).expect_err("no text");
        assert!(error.message().contains("\"question\" is not a string"), "{error}");
        assert_eq!(read(&json!({"question": " "})), Ok(Row::default()));
    }
}
