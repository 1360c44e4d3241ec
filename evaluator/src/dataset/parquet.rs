//! Apache Parquet: columns of strings are read, or those of choices, row group by row group.

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
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

/// Reads the strings of the columns.
pub fn rows(source: Source, fields: Fields<'_>, rows: &mut Rows) -> Result<()> {
    let (opened, _) = files::open(&source.path)?;
    let bytes = Bytes::from_owner(Mapped::new(&opened, &source.path)?);
    let file = SerializedFileReader::new(bytes).map_err(damaged)?;
    let metadata = file.metadata();
    let schema = metadata.file_metadata().schema();
    let any_type = |field: &str| fields.choices.is_some() && field != fields.text;
    let columns: Vec<_> =
        fields.names().map(|field| column(schema, field, any_type(field))).collect::<Result<_>>()?;
    let groups = metadata.row_groups().iter().flat_map(|group| group.columns());
    for chunk in groups {
        let name = chunk.column_path().parts().first().cloned().unwrap_or_default();
        let read = fields.names().any(|field| field == name);
        if read && !(0..=limits::TEXT_BYTES as i64).contains(&chunk.uncompressed_size()) {
            bail!(Input, "a row group of the column {name:?} has more than {} bytes", limits::TEXT_BYTES);
        }
    }
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

/// A record as a JSON object, in which a number is a whole one. A null of the prompt is a text without characters.
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

/// The column of a field: of strings, unless another type is allowed.
fn column(schema: &Type, field: &str, any_type: bool) -> Result<Arc<Type>> {
    let Some(column) = schema.get_fields().iter().find(|column| column.name() == field) else {
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).take(20).collect();
        return Err(super::table::missing(field).with_note(format!("the columns are: {}", names.join(", "))));
    };
    match any_type || is_text(column) {
        true => Ok(Arc::clone(column)),
        false => bail!(Input, "the column {field:?} does not contain strings"),
    }
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
