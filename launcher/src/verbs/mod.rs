//! The table of verbs: one row and one file per verb. A row says what the verb needs, how its failures are reported, and how it runs.

mod attest;
mod calibrate;
mod completions;
mod doctor;
mod engine;
mod evaluate;
mod evaluate_delegated;
mod evaluate_output;
mod evidence_pack;
mod export;
mod image;
mod plan_lock;
mod report_explain;
mod report_export;
mod report_generate;
mod report_html;
mod report_validate;
mod row;
mod runtime_bundle;
mod runtime_learn;
mod runtime_probe;
mod runtime_ps;
mod runtime_run;
mod runtime_verify;
mod sweep;
mod verify;
mod version;

use crate::args::{AdvancedCommand, Command, PlanCommand, ReportCommand, RuntimeCommand};
#[cfg(feature = "schemas")]
use crate::output::{NamedSchema, schema};
use row::Verb;

/// The row of a verb.
#[rustfmt::skip]
pub fn of(command: &Command) -> Verb<'_> {
    match command {
        Command::Evaluate(args) => Verb::new(|policy| evaluate::run(args, policy)).json(args.json).needs(evaluate::needs(args)),
        Command::Sweep(args) => Verb::new(|policy| sweep::run(args, policy)).json(args.json).needs(sweep::needs(args)),
        Command::Export(command) => export::of(command),
        Command::Verify(args) => Verb::new(|policy| verify::run(args, policy)).json(args.json)
            .containers(if args.reproduce.is_some() { 3 } else { 0 }),
        Command::Plan(PlanCommand::Lock(args)) => Verb::new(|_| plan_lock::run(args)),
        Command::Report(ReportCommand::Html(args)) => Verb::new(|_| report_html::run(args)),
        Command::Report(ReportCommand::Explain(args)) => Verb::new(|_| report_explain::run(args)).json(args.json),
        Command::Report(ReportCommand::Validate(args)) => Verb::new(|_| report_validate::run(args)).json(args.json),
        Command::Report(ReportCommand::Generate(args)) => Verb::new(|_| report_generate::run(args)),
        Command::Report(ReportCommand::Export(args)) => Verb::new(|_| report_export::run(args)),
        Command::Runtime(RuntimeCommand::Image(command)) => image::of(command),
        Command::Runtime(RuntimeCommand::Run(args)) => Verb::new(|policy| runtime_run::run(args, policy))
            .json_on_stderr(args.json).network(args.workload.allow_network).workload().own_exit_code(),
        Command::Runtime(RuntimeCommand::Bundle(args)) => Verb::new(|policy| runtime_bundle::run(args, policy))
            .json(args.json).network(args.allow_network),
        Command::Runtime(RuntimeCommand::Learn(args)) => Verb::new(|policy| runtime_learn::run(args, policy))
            .json(args.json).network(args.workload.allow_network).workload().own_exit_code(),
        Command::Runtime(RuntimeCommand::Ps { json }) => Verb::new(|_| runtime_ps::list(*json)).json(*json),
        Command::Runtime(RuntimeCommand::Stop(args)) => Verb::new(|_| runtime_ps::stop(args)),
        Command::Runtime(RuntimeCommand::Kill(args)) => Verb::new(|_| runtime_ps::kill(args)),
        Command::Runtime(RuntimeCommand::Logs(args)) => Verb::new(|_| runtime_ps::logs(args)),
        Command::Runtime(RuntimeCommand::Engine(command)) => engine::of(command),
        // The probe starts its containers itself.
        Command::Runtime(RuntimeCommand::Probe(args)) => Verb::new(|_| runtime_probe::run(args)).json(args.json).own_exit_code(),
        Command::Doctor(args) => Verb::new(|_| doctor::run(args)).json(args.json),
        Command::Advanced(AdvancedCommand::RuntimeVerify(args)) => Verb::new(|_| runtime_verify::run(args)).json(args.json),
        Command::Advanced(AdvancedCommand::Attest(command)) => attest::of(command),
        Command::Advanced(AdvancedCommand::Calibrate(command)) => calibrate::of(command),
        Command::Advanced(AdvancedCommand::EvidencePack(command)) => evidence_pack::of(command),
        Command::Completions { shell } => Verb::new(|_| completions::run(*shell)),
        Command::Version => Verb::new(|_| version::run()),
    }
}

/// The schema of the output of every verb.
#[cfg(feature = "schemas")]
pub fn schemas() -> Vec<NamedSchema> {
    let mut schemas = vec![
        schema::<evaluate_output::EvaluateOutput<'_>>("evaluate-v1"),
        schema::<evaluate_output::DryRunOutput<'_>>("evaluate-dry-run-v2"),
        schema::<evaluate_delegated::EvaluateDelegatedOutput<'_>>("evaluate-delegated-v1"),
        schema::<evaluate_delegated::DelegatedDryRunOutput<'_>>("delegated-plan-v1"),
        schema::<invarlock_evidence::sweep::Table>("sweep-v1"),
        schema::<sweep::SweepDryRunOutput>("sweep-dry-run-v1"),
        schema::<invarlock_evidence::calibration::null_sweep::Report>("spectral_null_sweep"),
        schema::<invarlock_evidence::calibration::ve_sweep::Report>("variance_ve_sweep"),
        schema::<invarlock_evidence::verify::VerifyOutput>("verify-v1"),
        schema::<invarlock_evidence::verify::RuntimeVerifyOutput>("runtime-verify-v1"),
        schema::<report_explain::ExplainOutput<'_>>("report-explain-v1"),
        schema::<report_validate::ValidateOutput<'_>>("report-validate-v1"),
        schema::<doctor::DoctorOutput<'_>>("doctor-v1"),
        schema::<runtime_run::RunOutput<'_>>("runtime-run-v1"),
        schema::<runtime_bundle::BundleOutput<'_>>("runtime-bundle-v1"),
        schema::<runtime_learn::LearnOutput<'_>>("runtime-learn-v1"),
        schema::<runtime_probe::ProbeOutput<'_>>("runtime-probe-v1"),
        schema::<runtime_ps::PsOutput<'_>>("runtime-ps-v1"),
    ];
    schemas.extend(engine::schemas());
    schemas.extend(attest::schemas());
    schemas.extend(evidence_pack::schemas());
    schemas.extend(image::schemas());
    schemas
}
