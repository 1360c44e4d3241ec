//! The JSON Schemas in `docs/schemas/output` are those of the types. `UPDATE_GOLDEN=1` writes them again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn the_published_schemas_are_those_of_the_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/output");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names = Vec::new();
    for (name, schema) in invarlock_launcher::schemas::all() {
        let path = folder.join(format!("{name}.schema.json"));
        // Links of the documentation of the types.
        let text = format!("{schema:#}\n").replace("[`", "`").replace("`]", "`");
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == text, "{} is not the schema of the type; set UPDATE_GOLDEN=1", path.display());
        names.push(path.file_name().unwrap().to_owned());
    }
    let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let unknown: Vec<_> = found.filter(|name| !names.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
