//! Opens a checkpoint, and measures a window where it is accepted: a configuration (its length first, 2 bytes) and a file of weights, GGUF or
//! safetensors.
#![no_main]

use invarlock_evaluator::checkpoint::{Checkpoint, scan};
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Arithmetic, Example, Model};
use invarlock_evidence::format::objective::Objective;

/// Tokens of the window. Models with fewer are not measured.
const WINDOW: [u32; 3] = [1, 2, 0];
/// Labels for models that are not causal.
const LABELS: [i64; 3] = [1, -100, 2];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let Some((config, weights)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).expect("a file");
    write("config.json", config);
    write(if weights.starts_with(b"GGUF") { "model.gguf" } else { "model.safetensors" }, weights);
    let Ok(checkpoint) = Checkpoint::open(directory.path()) else { return };
    let weight_only = Arithmetic { weight_only: true, ..Arithmetic::default() };
    let load = |arithmetic| Model::load_with(&checkpoint, WINDOW.len(), arithmetic);
    let Ok(model) = load(Arithmetic::default()).or_else(|_| load(weight_only)) else { return };
    let fits = model.info.max_positions.is_none_or(|positions| positions >= WINDOW.len());
    if scan(&model.info.tensors, &|_| ()).is_ok() && fits && model.info.vocab_size >= WINDOW.len() {
        let workers = Workers::new(Some(1)).expect("a thread");
        let labels = (model.info.objective != Objective::Causal).then_some(&LABELS[..]);
        let example = Example { tokens: &WINDOW, labels };
        assert_eq!(workers.losses(&model, &[example], &|_| ()).len(), 1);
    }
});
