//! `make bench-eval`: tokens per second of the evaluator, side by side with PyTorch and with
//! llama.cpp in one run; the share of an evaluation that the guards take;
//! and tokens per second of a checkpoint that is larger than the memory limit, next to a bare matrix product. Figures are medians and ratios. A
//! peer that is not installed is reported as skipped.
//!
//! llama.cpp: `INVARLOCK_LLAMA_PERPLEXITY` is its program `llama-perplexity`. It computes the logits of the second half of each window only.
//!
//! PyTorch: `INVARLOCK_TORCH_PYTHON` is the command of a Python with torch and transformers (default: `python3`).
#![allow(clippy::print_stdout, reason = "the program prints its results")]

mod evaluation;
mod gguf;
mod guards;
mod llama_cpp;
mod ours;
mod plots;
mod product;
mod shapes;
mod streamed;
mod torch;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use invarlock_evaluator::math::products::Products;
use invarlock_evaluator::math::simd;
use invarlock_evidence::format::compute_dtype::ComputeDtype;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Arguments {
    /// The built program `invarlock`; without it, no whole evaluation is measured
    invarlock: Option<PathBuf>,
    /// Rounds for the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Windows of 512 tokens
    #[arg(long, default_value_t = 16)]
    windows: usize,
    /// Windows of each arm of the streamed checkpoint
    #[arg(long, default_value_t = 8)]
    streamed_windows: usize,
    /// Only measure this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Only measure the plots of time against sizes, and write them to this SVG file
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Where checkpoints are written (3 GB)
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The shape of GPT-2 small, beside PyTorch.
    Torch,
    /// GGUF files, beside llama.cpp.
    LlamaCpp,
    /// The share of the guards.
    Guards,
    /// A checkpoint that is larger than the memory limit.
    Streamed,
}

/// The beginnings of the names of rows.
const FLOAT32: &str = "invarlock f32, ";
const BF16X3: &str = "invarlock bf16x3, ";

/// Tokens of a window.
const SEQ_LEN: usize = 512;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!(
        "kernel {}; medians of {} rounds, lowest and highest in parentheses",
        simd::kernel(),
        arguments.rounds
    );
    if let Some(file) = &arguments.plots {
        return plots::write(file, &arguments);
    }
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Torch) {
        side_by_side(&arguments)?;
    }
    if wanted(Part::LlamaCpp) {
        llama_cpp::print(&arguments)?;
    }
    let Some(invarlock) = &arguments.invarlock else { return Ok(()) };
    if wanted(Part::Guards) {
        guards::print(invarlock, &arguments)?;
    }
    if wanted(Part::Streamed) {
        streamed::print(invarlock, &arguments)?;
    }
    Ok(())
}

/// The shape of GPT-2 small in every stored type, and PyTorch in single precision.
fn side_by_side(arguments: &Arguments) -> Result<()> {
    let directory = tempfile::tempdir_in(&arguments.directory)?;
    let shape = shapes::gpt2_small();
    let single = directory.path().join("f32");
    shape.write(&single, "F32")?;
    println!(
        "\nGPT-2 small with random weights (124 million parameters), {} windows of {SEQ_LEN}, tokens per second",
        arguments.windows
    );
    let torch = torch::find();
    let unit = Products::of(ComputeDtype::Bf16x3);
    let unit = unit.map_err(|error| println!("SKIPPED {}: {error}", BF16X3.trim_end_matches(", "))).ok();
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for threads in [1, 2] {
        let single = &single;
        let run = move || ours::rate(single, Products::Float32, threads, arguments.windows);
        contenders.push(Contender::new(&format!("{FLOAT32}{threads} threads"), run));
        let Some(unit) = unit else { continue };
        let run = move || ours::rate(single, unit, threads, arguments.windows);
        contenders.push(Contender::new(&format!("{BF16X3}{threads} threads"), run));
    }
    for dtype in ["BF16", "F16"] {
        let checkpoint = directory.path().join(dtype);
        shape.write(&checkpoint, dtype)?;
        let run = move || ours::rate(&checkpoint, Products::Float32, 2, arguments.windows);
        contenders.push(Contender::new(&format!("invarlock {}, 2 threads", dtype.to_lowercase()), run));
    }
    if let Some(python) = &torch {
        for (name, threads, processes) in
            [("1 thread", 1, 1), ("2 threads", 2, 1), ("two processes of 1 thread", 1, 2)]
        {
            let single = &single;
            let run = move || torch::rate(python, single, threads, processes, arguments.windows);
            contenders.push(Contender::new(&format!("{}{name}", torch::PREFIX), run));
        }
    }
    for _ in 0..arguments.rounds {
        for contender in &mut contenders {
            contender.rates.push((contender.run)()?);
        }
    }
    contenders.iter().for_each(Contender::print);
    let best = |prefix: &str| {
        let of_name = contenders.iter().filter(|contender| contender.name.starts_with(prefix));
        of_name.map(|contender| median(&contender.rates)).fold(0.0, f64::max)
    };
    let ratio = |name: &str, ours: &str, other: &str| {
        println!("{:<44}{:>8.2}", format!("ratio: {name}"), best(ours) / best(other));
    };
    if unit.is_some() {
        ratio("best bf16x3 / best f32", BF16X3, FLOAT32);
    }
    if torch.is_some() {
        ratio("best f32 / PyTorch's best", FLOAT32, torch::PREFIX);
        if unit.is_some() {
            ratio("best bf16x3 / PyTorch's best", BF16X3, torch::PREFIX);
        }
    }
    Ok(())
}

/// A program that is measured in every round.
struct Contender<'a> {
    name: String,
    run: Box<dyn Fn() -> Result<f64> + 'a>,
    rates: Vec<f64>,
}

impl<'a> Contender<'a> {
    fn new(name: &str, run: impl Fn() -> Result<f64> + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run), rates: Vec::new() }
    }

    fn print(&self) {
        let (low, high) =
            self.rates.iter().fold((f64::MAX, 0f64), |(low, high), r| (low.min(*r), high.max(*r)));
        println!("{:<44}{:>8.0} ({low:.0} to {high:.0})", self.name, median(&self.rates));
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
