//! Sweeps: many evaluations from one plan. Each is a process of this program, so that one that fails or is killed leaves the others alone.

mod found;
mod plan;
mod pool;
mod runs;

pub use found::read as read_evidence;
pub use plan::SweepPlan;
pub use pool::{Ended, Pool};
pub use runs::{Run, Runs, shared_arguments, wrong_options};
