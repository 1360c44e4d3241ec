//! A whole evaluation of a random checkpoint against itself, in containers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shapes::Shape;
use crate::{Result, SEQ_LEN};

/// A directory with a checkpoint, a dataset and a preset.
pub struct Evaluation {
    place: TempDir,
    /// Bytes of the weights.
    pub bytes: u64,
}

/// What an evaluation wrote.
pub struct Evidence {
    /// Seconds of the whole command.
    pub seconds: f64,
    /// The evaluation report.
    pub report: Value,
    /// The run reports of baseline and subject.
    pub sides: [Value; 2],
}

impl Evaluation {
    /// Writes the files, below `directory`; each arm has `count` windows.
    pub fn new(shape: &Shape, dtype: &str, count: usize, directory: &Path) -> Result<Self> {
        let place = tempfile::tempdir_in(directory)?;
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
        let checkpoint = place.path().join("checkpoint");
        shape.write(&checkpoint, dtype)?;
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(demo.join("baseline").join(name), checkpoint.join(name))?;
        }
        std::fs::write(place.path().join("data.jsonl"), rows(&demo, 2 * count)?)?;
        let dataset = json!({
            "provider": {"kind": "local_jsonl", "file": "data.jsonl"},
            "seq_len": SEQ_LEN, "stride": SEQ_LEN, "preview_n": count, "final_n": count
        });
        std::fs::write(place.path().join("preset.yaml"), json!({ "dataset": dataset }).to_string())?;
        let bytes = checkpoint.join("model.safetensors").metadata()?.len();
        Ok(Self { place, bytes })
    }

    /// Evaluates with these options; nothing of an earlier run is used.
    pub fn run(&self, invarlock: &Path, options: &[&str]) -> Result<Evidence> {
        let path = self.place.path();
        for name in ["eval", "runs"] {
            let _ = std::fs::remove_dir_all(path.join(name));
        }
        let start = Instant::now();
        let output = Command::new(invarlock)
            .args(["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml"])
            .args([
                "--baseline",
                "checkpoint",
                "--subject",
                "checkpoint",
                "--out",
                "runs",
                "--report-out",
                "eval",
            ])
            .args(options)
            .env("INVARLOCK_STORE", path.join("store"))
            .current_dir(path)
            .stdout(Stdio::null())
            .output()?;
        let seconds = start.elapsed().as_secs_f64();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let read = |name: &str| -> Result<Value> {
            Ok(serde_json::from_slice(&std::fs::read(path.join("eval").join(name))?)?)
        };
        let sides = [read("baseline.report.json")?, read("subject.report.json")?];
        Ok(Evidence { seconds, report: read("evaluation.report.json")?, sides })
    }
}

/// Rows of text that fill a window: each has the texts of many rows of the demo's dataset.
fn rows(demo: &Path, count: usize) -> Result<String> {
    let data = std::fs::read_to_string(demo.join("valid.jsonl"))?;
    let texts: Vec<String> = data
        .lines()
        .map(|line| -> Result<String> {
            let row: Value = serde_json::from_str(line)?;
            Ok(row["text"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_>>()?;
    let row = |i: usize| {
        let parts: Vec<&str> = (0..12).map(|k| texts[(i * 12 + k) % texts.len()].as_str()).collect();
        json!({"text": parts.join(" ")}).to_string() + "\n"
    };
    Ok((0..count).map(row).collect())
}
