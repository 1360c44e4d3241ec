//! Selecting windows from a dataset: its rows in order, the preview arm first.

use std::collections::HashSet;

use rayon::prelude::*;

use super::{Arm, Window, Windows, check_size};
use crate::dataset::Texts;
use invarlock_error::{Result, bail};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Tokens a window.
    pub seq_len: usize,
    /// Windows of the preview arm.
    pub preview: usize,
    /// Windows of the final arm.
    pub final_: usize,
    /// Id that fills windows up.
    pub pad: u32,
    /// Profile, which says how far duplicates may reduce the arms.
    pub profile: &'a str,
    /// Rows that were read at most, for messages.
    pub max_samples: usize,
}

/// Windows per arm that a release needs at least.
const RELEASE_FLOOR: usize = 200;
/// Windows by which an arm is reduced at least when there are duplicates.
const STEP: usize = 5;
/// Rows encoded between two reports.
const CHUNK: usize = 256;

/// Makes windows of the first usable rows. `encode` gives the ids of a row, at most `seq_len`.
///
/// Where windows are equal, both arms are reduced to one smaller number and taken anew, as upstream does
/// (`spec/math.md` section 1).
pub fn select(
    texts: &Texts,
    asked: &Asked<'_>,
    encode: &(dyn Fn(&str) -> Result<Vec<u32>> + Sync),
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = match asked.preview.checked_add(asked.final_) {
        Some(needed) if asked.preview > 0 && asked.final_ > 0 => needed,
        _ => bail!(Input, "preview_n {} and final_n {} must both be at least 1", asked.preview, asked.final_),
    };
    check_size(asked.seq_len, needed)?;
    progress(0, needed as u64);
    let mut usable: Vec<Window> = Vec::new();
    let mut short = 0;
    for chunk in texts.texts.chunks(CHUNK) {
        if usable.len() >= needed {
            break;
        }
        let encoded: Vec<Vec<u32>> = chunk.par_iter().map(|text| encode(text)).collect::<Result<_>>()?;
        for mut ids in encoded {
            if usable.len() >= needed {
                break;
            }
            ids.truncate(asked.seq_len);
            let real = ids.len();
            if real < 2 {
                short += 1;
                continue;
            }
            ids.resize(asked.seq_len, asked.pad);
            usable.push(Window { ids, real });
        }
        progress(usable.len() as u64, needed as u64);
    }
    if usable.len() < needed {
        bail!(
            Input,
            "the dataset gives {} usable windows, but preview_n {} and final_n {} need {needed}: {} rows were read (at \
             most max_samples {}), {} more were blank and {short} have fewer than 2 tokens; give more rows, raise \
             max_samples, or lower preview_n and final_n (the profile may set them)",
            usable.len(),
            asked.preview,
            asked.final_,
            texts.texts.len(),
            asked.max_samples,
            texts.blank
        );
    }
    let Sizes { preview, final_, adjustments } = without_duplicates(&usable, asked)?;
    usable.truncate(preview + final_);
    let ids = |from: usize, n: usize| (from as u64..(from + n) as u64).collect();
    let second = usable.split_off(preview);
    Ok(Windows {
        preview: Arm { ids: ids(0, preview), windows: usable },
        final_: Arm { ids: ids(preview, final_), windows: second },
        blank: texts.blank,
        short,
        adjustments,
    })
}

/// Windows an arm.
struct Sizes {
    preview: usize,
    final_: usize,
    /// Duplicates found and windows an arm after it, for each reduction.
    adjustments: Vec<(usize, usize)>,
}

/// Sizes of the arms at which no two windows are equal, and the reductions that led there.
fn without_duplicates(usable: &[Window], asked: &Asked<'_>) -> Result<Sizes> {
    let floor = match asked.profile.eq_ignore_ascii_case("release") {
        true => RELEASE_FLOOR,
        false => (asked.preview.min(asked.final_) / 2).max(10),
    };
    let (mut preview, mut final_, mut adjustments) = (asked.preview, asked.final_, Vec::new());
    loop {
        let windows = &usable[..preview + final_];
        let different: HashSet<&[u32]> = windows.iter().map(Window::tokens).collect();
        let duplicates = windows.len() - different.len();
        if duplicates == 0 {
            return Ok(Sizes { preview, final_, adjustments });
        }
        let smaller =
            preview.checked_sub(duplicates.max(STEP)).filter(|n| *n >= floor && *n <= usable.len() / 2);
        let Some(smaller) = smaller else {
            bail!(
                Input,
                "{duplicates} of the first {} windows repeat another one (rows are equal in their first {} tokens), and \
                 without repetition fewer than {floor} windows an arm remain: remove equal rows or make windows longer",
                windows.len(),
                asked.seq_len
            );
        };
        (preview, final_) = (smaller, smaller);
        adjustments.push((duplicates, smaller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn asked(preview: usize, final_: usize) -> Asked<'static> {
        Asked { seq_len: 4, preview, final_, pad: 9, profile: "ci", max_samples: 2000 }
    }

    /// Each character of a text is a token.
    fn run(rows: &[String], asked: &Asked<'_>) -> Result<Windows> {
        let texts = Texts { texts: rows.to_vec(), blank: 1 };
        select(&texts, asked, &|t| Ok(t.chars().map(u32::from).collect()), &|_, _| ())
    }

    fn rows(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{i:03}x")).collect()
    }

    #[test]
    fn rows_are_taken_in_order_and_short_ones_passed_over() {
        let rows: Vec<String> = ["abcdef", "a", "", "bc", "d", "efg", "unseen"].map(str::to_owned).to_vec();
        let w = run(&rows, &asked(1, 2)).expect("selected");
        let codes = |s: &str| s.chars().map(u32::from).collect::<Vec<_>>();
        assert_eq!((&w.preview.ids[..], &w.final_.ids[..]), (&[0][..], &[1, 2][..]));
        assert_eq!(w.preview.windows[0], Window { ids: codes("abcd"), real: 4 });
        assert_eq!(w.final_.windows[0], Window { ids: [codes("bc"), vec![9, 9]].concat(), real: 2 });
        assert_eq!((w.short, w.blank, w.final_.tokens()), (3, 1, 5));
    }

    #[test]
    fn too_few_windows_say_what_to_change() {
        match run(&rows(5), &asked(3, 3)) {
            Err(m) if m.kind() == Kind::Input => {
                for word in
                    ["gives 5 usable", "need 6", "max_samples 2000", "preview_n 3", "1 more were blank"]
                {
                    assert!(m.message().contains(word), "{m}");
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(run(&rows(5), &asked(0, 3)).is_err());
        assert!(run(&rows(5), &asked(usize::MAX, 3)).is_err());
        assert!(
            run(&rows(5), &asked(1 << 40, 3)).expect_err("too many").to_string().contains("fewer or shorter")
        );
    }

    #[test]
    fn duplicates_reduce_both_arms_as_upstream_does() {
        let mut rows = rows(60);
        rows[59] = rows[0].clone();
        let w = run(&rows, &asked(30, 30)).expect("selected");
        assert_eq!((w.preview.windows.len(), w.final_.windows.len()), (25, 25));
        assert_eq!(w.adjustments, [(1, 25)]);
        assert_eq!(w.final_.ids[0], 25);
        assert_eq!(w.final_.windows[0].ids, "025x".chars().map(u32::from).collect::<Vec<_>>());
        // Equal among the first 2 x 15 in any case: below the floor of 15 nothing is left.
        rows[1] = rows[0].clone();
        assert!(
            run(&rows, &asked(30, 30)).expect_err("too few").to_string().contains("fewer than 15 windows")
        );
        // Padding does not make windows equal or different.
        let mut padded = rows[2..].to_vec();
        padded[0] = "ab".to_owned();
        padded[1] = format!("ab{}", char::from(9));
        assert!(run(&padded, &asked(20, 20)).is_ok());
    }
}
