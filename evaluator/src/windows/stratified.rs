//! Windows of two arms that are equally difficult, after upstream's provider `wikitext2`.

use std::collections::HashMap;

use rayon::prelude::*;

use super::random::numpy_permutation;
use super::select::{Encode, WindowRequest, needed, numbered};
use super::{Window, Windows};
use crate::dataset::{Row, Texts};
use invarlock_error::{Error, Result};

/// Fewest characters of a row.
const LEAST_CHARACTERS: usize = 20;
/// Value that stands for the bytes before a text.
const PAD: u16 = 256;
/// Different values of a byte, with [`PAD`].
const VALUES: f64 = 257.0;
/// Most exchanges between the arms.
const ROUNDS: usize = 100;
/// Difference of the arms' mean difficulties at which exchanging ends.
const EQUAL: f64 = 1e-4;
/// Least improvement of that difference by an exchange.
const IMPROVEMENT: f64 = 1e-6;

/// A window, and the row that it is from.
struct Candidate {
    window: Window,
    row: usize,
    difficulty: f64,
}

/// Selects the windows.
pub fn stratified(
    texts: &Texts,
    seed: u64,
    request: &WindowRequest<'_>,
    encode: Encode<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<Windows> {
    let needed = needed(request)?;
    let seed = u32::try_from(seed)
        .map_err(|_| Error::input(format!("seed {seed}: numpy's RandomState takes seeds below 2^32")))?;
    let rows: Vec<&str> = texts
        .rows
        .iter()
        .map(|row| row.text.trim())
        .filter(|text| text.chars().count() >= LEAST_CHARACTERS && text.chars().any(char::is_alphabetic))
        .collect();
    let reserve = (needed / 10).max(16);
    let pool = rows.len().min(needed + 2 * reserve);
    let too_few = |found: usize, what: &str| {
        Error::input(format!(
            "the dataset has {found} usable {what}, but preview_n {} and final_n {} need {needed}; rows need {LEAST_CHARACTERS} characters \
             and a letter",
            request.preview, request.final_
        ))
        .with_hint("use a larger split, such as train")
    };
    if pool < needed {
        return Err(too_few(rows.len(), "rows"));
    }
    let order = numpy_permutation(seed, rows.len());
    let (mut candidates, mut short) = (Vec::new(), 0);
    for chunk in order.chunks(pool.clamp(64, 256)) {
        if candidates.len() >= needed + reserve {
            break;
        }
        let encoded: Vec<Option<Window>> =
            chunk.par_iter().map(|row| encode(&Row::text(rows[*row]))).collect::<Result<_>>()?;
        for (row, window) in chunk.iter().zip(encoded) {
            match window {
                Some(window) => candidates.push(Candidate { window, row: *row, difficulty: 0.0 }),
                None => short += 1,
            }
        }
        progress(candidates.len().min(needed) as u64, needed as u64);
    }
    if candidates.len() < needed {
        return Err(too_few(candidates.len(), "windows"));
    }
    rate(&mut candidates, &rows);
    candidates.sort_by(|a, b| a.difficulty.total_cmp(&b.difficulty).then(a.row.cmp(&b.row)));
    let chosen = spread(candidates, needed);
    let (mut preview, mut final_) = deal(chosen, request.preview, request.final_);
    balance(&mut preview, &mut final_);
    for arm in [&mut preview, &mut final_] {
        arm.sort_by(|a, b| a.difficulty.total_cmp(&b.difficulty).then(a.row.cmp(&b.row)));
    }
    let windows = |arm: Vec<Candidate>| arm.into_iter().map(|candidate| candidate.window).collect();
    Ok(Windows { blank: texts.blank, short, ..numbered(windows(preview), windows(final_)) })
}

/// Sets the difficulty of each candidate: the mean negative log-likelihood of its bytes after three others, with counts over all
/// candidates, one added.
fn rate(candidates: &mut [Candidate], rows: &[&str]) {
    let mut grams: HashMap<[u16; 4], f64> = HashMap::new();
    let mut contexts: HashMap<[u16; 3], f64> = HashMap::new();
    for candidate in candidates.iter() {
        for gram in windows_of_bytes(rows[candidate.row]) {
            let [a, b, c, _] = gram;
            *grams.entry(gram).or_default() += 1.0;
            *contexts.entry([a, b, c]).or_default() += 1.0;
        }
    }
    for candidate in candidates {
        let text = rows[candidate.row];
        let mut total = 0.0;
        for gram in windows_of_bytes(text) {
            let [a, b, c, _] = gram;
            let (count, context) =
                (grams.get(&gram).copied().unwrap_or(0.0), contexts.get(&[a, b, c]).copied().unwrap_or(0.0));
            total -= ((count + 1.0) / (context + VALUES)).ln();
        }
        candidate.difficulty = total / text.len().max(1) as f64;
    }
}

/// Each byte after the three before it.
fn windows_of_bytes(text: &str) -> impl Iterator<Item = [u16; 4]> {
    let mut context = [PAD; 3];
    text.bytes().map(move |byte| {
        let [a, b, c] = context;
        let byte = u16::from(byte);
        context = [b, c, byte];
        [a, b, c, byte]
    })
}

/// Takes `count` of the sorted candidates, at even distances. They stay sorted.
fn spread(candidates: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    let total = candidates.len();
    let mut used = vec![false; total];
    for k in 0..count {
        let target = (k as f64 + 0.5) * total as f64 / count as f64;
        let base = target.round_ties_even() as usize;
        let free = |place: Option<usize>| place.filter(|place| *place < total && !used[*place]);
        let found = (0..total).find_map(|distance| {
            free(base.checked_add(distance)).or_else(|| free(base.checked_sub(distance)))
        });
        if let Some(place) = found {
            used[place] = true;
        }
    }
    candidates.into_iter().zip(used).filter(|(_, used)| *used).map(|(candidate, _)| candidate).collect()
}

/// Deals neighbours to both arms: the easier one to the preview arm, then to the final arm, and so on. An arm that is full passes.
fn deal(chosen: Vec<Candidate>, preview_n: usize, final_n: usize) -> (Vec<Candidate>, Vec<Candidate>) {
    let (mut preview, mut final_) = (Vec::with_capacity(preview_n), Vec::with_capacity(final_n));
    let paired = chosen.len() / 2 * 2;
    for (place, candidate) in chosen.into_iter().enumerate() {
        let (pair, harder) = (place / 2, place % 2 == 1);
        let to_preview = place == paired || (pair % 2 == 0) != harder;
        let full = |arm: &Vec<Candidate>, n: usize| arm.len() >= n;
        match (to_preview && !full(&preview, preview_n)) || full(&final_, final_n) {
            true => preview.push(candidate),
            false => final_.push(candidate),
        }
    }
    (preview, final_)
}

/// Exchanges windows until the mean difficulties of both arms are equal, or no exchange helps.
fn balance(preview: &mut [Candidate], final_: &mut [Candidate]) {
    let mean = |arm: &[Candidate]| {
        arm.iter().map(|candidate| candidate.difficulty).sum::<f64>() / arm.len().max(1) as f64
    };
    let place = |arm: &[Candidate], largest: bool| {
        let difficulty = |place: &usize| arm[*place].difficulty;
        // Of equal ones the first, as Python's min and max give.
        match largest {
            true => (0..arm.len()).rev().max_by(|a, b| difficulty(a).total_cmp(&difficulty(b))),
            false => (0..arm.len()).min_by(|a, b| difficulty(a).total_cmp(&difficulty(b))),
        }
    };
    for _ in 0..ROUNDS {
        let difference = mean(preview) - mean(final_);
        if difference.abs() <= EQUAL {
            break;
        }
        let easier = difference < 0.0;
        let (Some(one), Some(other)) = (place(preview, !easier), place(final_, easier)) else { break };
        std::mem::swap(&mut preview[one], &mut final_[other]);
        if (mean(preview) - mean(final_)).abs() >= difference.abs() - IMPROVEMENT {
            std::mem::swap(&mut preview[one], &mut final_[other]);
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::select::tests::characters;

    fn candidates(difficulties: &[f64]) -> Vec<Candidate> {
        let window = Window { ids: vec![], real: 0, labels: None };
        let candidate = |(row, difficulty): (usize, &f64)| Candidate {
            window: window.clone(),
            row,
            difficulty: *difficulty,
        };
        difficulties.iter().enumerate().map(candidate).collect()
    }

    fn rows(candidates: &[Candidate]) -> Vec<usize> {
        candidates.iter().map(|candidate| candidate.row).collect()
    }

    #[test]
    fn candidates_are_taken_at_even_distances() {
        // Targets 1.25, 3.75, 6.25, 8.75.
        assert_eq!(rows(&spread(candidates(&[0.0; 10]), 4)), [1, 4, 6, 9]);
        // Targets 0.5, 1.5, 2.5 are rounded to even numbers: 0, 2, 2, and the last takes the next place.
        assert_eq!(rows(&spread(candidates(&[0.0; 3]), 3)), [0, 1, 2]);
    }

    #[test]
    fn neighbours_go_to_different_arms() {
        let (preview, final_) = deal(candidates(&[0.0; 7]), 4, 3);
        assert_eq!((rows(&preview), rows(&final_)), (vec![0, 3, 4, 6], vec![1, 2, 5]));
        let (preview, final_) = deal(candidates(&[0.0; 6]), 1, 5);
        assert_eq!((rows(&preview), rows(&final_)), (vec![0], vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn exchanges_make_the_arms_equally_difficult() {
        let mut all = candidates(&[1.0, 2.0, 3.0, 4.0]);
        let mut final_ = all.split_off(2);
        balance(&mut all, &mut final_);
        // 1 and 4 change places; then no exchange helps.
        assert_eq!((rows(&all), rows(&final_)), (vec![3, 1], vec![2, 0]));
    }

    #[test]
    fn the_difficulty_is_that_of_smoothed_grams() {
        let mut one = candidates(&[0.0]);
        rate(&mut one, &["aaaa"]);
        // Contexts: three pads; two pads and a; one pad and a a; a a a. Each gram is counted once.
        let expected = -(2.0f64 / 258.0).ln();
        assert!((one[0].difficulty - expected).abs() < 1e-12, "{}", one[0].difficulty);
    }

    #[test]
    fn arms_are_sorted_and_balanced() {
        let row = |i: usize| Row::text(format!("row number {i} with words {}", "abc ".repeat(i * 7919 % 23)));
        let texts = Texts { rows: (0..200).map(row).collect(), blank: 0 };
        let request = WindowRequest {
            seq_len: 8,
            preview: 20,
            final_: 20,
            profile: "dev",
            max_samples: 2000,
            joinable: false,
        };
        let encode = characters(8);
        let found = stratified(&texts, 42, &request, &encode, &|_, _| ()).expect("windows");
        assert_eq!((found.preview.windows.len(), found.final_.windows.len()), (20, 20));
        let short = Texts { rows: vec![Row::text("too short"); 200], blank: 0 };
        let error = stratified(&short, 42, &request, &encode, &|_, _| ()).expect_err("too few");
        assert!(error.message().contains("has 0 usable rows"), "{error}");
    }
}
