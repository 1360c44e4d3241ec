//! The files from which the Python package InvarLock 0.17 publishes and verifies an evidence pack of its own, without a model.
//!
//! Its metric is the mean over windows of the negative log-likelihood per UTF-8 byte. Each final window is a record: the first token is
//! the input, the text of the other tokens is the expected output. Digests are `sha256:` and the SHA-256 of canonical JSON and a line
//! feed ([`canonical_utf8_line`]), as 0.17.1 computes them.

use crate::compare::NLL_PER_BYTE;
use crate::evaluation::Facts;
use crate::format::objective::Objective;
use crate::job::Role;
use crate::measured::{EVALUATOR, Measured};
use crate::numerics::digest::{canonical_utf8_line, sha256_hex};
use invarlock_error::{Error, Result, bail};
use serde_json::{Value, json};

/// The metric's name in 0.17.1.
const METRIC: &str = NLL_PER_BYTE;
/// The most records of a run that 0.17.1 reads.
const MAX_RECORDS: usize = 50_000;
/// The largest run that 0.17.1 reads.
const MAX_RUN_BYTES: usize = 128 << 20;
/// The file with the tokenizer of a checkpoint.
const TOKENIZER: &str = "tokenizer.json";

/// Evidence that does not contradict itself.
#[derive(Debug, Clone, Copy)]
pub struct Measurements<'a> {
    /// The facts of the evaluation.
    pub facts: &'a Facts,
    /// What was measured of the baseline.
    pub baseline: &'a Measured,
    /// What was measured of the subject.
    pub subject: &'a Measured,
}

/// Files of a directory, and lines about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Name and content of each file.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The file to start with.
    pub main: &'static str,
    /// What the files say, one line each.
    pub lines: Vec<String>,
    /// The command that uses them: what precedes the path of [`Self::main`], and what follows it.
    pub command: (&'static str, &'static str),
}

/// One side as 0.17.1 needs it.
struct Side<'a> {
    role: Role,
    measured: &'a Measured,
    texts: &'a [String],
    artifact: String,
    tokenizer: String,
    run_report: String,
}

/// The run files, the policy and the request.
///
/// # Errors
/// The evidence has no texts, or a text is empty; 0.17.1 does not read as many windows.
pub(super) fn files(evidence: &Measurements<'_>) -> Result<Directory> {
    let texts = texts(evidence.baseline)?;
    let configuration = canonical_utf8_line(&configuration(evidence.facts));
    let configuration_digest = prefixed(&sha256_hex(configuration.as_bytes()));
    let baseline = Side::new(evidence, Role::Baseline, texts)?;
    let subject = Side::new(evidence, Role::Subject, texts)?;
    let policy = policy(evidence, &configuration_digest, &baseline, &subject)?;
    let files = vec![
        ("baseline.run.json", baseline.run(&configuration_digest)?),
        ("subject.run.json", subject.run(&configuration_digest)?),
        ("configuration.json", configuration.into_bytes()),
        ("policy.json", pretty(&policy)),
        ("request.json", pretty(&request())),
    ];
    let (base, subj) = (baseline.nll_per_byte(), subject.nll_per_byte());
    let line =
        format!("normalized NLL per UTF-8 byte: baseline {base}, subject {subj}, ratio {}", subj / base);
    let command = ("invarlock evaluate", "--signing-key private.pem");
    Ok(Directory { files, main: "request.json", lines: vec![line], command })
}

/// The text of each final window.
fn texts(baseline: &Measured) -> Result<&[String]> {
    if baseline.metric.objective == Objective::Masked {
        return Err(Error::unsupported(
            "captured records are about texts that continue others, and a masked language model predicts single tokens",
        ));
    }
    if baseline.metric.is_accuracy() {
        return Err(Error::unsupported(
            "captured records are about the loss per byte of texts, and the metric is an accuracy",
        )
        .with_hint("export another format, such as windows"));
    }
    let Some(texts) = &baseline.predicted_texts else {
        return Err(Error::input(
            "the baseline's run report has no texts: it was made by an older version, or its tokenizer cannot decode tokens",
        )
        .with_hint("evaluate again with this version, without --baseline-report"));
    };
    if texts.len() > MAX_RECORDS {
        bail!(
            Input,
            "the evidence has {} final windows; InvarLock 0.17 reads at most {MAX_RECORDS}",
            texts.len()
        );
    }
    if let Some(index) = texts.iter().position(String::is_empty) {
        return Err(Error::input(format!(
            "final window {}: its predicted tokens have no text, so it has no loss per byte",
            baseline.final_.window_ids[index]
        ))
        .with_hint("remove rows without visible text from the dataset and evaluate again"));
    }
    Ok(texts)
}

/// What both sides have in common, besides the windows.
fn configuration(facts: &Facts) -> Value {
    let dataset = &facts.plan.dataset;
    json!({
        "format_version": "invarlock-captured-configuration-v1",
        "metric": METRIC,
        "arm": "final",
        "compute_dtype": "float32",
        "dataset": prefixed(&facts.plan.dataset_files.tree_sha256),
        "text_field": dataset.text_field,
        "split": dataset.split,
        "seed": dataset.seed,
        "seq_len": dataset.seq_len,
        "stride": dataset.stride,
    })
}

fn request() -> Value {
    let run = |path: &str| json!({"path": path, "adapter": "invarlock"});
    json!({
        "format_version": "invarlock/evaluation-request-v2",
        "execution": {"mode": "captured"},
        "comparison": {
            "baseline": run("baseline.run.json"),
            "subject": run("subject.run.json"),
            "policy": "policy.json",
            "metric": METRIC,
        },
        "output": {"evidence": "evidence"},
    })
}

/// The limit of the tier as one of 0.17.1. Perplexities have the ratio r if the mean losses differ by ln r, so the losses then have the
/// ratio 1 + ln r / loss of the baseline.
fn policy(
    evidence: &Measurements<'_>,
    configuration_digest: &str,
    baseline: &Side<'_>,
    subject: &Side<'_>,
) -> Result<Value> {
    let (_, tier) = evidence.facts.policy()?;
    let increase = tier.ratio_gate().ln() / evidence.baseline.final_.mean_loss("final")?;
    if !(increase.is_finite() && increase > 0.0) {
        bail!(Input, "the baseline predicts every token with certainty, so losses have no ratio");
    }
    Ok(json!({
        "format": "invarlock/comparison-policy-v1",
        "metrics": [{
            "name": "normalized_nll",
            "kind": METRIC,
            "configuration": {
                "configuration_digest": configuration_digest,
                "baseline_tokenizer_digest": baseline.tokenizer,
                "subject_tokenizer_digest": subject.tokenizer,
            },
            "direction": "lower",
            "unit": "nats_per_utf8_byte",
            "aggregation": "mean",
            "minimum_count": baseline.texts.len(),
            "maximum_interval_width": increase,
            "ratio_max": 1.0 + increase,
        }],
        "slices": [],
    }))
}

impl<'a> Side<'a> {
    fn new(evidence: &Measurements<'a>, role: Role, texts: &'a [String]) -> Result<Self> {
        let measured = match role {
            Role::Baseline => evidence.baseline,
            Role::Subject => evidence.subject,
        };
        let checkpoint = &evidence.facts.side(role)?.checkpoint;
        let tokenizer = checkpoint.files.iter().find(|file| file.name == TOKENIZER);
        let Some(tokenizer) = tokenizer else {
            bail!(Input, "the runtime manifest has no digest of {TOKENIZER} of the {}", role.name());
        };
        Ok(Self {
            role,
            measured,
            texts,
            artifact: prefixed(&checkpoint.tree_sha256),
            tokenizer: prefixed(&tokenizer.sha256),
            run_report: evidence.facts.run_report(role)?.sha256.clone(),
        })
    }

    /// For each window: its predicted tokens, and the sum of their log-likelihoods in nats.
    fn windows(&self) -> impl Iterator<Item = (u64, f64)> {
        let arm = &self.measured.final_;
        arm.predicted().zip(&arm.losses).map(|(predicted, loss)| {
            // A loss can be below zero by a rounding error, a log-likelihood not above.
            (predicted, (-loss * predicted as f64).min(0.0))
        })
    }

    /// Mean over windows of the negative log-likelihood per byte, nats.
    fn nll_per_byte(&self) -> f64 {
        let per_byte = |((_, logprob), text): ((u64, f64), &String)| -logprob / text.len() as f64;
        self.windows().zip(self.texts).map(per_byte).sum::<f64>() / self.texts.len() as f64
    }

    /// The run, in canonical JSON: the SHA-256 of the file is the digest that 0.17.1 computes of it.
    fn run(&self, configuration_digest: &str) -> Result<Vec<u8>> {
        let windows = self.windows().enumerate();
        let records = windows.map(|(index, window)| self.record(index, window, configuration_digest));
        let name = self.role.name();
        let run = canonical_utf8_line(&json!({
            "format": "invarlock/evaluation-run-v1",
            "source": self.source(),
            "run_id": format!("{name}-{}", &self.run_report[..16.min(self.run_report.len())]),
            "artifact_digest": self.artifact,
            "source_digest": prefixed(&self.run_report),
            "score_provenance": {},
            "records": records.collect::<Vec<_>>(),
        }));
        match run.len() {
            bytes if bytes > MAX_RUN_BYTES => bail!(
                Input,
                "the run of the {name} has {bytes} bytes; InvarLock 0.17 reads at most {MAX_RUN_BYTES}"
            ),
            _ => Ok(run.into_bytes()),
        }
    }

    fn source(&self) -> Value {
        json!({"name": EVALUATOR, "version": self.measured.evaluator.version})
    }

    /// One window, by its index.
    fn record(&self, index: usize, (predicted, logprob): (u64, f64), configuration_digest: &str) -> Value {
        let (arm, text) = (&self.measured.final_, &self.texts[index]);
        let given = match self.measured.metric.objective {
            Objective::Seq2Seq => arm.token_counts[index] as usize,
            Objective::Causal | Objective::Masked => 1,
        };
        let input = json!({"token_ids": arm.input_ids[index].get(..given)});
        json!({
            "id": arm.window_ids[index].to_string(),
            "input": input,
            "expected": text,
            "output": null,
            "scores": {},
            "metadata": {},
            "error": null,
            "context": {},
            "likelihood": {
                "basis": "reference_continuation",
                "logprob_sum": logprob,
                "token_count": predicted,
                "utf8_byte_count": text.len(),
                "input_digest": digest(&input),
                "reference_digest": digest(&json!(text)),
                "artifact_digest": self.artifact,
                "configuration_digest": configuration_digest,
                "tokenizer_digest": self.tokenizer,
                "source": self.source(),
            },
        })
    }
}

/// The digest of a value as 0.17.1 computes it.
fn digest(value: &Value) -> String {
    prefixed(&sha256_hex(canonical_utf8_line(value).as_bytes()))
}

fn prefixed(sha256: &str) -> String {
    format!("sha256:{}", sha256.trim_start_matches("sha256:"))
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
