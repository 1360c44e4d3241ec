//! Apache Parquet: one column of strings is read, row group by row group.

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use parquet::schema::types::Type;
use std::sync::Arc;

use super::Rows;
use super::source::Source;
use crate::sys::Mapped;
use crate::{files, limits};
use invarlock_error::{Context as _, Error, Result, bail};

/// Reads the strings of a column.
pub fn rows(source: Source, field: &str, rows: &mut Rows) -> Result<()> {
    let (opened, _) = files::open(&source.path)?;
    let bytes = Bytes::from_owner(Mapped::new(&opened, &source.path)?);
    let file = SerializedFileReader::new(bytes).map_err(damaged)?;
    let metadata = file.metadata();
    let schema = metadata.file_metadata().schema();
    let Some(column) = schema.get_fields().iter().find(|column| column.name() == field) else {
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).take(20).collect();
        return Err(super::table::missing(field).with_note(format!("the columns are: {}", names.join(", "))));
    };
    if !is_text(column) {
        bail!(Input, "the column {field:?} does not contain strings");
    }
    let group = metadata.row_groups().iter().find(|group| {
        let sizes = group.columns().iter().filter(|chunk| chunk.column_path().string() == field);
        sizes
            .map(|chunk| chunk.uncompressed_size())
            .any(|size| !(0..=limits::TEXT_BYTES as i64).contains(&size))
    });
    if group.is_some() {
        bail!(Input, "a row group of the column {field:?} has more than {} bytes", limits::TEXT_BYTES);
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(vec![Arc::clone(column)]).build();
    let records = file.get_row_iter(Some(projection.map_err(damaged)?)).map_err(damaged)?;
    for (record, number) in records.zip(1u64..) {
        if rows.is_complete() {
            break;
        }
        let at = || format!("row {number}");
        let record = record.map_err(damaged).with_context(at)?;
        // A null is a row without text.
        let text = match record.get_column_iter().next() {
            Some((_, parquet::record::Field::Null)) | None => String::new(),
            Some(_) => record.get_string(0).map_err(damaged).with_context(at)?.clone(),
        };
        if text.len() > limits::LINE_BYTES {
            return Err(super::source::too_long()).with_context(at);
        }
        rows.add(text).with_context(at)?;
    }
    Ok(())
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
