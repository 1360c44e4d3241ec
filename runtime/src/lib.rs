//! One OCI container in, one observed outcome out.
//!
//! The way through this crate, and its files in that order:
//!
//! 1. [`ContainerSpec`] (`spec.rs`) says what is wanted; [`describe()`] prints it.
//! 2. [`run()`] (`run.rs`) is the launcher's side. It starts this very program again (`reexec.rs`) as the supervisor, before it knows what
//!    to run if it likes ([`Supervisor`]), and speaks with it over a socket (`protocol.rs`).
//! 3. The *supervisor* (`supervisor.rs`) has one thread and lives in the host's namespaces, outside the run's cgroup. It takes the
//!    lock (`state.rs`), makes the cgroup (`cgroup/`), clones the builder into the run's namespaces (`identity.rs`), decides what holds which
//!    limit (`limits.rs`), as root prepares mounts from the launcher's handles (`prepare.rs`), and sees to the end of everything.
//! 4. The *builder* (`builder.rs`) is process 1 inside. It puts the file system together (`rootfs.rs`, `mounts.rs`), and has
//!    libcontainer finish it from `oci.rs`.
//! 5. So it becomes *init* (`init.rs`); that starts the *workload*, which puts its filter on and waits.
//! 6. The supervisor looks at the waiting workload from outside (`observe/`) and lets it go only if the kernel says what was asked for.
//! 7. When every process is dead, the files of `/out` are read (`collect.rs`), and the launcher gets the [`Outcome`].
//!
//! Trusted: the caller, its plan, the kernel. Not trusted: the image, the inputs, and whatever runs inside.
//!
//! All `unsafe` is in `sys.rs`, but for two descriptors in `init.rs`.

mod builder;
mod cgroup;
mod collect;
mod describe;
pub mod doctor;
mod failure;
#[doc(hidden)]
pub mod hooks;
mod host;
mod identity;
mod init;
mod kernel;
mod limits;
mod mounts;
mod observe;
mod oci;
mod prepare;
mod printable;
mod protocol;
pub mod reexec;
mod rootfs;
mod run;
mod seal;
mod spec;
mod state;
mod supervisor;
mod sys;

pub use describe::describe;
pub use identity::{INSIDE, Identity, ROOT_BASE};
pub use invarlock_error::{Error, Kind, Result};
pub use observe::{
    By, Capabilities, Contained, DEVICES, Descriptor, HostIds, HostName, IdMaps, IdsInside, InitRow,
    InputRow, LimitRow, MountRow, Namespace, Observations, Observer, ProcFiles, Process, Seccomp, Seen,
};
pub use oci::{MASKED as MASKED_PATHS, READ_ONLY as READ_ONLY_PATHS};
pub use printable::printable;
pub use rootfs::TMP_INODES;
pub use run::{MAX_LOG, Supervisor, run, run_on_host};
pub use spec::{
    ContainerSpec, DeniedCall, HostSpec, Input, InputSource, Learned, LimitName, Limits, Outcome, OutputFile,
    Sink, Status, Usage,
};
