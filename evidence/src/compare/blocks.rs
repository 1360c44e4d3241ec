//! The blocks of the report, each from numbers that were derived before.

use super::sides::Side;
use super::{CompareContext, GENERATOR, Numbers, derive};
use crate::numerics::digest::schedule_digest;
use crate::policy::{ALPHA, BOOTSTRAP_METHOD, CI_BAND, Tier};
use crate::run_report::{RunReport, WindowArm};
use serde_json::{Map, Value, json};

/// Why the guards of this version's report are not all evaluated.
const GUARD_NOT_BUILT: &str = "this version does not evaluate this guard";
const GUARDS_NOT_BUILT: [&str; 3] = ["spectral", "rmt", "variance"];

/// What was compared and under which settings.
pub(super) fn identity(
    subject: &RunReport,
    side: &Side<'_>,
    context: &CompareContext,
    numbers: &Numbers,
    run_id: &str,
) -> Value {
    let same_checkpoint = context.baseline_checkpoint_sha256.is_some()
        && context.baseline_checkpoint_sha256 == context.subject_checkpoint_sha256;
    let algorithm = if same_checkpoint { "noop" } else { "custom" };
    let edit_name = context.edit_label.clone().unwrap_or_else(|| algorithm.to_owned());
    let replicates = numbers.replicates;
    json!({
        "schema_version": "v1",
        "run_id": run_id,
        "edit_name": edit_name,
        "meta": meta(subject, side, context, &numbers.drift_band),
        "edit": {
            "name": edit_name,
            "algorithm": algorithm,
            "algorithm_version": "",
            "implementation": "",
            "plan_digest": "",
            "mask_digest": "",
            "seed": subject.meta.seed,
        },
        "plugins": {},
        "context": {
            "profile": context.profile.as_str(),
            "auto": {"enabled": true, "tier": context.tier.as_str(), "probes": 0},
            "assurance": {"mode": "off"},
            "run": {},
            "eval": {"bootstrap": {"replicates": replicates, "alpha": ALPHA, "ci_band": CI_BAND}},
            "primary_metric": {"acceptance_range": {}, "drift_band": numbers.drift_band},
            "runtime": {"execution_mode": context.execution_mode.report_name()},
            "guard_chain_observed": ["invariants"],
        },
    })
}

/// The metric and what it decides.
pub(super) fn judged(
    baseline: &RunReport,
    base: &Side<'_>,
    subj: &Side<'_>,
    context: &CompareContext,
    numbers: &Numbers,
    baseline_run_id: &str,
) -> Value {
    let (low, high) = numbers.interval;
    let display = numbers.display;
    let confidence = derive::confidence(display.1 - display.0, numbers.acceptable, numbers.unstable);
    json!({
        "primary_metric": {
            "kind": "ppl_causal",
            "unit": "ppl",
            "direction": "lower",
            "aggregation_scope": "token",
            "paired": true,
            "gating_basis": "upper",
            "supports_bootstrap": true,
            "preview": subj.preview.perplexity,
            "final": subj.last.perplexity,
            "ratio_vs_baseline": numbers.ratio,
            "ci": [low, high],
            "display_ci": [display.0, display.1],
            "ci_level": 1.0 - ALPHA,
            "reps": numbers.replicates,
            "analysis_basis": "mean_logloss",
            "analysis_point_preview": subj.preview.mean_loss,
            "analysis_point_final": subj.last.mean_loss,
            "invalid": false,
            "degraded": false,
            "unstable": numbers.unstable,
            "drift_band": numbers.drift_band,
        },
        "primary_metric_tail": numbers.tail,
        "validation": numbers.validation,
        "confidence": confidence,
        "baseline_ref": {
            "run_id": baseline_run_id,
            "model_id": context.baseline_model_id,
            "adapter": baseline.meta.adapter,
            "primary_metric": {
                "kind": "ppl_causal",
                "preview": base.preview.perplexity,
                "final": base.last.perplexity,
            },
            "tokenizer_hash": base.tokenizer_hash,
        },
        "quality_overhead": {"basis": "ratio", "value": numbers.ratio, "kind": "ppl_causal"},
        "secondary_metrics": [],
        "assurance": assurance(context, numbers.passed),
    })
}

fn assurance(context: &CompareContext, passed: bool) -> Value {
    let verdict = if passed { "pass" } else { "fail" };
    json!({
        "mode": "off",
        "profile": context.profile.as_str(),
        "tier": context.tier.as_str(),
        "canonical_guard_chain": ["invariants", "spectral", "rmt", "variance", "invariants"],
        "canonical_guard_chain_enforced": false,
        "guard_chain_observed": ["invariants"],
        "blocking_reasons": GUARDS_NOT_BUILT.map(|guard| format!("{guard} was not evaluated")),
        "fallback_fields_used": false,
        "report_local_verdict": verdict,
        "verdict": verdict,
        "runtime_provenance_declared": context.execution_mode.report_name(),
        "runtime_provenance_verification_status": "pending",
        "runtime_provenance_verified": false,
    })
}

/// The raw windows and what was measured besides losses.
pub(super) fn measured(
    baseline: &RunReport,
    subject: &RunReport,
    side: &Side<'_>,
    context: &CompareContext,
    numbers: &Numbers,
    run_id: &str,
) -> Value {
    let losses = |arm: &WindowArm| json!({"window_ids": arm.window_ids, "logloss": arm.logloss, "token_counts": arm.token_counts});
    let windows = &baseline.evaluation_windows;
    json!({
        "dataset": dataset(subject, side, context, &numbers.coverage, numbers.replicates),
        "telemetry": telemetry(subject, side, run_id, numbers.ratio, numbers.display, numbers.acceptable),
        "system_overhead": system_overhead(baseline, subject),
        "evaluation_windows": {"preview": arm(&subject.evaluation_windows.preview), "final": arm(&subject.evaluation_windows.final_)},
        "baseline_windows": {"preview": losses(&windows.preview), "final": losses(&windows.final_)},
    })
}

/// One arm as measured, without its labels: they were checked to be the ids where the mask is 1, so they say nothing more.
fn arm(arm: &WindowArm) -> Value {
    let mut value = serde_json::to_value(arm).unwrap_or_default();
    if let Value::Object(members) = &mut value {
        members.remove("labels");
    }
    value
}

/// The subject's invariants guard, and the other guards as what they are here: not evaluated, whatever the container says.
fn evaluated_guards(subject: &RunReport) -> Vec<Value> {
    let invariants = subject.guards.iter().find(|guard| guard.name == "invariants").map(|guard| json!(guard));
    let others =
        GUARDS_NOT_BUILT.iter().map(|name| json!({"name": name, "evaluated": false, "passed": null}));
    invariants.into_iter().chain(others).collect()
}

/// What the guards found, and which of them this version has not.
pub(super) fn guards(subject: &RunReport, numbers: &Numbers) -> Value {
    let mut blocks = json!({
        "structure": structure(&numbers.invariants),
        "invariants": numbers.invariants,
        "guards": evaluated_guards(subject),
        "guard_overhead": {
            "mode": "skipped",
            "skipped": true,
            "evaluated": false,
            "skip_reason": "no guard takes part in the measuring, so there is nothing to measure without",
        },
    });
    for guard in GUARDS_NOT_BUILT {
        blocks[guard] = json!({
            "evaluated": false,
            "supported": false,
            "status": "not_evaluated",
            "reason": GUARD_NOT_BUILT,
        });
    }
    blocks["variance"]["enabled"] = json!(false);
    blocks
}

/// Where it all came from.
pub(super) fn origin(
    base: &Side<'_>,
    subj: &Side<'_>,
    context: &CompareContext,
    numbers: &Numbers,
    policy: Value,
    run_ids: &[String; 2],
) -> Value {
    let plan = window_plan(context, subj, &numbers.coverage, context.tier, numbers.enough);
    json!({
        "provenance": provenance(base, subj, context, policy, plan, [&run_ids[0], &run_ids[1]]),
        "artifacts": {
            "events_path": context.events_path,
            "logs_path": "",
            "checkpoint_path": null,
            "report_path": context.subject_report_path,
            "generated_at": context.generated_at,
        },
        "report_build": {
            "generator": {
                "name": GENERATOR,
                "version": env!("CARGO_PKG_VERSION"),
                "pairing_evidence": "baseline_windows",
            },
            "synthesized_fields": [],
            "repaired_fields": [],
            "fallback_fields": [],
        },
    })
}

/// Members of `meta` that a gate could be read from: never copied from a container.
const GATING_META: [&str; 8] = [
    "pm_acceptance_range",
    "pm_drift_band",
    "profile",
    "run_id",
    "plugins",
    "config",
    "tier_policies",
    "guard_overhead_threshold",
];

fn meta(subject: &RunReport, side: &Side<'_>, context: &CompareContext, drift_band: &Value) -> Value {
    let run = &subject.meta;
    let mut meta = json!({
        "model_id": context.subject_model_id,
        "adapter": run.adapter,
        "device": run.device,
        "ts": run.ts,
        "commit": run.commit,
        "seed": run.seed,
        "profile": context.profile.as_str(),
        "pm_drift_band": drift_band,
        "tokenizer_hash": side.tokenizer_hash,
        "model_profile": run.model_profile,
    });
    if let Value::Object(meta) = &mut meta {
        for (name, value) in &run.more {
            if !GATING_META.contains(&name.as_str()) && !meta.contains_key(name) {
                meta.insert(name.clone(), value.clone());
            }
        }
    }
    meta
}

fn window_plan(
    context: &CompareContext,
    side: &Side<'_>,
    coverage: &Value,
    tier: Tier,
    enough: bool,
) -> Value {
    let data = &side.report.data;
    json!({
        "profile": context.profile.as_str(),
        "requested_preview": context.requested_windows.0,
        "requested_final": context.requested_windows.1,
        "capacity": {},
        "actual_preview": data.preview_n,
        "actual_final": data.final_n,
        "coverage_ok": coverage["preview"]["ok"] == json!(true) && coverage["final"]["ok"] == json!(true),
        "preview_total_tokens": side.preview.tokens,
        "final_total_tokens": side.last.tokens,
        "min_tokens_target": tier.min_tokens(),
        "tokens_floor_met": enough,
    })
}

fn dataset(
    subject: &RunReport,
    side: &Side<'_>,
    context: &CompareContext,
    coverage: &Value,
    replicates: usize,
) -> Value {
    let (data, windows) = (&subject.data, &subject.evaluation_windows);
    let more = |name: &str| data.more.get(name).cloned().unwrap_or_default();
    json!({
        "provider": data.dataset,
        "split": data.split,
        "seq_len": data.seq_len,
        "stride": data.stride,
        "windows": {
            "preview": data.preview_n,
            "final": data.final_n,
            "seed": subject.meta.seed,
            "stats": {
                "requested_preview": context.requested_windows.0,
                "requested_final": context.requested_windows.1,
                "actual_preview": data.preview_n,
                "actual_final": data.final_n,
                "coverage_ok": coverage["preview"]["ok"] == json!(true) && coverage["final"]["ok"] == json!(true),
                "coverage": coverage,
                "bootstrap": {
                    "enabled": true,
                    "method": BOOTSTRAP_METHOD,
                    "alpha": ALPHA,
                    "replicates": replicates,
                    "seed": context.bootstrap_seed,
                    "ci_band": CI_BAND,
                    "window_duplicate_fraction": 0.0,
                    "window_match_fraction": 1.0,
                    "coverage": coverage,
                },
                "paired_delta_summary": derive::drift_summary(
                    (&windows.preview.logloss, &windows.preview.token_counts),
                    (&windows.final_.logloss, &windows.final_.token_counts),
                ),
                "window_match_fraction": 1.0,
                "window_overlap_fraction": 0.0,
                "pairing": "paired_baseline",
                "paired_windows": data.final_n,
            },
        },
        "hash": {
            "preview": format!("blake2s:{}", side.preview_hash),
            "final": format!("blake2s:{}", side.final_hash),
            "dataset": side.dataset_hash,
            "preview_tokens": side.preview.tokens,
            "final_tokens": side.last.tokens,
            "total_tokens": side.preview.tokens + side.last.tokens,
            "source": "explicit_preview_final_hashes",
        },
        "tokenizer": {
            "name": data.tokenizer_name,
            "hash": side.tokenizer_hash,
            "vocab_size": data.vocab_size,
            "bos_token": more("bos_token"),
            "eos_token": more("eos_token"),
            "pad_token": more("pad_token"),
            "add_prefix_space": more("add_prefix_space"),
        },
    })
}

fn structure(invariants: &Value) -> Value {
    let count = |side: &str| invariants["details"][side]["parameter_count"].clone();
    match (count("baseline_checks"), count("current_checks")) {
        (Value::Null, Value::Null) => json!({}),
        (before, after) => json!({"parameter_count": {"baseline": before, "subject": after}}),
    }
}

fn telemetry(
    subject: &RunReport,
    side: &Side<'_>,
    run_id: &str,
    ratio: f64,
    display: (f64, f64),
    acceptable: bool,
) -> Value {
    let (preview, last) = (side.preview.tokens as f64, side.last.tokens as f64);
    let split = subject.data.split.as_deref().unwrap_or("None");
    let mut telemetry = json!({
        "device": subject.meta.device,
        "preview_total_tokens": preview,
        "final_total_tokens": last,
        "masked_tokens_total": preview + last,
        "masked_tokens_preview": preview,
        "masked_tokens_final": last,
        "summary_line": format!(
            "INVARLOCK_TELEMETRY run_id={run_id} metric=ppl_causal nprev={} nfinal={} tokens={} split={split} \
             ci={:.3}-{:.3} width={:.3} ratio={ratio:.3} gate={}",
            subject.data.preview_n,
            subject.data.final_n,
            side.preview.tokens + side.last.tokens,
            display.0,
            display.1,
            display.1 - display.0,
            if acceptable { "pass" } else { "fail" },
        ),
    });
    for name in ["latency_ms_per_tok", "throughput_tok_per_s", "memory_mb_peak"] {
        if let Some(value) = subject.metrics.more.get(name).filter(|value| value.is_number()) {
            telemetry[name] = value.clone();
        }
    }
    telemetry
}

fn provenance(
    baseline: &Side<'_>,
    subject: &Side<'_>,
    context: &CompareContext,
    policy: Value,
    window_plan: Value,
    [baseline_run_id, run_id]: [&str; 2],
) -> Value {
    let run = subject.report;
    let mut digest = json!({"ids_sha256": subject.ids_digest});
    if let Some(hash) = &subject.tokenizer_hash {
        digest["tokenizer_sha256"] = json!(hash);
    }
    if let Some(mask) = run.provenance.provider_digest.get("masking_sha256").filter(|value| value.is_string())
    {
        digest["masking_sha256"] = mask.clone();
    }
    let side = |run_id: &str, path: &str, report: &str, checkpoint: &Option<String>| {
        json!({
            "run_id": run_id,
            "report_hash": report.get(..16).unwrap_or(report),
            "report_path": path,
            "report_sha256": report,
            "checkpoint_sha256": checkpoint,
        })
    };
    let window_digest = schedule_digest(&run.evaluation_windows.final_.window_ids);
    let mut provenance = json!({
        "policy": policy,
        "baseline": side(
            baseline_run_id,
            &context.baseline_report_path,
            &context.baseline_report_sha256,
            &context.baseline_checkpoint_sha256,
        ),
        "edited": side(
            run_id,
            &context.subject_report_path,
            &context.subject_report_sha256,
            &context.subject_checkpoint_sha256,
        ),
        "env_flags": run.meta.more.get("env_flags").cloned().unwrap_or_else(|| json!({})),
        "provider_digest": digest,
        "baseline_provider_digest": {
            "ids_sha256": baseline.ids_digest,
            "tokenizer_sha256": baseline.tokenizer_hash,
        },
        "dataset_split": run.data.split,
        "split_fallback": false,
        "window_plan": window_plan,
        "window_ids_digest": window_digest,
        "window_plan_digest": window_digest,
    });
    if let Some(checkpoint) = &context.subject_checkpoint_sha256 {
        provenance["edit_digest"] = json!({"family": "report_only", "impl_hash": checkpoint, "version": 1});
    }
    provenance
}

fn system_overhead(baseline: &RunReport, subject: &RunReport) -> Value {
    let mut overhead = Map::new();
    for (name, source) in
        [("latency_ms_p50", "latency_ms_per_tok"), ("throughput_sps", "throughput_tok_per_s")]
    {
        let of = |report: &RunReport| report.metrics.more.get(source).and_then(Value::as_f64);
        if let Some((before, after)) = of(baseline).zip(of(subject)).filter(|(before, _)| *before > 0.0) {
            overhead.insert(
                name.to_owned(),
                json!({
                    "baseline": before,
                    "edited": after,
                    "delta": after - before,
                    "ratio": after / before,
                }),
            );
        }
    }
    Value::Object(overhead)
}
