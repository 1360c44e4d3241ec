//! Datasets: JSON-lines files with a text in each row.

use std::path::Path;

use serde_json::Value;

use crate::files::{LineError, Lines};
use crate::{files, limits};
use invarlock_error::{Result, bail};

/// Texts in the order of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Texts that are not blank.
    pub texts: Vec<String>,
    /// Rows and lines without any text, which were passed over.
    pub blank: usize,
}

/// Reads up to `most` rows that have a text from these files, one after the other.
///
/// A line that is not a JSON object, or that lacks the field, is an error: passing over it would measure on something
/// other than what the user meant.
pub fn read(paths: &[String], field: &str, most: usize) -> Result<Texts> {
    if paths.is_empty() || paths.len() > limits::DATASET_FILES {
        bail!(Input, "the dataset has {} files; give between 1 and {}", paths.len(), limits::DATASET_FILES);
    }
    let mut found = Texts::default();
    let mut bytes = 0usize;
    for path in paths {
        if found.texts.len() >= most {
            break;
        }
        let (file, _) = files::open(Path::new(path), "dataset")?;
        let mut lines = Lines::new(file, limits::LINE_BYTES);
        let mut number = 0u64;
        while found.texts.len() < most {
            number += 1;
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(LineError::TooLong) => {
                    bail!(Input, "dataset {path}, line {number}: longer than {} bytes", limits::LINE_BYTES)
                }
                Err(LineError::Io(e)) => bail!(Input, "cannot read dataset {path}, line {number}: {e}"),
            };
            match text(line, field) {
                Ok(text) if text.trim().is_empty() => found.blank += 1,
                Ok(text) => {
                    bytes += text.len();
                    if bytes > limits::TEXT_BYTES {
                        bail!(
                            Input,
                            "dataset {path}, line {number}: more than {} bytes of text",
                            limits::TEXT_BYTES
                        );
                    }
                    found.texts.push(text);
                }
                Err(problem) => bail!(Input, "dataset {path}, line {number}: {problem}"),
            }
        }
    }
    Ok(found)
}

/// The text of a line; empty for a blank line.
fn text(line: &[u8], field: &str) -> Result<String, String> {
    if line.trim_ascii().is_empty() {
        return Ok(String::new());
    }
    let mut row = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(row)) => row,
        Ok(_) => return Err("not a JSON object: each line must be one, with the text in it".to_owned()),
        Err(e) => return Err(format!("not JSON: {e}")),
    };
    match row.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("the field {field:?} is not text")),
        None => Err(format!(
            "the field {field:?} is missing: name the field that holds the text, or mend the row"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn read_all(files: &[&[u8]], most: usize) -> Result<Texts> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut paths = Vec::new();
        for (i, bytes) in files.iter().enumerate() {
            let path = dir.path().join(format!("{i}.jsonl"));
            std::fs::write(&path, bytes).expect("written");
            paths.push(path.to_str().expect("text").to_owned());
        }
        read(&paths, "text", most)
    }

    #[test]
    fn rows_come_in_order_and_blank_ones_are_counted() {
        let one = b"{\"text\": \"a\"}\n\n{\"text\": \"  \"}\r\n{\"id\": 1, \"text\": \"b\"}";
        let two = b"{\"text\": \"c\"}\n{\"text\": \"d\"}\n";
        let texts =
            |list: &[&str], blank| Texts { texts: list.iter().map(|t| (*t).to_owned()).collect(), blank };
        assert_eq!(read_all(&[one, two], 10), Ok(texts(&["a", "b", "c", "d"], 2)));
        assert_eq!(read_all(&[one, two], 3), Ok(texts(&["a", "b", "c"], 2)));
        // What lies behind the rows asked for is not looked at.
        assert_eq!(read_all(&[one, b"nonsense"], 2), Ok(texts(&["a", "b"], 2)));
        assert_eq!(read_all(&[b""], 2), Ok(texts(&[], 0)));
    }

    #[test]
    fn bad_rows_are_named_by_file_and_line() {
        let cases: [(&[u8], &str); 6] = [
            (b"{\"text\": \"a\"}\nnot json\n", "line 2: not JSON"),
            (b"{\"text\": \"a\"\n", "line 1: not JSON"),
            (b"[\"text\"]\n", "line 1: not a JSON object"),
            (b"{\"Text\": \"a\"}\n", "line 1: the field \"text\" is missing"),
            (b"{\"text\": 3}\n", "line 1: the field \"text\" is not text"),
            (b"{\"text\": \"\xff\"}\n", "line 1: not JSON"),
        ];
        for (bytes, expected) in cases {
            match read_all(&[bytes], 10) {
                Err(m)
                    if m.kind() == Kind::Input
                        && m.message().contains(expected)
                        && m.message().contains("0.jsonl") => {}
                other => panic!("{expected}: {other:?}"),
            }
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
