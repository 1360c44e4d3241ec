//! The JSON Schemas in `docs/schemas/output` are those of the types. `UPDATE_GOLDEN=1` writes them again.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../evidence/tests/common/published.rs"]
mod published;

use std::path::Path;

#[test]
fn the_published_schemas_are_those_of_the_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/output");
    published::check(&folder, invarlock_launcher::schemas::all(), &[]);
}
