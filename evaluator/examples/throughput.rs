//! Measures tokens per second on a random checkpoint with the shape of GPT-2 small (124 million parameters).
//!
//! `cargo run --release -p invarlock-evaluator --example throughput -- [--dtype f32|bf16|f16] [--seq-len 512]
//! [--windows 8] [--runs 5] [--threads 1,2]`
#![allow(clippy::print_stdout, reason = "the program prints its results")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::math::simd;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Example, Model};

#[derive(Parser)]
struct Arguments {
    /// Type of the stored weights
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Tokens of a window
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Windows of a run
    #[arg(long, default_value_t = 8)]
    windows: usize,
    /// Runs for the median
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Numbers of threads to measure
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
}

const HIDDEN_SIZE: usize = 768;
const LAYERS: usize = 12;
const VOCAB: usize = 50_257;
const POSITIONS: usize = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let directory = tempfile::tempdir()?;
    write_checkpoint(directory.path(), &arguments.dtype)?;
    let checkpoint = Checkpoint::open(directory.path())?;
    let model = Model::load(&checkpoint, arguments.seq_len)?;
    let mut random = Random(42);
    let windows: Vec<Vec<u32>> = (0..arguments.windows)
        .map(|_| (0..arguments.seq_len).map(|_| (random.next() % VOCAB as u64) as u32).collect())
        .collect();
    let windows: Vec<Example<'_>> = windows.iter().map(|window| Example::causal(window)).collect();
    println!(
        "{} weights, {} windows of {}, kernel {}, median of {} runs",
        arguments.dtype,
        arguments.windows,
        arguments.seq_len,
        simd::kernel(),
        arguments.runs
    );
    for threads in arguments.threads {
        let workers = Workers::new(Some(threads))?;
        let mut first = 0.0;
        let mut rates: Vec<f64> = Vec::new();
        // The first run reads the weights from disk and is not counted.
        for run in 0..=arguments.runs {
            let start = Instant::now();
            let losses = workers.losses(&model, &windows, &|_| ());
            let rate = (arguments.windows * arguments.seq_len) as f64 / start.elapsed().as_secs_f64();
            first = losses[0];
            if run > 0 {
                rates.push(rate);
            }
        }
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
        println!(
            "{threads} threads: {median:.0} tokens/s ({low:.0} to {high:.0}), loss of the first window {first:.6}"
        );
    }
    Ok(())
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Uniformly distributed, with a standard deviation of 0.02.
    fn weight(&mut self) -> f32 {
        ((self.next() & 0xff_ffff) as f32 / 16_777_216.0 - 0.5) * 0.069_3
    }
}

fn write_checkpoint(directory: &Path, dtype: &str) -> Result<(), Box<dyn std::error::Error>> {
    let config = serde_json::json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": HIDDEN_SIZE, "n_layer": LAYERS,
        "n_head": 12, "activation_function": "gelu_new", "tie_word_embeddings": true,
    });
    std::fs::write(directory.join("config.json"), config.to_string())?;

    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("wte.weight".into(), vec![VOCAB, HIDDEN_SIZE]),
        ("wpe.weight".into(), vec![POSITIONS, HIDDEN_SIZE]),
    ];
    for i in 0..LAYERS {
        for (name, inputs, outputs) in [
            ("attn.c_attn", HIDDEN_SIZE, 3 * HIDDEN_SIZE),
            ("attn.c_proj", HIDDEN_SIZE, HIDDEN_SIZE),
            ("mlp.c_fc", HIDDEN_SIZE, 4 * HIDDEN_SIZE),
            ("mlp.c_proj", 4 * HIDDEN_SIZE, HIDDEN_SIZE),
        ] {
            tensors.push((format!("h.{i}.{name}.weight"), vec![inputs, outputs]));
            tensors.push((format!("h.{i}.{name}.bias"), vec![outputs]));
        }
    }
    let norms =
        (0..LAYERS).flat_map(|i| [format!("h.{i}.ln_1"), format!("h.{i}.ln_2")]).chain(["ln_f".to_owned()]);
    for norm in norms {
        tensors.push((format!("{norm}.weight"), vec![HIDDEN_SIZE]));
        tensors.push((format!("{norm}.bias"), vec![HIDDEN_SIZE]));
    }

    let (name, size) = match dtype {
        "f32" => ("F32", 4),
        "bf16" => ("BF16", 2),
        "f16" => ("F16", 2),
        other => return Err(format!("unknown dtype {other}").into()),
    };
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (tensor, shape) in &tensors {
        let start = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(
            tensor.clone(),
            serde_json::json!({"dtype": name, "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(directory.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut random = Random(7);
    for (tensor, shape) in &tensors {
        let one = tensor.contains("ln_") && tensor.ends_with("weight");
        for _ in 0..shape.iter().product::<usize>() {
            let value = if one { 1.0 } else { random.weight() };
            match size {
                4 => file.write_all(&value.to_le_bytes())?,
                _ if name == "BF16" => file.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
                _ => file.write_all(&half::f16::from_f32(value).to_le_bytes())?,
            }
        }
    }
    file.flush()?;
    Ok(())
}
