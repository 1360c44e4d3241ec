//! The table of model types in `docs/formats.md` follows from [`FAMILIES`], [`WRAPPERS`] and the reference cases; only the text about each type
//! is written by hand. `UPDATE_GOLDEN=1` writes the table again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{FAMILIES, WRAPPERS};
use serde_json::Value;

const FIRST: &str = "| model type | objective | what is special | reference cases |\n|---|---|---|---|\n";

/// The text about a new type.
const TO_WRITE: &str = "(what is special)";

/// What a type's cases say.
#[derive(Default)]
struct Cases {
    names: Vec<String>,
    kinds: Vec<String>,
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The cases of each `model_type`.
fn cases() -> BTreeMap<String, Cases> {
    let mut found: BTreeMap<String, Cases> = BTreeMap::new();
    for entry in fs::read_dir(path("tests/fixtures/families")).expect("the fixtures").flatten() {
        let json = |file: &str| -> Value {
            serde_json::from_slice(&fs::read(entry.path().join(file)).expect("readable")).expect("JSON")
        };
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let cases = found.entry(text(&json("config.json")["model_type"])).or_default();
        cases.names.push(entry.file_name().to_string_lossy().into_owned());
        cases.kinds.push(text(&json("expected.json")["kind"]));
    }
    found
}

/// The table, with what `old` says about each type.
fn table(old: &str) -> String {
    let cases = cases();
    let special = |model_type: &str| {
        let row = old.lines().find(|line| line.starts_with(&format!("| `{model_type}` |")));
        row.and_then(|row| row.split(" | ").nth(2)).unwrap_or(TO_WRITE)
    };
    let row = |model_type: &str| {
        let Cases { mut names, mut kinds } = cases
            .get(model_type)
            .map(|c| Cases { names: c.names.clone(), kinds: c.kinds.clone() })
            .unwrap_or_default();
        names.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 1, "the cases of {model_type} have the kinds {kinds:?}");
        let objective = if kinds[0] == "seq2seq" { "sequence to sequence" } else { &kinds[0] };
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("| `{model_type}` | {objective} | {} | {} |\n", special(model_type), names.join(", "))
    };
    let types = FAMILIES.iter().map(|(name, _)| *name).chain(WRAPPERS.iter().copied());
    FIRST.to_owned() + &types.map(row).collect::<String>()
}

#[test]
fn the_documented_model_types_are_the_supported_ones() {
    let file = path("../docs/formats.md");
    let text = fs::read_to_string(&file).expect("the document");
    let (before, rest) = text.split_once(FIRST).expect("the table");
    let end = rest.find("\n\n").expect("the end of the table") + 1;
    let table = table(&rest[..end]);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, format!("{before}{table}{}", &rest[end..])).expect("written");
    } else {
        assert!(!text.contains(TO_WRITE), "replace {TO_WRITE} in docs/formats.md");
        let same = format!("{FIRST}{}", &rest[..end]) == table;
        assert!(
            same,
            "the table of model types in docs/formats.md is not this one; set UPDATE_GOLDEN=1\n{table}"
        );
    }
}
