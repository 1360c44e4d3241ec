//! Windows: counts, ids, tokens and digests.

use super::{ACTUAL, Arm, Check};
use crate::format::metrics::Metric;
use crate::format::untrusted::Node;
use crate::numerics::{NOT_PREDICTED, digest};
use crate::verify::python::int;
use serde_json::{Value, json};
use std::collections::HashSet;

/// An arm of the subject, and the places of the report that repeat facts about it.
struct ArmPaths {
    windows: &'static str,
    actual: &'static str,
    used: &'static str,
    total_tokens: &'static str,
    hash_tokens: &'static str,
    raw: &'static str,
}

const PREVIEW: ArmPaths = ArmPaths {
    windows: "dataset.windows.preview",
    actual: "dataset.windows.stats.actual_preview",
    used: "dataset.windows.stats.coverage.preview.used",
    total_tokens: "telemetry.preview_total_tokens",
    hash_tokens: "dataset.hash.preview_tokens",
    raw: "evaluation_windows.preview",
};
const FINAL: ArmPaths = ArmPaths {
    windows: "dataset.windows.final",
    actual: "dataset.windows.stats.actual_final",
    used: "dataset.windows.stats.coverage.final.used",
    total_tokens: "telemetry.final_total_tokens",
    hash_tokens: "dataset.hash.final_tokens",
    raw: "evaluation_windows.final",
};

impl Check<'_> {
    /// Counts, ids and digests of the windows.
    pub(super) fn windows(&mut self, metric: &Metric, preview: &Arm, last: &Arm) {
        let report = self.report;
        for (paths, arm) in [(&PREVIEW, preview), (&FINAL, last)] {
            self.arm_counts(paths, arm);
        }
        self.same(report.at("dataset.windows.stats.paired_windows"), &json!(last.ids.len()));
        let total = preview.tokens().saturating_add(last.tokens());
        self.same_if_recorded(report.at("dataset.hash.total_tokens"), &json!(total));
        let mut distinct = HashSet::new();
        if let Some(id) = preview.ids.iter().chain(&last.ids).find(|id| !distinct.insert(**id)) {
            self.mismatch(format!("evaluation_windows window_ids mismatch: {id} is a duplicate"));
        }
        let ids = json!(digest::window_ids_digest(preview.ids.iter().chain(&last.ids).copied()));
        self.same_if_recorded(report.at("provenance.provider_digest.ids_sha256"), &ids);
        let schedule = json!(digest::schedule_digest(&last.ids));
        for path in ["provenance.window_ids_digest", "provenance.window_plan_digest"] {
            self.same_if_recorded(report.at(path), &schedule);
        }
        let named = report.at("meta.tokenizer_hash");
        for path in [
            "provenance.provider_digest.tokenizer_sha256",
            "dataset.tokenizer.hash",
            "baseline_ref.tokenizer_hash",
        ] {
            let recorded = report.at(path);
            if !recorded.is_null() && recorded != named {
                self.mismatch(format!(
                    "{path} mismatch: recorded {recorded}, meta.tokenizer_hash is {named}"
                ));
            }
        }
        self.yes("window counts, tokens and id digests");
        self.tokens(preview, last);
        if metric.has_labels() {
            [(&PREVIEW, preview), (&FINAL, last)]
                .into_iter()
                .for_each(|(paths, arm)| self.labels(paths, arm));
        }
    }

    fn arm_counts(&mut self, paths: &ArmPaths, arm: &Arm) {
        let report = self.report;
        let count = json!(arm.ids.len());
        self.same(report.at(paths.windows), &count);
        self.same_if_recorded(report.at(paths.actual), &count);
        self.same(report.at(paths.used), &count);
        let tokens = json!(arm.tokens());
        self.same_if_recorded(report.at(paths.total_tokens), &tokens);
        self.same_if_recorded(report.at(paths.hash_tokens), &tokens);
        if let Some((i, loss)) = arm.losses.iter().enumerate().find(|(_, loss)| **loss < -1e-6) {
            let path = format!("{}.logloss[{i}]", paths.raw);
            self.mismatch(format!("{path} mismatch: recorded {loss}, a cross-entropy is not negative"));
        }
    }

    /// Token ids and masks against counts and the dataset's digests.
    fn tokens(&mut self, preview: &Arm, last: &Arm) {
        let report = self.report;
        let Some(seq_len) = int(report.at("dataset.seq_len")) else { return };
        let mut hashes = Vec::new();
        for (paths, arm) in [(&PREVIEW, preview), (&FINAL, last)] {
            let raw = report.at(paths.raw);
            let windows = raw.get("input_ids");
            if windows.array().is_none_or(<[Value]>::is_empty) {
                let path = windows.path();
                return self.not(format!("dataset.hash: {path} contains no token ids"));
            }
            match hash_of(windows, arm.ids.len(), seq_len) {
                Ok(hash) => hashes.push(hash),
                Err(why) => return self.mismatch(format!("{} mismatch: {why}", windows.path())),
            }
            self.masks(raw, arm, seq_len);
        }
        let hash = report.at("dataset.hash");
        if hash.get("source").str() != Some("explicit_preview_final_hashes") {
            return self.not("dataset.hash: its source is not a hash of the windows".to_owned());
        }
        let [first, second] = hashes.as_slice() else { return };
        self.same(hash.get("preview"), &json!(format!("blake2s:{first}")));
        self.same(hash.get("final"), &json!(format!("blake2s:{second}")));
        self.same(hash.get("dataset"), &json!(digest::dataset_hash(first, second)));
        self.yes("dataset digests, from the token ids");
    }

    /// Masks and the repeated counts against the token counts of an arm.
    fn masks(&mut self, raw: Node<'_>, arm: &Arm, seq_len: u64) {
        let masks = raw.get("attention_masks");
        if masks.array().is_none_or(|masks| masks.len() != arm.ids.len()) {
            self.mismatch(format!("{} mismatch: not one mask for each window", masks.path()));
        }
        for (i, mask) in masks.value().as_array().into_iter().flatten().enumerate() {
            let real = ones(mask, seq_len);
            let Some(count) = arm.real().get(i).filter(|count| Some(**count) != real) else { continue };
            let real = real.map_or_else(|| "no mask".to_owned(), |real| format!("{real} tokens"));
            let member = if arm.actual.is_some() { ACTUAL } else { "token_counts" };
            let path = raw.get(member).index(i).path();
            self.mismatch(format!("{path} mismatch: recorded {count}, the mask has {real}"));
        }
    }

    /// Labels against the weights of an arm.
    fn labels(&mut self, paths: &ArmPaths, arm: &Arm) {
        let labels = self.report.at(paths.raw).get("labels");
        if labels.array().is_none_or(|labels| labels.len() != arm.ids.len()) {
            return self
                .mismatch(format!("{} mismatch: not one row of labels for each window", labels.path()));
        }
        let rows = labels.value().as_array().into_iter().flatten();
        for (i, (row, count)) in rows.zip(&arm.counts).enumerate() {
            if predicted(row) != Some(*count) {
                let path = labels.index(i).path();
                self.mismatch(format!("{path} mismatch: not as many labels as its token_counts, {count}"));
            }
        }
        self.yes("weights, from the labels");
    }
}

/// How many of the labels of a window are to be predicted.
fn predicted(labels: &Value) -> Option<u64> {
    let labels = labels.as_array()?.iter().map(Value::as_i64);
    labels.into_iter().try_fold(0, |sum, label| Some(sum + u64::from(label? != NOT_PREDICTED)))
}

/// The digest of `count` windows, each of `seq_len` tokens.
fn hash_of(windows: Node<'_>, count: usize, seq_len: u64) -> Result<String, String> {
    let mut hasher = digest::WindowsHasher::default();
    let mut tokens: Vec<u32> = Vec::new();
    let windows = windows.array().unwrap_or_default();
    for window in windows {
        tokens.clear();
        for id in window.as_array().ok_or("an element is not a list of token ids")? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            tokens.push(id.ok_or("an element is not a list of token ids")?);
        }
        if tokens.len() as u64 != seq_len {
            return Err(format!("not one window of {seq_len} tokens for each id"));
        }
        hasher.add(&tokens);
    }
    match windows.len() == count {
        true => Ok(hasher.finish()),
        false => Err(format!("not one window of {seq_len} tokens for each id")),
    }
}

/// How many ones a mask of `seq_len` zeros and ones has.
fn ones(mask: &Value, seq_len: u64) -> Option<u64> {
    let bits = mask.as_array().filter(|bits| bits.len() as u64 == seq_len)?;
    bits.iter().try_fold(0, |sum, bit| Some(sum + bit.as_u64().filter(|bit| *bit < 2)?))
}
