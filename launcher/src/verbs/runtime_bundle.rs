//! `invarlock runtime bundle`: writes an OCI bundle.

use crate::args::BundleArgs;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::check_writable;
use crate::policy::Policy;
use crate::request;
use crate::ui::{self, Level, Ui};
use crate::workload::{ImageOutput, Resolved};
use invarlock_images::MergeOptions;
use invarlock_runtime::{BundleConfig, OwnBundle, RuntimeFiles};
use invarlock_security::SecureTempDir;
use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, openat, renameat_with};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The output of `runtime bundle --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct BundleOutput<'a> {
    /// Always `runtime-bundle-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-bundle-v1")))]
    format_version: &'static str,
    /// The bundle.
    bundle: &'a Path,
    /// The image.
    image: ImageOutput,
    /// The user and group on the host that the files belong to.
    owner: (u32, u32),
}

/// Writes the bundle under a hidden name, and renames it when it is complete.
pub fn run(args: &BundleArgs, policy: &Policy) -> Result<u8> {
    let target = &args.directory;
    if target.symlink_metadata().is_ok() {
        return Err(Error::input(format!("DIR {}: it exists", target.display())))
            .map_err(|error| error.with_hint("name a directory that does not exist; it is created"));
    }
    check_writable("DIR", target)?;
    let resolved = request::of_bundle(args).resolve(policy, &mut |_| Ok(()))?;
    let writing = || format!("writing the bundle {}", target.display());
    let bundle = own_bundle(&resolved)?;
    let owner = bundle.owner()?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent).with_context(writing)?;
    // A bundle that a killed process left unfinished is removed by the next start.
    let parent = parent.canonicalize().with_context(writing)?;
    let staged = SecureTempDir::new_in(&parent, ".invarlock-bundle-").with_context(writing)?;
    let complete = fill(&bundle, &resolved, staged.path()).with_context(writing)?;
    renameat_with(CWD, &complete, CWD, target, RenameFlags::NOREPLACE).with_context(writing)?;
    let text = format!("{}: run it with `crun run --bundle {} NAME`", target.display(), target.display());
    let output =
        BundleOutput { format_version: "runtime-bundle-v1", bundle: target, image: resolved.image, owner };
    ui::result(args.json, &output, &ui::printable(&text))?;
    Ok(0)
}

fn own_bundle(resolved: &Resolved) -> Result<OwnBundle<'_>> {
    let annotations = [
        ("org.invarlock.image.reference", resolved.image.reference.clone()),
        ("org.invarlock.image.manifest-digest", resolved.image.manifest_digest.to_string()),
        ("org.invarlock.seccomp.profile", resolved.filter.program.name.clone()),
    ];
    Ok(OwnBundle {
        spec: &resolved.spec,
        inside: resolved.ids,
        seccomp: resolved.filter.resolved()?.to_oci()?,
        annotations: annotations
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
    })
}

/// Writes the bundle into the private directory `staged`. Returns its path there.
fn fill(bundle: &OwnBundle<'_>, resolved: &Resolved, staged: &Path) -> Result<std::path::PathBuf> {
    let [complete, lowest, highest] = ["bundle", "lowest", "highest"].map(|name| staged.join(name));
    let root = complete.join(OwnBundle::ROOT);
    for directory in [&root, &lowest, &highest] {
        std::fs::create_dir_all(directory)?;
    }
    OwnBundle::write_lowest_layer(&lowest)?;
    if let Some(RuntimeFiles { passwd: Some(passwd), .. }) = &resolved.spec.runtime_files {
        std::fs::create_dir(highest.join("etc"))?;
        std::fs::write(highest.join("etc/passwd"), passwd)?;
    }
    let handle = open(&root)?;
    let step = Ui::new(Level::Normal).step("files", 0, true);
    let options = MergeOptions {
        below: &[&lowest],
        above: &[&highest],
        owner: Some(bundle.owner()?),
        progress: &|bytes| step.add(bytes),
    };
    resolved.rootfs.merge(&handle, options)?;
    drop(step);
    bundle.create_working_directory(&handle)?;
    let mut config = File::options().write(true).create_new(true).open(complete.join(BundleConfig::NAME))?;
    config.write_all(&bundle.config(&handle)?)?;
    config.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    // Only the caller, and the runtime while it sets up the container, may enter it.
    let directory = open(&complete)?;
    OwnBundle::write_topology(&directory)?;
    rustix::fs::fchown(&directory, None, Some(Gid::from_raw(bundle.group_of_setup())))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o710))?;
    Ok(complete)
}

fn open(directory: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::empty())?)
}
