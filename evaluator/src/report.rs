//! The values of a run report, from a finished measurement.

use std::time::Duration;

use invarlock_evidence::format::check_report::CheckpointFacts;
use invarlock_evidence::format::metrics::{self, Metric, MetricKind};
use invarlock_evidence::format::statistics::GuardStatistics;
use invarlock_evidence::job::Job;
use invarlock_evidence::measured::{self, Evaluator, Requested, Seconds, Selection};
use invarlock_evidence::numerics::NOT_PREDICTED;
use invarlock_evidence::run_report::{ReplayArm, RunReport};
use serde_json::{Map, Value};

use crate::math::products::Products;
use crate::model::ModelInfo;
use crate::windows::{Arm, Window, Windows};
use invarlock_error::Result;

/// The results from which a report is built.
#[derive(Debug)]
pub struct Measured<'m, 'i> {
    pub job: &'m Job,
    pub info: &'m ModelInfo<'i>,
    pub facts: &'m CheckpointFacts,
    /// The tokenizer that made the windows.
    pub tokenizer: measured::Tokenizer,
    pub used_tokens: Option<Vec<String>>,
    pub windows: &'m Windows,
    pub preview: &'m [f64],
    pub final_: &'m [f64],
    pub predicted_texts: Option<Vec<String>>,
    /// Numbers of windows of both arms whose losses an interrupted run measured.
    pub resumed: [usize; 2],
    /// The arithmetic of the products.
    pub products: Products,
    pub threads: usize,
    pub opened: Duration,
    pub tokenized: Duration,
    pub evaluated: Duration,
    pub statistics: GuardStatistics,
    pub guarded: Duration,
}

impl Measured<'_, '_> {
    /// The run report.
    pub fn report(&self) -> Result<RunReport> {
        let metric = match self.windows.final_.examples {
            Some(_) => metrics::of(MetricKind::Accuracy),
            None => metrics::perplexity_of(self.info.objective),
        };
        let total = self.opened + self.tokenized + self.evaluated + self.guarded;
        measured::Measured {
            requested: self.requested(),
            metric,
            masked: self.windows.masked.clone(),
            ended_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            evaluator: Evaluator {
                version: crate::VERSION.to_owned(),
                kernel: self.products.kernel(),
                threads: self.threads,
            },
            facts: self.facts.clone(),
            model_profile: profile_for(metric, &self.info.profile),
            checks: self.info.checks.clone(),
            tokenizer: self.tokenizer.clone(),
            used_tokens: self.used_tokens.clone(),
            preview: arm(&self.windows.preview, self.preview),
            final_: arm(&self.windows.final_, self.final_),
            predicted_texts: self.predicted_texts.clone(),
            selection: Selection {
                blank_rows: self.windows.blank,
                short_rows: self.windows.short,
                adjustments: self.windows.adjustments.clone(),
                packing: self.windows.packing,
                chat_template_sha256: self.windows.chat_template.clone(),
            },
            resumed: self.resumed,
            statistics: Some(self.statistics.clone()),
            seconds: Seconds {
                load: self.opened.as_secs_f64(),
                tokenize: self.tokenized.as_secs_f64(),
                eval: self.evaluated.as_secs_f64().max(1e-9),
                guards: Some(self.guarded.as_secs_f64()),
                total: total.as_secs_f64(),
            },
            memory_mb_peak: peak_memory_mib(),
        }
        .report()
    }

    fn requested(&self) -> Requested {
        let job = self.job;
        Requested {
            role: job.role,
            model_id: job.model_id.clone(),
            profile: job.profile.clone(),
            tier: job.tier.clone(),
            seq_len: job.seq_len,
            stride: job.stride,
            preview_n: job.preview_n,
            final_n: job.final_n,
            provider: job.provider,
            split: job.split.clone(),
            seed: job.seed,
            guards: job.guards,
        }
    }
}

/// The profile of a model without a rule that asks for a perplexity, where another metric is measured.
fn profile_for(metric: &Metric, profile: &Map<String, Value>) -> Map<String, Value> {
    let mut profile = profile.clone();
    if let Some(Value::Array(rules)) = profile.get_mut("cert_lints").filter(|_| metric.is_accuracy()) {
        rules.retain(|rule| rule.get("path").and_then(Value::as_str) != Some("primary_metric.kind"));
    }
    profile
}

/// Peak resident memory of this process, mapped weights included.
fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The windows of an arm, without losses.
pub fn replay_arm(arm: &Arm) -> ReplayArm {
    ReplayArm {
        window_ids: arm.ids.clone(),
        input_ids: arm.windows.iter().map(|w| w.ids.clone()).collect(),
        attention_masks: arm.windows.iter().map(|w| mask(w.real, w.ids.len())).collect(),
        labels: labels(arm),
        examples: arm.examples.clone(),
    }
}

/// The labels of the windows, padded to their length; none where a causal model predicts all tokens.
fn labels(arm: &Arm) -> Option<Vec<Vec<i64>>> {
    let padded = |window: &Window| {
        let mut labels = window.labels.clone()?;
        labels.resize(window.ids.len(), NOT_PREDICTED);
        Some(labels)
    };
    arm.windows.iter().map(padded).collect()
}

/// Ones for tokens of the text, zeros for padding.
fn mask(real: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::from(i < real)).collect()
}

fn arm(arm: &Arm, losses: &[f64]) -> measured::Arm {
    measured::Arm {
        window_ids: arm.ids.clone(),
        input_ids: arm.windows.iter().map(|w| w.ids.clone()).collect(),
        token_counts: arm.windows.iter().map(|w| w.real as u64).collect(),
        labels: labels(arm),
        examples: arm.examples.clone(),
        losses: losses.to_vec(),
    }
}
