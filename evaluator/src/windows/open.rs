//! The windows of a job: selected from its dataset, or replayed.

use std::path::Path;

use invarlock_evidence::format::dataset::Answers;
use invarlock_evidence::format::masking::Masked;
use invarlock_evidence::format::metrics::{self, MetricKind};
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::job::{Job, Role, WindowSource};
use invarlock_evidence::run_report::BaselineWindows;

use super::Windows;
use super::from_dataset::{Rows, Windower};
use super::replay::replay;
use super::source::WindowsSource;
use crate::checkpoint::Checkpoint;
use crate::dataset::{ChoiceFields, Fields};
use crate::model::ModelInfo;
use crate::progress::Progress;
use crate::tokenizer::{Tokenizer, described, of_subject};
use crate::{files, limits};
use invarlock_error::{Error, Result, bail};

/// The windows that a job asks for, and what made them. `tokenizer` is that of the checkpoint, if it has one.
///
/// # Errors
/// The job asks for what the model does not predict, or the dataset or the baseline's windows do not fit.
pub fn open(
    job: &Job,
    checkpoint: &Checkpoint,
    model: &ModelInfo<'_>,
    tokenizer: Option<&Tokenizer>,
    progress: &Progress,
) -> Result<(Windows, WindowsSource)> {
    check_request(job, model)?;
    let objective = model.objective;
    let own = || tokenizer.ok_or_else(|| Tokenizer::missing(checkpoint));
    let masked = match objective {
        Objective::Masked => Some(Masked {
            settings: job.masking.unwrap_or_default(),
            mask_token_id: own()?.mask_id()?,
            special_token_ids: own()?.special_ids.clone(),
            draws_before: None,
        }),
        Objective::Causal | Objective::Seq2Seq => None,
    };
    match &job.windows {
        WindowSource::LocalJsonl { files, text_field, target_field, answers, max_samples, packing } => {
            let tokenizer = own()?;
            let fields = Fields { text: text_field, target: target_field.as_deref(), choices: None };
            let fields = match answers {
                None => fields,
                Some(Answers::Choices { choices_field, answer_field }) => {
                    let choices = ChoiceFields { choices: choices_field, answer: answer_field };
                    Fields { choices: Some(choices), ..fields }
                }
                Some(Answers::Labels { label_field, .. }) => Fields { target: Some(label_field), ..fields },
            };
            let rows = Rows {
                files,
                fields,
                answers: answers.as_ref(),
                max_samples: *max_samples,
                packing: *packing,
            };
            let windows =
                Windower { job, objective, checkpoint, tokenizer, masked }.windows(&rows, progress)?;
            let described = Some(described(tokenizer, &windows.used_ids())?);
            Ok((windows, WindowsSource { hash: tokenizer.hash.clone(), described, subject: None }))
        }
        WindowSource::Replay { file } => {
            let mut baseline: BaselineWindows =
                files::read_json(Path::new(file), "windows of the baseline", limits::WINDOWS_BYTES)?;
            same_objective(&baseline, model)?;
            let accuracy = job.metric == Some(MetricKind::Accuracy);
            if baseline.examples().is_some() != accuracy {
                bail!(Input, "the windows of the baseline and the job are about different metrics");
            }
            let subject = of_subject(tokenizer, &baseline)?;
            let hash = baseline.tokenizer_hash.clone().unwrap_or_default();
            let described = baseline.tokenizer.take();
            let windows = Windows { masked, ..replay(baseline, job.seq_len, model.vocab_size)? };
            Ok((windows, WindowsSource { hash, described, subject }))
        }
    }
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
    if let (Role::Baseline, WindowSource::LocalJsonl { answers, .. }) = (job.role, &job.windows)
        && answers.is_some() != (job.metric == Some(MetricKind::Accuracy))
    {
        let (dataset, hint) = match answers {
            Some(_) => ("has examples with choices", "use the metric accuracy"),
            None => ("has no choices", "use the provider local_jsonl_choices or local_jsonl_labels"),
        };
        let metric = job.metric.map_or("auto", |kind| metrics::of(kind).name);
        return Err(
            Error::input(format!("the metric is {metric}, but the dataset {dataset}")).with_hint(hint)
        );
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

/// Fails where the subject does not predict what the baseline predicts.
fn same_objective(baseline: &BaselineWindows, model: &ModelInfo<'_>) -> Result<()> {
    if baseline.objective != model.objective {
        bail!(
            Input,
            "the baseline is a {}, but the subject ({}) is a {}",
            baseline.objective.describe(),
            model.model_type,
            model.objective.describe()
        );
    }
    Ok(())
}
