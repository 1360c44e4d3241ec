//! Sweeps: many evaluations from one plan. Each is a process of this program, so that one that fails or is killed leaves the others alone.

mod found;
mod kubernetes;
mod measure;
mod plan;
mod pool;
mod runs;
mod slurm;

pub use found::read as read_evidence;
pub use kubernetes::Kubernetes;
pub use measure::{Lock, Sweep};
pub use plan::{SweepPlan, Variant};
pub use pool::{Ended, Pool};
pub use runs::{Run, Runs, shared_arguments, wrong_options};
pub use slurm::Slurm;
