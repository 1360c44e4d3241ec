//! Windows of rows in an order that the seed decides, after upstream's provider `hf_text`.

use std::collections::HashSet;

use rayon::prelude::*;

use super::random::python_shuffle;
use super::select::{CHUNK, WindowRequest, needed, numbered, remedy, window};
use super::{Window, Windows};
use crate::dataset::Texts;
use invarlock_error::{Error, Result};

/// Selects the first windows that differ, of two tokens or more. `encode` returns the token ids of a row.
pub fn shuffled(
    texts: &Texts,
    seed: u64,
    request: &WindowRequest<'_>,
    encode: &(dyn Fn(&str) -> Result<Vec<u32>> + Sync),
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    let order = python_shuffle(seed, texts.texts.len());
    let (mut found, mut seen): (Vec<Window>, HashSet<Vec<u32>>) = (Vec::new(), HashSet::new());
    let (mut short, mut repeated) = (0, 0);
    for chunk in order.chunks(CHUNK) {
        if found.len() >= needed {
            break;
        }
        let encoded: Vec<Vec<u32>> =
            chunk.par_iter().map(|row| encode(&texts.texts[*row])).collect::<Result<_>>()?;
        for ids in encoded {
            if found.len() >= needed {
                break;
            }
            match window(ids, request) {
                None => short += 1,
                Some(window) if !seen.insert(window.tokens().to_vec()) => repeated += 1,
                Some(window) => found.push(window),
            }
        }
        progress(found.len() as u64, needed as u64);
    }
    if found.len() < needed {
        return Err(Error::input(format!(
            "the dataset has {} usable windows, but preview_n {} and final_n {} need {needed}: {} rows with text were read \
             (max_samples {}), {short} of them have fewer than 2 tokens and {repeated} repeat another window",
            found.len(),
            request.preview,
            request.final_,
            texts.texts.len(),
            request.max_samples
        ))
        .with_hint(remedy(request, texts)));
    }
    let second = found.split_off(request.preview);
    Ok(Windows { blank: texts.blank, short, ..numbered(found, second) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_in_the_order_of_python() {
        let texts = Texts {
            texts: (0..12).map(|row| format!("{}b", char::from(b'a' + row))).collect(),
            ..Texts::default()
        };
        let request =
            WindowRequest { seq_len: 4, preview: 2, final_: 2, pad: 0, profile: "dev", max_samples: 2000 };
        let encode = |text: &str| Ok(text.chars().map(u32::from).collect());
        let found = shuffled(&texts, 42, &request, &encode, &|_, _| ()).expect("windows");
        let first =
            |arm: &[Window]| arm.iter().map(|window| window.ids[0] - u32::from('a')).collect::<Vec<_>>();
        assert_eq!((first(&found.preview.windows), first(&found.final_.windows)), (vec![7, 5], vec![2, 8]));
        assert_eq!((found.preview.ids, found.final_.ids), (vec![0, 1], vec![2, 3]));
        let same = Texts { texts: vec!["same".to_owned(); 9], ..Texts::default() };
        let error = shuffled(&same, 42, &request, &encode, &|_, _| ()).expect_err("too few");
        assert!(error.message().contains("8 repeat another window"), "{error}");
    }
}
