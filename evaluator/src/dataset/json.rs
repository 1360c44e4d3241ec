//! JSON: an object in each line, or one array of objects.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::source::{RowLimit, Source, too_long};
use super::{Found, Rows};
use invarlock_error::{Context as _, Error, Result, bail};

/// Reads an object from each line.
pub fn lines(source: Source, field: &str, rows: &mut Rows) -> Result<()> {
    source.lines(rows, |line| text_of_line(line, field))
}

/// The text of a line; empty for a blank line.
fn text_of_line(line: &[u8], field: &str) -> Result<Found> {
    if line.trim_ascii().is_empty() {
        return Ok(Found::Text(String::new()));
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(row)) => text_of_row(row, field),
        Ok(_) => bail!(Input, "not a JSON object"),
        Err(error) => {
            Err(Error::input(format!("not JSON; the fault is at byte {} of the line", error.column()))
                .with_hint("each line must be a JSON object, such as {\"text\": \"…\"}"))
        }
    }
}

fn text_of_row(mut row: Map<String, Value>, field: &str) -> Result<Found> {
    match row.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(Found::Text(text)),
        Some(Value::Array(messages)) if !messages.is_empty() && messages.iter().all(is_message) => {
            Ok(Found::Conversation(Value::Array(messages).to_string()))
        }
        Some(_) => bail!(Input, "the field {field:?} is neither a string nor a conversation (a list of objects with `role` and `content`)"),
        None if row.get("messages").is_some_and(Value::is_array) => {
            Err(Error::input(format!("the field {field:?} is missing, but there are `messages`"))
                .with_hint("set `text_field: messages` in the preset: the tokenizer's chat template then makes texts of conversations"))
        }
        None => Err(super::table::missing(field)),
    }
}

fn is_message(message: &Value) -> bool {
    message.get("role").is_some_and(Value::is_string) && message.get("content").is_some()
}

/// Reads the objects of an array, until enough rows are there.
pub fn array(mut source: Source, field: &str, rows: &mut Rows) -> Result<()> {
    let row_limit = source.row.clone();
    let mut reading =
        Reading { field, rows, row_limit: &row_limit, number: 0, outcome: Ok(()), complete: false };
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
    field: &'r str,
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
            let text = match element {
                Value::Object(row) => text_of_row(row, self.field),
                _ => Err(Error::input("not a JSON object")),
            };
            self.outcome = text.and_then(|found| self.rows.add_found(found));
            if self.outcome.is_err() {
                return Err(A::Error::custom("a wrong row"));
            }
        }
    }
}
