//! Two run reports in, one evaluation report out (`spec/report.md` sections 2 and 3).
//!
//! Neither side is trusted: the reports come out of containers. Every number that is derived from the raw windows
//! is derived again here, and what a report says about itself must agree with it.

pub(crate) mod derive;
pub(crate) mod invariants;
mod sides;

use crate::error::Error;
use crate::gates;
use crate::manifest::ExecutionMode;
use crate::numerics::bootstrap::Method;
use crate::numerics::digest::{compact_json_hash, schedule_digest, sha256_hex, spaced_json_hash};
use crate::policy::{ALPHA, BOOTSTRAP_METHOD, CI_BAND, HYSTERESIS_RATIO, Profile, Tier};
use crate::run_report::{RunReport, WindowArm};
use serde_json::{Map, Value, json};
use sides::Side;

/// What only the launcher knows about a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareContext {
    /// How strictly it is judged.
    pub profile: Profile,
    /// How far the subject may fall behind.
    pub tier: Tier,
    /// The user's name of the baseline checkpoint.
    pub baseline_model_id: String,
    /// The user's name of the subject checkpoint.
    pub subject_model_id: String,
    /// SHA-256 (hex) over the sorted file names and file digests of the baseline checkpoint; none when the baseline
    /// was measured elsewhere (`--baseline-report`).
    pub baseline_checkpoint_sha256: Option<String>,
    /// The same for the subject.
    pub subject_checkpoint_sha256: Option<String>,
    /// Path of the baseline's run report, as recorded.
    pub baseline_report_path: String,
    /// Path of the subject's run report, as recorded.
    pub subject_report_path: String,
    /// SHA-256 (hex) of the baseline run report's bytes.
    pub baseline_report_sha256: String,
    /// SHA-256 (hex) of the subject run report's bytes.
    pub subject_report_sha256: String,
    /// Container or host.
    pub execution_mode: ExecutionMode,
    /// Time of the comparison, UTC ISO-8601.
    pub generated_at: String,
    /// Seed of the bootstrap before [`crate::policy::PAIRED_SEED_OFFSET`] is added: `eval.bootstrap.seed`, else the
    /// dataset's seed.
    pub bootstrap_seed: u64,
    /// Replicates, where a preset asks for another number than the profile's.
    pub replicates: Option<usize>,
    /// Windows asked for (preview, final).
    pub requested_windows: (usize, usize),
    /// `--edit-label`; otherwise `noop` for equal checkpoint digests and `custom` for different or unknown ones.
    pub edit_label: Option<String>,
    /// Path of the subject's `events.jsonl`, as recorded; may be empty.
    pub events_path: String,
}

/// What `report_build.generator.name` says of reports made here; the verifier then demands the extensions.
pub const GENERATOR: &str = "invarlock-evidence";

/// Why the guards of this version's report are not all evaluated.
const GUARD_NOT_BUILT: &str = "this version does not evaluate this guard";

/// Compares `subject` with `baseline` and returns the evaluation report.
///
/// An error means that the reports contradict themselves or each other, or that too little was measured for the
/// profile; not that the subject is bad: a bad subject gives a report whose gates are false
/// ([`crate::gates::passed`]).
pub fn compare(baseline: &RunReport, subject: &RunReport, context: &CompareContext) -> Result<Value, Error> {
    let base = Side::check("baseline", baseline)?;
    let subj = Side::check("subject", subject)?;
    sides::check_pair(&base, &subj)?;

    let (profile, tier) = (context.profile, context.tier);
    let (preview_n, final_n) = (subject.data.preview_n, subject.data.final_n);
    let floor = tier.coverage();
    let replicates = context.replicates.unwrap_or_else(|| {
        if profile.gated() { profile.replicates().max(floor.replicates) } else { profile.replicates() }
    });
    if profile.gated()
        && (preview_n < floor.preview || final_n < floor.final_ || replicates < floor.replicates)
    {
        return Err(Error::Input(format!(
            "too little was measured for profile {profile} and tier {tier}: {preview_n} + {final_n} windows and \
             {replicates} bootstrap replicates, the floors are {} + {} and {}; give a larger dataset (E005)",
            floor.preview, floor.final_, floor.replicates
        )));
    }

    let (base_final, subj_final) = (&baseline.evaluation_windows.final_, &subject.evaluation_windows.final_);
    let subj_preview = &subject.evaluation_windows.preview;
    let ratio = subj.last.perplexity / base.last.perplexity;
    let drift = subj.last.perplexity / subj.preview.perplexity;
    let seed = context.bootstrap_seed;
    let (low, high) = derive::paired_ci(
        &subj_final.logloss,
        &base_final.logloss,
        &subj_final.token_counts,
        Method::Bca,
        replicates,
        ALPHA,
        seed,
    )
    .map_err(|why| Error::Input(format!("the confidence interval cannot be computed: {why}")))?;
    let display = (low.exp(), high.exp());
    if ![ratio, drift, display.0, display.1].into_iter().all(f64::is_finite) {
        return Err(Error::Integrity(format!(
            "the comparison has no finite result: ratio {ratio}, drift {drift}, interval {display:?}"
        )));
    }

    let tokens = subj.preview.tokens + subj.last.tokens;
    let enough = derive::enough_tokens(tier, tokens, preview_n, final_n);
    let unstable = replicates < 200 || !enough;
    let invariants = invariants::block(baseline, subject);
    let validation = derive::validation(profile, tier, ratio, drift, enough, invariants["status"].as_str());
    let acceptable = validation["primary_metric_acceptable"] == json!(true);
    let all_pass = gates::all_true(profile, &validation);
    let confidence = derive::confidence(display.1 - display.0, acceptable, unstable);
    let tail = derive::tail(&subj_final.logloss, &base_final.logloss, &subj_final.token_counts, tier);
    let coverage = derive::coverage(tier, preview_n, final_n, replicates);

    let metrics_policy = tier.metrics_policy();
    let resolved_policy = json!({
        "metrics": metrics_policy,
        "invariants": {"strict_mode": false, "on_fail": "monitor"},
    });
    let policy_digest = spaced_json_hash(&json!({"resolved_policy": resolved_policy, "overrides": []}));
    let policy = json!({
        "tier": tier.as_str(),
        "overrides": [],
        "policy_digest": policy_digest,
        "validation_allowlist_source": "contracts",
        "resolved_at": context.generated_at,
    });

    let run_id = run_id(subject, &context.subject_model_id);
    let baseline_run_id = self::run_id(baseline, &context.baseline_model_id);
    let same_checkpoint = context.baseline_checkpoint_sha256.is_some()
        && context.baseline_checkpoint_sha256 == context.subject_checkpoint_sha256;
    let algorithm = if same_checkpoint { "noop" } else { "custom" };
    let edit_name = context.edit_label.clone().unwrap_or_else(|| algorithm.to_owned());
    let (band_low, band_high) = profile.drift_band();
    let drift_band = json!({"min": band_low, "max": band_high});
    let window_plan = window_plan(context, &subj, &coverage, tier, enough);
    let guards_not_evaluated = ["spectral", "rmt", "variance"];

    let mut report = Map::new();
    let mut put = |name: &str, value: Value| {
        report.insert(name.to_owned(), value);
    };
    put("schema_version", json!("v1"));
    put("run_id", json!(run_id));
    put("edit_name", json!(edit_name));
    put("meta", meta(subject, &subj, context, &drift_band));
    put("auto", json!({"tier": tier.as_str(), "probes_used": 0, "policy_digest": policy_digest}));
    put(
        "primary_metric",
        json!({
            "kind": "ppl_causal",
            "unit": "ppl",
            "direction": "lower",
            "aggregation_scope": "token",
            "paired": true,
            "gating_basis": "upper",
            "supports_bootstrap": true,
            "preview": subj.preview.perplexity,
            "final": subj.last.perplexity,
            "ratio_vs_baseline": ratio,
            "ci": [low, high],
            "display_ci": [display.0, display.1],
            "ci_level": 1.0 - ALPHA,
            "reps": replicates,
            "analysis_basis": "mean_logloss",
            "analysis_point_preview": subj.preview.mean_loss,
            "analysis_point_final": subj.last.mean_loss,
            "invalid": false,
            "degraded": false,
            "unstable": unstable,
            "drift_band": drift_band,
        }),
    );
    put("primary_metric_tail", tail);
    put("validation", Value::Object(validation));
    put("confidence", confidence);
    put(
        "baseline_ref",
        json!({
            "run_id": baseline_run_id,
            "model_id": context.baseline_model_id,
            "adapter": baseline.meta.adapter,
            "primary_metric": {
                "kind": "ppl_causal",
                "preview": base.preview.perplexity,
                "final": base.last.perplexity,
            },
            "tokenizer_hash": base.tokenizer_hash,
        }),
    );
    put("dataset", dataset(subject, &subj, context, &coverage, replicates));
    put(
        "edit",
        json!({
            "name": edit_name,
            "algorithm": algorithm,
            "algorithm_version": "",
            "implementation": "",
            "plan_digest": "",
            "mask_digest": "",
            "seed": subject.meta.seed,
        }),
    );
    put("structure", structure(&invariants));
    put("telemetry", telemetry(subject, &subj, &run_id, ratio, display, acceptable));
    put("invariants", invariants);
    for guard in guards_not_evaluated {
        let mut block = json!({
            "evaluated": false,
            "supported": false,
            "status": "not_evaluated",
            "reason": GUARD_NOT_BUILT,
        });
        if guard == "variance" {
            block["enabled"] = json!(false);
        }
        put(guard, block);
    }
    put("guards", serde_json::to_value(&subject.guards).unwrap_or_default());
    put(
        "guard_overhead",
        json!({
            "mode": "skipped",
            "skipped": true,
            "evaluated": false,
            "skip_reason": "no guard takes part in the measuring, so there is nothing to measure without",
        }),
    );
    put(
        "policies",
        json!({
            "metrics": metrics_policy,
            "invariants": {"strict_mode": false, "on_fail": "monitor"},
        }),
    );
    put("resolved_policy", resolved_policy);
    put("policy_provenance", policy.clone());
    put(
        "policy_digest",
        json!({
            "policy_version": "policy-v1",
            "tier_policy_name": tier.as_str(),
            "thresholds_hash": compact_json_hash(&metrics_policy),
            "hysteresis": {"ppl": HYSTERESIS_RATIO, "accuracy_delta_pp": 0.1},
            "min_effective": 0.0,
            "changed": false,
        }),
    );
    put("plugins", json!({}));
    put("provenance", provenance(&base, &subj, context, policy, window_plan, [&baseline_run_id, &run_id]));
    put(
        "artifacts",
        json!({
            "events_path": context.events_path,
            "logs_path": "",
            "checkpoint_path": null,
            "report_path": context.subject_report_path,
            "generated_at": context.generated_at,
        }),
    );
    put("quality_overhead", json!({"basis": "ratio", "value": ratio, "kind": "ppl_causal"}));
    put("secondary_metrics", json!([]));
    put("system_overhead", system_overhead(baseline, subject));
    put(
        "assurance",
        json!({
            "mode": "off",
            "profile": profile.as_str(),
            "tier": tier.as_str(),
            "canonical_guard_chain": ["invariants", "spectral", "rmt", "variance", "invariants"],
            "canonical_guard_chain_enforced": false,
            "guard_chain_observed": ["invariants"],
            "blocking_reasons": guards_not_evaluated.map(|guard| format!("{guard} was not evaluated")),
            "fallback_fields_used": false,
            "report_local_verdict": if all_pass { "pass" } else { "fail" },
            "verdict": if all_pass { "pass" } else { "fail" },
            "runtime_provenance_declared": context.execution_mode.report_name(),
            "runtime_provenance_verification_status": "pending",
            "runtime_provenance_verified": false,
        }),
    );
    put(
        "report_build",
        json!({
            "generator": {
                "name": GENERATOR,
                "version": env!("CARGO_PKG_VERSION"),
                "pairing_evidence": "baseline_windows",
            },
            "synthesized_fields": [],
            "repaired_fields": [],
            "fallback_fields": [],
        }),
    );
    put(
        "context",
        json!({
            "profile": profile.as_str(),
            "auto": {"enabled": true, "tier": tier.as_str(), "probes": 0},
            "assurance": {"mode": "off"},
            "run": {},
            "eval": {"bootstrap": {"replicates": replicates, "alpha": ALPHA, "ci_band": CI_BAND}},
            "primary_metric": {"acceptance_range": {}, "drift_band": drift_band},
            "runtime": {"execution_mode": context.execution_mode.report_name()},
            "guard_chain_observed": ["invariants"],
        }),
    );
    put("evaluation_windows", serde_json::to_value(&subject.evaluation_windows).unwrap_or_default());
    let losses = |arm: &WindowArm| json!({"window_ids": arm.window_ids, "logloss": arm.logloss, "token_counts": arm.token_counts});
    put(
        "baseline_windows",
        json!({
            "preview": losses(&baseline.evaluation_windows.preview),
            "final": losses(base_final),
        }),
    );
    debug_assert_eq!(subj_preview.window_ids.len(), preview_n);
    Ok(Value::Object(report))
}

/// Upstream's: the first 16 hex digits of SHA-256 over time, model and commit of the run.
fn run_id(report: &RunReport, model_id: &str) -> String {
    let commit: String = report.meta.commit.chars().take(16).collect();
    let mut id = sha256_hex(format!("{}{model_id}{commit}", report.meta.ts).as_bytes());
    id.truncate(16);
    id
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

/// The bytes of `evaluation.report.json`: compact, as the numbers read back exactly.
pub fn to_bytes(report: &Value) -> Vec<u8> {
    let mut bytes = report.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
