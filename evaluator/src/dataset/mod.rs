//! Datasets: files with one text in each row, in the formats in which people have them. The files are untrusted.
//!
//! To add a format, write its reader and name it in `Format`.

mod json;
mod parquet;
mod source;
mod table;

use std::path::Path;

use crate::limits;
use invarlock_error::{Context as _, Result, bail};
use source::{Format, Source};

/// Texts in the order of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Texts that are not blank.
    pub texts: Vec<String>,
    /// Rows and lines without text, which were skipped.
    pub blank: usize,
    /// Whether the texts are conversations: JSON arrays of messages.
    pub conversations: bool,
}

/// Which rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Rows that are read at most.
    pub rows: usize,
    /// Whether rows without text count.
    pub blank_counts: bool,
}

/// What a row contains in the field.
pub(crate) enum Found {
    Text(String),
    /// A conversation, as JSON.
    Conversation(String),
}

/// Reads the first rows with a text, from the files in order.
///
/// A row without the field is an error: skipping it would measure other rows than the user expects.
pub fn read(paths: &[String], field: &str, limit: Limit) -> Result<Texts> {
    if paths.is_empty() || paths.len() > limits::DATASET_FILES {
        bail!(Input, "the dataset has {} files; supported: 1 to {}", paths.len(), limits::DATASET_FILES);
    }
    let mut rows = Rows { found: Texts::default(), bytes: 0, limit };
    for path in paths {
        if rows.is_complete() {
            break;
        }
        let source = Source::open(Path::new(path))?;
        let read = match source.format {
            Format::JsonLines => json::lines(source, field, &mut rows),
            Format::JsonArray => json::array(source, field, &mut rows),
            Format::Table { delimiter } => table::rows(source, delimiter, field, &mut rows),
            Format::Text => table::lines(source, &mut rows),
            Format::Parquet => parquet::rows(source, field, &mut rows),
        };
        read.context(path)?;
    }
    Ok(rows.found)
}

/// Collects the texts of rows.
struct Rows {
    found: Texts,
    bytes: usize,
    limit: Limit,
}

impl Rows {
    /// Whether no further row is needed.
    fn is_complete(&self) -> bool {
        let blank = if self.limit.blank_counts { self.found.blank } else { 0 };
        self.found.texts.len() + blank >= self.limit.rows
    }

    /// Adds what a row contains.
    fn add_found(&mut self, found: Found) -> Result<()> {
        match found {
            Found::Text(text) => self.add(text),
            Found::Conversation(_) if !self.found.conversations && !self.found.texts.is_empty() => {
                bail!(Input, "a conversation, but rows before it contain texts")
            }
            Found::Conversation(messages) => {
                self.found.conversations = true;
                self.push(messages)
            }
        }
    }

    /// Adds the text of a row.
    fn add(&mut self, text: String) -> Result<()> {
        if text.trim().is_empty() {
            self.found.blank += 1;
            return Ok(());
        }
        if self.found.conversations {
            bail!(Input, "a text, but rows before it contain conversations");
        }
        self.push(text)
    }

    fn push(&mut self, text: String) -> Result<()> {
        self.bytes += text.len();
        if self.bytes > limits::TEXT_BYTES {
            bail!(Input, "more than {} bytes of text", limits::TEXT_BYTES);
        }
        self.found.texts.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn read_all(files: &[&[u8]], max_rows: usize) -> Result<Texts> {
        let named: Vec<(String, &[u8])> =
            files.iter().enumerate().map(|(i, bytes)| (format!("{i}.jsonl"), *bytes)).collect();
        read_named(&named, max_rows)
    }

    fn read_named(files: &[(String, &[u8])], max_rows: usize) -> Result<Texts> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut paths = Vec::new();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            paths.push(path.to_str().expect("text").to_owned());
        }
        read(&paths, "text", limit(max_rows))
    }

    fn limit(rows: usize) -> Limit {
        Limit { rows, blank_counts: false }
    }

    #[test]
    fn reads_rows_in_order_and_counts_blank_ones() {
        let one = b"{\"text\": \"a\"}\n\n{\"text\": \"  \"}\r\n{\"id\": 1, \"text\": \"b\"}";
        let two = b"{\"text\": \"c\"}\n{\"text\": \"d\"}\n";
        let texts = |list: &[&str], blank| Texts {
            texts: list.iter().map(|t| (*t).to_owned()).collect(),
            blank,
            ..Texts::default()
        };
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
            (b"[\"text\"]\n", "element 1: not a JSON object"),
            (b"{\"Text\": \"a\"}\n", "line 1: the field \"text\" is missing"),
            (b"{\"text\": 3}\n", "line 1: the field \"text\" is neither a string nor a conversation"),
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
        assert!(read(&[], "text", limit(1)).is_err());
        assert!(
            read(&["/nonexistent".to_owned()], "text", limit(1))
                .expect_err("missing")
                .to_string()
                .contains("/nonexistent")
        );
    }

    #[test]
    fn conversations_are_kept_as_json_and_not_mixed_with_texts() {
        let talk = b"{\"text\": [{\"role\": \"user\", \"content\": \"a\"}]}\n";
        let found = read_all(&[talk], 9).expect("read");
        assert!(found.conversations);
        assert_eq!(found.texts, [r#"[{"role":"user","content":"a"}]"#]);
        let text = b"{\"text\": \"a\"}\n";
        for files in [[&talk[..], &text[..]], [&text[..], &talk[..]]] {
            let error = read_all(&files, 9).expect_err("mixed");
            assert!(
                error.message().contains("1.jsonl: line 1: a ") && error.message().contains("rows before it"),
                "{error}"
            );
        }
        let invalid = b"{\"text\": [1]}\n";
        assert!(
            read_all(&[invalid], 9)
                .expect_err("no messages")
                .message()
                .contains("neither a string nor a conversation")
        );
    }

    #[test]
    fn blank_rows_count_where_a_slice_is_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "a\n\n\nb\nc\n").expect("written");
        let paths = [path.to_str().expect("text").to_owned()];
        let slice = Limit { rows: 4, blank_counts: true };
        assert_eq!(read(&paths, "text", slice).expect("read").texts, ["a", "b"]);
        assert_eq!(read(&paths, "text", limit(4)).expect("read").texts, ["a", "b", "c"]);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).expect("compressed");
        encoder.finish().expect("compressed")
    }

    /// A Parquet file with the columns `id` and `text`; a row without text is null.
    fn parquet(rows: &[Option<&str>]) -> Vec<u8> {
        use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
        use ::parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
        let schema = "message m { required int64 id; optional binary text (UTF8); }";
        let schema = ::parquet::schema::parser::parse_message_type(schema).expect("a schema");
        let properties =
            WriterProperties::builder().set_compression(::parquet::basic::Compression::SNAPPY).build();
        let mut file =
            SerializedFileWriter::new(Vec::new(), schema.into(), properties.into()).expect("a writer");
        let mut group = file.next_row_group().expect("a group");
        let ids: Vec<i64> = (0..rows.len() as i64).collect();
        let texts: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let present: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        let mut column = group.next_column().expect("a column").expect("id");
        column.typed::<Int64Type>().write_batch(&ids, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("text");
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&present), None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        file.into_inner().expect("a file")
    }

    #[test]
    fn formats_give_the_same_rows() {
        let texts = vec!["a \"b\"".to_owned(), "c\u{e9}".to_owned()];
        let truth = Texts { texts, blank: 1, ..Texts::default() };
        let lines = "{\"text\": \"a \\\"b\\\"\"}\n{\"text\": \"\"}\n{\"text\": \"c\u{e9}\"}\n";
        let array =
            "[{\"text\": \"a \\\"b\\\"\", \"n\": [1]},\n {\"text\": \"\"}, {\"text\": \"c\u{e9}\"}]\n";
        let marked = [&b"\xef\xbb\xbf"[..], lines.as_bytes()].concat();
        let csv = "id,text\n1,\"a \"\"b\"\"\"\n2,\n3,c\u{e9}\n";
        let crlf = csv.replace('\n', "\r\n");
        let zstd = zstd::encode_all(lines.as_bytes(), 1).expect("compressed");
        let files: [(&str, Vec<u8>); 11] = [
            ("a.jsonl", lines.into()),
            ("a.jsonl", marked),
            ("a.json", array.into()),
            ("a.jsonl.gz", gzip(lines.as_bytes())),
            ("renamed", gzip(array.as_bytes())),
            ("a.jsonl.zst", zstd),
            ("a.csv", csv.into()),
            ("a.CSV.gz", gzip(crlf.as_bytes())),
            ("a.tsv", "text\tid\n\"a \"\"b\"\"\"\t1\n\t2\nc\u{e9}\t3\n".into()),
            ("a.txt", "a \"b\"\n\nc\u{e9}\n".into()),
            ("a.parquet", parquet(&[Some("a \"b\""), None, Some("c\u{e9}")])),
        ];
        for (name, bytes) in &files {
            let named = [((*name).to_owned(), bytes.as_slice())];
            assert_eq!(read_named(&named, 10).as_ref(), Ok(&truth), "{name}");
            assert_eq!(read_named(&named, 1).expect(name).texts, truth.texts[..1], "{name}");
        }
    }

    #[test]
    fn rows_after_the_last_one_needed_are_not_read() {
        let array = b"[{\"text\": \"a\"}, {\"text\": \"b\"}, nonsense";
        assert_eq!(read_all(&[array], 2).expect("read").texts, ["a", "b"]);
        assert!(read_all(&[array], 3).is_err());
    }

    #[test]
    fn other_formats_and_damage_are_named() {
        let bomb = gzip(&vec![b'a'; 4 * limits::LINE_BYTES]);
        let array_bomb = gzip(&[&b"[{\"text\": \""[..], &vec![b'a'; 4 * limits::LINE_BYTES]].concat());
        let table_bomb = gzip(&[&b"text\n\""[..], &vec![b'a'; 4 * limits::LINE_BYTES]].concat());
        let mut short = parquet(&[Some("a"), Some("b")]);
        short.truncate(short.len() / 2);
        let cases: [(&str, &[u8], &str); 14] = [
            ("a.jsonl", b"\xff\xfe{\0", "UTF-16"),
            ("a.arrow", b"ARROW1", "Arrow files are not supported"),
            ("a.jsonl.xz", b"\xfd7zXZ", "this compression is not supported; supported: gzip, zstd"),
            ("a.jsonl.gz", &bomb, "line 1: longer than"),
            ("a.json.gz", &array_bomb, "element 1: longer than"),
            ("a.csv.gz", &table_bomb, "longer than"),
            ("a.jsonl.gz", &bomb[..40], "cannot read the file"),
            ("a.json", b"[{\"text\": \"a\"}, 3]", "element 2: not a JSON object"),
            ("a.json", b"[{\"text\": \"a\"},\n x]", "the fault is in line 2"),
            ("a.json", b"[{\"body\": \"a\"}]", "element 1: the field \"text\" is missing"),
            ("a.csv", b"id,body\n1,a\n", "row 1, which names the columns: the field \"text\" is missing"),
            ("a.csv", b"id,text\n1,a\n2\n", "row 3: not a table"),
            ("a.txt", b"a\n\xff\n", "line 2: not UTF-8"),
            ("a.parquet", &short, "not a Parquet file"),
        ];
        for (name, bytes, expected) in cases {
            let error = read_named(&[(name.to_owned(), bytes)], 10).expect_err(expected);
            assert!(error.message().contains(&format!("{name}: ")), "{error}");
            assert!(error.message().contains(expected), "{name}: {error}");
        }
        let columns = read_named(&[("a.parquet".to_owned(), &parquet(&[Some("a")]))], 1).map(|_| ());
        assert_eq!(columns, Ok(()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.parquet");
        std::fs::write(&path, parquet(&[Some("a")])).expect("written");
        let paths = [path.to_str().expect("text").to_owned()];
        let error = read(&paths, "body", limit(1)).expect_err("missing");
        assert!(error.to_string().contains("the columns are: id, text"), "{error}");
        assert!(
            read(&paths, "id", limit(1)).expect_err("numbers").message().contains("does not contain strings")
        );
    }
}
