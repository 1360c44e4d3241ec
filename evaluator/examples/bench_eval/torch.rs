//! PyTorch on the CPU, through transformers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Result, SEQ_LEN};

/// The beginning of the names of its rows.
pub const PREFIX: &str = "PyTorch f32, ";

const SCRIPT: &str = include_str!("torch_losses.py");

/// The command of a Python with torch and transformers, if there is one.
pub fn find() -> Option<Vec<String>> {
    let set = std::env::var("INVARLOCK_TORCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let words: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
    let works =
        command(&words).ok()?.args(["-c", "import torch, transformers"]).stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Some(words);
    }
    println!("SKIPPED PyTorch: {set:?} cannot import torch and transformers (set INVARLOCK_TORCH_PYTHON)");
    None
}

fn command(words: &[String]) -> Result<Command> {
    let (program, arguments) = words.split_first().ok_or("INVARLOCK_TORCH_PYTHON is empty")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Tokens per second of some processes together, each of which measures all windows.
pub fn rate(
    python: &[String],
    checkpoint: &Path,
    threads: usize,
    processes: usize,
    windows: usize,
) -> Result<f64> {
    let start = |_: usize| -> Result<Child> {
        let mut command = command(python)?;
        command.args(["-c", SCRIPT]).arg(checkpoint);
        command.args([threads, windows, SEQ_LEN].map(|n| n.to_string()));
        // PyTorch's own threads are faster than those of OpenBLAS below them.
        command.env("OPENBLAS_NUM_THREADS", "1").env("OMP_NUM_THREADS", threads.to_string());
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let started: Vec<_> = (0..processes).map(start).collect::<Result<_>>()?;
    let mut sum = 0.0;
    for process in started {
        let output = process.wait_with_output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let text = String::from_utf8(output.stdout)?;
        sum += text.trim().parse::<f64>().map_err(|error| format!("{text:?}: {error}"))?;
    }
    Ok(sum)
}
