//! Apache Parquet: one or two columns of strings are read, row group by row group.

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field as Cell;
use parquet::schema::types::Type;
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
    let columns: Vec<_> = fields.names().map(|field| column(schema, field)).collect::<Result<_>>()?;
    let groups = metadata.row_groups().iter().flat_map(|group| group.columns());
    for chunk in groups {
        let name = chunk.column_path().string();
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

/// The column of a field.
fn column(schema: &Type, field: &str) -> Result<Arc<Type>> {
    let Some(column) = schema.get_fields().iter().find(|column| column.name() == field) else {
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).take(20).collect();
        return Err(super::table::missing(field).with_note(format!("the columns are: {}", names.join(", "))));
    };
    match is_text(column) {
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
