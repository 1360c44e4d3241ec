//! The evaluator's forward pass, without a container.

use std::path::Path;
use std::time::Instant;

use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::math::products::Products;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Arithmetic, Example, Model};

use crate::shapes::Random;
use crate::{Result, SEQ_LEN};

/// Tokens per second on random windows. One window is measured before, so that the weights are in the page cache.
pub fn rate(directory: &Path, products: Products, threads: usize, windows: usize) -> Result<f64> {
    let checkpoint = Checkpoint::open(directory)?;
    let model = Model::load_with(&checkpoint, SEQ_LEN, Arithmetic { products, ..Arithmetic::default() })?;
    let mut random = Random(42);
    let mut id = || (random.next() % model.info.vocab_size as u64) as u32;
    let windows: Vec<Vec<u32>> = (0..windows).map(|_| (0..SEQ_LEN).map(|_| id()).collect()).collect();
    let examples: Vec<Example<'_>> = windows.iter().map(|window| Example::causal(window)).collect();
    let workers = Workers::new(Some(threads))?;
    workers.losses(&model, &examples[..threads.min(examples.len())], &|_| ());
    let start = Instant::now();
    let losses = workers.losses(&model, &examples, &|_| ());
    let seconds = start.elapsed().as_secs_f64();
    if !losses.iter().all(|loss| loss.is_finite()) {
        return Err("a loss is not finite".into());
    }
    Ok((examples.len() * SEQ_LEN) as f64 / seconds)
}
