//! Reads a file of a dataset: a byte that chooses the end of its name, and the file.
#![no_main]

use invarlock_evaluator::dataset::{self, ChoiceFields, Fields, Limit};

const NAMES: [&str; 8] =
    ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.jsonl.gz", "a.jsonl.zst"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, file)) = bytes.split_first() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(NAMES[usize::from(*chosen) % NAMES.len()]);
    std::fs::write(&path, file).expect("a file");
    let paths = [path.to_str().expect("a path").to_owned()];
    let limit = Limit { rows: 100, blank_counts: chosen & 128 != 0, labels: chosen & 64 != 0 };
    let target = (chosen & 64 != 0).then_some("target");
    let choices = (chosen & 32 != 0).then_some(ChoiceFields { choices: "choices", answer: "answer" });
    if let Ok(texts) = dataset::read(&paths, Fields { text: "text", target, choices }, limit) {
        assert!(texts.rows.len() <= limit.rows);
        assert!(texts.rows.iter().all(|row| !row.text.trim().is_empty()));
        assert!(texts.rows.iter().all(|row| row.is_conversation == texts.are_conversations()));
        let questions = texts.rows.iter().filter_map(|row| row.question.as_ref());
        questions.for_each(|question| assert!(question.answer < question.choices.len()));
    }
});
