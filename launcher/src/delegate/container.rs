//! The containers of the program: that of its run, and that in which it states its version.

use crate::error::Result;
use crate::image::Image;
use invarlock_evidence::delegated::CWD;
use invarlock_runtime::{ContainerSpec, Input, Limits, Mount, Rootfs};
use invarlock_seccomp::Program;

/// Size of `/out`: each side's run report has the tokens of all windows, some of them twice.
pub const OUTPUT_BYTES: u64 = 1 << 30;
/// Files and directories in `/out`.
pub const OUTPUT_FILES: u64 = 256;
/// Size of `/tmp`, which has the caches and the generated configurations.
pub const TMP_BYTES: u64 = 1 << 30;

/// What the containers of the program have in common.
pub struct Container<'a> {
    /// The image.
    pub image: &'a Image,
    /// The environment.
    pub environment: &'a [(String, String)],
    /// The system-call filter.
    pub filter: &'a Program,
    /// The limits.
    pub limits: &'a Limits,
    /// The mounts of devices.
    pub mounts: &'a [Mount],
}

impl Container<'_> {
    /// The container of a command with these arguments.
    pub fn spec(&self, arguments: &[String], inputs: Vec<Input>) -> Result<ContainerSpec> {
        Ok(ContainerSpec {
            rootfs: Rootfs::Layers(self.image.rootfs.layers.clone()),
            argv: [&self.image.resolved.entrypoint, arguments].concat(),
            env: self.environment.to_vec(),
            cwd: CWD.to_owned(),
            collect_output: true,
            inputs,
            filter: self.filter.clone(),
            limits: self.limits.clone(),
            stdio: invarlock_runtime::Stdio::Output,
            runtime_files: None,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts: self.mounts.iter().map(Mount::try_clone).collect::<Result<_>>()?,
        })
    }
}
