//! Measures windows on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use invarlock_evidence::journal::EVENT_LOSSES;
use rayon::prelude::*;

use crate::limits;
use crate::model::{Example, Kept, Model, Output, State, Work};
use crate::weights::RESIDENT;
use crate::windows::{Arm, Window};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// Tokens that pass through the model together, so that short windows share the cost of converting weights. The groups
/// depend on the windows only, so the numbers do not depend on threads.
const GROUP: usize = 512;

/// Rows of examples that pass through a layer before the next one: so many that the time of reading a layer from disk (at 1 GB/s) is less than 2 % of that
/// of the arithmetic (at 150 GFLOP/s), and so few that little is lost when a run is killed.
const BLOCK: usize = 8192;

/// The same for each thread, where there are many.
const BLOCK_OF_THREAD: usize = 4096;

/// Bytes of the states of a block.
const STATE_BYTES: usize = 256 << 20;

/// Worker threads and their working memory.
#[derive(Debug)]
pub struct Workers {
    pool: rayon::ThreadPool,
    scratch: Vec<Mutex<Work>>,
    memory: Memory,
}

/// How much memory a measurement uses. The losses do not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes of weights that stay resident: those of a larger checkpoint are read again for each block of windows.
    pub resident: usize,
    /// Rows of examples that pass through a layer before the next one.
    pub block: usize,
    /// Bytes of the states of a block.
    pub state: usize,
}

impl Memory {
    /// The default for a number of threads.
    fn of(threads: usize) -> Self {
        Self { resident: RESIDENT, block: (BLOCK_OF_THREAD * threads).max(BLOCK), state: STATE_BYTES }
    }
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
        Ok(Self { pool, scratch, memory: Memory::of(threads) })
    }

    /// The same with other memory.
    pub fn with_memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Whether the weights of a model stay resident.
    pub fn keeps(&self, model: &Model<'_>) -> bool {
        model.weight_bytes() <= self.memory.resident
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Runs `work` on these threads.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The loss of each example. Each call of `progress` gets the number of finished rows ([`Example::rows`]); a layer of an example
    /// counts as its part of the example's rows.
    ///
    /// Blocks of examples pass one layer after the other, so that the weights of one layer at a time are in memory.
    pub fn losses(
        &self,
        model: &Model<'_>,
        examples: &[Example<'_>],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<f64> {
        self.losses_of_blocks(model, &group(examples), progress).flatten().collect()
    }

    /// Runs `work` with factors for the outputs of projections, by the names of their modules.
    pub fn with_scales<T>(&self, scales: &BTreeMap<String, f32>, work: impl FnOnce() -> T) -> T {
        let set = |scales: &BTreeMap<String, f32>| {
            for scratch in &self.scratch {
                scratch.lock().unwrap_or_else(|e| e.into_inner()).scales.clone_from(scales);
            }
        };
        set(scales);
        let done = work();
        set(&BTreeMap::new());
        done
    }

    /// The losses of one block after the other.
    fn losses_of_blocks<'a>(
        &'a self,
        model: &'a Model<'_>,
        groups: &'a [Group<'_, '_>],
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> impl Iterator<Item = Vec<f64>> {
        let mut states = Vec::new();
        let meter = Meter::new(model, progress);
        let most = self.memory.block.min(self.memory.state / model.state_bytes());
        blocks(groups, most).map(move |block| self.run(|| self.block(model, block, &mut states, &meter)))
    }

    /// The losses of a block. `states` is working memory.
    fn block(
        &self,
        model: &Model<'_>,
        block: &[Group<'_, '_>],
        states: &mut Vec<State>,
        meter: &Meter<'_>,
    ) -> Vec<f64> {
        states.resize_with(block.len().max(states.len()), State::default);
        let states = &mut states[..block.len()];
        self.each(block, states, |group, state, work| {
            model.embed(group, state, work);
        });
        self.layers(model, |index| {
            self.each(block, states, |group, state, work| {
                model.layer(index, group, state, work);
                meter.add(index, rows(group));
            });
        });
        let losses = self.each(block, states, |group, state, work| {
            let losses = model.losses(group, state, work);
            meter.add(model.layers(), rows(group));
            losses
        });
        if let Some(head) = model.steps().last().filter(|_| !self.keeps(model)) {
            head.release();
        }
        losses.into_iter().flatten().collect()
    }

    /// Runs `layer` for the number of each layer, and has the weights of one layer at a time in memory.
    fn layers(&self, model: &Model<'_>, mut layer: impl FnMut(usize)) {
        let streamed = !self.keeps(model);
        for (index, step) in model.steps().iter().enumerate() {
            if let Some(next) = model.steps().get(index + 1).filter(|_| streamed) {
                next.prefetch();
            }
            if index < model.layers() {
                layer(index);
                if streamed {
                    step.release();
                }
            }
        }
    }

    /// Calls `keep` with the number of each example and the outputs of each module in it; `step` after each layer. A module that runs
    /// more than once has more than one output.
    pub fn outputs(
        &self,
        model: &Model<'_>,
        examples: &[Example<'_>],
        kept: Kept,
        step: &(dyn Fn() + Sync),
        keep: &(dyn Fn(usize, Output) + Sync),
    ) {
        let groups: Vec<Group<'_, '_>> = examples.chunks(1).collect();
        let mut states: Vec<(usize, State)> =
            (0..groups.len()).map(|example| (example, State::default())).collect();
        let mut run = |step_of: Step| {
            self.each(&groups, &mut states, |group, (example, state), work| {
                work.outputs.start(kept);
                match step_of {
                    Step::Embed => model.embed(group, state, work),
                    Step::Layer(index) => model.layer(index, group, state, work),
                    Step::Last => model.last_outputs(group, state, work),
                }
                work.outputs.stop().into_iter().for_each(|output| keep(*example, output));
            });
            step();
        };
        self.run(|| {
            run(Step::Embed);
            self.layers(model, |index| run(Step::Layer(index)));
            if kept == Kept::Modules {
                run(Step::Last);
            }
        });
    }

    /// Runs `work` for each group and its state.
    fn each<S: Send, T: Send>(
        &self,
        block: &[Group<'_, '_>],
        states: &mut [S],
        work: impl Fn(Group<'_, '_>, &mut S, &mut Work) -> T + Sync,
    ) -> Vec<T> {
        let one = |(group, state): (&Group<'_, '_>, &mut S)| {
            let worker = rayon::current_thread_index().unwrap_or(0);
            let mut scratch = self.scratch[worker].lock().unwrap_or_else(|e| e.into_inner());
            work(group, state, &mut scratch)
        };
        block.par_iter().zip(states).with_max_len(1).map(one).collect()
    }

    /// The loss of each window of an arm, of which the first are `known` from an interrupted measurement. `finished` gets the position of the
    /// first window and the losses of each block. An error when a loss is not finite.
    pub fn losses_of_arm(
        &self,
        model: &Model<'_>,
        name: &str,
        arm: &Arm,
        known: &[f64],
        progress: &(dyn Fn(u64) + Sync),
        finished: &mut dyn FnMut(usize, &[f64]),
    ) -> Result<Vec<f64>> {
        let examples: Vec<Example<'_>> = arm.windows.iter().map(Window::example).collect();
        check_known(name, &examples, known)?;
        let mut losses = known.to_vec();
        for block in self.losses_of_blocks(model, &group(&examples[known.len()..]), progress) {
            let first = losses.len();
            if let Some((loss, id)) = block.iter().zip(&arm.ids[first..]).find(|(loss, _)| !loss.is_finite())
            {
                bail!(Input, "{name} window {id} has the loss {loss}: the checkpoint's weights overflow");
            }
            finished(first, &block);
            losses.extend(block);
        }
        Ok(losses)
    }
}

/// A step of the forward pass.
#[derive(Clone, Copy)]
enum Step {
    Embed,
    Layer(usize),
    Last,
}

/// Fails if there are not losses of the first windows of an arm up to the end of a group: a window that is measured in another group can have
/// another loss in its last digits. JSON has no infinite numbers, so the losses are finite.
fn check_known(name: &str, examples: &[Example<'_>], known: &[f64]) -> Result<()> {
    let groups = group(examples);
    let mut ends = groups.iter().scan(0, |end, group| {
        *end += group.len();
        Some(*end)
    });
    if !known.is_empty() && !ends.any(|end| end == known.len()) {
        let (known, all) = (known.len(), examples.len());
        return Err(Error::input(format!(
            "the journal has {known} losses of the {all} {name} windows, which is not the end of a group"
        ))
        .with_hint("pass --no-resume to measure all windows again"));
    }
    Ok(())
}

/// Consecutive examples that pass through the model together.
type Group<'e, 'w> = &'e [Example<'w>];

/// Groups of consecutive examples with at most [`GROUP`] rows; a longer example is a group of its own.
fn group<'e, 'w>(examples: &'e [Example<'w>]) -> Vec<Group<'e, 'w>> {
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

/// Rows of a group.
fn rows(group: Group<'_, '_>) -> usize {
    group.iter().map(Example::rows).sum()
}

/// Consecutive blocks of groups, of about equal size and with at most `most` rows; a larger group is a block of its own. The losses of a
/// block fit in one event.
fn blocks<'g, 'e, 'w>(groups: &'g [Group<'e, 'w>], most: usize) -> impl Iterator<Item = &'g [Group<'e, 'w>]> {
    let all: usize = groups.iter().map(|group| rows(group)).sum();
    let size = all.div_ceil(all.div_ceil(most.max(1)).max(1));
    let mut rest = groups;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let mut windows = 0;
        let fits = |group: &&Group<'_, '_>| {
            (sum, windows) = (sum + rows(group), windows + group.len());
            sum <= size && windows <= EVENT_LOSSES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (block, others) = rest.split_at_checked(count)?;
        rest = others;
        Some(block)
    })
}

/// Counts finished rows of examples.
struct Meter<'p> {
    /// Bytes of the weights of each step: its share of the work.
    costs: Vec<u64>,
    total: u64,
    done: AtomicU64,
    progress: &'p (dyn Fn(u64) + Sync),
}

impl<'p> Meter<'p> {
    fn new(model: &Model<'_>, progress: &'p (dyn Fn(u64) + Sync)) -> Self {
        let costs: Vec<u64> = model.steps().iter().map(|step| step.bytes() as u64).collect();
        Self { total: costs.iter().sum::<u64>().max(1), costs, done: AtomicU64::new(0), progress }
    }

    /// Adds a step of some rows.
    fn add(&self, step: usize, rows: usize) {
        let work = self.costs[step] * rows as u64;
        (self.progress)((self.done.fetch_add(work, Ordering::Relaxed) + work) / self.total);
    }
}

/// Mean of the losses, weighted by predicted tokens.
pub fn weighted_mean(losses: &[f64], arm: &Arm) -> f64 {
    let weights = || arm.windows.iter().map(Window::weight);
    let total: f64 = losses.iter().zip(weights()).map(|(loss, weight)| loss * weight as f64).sum();
    total / weights().sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn blocks_are_balanced_and_bounded() {
        let tokens = vec![0u32; 2000];
        let lengths = [512, 512, 512, 512, 512, 2000, 100];
        let examples: Vec<Example<'_>> = lengths.iter().map(|n| Example::causal(&tokens[..*n])).collect();
        let groups = group(&examples);
        let sizes = |most| blocks(&groups, most).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(10_000), [7]);
        // 4660 tokens in blocks of at most 1165.
        assert_eq!(sizes(1200), [2, 2, 1, 1, 1]);
        assert_eq!(sizes(1), [1; 7]);
        assert_eq!(blocks(&[], 10).count(), 0);
    }

    #[test]
    fn means_are_weighted_by_tokens() {
        let window = |real| Window { ids: vec![0; 4], real, labels: None };
        let arm = Arm { ids: vec![0, 1], windows: vec![window(3), window(1)], examples: None };
        assert_eq!(weighted_mean(&[1.0, 5.0], &arm), 2.0);
        let labelled = Window { labels: Some(vec![-100, 3, -100, -100]), ..window(4) };
        let arm = Arm { ids: vec![0, 1], windows: vec![window(3), labelled], examples: None };
        assert_eq!(weighted_mean(&[1.0, 5.0], &arm), 2.0);
    }

    #[test]
    fn threads_are_bounded() {
        assert!(Workers::new(Some(0)).is_err());
        assert!(Workers::new(Some(1_000_000)).is_err());
        assert_eq!(Workers::new(Some(3)).expect("started").threads(), 3);
    }
}
