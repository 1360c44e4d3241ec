//! Limits of a container: the user's, with defaults from the machine; and which of them a run reached.

use crate::error::{Context as _, Error, Result};
use crate::ui;
use invarlock_runtime::{LimitName, Limits, Outcome};
use std::fmt;
use std::time::Duration;

/// Default size of `/out` in bytes.
pub const OUTPUT_BYTES: u64 = 8 << 20;
/// Bytes of `/out` for what the guards measure: about 1 KiB for each module, of which a mixture of experts has up to twenty thousand.
const OUTPUT_BYTES_OF_GUARDS: u64 = 24 << 20;
/// Bytes of `/out` per token: its id, its mask and its label as text.
const OUTPUT_BYTES_PER_TOKEN: u64 = 24;
/// Files that an evaluator may leave in `/out`.
const OUTPUT_FILES: u64 = 4;

/// The limits that the user set. Each must be enforced; one that cannot be is an error.
#[derive(Debug, Clone, Default)]
pub struct Requested {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Wall time.
    pub wall: Option<Duration>,
    /// Bytes of `/tmp`.
    pub tmp: Option<u64>,
    /// Bytes of `/out`.
    pub output: Option<u64>,
    /// Whether limits that need a cgroup may be enforced by weaker means where none can be had.
    pub weaker: bool,
}

/// The default size of `/out` in bytes for a report of `tokens`.
pub fn output_bytes(tokens: usize) -> u64 {
    OUTPUT_BYTES + OUTPUT_BYTES_OF_GUARDS + tokens as u64 * OUTPUT_BYTES_PER_TOKEN
}

impl Requested {
    /// Host execution writes to directories of the host, whose size has no limit.
    pub fn check_for_host(&self) -> Result<()> {
        let sizes = [("--output-size", "the output", self.output), ("--tmp-size", "/tmp", self.tmp)];
        match sizes.into_iter().find(|(_, _, size)| size.is_some()) {
            None => Ok(()),
            Some((flag, what, _)) => {
                Err(Error::unsupported(format!("{flag}: host execution cannot limit the size of {what}")))
                    .hint(format!("leave out {flag}, or run in a container"))
            }
        }
    }

    /// The limits of a container; `output` is the default size of `/out`.
    pub fn resolve(&self, output: u64) -> Limits {
        let mut limits = Limits { output_bytes: output, output_files: OUTPUT_FILES, ..Limits::for_machine() };
        let set = [
            (LimitName::Memory, self.memory.is_some() && !self.weaker),
            (LimitName::Cpu, self.cpus.is_some() && !self.weaker),
            (LimitName::Pids, self.pids.is_some() && !self.weaker),
            (LimitName::Wall, self.wall.is_some()),
            (LimitName::Tmp, self.tmp.is_some()),
            (LimitName::Output, self.output.is_some()),
        ];
        limits.required.extend(set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name));
        limits.memory_bytes = self.memory.unwrap_or(limits.memory_bytes);
        limits.cpus = self.cpus.unwrap_or(limits.cpus);
        limits.pids = self.pids.unwrap_or(limits.pids);
        limits.wall = self.wall.unwrap_or(limits.wall);
        limits.tmp_bytes = self.tmp.unwrap_or(limits.tmp_bytes);
        limits.output_bytes = self.output.unwrap_or(limits.output_bytes);
        limits
    }
}

/// A limit that a run reached. Displayed as `the pids limit (96 processes) was reached`.
#[derive(Debug)]
pub struct Reached {
    name: LimitName,
    value: Option<String>,
}

impl Reached {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        flag(self.name).map(|flag| format!("raise {flag}"))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map_or_else(String::new, |value| format!(" ({value})"));
        write!(f, "the {} limit{value} was reached", self.name)
    }
}

/// The limits that a run reached.
pub fn reached(outcome: &Outcome) -> Vec<Reached> {
    let observed = &outcome.observations.limits.value;
    let value = |name: LimitName| {
        let limit = observed.iter().find(|limit| limit.name == name)?;
        let value = limit.effective.unwrap_or(limit.requested);
        Some(match limit.unit.as_str() {
            "bytes" => ui::size(value),
            "milliseconds" => format!("{} s", value as f64 / 1000.0),
            unit => format!("{value} {unit}"),
        })
    };
    outcome.usage.limits_hit.iter().map(|name| Reached { name: *name, value: value(*name) }).collect()
}

/// The reached limits in one sentence part: `the pids limit was reached, and the /tmp limit was reached`.
pub fn sentence(reached: &[Reached]) -> String {
    reached.iter().map(Reached::to_string).collect::<Vec<_>>().join(", and ")
}

/// What the user can do about the reached limits.
pub fn hint(reached: &[Reached]) -> Option<String> {
    let hints: Vec<String> = reached.iter().filter_map(Reached::hint).collect();
    (!hints.is_empty()).then(|| hints.join(", "))
}

/// The notices for a run that went on in spite of its limits, one line each.
pub fn notices(reached: &[Reached]) -> impl Iterator<Item = String> + '_ {
    reached.iter().map(|limit| match limit.hint() {
        Some(hint) => format!("{limit}; {hint}"),
        None => limit.to_string(),
    })
}

fn flag(name: LimitName) -> Option<&'static str> {
    match name {
        LimitName::Memory => Some("--memory"),
        LimitName::Cpu => Some("--cpus"),
        LimitName::Pids => Some("--pids"),
        LimitName::Wall => Some("--timeout"),
        LimitName::Tmp => Some("--tmp-size"),
        LimitName::Output => Some("--output-size"),
        LimitName::Files | LimitName::Core | LimitName::OutputFiles => None,
    }
}
