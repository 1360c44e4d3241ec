//! Windows of rows in an order that the seed decides, after upstream's provider `hf_text`.

use std::collections::HashSet;

use invarlock_evidence::masking::Masker;
use rayon::prelude::*;

use super::random::python_shuffle;
use super::select::{CHUNK, Encode, Selection, WindowRequest, arms, needed, remedy};
use super::{Window, Windows};
use crate::dataset::Texts;
use invarlock_error::{Error, Result};

/// Selects the first windows that differ, in the order of the seed, and masks them if there is a masker.
pub fn shuffled(
    texts: &Texts,
    seed: u64,
    request: &WindowRequest<'_>,
    encode: Encode<'_>,
    masker: Option<&mut Masker<'_>>,
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    let order = python_shuffle(seed, texts.rows.len());
    let (mut found, mut rows): (Vec<Window>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut seen: HashSet<Vec<u32>> = HashSet::new();
    let (mut short, mut repeated) = (0, 0);
    for chunk in order.chunks(CHUNK) {
        if found.len() >= needed {
            break;
        }
        let encoded: Vec<Option<Window>> =
            chunk.par_iter().map(|row| encode(&texts.rows[*row])).collect::<Result<_>>()?;
        for (window, row) in encoded.into_iter().zip(chunk) {
            if found.len() >= needed {
                break;
            }
            match window {
                None => short += 1,
                Some(window) if !seen.insert(window.tokens().to_vec()) => repeated += 1,
                Some(window) => {
                    found.push(window);
                    rows.push(row + 1);
                }
            }
        }
        progress(found.len() as u64, needed as u64);
    }
    if found.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {} usable windows, but preview_n {} and final_n {} need {needed}: {} rows with text were read \
             (max_samples {}), {short} of them have too few tokens to predict one and {repeated} repeat another window",
            found.len(),
            request.preview,
            request.final_,
            texts.rows.len(),
            request.max_samples
        ))
        .with_hint(remedy(request, texts)));
    }
    // Masks can make windows equal that were not.
    let windows = arms(Selection { usable: found, rows, masker }, request)?;
    Ok(Windows { blank: texts.blank, short, ..windows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;
    use crate::windows::select::tests::characters;

    #[test]
    fn rows_are_taken_in_the_order_of_python() {
        let row = |row| Row::text(format!("{}b", char::from(b'a' + row)));
        let texts = Texts { rows: (0..12).map(row).collect(), blank: 0 };
        let request = WindowRequest {
            seq_len: 4,
            preview: 2,
            final_: 2,
            profile: "dev",
            max_samples: 2000,
            joinable: false,
        };
        let encode = characters(4);
        let found = shuffled(&texts, 42, &request, &encode, None, &|_, _| ()).expect("windows");
        let first =
            |arm: &[Window]| arm.iter().map(|window| window.ids[0] - u32::from('a')).collect::<Vec<_>>();
        assert_eq!((first(&found.preview.windows), first(&found.final_.windows)), (vec![7, 5], vec![2, 8]));
        assert_eq!((found.preview.ids, found.final_.ids), (vec![0, 1], vec![2, 3]));
        let same = Texts { rows: vec![Row::text("same"); 9], blank: 0 };
        let error = shuffled(&same, 42, &request, &encode, None, &|_, _| ()).expect_err("too few");
        assert!(error.message().contains("8 repeat another window"), "{error}");
    }
}
