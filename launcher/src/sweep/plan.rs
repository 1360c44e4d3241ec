//! The plan of a sweep, read from YAML.

use crate::error::{Context as _, Error, Result};
use crate::inputs;
use crate::preset_sections::check_members;
use serde::Deserialize;
use serde_norway::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const MAX_BYTES: u64 = 1 << 20;
/// The most runs.
const MAX_RUNS: usize = 10_000;
/// The longest name, bytes.
const MAX_NAME: usize = 100;
const MEMBERS: [&str; 4] = ["baseline", "subjects", "presets", "seeds"];

/// A plan. The order of the axes is that of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepPlan {
    /// The baseline checkpoint.
    pub baseline: PathBuf,
    /// Names and checkpoints of the subjects.
    pub subjects: Vec<(String, PathBuf)>,
    /// Names and files of the presets.
    pub presets: Vec<(String, PathBuf)>,
    /// Seeds that draw windows; one `None` where the first rows are taken.
    pub seeds: Vec<Option<u64>>,
    /// Options that parts of the runs have; of a plan in a file, one without options.
    pub variants: Vec<Variant>,
}

/// Options of `evaluate` that a part of the runs has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variant {
    /// For progress; may be empty.
    pub name: String,
    /// The options.
    pub options: Vec<OsString>,
}

#[derive(Deserialize)]
struct Members {
    baseline: PathBuf,
    subjects: Value,
    presets: Value,
    #[serde(default)]
    seeds: Option<Vec<u64>>,
}

impl SweepPlan {
    /// Reads a plan. Relative paths are resolved in the current directory, then next to the plan, as those of a preset.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = inputs::read_small("the plan", path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::input("not UTF-8 text"));
        text.and_then(|text| parse(path, &text))
            .with_context(|| format!("sweep plan {}", path.display()))
            .hint("`invarlock sweep --help` shows a plan")
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        let axes = [self.subjects.len(), self.presets.len(), self.seeds.len(), self.variants.len()];
        axes.into_iter().fold(1, usize::saturating_mul)
    }

    /// Whether there is a run, and not too many.
    pub fn check(&self) -> Result<()> {
        match self.runs() {
            0 => Err(Error::input("an axis is empty, so there is no run")),
            1..=MAX_RUNS => Ok(()),
            runs => Err(Error::input(format!("{runs} runs; at most {MAX_RUNS} are supported"))),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<SweepPlan> {
    let value: Value =
        serde_norway::from_str(text).map_err(|why| Error::input(format!("not valid YAML: {why}")))?;
    if !value.is_mapping() {
        return Err(Error::input("not a mapping"));
    }
    check_members("the plan", &value, &MEMBERS)?;
    let Members { baseline, subjects, presets, seeds } =
        serde_norway::from_value(value).map_err(|why| Error::input(why.to_string()))?;
    let resolve = |file: &Path| inputs::here_or_beside(file, path);
    let plan = SweepPlan {
        baseline: resolve(&baseline),
        subjects: axis("subjects", &subjects, &resolve)?,
        presets: axis("presets", &presets, &resolve)?,
        seeds: match seeds {
            None => vec![None],
            Some(seeds) => distinct("seeds", seeds)?.into_iter().map(Some).collect(),
        },
        variants: vec![Variant::default()],
    };
    plan.check()?;
    Ok(plan)
}

/// Names with paths: a mapping, or a list of paths, each of which is named after its last part.
fn axis(name: &str, value: &Value, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<Vec<(String, PathBuf)>> {
    let wrong = || Error::input(format!("{name} is neither a list of paths nor a mapping of names to paths"));
    let pairs: Vec<(String, PathBuf)> = match value {
        Value::Mapping(members) => {
            let pair =
                |(name, path): (&Value, &Value)| Some((name.as_str()?.to_owned(), path.as_str()?.into()));
            members.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Value::Sequence(paths) => {
            let pair = |path: &Value| {
                let path = PathBuf::from(path.as_str()?);
                Some((path.file_stem()?.to_str()?.to_owned(), path))
            };
            paths.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    if let Some((bad, _)) = pairs
        .iter()
        .find(|(name, _)| name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control))
    {
        return Err(Error::input(format!("{name}: {bad:?} is not a name of 1 to {MAX_NAME} bytes")));
    }
    distinct(name, pairs.iter().map(|(name, _)| name.clone()).collect())?;
    Ok(pairs.into_iter().map(|(name, path)| (name, resolve(&path))).collect())
}

/// The values, none of which occurs twice.
fn distinct<T: Ord + Clone + std::fmt::Debug>(axis: &str, values: Vec<T>) -> Result<Vec<T>> {
    let mut seen = BTreeSet::new();
    match values.iter().find(|value| !seen.insert((*value).clone())) {
        Some(twice) => Err(Error::input(format!("{axis}: {twice:?} occurs twice"))
            .with_hint("give each an own name: a mapping of names to paths")),
        None => Ok(values),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SweepPlan> {
        parse(Path::new("plan.yaml"), text)
    }

    #[test]
    fn axes_are_mappings_or_lists_in_the_order_of_the_file() {
        let plan = read("baseline: b\nsubjects: {z: s/z, a: s/a}\npresets: [p/valid.yaml]\nseeds: [2, 1]\n")
            .unwrap();
        let names =
            |axis: &[(String, PathBuf)]| axis.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&plan.subjects), names(&plan.presets)),
            (vec!["z".to_owned(), "a".to_owned()], vec!["valid".to_owned()])
        );
        assert_eq!(plan.seeds, [Some(2), Some(1)]);
        assert_eq!(read("baseline: b\nsubjects: [s]\npresets: [p]\n").unwrap().seeds, [None]);
    }

    #[test]
    fn faults_are_named() {
        for (text, word) in [
            ("[]", "not a mapping"),
            ("baseline: b\nsubjects: [s]\npreset: [p]\n", "the plan.preset is not a known setting"),
            ("subjects: [s]\npresets: [p]\n", "baseline"),
            ("baseline: b\nsubjects: []\npresets: [p]\n", "an axis is empty"),
            ("baseline: b\nsubjects: [s]\npresets: [p]\nseeds: []\n", "an axis is empty"),
            ("baseline: b\nsubjects: [x/s, y/s]\npresets: [p]\n", "\"s\" occurs twice"),
            ("baseline: b\nsubjects: [s]\npresets: [p]\nseeds: [1, 1]\n", "1 occurs twice"),
            ("baseline: b\nsubjects: {a: 1}\npresets: [p]\n", "subjects is neither"),
            ("baseline: b\nsubjects: 3\npresets: [p]\n", "subjects is neither"),
            ("baseline: b\nsubjects: {\"\\n\": s}\npresets: [p]\n", "is not a name"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
