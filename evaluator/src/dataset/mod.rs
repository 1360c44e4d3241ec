//! Datasets: files with one text or a pair of texts in each row, in the formats in which people have them. The files are untrusted.
//!
//! To add a format, write its reader and name it in `Format`.

mod choices;
mod json;
mod parquet;
mod source;
mod table;

use std::path::Path;

use serde_json::{Value, json};

use crate::limits;
pub use choices::{ChoiceFields, Question};
use invarlock_error::{Context as _, Result, bail};
use source::{Format, Source};

/// The fields of a row that are read.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// Its text, the source of a pair, or the prompt of choices.
    pub text: &'a str,
    /// The target of a pair, or the label of a text.
    pub target: Option<&'a str>,
    /// The choices and the right one.
    pub choices: Option<ChoiceFields<'a>>,
}

impl<'a> Fields<'a> {
    /// The names of the fields.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let choices = self.choices.map(|fields| [fields.choices, fields.answer]);
        [self.text].into_iter().chain(self.target).chain(choices.into_iter().flatten())
    }

    /// A row from the value of each field.
    fn row(&self, mut value: impl FnMut(&str) -> Result<String>) -> Result<Row> {
        let text = value(self.text)?;
        Ok(Row { target: self.target.map(value).transpose()?, ..Row::text(text) })
    }
}

/// A row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Its text, the source of a pair, or the prompt of choices.
    pub text: String,
    /// The target of a pair, or the label of a text.
    pub target: Option<String>,
    /// Its choices and the right one.
    pub question: Option<Question>,
    /// Whether the text is a conversation: a JSON array of messages, or what a chat template made of it.
    pub is_conversation: bool,
}

impl Row {
    /// A row with one text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn conversation(messages: &[Value]) -> Self {
        Self { text: json!(messages).to_string(), is_conversation: true, ..Self::default() }
    }
}

/// Texts in the order of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Rows that are not blank. Either all of them are conversations, or none is.
    pub rows: Vec<Row>,
    /// Rows and lines without text, and pairs that lack one, which were skipped.
    pub blank: usize,
}

impl Texts {
    /// Whether the rows are conversations.
    pub fn are_conversations(&self) -> bool {
        self.rows.first().is_some_and(|row| row.is_conversation)
    }
}

/// Which rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Rows that are read at most.
    pub rows: usize,
    /// Whether rows without text count.
    pub blank_counts: bool,
    /// Whether targets are labels: none may be blank.
    pub labels: bool,
}

/// Reads the first rows with a text, from the files in order.
///
/// A row without the field is an error: skipping it would measure other rows than the user expects.
pub fn read(paths: &[String], fields: Fields<'_>, limit: Limit) -> Result<Texts> {
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
            Format::JsonLines => json::lines(source, fields, &mut rows),
            Format::JsonArray => json::array(source, fields, &mut rows),
            Format::Table { delimiter } => table::rows(source, delimiter, fields, &mut rows),
            Format::Text => table::lines(source, fields, &mut rows),
            Format::Parquet => parquet::rows(source, fields, &mut rows),
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
        self.found.rows.len() + blank >= self.limit.rows
    }

    /// Adds a row.
    fn add(&mut self, row: Row) -> Result<()> {
        let is_blank = |text: &String| text.trim().is_empty();
        if self.limit.labels && !is_blank(&row.text) && row.target.as_ref().is_some_and(is_blank) {
            bail!(Input, "the label is blank");
        }
        if is_blank(&row.text) || row.target.as_ref().is_some_and(is_blank) {
            self.found.blank += 1;
            return Ok(());
        }
        match (self.found.rows.first().map(|first| first.is_conversation), row.is_conversation) {
            (Some(false), true) => bail!(Input, "a conversation, but rows before it contain texts"),
            (Some(true), false) => bail!(Input, "a text, but rows before it contain conversations"),
            _ => {}
        }
        let choices = row.question.iter().flat_map(|question| &*question.choices);
        let texts = [&row.text].into_iter().chain(&row.target).chain(choices);
        self.bytes += texts.map(String::len).sum::<usize>();
        if self.bytes > limits::TEXT_BYTES {
            bail!(Input, "more than {} bytes of text", limits::TEXT_BYTES);
        }
        self.found.rows.push(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    const TEXT: Fields<'_> = Fields { text: "text", target: None, choices: None };

    fn limit(rows: usize) -> Limit {
        Limit { rows, blank_counts: false, labels: false }
    }

    fn rows(texts: &[&str]) -> Vec<Row> {
        texts.iter().copied().map(Row::text).collect()
    }

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
        read(&paths, TEXT, limit(max_rows))
    }

    #[test]
    fn reads_rows_in_order_and_counts_blank_ones() {
        let one = b"{\"text\": \"a\"}\n\n{\"text\": \"  \"}\r\n{\"id\": 1, \"text\": \"b\"}";
        let two = b"{\"text\": \"c\"}\n{\"text\": \"d\"}\n";
        let texts = |list: &[&str], blank| Texts { rows: rows(list), blank };
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
            (b"{\"text\": \"\xff\"}\n", "line 1: not UTF-8 text; the fault is at byte 11 of the line"),
        ];
        for (bytes, expected) in cases {
            let error = read_all(&[bytes], 10).expect_err(expected);
            assert_eq!(error.kind(), Kind::Input, "{error}");
            assert!(error.message().contains(&format!("0.jsonl: {expected}")), "{error}");
        }
        let hint = |bytes: &[u8]| read_all(&[bytes], 10).expect_err("not JSON").hint().map(str::to_owned);
        assert!(
            hint(b"{\"text\": \"a\", \"score\": NaN}").is_some_and(|hint| hint.contains("JSON has no NaN"))
        );
        assert!(hint(b"{\"text\": NaN1}").is_some_and(|hint| hint.contains("JSON has no NaN")));
        assert!(hint(b"{\"text\": nan}").is_some_and(|hint| hint.contains("must be a JSON object")));
        let long =
            [&b"{\"text\": \"a\"}\n{\"text\": \""[..], &vec![b'a'; limits::LINE_BYTES], b"\"}"].concat();
        assert!(read_all(&[&long], 10).expect_err("too long").to_string().contains("line 2: longer than"));
        assert!(read(&[], TEXT, limit(1)).is_err());
        assert!(
            read(&["/nonexistent".to_owned()], TEXT, limit(1))
                .expect_err("missing")
                .to_string()
                .contains("/nonexistent")
        );
    }

    #[test]
    fn conversations_are_kept_as_json_and_not_mixed_with_texts() {
        let talk = b"{\"text\": [{\"role\": \"user\", \"content\": \"a\"}]}\n";
        let found = read_all(&[talk], 9).expect("read");
        assert!(found.are_conversations());
        assert_eq!(found.rows[0].text, r#"[{"role":"user","content":"a"}]"#);
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
    fn a_blank_label_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.jsonl");
        let text = "{\"text\": \" \", \"label\": \"\"}\n{\"text\": \"a\", \"label\": \" \"}\n";
        std::fs::write(&path, text).expect("written");
        let paths = [path.to_str().expect("text").to_owned()];
        let fields = Fields { target: Some("label"), ..TEXT };
        let error = read(&paths, fields, Limit { labels: true, ..limit(9) }).expect_err("a blank label");
        assert!(error.message().contains("line 2: the label is blank"), "{error}");
        assert_eq!(read(&paths, fields, limit(9)).expect("pairs").blank, 2);
    }

    #[test]
    fn blank_rows_count_where_a_slice_is_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "a\n\n\nb\nc\n").expect("written");
        let paths = [path.to_str().expect("text").to_owned()];
        let slice = Limit { rows: 4, blank_counts: true, labels: false };
        assert_eq!(read(&paths, TEXT, slice).expect("read").rows, rows(&["a", "b"]));
        assert_eq!(read(&paths, TEXT, limit(4)).expect("read").rows, rows(&["a", "b", "c"]));
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
        let truth = Texts { rows: rows(&["a \"b\"", "c\u{e9}"]), blank: 1 };
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
            assert_eq!(read_named(&named, 1).expect(name).rows, truth.rows[..1], "{name}");
        }
    }

    #[test]
    fn rows_after_the_last_one_needed_are_not_read() {
        let array = b"[{\"text\": \"a\"}, {\"text\": \"b\"}, nonsense";
        assert_eq!(read_all(&[array], 2).expect("read").rows, rows(&["a", "b"]));
        assert!(read_all(&[array], 3).is_err());
    }

    #[test]
    fn pairs_are_read_and_those_without_a_text_are_skipped() {
        let pairs = Fields { text: "src", target: Some("tgt"), choices: None };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let read_pairs = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            read(&[path.to_str().expect("text").to_owned()], pairs, limit(10))
        };
        let pair = Row { target: Some("b".to_owned()), ..Row::text("a") };
        let lines = "{\"tgt\": \"b\", \"src\": \"a\"}\n{\"src\": \"c\", \"tgt\": \" \"}\n";
        for (name, text) in [("a.jsonl", lines), ("a.csv", "tgt,id,src\nb,1,a\n ,2,c\n")] {
            assert_eq!(read_pairs(name, text.as_bytes()), Ok(Texts { rows: vec![pair.clone()], blank: 1 }));
        }
        let refused = |name: &str, text: &str| read_pairs(name, text.as_bytes()).expect_err(text).to_string();
        assert!(refused("a.jsonl", "{\"src\": \"a\"}").contains("the field \"tgt\" is missing"));
        assert!(refused("a.txt", "a").contains("lines of text have no pairs"));
    }

    #[test]
    fn rows_with_choices_are_read_from_formats_with_lists() {
        let fields = Fields {
            text: "question",
            target: None,
            choices: Some(ChoiceFields { choices: "choices", answer: "answer" }),
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let read_choices = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            read(&[path.to_str().expect("text").to_owned()], fields, limit(10))
        };
        let question = |answer| Some(Question { choices: ["a", "b"].map(str::to_owned).into(), answer });
        let row = |text: &str, answer| Row { question: question(answer), ..Row::text(text) };
        let truth = Texts { rows: vec![row("q", 1), row("r", 0)], blank: 1 };
        let one = r#"{"question": "q", "choices": ["a", "b"], "answer": 1}"#;
        let blank = r#"{"question": "", "choices": [], "answer": 9}"#;
        let two = r#"{"question": "r", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "A"}"#;
        let lines = format!("{one}\n{blank}\n{two}\n");
        assert_eq!(read_choices("a.jsonl", lines.as_bytes()).as_ref(), Ok(&truth));
        let array = format!("[{one}, {blank}, {two}]");
        assert_eq!(read_choices("a.json", array.as_bytes()).as_ref(), Ok(&truth));
        let refused = |name: &str, bytes: &[u8], word: &str| {
            let error = read_choices(name, bytes).expect_err(word);
            assert!(error.message().contains(word), "{error}");
        };
        refused("a.csv", b"question,choices,answer\nq,a,0\n", "a table has no lists");
        refused("a.txt", b"q\n", "lines of text have no choices");
        let wrong = format!("{one}\n{}\n", one.replace("1}", "2}"));
        refused("a.jsonl", wrong.as_bytes(), "line 2: the field \"answer\" is 2");
        refused("a.parquet", &parquet(&[Some("a")]), "the field \"question\" is missing");
        for (choices, answer, word) in [
            (
                "group choices (LIST) { required binary a (UTF8); required binary b (UTF8); }",
                "int64",
                "lists of strings",
            ),
            ("group choices (LIST) { repeated binary a (UTF8); }", "int64", "lists of strings"),
            ("group choices { required binary text (UTF8); }", "int64", "lists of strings"),
            ("binary choices (UTF8);", "int64", "lists of strings"),
            (&format!("group choices {LIST}"), "double", "strings or whole numbers"),
        ] {
            let schema = format!(
                "message m {{ required binary question (UTF8); required {choices} required {answer} answer; }}"
            );
            refused("a.parquet", &parquet_without_rows(&schema), &format!("does not contain {word}"));
        }
        for keyed in [false, true] {
            let found = read_choices("a.parquet", &parquet_of_choices(keyed)).expect("read");
            assert_eq!(found.rows, [row("q", 1)], "{keyed}");
        }
    }

    /// A list of strings in a schema of Parquet.
    const LIST: &str = "(LIST) { repeated group list { required binary element (UTF8); } }";

    fn parquet_without_rows(schema: &str) -> Vec<u8> {
        use ::parquet::file::writer::SerializedFileWriter;
        let schema = ::parquet::schema::parser::parse_message_type(schema).expect("a schema");
        let file = SerializedFileWriter::new(Vec::new(), schema.into(), std::sync::Arc::default())
            .expect("a writer");
        file.into_inner().expect("a file")
    }

    /// A Parquet file with one row of choices, in the forms of ARC and of MMLU.
    fn parquet_of_choices(keyed: bool) -> Vec<u8> {
        use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
        use ::parquet::file::writer::SerializedFileWriter;
        let (choices, answer) = match keyed {
            true => (
                format!("{{ required group text {LIST} required group label {LIST} }}"),
                "binary answer (UTF8)",
            ),
            false => (LIST.to_owned(), "int64 answer"),
        };
        let schema = format!(
            "message m {{ required binary question (UTF8); required group choices {choices} required {answer}; }}"
        );
        let schema = ::parquet::schema::parser::parse_message_type(&schema).expect("a schema");
        let mut file =
            SerializedFileWriter::new(Vec::new(), schema.into(), Default::default()).expect("a writer");
        let mut group = file.next_row_group().expect("a group");
        let texts = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
        let lists = if keyed { vec![["a", "b"], ["A", "B"]] } else { vec![["a", "b"]] };
        let mut column = group.next_column().expect("a column").expect("question");
        column.typed::<ByteArrayType>().write_batch(&texts(&["q"]), None, None).expect("written");
        column.close().expect("closed");
        for list in lists {
            let mut column = group.next_column().expect("a column").expect("a list");
            let levels = (Some(&[1, 1][..]), Some(&[0, 1][..]));
            column.typed::<ByteArrayType>().write_batch(&texts(&list), levels.0, levels.1).expect("written");
            column.close().expect("closed");
        }
        let mut column = group.next_column().expect("a column").expect("answer");
        match keyed {
            true => column.typed::<ByteArrayType>().write_batch(&texts(&["B"]), None, None).expect("written"),
            false => column.typed::<Int64Type>().write_batch(&[1], None, None).expect("written"),
        };
        column.close().expect("closed");
        group.close().expect("closed");
        file.into_inner().expect("a file")
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
        let error = read(&paths, Fields { text: "body", ..TEXT }, limit(1)).expect_err("missing");
        assert!(error.to_string().contains("the columns are: id, text"), "{error}");
        assert!(
            read(&paths, Fields { text: "id", ..TEXT }, limit(1))
                .expect_err("numbers")
                .message()
                .contains("does not contain strings")
        );
    }
}
