//! Selects windows from a dataset: its rows in order, the preview arm first.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{Arm, Window, Windows, check_size};
use crate::dataset::Texts;
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
    /// Token id that pads windows.
    pub pad: u32,
    /// Profile, which decides how far duplicates may reduce the arms.
    pub profile: &'a str,
    /// Limit of the rows that were read, for messages.
    pub max_samples: usize,
}

/// Fewest windows per arm with the profile `release`.
const RELEASE_FLOOR: usize = 200;
/// Fewest windows by which duplicates reduce an arm.
const STEP: usize = 5;
/// Rows tokenized between two progress events.
pub(super) const CHUNK: usize = 256;

/// Selects the first usable rows. `encode` returns the token ids of a row, at most `seq_len`.
///
/// Where windows are equal, both arms are reduced to one smaller number of windows and selected again, as upstream does.
pub fn select(
    texts: &Texts,
    request: &WindowRequest<'_>,
    encode: &(dyn Fn(&str) -> Result<Vec<u32>> + Sync),
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    progress(0, needed as u64);
    let (mut usable, mut rows): (Vec<Window>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut short = 0;
    for (chunk, first) in texts.texts.chunks(CHUNK).zip((1..).step_by(CHUNK)) {
        if usable.len() >= needed {
            break;
        }
        let encoded: Vec<Vec<u32>> = chunk.par_iter().map(|text| encode(text)).collect::<Result<_>>()?;
        for (ids, row) in encoded.into_iter().zip(first..) {
            if usable.len() >= needed {
                break;
            }
            match window(ids, request) {
                Some(window) => {
                    usable.push(window);
                    rows.push(row);
                }
                None => short += 1,
            }
        }
        progress(usable.len() as u64, needed as u64);
    }
    if usable.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {} usable windows, but preview_n {} and final_n {} need {needed}: {} rows with text were \
             read (max_samples {}), besides {} blank ones; {short} of them have fewer than 2 tokens",
            usable.len(),
            request.preview,
            request.final_,
            texts.texts.len(),
            request.max_samples,
            texts.blank
        ))
        .with_hint(remedy(request, texts)));
    }
    let windows = arms(usable, &rows, request)?;
    Ok(Windows { blank: texts.blank, short, ..windows })
}

/// Both arms of enough windows, without duplicates. `rows` has the row of each window.
pub(super) fn arms(mut usable: Vec<Window>, rows: &[usize], request: &WindowRequest<'_>) -> Result<Windows> {
    let Sizes { preview, final_, adjustments } = without_duplicates(&usable, rows, request)?;
    let equal_rows = if adjustments.is_empty() { None } else { first_duplicate(&usable, rows) };
    usable.truncate(preview + final_);
    let second = usable.split_off(preview);
    Ok(Windows { adjustments, equal_rows, ..numbered(usable, second) })
}

/// Both arms with ids in order.
pub(super) fn numbered(preview: Vec<Window>, final_: Vec<Window>) -> Windows {
    let ids = |from: usize, n: usize| (from as u64..(from + n) as u64).collect();
    let (first, second) = (preview.len(), final_.len());
    Windows {
        preview: Arm { ids: ids(0, first), windows: preview },
        final_: Arm { ids: ids(first, second), windows: final_ },
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

/// A window of the tokens of a row; none where there are fewer than two.
pub(super) fn window(mut ids: Vec<u32>, request: &WindowRequest<'_>) -> Option<Window> {
    ids.truncate(request.seq_len);
    let real = ids.len();
    ids.resize(request.seq_len, request.pad);
    (real >= 2).then_some(Window { ids, real })
}

/// The rows of the first two equal windows; `rows` has the row of each window.
fn first_duplicate(windows: &[Window], rows: &[usize]) -> Option<(usize, usize)> {
    let mut seen: HashMap<&[u32], usize> = HashMap::with_capacity(windows.len());
    let mut windows = windows.iter().zip(rows);
    windows.find_map(|(window, row)| seen.insert(window.tokens(), *row).map(|first| (first, *row)))
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
    let add = match texts.texts.len() + texts.blank >= request.max_samples {
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

/// The largest sizes of the arms, in upstream's sequence of reductions, at which no two windows are equal.
fn without_duplicates(usable: &[Window], rows: &[usize], request: &WindowRequest<'_>) -> Result<Sizes> {
    let floor = match request.profile.eq_ignore_ascii_case("release") {
        true => RELEASE_FLOOR,
        false => (request.preview.min(request.final_) / 2).max(10),
    };
    let (mut preview, mut final_, mut adjustments) = (request.preview, request.final_, Vec::new());
    loop {
        let windows = &usable[..preview + final_];
        let duplicates = repeated(windows);
        if duplicates == 0 {
            return Ok(Sizes { preview, final_, adjustments });
        }
        let smaller = preview.saturating_sub(duplicates.max(STEP));
        if smaller < floor || smaller > usable.len() / 2 {
            let why = match smaller < floor {
                true => format!(
                    "each arm is made smaller by the number of duplicates, at least by {STEP}; {smaller} windows per arm would remain, at least {floor} are needed"
                ),
                false => {
                    "duplicates can be removed only if both arms have the same number of windows".to_owned()
                }
            };
            return Err(Error::input(format!(
                "{} of the {} windows repeat another one; {why}",
                repeated(usable),
                usable.len(),
            ))
            .with_hint(format!(
                "replace repeated rows by rows with other texts, or raise seq_len: {}",
                first_duplicate(usable, rows).map(equal_rows).unwrap_or_default()
            )));
        }
        (preview, final_) = (smaller, smaller);
        adjustments.push((duplicates, smaller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn request(preview: usize, final_: usize) -> WindowRequest<'static> {
        WindowRequest { seq_len: 4, preview, final_, pad: 9, profile: "ci", max_samples: 2000 }
    }

    /// Each character of a text is a token.
    fn run(rows: &[String], request: &WindowRequest<'_>) -> Result<Windows> {
        let texts = Texts { texts: rows.to_vec(), blank: 1, ..Texts::default() };
        select(&texts, request, &|t| Ok(t.chars().map(u32::from).collect()), &|_, _| ())
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
        assert_eq!(w.preview.windows[0], Window { ids: codes("abcd"), real: 4 });
        assert_eq!(w.final_.windows[0], Window { ids: [codes("bc"), vec![9, 9]].concat(), real: 2 });
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
