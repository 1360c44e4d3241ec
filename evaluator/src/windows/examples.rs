//! Windows of examples with choices: each choice after its prompt.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use invarlock_evidence::format::choices::{Choices, MAX_CHOICES};
use invarlock_evidence::format::dataset::MAX_TOKENS;
use invarlock_evidence::numerics::NOT_PREDICTED;
use rayon::prelude::*;

use super::select::{CHUNK, WindowRequest, needed, numbered, remedy};
use super::{Arm, Window, Windows};
use crate::dataset::{Question, Row, Texts};
use invarlock_error::{Context as _, Error, Result, bail};

/// How a choice becomes a window.
#[derive(Clone, Copy)]
pub struct Encoding<'a> {
    /// The token with which each window starts, if any.
    pub begin: Option<u32>,
    /// The token that pads a window.
    pub pad: u32,
    /// The token ids of a text, without special tokens, not truncated.
    pub encode: &'a (dyn Fn(&str) -> Result<Vec<u32>> + Sync),
}

/// Takes the labels of rows for their choices: those of `labels`, else the different ones of all rows, sorted.
///
/// # Errors
/// A row has another label, or there are too few or too many.
pub fn label_rows(texts: &mut Texts, labels: Option<&[String]>) -> Result<()> {
    let all = || texts.rows.iter().filter_map(|row| row.target.clone());
    let choices: Arc<[String]> = match labels {
        Some(labels) => labels.into(),
        None => all().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    if !(2..=MAX_CHOICES).contains(&choices.len()) {
        return Err(Error::input(format!(
            "the rows have {} different labels; supported: 2 to {MAX_CHOICES}",
            choices.len()
        ))
        .with_hint(
            "name the labels in the preset (dataset: labels: [...]), or check the field with the label",
        ));
    }
    let places: HashMap<&str, usize> = choices.iter().map(String::as_str).zip(0..).collect();
    for (row, number) in texts.rows.iter_mut().zip(1..) {
        let label = row.target.take().unwrap_or_default();
        let Some(answer) = places.get(label.as_str()) else {
            return Err(Error::input(format!(
                "row {number} of the dataset (blank rows are not counted) has the label {label:?}, which is not one of the \
                 preset: {}",
                choices.iter().take(10).map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ")
            ))
            .with_hint("write labels exactly as the preset names them"));
        };
        row.question = Some(Question { choices: Arc::clone(&choices), answer: *answer });
    }
    Ok(())
}

/// The windows of the first examples, those of the preview arm first. An example may not be left out, so every fault is an error.
pub fn examples(
    texts: &Texts,
    encoding: Encoding<'_>,
    request: &WindowRequest<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    progress(0, needed as u64);
    if texts.rows.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {} examples, but preview_n {} and final_n {} need {needed}; max_samples is {}, and {} blank \
             rows were skipped",
            texts.rows.len(),
            request.preview,
            request.final_,
            request.max_samples,
            texts.blank
        ))
        .with_hint(remedy(request, texts)));
    }
    check_windows(&texts.rows[..needed], request.seq_len)?;
    let (first, second) = texts.rows[..needed].split_at(request.preview);
    let mut made = Made { encoding, request, progress, needed, done: 0, seen: HashMap::new() };
    let (preview, first) = made.arm(first)?;
    let (final_, second) = made.arm(second)?;
    let windows = numbered(preview, final_);
    Ok(Windows {
        preview: Arm { examples: Some(first), ..windows.preview },
        final_: Arm { examples: Some(second), ..windows.final_ },
        blank: texts.blank,
        ..windows
    })
}

/// Fails where all choices together are more than a report can contain, before any is made.
fn check_windows(rows: &[Row], seq_len: usize) -> Result<()> {
    let mut windows = 0;
    for (row, number) in rows.iter().zip(1..) {
        windows += row.question.as_ref().map_or(0, |question| question.choices.len());
        if windows.saturating_mul(seq_len) > MAX_TOKENS {
            return Err(Error::input(format!(
                "the choices of the first {number} examples, each a window of {seq_len} tokens, exceed the {MAX_TOKENS} tokens a \
                 report can contain"
            ))
            .with_hint("lower seq_len to the length of the longest prompt with its choice, or measure fewer examples"));
        }
    }
    Ok(())
}

/// The examples that were made.
struct Made<'a, 'r> {
    encoding: Encoding<'a>,
    request: &'a WindowRequest<'r>,
    progress: &'a dyn Fn(u64, u64),
    needed: usize,
    done: usize,
    /// The tokens of each example, with its row.
    seen: HashMap<Vec<Vec<u32>>, usize>,
}

impl Made<'_, '_> {
    /// The windows of rows, and their examples.
    fn arm(&mut self, rows: &[Row]) -> Result<(Vec<Window>, Vec<Choices>)> {
        let (mut windows, mut examples) = (Vec::new(), Vec::new());
        let (encoding, seq_len) = (self.encoding, self.request.seq_len);
        for chunk in rows.chunks(CHUNK) {
            let made: Vec<Result<Vec<Window>>> =
                chunk.par_iter().map(|row| example(row, encoding, seq_len)).collect();
            for (row, made) in chunk.iter().zip(made) {
                self.done += 1;
                let at = || format!("row {} of the dataset (blank rows are not counted)", self.done);
                let made = made.with_context(at)?;
                let answer = row.question.as_ref().map_or(0, |question| question.answer);
                examples.push(Choices { choices: made.len(), answer });
                self.check(&made)?;
                windows.extend(made);
            }
            (self.progress)(self.done as u64, self.needed as u64);
        }
        Ok((windows, examples))
    }

    /// Fails where an example repeats another one.
    fn check(&mut self, windows: &[Window]) -> Result<()> {
        let row = self.done;
        let tokens = windows.iter().map(|window| window.tokens().to_vec()).collect();
        if let Some(first) = self.seen.insert(tokens, row) {
            return Err(Error::input(format!(
                "rows {first} and {row} of the dataset (blank rows are not counted) have the same prompt and choices"
            ))
            .with_hint("remove repeated rows"));
        }
        Ok(())
    }
}

/// The windows of a row, one for each choice.
fn example(row: &Row, encoding: Encoding<'_>, seq_len: usize) -> Result<Vec<Window>> {
    let choices = row.question.as_ref().map_or(&[][..], |question| &*question.choices);
    // White space at the end of the prompt belongs to the choice, as tokenizers join it to the next word.
    let prompt = (encoding.encode)(row.text.trim_end())?.len();
    let window = |(place, choice): (usize, &String)| {
        choice_window(&row.text, choice, prompt, encoding, seq_len).with_context(|| format!("choice {place}"))
    };
    let windows: Vec<Window> = choices.iter().enumerate().map(window).collect::<Result<_>>()?;
    let mut seen = HashSet::new();
    if let Some(place) = windows.iter().position(|window| !seen.insert(window.tokens())) {
        bail!(Input, "choice {place} has the same tokens as one before it");
    }
    Ok(windows)
}

/// The window of a choice; `prompt` is the number of tokens of the prompt alone.
fn choice_window(
    text: &str,
    choice: &str,
    prompt: usize,
    encoding: Encoding<'_>,
    seq_len: usize,
) -> Result<Window> {
    let joined = text.ends_with(char::is_whitespace) || choice.starts_with(char::is_whitespace);
    let separator = if joined { "" } else { " " };
    let tokens = (encoding.encode)(&format!("{text}{separator}{choice}"))?;
    let first = prompt + usize::from(encoding.begin.is_some());
    if first == 0 {
        bail!(Input, "the prompt has no token");
    }
    if tokens.len() <= prompt {
        bail!(Input, "it adds no token to the prompt");
    }
    let mut ids: Vec<u32> = encoding.begin.into_iter().chain(tokens).collect();
    let real = ids.len();
    if real > seq_len {
        return Err(Error::input(format!(
            "it has {real} tokens with its prompt, but seq_len is {seq_len}, and nothing is cut off"
        ))
        .with_hint("raise seq_len, or remove the row"));
    }
    let label = |(place, id): (usize, &u32)| if place < first { NOT_PREDICTED } else { i64::from(*id) };
    let labels = Some(ids.iter().enumerate().map(label).collect());
    ids.resize(seq_len, encoding.pad);
    Ok(Window { ids, real, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, choices: &[&str], answer: usize) -> Row {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        Row { question: Some(Question { choices, answer }), ..Row::text(prompt) }
    }

    /// Each character is a token.
    fn made(rows: Vec<Row>, arms: usize, seq_len: usize, begin: Option<u32>) -> Result<Windows> {
        let texts = Texts { rows, blank: 1 };
        let encode = |text: &str| Ok(text.chars().map(u32::from).collect());
        let encoding = Encoding { begin, pad: 0, encode: &encode };
        let request = WindowRequest {
            seq_len,
            preview: arms,
            final_: arms,
            profile: "dev",
            max_samples: 2000,
            joinable: false,
        };
        examples(&texts, encoding, &request, &|_, _| ())
    }

    fn shown(window: &Window) -> (String, String) {
        let text = |ids: &[u32]| ids.iter().filter_map(|id| char::from_u32(*id)).collect();
        (text(window.tokens()), text(&window.predicted()))
    }

    #[test]
    fn a_choice_follows_its_prompt_and_alone_is_predicted() {
        let rows = vec![row("ab", &["c", "dd", " e"], 2), row("ab ", &["c", "dd"], 0)];
        let found = made(rows, 1, 8, None).expect("windows");
        let both = |arm: &Arm| arm.windows.iter().map(shown).collect::<Vec<_>>();
        let pair = |whole: &str, choice: &str| (whole.to_owned(), choice.to_owned());
        assert_eq!(both(&found.preview), [pair("ab c", " c"), pair("ab dd", " dd"), pair("ab e", " e")]);
        // White space at the end of the prompt belongs to the choice.
        assert_eq!(both(&found.final_), [pair("ab c", " c"), pair("ab dd", " dd")]);
        assert_eq!(found.preview.examples, Some(vec![Choices { choices: 3, answer: 2 }]));
        assert_eq!((&found.preview.ids[..], &found.final_.ids[..]), (&[0, 1, 2][..], &[3, 4][..]));
        let window = &found.preview.windows[0];
        assert_eq!((window.real, window.ids.len(), window.weight(), found.blank), (4, 8, 2, 1));
        let begun =
            made(vec![row("a", &["b", "c"], 0), row("b", &["b", "c"], 0)], 1, 8, Some(66)).expect("windows");
        assert_eq!(shown(&begun.preview.windows[0]), pair("Ba b", " b"));
    }

    #[test]
    fn faults_name_the_row_and_the_choice() {
        let good = || row("x", &["y", "z"], 0);
        for (bad, word) in [
            (row("abcdef", &["g", "hhh"], 0), "(blank rows are not counted): choice 1: it has 10 tokens"),
            (good(), "rows 1 and 2 of the dataset (blank rows are not counted) have the same prompt"),
            (row("a", &["b", " b"], 0), "choice 1 has the same tokens as one before it"),
        ] {
            let error = made(vec![good(), bad], 1, 8, None).expect_err(word);
            assert!(error.message().contains(word), "{error}");
        }
        let error = made(vec![good()], 1, 8, None).expect_err("too few");
        assert!(error.message().contains("has 1 examples, but preview_n 1 and final_n 1 need 2"), "{error}");
        let rows = (0..40).map(|i| row(&format!("{i}"), &["y", "z"], 0)).collect();
        let error = made(rows, 20, 1 << 17, None).expect_err("too many tokens");
        assert!(error.message().contains("of the first 17 examples"), "{error}");
    }

    #[test]
    fn labels_are_the_choices_of_each_row() {
        let labelled = |label: &str| Row { target: Some(label.to_owned()), ..Row::text("t") };
        let texts = || Texts { rows: ["no", "yes", "no"].map(labelled).to_vec(), blank: 0 };
        let mut found = texts();
        label_rows(&mut found, None).expect("labels");
        let question = |answer| Some(Question { choices: ["no", "yes"].map(str::to_owned).into(), answer });
        let questions: Vec<_> = found.rows.iter().map(|row| row.question.clone()).collect();
        assert_eq!(questions, [question(0), question(1), question(0)]);
        let named = ["yes", "maybe", "no"].map(str::to_owned);
        let mut found = texts();
        label_rows(&mut found, Some(&named)).expect("labels");
        assert_eq!(found.rows[0].question.as_ref().map(|question| question.answer), Some(2));
        let error = label_rows(&mut texts(), Some(&named[..2])).expect_err("another label");
        assert!(
            error.message().contains("row 1 of the dataset") && error.message().contains("\"no\""),
            "{error}"
        );
        let mut one = Texts { rows: vec![labelled("no")], blank: 0 };
        assert!(label_rows(&mut one, None).expect_err("one label").message().contains("1 different labels"));
    }
}
