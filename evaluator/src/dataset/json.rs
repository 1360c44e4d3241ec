//! JSON: an object in each line, or one array of objects.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::source::{RowLimit, Source, too_long};
use super::{Fields, Row, Rows};
use invarlock_error::{Context as _, Error, Result, bail};

/// Reads an object from each line.
pub fn lines(source: Source, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    source.lines(rows, |line| row_of_line(line, fields))
}

/// The row of a line; without text for a blank line.
fn row_of_line(line: &[u8], fields: Fields<'_>) -> Result<Row> {
    if line.trim_ascii().is_empty() {
        return Ok(Row::default());
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(row)) => row_of_object(row, fields),
        Ok(_) => bail!(Input, "not a JSON object"),
        Err(error) => Err(not_json(line, &error)),
    }
}

fn not_json(line: &[u8], error: &serde_json::Error) -> Error {
    let fault = match std::str::from_utf8(line) {
        Ok(_) => Error::input(format!("not JSON; the fault is at byte {} of the line", error.column())),
        Err(found) => {
            let at = found.valid_up_to() + 1;
            return Error::input(format!("not UTF-8 text; the fault is at byte {at} of the line"))
                .with_hint("convert the file to UTF-8");
        }
    };
    // Python's `json` writes them.
    match ["NaN", "Infinity"].iter().find(|name| {
        line.get(error.column().saturating_sub(1)..).is_some_and(|rest| rest.starts_with(name.as_bytes()))
    }) {
        Some(name) => fault.with_hint(format!("JSON has no {name}: write null, or leave the member out")),
        None => fault.with_hint("each line must be a JSON object, such as {\"text\": \"…\"}"),
    }
}

fn row_of_object(mut row: Map<String, Value>, fields: Fields<'_>) -> Result<Row> {
    if let Some(choices) = fields.choices {
        return super::choices::row(&row, fields.text, choices);
    }
    if fields.target.is_none()
        && let Some(Value::Array(messages)) = row.get(fields.text)
        && !messages.is_empty()
        && messages.iter().all(is_message)
    {
        return Ok(Row::conversation(messages));
    }
    let has_messages = row.get("messages").is_some_and(Value::is_array);
    fields.row(|field| match row.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(_) if fields.target.is_some() => bail!(Input, "the field {field:?} is not a string"),
        Some(_) => bail!(Input, "the field {field:?} is neither a string nor a conversation (a list of objects with `role` and `content`)"),
        None if has_messages => {
            Err(Error::input(format!("the field {field:?} is missing, but there are `messages`"))
                .with_hint("set `text_field: messages` in the preset: the tokenizer's chat template then makes texts of conversations"))
        }
        None => Err(super::table::missing(field)),
    })
}

fn is_message(message: &Value) -> bool {
    message.get("role").is_some_and(Value::is_string) && message.get("content").is_some()
}

/// Reads the objects of an array, until enough rows are there.
pub fn array(mut source: Source, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    let row_limit = source.row.clone();
    let mut reading =
        Reading { fields, rows, row_limit: &row_limit, number: 0, outcome: Ok(()), complete: false };
    let read = serde_json::Deserializer::from_reader(&mut source.reader).deserialize_seq(&mut reading);
    let Reading { number, outcome, complete, .. } = reading;
    outcome.with_context(|| format!("element {number}"))?;
    match read {
        Err(_) if !complete && row_limit.is_exceeded() => {
            Err(too_long()).with_context(|| format!("element {}", number + 1))
        }
        Err(error) if !complete => {
            bail!(Input, "not a JSON array: the fault is in line {}, column {}", error.line(), error.column())
        }
        _ => Ok(()),
    }
}

/// Takes the elements of an array one by one, so that only one is in memory.
struct Reading<'r> {
    fields: Fields<'r>,
    rows: &'r mut Rows,
    row_limit: &'r RowLimit,
    number: u64,
    outcome: Result<()>,
    /// Whether the rest is not needed.
    complete: bool,
}

impl<'de> Visitor<'de> for &mut Reading<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        loop {
            self.complete = self.rows.is_complete();
            if self.complete {
                return Err(A::Error::custom("enough rows"));
            }
            self.row_limit.start();
            let Some(element) = elements.next_element::<Value>()? else { return Ok(()) };
            self.number += 1;
            let row = match element {
                Value::Object(row) => row_of_object(row, self.fields),
                _ => Err(Error::input("not a JSON object")),
            };
            self.outcome = row.and_then(|row| self.rows.add(row));
            if self.outcome.is_err() {
                return Err(A::Error::custom("a wrong row"));
            }
        }
    }
}
