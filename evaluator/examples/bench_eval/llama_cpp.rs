//! llama.cpp's perplexity tool, on a GGUF file that both programs read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::gguf::{Llama, Stored};
use crate::{Arguments, Contender, Result, SEQ_LEN, median, ours};
use invarlock_evaluator::math::products::Products;

/// The size of GPT-2 small, with the vocabulary of Llama 2.
const SHAPE: Llama = Llama { width: 768, intermediate: 2048, layers: 12, vocab: 32_000 };
/// In front of the tokens per second that the tool prints.
const RATE: &str = "prompt eval time";
const THREADS: usize = 2;

/// Compares both programs for each type of weights.
pub fn print(arguments: &Arguments) -> Result<()> {
    let Some(program) = find() else { return Ok(()) };
    let directory = tempfile::tempdir_in(&arguments.directory)?;
    println!(
        "\nGGUF, Llama of the size of GPT-2 small, {} windows of {SEQ_LEN}, {THREADS} threads, tokens per second",
        arguments.windows
    );
    // A token for each byte, and more than the windows need.
    let text = directory.path().join("text");
    let letters: Vec<u8> = (0..arguments.windows * SEQ_LEN * 2).map(|i| b'a' + (i * i % 23) as u8).collect();
    fs::write(&text, letters)?;
    for stored in [Stored::F16, Stored::Q8_0] {
        let checkpoint = directory.path().join(stored.name());
        SHAPE.write(&checkpoint, stored)?;
        let run = || ours::rate(&checkpoint, Products::Float32, THREADS, arguments.windows);
        let mut own = Contender::new(&format!("invarlock {}", stored.name()), run);
        let run = || rate(&program, &checkpoint, &text, arguments.windows);
        let mut other = Contender::new(&format!("llama.cpp {}", stored.name()), run);
        for _ in 0..arguments.rounds {
            for contender in [&mut own, &mut other] {
                contender.rates.push((contender.run)()?);
            }
        }
        own.print();
        other.print();
        let ratio = median(&own.rates) / median(&other.rates);
        println!("{:<44}{ratio:>8.2}", format!("ratio: {} / llama.cpp", stored.name()));
    }
    Ok(())
}

/// The tool, if there is one.
fn find() -> Option<String> {
    let set = std::env::var("INVARLOCK_LLAMA_PERPLEXITY").unwrap_or_else(|_| "llama-perplexity".to_owned());
    let starts = Command::new(&set).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if starts.is_ok_and(|status| status.success()) {
        return Some(set);
    }
    println!("\nSKIPPED llama.cpp: {set:?} does not start (set INVARLOCK_LLAMA_PERPLEXITY)");
    None
}

/// Tokens per second of the forward passes, as the tool counts them.
fn rate(program: &str, checkpoint: &Path, text: &Path, windows: usize) -> Result<f64> {
    let mut command = Command::new(program);
    command.arg("-m").arg(checkpoint.join("model.gguf")).arg("-f").arg(text);
    // Without these two, the line with the rate is left out.
    command.args(["--perf", "-lv", "4"]);
    let numbers = [("-c", SEQ_LEN), ("--chunks", windows), ("-t", THREADS), ("-tb", THREADS)];
    numbers.iter().for_each(|(name, number)| {
        command.args([name, &*number.to_string()]);
    });
    let output = command.stdin(Stdio::null()).output()?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let line = said.lines().find(|line| line.contains(RATE));
    let rate = line.and_then(|line| line.split(',').find(|part| part.contains("tokens per second")));
    let rate = rate.and_then(|part| part.trim().split(' ').next()?.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => Err(format!("{program} ended with {}: {said}", output.status).into()),
    }
}
