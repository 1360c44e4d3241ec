//! Each run report against itself, against the plan that it answers, and against the other one.

use super::windows;
use crate::evaluation::{Facts, JOURNAL};
use crate::format::dataset::Packing;
use crate::format::json_length;
use crate::format::run_report::RunReport;
use crate::format::runtime_manifest::{Resumed, Side};
use crate::format::subject_tokenizer::SubjectTokenizer;
use crate::job::{Job, Role};
use crate::measured::{Measured, Requested};
use crate::verify::about;
use crate::verify::differences::differences;
use invarlock_error::Result;
use serde_json::json;

/// The values of both run reports.
pub(super) struct MeasuredSides {
    pub(super) baseline: Measured,
    pub(super) subject: Measured,
}

impl MeasuredSides {
    /// What each side resumed.
    pub(super) fn resumed(&self) -> Vec<about::Resumed> {
        let sides = [(Role::Baseline, &self.baseline), (Role::Subject, &self.subject)];
        sides.into_iter().filter_map(|(role, measured)| about::Resumed::of(role, measured)).collect()
    }
}

/// Checks the values of both, and the size of the windows of the baseline; contradictions are added to `faults`.
///
/// # Errors
/// The facts lack a side.
pub(super) fn check(
    facts: &Facts,
    windows: &RunReport,
    [baseline, subject]: [Measured; 2],
    faults: &mut Vec<String>,
) -> Result<MeasuredSides> {
    let sides = MeasuredSides { baseline, subject };
    for (role, measured) in [(Role::Baseline, &sides.baseline), (Role::Subject, &sides.subject)] {
        let side = facts.side(role)?;
        answers_the_plan(facts, role, side, measured, faults);
        plausible(facts, role, measured, faults);
        windows::measures_the_plan(facts, role, measured, faults);
        resumed(role, side, measured, faults);
    }
    windows::same_masking(&sides.baseline, &sides.subject, faults);
    same_tokenizer(&sides, faults);
    inputs(facts, &sides, windows, faults);
    Ok(sides)
}

/// The sizes of the job and the windows that each container had.
fn inputs(facts: &Facts, sides: &MeasuredSides, baseline: &RunReport, faults: &mut Vec<String>) {
    let windows = baseline.windows_length();
    for (role, measured) in [(Role::Baseline, &sides.baseline), (Role::Subject, &sides.subject)] {
        let Ok(side) = facts.side(role) else { continue };
        let Some(contained) = &side.observations.contained else { continue };
        let journal = side.resumed.as_ref().map(|_| JOURNAL.to_owned());
        let job = json_length(&Job { journal, ..facts.job(role, &measured.requested.model_id) });
        let has_journal = contained.inputs.value.iter().any(|input| input.target == JOURNAL);
        if has_journal != side.resumed.is_some() {
            faults.push(format!("{JOURNAL} of the {} container contradicts what it resumed", role.name()));
        }
        for input in &contained.inputs.value {
            let expected = match input.target.as_str() {
                "/in/job.json" => job,
                "/in/windows.json" => windows,
                JOURNAL => side.resumed.as_ref().map_or(0, |resumed| resumed.bytes),
                _ => continue,
            };
            if input.bytes != expected {
                let (name, target, bytes) = (role.name(), &input.target, input.bytes);
                faults.push(format!(
                    "the {name} container had {target} with {bytes} bytes, expected {expected}"
                ));
            }
        }
    }
}

/// The journal that a run resumed has the losses of its report.
fn resumed(role: Role, side: &Side, measured: &Measured, faults: &mut Vec<String>) {
    let derived = measured.journal().as_ref().map(Resumed::of);
    if side.resumed != derived || (derived.is_none() && measured.resumed != [0; 2]) {
        let name = role.name();
        faults.push(format!(
            "context.sides.{name}.resumed is not the journal that the resumed windows of the {name} report give"
        ));
    }
}

/// The request in the report is the one of the plan.
fn answers_the_plan(facts: &Facts, role: Role, side: &Side, measured: &Measured, faults: &mut Vec<String>) {
    let (plan, dataset) = (&facts.plan, &facts.plan.dataset);
    let model = match role {
        Role::Baseline => &plan.request.baseline,
        Role::Subject => &plan.request.subject,
    };
    let planned = Requested {
        role,
        // A reused baseline was measured under the name that its user gave it then.
        model_id: if side.reused { measured.requested.model_id.clone() } else { model.clone() },
        profile: plan.profile.clone(),
        tier: plan.tier.clone(),
        seq_len: dataset.seq_len,
        stride: dataset.stride,
        preview_n: dataset.preview_n,
        final_n: dataset.final_n,
        provider: dataset.provider,
        split: dataset.split.clone(),
        seed: dataset.seed,
        guards: plan.guards,
    };
    if measured.requested != planned {
        let show = |requested: &Requested| {
            json!({"role": requested.role.name(), "model_id": requested.model_id, "profile": requested.profile,
                "tier": requested.tier, "seq_len": requested.seq_len, "stride": requested.stride,
                "preview_n": requested.preview_n, "final_n": requested.final_n, "split": requested.split, "provider": requested.provider.name(),
                "seed": requested.seed, "guards": requested.guards})
        };
        let name = format!("{} report: request", role.name());
        faults.extend(differences(&name, &show(&measured.requested), &show(&planned), 0.0));
    }
}

/// Values that appear once: they must be possible.
fn plausible(facts: &Facts, role: Role, measured: &Measured, faults: &mut Vec<String>) {
    let mut require = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{} report: {what}", role.name()));
        }
    };
    let embedded = measured.checks.embedding_vocab_sizes.values().max().copied().unwrap_or_default();
    let mut ids =
        [&measured.preview, &measured.final_].into_iter().flat_map(|arm| arm.input_ids.iter().flatten());
    require(ids.all(|id| u64::from(*id) < embedded), "a token id is not below the number of embedded tokens");
    let own_tokens = match &measured.facts.tokenizer {
        Some(SubjectTokenizer::Missing) => 0,
        Some(SubjectTokenizer::Other { vocab_size, .. }) => *vocab_size,
        None => measured.tokenizer.vocab_size,
    };
    require(own_tokens <= embedded, "the tokenizer has more tokens than the checkpoint embeds");
    let (packing, planned) = (measured.selection.packing, facts.plan.dataset.packing);
    require(
        role == Role::Subject || packing == planned,
        "the windows are packed in another way than planned",
    );
    require(role == Role::Baseline || packing == Packing::default(), "a subject packs no windows");
    let rows = measured.selection.blank_rows + measured.selection.short_rows;
    require(rows <= facts.plan.dataset.max_samples, "more rows were skipped than could be read");
    require(measured.checks.non_finite.is_empty(), "a tensor contains a NaN or an infinity");
    require(measured.checks.parameter_count > 0, "the model has no parameters");
    let largest = measured.facts.largest_activation;
    require(largest.is_none_or(|largest| largest >= 0.0), "the largest magnitude of activations is negative");
    require(
        largest.is_none() || measured.resumed == [0; 2],
        "the largest magnitude of activations of windows that an interrupted run measured is not known",
    );
    let planned = facts.plan.compute_dtype.unwrap_or_default().name();
    require(
        measured.facts.compute_dtype == planned,
        "the losses were not computed in the type of numbers of the plan",
    );
    require(
        // Older versions left them out without being asked.
        !facts.plan.weight_only || measured.facts.quantised_inputs.is_none(),
        "the inputs of layers were not measured as planned",
    );
    require(
        measured.facts.unused_tensors >= measured.facts.unused_tensor_names.len(),
        "more unused tensors are named than counted",
    );
    let cpus = facts.machine.cpus.max(1);
    require((1..=cpus.max(4096)).contains(&measured.evaluator.threads), "no such number of threads");
    require(measured.memory_mb_peak.is_none_or(|peak| peak > 0.0 && peak < 1e9), "no such amount of memory");
}

/// The subject is measured on windows of the baseline's tokenizer.
fn same_tokenizer(sides: &MeasuredSides, faults: &mut Vec<String>) {
    let (one, other) = (&sides.baseline.tokenizer, &sides.subject.tokenizer);
    if (&one.hash, one.vocab_size, &one.mapping_sha256)
        != (&other.hash, other.vocab_size, &other.mapping_sha256)
    {
        faults.push("the tokenizers of baseline and subject differ".to_owned());
    }
}
