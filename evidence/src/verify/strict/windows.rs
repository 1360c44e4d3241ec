//! Windows: counts, ids, tokens and digests.

use super::{Arm, Check};
use crate::numerics::digest;
use crate::verify::python::int;
use serde_json::{Value, json};
use std::collections::HashSet;

impl Check<'_> {
    /// Counts, ids and digests of the windows.
    pub(super) fn windows(&mut self, preview: &Arm, last: &Arm) {
        let report = self.report;
        let dataset = &report["dataset"];
        let (windows, stats) = (&dataset["windows"], &dataset["windows"]["stats"]);
        let telemetry = &report["telemetry"];
        let sizes = [("preview", preview), ("final", last)];
        for (name, arm) in sizes {
            let n = json!(arm.ids.len());
            self.same(&format!("dataset.windows.{name}"), &windows[name], &n);
            let actual = format!("actual_{name}");
            if self.ours || !stats[&actual].is_null() {
                self.same(&format!("dataset.windows.stats.{actual}"), &stats[&actual], &n);
            }
            let used = &stats["coverage"][name]["used"];
            self.same(&format!("dataset.windows.stats.coverage.{name}.used"), used, &n);
            let tokens = json!(arm.tokens());
            for (place, recorded) in [
                (format!("telemetry.{name}_total_tokens"), &telemetry[format!("{name}_total_tokens")]),
                (format!("dataset.hash.{name}_tokens"), &dataset["hash"][format!("{name}_tokens")]),
            ] {
                if self.ours || !recorded.is_null() {
                    self.same(&place, recorded, &tokens);
                }
            }
            if let Some((i, loss)) = arm.losses.iter().enumerate().find(|(_, loss)| **loss < -1e-6) {
                let place = format!("evaluation_windows.{name}.logloss[{i}]");
                self.mismatch(format!("{place} mismatch: it is {loss}, a cross-entropy is not negative"));
            }
        }
        self.same("dataset.windows.stats.paired_windows", &stats["paired_windows"], &json!(last.ids.len()));
        let total = &dataset["hash"]["total_tokens"];
        if self.ours || !total.is_null() {
            self.same(
                "dataset.hash.total_tokens",
                total,
                &json!(preview.tokens().saturating_add(last.tokens())),
            );
        }
        let mut seen = HashSet::new();
        if let Some(id) = preview.ids.iter().chain(&last.ids).find(|id| !seen.insert(**id)) {
            self.mismatch(format!("evaluation_windows window_ids mismatch: {id} is there twice"));
        }
        let provenance = &report["provenance"];
        let ids = json!(digest::window_ids_digest(preview.ids.iter().chain(&last.ids).copied()));
        let recorded = &provenance["provider_digest"]["ids_sha256"];
        if self.ours || !recorded.is_null() {
            self.same("provenance.provider_digest.ids_sha256", recorded, &ids);
        }
        let schedule = json!(digest::schedule_digest(&last.ids));
        for name in ["window_ids_digest", "window_plan_digest"] {
            if self.ours || !provenance[name].is_null() {
                self.same(&format!("provenance.{name}"), &provenance[name], &schedule);
            }
        }
        let tokenizers = [
            (
                "provenance.provider_digest.tokenizer_sha256",
                &provenance["provider_digest"]["tokenizer_sha256"],
            ),
            ("dataset.tokenizer.hash", &dataset["tokenizer"]["hash"]),
            ("baseline_ref.tokenizer_hash", &report["baseline_ref"]["tokenizer_hash"]),
        ];
        let named = &report["meta"]["tokenizer_hash"];
        for (place, recorded) in tokenizers {
            if !recorded.is_null() && recorded != named {
                self.mismatch(format!("{place} mismatch: it is {recorded}, meta.tokenizer_hash is {named}"));
            }
        }
        self.yes("window counts, tokens and id digests");
        self.tokens(preview, last);
    }

    /// Token ids, masks and labels against counts and the dataset's digest.
    pub(super) fn tokens(&mut self, preview: &Arm, last: &Arm) {
        let report = self.report;
        let dataset = &report["dataset"];
        let Some(seq_len) = int(&dataset["seq_len"]) else { return };
        let mut hashes = Vec::new();
        for (name, arm) in [("preview", preview), ("final", last)] {
            let raw = &report["evaluation_windows"][name];
            let place = format!("evaluation_windows.{name}");
            let Some(windows) = raw["input_ids"].as_array().filter(|windows| !windows.is_empty()) else {
                if self.ours {
                    self.mismatch(format!("{place}.input_ids mismatch: they are missing"));
                }
                return self.not(format!("dataset.hash: {place} holds no token ids"));
            };
            let hash = match hash_of(windows, arm.ids.len(), seq_len) {
                Ok(hash) => hash,
                Err(why) => return self.mismatch(format!("{place}.input_ids mismatch: {why}")),
            };
            let masks = raw["attention_masks"].as_array();
            if masks.is_none_or(|masks| masks.len() != arm.ids.len()) {
                self.mismatch(format!("{place}.attention_masks mismatch: not one mask a window"));
            }
            for (i, mask) in masks.into_iter().flatten().enumerate() {
                let real = ones(mask, seq_len);
                let Some(count) = arm.counts.get(i).filter(|count| Some(**count) != real) else { continue };
                let real = real.map_or_else(|| "no mask".to_owned(), |real| format!("{real} tokens"));
                self.mismatch(format!(
                    "{place}.token_counts[{i}] mismatch: it is {count}, its mask has {real}"
                ));
            }
            for other in ["masked_token_counts", "actual_token_counts"] {
                let counts = raw[other].as_array().filter(|counts| !counts.is_empty());
                if self.ours
                    && counts.is_some_and(|counts| {
                        !counts.iter().map(Value::as_u64).eq(arm.counts.iter().copied().map(Some))
                    })
                {
                    self.mismatch(format!("{place}.{other} mismatch: they are not the token_counts"));
                }
            }
            hashes.push(hash);
        }
        if dataset["hash"]["source"] != json!("explicit_preview_final_hashes") {
            return self.not("dataset.hash: its source is no hash of the windows".to_owned());
        }
        let [first, second] = hashes.as_slice() else { return };
        let recorded = &dataset["hash"];
        self.same("dataset.hash.preview", &recorded["preview"], &json!(format!("blake2s:{first}")));
        self.same("dataset.hash.final", &recorded["final"], &json!(format!("blake2s:{second}")));
        self.same("dataset.hash.dataset", &recorded["dataset"], &json!(digest::dataset_hash(first, second)));
        self.yes("dataset digests, from the token ids");
    }
}

/// The digest of as many windows as there must be, each of `seq_len` tokens.
fn hash_of(windows: &[Value], count: usize, seq_len: u64) -> Result<String, String> {
    let mut hasher = digest::WindowsHasher::default();
    let mut tokens: Vec<u32> = Vec::new();
    for window in windows {
        tokens.clear();
        for id in window.as_array().ok_or("no token ids")? {
            tokens.push(id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or("no token ids")?);
        }
        if tokens.len() as u64 != seq_len {
            return Err(format!("not one window of {seq_len} tokens each"));
        }
        hasher.add(&tokens);
    }
    match windows.len() == count {
        true => Ok(hasher.finish()),
        false => Err(format!("not one window of {seq_len} tokens each")),
    }
}

/// How many ones a mask of `seq_len` zeros and ones has.
fn ones(mask: &Value, seq_len: u64) -> Option<u64> {
    let bits = mask.as_array().filter(|bits| bits.len() as u64 == seq_len)?;
    bits.iter().try_fold(0, |sum, bit| Some(sum + bit.as_u64().filter(|bit| *bit < 2)?))
}
