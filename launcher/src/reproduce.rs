//! `verify --reproduce`: measures randomly chosen windows again, in containers of this machine, and compares the losses.
//!
//! The windows are made again from the verifier's dataset and tokenizer. Then each checkpoint is measured on the chosen ones.

use crate::adapter::Adapters;
use crate::args::VerifyArgs;
use crate::check_sides::Check;
use crate::error::{Context as _, Error, Kind, Result};
use crate::evaluator_run::EvaluatorRun;
use crate::hub::{self, Model};
use crate::measure_side::run_report_of;
use crate::plan::{self, DataSource, DatasetChanges, Opened, Request};
use crate::policy::Policy;
use crate::preset::Dataset;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::{image, limits, metric_choice};
use invarlock_evidence::format::choices::Choices;
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::plan as format;
use invarlock_evidence::job::{Role, Task};
use invarlock_evidence::measured::Measured;
use invarlock_evidence::policy::Profile;
use invarlock_evidence::run_report::{BaselineWindows, ReplayArm, WindowsTokenizer};
use invarlock_evidence::verify::reproduce::{self, Amount, Reproduction, Verified};
use invarlock_evidence::verify::{Verdict, consistent_run_report};
use invarlock_images::Digest;
use std::path::{Path, PathBuf};

/// What an interrupted reproduction leaves.
const KEPT: &str = "nothing was written";

/// The verifier's own inputs.
pub struct Inputs {
    baseline: PathBuf,
    subject: PathBuf,
    dataset: PathBuf,
}

impl Inputs {
    /// The directories and the file that the options name.
    pub fn of(args: &VerifyArgs) -> Result<Self> {
        const HINT: &str =
            "pass --baseline-checkpoint DIR, --subject DIR and --dataset FILE: they are measured again";
        let path = |flag: &str, value: &Option<String>| match value {
            Some(text) if !text.starts_with("sha256:") => Ok(PathBuf::from(text)),
            Some(_) => {
                Err(Error::input(format!("--reproduce: --{flag} has a digest, but the files are needed")))
            }
            None => Err(Error::input(format!("--reproduce: --{flag} is missing"))),
        };
        let model = |flag: &str, value: &Option<String>| {
            let path = path(flag, value).hint(HINT)?;
            Ok::<_, Error>(hub::model(&format!("--{flag}"), &path)?.dir)
        };
        Ok(Self {
            baseline: model("baseline-checkpoint", &args.baseline_checkpoint)?,
            subject: model("subject", &args.subject)?,
            dataset: path("dataset", &args.dataset).hint(HINT)?,
        })
    }
}

/// One reproduction.
pub struct Run<'a> {
    /// The verifier's inputs.
    pub inputs: &'a Inputs,
    /// How many windows.
    pub amount: Amount,
    /// The policy of the command.
    pub policy: &'a Policy,
    /// For progress.
    pub ui: &'a Ui,
    /// Signals of the user.
    pub signals: &'a Signals,
}

impl Run<'_> {
    /// Measures again what an accepted verdict is about, and changes the verdict accordingly.
    pub fn reproduce(&self, verdict: &mut Verdict) -> Result<()> {
        let (Some(evidence), Some(judged)) = (verdict.verified.take(), verdict.judged) else {
            return Err(Error::input("--reproduce: evidence of other makers cannot be measured again"));
        };
        let mut reproduction = Reproduction::plan(&evidence, judged.tier, self.amount);
        let differences = self.measure(&evidence, &mut reproduction)?;
        verdict.reproduced(reproduction, differences);
        Ok(())
    }

    fn measure(&self, evidence: &Verified, reproduction: &mut Reproduction) -> Result<Vec<String>> {
        let recorded = &evidence.facts.plan;
        let counts = (recorded.dataset.preview_n, recorded.dataset.final_n);
        let profile = recorded.profile.parse().map_err(|why| Error::integrity(format!("{why}")))?;
        let baseline = |dtype| {
            let checkpoints = (&*self.inputs.baseline, &*self.inputs.subject);
            let opened = self.open(evidence, checkpoints, dtype, profile, counts)?;
            let check = Check { opened: &opened, policy: self.policy, keep_logs: false };
            Ok::<_, Error>(check.side(Role::Baseline, None, self.ui, self.signals)?.windows)
        };
        let mut dtype = recorded.compute_dtype.unwrap_or_default();
        let windows = baseline(dtype).or_else(|error| match error.kind() {
            // Another machine need not have the unit that this type of numbers needs.
            Kind::Unsupported if dtype != ComputeDtype::Float32 => {
                self.ui.warn(&format!("{error}; the losses are measured in float32 instead"));
                dtype = ComputeDtype::Float32;
                baseline(dtype)
            }
            _ => Err(error),
        })?;
        let mut differences = other_windows(&evidence.baseline, &windows);
        if !differences.is_empty() {
            return Ok(differences);
        }
        let chosen = chosen(&windows, reproduction)?;
        reproduction.bit_equal = true;
        for (role, path, recorded) in [
            (Role::Baseline, &self.inputs.baseline, &evidence.baseline),
            (Role::Subject, &self.inputs.subject, &evidence.subject),
        ] {
            let again = self.losses(evidence, (role, path), dtype, &chosen)?;
            let same_kernel = reproduce::same_kernel(recorded, &again);
            if let (false, Some(inputs)) = (same_kernel, &again.facts.quantised_inputs) {
                return Err(other_kernel(role, inputs, recorded, &again));
            }
            reproduction.bit_equal &= same_kernel;
            differences.extend(reproduce::differences(role.name(), recorded, &again));
        }
        Ok(differences)
    }

    /// Measures the chosen windows on a checkpoint, as a subject: the windows are given.
    fn losses(
        &self,
        evidence: &Verified,
        (role, checkpoint): (Role, &Path),
        dtype: ComputeDtype,
        chosen: &BaselineWindows,
    ) -> Result<Measured> {
        let [preview, final_] = chosen.examples().unwrap_or_else(|| chosen.counts());
        let counts = (preview, final_);
        // Fewer windows than another profile requires.
        let opened = self.open(evidence, (&self.inputs.baseline, checkpoint), dtype, Profile::Dev, counts)?;
        let (policy, windows) = (self.policy, Some(chosen));
        let run = EvaluatorRun {
            opened: &opened,
            policy,
            role: Role::Subject,
            task: Task::Measure,
            windows,
            journal: None,
        };
        let name = match role {
            Role::Baseline => "baseline again",
            Role::Subject => "subject again",
        };
        let mut sink = Progress::new(self.ui, name);
        let outcome = run.run(&mut sink, self.signals, KEPT)?;
        limits::notices(&limits::reached(&outcome)).for_each(|line| self.ui.warn(&format!("{name}: {line}")));
        let read = || {
            let (report, _) = run_report_of(&outcome, opened.dataset.tokens())?;
            let measured = consistent_run_report("report.json", &report, 0.0)?;
            match answers(&measured, chosen) {
                true => Ok(measured),
                false => Err(Error::integrity("report.json: not about the chosen windows")),
            }
        };
        read()
            .map_err(|error: Error| error.with_kind(Kind::Integrity))
            .with_context(|| format!("reading what the {} container measured again", role.name()))
    }

    /// Opens two checkpoints and the dataset with the settings of the evidence.
    fn open(
        &self,
        evidence: &Verified,
        (baseline, subject): (&Path, &Path),
        dtype: ComputeDtype,
        profile: Profile,
        (preview_n, final_n): (usize, usize),
    ) -> Result<Opened> {
        let recorded = &evidence.facts.plan;
        let settings = &recorded.dataset;
        let dataset = Dataset {
            files: vec![self.inputs.dataset.clone()],
            provider: settings.provider,
            packing: settings.packing,
            text_field: settings.text_field.clone(),
            target_field: settings.target_field.clone(),
            answers: settings.answers.clone(),
            metric: settings.metric,
            masking: settings.masking,
            max_samples: settings.max_samples,
            split: settings.split.clone(),
            seq_len: settings.seq_len,
            stride: settings.stride,
            preview_n,
            final_n,
            seed: settings.seed,
        };
        let request = Request {
            baseline: Model::directory(baseline),
            subject: Model::directory(subject),
            data: DataSource::File(self.inputs.dataset.clone()),
            metric: metric_choice::Choice::default(),
            dtype,
            weight_only: recorded.weight_only || recorded.image.is_none() && leaves_out(evidence),
            changes: DatasetChanges::default(),
            profile,
            tier: evidence.facts.policy()?.1,
            // Losses are measured, and no limit is applied.
            tiers: None,
            guards: recorded.guards,
            out: PathBuf::new(),
            report_out: PathBuf::new(),
            baseline_report: None,
            edit_label: None,
            adapters: Adapters::default(),
            lock: None,
            image: choice(recorded.image.as_ref())?,
            seccomp: None,
            limits: limits::Requested::default(),
        };
        plan::assemble(request, dataset, self.policy, self.ui)
    }
}

/// The image of the evidence. A measurement on the host is repeated in the default image.
fn choice(recorded: Option<&format::Image>) -> Result<image::Choice> {
    let Some(recorded) = recorded else { return Ok(image::Choice::default()) };
    let default = recorded.reference.starts_with(image::DEFAULT_IMAGE);
    Ok(image::Choice {
        reference: (!default).then(|| recorded.reference.clone()),
        digest: Some(Digest::parse(&recorded.manifest_digest)?),
        ..image::Choice::default()
    })
}

/// Why the windows of the evidence are not those that the verifier's dataset and tokenizer give.
fn other_windows(recorded: &Measured, again: &BaselineWindows) -> Vec<String> {
    let arms = [("preview", &recorded.preview, &again.preview), ("final", &recorded.final_, &again.final_)];
    let differs = arms.into_iter().filter(|(_, recorded, again)| !reproduce::same_windows(recorded, again));
    differs
        .map(|(name, ..)| format!("the {name} windows of the evidence are not those that the dataset gives"))
        .collect()
}

/// Windows of both arms, chosen by the randomness of this machine.
fn chosen(windows: &BaselineWindows, reproduction: &Reproduction) -> Result<BaselineWindows> {
    let arm = |arm: &ReplayArm| {
        let units = arm.examples.as_ref().map_or(arm.window_ids.len(), Vec::len);
        let chosen = reproduce::choose(units, reproduction.measured, &mut below)?;
        let positions = match &arm.examples {
            Some(examples) => windows_of(examples, &chosen),
            None => chosen.clone(),
        };
        Ok::<_, Error>(ReplayArm {
            examples: arm.examples.as_ref().map(|examples| rows(&chosen, examples)),
            window_ids: rows(&positions, &arm.window_ids),
            input_ids: rows(&positions, &arm.input_ids),
            attention_masks: rows(&positions, &arm.attention_masks),
            labels: arm.labels.as_ref().map(|labels| rows(&positions, labels)),
        })
    };
    let mut chosen = BaselineWindows {
        tokenizer_hash: windows.tokenizer_hash.clone(),
        objective: windows.objective,
        tokenizer: None,
        preview: arm(&windows.preview)?,
        final_: arm(&windows.final_)?,
    };
    chosen.tokenizer = windows.tokenizer.as_ref().map(|known| {
        let used = chosen.used_ids();
        let tokens = windows.used_ids().into_iter().zip(&known.used_tokens);
        let tokens = tokens.filter(|(id, _)| used.binary_search(id).is_ok());
        WindowsTokenizer { used_tokens: tokens.map(|(_, token)| token.clone()).collect(), ..known.clone() }
    });
    Ok(chosen)
}

/// The positions of all windows of the chosen examples.
fn windows_of(examples: &[Choices], chosen: &[usize]) -> Vec<usize> {
    let mut first = 0;
    let starts: Vec<usize> = examples
        .iter()
        .map(|example| {
            first += example.choices;
            first - example.choices
        })
        .collect();
    chosen.iter().flat_map(|place| starts[*place]..starts[*place] + examples[*place].choices).collect()
}

/// The values at these positions.
fn rows<T: Clone>(positions: &[usize], values: &[T]) -> Vec<T> {
    positions.iter().map(|place| values[*place].clone()).collect()
}

/// Whether a measurement is about exactly these windows.
fn answers(measured: &Measured, chosen: &BaselineWindows) -> bool {
    let arms = [(&measured.preview, &chosen.preview), (&measured.final_, &chosen.final_)];
    arms.into_iter().all(|(arm, chosen)| reproduce::same_windows(arm, chosen))
}

/// A uniform random number below `n`, which is above 0.
fn below(n: usize) -> Result<usize> {
    let n = n as u64;
    // The largest multiple of `n`: numbers from it on would prefer small remainders.
    let end = u64::MAX - u64::MAX % n;
    loop {
        let random = getrandom::u64().map_err(|why| Error::system(format!("reading random bytes: {why}")))?;
        if random < end {
            return Ok((random % n) as usize);
        }
    }
}

/// Whether inputs were not quantised as a configuration asks. Older evaluators did so without being asked; where an image is recorded, theirs
/// measures again.
fn leaves_out(evidence: &Verified) -> bool {
    [&evidence.baseline, &evidence.subject].iter().any(|side| side.facts.omitted_activations.is_some())
}

/// Rounding makes a step of a quantised input out of a difference in the last bit, and nothing bounds how far losses then differ.
fn other_kernel(role: Role, inputs: &str, recorded: &Measured, again: &Measured) -> Error {
    let kernel = |of: &Measured| format!("{} of evaluator {}", of.evaluator.kernel, of.evaluator.version);
    Error::unsupported(format!(
        "the {} has {inputs}: its losses can be compared on the same matrix kernel only; they were measured with {}, and here with {}",
        role.name(),
        kernel(recorded),
        kernel(again)
    ))
    .with_hint("measure again on a processor of the same kind, or compare evidence that was made with --weight-only")
}
