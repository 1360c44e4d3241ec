//! The run report that follows from a measurement.

use super::digests::{WindowDigests, WindowHashes};
use super::{Arm, EVALUATOR, Evaluator, Measured, edit_name};
use crate::format::classification::Classification;
use crate::format::dataset::Packing;
use crate::format::run_report::{
    EvaluationWindows, Guard, RunData, RunMeta, RunMetrics, RunPrimaryMetric, RunProvenance, RunReport,
    WindowArm,
};
use crate::format::statistics::GuardStatistics;
use crate::format::to_value;
use crate::guards;
use crate::numerics::NOT_PREDICTED;
use crate::numerics::digest::{Labelled, dataset_hash, window_ids_digest};
use invarlock_error::Result;
use serde_json::{Map, Value, json};

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Arm {
    fn tokens(&self) -> u64 {
        self.token_counts.iter().sum()
    }

    /// Number of tokens of the windows from position `first`.
    fn tokens_from(&self, first: usize) -> u64 {
        self.token_counts.iter().skip(first).sum()
    }

    /// Sum of the weights.
    fn weight(&self) -> u64 {
        self.weights().iter().sum()
    }

    /// The positions with labels.
    pub(super) fn labelled(&self) -> Labelled<'_> {
        match &self.labels {
            Some(rows) => Labelled::Rows(rows),
            None => Labelled::First(&self.token_counts),
        }
    }

    /// The tokens of each window, and how many of them are those of its text.
    fn rows(&self) -> impl Iterator<Item = (&[u32], usize)> {
        let real = |row: &[u32], count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(row.len());
        self.input_ids.iter().zip(&self.token_counts).map(move |(row, count)| (&row[..], real(row, *count)))
    }

    fn report(&self) -> WindowArm {
        let mask = |(row, real): (&[u32], usize)| (0..row.len()).map(|i| u8::from(i < real)).collect();
        let own_tokens = |(row, real): (&[u32], usize)| {
            let token = |(i, id): (usize, &u32)| if i < real { i64::from(*id) } else { NOT_PREDICTED };
            row.iter().enumerate().map(token).collect()
        };
        let weights = self.weights();
        WindowArm {
            window_ids: self.window_ids.clone(),
            logloss: self.losses.clone(),
            input_ids: self.input_ids.clone(),
            attention_masks: self.rows().map(mask).collect(),
            token_counts: weights.to_vec(),
            masked_token_counts: weights.to_vec(),
            actual_token_counts: self.token_counts.clone(),
            labels: self.labels.clone().unwrap_or_else(|| self.rows().map(own_tokens).collect()),
            examples: self.examples.clone(),
            predicted_texts: None,
            predicted_utf8_bytes: None,
        }
    }

    /// Whether [`Self::report`] gives this arm. Texts are not compared.
    #[cfg(feature = "verify")]
    fn gives(&self, arm: &WindowArm) -> bool {
        let WindowArm {
            window_ids,
            logloss,
            input_ids,
            attention_masks,
            token_counts,
            masked_token_counts,
            actual_token_counts,
            labels,
            examples,
            predicted_texts: _,
            predicted_utf8_bytes: _,
        } = arm;
        let is_mask = |((row, real), mask): ((&[u32], usize), &Vec<u8>)| {
            let (ones, zeros) = mask.split_at(real.min(mask.len()));
            mask.len() == row.len() && ones.iter().all(|bit| *bit == 1) && zeros.iter().all(|bit| *bit == 0)
        };
        let are_tokens = |((row, real), labels): ((&[u32], usize), &Vec<i64>)| {
            let (tokens, padding) = labels.split_at(real.min(labels.len()));
            labels.len() == row.len()
                && tokens.iter().zip(row).all(|(label, id)| *label == i64::from(*id))
                && padding.iter().all(|label| *label == NOT_PREDICTED)
        };
        let (weights, rows) = (self.weights(), self.rows().count());
        (window_ids, logloss, input_ids, actual_token_counts, examples)
            == (&self.window_ids, &self.losses, &self.input_ids, &self.token_counts, &self.examples)
            && token_counts[..] == weights[..]
            && masked_token_counts[..] == weights[..]
            && attention_masks.len() == rows
            && self.rows().zip(attention_masks).all(is_mask)
            && match &self.labels {
                Some(own) => own == labels,
                None => labels.len() == rows && self.rows().zip(labels).all(are_tokens),
            }
    }
}

impl Measured {
    /// The run report.
    ///
    /// # Errors
    /// A mean loss whose perplexity is not finite: the checkpoint is damaged.
    pub fn report(&self) -> Result<RunReport> {
        let evaluation_windows = EvaluationWindows {
            preview: self.preview.report(),
            final_: WindowArm {
                predicted_texts: self.predicted_texts.clone(),
                predicted_utf8_bytes: self.predicted_texts.as_deref().map(utf8_bytes),
                ..self.final_.report()
            },
        };
        Ok(RunReport { evaluation_windows, ..self.without_windows(&WindowDigests::of(self))? })
    }

    /// Whether [`Self::report`] gives this report. `digests` are those of the windows.
    ///
    /// # Errors
    /// As [`Self::report`].
    #[cfg(feature = "verify")]
    pub(crate) fn gives(&self, report: &RunReport, digests: &WindowDigests) -> Result<bool> {
        let EvaluationWindows { preview, final_ } = &report.evaluation_windows;
        let texts = [&preview.predicted_texts, &final_.predicted_texts] == [&None, &self.predicted_texts];
        let lengths = [&preview.predicted_utf8_bytes, &final_.predicted_utf8_bytes]
            == [&None, &self.predicted_texts.as_deref().map(utf8_bytes)];
        Ok(self.without_windows(digests)?.same_but_windows(report)
            && texts
            && lengths
            && self.preview.gives(preview)
            && self.final_.gives(final_))
    }

    /// The run report with empty lists of windows.
    fn without_windows(&self, digests: &WindowDigests) -> Result<RunReport> {
        Ok(RunReport {
            meta: self.meta(),
            data: self.data(&digests.hashes),
            edit: self.edit(),
            guards: self.guards(),
            metrics: self.metrics()?,
            artifacts: members(
                json!({"events_path": "events.jsonl", "logs_path": "", "checkpoint_path": null}),
            ),
            flags: Map::new(),
            context: self.context(),
            provenance: self.provenance(digests),
            evaluation_windows: EvaluationWindows::default(),
        })
    }

    fn context(&self) -> Map<String, Value> {
        let mut context = members(json!({
            "profile": self.requested.profile,
            "auto": self.auto(),
            "eval": {"loss": {"resolved_type": self.metric.loss_type()}},
        }));
        if !self.requested.guards.is_default() {
            context.insert("guards".to_owned(), to_value(&self.requested.guards));
        }
        context
    }

    fn auto(&self) -> Value {
        json!({"enabled": true, "tier": self.requested.tier, "probes": 0, "target_pm_ratio": 1.0})
    }

    /// `meta.evaluator`: the program, and facts about the checkpoint.
    fn program(&self) -> Value {
        let Evaluator { version, kernel, threads } = &self.evaluator;
        let mut program =
            members(json!({"name": EVALUATOR, "version": version, "kernel": kernel, "threads": threads}));
        program.extend(members(to_value(&self.facts)));
        program.into()
    }

    fn meta(&self) -> RunMeta {
        let (requested, threads) = (&self.requested, self.evaluator.threads);
        let seed = requested.seed;
        let seeds = json!({"python": seed, "numpy": seed, "torch": seed});
        RunMeta {
            model_id: requested.model_id.clone(),
            adapter: self.metric.objective.adapter().to_owned(),
            device: "cpu".to_owned(),
            commit: String::new(),
            seed,
            ts: self.ended_at.clone(),
            tokenizer_hash: Some(self.tokenizer.hash.clone()),
            model_profile: self.model_profile.clone(),
            more: members(json!({
                "auto": self.auto(),
                "seeds": seeds,
                "invarlock_version": self.evaluator.version,
                "evaluator": self.program(),
                // The numbers do not depend on threads, so no setting is needed for determinism.
                "determinism": {"requested": "strict", "level": "strict", "profile": requested.profile,
                    "device": "cpu", "threads": threads, "seed": seed, "seeds": seeds},
            })),
        }
    }

    fn window_plan(&self) -> Value {
        let (preview, final_) = (self.preview.count(), self.final_.count());
        json!({
            "profile": self.requested.profile,
            "requested_preview": self.requested.preview_n,
            "requested_final": self.requested.final_n,
            "actual_preview": preview,
            "actual_final": final_,
            "coverage_ok": preview == final_,
            "preview_total_tokens": self.preview.tokens(),
            "final_total_tokens": self.final_.tokens(),
        })
    }

    fn data(&self, hashes: &WindowHashes) -> RunData {
        let requested = &self.requested;
        let mut more = self.tokenizer.special.clone();
        more.extend(members(json!({
            "loss_type": self.metric.loss_type(),
            "window_plan": self.window_plan(),
            "blank_rows": self.selection.blank_rows,
            "short_rows": self.selection.short_rows,
        })));
        if self.selection.packing != Packing::default() {
            more.insert("packing".to_owned(), self.selection.packing.name().into());
        }
        if let Some(digest) = &self.selection.chat_template_sha256 {
            more.insert("chat_template_sha256".to_owned(), digest.as_str().into());
        }
        if let Some(masked) = &self.masked {
            more.insert("masking".to_owned(), to_value(masked));
        }
        RunData {
            dataset: requested.provider.name().to_owned(),
            split: Some(requested.split.clone()),
            seq_len: requested.seq_len,
            stride: requested.stride,
            preview_n: self.preview.count(),
            final_n: self.final_.count(),
            tokenizer_name: Some(requested.model_id.clone()),
            tokenizer_hash: Some(self.tokenizer.hash.clone()),
            vocab_size: Some(self.tokenizer.vocab_size),
            tokenizer_mapping_sha256: self.tokenizer.mapping_sha256.clone(),
            used_tokens: self.used_tokens.clone(),
            dataset_hash: Some(dataset_hash(&hashes.preview, &hashes.final_)),
            preview_hash: Some(hashes.preview.clone()),
            final_hash: Some(hashes.final_.clone()),
            preview_total_tokens: self.preview.tokens(),
            final_total_tokens: self.final_.tokens(),
            more,
        }
    }

    fn edit(&self) -> Map<String, Value> {
        let name = edit_name(self.requested.role);
        members(json!({
            "name": name,
            "plan_digest": "noop",
            "deltas": {"params_changed": 0, "sparsity": null, "bitwidth_map": null, "layers_modified": 0},
            "plan": {},
            "config": {},
            "algorithm": name,
        }))
    }

    fn guards(&self) -> Vec<Guard> {
        let checks = to_value(&self.checks);
        let performed = checks.as_object().map_or(0, Map::len);
        let empty = |name: &str| Guard {
            name: name.to_owned(),
            evaluated: false,
            passed: None,
            decision: None,
            details: Map::new(),
            metrics: Map::new(),
            violations: Vec::new(),
        };
        let statistics = self.statistics.as_ref();
        // What follows from the statistics is judged where those of both sides are at hand.
        let with_details = |name: &str, details: Vec<(&str, Value)>| Guard {
            evaluated: true,
            details: details.into_iter().map(|(member, value)| (member.to_owned(), value)).collect(),
            ..empty(name)
        };
        let upstream = statistics.and_then(|found| found.upstream.as_ref());
        let measured = |guard: &guards::Guard| match (guard.name, statistics) {
            ("invariants", _) => Guard {
                evaluated: true,
                // A single side can only violate this guard by weights that are not finite, which are rejected before.
                passed: Some(true),
                decision: Some("allow".to_owned()),
                details: members(json!({"checks": checks})),
                metrics: members(json!({"checks_performed": performed, "violations_found": 0,
                    "fatal_violations": 0, "warning_violations": 0})),
                ..empty(guard.name)
            },
            ("spectral", Some(found)) => {
                with_details("spectral", vec![("modules", to_value(&found.weights))])
            }
            ("rmt", Some(found)) => {
                let outputs = upstream.map(|upstream| ("outputs", to_value(&upstream.outputs)));
                let activations = ("activations", to_value(&found.activations));
                with_details("rmt", [activations].into_iter().chain(outputs).collect())
            }
            ("variance", Some(GuardStatistics { upstream: Some(upstream), .. })) => {
                with_details("variance", vec![("measurement", to_value(&upstream.variance))])
            }
            (name, _) => empty(name),
        };
        guards::TABLE.iter().map(measured).collect()
    }

    fn metrics(&self) -> Result<RunMetrics> {
        let (preview, final_) = (self.preview.mean_loss("preview")?, self.final_.mean_loss("final")?);
        let (metric, tokens) = (self.metric, (self.preview.tokens(), self.final_.tokens()));
        let own =
            (self.preview.tokens_from(self.resumed[0]) + self.final_.tokens_from(self.resumed[1])) as f64;
        let eval = self.seconds.eval;
        let mut stats = members(self.window_plan());
        stats.remove("profile");
        let adjustments = self.selection.adjustments.iter();
        let adjustments: Vec<Value> = adjustments
            .map(|(deficit, per_arm)| json!({"deficit": deficit, "proposed_per_arm": per_arm}))
            .collect();
        stats.insert(
            "dedupe_adjustments".to_owned(),
            if adjustments.is_empty() { Value::Null } else { adjustments.into() },
        );
        let mut more = members(json!({
            "logloss_delta": final_ - preview,
            "latency_ms_per_tok": (own > 0.0).then(|| eval * 1000.0 / own),
            "throughput_tok_per_s": (own > 0.0).then(|| own / eval),
            "preview_total_tokens": tokens.0,
            "final_total_tokens": tokens.1,
            "masked_tokens_total": self.preview.weight() + self.final_.weight(),
            "masked_tokens_preview": self.preview.weight(),
            "masked_tokens_final": self.final_.weight(),
            "window_plan": self.window_plan(),
            "stats": stats,
            "reduction": {"mode": "token_mean", "implementation": "invarlock_cross_entropy"},
            "loss_type": metric.loss_type(),
            "timings": self.seconds,
        }));
        if self.resumed != [0; 2] {
            let [preview, final_] = self.resumed;
            more.insert("resumed".to_owned(), json!({"preview": preview, "final": final_}));
        }
        if let Some(peak) = self.memory_mb_peak {
            more.insert("memory_mb_peak".to_owned(), peak.into());
        }
        Ok(RunMetrics {
            primary_metric: RunPrimaryMetric {
                kind: metric.name.to_owned(),
                preview: Some(self.preview.value(metric, "preview", preview)?),
                final_: Some(self.final_.value(metric, "final", final_)?),
                more: members(json!({
                    "unit": metric.unit,
                    "direction": metric.direction,
                    "aggregation_scope": metric.scope,
                    "paired": true,
                    "gating_basis": metric.gating_basis,
                    "supports_bootstrap": true,
                    "invalid": false,
                    "degraded": false,
                })),
            },
            logloss_preview: Some(preview),
            logloss_final: Some(final_),
            classification: self.classification(),
            more,
        })
    }

    /// Counts of the right answers; none unless an accuracy is measured.
    fn classification(&self) -> Option<Classification> {
        let (preview, final_) = (self.preview.answered()?, self.final_.answered()?);
        Some(Classification::of(&preview, &final_))
    }

    fn provenance(&self, digests: &WindowDigests) -> RunProvenance {
        let ids = self.preview.window_ids.iter().chain(&self.final_.window_ids).copied();
        let mut provider_digest = members(json!({
            "ids_sha256": window_ids_digest(ids),
            "tokenizer_sha256": self.tokenizer.hash,
        }));
        if let Some(digest) = &digests.labelled {
            provider_digest.insert("masking_sha256".to_owned(), digest.as_str().into());
        }
        let split = &self.requested.split;
        let more = members(json!({"dataset_split": split, "split_fallback": false, "digest_version": 1}));
        RunProvenance { provider_digest, more }
    }
}

/// Length of each text.
fn utf8_bytes(texts: &[String]) -> Vec<u64> {
    texts.iter().map(|text| text.len() as u64).collect()
}

#[cfg(all(test, feature = "verify"))]
mod tests {
    use super::*;

    const REPORTS: [&str; 2] = [
        include_str!("../../tests/data/honest/root/baseline.report.json"),
        include_str!("../../tests/data/honest/root/subject.report.json"),
    ];

    /// Changes a leaf, or removes or repeats an element; gives each changed document.
    fn changed(document: &Value) -> Vec<Value> {
        let mut pointers = Vec::new();
        leaves(document, String::new(), &mut pointers);
        let mut found = Vec::new();
        for pointer in pointers {
            let mut other = document.clone();
            let leaf = other.pointer_mut(&pointer).expect("a leaf");
            *leaf = match &*leaf {
                Value::Number(number) if number.is_f64() => json!(number.as_f64().unwrap_or_default() + 1.0),
                Value::Number(number) => json!(number.as_i64().unwrap_or_default() + 1),
                Value::String(text) => json!(format!("{text}x")),
                Value::Bool(value) => json!(!value),
                _ => json!(1),
            };
            found.push(other);
            let (list, last) = pointer.rsplit_once('/').expect("a path");
            if let (Some(Value::Array(_)), Ok(index)) = (document.pointer(list), last.parse::<usize>()) {
                for repeat in [false, true] {
                    let mut other = document.clone();
                    if let Some(Value::Array(list)) = other.pointer_mut(list) {
                        let element = list.remove(index);
                        list.extend(std::iter::repeat_n(element, if repeat { 2 } else { 0 }));
                    }
                    found.push(other);
                }
            }
        }
        found
    }

    fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| leaves(value, format!("{path}/{name}"), found));
            }
            Value::Array(list) => {
                list.iter()
                    .enumerate()
                    .for_each(|(index, value)| leaves(value, format!("{path}/{index}"), found));
            }
            _ => found.push(path),
        }
    }

    /// Whether a report gives itself, compared in place, as [`Measured::report`] decides.
    fn is_given(measured: &Measured, report: &RunReport) -> bool {
        let given = measured.gives(report, &WindowDigests::of(measured)).expect("a finite perplexity");
        assert_eq!(given, measured.report().expect("a finite perplexity") == *report);
        given
    }

    #[test]
    fn comparing_in_place_decides_as_the_report() {
        for text in REPORTS {
            let document: Value = serde_json::from_str(text).expect("JSON");
            let report: RunReport = serde_json::from_str(text).expect("a run report");
            let measured = Measured::read(&report).expect("a measurement");
            assert!(is_given(&measured, &report));
            let mut compared = 0;
            for other in changed(&document) {
                let Ok(other) = serde_json::from_value::<RunReport>(other) else { continue };
                assert!(!is_given(&measured, &other) || other == report);
                // Its own values need not give it either.
                if let Ok(own) = Measured::read(&other)
                    && own.report().is_ok()
                {
                    is_given(&own, &other);
                    compared += 1;
                }
            }
            assert!(compared > 100, "{compared}");
        }
    }
}
