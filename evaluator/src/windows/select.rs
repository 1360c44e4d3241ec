//! Selects windows from a dataset: its rows in order, the preview arm first.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use invarlock_evidence::masking::Masker;
use rayon::prelude::*;

use super::{Arm, JOIN, Window, Windows, check_size};
use crate::dataset::{Row, Texts};
use invarlock_error::{Error, Result, bail};

/// The windows to select.
#[derive(Debug, Clone, Copy)]
pub struct WindowRequest<'a> {
    /// Tokens of a window.
    pub seq_len: usize,
    /// Windows of the preview arm.
    pub preview: usize,
    /// Windows of the final arm.
    pub final_: usize,
    /// Profile, which decides how far duplicates may reduce the arms.
    pub profile: &'a str,
    /// Limit of the rows that were read, for messages.
    pub max_samples: usize,
    /// Whether the rows could be joined into full windows instead, for messages.
    pub joinable: bool,
}

/// Fewest windows per arm with the profile `release`.
const RELEASE_FLOOR: usize = 200;
/// Fewest windows by which duplicates reduce an arm.
const STEP: usize = 5;
/// Rows tokenized between two progress events.
pub(super) const CHUNK: usize = 256;

/// Makes the window of a row; none where the row is too short.
pub type Encode<'a> = &'a (dyn Fn(&Row) -> Result<Option<Window>> + Sync);

/// Selects the first usable rows, and masks them if there is a masker.
///
/// Where windows are equal, both arms are reduced to one smaller number of windows and selected again, as upstream does.
pub fn select(
    texts: &Texts,
    request: &WindowRequest<'_>,
    encode: Encode<'_>,
    masker: Option<&mut Masker<'_>>,
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    progress(0, needed as u64);
    let (mut usable, mut rows): (Vec<Window>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut short = 0;
    for (chunk, first) in texts.rows.chunks(CHUNK).zip((1..).step_by(CHUNK)) {
        if usable.len() >= needed {
            break;
        }
        let encoded: Vec<Option<Window>> = chunk.par_iter().map(encode).collect::<Result<_>>()?;
        for (window, row) in encoded.into_iter().zip(first..) {
            match window {
                _ if usable.len() >= needed => break,
                None => short += 1,
                Some(window) => {
                    usable.push(window);
                    rows.push(row);
                }
            }
        }
        progress(usable.len() as u64, needed as u64);
    }
    if usable.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {} usable windows, but preview_n {} and final_n {} need {needed}: {} rows with text were \
             read (max_samples {}), besides {} blank ones; {short} of them have too few tokens to predict one",
            usable.len(),
            request.preview,
            request.final_,
            texts.rows.len(),
            request.max_samples,
            texts.blank
        ))
        .with_hint(remedy(request, texts)));
    }
    let windows = arms(Selection { usable, rows, masker }, request)?;
    Ok(Windows { blank: texts.blank, short, ..windows })
}

/// Both arms of enough windows, without duplicates.
pub(super) fn arms(mut selection: Selection<'_, '_>, request: &WindowRequest<'_>) -> Result<Windows> {
    let Sizes { preview, final_, adjustments } = selection.without_duplicates(request)?;
    let equal_rows = if adjustments.is_empty() {
        None
    } else {
        first_duplicate(&selection.usable).map(|pair| selection.rows_of(pair))
    };
    let mut usable = selection.windows(preview, final_)?.into_owned();
    let second = usable.split_off(preview);
    Ok(Windows { adjustments, equal_rows, ..numbered(usable, second) })
}

/// Both arms with ids in order.
pub(super) fn numbered(preview: Vec<Window>, final_: Vec<Window>) -> Windows {
    let ids = |from: usize, n: usize| (from as u64..(from + n) as u64).collect();
    let (first, second) = (preview.len(), final_.len());
    Windows {
        preview: Arm { ids: ids(0, first), windows: preview, examples: None },
        final_: Arm { ids: ids(first, second), windows: final_, examples: None },
        ..Windows::default()
    }
}

/// The number of windows that a request needs.
pub(super) fn needed(request: &WindowRequest<'_>) -> Result<usize> {
    let needed = match request.preview.checked_add(request.final_) {
        Some(needed) if request.preview > 0 && request.final_ > 0 => needed,
        _ => bail!(
            Input,
            "preview_n {} and final_n {} must both be at least 1",
            request.preview,
            request.final_
        ),
    };
    check_size(request.seq_len, needed)?;
    Ok(needed)
}

/// The places of the first two equal windows.
fn first_duplicate(windows: &[Window]) -> Option<(usize, usize)> {
    let mut seen: HashMap<&[u32], usize> = HashMap::with_capacity(windows.len());
    let mut windows = windows.iter().enumerate();
    windows.find_map(|(place, window)| seen.insert(window.tokens(), place).map(|first| (first, place)))
}

/// How many windows repeat another one.
fn repeated(windows: &[Window]) -> usize {
    let different: HashSet<&[u32]> = windows.iter().map(Window::tokens).collect();
    windows.len() - different.len()
}

/// Names two rows that give the same window.
pub fn equal_rows((one, other): (usize, usize)) -> String {
    format!("rows {one} and {other} of the dataset give the same window (blank rows are not counted)")
}

/// What helps against too few rows. The profiles other than `dev` set the numbers of windows, so lowering them in the preset has no effect.
pub(super) fn remedy(request: &WindowRequest<'_>, texts: &Texts) -> String {
    let add = match texts.rows.len() + texts.blank >= request.max_samples {
        true => "raise max_samples in the preset, and add rows if the dataset has no more",
        false => "add rows to the dataset",
    };
    match request.profile.eq_ignore_ascii_case("dev") {
        true => format!("{add}, or lower preview_n and final_n in the preset"),
        false => {
            let profile = request.profile;
            format!(
                "{add}, or use --profile dev; profile {profile} sets preview_n and final_n, whatever the preset says"
            )
        }
    }
}

/// Numbers of windows.
struct Sizes {
    preview: usize,
    final_: usize,
    /// As [`Windows::adjustments`].
    adjustments: Vec<(usize, usize)>,
}

/// Windows from which both arms are taken.
pub(super) struct Selection<'a, 'm> {
    /// The windows, at least as many as both arms need.
    pub usable: Vec<Window>,
    /// The row of each.
    pub rows: Vec<usize>,
    /// Chooses what is predicted in a masked window.
    pub masker: Option<&'a mut Masker<'m>>,
}

impl Selection<'_, '_> {
    /// The rows of two windows.
    fn rows_of(&self, (one, other): (usize, usize)) -> (usize, usize) {
        (self.rows[one], self.rows[other])
    }

    /// The windows of both arms with these sizes. Masks are other ones each time, because random numbers go on.
    fn windows(&mut self, preview: usize, final_: usize) -> Result<Cow<'_, [Window]>> {
        let windows = &self.usable[..preview + final_];
        let Some(masker) = &mut self.masker else { return Ok(windows.into()) };
        let mut windows = windows.to_vec();
        let (first, second) = windows.split_at_mut(preview);
        for (arm, windows) in [("preview", first), ("final", second)] {
            for (index, window) in windows.iter_mut().enumerate() {
                let tokens = &mut window.ids[..window.real];
                window.labels = Some(masker.mask(arm, index, tokens)?);
            }
        }
        Ok(windows.into())
    }

    /// The largest sizes of the arms, in upstream's sequence of reductions, at which no two windows are equal.
    fn without_duplicates(&mut self, request: &WindowRequest<'_>) -> Result<Sizes> {
        let floor = match request.profile.eq_ignore_ascii_case("release") {
            true => RELEASE_FLOOR,
            false => (request.preview.min(request.final_) / 2).max(10),
        };
        let (mut preview, mut final_, mut adjustments) = (request.preview, request.final_, Vec::new());
        loop {
            let windows = self.windows(preview, final_)?;
            let duplicates = repeated(&windows);
            if duplicates == 0 {
                return Ok(Sizes { preview, final_, adjustments });
            }
            let (count, pair) = (windows.len(), first_duplicate(&windows));
            let smaller = preview.saturating_sub(duplicates.max(STEP));
            if smaller < floor || smaller > self.usable.len() / 2 {
                let why = match smaller < floor {
                    true => format!(
                        "each arm is made smaller by the number of duplicates, at least by {STEP}; {smaller} windows per arm would remain, at least {floor} are needed"
                    ),
                    false => "duplicates can be removed only if both arms have the same number of windows"
                        .to_owned(),
                };
                // Masks can make windows equal whose rows are not.
                let (repeats, count, pair) = match repeated(&self.usable) {
                    0 => (duplicates, count, pair),
                    repeats => (repeats, self.usable.len(), first_duplicate(&self.usable)),
                };
                return Err(Error::input(format!(
                    "{repeats} of the {count} windows repeat another one; {why}"
                ))
                .with_hint(format!(
                    "replace repeated rows by rows with other texts, or raise seq_len: {}{}",
                    pair.map(|pair| equal_rows(self.rows_of(pair))).unwrap_or_default(),
                    if request.joinable { JOIN } else { "" }
                )));
            }
            (preview, final_) = (smaller, smaller);
            adjustments.push((duplicates, smaller));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use invarlock_error::Kind;
    use invarlock_evidence::format::masking::{Masked, Masking};

    fn request(preview: usize, final_: usize) -> WindowRequest<'static> {
        WindowRequest { seq_len: 4, preview, final_, profile: "ci", max_samples: 2000, joinable: false }
    }

    /// Each character of a text is a token.
    fn run(rows: &[String], request: &WindowRequest<'_>) -> Result<Windows> {
        run_with(rows, request, None)
    }

    fn run_with(
        rows: &[String],
        request: &WindowRequest<'_>,
        masker: Option<&mut Masker<'_>>,
    ) -> Result<Windows> {
        let texts = Texts { rows: rows.iter().map(Row::text).collect(), blank: 1 };
        select(&texts, request, &characters(request.seq_len), masker, &|_, _| ())
    }

    /// Makes a token of each character of a text. The padding is 9.
    pub(in crate::windows) fn characters(seq_len: usize) -> impl Fn(&Row) -> Result<Option<Window>> + Sync {
        move |row| {
            let mut ids: Vec<u32> = row.text.chars().map(u32::from).take(seq_len).collect();
            let real = ids.len();
            ids.resize(seq_len, 9);
            Ok((real > 1).then_some(Window { ids, real, labels: None }))
        }
    }

    fn rows(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{i:03}x")).collect()
    }

    #[test]
    fn selects_rows_in_order_and_skips_short_ones() {
        let rows: Vec<String> = ["abcdef", "a", "", "bc", "d", "efg", "unseen"].map(str::to_owned).to_vec();
        let w = run(&rows, &request(1, 2)).expect("selected");
        let codes = |s: &str| s.chars().map(u32::from).collect::<Vec<_>>();
        assert_eq!((&w.preview.ids[..], &w.final_.ids[..]), (&[0][..], &[1, 2][..]));
        assert_eq!(w.preview.windows[0], Window { ids: codes("abcd"), real: 4, labels: None });
        assert_eq!(
            w.final_.windows[0],
            Window { ids: [codes("bc"), vec![9, 9]].concat(), real: 2, labels: None }
        );
        assert_eq!((w.short, w.blank, w.final_.tokens()), (3, 1, 5));
    }

    #[test]
    fn reports_too_few_windows() {
        let error = run(&rows(5), &request(3, 3)).expect_err("too few windows");
        assert_eq!(error.kind(), Kind::Input);
        for word in ["has 5 usable", "need 6", "max_samples 2000", "preview_n 3", "besides 1 blank"] {
            assert!(error.message().contains(word), "{error}");
        }
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("add rows to the dataset, or use --profile dev"), "{hint}");
        let dev = WindowRequest { profile: "dev", max_samples: 5, ..request(3, 3) };
        let error = run(&rows(5), &dev).expect_err("too few windows");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("raise max_samples") && hint.contains("lower preview_n"), "{hint}");
        assert!(run(&rows(5), &request(0, 3)).is_err());
        assert!(run(&rows(5), &request(usize::MAX, 3)).is_err());
        let error = run(&rows(5), &request(1 << 40, 3)).expect_err("too many windows");
        assert!(error.message().contains("are more than"), "{error}");
    }

    /// Every token is replaced by that of masks, so windows are equal whose rows are not.
    #[test]
    fn windows_that_masks_make_equal_are_named() {
        let settings = Masking {
            mask_prob: 1.0,
            random_token_prob: 0.0,
            original_token_prob: 0.0,
            ..Masking::default()
        };
        let masked = Masked { settings, mask_token_id: 1, special_token_ids: vec![1], draws_before: None };
        let mut masker = Masker::new(&masked, 200, 43).expect("a masker");
        let error = run_with(&rows(4), &request(2, 2), Some(&mut masker)).expect_err("equal windows");
        assert!(error.message().starts_with("3 of the 4 windows repeat another one"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("rows 1 and 2")), "{error:?}");
    }

    #[test]
    fn windows_are_masked_after_a_pass_that_looks_for_duplicates() {
        let masked = Masked {
            settings: Masking { mask_prob: 0.5, ..Masking::default() },
            mask_token_id: 1,
            special_token_ids: vec![1, u32::from('x')],
            draws_before: None,
        };
        let mut masker = Masker::new(&masked, 200, 43).expect("a masker");
        let windows = run_with(&rows(4), &request(2, 2), Some(&mut masker)).expect("selected");
        // One draw that is discarded, and two passes over three digits in each of four rows.
        assert_eq!(masker.draws(), 1 + 2 * 12);
        let mut again = Masker::new(&masked, 200, 43).expect("a masker");
        again.skip_to(1 + 12).expect("draws");
        let mut tokens: Vec<u32> = "000x".chars().map(u32::from).collect();
        let labels = again.mask("preview", 0, &mut tokens).expect("masked");
        assert_eq!(
            (&windows.preview.windows[0].ids, &windows.preview.windows[0].labels),
            (&tokens, &Some(labels))
        );
    }

    #[test]
    fn duplicates_reduce_both_arms_as_upstream_does() {
        let mut rows = rows(60);
        rows[59] = rows[0].clone();
        let w = run(&rows, &request(30, 30)).expect("selected");
        assert_eq!((w.preview.windows.len(), w.final_.windows.len()), (25, 25));
        assert_eq!(w.adjustments, [(1, 25)]);
        assert_eq!(w.final_.ids[0], 25);
        assert_eq!(w.final_.windows[0].ids, "025x".chars().map(u32::from).collect::<Vec<_>>());
        // A duplicate among the first 2 · 15 windows: the floor of 15 windows per arm cannot be reached.
        rows[1] = rows[0].clone();
        assert!(
            run(&rows, &request(30, 30)).expect_err("too few").to_string().contains("at least 15 are needed")
        );
        // Padding is not compared.
        let mut padded = rows[2..].to_vec();
        padded[0] = "ab".to_owned();
        padded[1] = format!("ab{}", char::from(9));
        assert!(run(&padded, &request(20, 20)).is_ok());
    }
}
