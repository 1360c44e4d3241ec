//! The JSON Schemas of what commands print with `--json`, for the test that compares them with `docs/schemas/output`.

use crate::output::{NamedSchema, schema};
use crate::{error, verbs};

/// The schema of every output, with the name of its file.
pub fn all() -> Vec<NamedSchema> {
    let mut schemas = verbs::schemas();
    schemas.push(schema::<error::ErrorOutput<'_>>("error-v1"));
    schemas
}
