//! Datasets: JSON Lines files with one text in each row.

use std::path::Path;

use serde_json::Value;

use crate::files::{LineError, Lines};
use crate::{files, limits};
use invarlock_error::{Context as _, Error, Kind, Result, bail};

/// Texts in the order of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Texts that are not blank.
    pub texts: Vec<String>,
    /// Rows and lines without text, which were skipped.
    pub blank: usize,
}

/// Reads up to `max_rows` rows with a text, from the files in order.
///
/// A line that is not a JSON object or lacks the field is an error: skipping it would measure other rows than the user
/// expects.
pub fn read(paths: &[String], field: &str, max_rows: usize) -> Result<Texts> {
    if paths.is_empty() || paths.len() > limits::DATASET_FILES {
        bail!(Input, "the dataset has {} files; supported: 1 to {}", paths.len(), limits::DATASET_FILES);
    }
    let mut found = Texts::default();
    let mut bytes = 0usize;
    for path in paths {
        if found.texts.len() >= max_rows {
            break;
        }
        let (file, _) = files::open(Path::new(path))?;
        let mut lines = Lines::new(file, limits::LINE_BYTES);
        let mut number = 0u64;
        while found.texts.len() < max_rows {
            number += 1;
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(LineError::TooLong) => {
                    bail!(Input, "{path}: line {number}: longer than {} bytes", limits::LINE_BYTES)
                }
                Err(LineError::Io(error)) => {
                    return Err(Error::from(error))
                        .with_context(|| format!("{path}: line {number}: cannot read the file"))
                        .kind(Kind::Input);
                }
            };
            if number == 1 {
                files::reject_lfs_pointer(Path::new(path), line)?;
            }
            match text(line, field) {
                Ok(text) if text.trim().is_empty() => found.blank += 1,
                Ok(text) => {
                    bytes += text.len();
                    if bytes > limits::TEXT_BYTES {
                        bail!(Input, "{path}: line {number}: more than {} bytes of text", limits::TEXT_BYTES);
                    }
                    found.texts.push(text);
                }
                Err(error) => return Err(error).with_context(|| format!("{path}: line {number}")),
            }
        }
    }
    Ok(found)
}

/// The text of a line; empty for a blank line.
fn text(line: &[u8], field: &str) -> Result<String> {
    if line.trim_ascii().is_empty() {
        return Ok(String::new());
    }
    let mut row = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(row)) => row,
        Ok(_) => bail!(Input, "not a JSON object"),
        Err(error) => {
            return Err(Error::input(format!(
                "not JSON; the fault is at byte {} of the line",
                error.column()
            ))
            .with_hint("each line must be a JSON object, such as {\"text\": \"…\"}"));
        }
    };
    match row.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!(Input, "the field {field:?} is not a string"),
        None => Err(Error::input(format!("the field {field:?} is missing"))
            .with_hint("rename the field, or name it in a preset (dataset: text_field: NAME; see docs/evaluate.md), or fix the row")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(files: &[&[u8]], max_rows: usize) -> Result<Texts> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut paths = Vec::new();
        for (i, bytes) in files.iter().enumerate() {
            let path = dir.path().join(format!("{i}.jsonl"));
            std::fs::write(&path, bytes).expect("written");
            paths.push(path.to_str().expect("text").to_owned());
        }
        read(&paths, "text", max_rows)
    }

    #[test]
    fn reads_rows_in_order_and_counts_blank_ones() {
        let one = b"{\"text\": \"a\"}\n\n{\"text\": \"  \"}\r\n{\"id\": 1, \"text\": \"b\"}";
        let two = b"{\"text\": \"c\"}\n{\"text\": \"d\"}\n";
        let texts =
            |list: &[&str], blank| Texts { texts: list.iter().map(|t| (*t).to_owned()).collect(), blank };
        assert_eq!(read_all(&[one, two], 10), Ok(texts(&["a", "b", "c", "d"], 2)));
        assert_eq!(read_all(&[one, two], 3), Ok(texts(&["a", "b", "c"], 2)));
        // Rows after the last one needed are not read.
        assert_eq!(read_all(&[one, b"not JSON"], 2), Ok(texts(&["a", "b"], 2)));
        assert_eq!(read_all(&[b""], 2), Ok(texts(&[], 0)));
    }

    #[test]
    fn reports_file_and_line_of_invalid_rows() {
        let cases: [(&[u8], &str); 6] = [
            (b"{\"text\": \"a\"}\nnot json\n", "line 2: not JSON"),
            (b"{\"text\": \"a\"\n", "line 1: not JSON"),
            (b"[\"text\"]\n", "line 1: not a JSON object"),
            (b"{\"Text\": \"a\"}\n", "line 1: the field \"text\" is missing"),
            (b"{\"text\": 3}\n", "line 1: the field \"text\" is not a string"),
            (b"{\"text\": \"\xff\"}\n", "line 1: not JSON"),
        ];
        for (bytes, expected) in cases {
            let error = read_all(&[bytes], 10).expect_err(expected);
            assert_eq!(error.kind(), Kind::Input, "{error}");
            assert!(error.message().contains(&format!("0.jsonl: {expected}")), "{error}");
        }
        let long =
            [&b"{\"text\": \"a\"}\n{\"text\": \""[..], &vec![b'a'; limits::LINE_BYTES], b"\"}"].concat();
        assert!(read_all(&[&long], 10).expect_err("too long").to_string().contains("line 2: longer than"));
        assert!(read(&[], "text", 1).is_err());
        assert!(
            read(&["/nonexistent".to_owned()], "text", 1)
                .expect_err("missing")
                .to_string()
                .contains("/nonexistent")
        );
    }
}
