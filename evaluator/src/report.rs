//! Builds the run report of a measurement.

use std::time::Duration;

use invarlock_evidence::format::check_report::CheckpointFacts;
use invarlock_evidence::format::to_value;
use invarlock_evidence::job::{Job, Role};
use invarlock_evidence::run_report::{
    EvaluationWindows, Guard, ReplayArm, RunData, RunMeta, RunMetrics, RunPrimaryMetric, RunProvenance,
    RunReport, WindowArm,
};
use serde_json::{Map, Value, json};

use crate::digests;
use crate::math::simd;
use crate::measure::weighted_mean;
use crate::model::ModelInfo;
use crate::tokenizer::Tokenizer;
use crate::windows::{Arm, Windows};
use invarlock_error::{Context as _, Foreign as _, Kind, Result, bail};

/// The results from which a report is built.
#[derive(Debug)]
pub struct Measured<'m> {
    pub job: &'m Job,
    pub info: &'m ModelInfo<'m>,
    pub facts: &'m CheckpointFacts,
    pub tokenizer: &'m Tokenizer,
    pub windows: &'m Windows,
    pub preview: &'m [f64],
    pub final_: &'m [f64],
    pub threads: usize,
    pub opened: Duration,
    pub tokenized: Duration,
    pub evaluated: Duration,
}

/// Builds the report.
pub fn report(m: &Measured<'_>) -> Result<RunReport> {
    let preview_hash = digests::arm(&m.windows.preview.windows);
    let final_hash = digests::arm(&m.windows.final_.windows);
    Ok(RunReport {
        meta: meta(m),
        data: data(m, preview_hash, final_hash),
        edit: edit(m.job.role),
        guards: guards(m)?,
        metrics: metrics(m)?,
        artifacts: members(json!({"events_path": "events.jsonl", "logs_path": "", "checkpoint_path": null})),
        flags: Map::new(),
        context: members(json!({
            "profile": m.job.profile,
            "auto": auto(m),
            "eval": {"loss": {"resolved_type": "causal"}},
        })),
        provenance: provenance(m),
        evaluation_windows: EvaluationWindows {
            preview: arm(&m.windows.preview, m.preview),
            final_: arm(&m.windows.final_, m.final_),
        },
    })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn auto(m: &Measured<'_>) -> Value {
    json!({"enabled": true, "tier": m.job.tier, "probes": 0, "target_pm_ratio": 1.0})
}

/// `meta.evaluator`: this program, and facts about the checkpoint.
fn evaluator(m: &Measured<'_>) -> Value {
    let mut evaluator = members(json!({
        "name": "invarlock-evaluator",
        "version": crate::VERSION,
        "kernel": simd::kernel(),
        "threads": m.threads,
    }));
    evaluator.extend(members(to_value(m.facts)));
    evaluator.into()
}

fn meta(m: &Measured<'_>) -> RunMeta {
    let seeds = json!({"python": m.job.seed, "numpy": m.job.seed, "torch": m.job.seed});
    RunMeta {
        model_id: m.job.model_id.clone(),
        adapter: "hf_causal".to_owned(),
        device: "cpu".to_owned(),
        commit: String::new(),
        seed: m.job.seed,
        ts: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        tokenizer_hash: Some(m.tokenizer.hash.clone()),
        model_profile: m.info.profile.clone(),
        more: members(json!({
            "auto": auto(m),
            "seeds": seeds,
            "invarlock_version": crate::VERSION,
            "evaluator": evaluator(m),
            // The numbers do not depend on threads, so no setting is needed for determinism.
            "determinism": {"requested": "strict", "level": "strict", "profile": m.job.profile, "device": "cpu",
                "threads": m.threads, "seed": m.job.seed, "seeds": seeds},
        })),
    }
}

fn window_plan(m: &Measured<'_>) -> Value {
    let (preview, final_) = (m.windows.preview.windows.len(), m.windows.final_.windows.len());
    json!({
        "profile": m.job.profile,
        "requested_preview": m.job.preview_n,
        "requested_final": m.job.final_n,
        "actual_preview": preview,
        "actual_final": final_,
        "coverage_ok": preview == final_,
        "preview_total_tokens": m.windows.preview.tokens(),
        "final_total_tokens": m.windows.final_.tokens(),
    })
}

fn data(m: &Measured<'_>, preview_hash: String, final_hash: String) -> RunData {
    let mut more = m.tokenizer.special.clone();
    more.extend(members(json!({
        "loss_type": "causal",
        "window_plan": window_plan(m),
        "blank_rows": m.windows.blank,
        "short_rows": m.windows.short,
    })));
    RunData {
        dataset: "local_jsonl".to_owned(),
        split: Some(m.job.split.clone()),
        seq_len: m.job.seq_len,
        stride: m.job.stride,
        preview_n: m.windows.preview.windows.len(),
        final_n: m.windows.final_.windows.len(),
        tokenizer_name: Some(m.job.model_id.clone()),
        tokenizer_hash: Some(m.tokenizer.hash.clone()),
        vocab_size: Some(m.tokenizer.vocab_size),
        dataset_hash: Some(digests::dataset(&preview_hash, &final_hash)),
        preview_hash: Some(preview_hash),
        final_hash: Some(final_hash),
        preview_total_tokens: m.windows.preview.tokens(),
        final_total_tokens: m.windows.final_.tokens(),
        more,
    }
}

fn edit(role: Role) -> Map<String, Value> {
    let name = match role {
        Role::Baseline => "noop",
        Role::Subject => "custom",
    };
    members(json!({
        "name": name,
        "plan_digest": "noop",
        "deltas": {"params_changed": 0, "sparsity": null, "bitwidth_map": null, "layers_modified": 0},
        "plan": {},
        "config": {},
        "algorithm": name,
    }))
}

fn guards(m: &Measured<'_>) -> Result<Vec<Guard>> {
    let checks = serde_json::to_value(&m.info.checks)
        .err_kind(Kind::System)
        .context("serializing the checks of the invariants guard")?;
    let performed = checks.as_object().map_or(0, Map::len);
    let invariants = Guard {
        name: "invariants".to_owned(),
        evaluated: true,
        // A single side can only violate this guard by weights that are not finite, which were rejected before.
        passed: Some(true),
        decision: Some("allow".to_owned()),
        details: members(json!({"checks": checks})),
        metrics: members(json!({"checks_performed": performed, "violations_found": 0,
            "fatal_violations": 0, "warning_violations": 0})),
        violations: Vec::new(),
    };
    let absent = |name: &str| Guard {
        name: name.to_owned(),
        evaluated: false,
        passed: None,
        decision: None,
        details: Map::new(),
        metrics: Map::new(),
        violations: Vec::new(),
    };
    Ok(vec![invariants, absent("spectral"), absent("rmt"), absent("variance")])
}

fn metrics(m: &Measured<'_>) -> Result<RunMetrics> {
    let preview = weighted_mean(m.preview, &m.windows.preview);
    let final_ = weighted_mean(m.final_, &m.windows.final_);
    let perplexity = |name: &str, mean: f64| match mean.exp() {
        ppl if ppl.is_finite() => Ok(ppl),
        _ => bail!(
            Input,
            "the mean loss of the {name} arm is {mean}, so its perplexity is not finite: the checkpoint is damaged"
        ),
    };
    let tokens = (m.windows.preview.tokens(), m.windows.final_.tokens());
    let all = (tokens.0 + tokens.1) as f64;
    let seconds = m.evaluated.as_secs_f64().max(1e-9);
    let mut stats = members(window_plan(m));
    stats.remove("profile");
    let adjustments = m.windows.adjustments.iter();
    let adjustments: Vec<Value> = adjustments
        .map(|(deficit, per_arm)| json!({"deficit": deficit, "proposed_per_arm": per_arm}))
        .collect();
    stats.insert(
        "dedupe_adjustments".to_owned(),
        if adjustments.is_empty() { Value::Null } else { adjustments.into() },
    );
    let mut more = members(json!({
        "logloss_delta": final_ - preview,
        "latency_ms_per_tok": seconds * 1000.0 / all,
        "throughput_tok_per_s": all / seconds,
        "preview_total_tokens": tokens.0,
        "final_total_tokens": tokens.1,
        "masked_tokens_total": tokens.0 + tokens.1,
        "masked_tokens_preview": tokens.0,
        "masked_tokens_final": tokens.1,
        "window_plan": window_plan(m),
        "stats": stats,
        "reduction": {"mode": "token_mean", "implementation": "invarlock_cross_entropy"},
        "loss_type": "causal",
        "timings": {
            "load": m.opened.as_secs_f64(),
            "tokenize": m.tokenized.as_secs_f64(),
            "eval": seconds,
            "total": (m.opened + m.tokenized + m.evaluated).as_secs_f64(),
        },
    }));
    if let Some(peak) = peak_memory_mib() {
        more.insert("memory_mb_peak".to_owned(), peak.into());
    }
    Ok(RunMetrics {
        primary_metric: RunPrimaryMetric {
            kind: "ppl_causal".to_owned(),
            preview: Some(perplexity("preview", preview)?),
            final_: Some(perplexity("final", final_)?),
            more: members(json!({
                "unit": "ppl",
                "direction": "lower",
                "aggregation_scope": "token",
                "paired": true,
                "gating_basis": "upper",
                "supports_bootstrap": true,
                "invalid": false,
                "degraded": false,
            })),
        },
        logloss_preview: Some(preview),
        logloss_final: Some(final_),
        more,
    })
}

/// Peak resident memory of this process, mapped weights included.
fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

fn provenance(m: &Measured<'_>) -> RunProvenance {
    let ids = m.windows.preview.ids.iter().chain(&m.windows.final_.ids).copied();
    let mut provider_digest = members(json!({
        "ids_sha256": digests::window_ids(ids),
        "tokenizer_sha256": m.tokenizer.hash,
    }));
    if let Some(digest) = digests::labelled_positions(&m.windows.preview.windows, &m.windows.final_.windows) {
        provider_digest.insert("masking_sha256".to_owned(), digest.into());
    }
    let more = members(json!({"dataset_split": m.job.split, "split_fallback": false, "digest_version": 1}));
    RunProvenance { provider_digest, more }
}

/// The windows of an arm, without losses.
pub fn replay_arm(arm: &Arm) -> ReplayArm {
    ReplayArm {
        window_ids: arm.ids.clone(),
        input_ids: arm.windows.iter().map(|w| w.ids.clone()).collect(),
        attention_masks: arm.windows.iter().map(|w| mask(w.real, w.ids.len())).collect(),
    }
}

/// Ones for tokens of the text, zeros for padding.
fn mask(real: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::from(i < real)).collect()
}

fn arm(arm: &Arm, losses: &[f64]) -> WindowArm {
    let counts: Vec<u64> = arm.windows.iter().map(|w| w.real as u64).collect();
    let label = |real: usize, ids: &[u32]| {
        ids.iter().enumerate().map(|(i, id)| if i < real { i64::from(*id) } else { -100 }).collect()
    };
    let ReplayArm { window_ids, input_ids, attention_masks } = replay_arm(arm);
    WindowArm {
        window_ids,
        logloss: losses.to_vec(),
        input_ids,
        attention_masks,
        masked_token_counts: counts.clone(),
        actual_token_counts: counts.clone(),
        token_counts: counts,
        labels: arm.windows.iter().map(|w| label(w.real, &w.ids)).collect(),
    }
}
