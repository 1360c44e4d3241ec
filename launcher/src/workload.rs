//! A command of an image, as `runtime run` and `runtime learn` run it.

use crate::args::MountArgs;
use crate::bundle_output::BundleOutput;
use crate::error::{Context as _, Error, OWN_FAILURE, Result};
use crate::filter::Filter;
use crate::image::{self, Image};
use crate::limits;
use crate::policy::Policy;
use crate::run_files::RunFiles;
use crate::signals::Signals;
use crate::ui::{self, Ui};
use crate::user::{self, User};
use crate::workload_changes::Changes;
use invarlock_images::{Consent, Digest, Level, ResolvedImage, VerifiedRootfs, Verify};
use invarlock_runtime::{
    ContainerSpec, IdsInside, LimitName, Outcome, Rootfs, RuntimeFiles, Status, Supervisor,
};
use invarlock_seccomp::BuiltinProfile;
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;

/// What an interrupted run leaves.
const KEPT: &str = "nothing is kept";

/// The command that the user asked to run.
pub struct Workload {
    /// Image reference.
    pub image: String,
    /// Arguments of the image's entrypoint, or the command if it has none; empty means those of the image.
    pub argv: Vec<String>,
    /// What the options change in the configuration of the image.
    pub changes: Changes,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What is mounted.
    pub mounts: MountArgs,
    /// How the extracted layers are verified.
    pub verify: Verify,
    /// A user profile of system calls.
    pub seccomp: Option<PathBuf>,
    /// The limits that the user set.
    pub limits: limits::Requested,
}

/// A container ready to run.
pub struct Prepared {
    /// Its supervisor.
    pub supervisor: Supervisor,
    /// The container.
    pub spec: ContainerSpec,
    /// The profile that its filter was made from.
    pub filter: Filter,
    /// The files that it mounts.
    pub files: RunFiles,
    /// The extracted layers of the image, if it runs one; they cannot be deleted while this exists.
    pub rootfs: Option<VerifiedRootfs>,
    /// The image, for JSON output.
    pub image: Option<ImageOutput>,
    /// The bundle that it runs instead.
    pub bundle: Option<BundleOutput>,
}

/// A command of an image with everything that it needs.
pub struct Resolved {
    /// The container.
    pub spec: ContainerSpec,
    /// The ids inside.
    pub ids: IdsInside,
    /// The profile that its filter was made from.
    pub filter: Filter,
    /// The files that it mounts.
    pub files: RunFiles,
    /// The extracted layers; they cannot be deleted while this exists.
    pub rootfs: VerifiedRootfs,
    /// The image, for JSON output.
    pub image: ImageOutput,
}

/// The image of a command, in JSON output.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ImageOutput {
    /// Its reference.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// How its extracted layers were verified.
    verification: Level,
    /// What the user agreed to when it was added to the store; absent if nothing.
    #[serde(skip_serializing_if = "Consent::is_none")]
    consent: Consent,
}

impl Workload {
    /// Resolves image and profile. A supervisor prepares the run meanwhile.
    pub fn prepare(&self, policy: &Policy) -> Result<Prepared> {
        let mut supervisor = policy.supervisor()?;
        let resolved = self.resolve(policy, &mut |ids| supervisor.prepare(ids))?;
        let Resolved { spec, filter, files, rootfs, image, .. } = resolved;
        Ok(Prepared {
            supervisor,
            spec,
            filter,
            files,
            rootfs: Some(rootfs),
            image: Some(image),
            bundle: None,
        })
    }

    /// Resolves image and profile. `prepare` is called with the ids inside as soon as they are known, and can be called twice.
    pub fn resolve(
        &self,
        policy: &Policy,
        prepare: &mut dyn FnMut(IdsInside) -> Result<()>,
    ) -> Result<Resolved> {
        // No image reference starts like this, but a command does whose image was forgotten.
        if self.image.starts_with(['/', '.']) {
            return Err(Error::input(format!("{}: the first argument must be an image", self.image)))
                .hint("put the image before the command: IMAGE -- ARGV…; `invarlock runtime image ls` lists the images");
        }
        let added = self.changes.variables()?;
        let entrypoint = self.changes.entrypoint()?;
        let mut files = RunFiles::open(&self.mounts)?;
        let wanted_user = |image: &ResolvedImage| self.changes.user.clone().or_else(|| image.user.clone());
        let mut prepare_early =
            |image: &ResolvedImage| match user::ids_without_lookup(wanted_user(image).as_deref()) {
                Some(ids) => prepare(ids),
                None => Ok(()),
            };
        let ui = Ui::new(ui::Level::Quiet);
        let Image { resolved, rootfs } =
            image::existing(&ui, &self.image, self.verify, &policy.network, &mut prepare_early)?;
        policy.network.close()?;
        let user = User::of_image(&rootfs, wanted_user(&resolved).as_deref())
            .with_context(|| format!("image {}", resolved.reference))?;
        prepare(user.ids)?;
        let image = ImageOutput {
            reference: resolved.reference.to_string(),
            manifest_digest: resolved.manifest_digest,
            verification: rootfs.level,
            consent: rootfs.consent,
        };
        let argv = self.command(&resolved, entrypoint)?;
        // The evaluator has a profile of its own, which allows less than the general one.
        let builtin = match resolved.speaks.as_deref() {
            Some("measure") => BuiltinProfile::Evaluator,
            _ if self.terminal => BuiltinProfile::Terminal,
            _ => BuiltinProfile::General,
        };
        let mut filter = Filter::choose(self.seccomp.as_deref(), builtin)?;
        if files.devices.record.is_some() {
            filter = filter.with_device_requests()?;
        }
        if files.has_writable_bind() {
            filter = filter.without_set_id()?;
        }
        let mut limits = self.limits.resolve(limits::OUTPUT_BYTES);
        if let Some(bytes) = files.tmp_bytes {
            limits.tmp_bytes = bytes;
            limits.required.insert(LimitName::Tmp);
        }
        let spec = ContainerSpec {
            rootfs: Rootfs::Layers(rootfs.layers.clone()),
            argv,
            env: {
                let env = Changes::merged(files.devices.added_to(resolved.env), added);
                files.devices.with_libraries(user.complete(env, self.terminal))
            },
            cwd: self.changes.workdir.clone().unwrap_or(resolved.cwd),
            inputs: files.container_inputs()?,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts: std::mem::take(&mut files.mounts),
            filter: filter.program.clone(),
            limits,
            collect_output: false,
            stdio: invarlock_runtime::Stdio::Output,
            runtime_files: Some(RuntimeFiles { passwd: user.passwd, ..RuntimeFiles::default() }),
        };
        Ok(Resolved { spec, ids: user.ids, filter, files, rootfs, image })
    }

    /// The command: an entrypoint and its arguments. `entrypoint`: that of the options, which has other arguments than that of the image.
    fn command(&self, image: &ResolvedImage, entrypoint: Option<Vec<String>>) -> Result<Vec<String>> {
        let arguments = match self.argv.is_empty() {
            true if entrypoint.is_some() => &[][..],
            true => &image.cmd,
            false => &self.argv,
        };
        let argv = [entrypoint.as_ref().unwrap_or(&image.entrypoint), arguments].concat();
        match argv.is_empty() {
            true => Err(Error::input(format!("image {} has no command", self.image)))
                .hint("add the command: `-- ARGV…`"),
            false => Ok(argv),
        }
    }

    /// The workload's exit code, or an error if a limit or a signal ended it. Other reached limits are printed, unless `quiet`.
    pub fn exit_code(&self, outcome: &Outcome, signals: &Signals, quiet: bool) -> Result<u8> {
        let reached = limits::reached(outcome);
        let by_limit = matches!(outcome.status, Status::TimedOut | Status::MemoryLimit);
        if !quiet && !by_limit {
            limits::notices(&reached).for_each(|line| drop(writeln!(std::io::stderr(), "invarlock: {line}")));
        }
        match outcome.status {
            Status::Exited(code) => Ok(u8::try_from(code).unwrap_or(OWN_FAILURE)),
            Status::Signaled(signal) => Ok(128u8.saturating_add(u8::try_from(signal).unwrap_or(0))),
            Status::Cancelled => Err(or_interrupted(Error::input("cancelled"), signals)),
            Status::TimedOut | Status::MemoryLimit => {
                let message = format!("running {}: {}", self.image, limits::sentence(&reached));
                let error = Error::system(message);
                Err(limits::hint(&reached).into_iter().fold(error, Error::with_hint))
            }
        }
    }
}

/// The error of a run, or the signal that caused it.
pub fn or_interrupted(error: Error, signals: &Signals) -> Error {
    signals.check(KEPT).err().unwrap_or(error)
}
