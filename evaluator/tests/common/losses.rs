//! Expected losses of a checkpoint, in `expected.json` beside it.

use std::fs;
use std::path::{Path, PathBuf};

use invarlock_error::Error;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Arithmetic, Example, Model};
use serde::Deserialize;
use serde_json::Value;

/// Largest relative difference of a window's loss.
const TOLERANCE: f64 = 1e-5;

/// What `expected.json` contains.
#[derive(Deserialize)]
pub struct Expected {
    /// `causal`, `masked` or `seq2seq`.
    pub kind: String,
    #[serde(default, alias = "sources")]
    windows: Vec<Vec<u32>>,
    #[serde(default, alias = "targets")]
    labels: Option<Vec<Vec<i64>>>,
    /// With inputs of layers in float32.
    pub losses: Vec<f64>,
    /// Windows that are also measured with quantised inputs, as the configuration asks, and their losses.
    #[serde(default)]
    rounded_windows: Vec<Vec<u32>>,
    #[serde(default)]
    rounded_losses: Vec<f64>,
}

impl Expected {
    /// What is measured.
    pub fn examples(&self) -> Vec<Example<'_>> {
        let labels = |i: usize| Some(self.labels.as_ref()?[i].as_slice());
        self.windows.iter().enumerate().map(|(i, tokens)| Example { tokens, labels: labels(i) }).collect()
    }

    /// What is measured with quantised inputs.
    fn rounded_examples(&self) -> Vec<Example<'_>> {
        self.rounded_windows.iter().map(|tokens| Example { tokens, labels: None }).collect()
    }
}

/// Reads `expected.json` of a case.
pub fn expected(case: &Path) -> Expected {
    let bytes = fs::read(case.join("expected.json")).expect("readable");
    serde_json::from_slice(&bytes).expect("expected losses")
}

/// The directories with expected losses of this set of fixtures, sorted.
pub fn cases(set: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(set);
    let entries = fs::read_dir(&root).expect("the fixtures").flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.join("expected.json").exists()).collect();
    found.sort();
    found
}

/// Measures every case and fails with the list of those that differ.
pub fn check(cases: &[PathBuf]) {
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        match worst(case) {
            Ok(worst) if worst <= TOLERANCE => eprintln!("{name:30} worst relative difference {worst:.1e}"),
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Opens a checkpoint, or an adapter over the checkpoint that it names.
fn open(case: &Path) -> Result<Checkpoint, Error> {
    let Ok(adapter) = fs::read(case.join("adapter_config.json")) else { return Checkpoint::open(case) };
    let adapter: Value = serde_json::from_slice(&adapter).expect("JSON");
    let base = case.join(adapter["base_model_name_or_path"].as_str().expect("a path"));
    Checkpoint::open_with_adapter(&base, case)
}

/// The largest relative difference of a window's loss. Each window is measured by itself and unpadded, as it was for the expected value.
fn worst(case: &Path) -> Result<f64, String> {
    let expected = expected(case);
    let checkpoint = open(case).map_err(|e| e.to_string())?;
    let weight_only = Arithmetic { weight_only: true, ..Arithmetic::default() };
    let plain = worst_of(&checkpoint, weight_only, &expected.examples(), &expected.losses)?;
    let rounded = expected.rounded_examples();
    let rounded = worst_of(&checkpoint, Arithmetic::default(), &rounded, &expected.rounded_losses)?;
    Ok(if rounded <= plain { plain } else { rounded })
}

fn worst_of(
    checkpoint: &Checkpoint,
    arithmetic: Arithmetic,
    examples: &[Example<'_>],
    losses: &[f64],
) -> Result<f64, String> {
    assert_eq!(examples.len(), losses.len());
    let workers = Workers::new(Some(1)).map_err(|e| e.to_string())?;
    let mut worst = 0f64;
    for (example, truth) in examples.iter().zip(losses) {
        let model = Model::load_with(checkpoint, example.rows(), arithmetic).map_err(|e| e.to_string())?;
        if !model.info.unused.is_empty() {
            return Err(format!("unused tensors: {:?}", model.info.unused));
        }
        let loss = workers.losses(&model, &[*example], &|_| ())[0];
        let difference = ((loss - truth) / truth).abs();
        worst = if difference <= worst { worst } else { difference };
    }
    Ok(worst)
}
