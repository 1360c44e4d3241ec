//! The tokenizer of the subject against the one that made the windows.

use crate::format::check_report::CheckpointFacts;
use crate::format::subject_tokenizer::SubjectTokenizer;
use crate::numerics::digest;
use crate::run_report::RunReport;
use invarlock_error::{Error, Result, bail};
use serde::Deserialize;

/// Checks what the subject's run report says of its own tokenizer.
///
/// # Errors
/// It contradicts the baseline's run report: then the losses of both sides may be about different texts.
pub(super) fn check(baseline: &RunReport, subject: &RunReport) -> Result<()> {
    let data = &baseline.data;
    let known = data.used_tokens.as_ref().map(|tokens| (tokens, baseline.evaluation_windows.used_ids()));
    if let Some((tokens, ids)) = &known
        && tokens.len() != ids.len()
    {
        let (tokens, ids) = (tokens.len(), ids.len());
        bail!(
            Integrity,
            "data.used_tokens of the baseline has {tokens} tokens, but its windows use {ids} ids"
        );
    }
    if own(baseline).is_some() || subject.data.used_tokens.is_some() {
        bail!(Integrity, "the tokenizer of the baseline is described as that of a subject, or the reverse");
    }
    if subject.data.tokenizer_mapping_sha256 != data.tokenizer_mapping_sha256 {
        bail!(
            Integrity,
            "data.tokenizer_mapping_sha256 of the subject is not that of the baseline, whose windows it replays"
        );
    }
    let Some(SubjectTokenizer::Other {
        hash,
        vocab_size,
        mapping_sha256,
        same_mapping,
        used_tokens_sha256,
        added_tokens,
        added_token_names,
    }) = own(subject)
    else {
        return Ok(());
    };
    let Some((tokens, ids)) = known else {
        bail!(
            Integrity,
            "the subject has another tokenizer, and the baseline's run report does not state the tokens of its windows"
        );
    };
    let used = digest::used_tokens(ids.into_iter().zip(tokens.iter().map(|token| Some(token.as_str()))));
    if used != used_tokens_sha256 {
        return Err(Error::integrity(format!(
            "the tokens that windows use have the digest {used} for the baseline and {used_tokens_sha256} for the subject"
        ))
        .with_hint("use a subject with the baseline's tokens"));
    }
    let mapping_equal = data.tokenizer_mapping_sha256.as_ref() == Some(&mapping_sha256);
    if same_mapping != mapping_equal {
        bail!(Integrity, "same_mapping of the subject's tokenizer contradicts its mapping_sha256");
    }
    if mapping_equal && baseline.meta.tokenizer_hash.as_ref() == Some(&hash) {
        bail!(
            Integrity,
            "the subject's tokenizer is said to be another one, but its digests are the baseline's"
        );
    }
    if added_tokens > vocab_size || (added_token_names.len() as u64) > added_tokens {
        bail!(
            Integrity,
            "the subject's tokenizer has {vocab_size} tokens, {added_tokens} of them added, {} named",
            added_token_names.len()
        );
    }
    Ok(())
}

/// What a run report says of its checkpoint's own tokenizer.
fn own(report: &RunReport) -> Option<SubjectTokenizer> {
    let evaluator = report.meta.more.get("evaluator")?;
    CheckpointFacts::deserialize(evaluator).ok()?.tokenizer
}
