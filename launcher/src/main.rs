//! The command line `invarlock`: typed arguments, policy, plan, run; one file a verb.
//!
//! This is the trusted side. It opens and hashes the inputs, has the containers built and watched, writes the evidence
//! and verifies it. It links no machine-learning library and parses nothing of a checkpoint but the names in a shard
//! index. It trusts its own arguments and environment, the kernel, and the evaluator beside it; it does not trust
//! checkpoints, tokenizers, datasets, images from elsewhere, or anything a container prints or leaves behind.
#![forbid(unsafe_code)]

mod args;
mod bundle;
mod error;
mod filter;
mod image;
mod inputs;
mod plan;
mod policy;
mod preset;
mod progress;
mod record;
mod refused;
mod reuse;
mod side;
mod signals;
mod transport;
mod ui;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The same executable is the supervisor and builder of a container, and the attacker of `runtime probe`.
    invarlock_probe::run_if_attacker();
    invarlock_runtime::reexec::run_if_child();
    let cli = args::parse();
    match policy::enter(&cli).and_then(|policy| verbs::run(&cli, &policy)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => error::report(&error, &cli),
    }
}
