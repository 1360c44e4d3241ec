//! Published JSON Schemas, compared with those of the types. The tests of the launcher use this file, too.

use serde_json::Value;
use std::path::Path;

/// Compares the files of a folder, `NAME.schema.json`, with these schemas. `UPDATE_GOLDEN=1` writes them again. The folder contains nothing
/// else but `others`.
pub fn check(folder: &Path, schemas: Vec<(&str, Value)>, others: &[&str]) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
    for (name, schema) in schemas {
        let file = format!("{name}.schema.json");
        let path = folder.join(&file);
        // Links of the documentation of the types.
        let text = format!("{schema:#}\n").replace("[`", "`").replace("`]", "`");
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == text, "{} is not the schema of the type; set UPDATE_GOLDEN=1", path.display());
        names.push(file);
    }
    let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let unknown: Vec<_> = found.filter(|name| !names.iter().any(|known| name == known.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
