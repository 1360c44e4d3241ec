//! What the windows predict: the metric that the plan asks for, and masks that follow from the seed.

use crate::evaluation::Facts;
use crate::format::dataset::Answers;
use crate::format::masking::Masked;
use crate::format::metrics;
use crate::format::objective::Objective;
use crate::format::plan::Dataset;
use crate::job::Role;
use crate::masking::{Masker, eligible, original};
use crate::measured::{Arm, Measured};
use invarlock_error::{Result, bail};

/// The metric and the masking are those of the plan.
pub(super) fn measures_the_plan(facts: &Facts, role: Role, measured: &Measured, faults: &mut Vec<String>) {
    let (dataset, metric) = (&facts.plan.dataset, measured.metric);
    let mut require = |holds: bool, what: String| {
        if !holds {
            faults.push(format!("{} report: {what}", role.name()));
        }
    };
    if let Some(planned) = dataset.metric {
        let planned = metrics::of(planned);
        require(metric == planned, format!("the metric is {}, planned is {}", metric.name, planned.name));
    }
    let pairs = dataset.target_field.is_some();
    require(
        pairs == (metric.objective == Objective::Seq2Seq),
        format!(
            "the metric {} does not fit a dataset {} pairs",
            metric.name,
            if pairs { "of" } else { "without" }
        ),
    );
    require(
        dataset.answers.is_some() == metric.is_accuracy(),
        format!("the metric {} does not fit the dataset of the plan", metric.name),
    );
    if metric.is_accuracy() {
        all_examples(dataset, measured, &mut require);
    }
    let masked = measured.masked.as_ref();
    let planned = match metric.objective {
        Objective::Masked => Some(dataset.masking.unwrap_or_default()),
        Objective::Causal | Objective::Seq2Seq => dataset.masking,
    };
    require(
        masked.map(|masked| masked.settings) == planned,
        "data.masking does not have the settings of the plan".to_owned(),
    );
    let replayed = masked.is_none_or(|masked| masked.draws_before.is_none());
    require(
        masked.is_none() || replayed == (role == Role::Subject),
        "data.masking.draws_before is that of the other side".to_owned(),
    );
    let embedded = measured.checks.embedding_vocab_sizes.values().max().copied().unwrap_or_default();
    let mut labels = [&measured.preview, &measured.final_]
        .into_iter()
        .flat_map(|arm| arm.labels.iter().flatten().flatten());
    require(
        labels.all(|label| u64::try_from(*label).is_ok_and(|id| id < embedded) || *label < 0),
        "a label is not below the number of embedded tokens".to_owned(),
    );
    if let Some(masked) = masked.filter(|_| role == Role::Baseline)
        && let Err(why) = masks(measured, masked)
    {
        require(false, format!("its masks do not follow from the seed: {why}"));
    }
}

/// No example of an accuracy was left out, and each has the choices that the plan names.
fn all_examples(dataset: &Dataset, measured: &Measured, require: &mut dyn FnMut(bool, String)) {
    let found = (measured.preview.count(), measured.final_.count());
    let planned = (dataset.preview_n, dataset.final_n);
    require(
        found == planned,
        format!("it has {} + {} examples, planned are {} + {}", found.0, found.1, planned.0, planned.1),
    );
    require(measured.selection.short_rows == 0, "examples of an accuracy were skipped".to_owned());
    let Some(Answers::Labels { labels, .. }) = &dataset.answers else { return };
    let mut examples =
        [&measured.preview, &measured.final_].into_iter().flat_map(|arm| arm.examples.iter().flatten());
    let first = measured.preview.examples.iter().flatten().next().map_or(0, |example| example.choices);
    let labels = labels.as_ref().map_or(first, Vec::len);
    require(
        examples.all(|example| example.choices == labels),
        format!("an example does not have the {labels} labels of the dataset as choices"),
    );
}

/// Both sides used the same tokens for masking. The windows are compared elsewhere.
pub(super) fn same_masking(baseline: &Measured, subject: &Measured, faults: &mut Vec<String>) {
    let without_draws =
        |measured: &Measured| measured.masked.clone().map(|masked| Masked { draws_before: None, ..masked });
    if without_draws(baseline) != without_draws(subject) {
        faults.push("data.masking of baseline and subject differ".to_owned());
    }
}

/// Masks the windows again.
fn masks(measured: &Measured, masked: &Masked) -> Result<()> {
    let special = &masked.special_token_ids;
    if !special.is_sorted_by(|one, other| one < other)
        || special.binary_search(&masked.mask_token_id).is_err()
    {
        bail!(Integrity, "special_token_ids are not in order, or lack the mask token");
    }
    let mut before = Vec::new();
    for (name, arm) in [("preview", &measured.preview), ("final", &measured.final_)] {
        for (index, ((ids, labels), real)) in rows(arm).enumerate() {
            before.push((name, index, original(ids, labels)?, (ids, labels), real as usize));
        }
    }
    let mut masker = Masker::new(masked, measured.tokenizer.vocab_size, measured.requested.seed)?;
    // One pass over the same windows looked for duplicates. Where it found some, it was repeated, and windows were left out.
    let pass = before.iter().map(|(.., tokens, _, real)| eligible(&tokens[..*real], special).len() as u64);
    let least = masker.draws() + pass.sum::<u64>();
    let draws = masked.draws_before.unwrap_or_default();
    let possible = if measured.selection.adjustments.is_empty() { draws == least } else { draws > least };
    if !possible {
        bail!(Integrity, "draws_before is {draws}, one pass over the windows draws {least}");
    }
    masker.skip_to(draws)?;
    for (name, index, mut tokens, (ids, labels), real) in before {
        let made = masker.mask(name, index, &mut tokens[..real])?;
        if tokens != *ids || labels.get(..real) != Some(&made) {
            bail!(Integrity, "{name} window {index} is masked otherwise");
        }
    }
    Ok(())
}

/// Tokens, labels and number of tokens of each window.
fn rows(arm: &Arm) -> impl Iterator<Item = ((&Vec<u32>, &Vec<i64>), u64)> {
    let labels = arm.labels.iter().flatten();
    arm.input_ids.iter().zip(labels).zip(arm.token_counts.iter().copied())
}
