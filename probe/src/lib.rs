//! The attacks of `invarlock runtime probe` on the boundary of this machine.
//!
//! The attacker (`attacker.rs`) is this same executable, started as the workload of a container through
//! [`invarlock_runtime::run()`], with the filter, limits and supervisor of any other run. It makes the attacks of `attacks/` and
//! prints the kernel's answers. `judge.rs` compares them, the supervisor's observations and the state of the host before and
//! after (`stage.rs`) with what each attack should result in.
//!
//! Trusted: the runtime, its observations and the state of the host. Not trusted: the output of the attacker.
//!
//! All `unsafe` is in `sys.rs`.
#![deny(unsafe_code)]

mod answer;
mod attacker;
mod attacks;
mod contract;
mod findings;
mod judge;
mod stage;
#[allow(unsafe_code, reason = "raw system calls")]
mod sys;

pub use judge::{AttackResult, Verdict};

use answer::{Answer, AnswerLine};
use findings::Findings;
use invarlock_error::{Error, Kind, Result};
use invarlock_runtime::{Identity, Sink, Status};
use stage::Stage;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// Must be the first line of `main` in every program that calls [`probe()`]: in the attacker's process it runs the attacks and never
/// returns; in any other process it does nothing.
pub fn run_if_attacker() {
    if std::env::args_os().next().is_some_and(|name| name == contract::ATTACKER) {
        attacker::main();
    }
}

/// Attacks the boundary of this machine, with the caller's ids. Leaves nothing behind.
pub fn probe(cancel: BorrowedFd<'_>) -> Result<Vec<AttackResult>> {
    let stage = Stage::new()?;
    let mut output = AttackerOutput::default();
    let spec = stage.spec(contract::ALL)?;
    let limits = spec.limits.clone();
    let outcome = invarlock_runtime::run(spec, cancel, &mut output)?;
    if outcome.status == Status::Cancelled {
        return Err(Error::system("cancelled"));
    }
    let (mut separate_runs, mut binds) = (BTreeMap::new(), true);
    for name in contract::SEPARATE_RUNS {
        let end =
            invarlock_runtime::run(stage.spec(name)?, cancel, &mut output).map(|outcome| outcome.status);
        // A run with forbidden output should fail; any other run should not.
        let unsupported = |error: &Error| name == contract::BINDS && error.kind() == Kind::Unsupported;
        if end.as_ref().is_err_and(unsupported) {
            // Its options do not work on this machine, so they open nothing.
            binds = false;
        } else if !contract::BAD_OUTPUT_RUNS.contains(&name) {
            end.clone()?;
        }
        separate_runs.insert(name, end);
    }
    let findings = Findings {
        identity: Identity::of_own_run(),
        limits,
        answers: output.answers(),
        observations: outcome.observations,
        separate_runs,
        host_changes: stage.host_changes()?,
    };
    stage.close()?;
    let attacks = attacks::in_every_run().chain(attacks::in_binds().filter(|_| binds));
    Ok(attacks.map(|attack| judge::judge(attack, &findings)).collect())
}

/// Longest standard output of the attacker that is kept, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// Standard output of all runs, up to [`MAX_OUTPUT`].
#[derive(Default)]
struct AttackerOutput(Vec<u8>);

impl Sink for AttackerOutput {
    fn stdout(&mut self, bytes: &[u8]) {
        let free = MAX_OUTPUT.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }

    fn stderr(&mut self, _: &[u8]) {}
}

impl AttackerOutput {
    /// The valid lines. An attack without one counts as not tried.
    fn answers(&self) -> BTreeMap<String, Answer> {
        let lines = self.0.split(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| serde_json::from_slice::<AnswerLine>(line).ok());
        lines.map(|line| (line.attack, line.answer)).collect()
    }
}
