//! `invarlock advanced calibrate`: many evaluations of a model that must pass, and the limits of the guards that follow.

mod null_sweep;
mod ve_sweep;

use crate::args::{AllowArgs, CalibrateCommand, CalibrationArgs};
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{REPORT, SUBJECT_REPORT, check_writable, write_output};
use crate::part::Part;
use crate::policy::{Needs, Policy};
use crate::signals::Signals;
use crate::sweep::{Lock, Run, Runs, Sweep, SweepPlan, Variant, shared_arguments, wrong_options};
use crate::ui::{self, Level, Ui};
use crate::verbs::evaluate;
use crate::verbs::row::Verb;
use crate::{inputs, preset};
use console::style;
use invarlock_evidence::calibration::SweepConfig;
use invarlock_evidence::calibration::tiers_patch::TiersPatch;
use invarlock_evidence::format::statistics::GuardStatistics;
use invarlock_evidence::json::parse_run_report;
use invarlock_evidence::measured::read_statistics;
use invarlock_evidence::policy::Tier;
use invarlock_evidence::run_report::RunReport;
use invarlock_evidence::sweep::Row;
use invarlock_evidence::verify::{REPORT_LIMIT, RUN_REPORT_LIMIT, read_evidence};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The row of a command.
pub fn of(command: &CalibrateCommand) -> Verb<'_> {
    match command {
        CalibrateCommand::NullSweep(args) => {
            Verb::new(|policy| null_sweep::run(args, policy)).json(args.runs.json).needs(needs(&args.runs))
        }
        CalibrateCommand::VeSweep(args) => {
            Verb::new(|policy| ve_sweep::run(args, policy)).json(args.runs.json).needs(needs(&args.runs))
        }
    }
}

/// What the verb needs of the policy. Its runs are processes of their own, which deny themselves the network.
fn needs(args: &CalibrationArgs) -> Needs {
    match shared_arguments(&shared_options(args)) {
        Ok(shared) => Needs { containers: 0, starts_programs: true, ..evaluate::needs(&shared) },
        // The error is reported when the verb runs.
        Err(_) => Needs::default(),
    }
}

/// Options of `evaluate` that all runs share.
fn shared_options(args: &CalibrationArgs) -> Vec<OsString> {
    let AllowArgs { allow_network, allow_host_execution } = args.allow;
    let mut options: Vec<OsString> =
        ["--profile", &args.profile, "--device", &args.device].map(OsString::from).into();
    options.extend(allow_network.then(|| "--allow-network".into()));
    options.extend(allow_host_execution.then(|| "--allow-host-execution".into()));
    options.extend(args.evaluate.iter().cloned());
    options
}

/// A calibration: what is asked for, checked.
struct Calibration<'a> {
    args: &'a CalibrationArgs,
    config: &'a Path,
    out: &'a Path,
    policy: &'a Policy,
    shared: Vec<OsString>,
    /// The tiers, sorted by name.
    tiers: Vec<Tier>,
}

/// The evidence of one run.
struct Evidence<'a> {
    run: &'a Run,
    /// The evaluation report.
    report: Value,
    /// The subject's run report.
    subject: RunReport,
}

impl Evidence<'_> {
    /// What the guards measured of the subject.
    fn statistics(&self) -> Result<GuardStatistics> {
        read_statistics(&self.subject)?
            .ok_or_else(|| Error::unsupported("its evaluator measures no statistics of weights"))
            .with_context(|| format!("run {}", self.run.evidence.display()))
            .hint("use an image of this version")
    }
}

impl<'a> Calibration<'a> {
    fn new(args: &'a CalibrationArgs, config: &'a Path, out: &'a Path, policy: &'a Policy) -> Result<Self> {
        let shared = shared_options(args);
        shared_arguments(&shared).map_err(|error| wrong_options(&error))?;
        Ok(Self { args, config, out, policy, shared, tiers: tiers(&args.tier)? })
    }

    /// Evaluates every subject for each seed and variant, and calls `read` with the evidence of each run. The variants are options of
    /// `evaluate`.
    fn measure<T>(
        &self,
        variants: Vec<Variant>,
        mut read: impl FnMut(&Evidence<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let ui = Ui::new(if self.args.quiet || self.args.json { Level::Quiet } else { Level::Normal });
        let signals = Signals::catch()?;
        if let Some(sentence) = self.policy.host_execution() {
            ui::on_stderr(&ui::host_execution_on_stderr(&sentence));
        }
        let plan = self.plan(variants)?;
        check_writable("--out", self.out)?;
        let runs = Runs::of(&plan, &self.shared, Part::ALL, self.out, self.policy, &ui, &signals)?;
        let sweep = Sweep {
            out: self.out,
            shared: &self.shared,
            jobs: self.args.jobs,
            policy: self.policy,
            runs: &runs,
            ui: &ui,
            signals: &signals,
        };
        let _lock = Lock::whole(self.out)?;
        let rows = sweep.measure()?;
        self.refuse_failures(&rows)?;
        runs.runs.iter().map(|run| read(&self.evidence(run)?)).collect()
    }

    /// The runs: the model as the baseline, and as the subject unless subjects are named.
    fn plan(&self, variants: Vec<Variant>) -> Result<SweepPlan> {
        let config = self.config;
        let model = preset::read(config)?.model.ok_or_else(|| {
            Error::input(format!("configuration {}: model.id is missing", config.display()))
                .with_hint("name the model to calibrate for: `model: {id: base/}`")
        })?;
        let model = inputs::here_or_beside(&model, config);
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut subjects: Vec<(String, PathBuf)> =
            self.args.subject.iter().map(|path| (name(path), path.clone())).collect();
        let mut names = BTreeSet::new();
        if let Some((twice, _)) = subjects.iter().find(|(name, _)| !names.insert(name.clone())) {
            return Err(Error::input(format!("--subject: two subjects are called {twice:?}")));
        }
        if subjects.is_empty() {
            subjects.push((name(&model), model.clone()));
        }
        let plan = SweepPlan {
            baseline: model,
            subjects,
            presets: vec![(name(config), config.to_owned())],
            seeds: self.seeds()?.into_iter().map(Some).collect(),
            variants,
        };
        plan.check()?;
        Ok(plan)
    }

    fn seeds(&self) -> Result<Vec<u64>> {
        let CalibrationArgs { seed, n_seeds, seed_start, .. } = self.args;
        if !seed.is_empty() {
            let mut seen = BTreeSet::new();
            return match seed.iter().find(|seed| !seen.insert(**seed)) {
                Some(twice) => Err(Error::input(format!("--seed {twice} occurs twice"))),
                None => Ok(seed.clone()),
            };
        }
        let end = seed_start.checked_add(*n_seeds);
        let end = end.ok_or_else(|| Error::input(format!("--seed-start {seed_start} is too large")))?;
        Ok((*seed_start..end).collect())
    }

    /// Runs that failed are an error, which names the first.
    fn refuse_failures(&self, rows: &[Row]) -> Result<()> {
        let mut failed = rows.iter().filter(|row| row.result.is_none());
        let Some(first) = failed.next() else { return Ok(()) };
        let why = first.error.as_deref().unwrap_or("it was not started");
        let message = format!(
            "{} of {} runs failed, so no limits are recommended; the first, {} with seed {}: {why}",
            1 + failed.count(),
            rows.len(),
            first.subject,
            first.seed.unwrap_or_default()
        );
        Err(Error::system(ui::printable(&message)))
            .hint("remove the cause (where a seed drew it: other seeds with --seed, or more windows) and repeat the command: it measures only the runs that are missing")
    }

    fn evidence<'r>(&self, run: &'r Run) -> Result<Evidence<'r>> {
        let directory = self.out.join(&run.evidence);
        let read = |name: &str, limit| {
            let path = directory.join(name);
            read_evidence(&path, limit).map_err(|e| Error::input(format!("reading {}: {e}", path.display())))
        };
        let report = serde_json::from_slice(&read(REPORT, REPORT_LIMIT)?)
            .map_err(|e| Error::input(e.to_string()))
            .with_context(|| format!("reading {}", directory.join(REPORT).display()))?;
        let subject = read(SUBJECT_REPORT, RUN_REPORT_LIMIT)?;
        let subject = parse_run_report("the subject's run report", &subject)
            .map_err(|e| Error::input(e.to_string()))?;
        Ok(Evidence { run, report, subject })
    }

    /// What the report states of the request.
    fn config_of_report(&self, n_runs: usize, windows: Option<Vec<u64>>) -> SweepConfig {
        SweepConfig {
            base_config: self.config.to_string_lossy().into_owned(),
            profile: self.args.profile.clone(),
            tiers: self.tiers.iter().map(ToString::to_string).collect(),
            windows,
            n_runs,
        }
    }

    /// Writes the files, and the limits to the file `patch`, and prints the report: as JSON, or with `print`.
    fn finish<R: Serialize>(
        &self,
        report: &R,
        (patch, limits): (&str, &TiersPatch),
        files: Vec<(&str, Vec<u8>)>,
        print: impl FnOnce(&R),
    ) -> Result<u8> {
        let write = |name: &str, bytes: &[u8]| write_output(&self.out.join(name), bytes, true);
        files.iter().try_for_each(|(name, bytes)| write(name, bytes))?;
        write(patch, &yaml(limits)?)?;
        if self.args.json {
            ui::json(report)?;
        } else {
            print(report);
            let path = self.out.join(patch);
            ui::out(&format!("limits    {}", style(ui::printable(&path.to_string_lossy())).bold()));
        }
        Ok(0)
    }

    /// The name of the subject in tables; none for the model itself.
    fn subject<'r>(&self, run: &'r Run) -> Option<&'r str> {
        (!self.args.subject.is_empty()).then_some(run.subject.as_str())
    }
}

/// The tiers, sorted by name; all if none is named.
fn tiers(names: &[String]) -> Result<Vec<Tier>> {
    let named = |name: &String| {
        let tier = name.trim().to_lowercase().parse().map_err(|e| Error::input(format!("--tier: {e}")));
        tier.hint("use --tier conservative, --tier balanced or --tier aggressive")
    };
    let mut tiers: Vec<Tier> = names.iter().map(named).collect::<Result<_>>()?;
    if tiers.is_empty() {
        tiers = Tier::ALL.to_vec();
    }
    tiers.sort_by_key(|tier| tier.as_str());
    tiers.dedup();
    Ok(tiers)
}

/// The time in UTC, as reports state it.
fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Limits as YAML.
fn yaml(limits: &TiersPatch) -> Result<Vec<u8>> {
    let text = serde_norway::to_string(limits).map_err(|e| Error::system(e.to_string()));
    text.context("writing the limits as YAML").map(String::into_bytes)
}
