//! Which files make a dataset, and what they are called in the container.

use crate::error::{Context as _, Error, Result};
use crate::hub;
use std::path::{Path, PathBuf};

/// Formats of files, by the ends of their names. The evaluator decides between formats of text by these.
const FORMATS: [&str; 7] = ["jsonl", "json", "csv", "tsv", "txt", "raw", "parquet"];
/// Compressions, by the ends of names.
const COMPRESSIONS: [&str; 2] = ["gz", "zst"];
/// Names of splits with which files of datasets begin.
const SPLITS: [&str; 5] = ["train", "validation", "valid", "dev", "test"];
/// The most files of a directory.
const MAX_FILES: usize = 100_000;

/// The name of the i-th file in the container. A file without a known ending has JSON in each line.
pub fn name_inside(i: usize, path: &Path) -> String {
    match ending(path) {
        Some(ending) => format!("{i}.{ending}"),
        None => format!("{i}.jsonl"),
    }
}

/// The format at the end of a name, and the compression after it.
fn ending(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let compression = COMPRESSIONS.iter().find(|end| name.ends_with(&format!(".{end}")));
    let plain = compression.map_or(name.as_str(), |end| &name[..name.len() - end.len() - 1]);
    let format = FORMATS.iter().find(|end| plain.ends_with(&format!(".{end}")))?;
    Some([Some(*format), compression.copied()].into_iter().flatten().collect::<Vec<_>>().join("."))
}

/// A file as it is. For a directory, the files in it or in its directory `data`, sorted by name: all `*.jsonl` files or, where there is
/// none, the files of the split in another format, as in the dataset folders of Hugging Face.
pub fn expand(path: &Path, split: &str) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = list(path)?;
    if files.is_empty() {
        files = list(&path.join("data")).unwrap_or_default();
    }
    let json_lines = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "jsonl");
    let all_lines: Vec<PathBuf> = files.iter().filter(json_lines).cloned().collect();
    if !all_lines.is_empty() {
        return Ok(all_lines);
    }
    if files.is_empty() {
        return Err(Error::input(format!("{} contains no dataset file", path.display())))
            .hint(format!("supported: {}", FORMATS.map(|end| format!("*.{end}")).join(", ")));
    }
    of_split(path, files, split)
}

/// The files of a split of a dataset in the Hugging Face cache. `name` is `ORG/NAME` or `ORG/NAME@REVISION`; `config` names a
/// configuration, whose files are in a directory of that name.
pub fn in_cache(name: &str, config: Option<&str>, split: &str) -> Result<Vec<PathBuf>> {
    let (_, snapshot) = hub::dataset(name)?;
    let has_files = |dir: &Path| list(dir).is_ok_and(|files| !files.is_empty());
    let mut configs: Vec<String> = std::fs::read_dir(&snapshot)
        .into_iter()
        .flatten()
        .take(MAX_FILES)
        .flatten()
        .filter(|entry| has_files(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "data")
        .collect();
    configs.sort();
    let with_hint = |why: String| {
        let list = if configs.is_empty() { "none".to_owned() } else { configs.join(", ") };
        Err(Error::input(format!("dataset `hf:{name}`: {why}")))
            .hint(format!("set config_name in a preset; configurations of the snapshot: {list}"))
    };
    match config {
        Some(config) if configs.iter().any(|known| known == config) => expand(&snapshot.join(config), split),
        Some("default") => expand(&snapshot, split),
        Some(config) => with_hint(format!("the snapshot has no configuration {config:?}")),
        None if has_files(&snapshot) || has_files(&snapshot.join("data")) => expand(&snapshot, split),
        None => match configs.as_slice() {
            [only] => expand(&snapshot.join(only), split),
            _ => with_hint("it has more than one configuration, or none".to_owned()),
        },
    }
}

/// The files of a split of wikitext-2, as its present and its former name have it.
pub fn wikitext2(split: &str) -> Result<Vec<PathBuf>> {
    let [present, former] =
        ["Salesforce/wikitext", "wikitext"].map(|name| in_cache(name, Some("wikitext-2-raw-v1"), split));
    former.or(present)
}

/// The files whose names begin with the split, or all where no name begins with one.
fn of_split(path: &Path, files: Vec<PathBuf>, split: &str) -> Result<Vec<PathBuf>> {
    let begins = |file: &Path, split: &str| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(split).is_some_and(|rest| rest.starts_with(['-', '.', '_']))
    };
    if !files.iter().any(|file| SPLITS.iter().any(|split| begins(file, split))) {
        return Ok(files);
    }
    let found: Vec<PathBuf> = files.into_iter().filter(|file| begins(file, split)).collect();
    match found.is_empty() {
        true => Err(Error::input(format!("{} contains no file of the split {split:?}", path.display())))
            .hint("name the split in the preset (dataset: split: NAME)"),
        false => Ok(found),
    }
}

/// The files with a known ending, sorted by name.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::input(format!("listing {}: {e}", directory.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)?.take(MAX_FILES) {
        let file = entry.map_err(failed)?.path();
        // Descriptions that Hugging Face puts beside the data.
        let described =
            file.file_name().is_some_and(|name| name == "dataset_info.json" || name == "state.json");
        if ending(&file).is_some() && !described && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_inside_keep_the_format() {
        for (name, inside) in [
            ("valid.jsonl", "3.jsonl"),
            ("a.JSONL.gz", "3.jsonl.gz"),
            ("wiki.valid.raw", "3.raw"),
            ("x.parquet", "3.parquet"),
            ("rows", "3.jsonl"),
            ("rows.gz", "3.jsonl"),
            ("../../etc/x.csv.zst", "3.csv.zst"),
        ] {
            assert_eq!(name_inside(3, Path::new(name)), inside, "{name}");
        }
    }

    #[test]
    fn directories_give_the_files_of_the_split() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for name in ["train-0.parquet", "validation-1.parquet", "validation-0.parquet", "dataset_info.json"] {
            std::fs::write(data.join(name), "x").unwrap();
        }
        let found = expand(dir.path(), "validation").unwrap();
        assert_eq!(found, [data.join("validation-0.parquet"), data.join("validation-1.parquet")]);
        let error = expand(dir.path(), "test").unwrap_err();
        assert!(error.message().contains("no file of the split \"test\""), "{error}");
        // JSON lines come first, whatever their names, as in the Python package.
        std::fs::write(dir.path().join("b.jsonl"), "x").unwrap();
        std::fs::write(dir.path().join("a.csv"), "x").unwrap();
        assert_eq!(expand(dir.path(), "validation").unwrap(), [dir.path().join("b.jsonl")]);
        assert_eq!(expand(&dir.path().join("b.jsonl"), "x").unwrap(), [dir.path().join("b.jsonl")]);
        assert!(expand(&tempfile::tempdir().unwrap().path().join("absent"), "x").is_ok());
        assert!(
            expand(tempfile::tempdir().unwrap().path(), "x")
                .unwrap_err()
                .message()
                .contains("no dataset file")
        );
    }
}
