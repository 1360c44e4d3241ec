//! Apache Parquet: columns of strings are read, or those of choices, row group by row group.

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field as Cell;
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::sync::Arc;

use super::source::Source;
use super::{Fields, Rows};
use crate::sys::Mapped;
use crate::{files, limits};
use invarlock_error::{Context as _, Error, Result, bail};

/// The most elements of the lists of a row group: 16,384 rows with 256 choices.
const MAX_ELEMENTS: usize = 1 << 22;

/// Reads the strings of the columns.
pub fn rows(source: Source, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    let (opened, _) = files::open(&source.path)?;
    let bytes = Bytes::from_owner(Mapped::new(&opened, &source.path)?);
    let file = SerializedFileReader::new(bytes).map_err(damaged)?;
    let metadata = file.metadata();
    let schema = metadata.file_metadata().schema();
    let is_choices = |field: &str| fields.choices.is_some_and(|choices| field == choices.choices);
    let is_answer = |field: &str| fields.choices.is_some_and(|choices| field == choices.answer);
    let kind = |field: &str| match () {
        () if is_choices(field) => Kind::Choices,
        () if is_answer(field) => Kind::Answer,
        () => Kind::Text,
    };
    let columns: Vec<_> =
        fields.names().map(|field| column(schema, field, kind(field))).collect::<Result<_>>()?;
    let groups = metadata.row_groups().iter().flat_map(|group| group.columns());
    for chunk in groups {
        let name = chunk.column_path().parts().first().cloned().unwrap_or_default();
        let read = fields.names().any(|field| field == name);
        if read && !(0..=limits::TEXT_BYTES as i64).contains(&chunk.uncompressed_size()) {
            bail!(Input, "a row group of the column {name:?} has more than {} bytes", limits::TEXT_BYTES);
        }
    }
    check_elements(&file, |name| is_choices(name))?;
    let projection = Type::group_type_builder(schema.name()).with_fields(columns).build();
    let records = file.get_row_iter(Some(projection.map_err(damaged)?)).map_err(damaged)?;
    for (record, number) in records.zip(1u64..) {
        if rows.is_complete() {
            break;
        }
        let at = || format!("row {number}");
        let record = record.map_err(damaged).with_context(at)?;
        if let Some(choices) = fields.choices {
            let row = object(&record).and_then(|object| super::choices::row(&object, fields.text, choices));
            row.and_then(|row| rows.add(row)).with_context(at)?;
            continue;
        }
        let row = fields.row(|field| match record.get_column_iter().find(|(name, _)| *name == field) {
            Some((_, Cell::Str(text))) if text.len() > limits::LINE_BYTES => Err(super::source::too_long()),
            Some((_, Cell::Str(text))) => Ok(text.clone()),
            // A null is a row without text.
            Some((_, Cell::Null)) | None => Ok(String::new()),
            Some(_) => bail!(Input, "the column {field:?} does not contain strings"),
        });
        row.and_then(|row| rows.add(row)).with_context(at)?;
    }
    Ok(())
}

/// Fails where a row group has more elements of lists than its rows can need: a record is read whole, and a few bytes can stand for billions.
fn check_elements(file: &SerializedFileReader<Bytes>, is_list: impl Fn(&str) -> bool) -> Result<()> {
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(damaged)?;
        for (index, column) in group.metadata().columns().iter().enumerate() {
            if !column.column_path().parts().first().is_some_and(|name| is_list(name)) {
                continue;
            }
            let mut pages = group.get_column_page_reader(index).map_err(damaged)?;
            let mut elements = 0usize;
            while let Some(page) = pages.peek_next_page().map_err(damaged)? {
                // A page of the dictionary has none.
                elements = elements.saturating_add(page.num_levels.unwrap_or(0));
                if elements > MAX_ELEMENTS {
                    bail!(Input, "a row group of the choices has more than {MAX_ELEMENTS} elements");
                }
                pages.skip_next_page().map_err(damaged)?;
            }
        }
    }
    Ok(())
}

/// A record as a JSON object, in which a number is a whole one.
fn object(record: &parquet::record::Row) -> Result<Map<String, Value>> {
    let mut bytes = 0;
    let members = record.get_column_iter();
    let members = members.map(|(name, cell)| Ok((name.clone(), json(cell, &mut bytes)?)));
    members.collect()
}

/// A cell as JSON, which is as long as a line may be.
fn json(cell: &Cell, bytes: &mut usize) -> Result<Value> {
    Ok(match cell {
        Cell::Str(text) => {
            *bytes += text.len();
            if *bytes > limits::LINE_BYTES {
                return Err(super::source::too_long());
            }
            text.as_str().into()
        }
        Cell::Byte(number) => (*number).into(),
        Cell::Short(number) => (*number).into(),
        Cell::Int(number) => (*number).into(),
        Cell::Long(number) => (*number).into(),
        Cell::UByte(number) => (*number).into(),
        Cell::UShort(number) => (*number).into(),
        Cell::UInt(number) => (*number).into(),
        Cell::ULong(number) => (*number).into(),
        Cell::ListInternal(list) => {
            list.elements().iter().map(|cell| json(cell, bytes)).collect::<Result<_>>()?
        }
        Cell::Group(row) => {
            let members = row.get_column_iter();
            let members = members.map(|(name, cell)| Ok((name.clone(), json(cell, bytes)?)));
            Value::Object(members.collect::<Result<_>>()?)
        }
        _ => Value::Null,
    })
}

/// What a column contains.
#[derive(Clone, Copy)]
enum Kind {
    /// Strings.
    Text,
    /// Strings or whole numbers.
    Answer,
    /// Lists of strings, or two of them in a group: `text` and `label`.
    Choices,
}

impl Kind {
    fn fits(self, column: &Type) -> bool {
        match self {
            Self::Text => is_text(column),
            Self::Answer => is_text(column) || is_whole(column),
            Self::Choices if is_list(column) => true,
            Self::Choices => {
                let lists = column.is_group() && !is_repeated(column) && !column.get_fields().is_empty();
                lists && column.get_fields().iter().all(|field| is_list(field))
            }
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Text => "strings",
            Self::Answer => "strings or whole numbers",
            Self::Choices => "lists of strings, or groups of the lists `text` and `label`",
        }
    }
}

/// The column of a field.
fn column(schema: &Type, field: &str, kind: Kind) -> Result<Arc<Type>> {
    let Some(column) = schema.get_fields().iter().find(|column| column.name() == field) else {
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).take(20).collect();
        return Err(super::table::missing(field).with_note(format!("the columns are: {}", names.join(", "))));
    };
    match kind.fits(column) {
        true => Ok(Arc::clone(column)),
        false => bail!(Input, "the column {field:?} does not contain {}", kind.describe()),
    }
}

/// A list as the specification of Parquet writes it, with three levels: the reader panics at some others.
fn is_list(column: &Type) -> bool {
    let only = |group: &Type| match group.is_group() && group.get_fields().len() == 1 {
        true => group.get_fields().first().cloned(),
        false => None,
    };
    let marked = column.get_basic_info().converted_type() == ConvertedType::LIST
        || column.get_basic_info().logical_type_ref() == Some(&LogicalType::List);
    let elements = only(column).filter(|elements| is_repeated(elements));
    let element = elements.and_then(|elements| only(&elements));
    marked
        && !is_repeated(column)
        && element.is_some_and(|element| is_text(&element) && !is_repeated(&element))
}

fn is_repeated(column: &Type) -> bool {
    let info = column.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

fn is_whole(column: &Type) -> bool {
    column.is_primitive() && matches!(column.get_physical_type(), PhysicalType::INT32 | PhysicalType::INT64)
}

fn is_text(column: &Type) -> bool {
    let info = column.get_basic_info();
    column.is_primitive()
        && column.get_physical_type() == PhysicalType::BYTE_ARRAY
        && (info.converted_type() == ConvertedType::UTF8
            || info.logical_type_ref() == Some(&LogicalType::String))
}

fn damaged(error: parquet::errors::ParquetError) -> Error {
    Error::input(format!("not a Parquet file that can be read: {error}"))
}
