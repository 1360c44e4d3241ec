//! The command line `invarlock`: typed arguments, policy, plan, run; one file per verb.
//!
//! This is the trusted side. It opens and hashes the inputs, has the containers started and observed, writes the evidence
//! and verifies it. It links no machine-learning library and parses nothing of a checkpoint except the names in a shard
//! index. It trusts its arguments and environment, the kernel, and the evaluator next to it. It does not trust checkpoints,
//! tokenizers, datasets, images from elsewhere, or anything that a container prints or leaves behind.
#![forbid(unsafe_code)]

mod adapter;
mod args;
mod baseline_reuse;
mod bundle_output;
mod cdi;
mod check_sides;
mod checkpoint_files;
mod dataset_files;
mod delegate;
mod demands;
mod denied_calls;
mod device_name;
mod error;
mod evaluator_run;
mod evidence_dir;
mod filter;
mod hub;
mod image;
mod inputs;
mod journal;
mod keys;
mod limits;
mod measure_side;
mod metric_choice;
mod mount_source;
mod network;
mod oci_bundle;
mod output;
mod pack;
mod part;
mod pass_through;
mod plan;
mod plan_lock;
mod policy;
mod preset;
mod preset_eval;
mod preset_provider;
mod preset_sections;
mod progress;
mod receipt;
mod record;
mod recorded;
mod registry;
mod report_files;
mod reproduce;
mod request;
mod run_files;
mod run_output;
mod running;
#[cfg(feature = "schemas")]
pub mod schemas;
mod side_inputs;
mod signals;
mod stdio;
mod sweep;
mod tiers_file;
mod ui;
mod usage;
mod user;
mod verbs;
mod workload;
mod workload_changes;

use std::process::ExitCode;

/// The preset parser for fuzzing: any text gives a preset or an error.
#[cfg(feature = "fuzz")]
pub fn fuzz_preset(text: &str) {
    if let Ok(preset) = preset::parse(std::path::Path::new("preset.yaml"), text) {
        assert!(preset::check(&preset.dataset).is_ok(), "an accepted dataset is a valid one");
    }
}

/// The reader of device specifications for fuzzing: any bytes give a specification, whose hooks are understood or refused, or an error.
#[cfg(feature = "fuzz")]
pub fn fuzz_device_specification(bytes: &[u8]) {
    cdi::fuzz(bytes);
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // The same executable is the supervisor and the builder of a container, and the attacker of `runtime probe`. Both calls return
    // only in the launcher.
    invarlock_probe::run_if_attacker();
    invarlock_runtime::reexec::run_if_child();
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(usage) => return usage::report_usage(&usage, &std::env::args_os().skip(1).collect::<Vec<_>>()),
    };
    let verb = verbs::of(&cli.command);
    let (format, codes) = (verb.format, verb.exit_codes);
    let code = policy::enter(&verb.needs).and_then(|policy| verb.run(&policy));
    let code = code.and_then(|code| ui::written().map(|()| code));
    ExitCode::from(code.unwrap_or_else(|error| error::report(&error, format, codes)))
}
