//! Tables of text: CSV, TSV, and files with a text in each line.

use super::source::{Source, too_long};
use super::{Fields, Row, Rows};
use invarlock_error::{Context as _, Error, Result, bail};

/// The error for a row without the field.
pub(super) fn missing(field: &str) -> Error {
    Error::input(format!("the field {field:?} is missing")).with_hint(
        "rename the field, or name it in a preset (dataset: text_field: NAME; see docs/evaluate.md), or fix the row",
    )
}

/// Reads the rows of a table, whose first row names the columns.
pub fn rows(source: Source, delimiter: u8, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    if fields.choices.is_some() {
        bail!(Input, "a table has no lists, so it has no choices; use JSON lines, a JSON array or Parquet");
    }
    let Source { reader, row: limit, .. } = source;
    let mut table = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let wrong = |error: csv::Error| match limit.is_exceeded() {
        true => too_long(),
        false => Error::input(format!("not a table with one number of columns: {error}"))
            .with_hint("fields with line ends or delimiters must be in double quotes"),
    };
    let header = table.headers().map_err(wrong).context("row 1")?;
    let position = |field: &str| header.iter().position(|name| name == field);
    if let Some(field) = fields.names().find(|field| position(field).is_none()) {
        return Err(missing(field)).context("row 1, which names the columns");
    }
    let (text, target) = (position(fields.text), fields.target.and_then(position));
    let mut record = csv::StringRecord::new();
    for number in 2u64.. {
        if rows.is_complete() {
            break;
        }
        limit.start();
        let at = || format!("row {number}");
        if !table.read_record(&mut record).map_err(wrong).with_context(at)? {
            break;
        }
        let value = |column: usize| record.get(column).unwrap_or_default().to_owned();
        rows.add(Row {
            text: text.map(value).unwrap_or_default(),
            target: target.map(value),
            ..Row::default()
        })
        .with_context(at)?;
    }
    Ok(())
}

/// Reads a text from each line.
pub fn lines(source: Source, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    if fields.choices.is_some() {
        bail!(Input, "lines of text have no choices; use JSON lines, a JSON array or Parquet");
    }
    if fields.target.is_some() {
        bail!(Input, "lines of text have no pairs and no labels; use JSON lines, CSV, TSV or Parquet");
    }
    source.lines(rows, |line| match std::str::from_utf8(line) {
        Ok(text) => Ok(Row::text(text)),
        Err(_) => bail!(Input, "not UTF-8 text"),
    })
}
