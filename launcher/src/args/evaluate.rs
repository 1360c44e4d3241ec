//! `invarlock evaluate`.

use super::ContainerArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `invarlock evaluate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock evaluate --baseline base/ --subject int8/ --preset preset.yaml\n  \
    invarlock evaluate --baseline base/ --subject int8/ --dataset valid.jsonl --profile dev --json\n  \
    invarlock evaluate --baseline base/ --subject int8/ --preset preset.yaml --dry-run\n\n\
    Exit codes: 0 passed, 1 the subject failed its gates, 2 input or usage, 3 integrity, safety,\n\
    unsupported, system or limit, 128+n stopped by signal n.")]
pub struct EvaluateArgs {
    /// Directory of the baseline checkpoint (Hugging Face layout, safetensors), or ORG/NAME or ORG/NAME@REVISION in the Hugging Face cache
    #[arg(long, value_name = "DIR")]
    pub baseline: PathBuf,
    /// The subject checkpoint, as --baseline; or a PEFT LoRA adapter, which is merged over the baseline as it is loaded
    #[arg(long, value_name = "DIR")]
    pub subject: PathBuf,
    /// Preset: dataset and window settings
    #[arg(long, value_name = "FILE.yaml", conflicts_with = "dataset")]
    pub preset: Option<PathBuf>,
    /// Dataset: rows with a "text" member (JSON lines, JSON, CSV, TSV, Parquet; also .gz, .zst), or lines of text (.txt). Or
    /// hf:ORG/NAME, hf:ORG/NAME@REVISION or wikitext2 in the Hugging Face cache
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<PathBuf>,
    /// How texts lie in windows: rows (each row gives one window) or documents (rows are joined by the end token and cut into full
    /// windows, as for published perplexities) [default: that of the preset, else rows]
    #[arg(long, value_name = "NAME")]
    pub packing: Option<String>,
    /// Profile: dev (the preset's windows), ci_cpu (120 + 120), ci (240 + 240), release (400 + 400)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Tier of the gates: conservative, balanced or aggressive
    #[arg(long, default_value = "balanced", value_name = "NAME")]
    pub tier: String,
    /// Limits of the guards that replace those of the tier, as `advanced calibrate` writes them; `verify` accepts them with the same option
    #[arg(long, value_name = "FILE.yaml")]
    pub tiers: Option<PathBuf>,
    /// With what the guards compare the subject: compare (the baseline) or upstream (the subject itself, as InvarLock 0.12 does)
    /// [default: compare]
    #[arg(long, value_name = "MODE")]
    pub guards: Option<String>,
    /// Device: auto or cpu. With an image that speaks `delegate`, also cuda (the GPUs that you were given) or VENDOR/CLASS=NAME, such as
    /// nvidia.com/gpu=0; the evidence records it, and the default verification policy rejects it
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    /// Output directory of run reports and logs
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub out: PathBuf,
    /// Output directory of the evaluation report and the runtime manifest
    #[arg(long, default_value = "reports/eval", value_name = "DIR")]
    pub report_out: PathBuf,
    /// Reuse a measured baseline: its run report; the runtime manifest must be in the same directory
    #[arg(long, value_name = "report.json")]
    pub baseline_report: Option<PathBuf>,
    /// How the subject was made from the baseline, such as int8; only recorded
    #[arg(long, value_name = "NAME")]
    pub edit_label: Option<String>,
    /// Settings of an edit that the program makes in the subject before it measures it
    #[arg(long, value_name = "FILE.yaml", help_heading = "Only with an image that speaks `delegate`")]
    pub edit_config: Option<PathBuf>,
    /// What InvarLock 0.12 demands of its own evidence: strict or off [default: that of the program]
    #[arg(long, value_name = "MODE", help_heading = "Only with an image that speaks `delegate`")]
    pub assurance: Option<String>,
    /// Directory with device specifications; can be repeated, the last one precedes [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR", help_heading = "Only with an image that speaks `delegate`")]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// Sign the evidence with this Ed25519 key (PKCS #8 PEM or OpenSSH; mode 600)
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Plan lock: refuse to run with other criteria than it fixes, and name it in the evidence
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Metric: auto (the perplexity of the kind of model, or the accuracy on examples with choices), ppl_causal, ppl_mlm, ppl_seq2seq or
    /// accuracy
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub metric: String,
    /// Type of numbers that losses are computed in: float32, or bf16x3 (matrix products on AMX) [default: float32]
    #[arg(long, value_name = "NAME")]
    pub dtype: Option<String>,
    /// Measure quantised weights with inputs in float32, where config.json asks for quantised inputs too
    #[arg(long)]
    pub weight_only: bool,
    /// What the checkpoints must be: auto (anything), hf_causal, hf_mlm or hf_seq2seq
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub adapter: String,
    /// As --adapter, for the baseline
    #[arg(long, value_name = "NAME", hide = true)]
    pub baseline_adapter: Option<String>,
    /// As --adapter, for the subject
    #[arg(long, value_name = "NAME", hide = true)]
    pub subject_adapter: Option<String>,
    /// Check both sides, print the plan as JSON and measure nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Measure all windows, also those that an interrupted command measured
    #[arg(long)]
    pub no_resume: bool,
    /// Exit 0 even when the subject fails its gates
    #[arg(long)]
    pub no_gate: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Set by `sweep`: this seed draws the windows
    #[arg(long, value_name = "SEED", hide = true)]
    pub draw_windows: Option<u64>,
    /// Set by calibration: the windows on which the variance guard of InvarLock tries factors
    #[arg(long, value_name = "NUMBER", requires = "draw_windows", hide = true)]
    pub guard_windows: Option<u64>,
    /// Set by `sweep`: the process with which this one ends
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
    /// Print only the result
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Also print the standard error of the containers, and timings
    #[arg(short, long)]
    pub verbose: bool,
    /// Run the evaluator in a container or on the host [default: container]. An explicit `container` overrides --allow-host-execution and
    /// INVARLOCK_ALLOW_HOST_EXECUTION
    #[arg(long, value_enum, value_name = "MODE")]
    pub execution_mode: Option<ExecutionMode>,
    /// Exceptions.
    #[command(flatten)]
    pub allow: AllowArgs,
    /// Image, evaluator and limits.
    #[command(flatten)]
    pub container: ContainerArgs,
}

/// Named exceptions to the default policy; each is recorded in the evidence.
#[derive(Debug, Clone, Default, Args)]
pub struct AllowArgs {
    /// Allow this command to pull a docker://… image that is not in the store. Containers never have a network. Recorded; the default
    /// verification policy rejects it
    #[arg(long, help_heading = "Exceptions")]
    pub allow_network: bool,
    /// Run the evaluator on the host, without a container. Every output says so. Recorded as host-bypass; the default verification policy rejects it
    #[arg(long, help_heading = "Exceptions")]
    pub allow_host_execution: bool,
}

/// Where the evaluator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutionMode {
    /// In a container
    Container,
    /// As a child process, without a container
    Host,
}
