//! A measurement as the values from which its run report follows.
//!
//! The evaluator writes what [`Measured::report`] gives. The launcher and the verifier read the values back with [`Measured::read`], and
//! require that they give the same report: a run report then says nothing that contradicts its windows, its losses or itself.

use crate::format::check_report::CheckpointFacts;
use crate::format::dataset::{Packing, Provider};
use crate::format::measurement::Measurement;
pub use crate::format::measurement::{Evaluator, Seconds, Selection, Tokenizer};
use crate::format::run_report::{
    EvaluationWindows, Guard, InvariantChecks, RunData, RunMeta, RunMetrics, RunPrimaryMetric, RunProvenance,
    RunReport, SPECIAL_TOKENS, WindowArm,
};
use crate::format::to_value;
use crate::guards;
use crate::job::Role;
use crate::numerics::digest::{dataset_hash, labelled_positions_digest, window_ids_digest, windows_hash};
use crate::numerics::stats::weighted_mean;
use invarlock_error::{Context as _, Error, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Kind of the primary metric.
const KIND: &str = "ppl_causal";
/// Name of our evaluator in reports.
pub(crate) const EVALUATOR: &str = "invarlock-evaluator";

/// The request to one measuring container, as its report repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The side.
    pub role: Role,
    /// The user's name of the checkpoint.
    pub model_id: String,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Tokens a window.
    pub seq_len: usize,
    /// Distance of two windows in tokens.
    pub stride: usize,
    /// Preview windows asked for.
    pub preview_n: usize,
    /// Final windows asked for.
    pub final_n: usize,
    /// Which rows of the dataset become windows.
    pub provider: Provider,
    /// Name of the split.
    pub split: String,
    /// Seed.
    pub seed: u64,
}

/// Windows and losses of one arm: parallel lists.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arm {
    /// Ids of the windows.
    pub window_ids: Vec<u64>,
    /// Padded token ids, `seq_len` each.
    pub input_ids: Vec<Vec<u32>>,
    /// Number of tokens of the text in each window; they come first.
    pub token_counts: Vec<u64>,
    /// Loss of each window, nats a token.
    pub losses: Vec<f64>,
}

/// Everything in a run report that does not follow from something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The request.
    pub requested: Requested,
    /// When the run ended, UTC, RFC 3339.
    pub ended_at: String,
    /// The program that measured.
    pub evaluator: Evaluator,
    /// Facts about the checkpoint.
    pub facts: CheckpointFacts,
    /// `meta.model_profile`.
    pub model_profile: Map<String, Value>,
    /// Values that the invariants guard compares.
    pub checks: InvariantChecks,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The windows that check drift.
    pub preview: Arm,
    /// The windows that are gated on.
    pub final_: Arm,
    /// The token of each id that occurs in a text of a window, in the order of the ids; none for a subject.
    pub used_tokens: Option<Vec<String>>,
    /// Text of the predicted tokens of each final window ([`WindowArm::predicted_texts`]); none for a subject.
    pub predicted_texts: Option<Vec<String>>,
    /// How the windows were selected.
    pub selection: Selection,
    /// How long it took.
    pub seconds: Seconds,
    /// Peak resident memory, MiB; none if unknown.
    pub memory_mb_peak: Option<f64>,
}

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

    /// Mean loss of the arm `name`, weighted by tokens.
    pub(crate) fn mean_loss(&self, name: &str) -> Result<f64> {
        weighted_mean(&self.losses, &self.token_counts)
            .ok_or_else(|| Error::integrity(format!("the {name} arm has no tokens")))
    }

    fn report(&self) -> WindowArm {
        let real = |row: &[u32], count: u64| (count as usize).min(row.len());
        let rows = || self.input_ids.iter().zip(&self.token_counts);
        let mask = |(row, count): (&Vec<u32>, &u64)| {
            let real = real(row, *count);
            (0..row.len()).map(|i| u8::from(i < real)).collect()
        };
        let labels = |(row, count): (&Vec<u32>, &u64)| {
            let real = real(row, *count);
            row.iter().enumerate().map(|(i, id)| if i < real { i64::from(*id) } else { -100 }).collect()
        };
        WindowArm {
            window_ids: self.window_ids.clone(),
            logloss: self.losses.clone(),
            input_ids: self.input_ids.clone(),
            attention_masks: rows().map(mask).collect(),
            token_counts: self.token_counts.clone(),
            masked_token_counts: self.token_counts.clone(),
            actual_token_counts: self.token_counts.clone(),
            labels: rows().map(labels).collect(),
            predicted_texts: None,
            predicted_utf8_bytes: None,
        }
    }

    fn read(name: &str, arm: &WindowArm) -> Result<Self> {
        let windows = arm.window_ids.len();
        if [arm.input_ids.len(), arm.token_counts.len(), arm.logloss.len()] != [windows; 3] {
            bail!(Integrity, "the lists of evaluation_windows.{name} have different lengths");
        }
        // The digests below take time for each counted token.
        let mut rows = arm.input_ids.iter().zip(&arm.token_counts);
        if let Some((row, count)) = rows.find(|(row, count)| **count > row.len() as u64) {
            let tokens = row.len();
            bail!(Integrity, "evaluation_windows.{name} counts {count} tokens in a window of {tokens}");
        }
        Ok(Self {
            window_ids: arm.window_ids.clone(),
            input_ids: arm.input_ids.clone(),
            token_counts: arm.token_counts.clone(),
            losses: arm.logloss.clone(),
        })
    }
}

impl Measured {
    /// The run report.
    ///
    /// # Errors
    /// A mean loss whose perplexity is not finite: the checkpoint is damaged.
    pub fn report(&self) -> Result<RunReport> {
        let (preview_hash, final_hash) =
            (windows_hash(&self.preview.input_ids), windows_hash(&self.final_.input_ids));
        Ok(RunReport {
            meta: self.meta(),
            data: self.data(preview_hash, final_hash),
            edit: self.edit(),
            guards: self.guards(),
            metrics: self.metrics()?,
            artifacts: members(
                json!({"events_path": "events.jsonl", "logs_path": "", "checkpoint_path": null}),
            ),
            flags: Map::new(),
            context: members(json!({
                "profile": self.requested.profile,
                "auto": self.auto(),
                "eval": {"loss": {"resolved_type": "causal"}},
            })),
            provenance: self.provenance(),
            evaluation_windows: EvaluationWindows {
                preview: self.preview.report(),
                final_: WindowArm {
                    predicted_texts: self.predicted_texts.clone(),
                    predicted_utf8_bytes: self.predicted_texts.as_deref().map(utf8_bytes),
                    ..self.final_.report()
                },
            },
        })
    }

    /// What an evaluation report says of it.
    pub fn describe(&self) -> Measurement {
        Measurement {
            evaluator: self.evaluator.clone(),
            ended_at: self.ended_at.clone(),
            checkpoint: self.facts.clone(),
            parameter_count: self.checks.parameter_count,
            model_profile: self.model_profile.clone(),
            tokenizer: self.tokenizer.clone(),
            selection: self.selection.clone(),
            seconds: self.seconds,
            memory_mb_peak: self.memory_mb_peak,
        }
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
            adapter: "hf_causal".to_owned(),
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
        let (preview, final_) = (self.preview.window_ids.len(), self.final_.window_ids.len());
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

    fn data(&self, preview_hash: String, final_hash: String) -> RunData {
        let requested = &self.requested;
        let mut more = self.tokenizer.special.clone();
        more.extend(members(json!({
            "loss_type": "causal",
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
        RunData {
            dataset: requested.provider.name().to_owned(),
            split: Some(requested.split.clone()),
            seq_len: requested.seq_len,
            stride: requested.stride,
            preview_n: self.preview.window_ids.len(),
            final_n: self.final_.window_ids.len(),
            tokenizer_name: Some(requested.model_id.clone()),
            tokenizer_hash: Some(self.tokenizer.hash.clone()),
            vocab_size: Some(self.tokenizer.vocab_size),
            tokenizer_mapping_sha256: self.tokenizer.mapping_sha256.clone(),
            used_tokens: self.used_tokens.clone(),
            dataset_hash: Some(dataset_hash(&preview_hash, &final_hash)),
            preview_hash: Some(preview_hash),
            final_hash: Some(final_hash),
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
        let measured = |guard: &guards::Guard| match guard.name {
            "invariants" => Guard {
                evaluated: true,
                // A single side can only violate this guard by weights that are not finite, which are rejected before.
                passed: Some(true),
                decision: Some("allow".to_owned()),
                details: members(json!({"checks": checks})),
                metrics: members(json!({"checks_performed": performed, "violations_found": 0,
                    "fatal_violations": 0, "warning_violations": 0})),
                ..empty(guard.name)
            },
            name => empty(name),
        };
        guards::TABLE.iter().map(measured).collect()
    }

    fn metrics(&self) -> Result<RunMetrics> {
        let (preview, final_) = (self.preview.mean_loss("preview")?, self.final_.mean_loss("final")?);
        let perplexity = |name: &str, mean: f64| match mean.exp() {
            ppl if ppl.is_finite() => Ok(ppl),
            _ => bail!(
                Input,
                "the mean loss of the {name} arm is {mean}, so its perplexity is not finite: the checkpoint is damaged"
            ),
        };
        let tokens = (self.preview.tokens(), self.final_.tokens());
        let all = (tokens.0 + tokens.1) as f64;
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
            "latency_ms_per_tok": eval * 1000.0 / all,
            "throughput_tok_per_s": all / eval,
            "preview_total_tokens": tokens.0,
            "final_total_tokens": tokens.1,
            "masked_tokens_total": tokens.0 + tokens.1,
            "masked_tokens_preview": tokens.0,
            "masked_tokens_final": tokens.1,
            "window_plan": self.window_plan(),
            "stats": stats,
            "reduction": {"mode": "token_mean", "implementation": "invarlock_cross_entropy"},
            "loss_type": "causal",
            "timings": self.seconds,
        }));
        if let Some(peak) = self.memory_mb_peak {
            more.insert("memory_mb_peak".to_owned(), peak.into());
        }
        Ok(RunMetrics {
            primary_metric: RunPrimaryMetric {
                kind: KIND.to_owned(),
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

    fn provenance(&self) -> RunProvenance {
        let ids = self.preview.window_ids.iter().chain(&self.final_.window_ids).copied();
        let mut provider_digest = members(json!({
            "ids_sha256": window_ids_digest(ids),
            "tokenizer_sha256": self.tokenizer.hash,
        }));
        let digest = labelled_positions_digest(&self.preview.token_counts, &self.final_.token_counts);
        if let Some(digest) = digest {
            provider_digest.insert("masking_sha256".to_owned(), digest.into());
        }
        let split = &self.requested.split;
        let more = members(json!({"dataset_split": split, "split_fallback": false, "digest_version": 1}));
        RunProvenance { provider_digest, more }
    }

    /// The values of a run report, which is untrusted: [`Self::report`] gives another report if it contradicts itself.
    ///
    /// # Errors
    /// A value is missing or has the wrong type.
    pub fn read(report: &RunReport) -> Result<Self> {
        let windows = &report.evaluation_windows;
        let values = Self::read_without_windows(report)?;
        Ok(Self {
            preview: Arm::read("preview", &windows.preview)?,
            final_: Arm::read("final", &windows.final_)?,
            predicted_texts: predicted_texts(values.requested.role, &windows.final_)?,
            ..values
        })
    }

    /// As [`Self::read`], with empty arms and no texts.
    pub(crate) fn read_without_windows(report: &RunReport) -> Result<Self> {
        let (meta, data, metrics) = (&report.meta, &report.data, &report.metrics);
        let role = [Role::Baseline, Role::Subject]
            .into_iter()
            .find(|role| report.edit.get("name").and_then(Value::as_str) == Some(edit_name(*role)))
            .ok_or_else(|| Error::integrity("edit.name is neither `noop` nor `custom`"))?;
        let program = value(&meta.more, "meta", "evaluator")?;
        let plan = value(&data.more, "data", "window_plan")?;
        let stats = value(&metrics.more, "metrics", "stats")?;
        let guard = report.guards.iter().find(|guard| guard.name == "invariants");
        let checks = guard.and_then(|guard| guard.details.get("checks"));
        let Program { version, kernel, threads } = typed(program, "meta.evaluator")?;
        let Plan { requested_preview, requested_final } = typed(plan, "data.window_plan")?;
        Ok(Self {
            requested: Requested {
                role,
                model_id: meta.model_id.clone(),
                profile: typed(value(&report.context, "context", "profile")?, "context.profile")?,
                tier: typed(member(value(&report.context, "context", "auto")?, "tier"), "context.auto.tier")?,
                seq_len: data.seq_len,
                stride: data.stride,
                preview_n: requested_preview,
                final_n: requested_final,
                provider: Provider::ALL
                    .into_iter()
                    .find(|provider| provider.name() == data.dataset)
                    .ok_or_else(|| Error::integrity(format!("data.dataset is {:?}", data.dataset)))?,
                split: data.split.clone().unwrap_or_default(),
                seed: meta.seed,
            },
            ended_at: meta.ts.clone(),
            evaluator: Evaluator { version, kernel, threads },
            facts: typed(program, "meta.evaluator")?,
            model_profile: meta.model_profile.clone(),
            checks: typed(checks.unwrap_or(&Value::Null), "details.checks of the invariants guard")?,
            tokenizer: Tokenizer {
                hash: meta.tokenizer_hash.clone().unwrap_or_default(),
                vocab_size: data.vocab_size.unwrap_or_default(),
                mapping_sha256: data.tokenizer_mapping_sha256.clone(),
                special: SPECIAL_TOKENS
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), data.more.get(*name)?.clone())))
                    .collect(),
            },
            preview: Arm::default(),
            final_: Arm::default(),
            used_tokens: data.used_tokens.clone(),
            predicted_texts: None,
            selection: Selection {
                blank_rows: typed(value(&data.more, "data", "blank_rows")?, "data.blank_rows")?,
                short_rows: typed(value(&data.more, "data", "short_rows")?, "data.short_rows")?,
                adjustments: typed::<Option<Vec<Adjustment>>>(
                    member(stats, "dedupe_adjustments"),
                    "metrics.stats.dedupe_adjustments",
                )?
                .unwrap_or_default()
                .into_iter()
                .map(|found| (found.deficit, found.proposed_per_arm))
                .collect(),
                packing: typed::<Option<Packing>>(
                    data.more.get("packing").unwrap_or(&Value::Null),
                    "data.packing",
                )?
                .unwrap_or_default(),
                chat_template_sha256: typed(
                    data.more.get("chat_template_sha256").unwrap_or(&Value::Null),
                    "data.chat_template_sha256",
                )?,
            },
            seconds: typed(value(&metrics.more, "metrics", "timings")?, "metrics.timings")?,
            memory_mb_peak: metrics.more.get("memory_mb_peak").and_then(Value::as_f64),
        })
    }
}

/// Length of each text.
fn utf8_bytes(texts: &[String]) -> Vec<u64> {
    texts.iter().map(|text| text.len() as u64).collect()
}

/// The texts of an arm. The tokens follow from no text, so only their number is checked.
fn predicted_texts(role: Role, arm: &WindowArm) -> Result<Option<Vec<String>>> {
    let Some(texts) = &arm.predicted_texts else { return Ok(None) };
    if role == Role::Subject {
        bail!(Integrity, "evaluation_windows.final of a subject has predicted_texts");
    }
    let (count, windows) = (texts.len(), arm.window_ids.len());
    if count != windows {
        bail!(Integrity, "evaluation_windows.final.predicted_texts has {count} texts for {windows} windows");
    }
    Ok(Some(texts.clone()))
}

/// `edit.name` of a run report.
pub fn edit_name(role: Role) -> &'static str {
    match role {
        Role::Baseline => "noop",
        Role::Subject => "custom",
    }
}

/// `meta.evaluator`, without the facts about the checkpoint.
#[derive(Deserialize)]
struct Program {
    version: String,
    kernel: String,
    threads: usize,
}

#[derive(Deserialize)]
struct Plan {
    requested_preview: usize,
    requested_final: usize,
}

#[derive(Deserialize)]
struct Adjustment {
    deficit: usize,
    proposed_per_arm: usize,
}

fn value<'v>(members: &'v Map<String, Value>, path: &str, name: &str) -> Result<&'v Value> {
    members.get(name).ok_or_else(|| Error::integrity(format!("{path}.{name} is missing")))
}

fn member<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn typed<'v, T: Deserialize<'v>>(value: &'v Value, path: &str) -> Result<T> {
    T::deserialize(value)
        .map_err(|why| Error::integrity(why.to_string()))
        .with_context(|| format!("reading {path}"))
}
