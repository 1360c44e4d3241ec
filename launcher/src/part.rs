//! A part of the runs of a sweep, for the tasks of a batch system.

use std::ops::Range;
use std::str::FromStr;

/// Part `index` of `count`, from 0. Parts are of neighbouring runs, which share baselines, and differ by at most one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    index: usize,
    count: usize,
}

/// The most parts.
const MAX_PARTS: usize = 10_000;

impl Part {
    /// All runs.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// The numbers of its runs, of `runs` in all.
    pub fn of(self, runs: usize) -> Range<usize> {
        let start = |index: usize| runs * index / self.count;
        start(self.index)..start(self.index + 1)
    }

    /// The parts of `runs` runs that contain one of those with these numbers.
    pub fn with_any(numbers: &[usize], runs: usize, count: usize) -> Vec<usize> {
        let contains = |index: &usize| {
            let range = Self { index: *index, count }.of(runs);
            numbers.iter().any(|number| range.contains(number))
        };
        (0..count).filter(contains).collect()
    }

    /// A name for files.
    pub fn name(self) -> String {
        format!("{}-of-{}", self.index, self.count)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if index < count && count <= MAX_PARTS => Ok(Self { index, count }),
            Some(_) => Err(format!("parts are numbered from 0; there are at most {MAX_PARTS}")),
            None => Err("not of the form INDEX/COUNT, such as 0/8".to_owned()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_in_one_part() {
        for (runs, count) in (0..40).flat_map(|runs| (1..20).map(move |count| (runs, count))) {
            let part = |index| format!("{index}/{count}").parse::<Part>().unwrap().of(runs);
            assert_eq!((0..count).flat_map(part).collect::<Vec<_>>(), (0..runs).collect::<Vec<_>>());
            let sizes: Vec<usize> = (0..count).map(|index| part(index).len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{runs} {count}");
        }
    }

    #[test]
    fn parts_without_work_are_left_out() {
        assert_eq!(Part::with_any(&[0, 9], 10, 5), [0, 4]);
        assert_eq!(Part::with_any(&[], 10, 5), [0_usize; 0]);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "1", "2/2", "-1/2", "0/0", "0/10001", "a/b"] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }
}
