//! The windows of a job: selected from its dataset, or replayed.

use std::path::Path;

use invarlock_evidence::format::masking::Masked;
use invarlock_evidence::format::metrics;
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::job::{Job, Role, WindowSource};
use invarlock_evidence::masking::{Masker, eligible};
use invarlock_evidence::run_report::BaselineWindows;

use super::replay::replay;
use super::{Window, WindowRequest, Windows, select};
use crate::dataset::{self, Fields, Row};
use crate::model::ModelInfo;
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;
use crate::{files, limits};
use invarlock_error::{Error, Result, bail};

/// The windows that a job asks for.
///
/// # Errors
/// The job asks for what the model does not predict, or the dataset or the baseline's windows do not fit.
pub fn open(job: &Job, model: &ModelInfo<'_>, tokenizer: &Tokenizer, progress: &Progress) -> Result<Windows> {
    check_request(job, model)?;
    let masked = match model.objective {
        Objective::Masked => Some(Masked {
            settings: job.masking.unwrap_or_default(),
            mask_token_id: tokenizer.mask_id()?,
            special_token_ids: tokenizer.special_ids.clone(),
            draws_before: None,
        }),
        Objective::Causal | Objective::Seq2Seq => None,
    };
    match &job.windows {
        WindowSource::LocalJsonl { files, text_field, target_field, max_samples } => {
            let fields = Fields { text: text_field, target: target_field.as_deref() };
            let texts = dataset::read(files, fields, *max_samples)?;
            let request = WindowRequest {
                seq_len: job.seq_len,
                preview: job.preview_n,
                final_: job.final_n,
                profile: &job.profile,
                max_samples: *max_samples,
            };
            let masker = |masked| Masker::new(masked, tokenizer.vocab_size, job.seed);
            let mut masker = masked.as_ref().map(masker).transpose()?;
            let encode = |row: &Row| window(row, model.objective, tokenizer, job.seq_len);
            let report = |done, total| progress.report("tokenize", done, total);
            let windows = select(&texts, &request, &encode, masker.as_mut(), &report)?;
            let draws = masker.map(|masker| masker.draws());
            // The last pass gave the windows.
            let pass = [&windows.preview, &windows.final_].into_iter().flat_map(|arm| &arm.windows);
            let pass = pass.map(|window| draws_of(window, &tokenizer.special_ids)).sum::<u64>();
            let masked = masked.map(|masked| Masked { draws_before: draws.map(|all| all - pass), ..masked });
            Ok(Windows { masked, ..windows })
        }
        WindowSource::Replay { file } => {
            let baseline: BaselineWindows =
                files::read_json(Path::new(file), "windows of the baseline", limits::WINDOWS_BYTES)?;
            same_kind(&baseline, model, tokenizer)?;
            Ok(Windows { masked, ..replay(baseline, job.seq_len, model.vocab_size)? })
        }
    }
}

/// Random numbers that decided what is predicted in a masked window.
fn draws_of(window: &Window, special: &[u32]) -> u64 {
    let Some(labels) = &window.labels else { return 0 };
    let original = invarlock_evidence::masking::original(window.tokens(), labels);
    original.map_or(0, |tokens| eligible(&tokens, special).len() as u64)
}

/// Fails where the job asks for what the model does not predict.
fn check_request(job: &Job, model: &ModelInfo<'_>) -> Result<()> {
    let objective = model.objective;
    let checkpoint = || format!("the checkpoint ({}) is a {}", model.model_type, objective.describe());
    if let Some(metric) = job.metric.map(metrics::of).filter(|metric| metric.objective != objective) {
        let (name, measured) = (metric.name, metric.objective.describe());
        return Err(Error::input(format!("the metric {name} measures a {measured}, but {}", checkpoint()))
            .with_hint("leave out the metric and the loss type: the checkpoint decides"));
    }
    if job.masking.is_some() && objective != Objective::Masked {
        return Err(Error::input(format!("`eval.loss` has settings of masking, but {}", checkpoint()))
            .with_hint(
                "remove mask_prob, seed, random_token_prob and original_token_prob from `eval.loss`",
            ));
    }
    if let (Role::Baseline, WindowSource::LocalJsonl { target_field, .. }) = (job.role, &job.windows)
        && target_field.is_some() != (objective == Objective::Seq2Seq)
    {
        let (dataset, hint) = match target_field {
            Some(_) => ("pairs", "use the provider local_jsonl and name the text with text_field"),
            None => ("single texts", "use the provider local_jsonl_pairs with src_field and tgt_field"),
        };
        return Err(Error::input(format!("the dataset has {dataset}, but {}", checkpoint())).with_hint(hint));
    }
    Ok(())
}

/// Fails where the subject does not predict what the baseline predicts, from the same vocabulary.
fn same_kind(baseline: &BaselineWindows, model: &ModelInfo<'_>, tokenizer: &Tokenizer) -> Result<()> {
    if baseline.objective != model.objective {
        bail!(
            Input,
            "the baseline is a {}, but the subject ({}) is a {}",
            baseline.objective.describe(),
            model.model_type,
            model.objective.describe()
        );
    }
    if baseline.tokenizer_hash.as_deref() != Some(tokenizer.hash.as_str()) {
        return Err(Error::input(format!(
            "tokenizer mismatch: the tokenizer of the baseline has the digest {}, that of the subject {}; losses \
             over different vocabularies cannot be compared",
            baseline.tokenizer_hash.as_deref().unwrap_or("(none)"),
            tokenizer.hash
        ))
        .with_hint("use the same tokenizer.json in both checkpoints"));
    }
    Ok(())
}

/// The window of a row, before it is masked; none where the row has too few tokens to predict one.
fn window(row: &Row, objective: Objective, tokenizer: &Tokenizer, seq_len: usize) -> Result<Option<Window>> {
    let mut ids = tokenizer.encode(&row.text)?;
    ids.truncate(seq_len);
    let target = row.target.as_deref().map(|text| tokenizer.encode(text)).transpose()?;
    let labels = target.map(|ids| ids.into_iter().take(seq_len).map(i64::from).collect::<Vec<_>>());
    let usable = match objective {
        Objective::Causal => ids.len() > 1,
        Objective::Masked => !eligible(&ids, &tokenizer.special_ids).is_empty(),
        Objective::Seq2Seq => !ids.is_empty() && labels.as_ref().is_some_and(|labels| !labels.is_empty()),
    };
    let real = ids.len();
    ids.resize(seq_len, tokenizer.pad_id);
    Ok(usable.then_some(Window { ids, real, labels }))
}
