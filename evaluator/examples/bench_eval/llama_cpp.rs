//! llama.cpp's perplexity tool, on a GGUF file that both programs read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::gguf::{Llama, Stored};
use crate::{Arguments, Contender, Result, SEQ_LEN, median, ours};
use invarlock_evaluator::math::products::Products;

/// The size of GPT-2 small, with the vocabulary of Llama 2.
const SHAPE: Llama = Llama { width: 768, intermediate: 2048, layers: 12, vocab: 32_000 };
/// In the lines that the tool prints before the first and after the last window.
const FIRST: &str = "calculating perplexity over";
const LAST: &str = "Final estimate";
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

/// Tokens per second of the whole measurement. The tool's own rate counts the tokens of the first batch and not its time.
fn rate(program: &str, checkpoint: &Path, text: &Path, windows: usize) -> Result<f64> {
    let mut command = Command::new(program);
    command.arg("-m").arg(checkpoint.join("model.gguf")).arg("-f").arg(text);
    command.args(["--log-timestamps", "--log-prefix"]);
    let numbers = [("-lv", 4), ("-c", SEQ_LEN), ("--chunks", windows), ("-t", THREADS), ("-tb", THREADS)];
    numbers.iter().for_each(|(name, number)| {
        command.args([name, &*number.to_string()]);
    });
    let output = command.stdin(Stdio::null()).output()?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let time = |part: &str| said.split_once(part)?.0.rsplit([' ', '\n']).find_map(seconds);
    match time(FIRST).zip(time(LAST)) {
        Some((first, last)) if output.status.success() && first < last => {
            Ok((windows * SEQ_LEN) as f64 / (last - first))
        }
        _ => Err(format!("{program} ended with {}: {said}", output.status).into()),
    }
}

/// The time in front of what the tool says: minutes, seconds, milliseconds and microseconds since the start, with dots between them.
fn seconds(word: &str) -> Option<f64> {
    let parts: Vec<f64> = word.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match *parts {
        [minutes, seconds, milliseconds, microseconds] => {
            Some(minutes * 60.0 + seconds + milliseconds / 1e3 + microseconds / 1e6)
        }
        _ => None,
    }
}
