//! Measures windows on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::limits;
use crate::model::{Example, Model, Scratch};
use crate::windows::Arm;
use invarlock_error::{Context as _, Foreign as _, Kind, Result, bail};

/// Tokens that pass through the model together, so that short windows share the cost of converting weights. The groups
/// depend on the windows only, so the numbers do not depend on threads.
const GROUP: usize = 512;

/// Worker threads and their working memory.
#[derive(Debug)]
pub struct Workers {
    pool: rayon::ThreadPool,
    scratch: Vec<Mutex<Scratch>>,
}

impl Workers {
    /// Starts `threads` threads; one for each core when absent.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or_else(cores);
        if !(1..=limits::THREADS).contains(&threads) {
            bail!(Input, "{threads} threads; supported: 1 to {}", limits::THREADS);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.err_kind(Kind::System).with_context(|| format!("starting {threads} threads"))?;
        let scratch = (0..threads).map(|_| Mutex::default()).collect();
        Ok(Self { pool, scratch })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Runs `work` on these threads.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The loss of each example. Each call of `progress` gets the number of finished examples.
    pub fn losses(
        &self,
        model: &Model<'_>,
        examples: &[Example<'_>],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<f64> {
        let done = AtomicU64::new(0);
        let groups = group(examples);
        let losses: Vec<Vec<f64>> = self.run(|| {
            let measure = |group: &&[Example<'_>]| {
                let worker = rayon::current_thread_index().unwrap_or(0);
                let mut scratch = self.scratch[worker].lock().unwrap_or_else(|e| e.into_inner());
                let losses = model.losses(group, &mut scratch);
                progress(done.fetch_add(group.len() as u64, Ordering::Relaxed) + group.len() as u64);
                losses
            };
            groups.par_iter().with_max_len(1).map(measure).collect()
        });
        losses.into_iter().flatten().collect()
    }

    /// The loss of each window of an arm. An error when one is not finite.
    pub fn losses_of_arm(
        &self,
        model: &Model<'_>,
        name: &str,
        arm: &Arm,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<f64>> {
        let examples: Vec<Example<'_>> = arm.windows.iter().map(|w| Example::causal(w.tokens())).collect();
        let losses = self.losses(model, &examples, progress);
        match losses.iter().zip(&arm.ids).find(|(loss, _)| !loss.is_finite()) {
            Some((loss, id)) => {
                bail!(Input, "{name} window {id} has the loss {loss}: the checkpoint's weights overflow")
            }
            None => Ok(losses),
        }
    }
}

/// Groups of consecutive examples with at most [`GROUP`] tokens; a longer example is a group of its own.
fn group<'e, 'w>(examples: &'e [Example<'w>]) -> Vec<&'e [Example<'w>]> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, example) in examples.iter().enumerate() {
        if i > start && tokens + example.rows() > GROUP {
            groups.push(&examples[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += example.rows();
    }
    if start < examples.len() {
        groups.push(&examples[start..]);
    }
    groups
}

/// Mean of the losses, weighted by tokens.
pub fn weighted_mean(losses: &[f64], arm: &Arm) -> f64 {
    let total: f64 = losses.iter().zip(&arm.windows).map(|(loss, w)| loss * w.real as f64).sum();
    total / arm.tokens() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Window;

    #[test]
    fn groups_are_consecutive_and_bounded() {
        let tokens = vec![0u32; 2000];
        let lengths = [128, 128, 128, 128, 2, 510, 1, 2000, 3];
        let examples: Vec<Example<'_>> = lengths.iter().map(|n| Example::causal(&tokens[..*n])).collect();
        let sizes: Vec<usize> = group(&examples).iter().map(|g| g.len()).collect();
        assert_eq!(sizes, [4, 2, 1, 1, 1]);
        let labels = vec![0i64; 400];
        let pair = Example { tokens: &tokens[..3], labels: Some(&labels) };
        assert_eq!(group(&[pair, pair]).len(), 2);
        assert!(group(&[]).is_empty());
    }

    #[test]
    fn means_are_weighted_by_tokens() {
        let window = |real| Window { ids: vec![0; 4], real };
        let arm = Arm { ids: vec![0, 1], windows: vec![window(3), window(1)] };
        assert_eq!(weighted_mean(&[1.0, 5.0], &arm), 2.0);
    }

    #[test]
    fn threads_are_bounded() {
        assert!(Workers::new(Some(0)).is_err());
        assert!(Workers::new(Some(1_000_000)).is_err());
        assert_eq!(Workers::new(Some(3)).expect("started").threads(), 3);
    }
}
