//! A measurement, read back from its run report.

use super::{Arm, Evaluator, Measured, Requested, Selection, Tokenizer, edit_name};
use crate::format::choices;
use crate::format::dataset::{Packing, Provider};
use crate::format::guard_request::GuardRequest;
use crate::format::masking::Masked;
use crate::format::metrics::{self, Metric};
use crate::format::run_report::{RunReport, SPECIAL_TOKENS, WindowArm};
use crate::format::statistics::{GuardStatistics, UpstreamStatistics};
use crate::job::Role;
use crate::numerics::NOT_PREDICTED;
use invarlock_error::{Context as _, Error, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

impl Arm {
    fn read(name: &str, arm: &WindowArm, metric: &Metric) -> Result<Self> {
        let windows = arm.window_ids.len();
        let labels = metric.has_labels().then_some(&arm.labels);
        // Without labels, the weights are the numbers of tokens.
        let counts = if labels.is_some() { &arm.actual_token_counts } else { &arm.token_counts };
        let lengths =
            [arm.input_ids.len(), counts.len(), arm.logloss.len(), labels.map_or(windows, Vec::len)];
        if lengths != [windows; 4] {
            bail!(Integrity, "the lists of evaluation_windows.{name} have different lengths");
        }
        // The digests below take time for each counted token.
        let mut rows = arm.input_ids.iter().zip(counts);
        if let Some((row, count)) = rows.find(|(row, count)| **count > row.len() as u64) {
            let tokens = row.len();
            bail!(Integrity, "evaluation_windows.{name} counts {count} tokens in a window of {tokens}");
        }
        for (index, row) in labels.into_iter().flatten().enumerate() {
            let is_label = |label: &i64| *label == NOT_PREDICTED || u32::try_from(*label).is_ok();
            if row.len() != arm.input_ids[index].len() || !row.iter().all(is_label) {
                bail!(
                    Integrity,
                    "evaluation_windows.{name}.labels[{index}] has no token or {NOT_PREDICTED} for each position"
                );
            }
        }
        let examples = arm.examples.as_deref();
        if examples.is_some() != metric.is_accuracy() {
            bail!(Integrity, "evaluation_windows.{name}.examples does not fit the metric {}", metric.name);
        }
        if let Some(Err(why)) = examples.map(|examples| choices::check(examples, windows)) {
            bail!(Integrity, "evaluation_windows.{name}.examples: {why}");
        }
        Ok(Self {
            window_ids: arm.window_ids.clone(),
            input_ids: arm.input_ids.clone(),
            token_counts: counts.clone(),
            labels: labels.cloned(),
            examples: arm.examples.clone(),
            losses: arm.logloss.clone(),
        })
    }
}

impl Measured {
    /// The values of a run report, which is untrusted: [`Self::report`] gives another report if it contradicts itself.
    ///
    /// # Errors
    /// A value is missing or has the wrong type.
    pub fn read(report: &RunReport) -> Result<Self> {
        let windows = &report.evaluation_windows;
        let values = Self::read_without_windows(report)?;
        Ok(Self {
            preview: Arm::read("preview", &windows.preview, values.metric)?,
            final_: Arm::read("final", &windows.final_, values.metric)?,
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
        let kind = &metrics.primary_metric.kind;
        let metric = metrics::named(kind)
            .ok_or_else(|| Error::integrity(format!("the primary metric {kind:?} is unknown")))?;
        let masked = data.more.get("masking").map(|masked| typed::<Masked>(masked, "data.masking"));
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
                provider: Provider::named(&data.dataset)
                    .ok_or_else(|| Error::integrity(format!("data.dataset is {:?}", data.dataset)))?,
                split: data.split.clone().unwrap_or_default(),
                seed: meta.seed,
                guards: read_guard_request(report)?,
            },
            metric,
            masked: masked.transpose()?,
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
            resumed: metrics.more.get("resumed").map_or(Ok([0; 2]), resumed)?,
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
                packing: optional::<Option<Packing>>(&data.more, "data", "packing")?.unwrap_or_default(),
                chat_template_sha256: optional(&data.more, "data", "chat_template_sha256")?,
            },
            statistics: read_statistics(report)?,
            seconds: typed(value(&metrics.more, "metrics", "timings")?, "metrics.timings")?,
            memory_mb_peak: metrics.more.get("memory_mb_peak").and_then(Value::as_f64),
        })
    }
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

/// What the guards were asked for: to compare with the baseline, where a report does not say.
pub(crate) fn read_guard_request(report: &RunReport) -> Result<GuardRequest> {
    match report.context.get("guards") {
        None => Ok(GuardRequest::default()),
        Some(found) => typed(found, "context.guards"),
    }
}

/// What the guards measured; none where an older evaluator measured.
pub fn read_statistics(report: &RunReport) -> Result<Option<GuardStatistics>> {
    let details =
        |name: &str| report.guards.iter().find(|guard| guard.name == name).map(|guard| &guard.details);
    let (Some(spectral), Some(rmt)) = (details("spectral"), details("rmt")) else { return Ok(None) };
    let variance = details("variance");
    match (spectral.get("modules"), rmt.get("activations")) {
        (Some(weights), Some(activations)) => Ok(Some(GuardStatistics {
            weights: typed(weights, "details.modules of the spectral guard")?,
            activations: typed(activations, "details.activations of the rmt guard")?,
            upstream: match (rmt.get("outputs"), variance.and_then(|details| details.get("measurement"))) {
                (Some(outputs), Some(variance)) => Some(UpstreamStatistics {
                    outputs: typed(outputs, "details.outputs of the rmt guard")?,
                    variance: typed(variance, "details.measurement of the variance guard")?,
                }),
                _ => None,
            },
        })),
        _ => Ok(None),
    }
}

/// `metrics.resumed`.
fn resumed(value: &Value) -> Result<[usize; 2]> {
    #[derive(Deserialize)]
    struct Windows {
        preview: usize,
        r#final: usize,
    }
    typed(value, "metrics.resumed").map(|Windows { preview, r#final }| [preview, r#final])
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

/// As [`typed`], of a member that may be missing; that reads as `null`.
fn optional<'v, T: Deserialize<'v>>(members: &'v Map<String, Value>, path: &str, name: &str) -> Result<T> {
    typed(members.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"))
}

fn member<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn typed<'v, T: Deserialize<'v>>(value: &'v Value, path: &str) -> Result<T> {
    T::deserialize(value)
        .map_err(|why| Error::integrity(why.to_string()))
        .with_context(|| format!("reading {path}"))
}
