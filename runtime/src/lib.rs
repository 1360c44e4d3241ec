//! Runs one OCI container and observes its boundary.
//!
//! The path of a run through this crate:
//!
//! 1. [`ContainerSpec`] (`spec.rs`) describes the container; [`describe()`] prints the plan.
//! 2. [`run()`] (`run.rs`) is the launcher's side. It starts this executable again (`executable.rs`, `reexec.rs`) as the supervisor, if the
//!    caller wants before the run is known ([`Supervisor`]), and sends it messages over a socket (`protocol/`).
//! 3. The *supervisor* (`supervisor/`) has one thread, in the host's namespaces, outside the run's cgroup. It takes the lock (`state.rs`),
//!    creates the cgroup (`cgroup/`), clones the builder into the run's namespaces (`identity.rs`), chooses the mechanism of each limit
//!    (`limits.rs`), as root prepares mounts from the launcher's handles (`prepare.rs`), and cleans up.
//! 4. The *builder* (`builder.rs`) is process 1 inside. It assembles the file system (`rootfs.rs`, `mounts.rs`) and calls libcontainer with
//!    the configuration of `oci.rs`.
//! 5. It becomes *init* (`init/`), which starts the *workload*. The workload installs its filter and waits.
//! 6. The supervisor observes the waiting workload from outside (`observe/`) and lets it go only if the kernel reports the requested
//!    boundary (`boundary.rs`).
//! 7. When every process is dead, the files of `/out` are collected (`collect.rs`), and the launcher gets the [`Outcome`] (`outcome.rs`).
//!
//! Trusted: the caller, its plan, the kernel. Untrusted: the image, the inputs, and every program that runs inside.
//!
//! All `unsafe` code is in `sys.rs`.

mod bind_source;
mod boundary;
mod builder;
mod bundle;
mod cgroup;
mod collect;
mod core_dumps;
mod describe;
mod device_source;
pub mod doctor;
mod executable;
mod failure;
#[cfg(feature = "fuzz")]
#[allow(clippy::expect_used, reason = "a fuzz target panics on a fault")]
pub mod fuzz;
mod hints;
#[doc(hidden)]
pub mod hooks;
mod identity;
mod init;
mod landlock;
mod limits;
mod mounts;
mod observations;
mod observe;
mod oci;
mod outcome;
pub mod place;
mod prepare;
mod printable;
mod process;
mod procfs;
mod protocol;
pub mod reexec;
mod rlimit;
mod rlimit_kind;
mod rootfs;
mod run;
mod runtime_files;
mod seal;
mod spec;
mod state;
mod stdio;
mod supervisor;
mod sys;
mod terminal;
mod topology;
mod user_limits;
mod user_mounts;

pub use bind_source::BindSource;
pub use boundary::{DEVICES, MASKED as MASKED_PATHS, READ_ONLY as READ_ONLY_PATHS, TMP_INODES};
pub use bundle::{BundleConfig, BundleLimits, BundleMount, BundleSource, NotGranted, OwnBundle};
pub use core_dumps::{CoreDumps, CoreHandler};
pub use describe::describe;
pub use device_source::DeviceSource;
pub use identity::{HOST_IDS, INSIDE, Identity, IdsInside};
pub use invarlock_error::{Error, Kind, Result};
pub use landlock::Landlock;
pub use observations::{
    Capabilities, ContainerIds, ContainerObservations, Descriptor, HostIds, HostName, IdMaps,
    InitObservation, InputObservation, LimitMechanism, LimitObservation, MountObservation, Namespace,
    Observations, Observed, Observer, ProcFiles, Process, Seccomp,
};
pub use outcome::{DeniedCall, Outcome, OutputFile, ProfileTrace, Sink, Status, Usage};
pub use printable::printable;
pub use rlimit::RlimitValue;
pub use rlimit_kind::LowerRlimit;
pub use run::{MAX_LOG, Supervisor, run, run_on_host};
pub use spec::{ContainerSpec, HostSpec, Input, InputSource, LimitName, Limits, Rootfs, RuntimeFiles};
pub use state::directory as state_directory;
pub use stdio::{CallerTerminal, Stdio};
pub use user_mounts::{Mount, MountSource};
