//! Checks of each run report, and of both together, before anything is computed from them.

use super::arms::{Arm, contradiction};
use crate::format::choices;
use crate::format::evaluation_report::Calibration;
use crate::format::guard_request::GuardRequest;
use crate::format::metrics::{self, Metric};
use crate::measured::digests::WindowHashes;
use crate::measured::read_guard_request;
use crate::numerics::digest;
use crate::run_report::{RunReport, WindowArm};
use invarlock_error::Error;
use std::collections::HashMap;

/// Largest relative difference between a stated number and the one that follows from the windows.
const STATED_TOLERANCE: f64 = 1e-9;

/// A consistent run report, and the numbers that follow from its windows.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub(super) report: &'a RunReport,
    pub(super) metric: &'static Metric,
    pub(super) preview: Arm,
    pub(super) last: Arm,
    pub(super) hashes: &'a WindowHashes,
    pub(super) dataset_hash: String,
    pub(super) ids_digest: String,
    pub(super) tokenizer_hash: Option<String>,
}

impl<'a> Side<'a> {
    /// Checks one side; `hashes` are those of its windows.
    pub(super) fn check(role: &str, report: &'a RunReport, hashes: &'a WindowHashes) -> Result<Self, Error> {
        let kind = &report.metrics.primary_metric.kind;
        let Some(metric) = metrics::named(kind) else {
            let known = metrics::TABLE.each_ref().map(|metric| metric.name).join(", ");
            return Err(Error::unsupported(format!(
                "the {role} run report has the primary metric `{kind}`; this version compares {known}"
            )));
        };
        let (data, windows) = (&report.data, &report.evaluation_windows);
        if data.seq_len < 2 {
            return Err(contradiction(role, format!("data.seq_len is {}, below 2", data.seq_len)));
        }
        let arm = |name, arm| Arm::check(role, name, arm, data.seq_len, metric);
        let (preview, last) = (arm("preview", &windows.preview)?, arm("final", &windows.final_)?);

        let counted = |name: &str, stated: u64, found: u64| {
            if stated == found {
                return Ok(());
            }
            Err(contradiction(role, format!("{name} is {stated}, but evaluation_windows gives {found}")))
        };
        counted("data.preview_n", data.preview_n as u64, count(&windows.preview))?;
        counted("data.final_n", data.final_n as u64, count(&windows.final_))?;
        counted("data.preview_total_tokens", data.preview_total_tokens, preview.tokens)?;
        counted("data.final_total_tokens", data.final_total_tokens, last.tokens)?;

        let mut seen = HashMap::new();
        let named = |arm: &str, index: usize| format!("evaluation_windows.{arm}.window_ids[{index}]");
        for (arm, ids) in [("preview", &windows.preview.window_ids), ("final", &windows.final_.window_ids)] {
            for (index, id) in ids.iter().enumerate() {
                if let Some((first_arm, first)) = seen.insert(*id, (arm, index)) {
                    let (one, other) = (named(first_arm, first), named(arm, index));
                    return Err(contradiction(role, format!("{one} and {other} are both {id}")));
                }
            }
        }

        let measured = &report.metrics;
        let stated = |name: &str, stated: Option<f64>, found: f64| match stated {
            Some(value) if (value - found).abs() > STATED_TOLERANCE * found.abs().max(1.0) => {
                Err(contradiction(role, format!("metrics.{name} is {value}, but its windows give {found}")))
            }
            _ => Ok(()),
        };
        stated("primary_metric.preview", measured.primary_metric.preview, preview.value)?;
        stated("primary_metric.final", measured.primary_metric.final_, last.value)?;
        stated("logloss_preview", measured.logloss_preview, preview.mean_loss)?;
        stated("logloss_final", measured.logloss_final, last.mean_loss)?;

        let dataset_hash = digest::dataset_hash(&hashes.preview, &hashes.final_);
        let all_ids = windows.preview.window_ids.iter().chain(&windows.final_.window_ids).copied();
        let ids_digest = digest::window_ids_digest(all_ids);
        let provider = &report.provenance.provider_digest;
        let text = |name: &str| provider.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        for (name, stated, found) in [
            ("data.preview_hash", data.preview_hash.clone(), &hashes.preview),
            ("data.final_hash", data.final_hash.clone(), &hashes.final_),
            ("data.dataset_hash", data.dataset_hash.clone(), &dataset_hash),
            ("provenance.provider_digest.ids_sha256", text("ids_sha256"), &ids_digest),
        ] {
            if let Some(stated) = stated.filter(|stated| stated != found) {
                return Err(contradiction(role, format!("{name} is {stated}, but its windows give {found}")));
            }
        }

        let stated = [
            ("meta.tokenizer_hash", report.meta.tokenizer_hash.clone()),
            ("data.tokenizer_hash", data.tokenizer_hash.clone()),
            ("provenance.provider_digest.tokenizer_sha256", text("tokenizer_sha256")),
        ];
        let mut tokenizer_hash: Option<(&str, String)> = None;
        for (name, hash) in stated {
            let Some(hash) = hash.filter(|hash| !hash.is_empty()) else { continue };
            match &tokenizer_hash {
                Some((first, known)) if *known != hash => {
                    return Err(contradiction(role, format!("{first} is {known}, but {name} is {hash}")));
                }
                Some(_) => {}
                None => tokenizer_hash = Some((name, hash)),
            }
        }
        let tokenizer_hash = tokenizer_hash.map(|(_, hash)| hash);
        Ok(Side { report, metric, preview, last, hashes, dataset_hash, ids_digest, tokenizer_hash })
    }
}

/// Checks that both sides were measured for the guards as they are asked to judge.
pub(super) fn check_guards(
    baseline: &Side<'_>,
    subject: &Side<'_>,
    wanted: GuardRequest,
) -> Result<(), Error> {
    for (role, side) in [("baseline", baseline), ("subject", subject)] {
        let found = read_guard_request(side.report)?;
        if found != wanted {
            return Err(Error::input(format!(
                "the {role} was measured for the guards {}, but the comparison asks for {}",
                describe(found),
                describe(wanted)
            ))
            .with_hint("measure both sides with the same --guards"));
        }
    }
    Ok(())
}

fn describe(request: GuardRequest) -> String {
    match request.calibration {
        None => request.mode.to_string(),
        Some(Calibration { windows, seed, .. }) => {
            format!("{} with {windows} calibration windows and the seed {seed}", request.mode)
        }
    }
}

/// Checks that both sides measured the same windows with the same tokenizer.
pub(super) fn check_pair(baseline: &Side<'_>, subject: &Side<'_>) -> Result<(), Error> {
    let (base, subj) = (baseline.report, subject.report);
    let differ = |what: &str, one: &dyn std::fmt::Display, other: &dyn std::fmt::Display| {
        Error::integrity(format!(
            "baseline and subject were not measured on the same windows: {what} is {one} for the baseline and {other} \
             for the subject"
        ))
        .with_hint("measure the subject on the baseline's windows")
    };
    if baseline.metric != subject.metric {
        return Err(Error::input(format!(
            "baseline and subject are different kinds of model: the metric is {} for the baseline and {} for the subject",
            baseline.metric.name, subject.metric.name
        ))
        .with_hint("use a subject that was made from the baseline"));
    }
    for (what, one, other) in [
        ("data.seq_len", base.data.seq_len, subj.data.seq_len),
        ("data.stride", base.data.stride, subj.data.stride),
    ] {
        if one != other {
            return Err(differ(what, &one, &other));
        }
    }
    if base.data.dataset != subj.data.dataset {
        return Err(differ("data.dataset", &base.data.dataset, &subj.data.dataset));
    }
    let labelled = baseline.metric.has_labels();
    for (name, one, other) in [
        ("preview", &base.evaluation_windows.preview, &subj.evaluation_windows.preview),
        ("final", &base.evaluation_windows.final_, &subj.evaluation_windows.final_),
    ] {
        let at = |member: &str| format!("evaluation_windows.{name}.{member}");
        if one.window_ids.len() != other.window_ids.len() {
            return Err(differ(
                &format!("the number of {name} windows"),
                &one.window_ids.len(),
                &other.window_ids.len(),
            ));
        }
        if one.examples != other.examples {
            return Err(differ(&at("examples"), &"one thing", &"another"));
        }
        for i in 0..one.window_ids.len() {
            if one.window_ids[i] != other.window_ids[i] {
                return Err(differ(
                    &at(&format!("window_ids[{i}]")),
                    &one.window_ids[i],
                    &other.window_ids[i],
                ));
            }
            if one.input_ids[i] != other.input_ids[i] || one.attention_masks[i] != other.attention_masks[i] {
                return Err(differ(&at(&format!("input_ids[{i}] or its mask")), &"one thing", &"another"));
            }
            if labelled && one.labels[i] != other.labels[i] {
                return Err(differ(&at(&format!("labels[{i}]")), &"one thing", &"another"));
            }
        }
    }
    if let (Some(one), Some(other)) = (&baseline.tokenizer_hash, &subject.tokenizer_hash)
        && one != other
    {
        return Err(Error::input(format!(
            "baseline and subject have different tokenizers ({one} and {other}), so their perplexities cannot be \
             compared"
        ))
        .with_hint("use a subject with the baseline's tokenizer"));
    }
    super::tokenizers::check(base, subj)?;
    let (preview, last) = (&base.evaluation_windows.preview, &base.evaluation_windows.final_);
    let noun = if baseline.metric.is_accuracy() { "example" } else { "window" };
    if count(preview) != count(last) {
        return Err(Error::input(format!(
            "the preview arm has {} {noun}s and the final arm {}; both need the same number",
            count(preview),
            count(last)
        )));
    }
    if count(last) < 2 {
        return Err(Error::input(format!("the final arm has one {noun}; an interval needs two or more")));
    }
    if base.data.stride < base.data.seq_len {
        return Err(Error::input(format!(
            "stride {} is smaller than seq_len {}: overlapping windows cannot be paired",
            base.data.stride, base.data.seq_len
        ))
        .with_hint(format!("set the stride to {}", base.data.seq_len)));
    }
    unique([("preview", preview), ("final", last)], noun)
}

/// What `data.preview_n` and `data.final_n` count: the examples of an accuracy, otherwise the windows.
fn count(arm: &WindowArm) -> u64 {
    arm.examples.as_ref().map_or(arm.window_ids.len(), Vec::len) as u64
}

/// Checks that no two windows, or examples, have the same tokens.
fn unique(arms: [(&str, &WindowArm); 2], noun: &str) -> Result<(), Error> {
    let mut seen = HashMap::new();
    for (name, arm) in arms {
        let rows = arm.input_ids.iter().zip(&arm.attention_masks);
        let real = |(ids, mask): (&Vec<u32>, &Vec<u8>)| -> Vec<u32> {
            ids.iter().zip(mask).filter(|(_, bit)| **bit == 1).map(|(id, _)| *id).collect()
        };
        let windows: Vec<Vec<u32>> = rows.map(real).collect();
        // Examples may have a choice in common.
        let units: Vec<&[Vec<u32>]> = match &arm.examples {
            Some(examples) => choices::parts(examples, &windows).collect(),
            None => windows.chunks(1).collect(),
        };
        for (i, unit) in units.into_iter().enumerate() {
            if let Some((first_name, first)) = seen.insert(unit.to_vec(), (name, i)) {
                return Err(Error::input(format!(
                    "{first_name} {noun} {first} and {name} {noun} {i} contain the same tokens; every {noun} must be \
                     unique"
                ))
                .with_hint("remove duplicate texts from the dataset"));
            }
        }
    }
    Ok(())
}
