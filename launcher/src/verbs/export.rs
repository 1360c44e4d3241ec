//! `invarlock export`: a sweep for a batch system, printed.

use crate::args::{BatchArgs, ExportCommand, ExportKubernetesArgs, ExportSlurmArgs};
use crate::error::Result;
use crate::part::Part;
use crate::policy::{Needs, Policy};
use crate::signals::Signals;
use crate::sweep::{Kubernetes, Runs, Slurm, Sweep, SweepPlan, shared_arguments, wrong_options};
use crate::ui::{self, Level, Ui};
use crate::verbs::evaluate;
use crate::verbs::row::Verb;
use std::ffi::OsString;

/// The row of a command.
pub fn of(command: &ExportCommand) -> Verb<'_> {
    match command {
        ExportCommand::Slurm(args) => {
            Verb::new(|policy| slurm(args, policy)).needs(needs(&args.batch.evaluate))
        }
        ExportCommand::Kubernetes(args) => {
            let options = in_pods(&args.batch.evaluate);
            let needs = needs(&options);
            Verb::new(move |policy| kubernetes(args, &options, policy)).needs(needs)
        }
    }
}

/// It reads the inputs as the tasks will, and starts nothing.
fn needs(shared: &[OsString]) -> Needs {
    match shared_arguments(shared) {
        Ok(shared) => Needs { containers: 0, ..evaluate::needs(&shared) },
        // The error is reported when the verb runs.
        Err(_) => Needs::default(),
    }
}

/// Options of the runs in pods, which this program does not isolate.
fn in_pods(shared: &[OsString]) -> Vec<OsString> {
    std::iter::once("--allow-host-execution".into()).chain(shared.iter().cloned()).collect()
}

fn runs(args: &BatchArgs, shared: &[OsString], policy: &Policy, ui: &Ui, signals: &Signals) -> Result<Runs> {
    shared_arguments(shared).map_err(|error| wrong_options(&error))?;
    let plan = SweepPlan::read(&args.plan)?;
    Runs::of(&plan, shared, Part::ALL, &args.out, policy, ui, signals)
}

fn slurm(args: &ExportSlurmArgs, policy: &Policy) -> Result<u8> {
    let ExportSlurmArgs { batch, sbatch } = args;
    let (ui, signals) = (Ui::new(Level::Normal), Signals::catch()?);
    let runs = runs(batch, &batch.evaluate, policy, &ui, &signals)?;
    let sweep = Sweep {
        out: &batch.out,
        shared: &batch.evaluate,
        jobs: 1,
        policy,
        runs: &runs,
        ui: &ui,
        signals: &signals,
    };
    let rows = sweep.rows();
    let missing: Vec<usize> = (0..rows.len()).filter(|index| !rows[*index].found).collect();
    if missing.is_empty() {
        ui::on_stderr("every run is there: nothing is left to be measured");
        return Ok(0);
    }
    let slurm =
        Slurm { plan: &batch.plan, options: sbatch, tasks: batch.tasks.map(usize::from), jobs: batch.jobs };
    let script = slurm.script(&sweep, &missing)?;
    Slurm::prepare(&sweep)?;
    ui::out(script.trim_end());
    Ok(0)
}

fn kubernetes(args: &ExportKubernetesArgs, options: &[OsString], policy: &Policy) -> Result<u8> {
    let batch = &args.batch;
    let (ui, signals) = (Ui::new(Level::Normal), Signals::catch()?);
    let runs = runs(batch, options, policy, &ui, &signals)?;
    let job = Kubernetes {
        plan: &batch.plan,
        out: &batch.out,
        shared: &batch.evaluate,
        name: &args.name,
        image: &args.image,
        claim: &args.claim,
        memory: &args.memory,
        cpus: args.cpus,
        tasks: batch.tasks.map(usize::from),
        jobs: batch.jobs,
    };
    ui::out(job.manifest(&runs)?.trim_end());
    Ok(0)
}
