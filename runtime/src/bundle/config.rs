//! Reading a configuration that was made elsewhere.

use super::mounts::{self, BundleMount};
use super::reader::{BundleLimits, NotGranted, Reader, invalid, refused};
use super::{linux, process};
use crate::boundary::HOST_NAME;
use crate::identity::IdsInside;
use crate::spec::Limits;
use invarlock_error::{Error, Result};
use oci_spec::runtime::{Hook, Spec};
use std::path::{Component, PathBuf};

/// A configuration, as far as a run grants it.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleConfig {
    /// The root file system: a path in the bundle without `..`.
    pub root: PathBuf,
    /// The command.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// Its ids inside.
    pub user: IdsInside,
    /// Whether it asks for a terminal.
    pub terminal: bool,
    /// Mounts beside those that every container has.
    pub mounts: Vec<BundleMount>,
    /// Its limits.
    pub limits: BundleLimits,
    /// Paths of `/proc` that are masked beside those of the boundary.
    pub masked_paths: Vec<String>,
    /// Whether it has a system-call profile, which [`invarlock_seccomp::UserProfile`] reads.
    pub has_seccomp: bool,
    /// What the container runs without.
    pub not_granted: Vec<NotGranted>,
}

impl BundleConfig {
    /// The name of the file.
    pub const NAME: &'static str = "config.json";
    /// Longest configuration, bytes.
    pub const MAX_BYTES: u64 = 1 << 20;

    /// Reads a configuration. `limits` are those that the run has without it.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self> {
        let spec: Spec = serde_json::from_slice(text)
            .map_err(|error| Error::input(format!("config.json: {error}")).with_source(error))?;
        check_kind(&spec)?;
        check_hooks(&spec)?;
        let mut reader = Reader::default();
        let root = root(&spec, &mut reader)?;
        let process = spec.process().as_ref().ok_or_else(|| invalid("process", "it is missing"))?;
        let mut process = process::read(process, limits, &mut reader)?;
        let has_terminal = process.terminal;
        if let Some(name) = spec.hostname().as_deref().filter(|name| *name != HOST_NAME) {
            reader.without("hostname", name);
        }
        if let Some(name) = spec
            .domainname()
            .as_deref()
            .filter(|name| !name.is_empty() && *name != crate::boundary::DOMAIN_NAME)
        {
            reader.without("domainname", name);
        }
        let mut mounts = Vec::new();
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            mounts.extend(mounts::read(i, mount, has_terminal, &mut reader)?);
        }
        let linux = linux::read(spec.linux().as_ref(), limits, &mut process.limits, &mut reader)?;
        Ok(BundleConfig {
            root,
            argv: process.argv,
            env: process.env,
            cwd: process.cwd,
            user: process.user,
            terminal: process.terminal,
            mounts,
            limits: process.limits,
            masked_paths: linux.masked_paths,
            has_seccomp: linux.has_seccomp,
            not_granted: reader.not_granted,
        })
    }
}

/// A configuration of this specification, for a container of Linux.
fn check_kind(spec: &Spec) -> Result<()> {
    if spec.version().split('.').next() != Some("1") {
        return Err(Error::unsupported(format!(
            "config.json: ociVersion {:?} is not supported; supported: 1.x",
            spec.version()
        )));
    }
    let other = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    match other.into_iter().find(|(_, is_set)| *is_set) {
        Some((member, _)) => Err(Error::unsupported(format!(
            "config.json: {member} is set: the bundle is not one of a container of Linux"
        ))),
        None => Ok(()),
    }
}

fn check_hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let all: [(&str, &Option<Vec<Hook>>); 6] = [
        ("hooks.prestart", hooks.prestart()),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ];
    let first = all.into_iter().find_map(|(member, hooks)| Some((member, hooks.as_ref()?.first()?)));
    match first {
        Some((member, hook)) => Err(refused(
            member,
            hook.path(),
            "it is a program that would run outside of the container's limits",
        )),
        None => Ok(()),
    }
}

/// The path of the root file system. It must be in the bundle, so that a configuration cannot name a directory of the host.
fn root(spec: &Spec, reader: &mut Reader) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| invalid("root", "it is missing"))?;
    let path = root.path();
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::input(format!(
                    "config.json: root.path {path:?} is not granted: the root file system must be in the bundle"
                ))
                .with_hint("move it into the bundle, and name it by a relative path without `..`"));
            }
        }
    }
    if plain.as_os_str().is_empty() {
        return Err(invalid("root.path", format!("{path:?} names no directory in the bundle")));
    }
    if root.readonly() != Some(true) {
        reader.without("root.readonly", false);
    }
    Ok(plain)
}
