//! The blocks of a report, from numbers that were computed before.

use super::provenance::{artifacts, report_build};
use super::{Comparison, accuracy, derive};
use crate::format::evaluation_report::{
    Assurance, BaselineMetric, BaselineRef, Bootstrap, Context, ContextAssurance, ContextAuto,
    ContextBootstrap, ContextEval, ContextMetric, ContextRuntime, Dataset, DatasetHash, DatasetTokenizer,
    DatasetWindows, Edit, EvaluatedOverhead, EvaluationReport, GuardOverhead, LossWindows, Measurements,
    Meta, Overhead, PrimaryMetric, QualityOverhead, ReportArm, ReportWindows, SkippedOverhead,
    SystemOverhead, Telemetry, Verdict, WindowStats,
};
use crate::format::run_report::RunReport;
use crate::format::warning::Warning;
use crate::guards::{self, Evaluations};
use crate::job::Role;
use crate::measured::Measured;
use crate::policy::{ALPHA, BOOTSTRAP_METHOD, CI_BAND, GUARD_OVERHEAD_THRESHOLD, Tier};
use crate::sentences::{NO_GUARD_OVERHEAD, NO_OVERHEAD_OF_ACCURACY};
use serde_json::{Map, Number, Value};

/// The assurance mode of a report that claims everything.
const STRICT: &str = "strict";

/// What InvarLock 0.12 calls that claim.
const CLAIM_SET: &str = "invarlock-weight-edit-regression-v1";

impl Comparison<'_> {
    /// The report.
    pub(super) fn report(self, mut guards: Evaluations) -> EvaluationReport {
        let numbers = &self.numbers;
        let (baseline, subject) = (self.base.report, self.subj.report);
        let (algorithm, edit_name) = self.edit_names();
        let invariants = match guards.blocks.shift_remove("invariants") {
            Some(Value::Object(block)) => block,
            _ => Map::new(),
        };
        let labelled = self.subj.metric.has_labels();
        let width = numbers.display.1 - numbers.display.0;
        EvaluationReport {
            schema_version: "v1".to_owned(),
            run_id: self.run_id.clone(),
            meta: self.meta(),
            edit: Edit {
                name: edit_name.clone(),
                algorithm: algorithm.to_owned(),
                algorithm_version: String::new(),
                implementation: String::new(),
                plan_digest: String::new(),
                mask_digest: String::new(),
                seed: subject.meta.seed,
            },
            edit_name,
            plugins: Map::new(),
            context: self.settings(&guards),
            primary_metric: self.primary_metric(),
            primary_metric_tail: numbers.tail.clone(),
            validation: numbers.validation.clone(),
            confidence: derive::confidence(self.subj.metric, width, numbers.acceptable, numbers.unstable),
            baseline_ref: self.baseline_ref(),
            metrics: accuracy::counts(self.subj),
            quality_overhead: QualityOverhead {
                basis: if numbers.delta_pp.is_some() { "delta_pp" } else { "ratio" }.to_owned(),
                value: numbers.delta_pp.unwrap_or(numbers.ratio),
                kind: self.subj.metric.name.to_owned(),
            },
            secondary_metrics: numbers.secondary.clone().into_iter().collect(),
            assurance: self.assurance(&guards),
            dataset: self.dataset(),
            telemetry: self.telemetry(),
            system_overhead: system_overhead(baseline, subject),
            evaluation_windows: ReportWindows {
                preview: ReportArm::of(&subject.evaluation_windows.preview, labelled),
                final_: ReportArm::of(&subject.evaluation_windows.final_, labelled),
            },
            baseline_windows: LossWindows {
                preview: (&baseline.evaluation_windows.preview).into(),
                final_: (&baseline.evaluation_windows.final_).into(),
            },
            measurements: measurements(baseline, subject),
            structure: self.structure.clone(),
            invariants,
            guard_overhead: self.guard_overhead(&guards),
            guards: guards.entries,
            warnings: self.warnings(),
            guard_blocks: guards.blocks,
            auto: self.policy.auto.clone(),
            policies: self.policy.resolved.clone(),
            resolved_policy: self.policy.resolved.clone(),
            policy_provenance: self.policy.provenance.clone(),
            policy_digest: self.policy.digest.clone(),
            provenance: self.provenance(),
            artifacts: artifacts(self.context),
            report_build: report_build(),
        }
    }

    /// The algorithm of the edit and its label.
    fn edit_names(&self) -> (&'static str, String) {
        let algorithm = if self.same_checkpoint() { "noop" } else { "custom" };
        (algorithm, self.context.edit_label.clone().unwrap_or_else(|| algorithm.to_owned()))
    }

    /// Whether both checkpoints are known to be the same files.
    fn same_checkpoint(&self) -> bool {
        let context = self.context;
        context.baseline_checkpoint_sha256.is_some()
            && context.baseline_checkpoint_sha256 == context.subject_checkpoint_sha256
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.context.warnings.clone();
        warnings.extend(Warning::of_run(Role::Baseline, self.base.report));
        warnings.extend(Warning::of_run(Role::Subject, self.subj.report));
        warnings.extend(self.same_checkpoint().then(Warning::identical_checkpoints));
        warnings
    }

    fn meta(&self) -> Meta {
        let run = &self.subj.report.meta;
        let more = run.more.iter().filter(|(name, _)| !GATING_META.contains(&name.as_str()));
        Meta {
            model_id: self.context.subject_model_id.clone(),
            adapter: run.adapter.clone(),
            device: run.device.clone(),
            ts: run.ts.clone(),
            commit: run.commit.clone(),
            seed: run.seed,
            profile: self.context.profile.as_str().to_owned(),
            pm_drift_band: self.numbers.drift_band,
            tokenizer_hash: self.subj.tokenizer_hash.clone(),
            model_profile: run.model_profile.clone(),
            more: more.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    fn settings(&self, guards: &Evaluations) -> Context {
        let (context, numbers) = (self.context, &self.numbers);
        Context {
            profile: context.profile.as_str().to_owned(),
            auto: ContextAuto { enabled: true, tier: context.tier.as_str().to_owned(), probes: 0 },
            assurance: ContextAssurance { mode: self.assurance_mode(guards).to_owned() },
            run: Map::new(),
            eval: ContextEval {
                bootstrap: ContextBootstrap {
                    replicates: numbers.replicates,
                    alpha: ALPHA,
                    ci_band: CI_BAND,
                },
            },
            primary_metric: ContextMetric { acceptance_range: Map::new(), drift_band: numbers.drift_band },
            runtime: ContextRuntime { execution_mode: context.execution_mode.report_name().to_owned() },
            guard_chain_observed: guards.chain(),
        }
    }

    fn primary_metric(&self) -> PrimaryMetric {
        let (numbers, subj) = (&self.numbers, self.subj);
        let (preview, last) = (&subj.preview, &subj.last);
        let (basis, points) = match subj.metric.is_accuracy() {
            true => ("accuracy", (preview.value, last.value)),
            false => ("mean_logloss", (preview.mean_loss, last.mean_loss)),
        };
        PrimaryMetric {
            kind: subj.metric.name.to_owned(),
            unit: subj.metric.unit.to_owned(),
            direction: subj.metric.direction.to_owned(),
            aggregation_scope: subj.metric.scope.to_owned(),
            paired: true,
            gating_basis: subj.metric.gating_basis.to_owned(),
            supports_bootstrap: true,
            preview: preview.value,
            final_: last.value,
            n_final: subj.metric.is_accuracy().then_some(last.answered.len()),
            ratio_vs_baseline: numbers.ratio,
            delta_pp: numbers.delta_pp,
            ci: [numbers.interval.0, numbers.interval.1],
            display_ci: [numbers.display.0, numbers.display.1],
            ci_level: 1.0 - ALPHA,
            reps: numbers.replicates,
            analysis_basis: basis.to_owned(),
            analysis_point_preview: points.0,
            analysis_point_final: points.1,
            invalid: false,
            degraded: false,
            unstable: numbers.unstable,
            drift_band: numbers.drift_band,
        }
    }

    fn baseline_ref(&self) -> BaselineRef {
        BaselineRef {
            run_id: self.baseline_run_id.clone(),
            model_id: self.context.baseline_model_id.clone(),
            adapter: self.base.report.meta.adapter.clone(),
            primary_metric: BaselineMetric {
                kind: self.subj.metric.name.to_owned(),
                preview: self.base.preview.value,
                final_: self.base.last.value,
            },
            metrics: accuracy::counts(self.base),
            tokenizer_hash: self.base.tokenizer_hash.clone(),
        }
    }

    fn assurance(&self, guards: &Evaluations) -> Assurance {
        let context = self.context;
        let verdict = if self.numbers.passed { Verdict::Pass } else { Verdict::Fail };
        let mode = self.assurance_mode(guards);
        Assurance {
            mode: mode.to_owned(),
            claim_set: (mode == STRICT).then(|| CLAIM_SET.to_owned()),
            profile: context.profile.as_str().to_owned(),
            tier: context.tier.as_str().to_owned(),
            canonical_guard_chain: guards::CHAIN.map(str::to_owned).to_vec(),
            canonical_guard_chain_enforced: guards.missing.is_empty(),
            guard_chain_observed: guards.chain(),
            blocking_reasons: guards
                .missing
                .iter()
                .map(|guard| format!("{guard} was not evaluated"))
                .collect(),
            fallback_fields_used: false,
            report_local_verdict: verdict,
            verdict,
            runtime_provenance_declared: context.execution_mode.report_name().to_owned(),
            runtime_provenance_verification_status: "pending".to_owned(),
            runtime_provenance_verified: false,
        }
    }

    /// The assurance mode of InvarLock 0.12: it accepts strict reports of some tiers only.
    fn assurance_mode(&self, guards: &Evaluations) -> &'static str {
        let context = self.context;
        let strict = context.profile.gated() && context.tier != Tier::Aggressive && guards.missing.is_empty();
        if strict { STRICT } else { "off" }
    }

    fn guard_overhead(&self, guards: &Evaluations) -> GuardOverhead {
        let why = match self.subj.metric.is_accuracy() {
            true => Some(NO_OVERHEAD_OF_ACCURACY),
            false => (!guards.missing.is_empty()).then_some(NO_GUARD_OVERHEAD),
        };
        if let Some(why) = why {
            return GuardOverhead::Skipped(SkippedOverhead {
                mode: "skipped".to_owned(),
                skipped: true,
                evaluated: false,
                skip_reason: why.to_owned(),
            });
        }
        let perplexity = self.subj.last.value;
        GuardOverhead::Evaluated(EvaluatedOverhead {
            mode: "same_run".to_owned(),
            skipped: false,
            evaluated: true,
            passed: true,
            bare_ppl: perplexity,
            guarded_ppl: perplexity,
            overhead_ratio: 1.0,
            overhead_threshold: GUARD_OVERHEAD_THRESHOLD,
        })
    }

    fn dataset(&self) -> Dataset {
        let (side, data) = (self.subj, &self.subj.report.data);
        let more = |name: &str| data.more.get(name).cloned().unwrap_or_default();
        Dataset {
            provider: data.dataset.clone(),
            split: data.split.clone(),
            seq_len: data.seq_len,
            stride: data.stride,
            windows: DatasetWindows {
                preview: data.preview_n,
                final_: data.final_n,
                seed: side.report.meta.seed,
                stats: self.window_stats(),
            },
            hash: DatasetHash {
                preview: format!("blake2s:{}", side.hashes.preview),
                final_: format!("blake2s:{}", side.hashes.final_),
                dataset: side.dataset_hash.clone(),
                preview_tokens: side.preview.tokens,
                final_tokens: side.last.tokens,
                total_tokens: side.preview.tokens + side.last.tokens,
                source: "explicit_preview_final_hashes".to_owned(),
            },
            tokenizer: DatasetTokenizer {
                name: data.tokenizer_name.clone(),
                hash: side.tokenizer_hash.clone(),
                vocab_size: data.vocab_size,
                bos_token: more("bos_token"),
                eos_token: more("eos_token"),
                pad_token: more("pad_token"),
                add_prefix_space: more("add_prefix_space"),
            },
        }
    }

    fn window_stats(&self) -> WindowStats {
        let (context, coverage) = (self.context, &self.numbers.coverage);
        let (data, windows) = (&self.subj.report.data, &self.subj.report.evaluation_windows);
        WindowStats {
            requested_preview: context.requested_windows.0,
            requested_final: context.requested_windows.1,
            actual_preview: data.preview_n,
            actual_final: data.final_n,
            coverage_ok: coverage.windows_ok(),
            coverage: coverage.clone(),
            bootstrap: Bootstrap {
                enabled: true,
                method: BOOTSTRAP_METHOD.to_owned(),
                alpha: ALPHA,
                replicates: self.numbers.replicates,
                seed: context.bootstrap_seed,
                ci_band: CI_BAND,
                window_duplicate_fraction: 0.0,
                window_match_fraction: 1.0,
                coverage: coverage.clone(),
            },
            paired_delta_summary: match self.subj.metric.is_accuracy() {
                true => accuracy::drift_summary(self.subj),
                false => derive::drift_summary(
                    (&windows.preview.logloss, &windows.preview.token_counts),
                    (&windows.final_.logloss, &windows.final_.token_counts),
                ),
            },
            window_match_fraction: 1.0,
            window_overlap_fraction: 0.0,
            pairing: "paired_baseline".to_owned(),
            paired_windows: data.final_n,
        }
    }

    fn telemetry(&self) -> Telemetry {
        let (subject, side) = (self.subj.report, self.subj);
        let (low, high) = self.numbers.display;
        let (preview, last) = (side.preview.tokens as f64, side.last.tokens as f64);
        let (masked_preview, masked_last) = (side.preview.predicted as f64, side.last.predicted as f64);
        let more = |name: &str| match subject.metrics.more.get(name) {
            Some(Value::Number(number)) => Some(Number::clone(number)),
            _ => None,
        };
        Telemetry {
            device: subject.meta.device.clone(),
            preview_total_tokens: preview,
            final_total_tokens: last,
            masked_tokens_total: masked_preview + masked_last,
            masked_tokens_preview: masked_preview,
            masked_tokens_final: masked_last,
            summary_line: format!(
                "INVARLOCK_TELEMETRY run_id={} metric={} nprev={} nfinal={} tokens={} split={} \
                 ci={low:.3}-{high:.3} width={:.3} ratio={:.3} gate={}",
                self.run_id,
                side.metric.name,
                subject.data.preview_n,
                subject.data.final_n,
                side.preview.tokens + side.last.tokens,
                subject.data.split.as_deref().unwrap_or("None"),
                high - low,
                self.numbers.ratio,
                if self.numbers.acceptable { "pass" } else { "fail" },
            ),
            latency_ms_per_tok: more("latency_ms_per_tok"),
            throughput_tok_per_s: more("throughput_tok_per_s"),
            memory_mb_peak: more("memory_mb_peak"),
        }
    }
}

/// Members of `meta` that a gate could be read from. They are never copied from a container's report.
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

/// How both sides were measured, if their reports say it.
fn measurements(baseline: &RunReport, subject: &RunReport) -> Option<Measurements> {
    let describe = |report| Measured::read_without_windows(report).ok().map(|measured| measured.describe());
    Some(Measurements { baseline: describe(baseline)?, subject: describe(subject)? })
}

fn system_overhead(baseline: &RunReport, subject: &RunReport) -> SystemOverhead {
    let overhead = |source: &str| {
        let measured = |report: &RunReport| report.metrics.more.get(source).and_then(Value::as_f64);
        let (before, after) =
            measured(baseline).zip(measured(subject)).filter(|(before, _)| *before > 0.0)?;
        Some(Overhead { baseline: before, edited: after, delta: after - before, ratio: after / before })
    };
    SystemOverhead {
        latency_ms_p50: overhead("latency_ms_per_tok"),
        throughput_sps: overhead("throughput_tok_per_s"),
    }
}
