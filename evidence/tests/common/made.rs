//! Evidence as `evaluate` writes it: made from the facts of a real run and from losses that a test chooses.

use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::evaluation::{BASELINE_REPORT, Facts, REPORT, SUBJECT_REPORT};
use invarlock_evidence::format::choices::Choices;
use invarlock_evidence::format::dataset::{Answers, Provider};
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::format::masking::{Masked, Masking};
use invarlock_evidence::format::metrics::{self, MetricKind};
use invarlock_evidence::format::plan::PlannedSide;
use invarlock_evidence::format::run_report::RunReport;
use invarlock_evidence::format::runtime_manifest::RuntimeManifest;
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest::{self, FILE_NAME};
use invarlock_evidence::masking::{Masker, eligible};
use invarlock_evidence::measured::{Arm, Measured};
use invarlock_evidence::numerics::NOT_PREDICTED;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use std::path::{Path, PathBuf};

/// Tokens a window.
const SEQ_LEN: usize = 160;

/// The directory of the evidence of a real run by `root` or by an ordinary `user`.
pub fn honest(user: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/honest").join(user)
}

/// The evidence of one evaluation.
#[derive(Clone)]
pub struct Made {
    pub facts: Facts,
    pub baseline: RunReport,
    pub subject: RunReport,
}

impl Made {
    /// The evidence of `n + n` windows with losses around 3, those of the subject about `shift` above those of the baseline.
    pub fn new(n: usize, shift: f64, profile: Profile, tier: Tier) -> Self {
        Self::with(n, profile, tier, &|role, id| {
            let wave = (id % n as u64) as f64;
            let shift = if role == Role::Subject { shift } else { 0.0 };
            3.0 + 0.3 * (wave * 0.7).sin() + shift * (1.0 + 0.5 * (wave * 1.3).cos())
        })
    }

    /// The same with other losses, by role and id of the window. Even ids below `n` are those of the preview arm.
    pub fn with(n: usize, profile: Profile, tier: Tier, loss: &dyn Fn(Role, u64) -> f64) -> Self {
        let folder = honest("root");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let manifest: RuntimeManifest = serde_json::from_slice(&read(FILE_NAME)).unwrap();
        let mut facts = Facts::read(&manifest).unwrap();
        facts.plan.profile = profile.as_str().to_owned();
        facts.plan.tier = tier.as_str().to_owned();
        let dataset = &mut facts.plan.dataset;
        (dataset.seq_len, dataset.stride, dataset.preview_n, dataset.final_n) = (SEQ_LEN, SEQ_LEN, n, n);
        let measure = |role: Role, name: &str| {
            let mut measured = Measured::read(&serde_json::from_slice(&read(name)).unwrap()).unwrap();
            let requested = &mut measured.requested;
            (requested.profile, requested.tier) = (profile.as_str().to_owned(), tier.as_str().to_owned());
            (requested.seq_len, requested.stride) = (SEQ_LEN, SEQ_LEN);
            (requested.preview_n, requested.final_n) = (n, n);
            measured.preview = arm(0, n, &|id| loss(role, id));
            measured.final_ = arm(n, n, &|id| loss(role, id));
            measured.report().unwrap()
        };
        let baseline = measure(Role::Baseline, BASELINE_REPORT);
        let subject = measure(Role::Subject, SUBJECT_REPORT);
        let mut made = Self { facts, baseline, subject };
        made.seal();
        made
    }

    /// The real run of `user`, as if its models were masked language models.
    pub fn masked(user: &str) -> Self {
        let folder = honest(user);
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let manifest: RuntimeManifest = serde_json::from_slice(&read(FILE_NAME)).unwrap();
        let facts = Facts::read(&manifest).unwrap();
        let measure = |name: &str| {
            let mut measured = Measured::read(&serde_json::from_slice(&read(name)).unwrap()).unwrap();
            mask(&mut measured);
            measured.report().unwrap()
        };
        let (baseline, subject) = (measure(BASELINE_REPORT), measure(SUBJECT_REPORT));
        let mut made = Self { facts, baseline, subject };
        made.seal();
        made
    }

    /// The evidence of an accuracy on `n + n` examples of two choices. `right` says what a side answers right, by the number of the example;
    /// those below `n` are in the preview arm.
    pub fn choices(n: usize, profile: Profile, tier: Tier, right: &dyn Fn(Role, u64) -> bool) -> Self {
        let mut made = Self::with(2 * n, profile, tier, &|role, id| match (id % 2, right(role, id / 2)) {
            (0, true) => 1.0,
            (0, false) => 2.0,
            _ => 1.5,
        });
        let dataset = &mut made.facts.plan.dataset;
        (dataset.preview_n, dataset.final_n) = (n, n);
        (dataset.provider, dataset.metric) = (Provider::LocalJsonlChoices, Some(MetricKind::Accuracy));
        let (choices_field, answer_field) = ("choices".to_owned(), "answer".to_owned());
        dataset.answers = Some(Answers::Choices { choices_field, answer_field });
        for report in [&mut made.baseline, &mut made.subject] {
            let mut measured = Measured::read(report).unwrap();
            measured.metric = metrics::of(MetricKind::Accuracy);
            measured.requested.provider = Provider::LocalJsonlChoices;
            (measured.requested.preview_n, measured.requested.final_n) = (n, n);
            for arm in [&mut measured.preview, &mut measured.final_] {
                let rows = arm.input_ids.iter().zip(&arm.token_counts);
                arm.labels = Some(rows.map(|(row, real)| last_two(row, *real as usize)).collect());
                arm.examples = Some(vec![Choices { choices: 2, answer: 0 }; n]);
            }
            *report = measured.report().unwrap();
        }
        made.seal();
        made
    }

    /// Computes again what depends on the run reports.
    pub fn seal(&mut self) {
        let windows = serde_json::to_vec(&self.baseline.windows()).unwrap().len() as u64;
        for (role, report) in [(Role::Baseline, &self.baseline), (Role::Subject, &self.subject)] {
            let bytes = to_bytes(report);
            let job = serde_json::to_vec(&self.facts.job(role, &report.meta.model_id)).unwrap().len() as u64;
            let side = self.facts.sides.get_mut(role.name()).unwrap();
            for output in side.outputs.iter_mut().filter(|file| file.name == "report.json") {
                (output.sha256, output.bytes) = (sha256_hex(&bytes), bytes.len() as u64);
            }
            let size = |target: &str| match target {
                "/in/job.json" => Some(job),
                "/in/windows.json" => Some(windows),
                _ => None,
            };
            let observed = side.observations.contained.as_mut().unwrap();
            for input in &mut observed.inputs.value {
                input.bytes = size(&input.target).unwrap_or(input.bytes);
            }
            if let Some(PlannedSide::Container(planned)) = self.facts.plan.sides.get_mut(role.name()) {
                for mount in planned.mounts.iter_mut().filter(|mount| mount.target == "/in/job.json") {
                    mount.bytes = Some(job);
                }
            }
        }
    }

    /// The evaluation report.
    pub fn report(&self) -> EvaluationReport {
        self.facts.compare(&self.baseline, &self.subject).unwrap()
    }

    /// Writes all files into `folder`; gives the path of the report.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let report = to_bytes(&self.report());
        let manifest = manifest::to_bytes(&self.facts.manifest(&sha256_hex(&report)));
        for (name, bytes) in [
            (REPORT, report),
            (FILE_NAME, manifest),
            (BASELINE_REPORT, to_bytes(&self.baseline)),
            (SUBJECT_REPORT, to_bytes(&self.subject)),
        ] {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        folder.join(REPORT)
    }
}

/// Masks the windows of a measurement, as the evaluator does. Their tokens are replaced before, so that no two masked windows are equal.
fn mask(measured: &mut Measured) {
    for arm in [&mut measured.preview, &mut measured.final_] {
        for (id, row) in arm.window_ids.iter().zip(&mut arm.input_ids) {
            (1..).zip(&mut row[1..]).for_each(|(j, token)| *token = 10 + (*id as u32 * 97 + j * 13) % 1000);
        }
    }
    let settings = Masking::default();
    let masked = Masked { settings, mask_token_id: 1, special_token_ids: vec![0, 1, 2], draws_before: None };
    let mut masker = Masker::new(&masked, measured.tokenizer.vocab_size, measured.requested.seed).unwrap();
    let arms = [&measured.preview, &measured.final_];
    let rows = arms.into_iter().flat_map(|arm| arm.input_ids.iter().zip(&arm.token_counts));
    let draws: usize =
        rows.map(|(row, real)| eligible(&row[..*real as usize], &masked.special_token_ids).len()).sum();
    let draws = masker.draws() + draws as u64;
    masker.skip_to(draws).unwrap();
    for (name, arm) in [("preview", &mut measured.preview), ("final", &mut measured.final_)] {
        let mut labels = Vec::new();
        for (index, (row, real)) in arm.input_ids.iter_mut().zip(&arm.token_counts).enumerate() {
            let mut own = masker.mask(name, index, &mut row[..*real as usize]).unwrap();
            own.resize(row.len(), NOT_PREDICTED);
            labels.push(own);
        }
        arm.labels = Some(labels);
    }
    measured.metric = metrics::of(MetricKind::PplMlm);
    let replayed = measured.requested.role == Role::Subject;
    measured.masked = Some(Masked { draws_before: (!replayed).then_some(draws), ..masked });
    measured.predicted_texts = None;
}

fn arm(first: usize, n: usize, loss: &dyn Fn(u64) -> f64) -> Arm {
    let ids: Vec<u64> = (first as u64..(first + n) as u64).collect();
    // Below the vocabulary of the demo's model.
    let row = |id: u64| (0..SEQ_LEN as u64).map(|j| ((id * 31 + j * 7 + id * j) % 1021) as u32).collect();
    let real = |id: u64| if id.is_multiple_of(5) { SEQ_LEN as u64 - 10 } else { SEQ_LEN as u64 };
    Arm {
        input_ids: ids.iter().map(|id| row(*id)).collect(),
        token_counts: ids.iter().map(|id| real(*id)).collect(),
        losses: ids.iter().map(|id| loss(*id)).collect(),
        labels: None,
        examples: None,
        window_ids: ids,
    }
}

/// Labels of the last two of the tokens of a row.
fn last_two(row: &[u32], real: usize) -> Vec<i64> {
    let label =
        |(j, id): (usize, &u32)| if (real - 2..real).contains(&j) { i64::from(*id) } else { NOT_PREDICTED };
    row.iter().enumerate().map(label).collect()
}
