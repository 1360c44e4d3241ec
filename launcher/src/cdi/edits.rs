//! What a container gets of its devices.

use super::hooks::{self, Effect};
use super::spec::{Device, Edits};
use super::{SpecFile, library};
use crate::device_name::{DeviceName, NVIDIA};
use crate::error::{Context as _, Error, Kind, Result};
use crate::mount_source;
use invarlock_runtime::{DeviceSource, Mount, MountSource};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

/// The most entries, files, links and variables of all devices together.
const MAX: usize = 512;
/// The variable in which the dynamic loader finds directories of libraries.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// The opened devices and files.
#[derive(Debug, Default)]
pub struct Devices {
    /// Mounts of the container: devices and read-only files.
    pub mounts: Vec<Mount>,
    /// Variables of the container.
    env: Vec<(String, String)>,
    /// Directories of the container with libraries.
    libraries: BTreeSet<String>,
    /// For JSON output; none without devices.
    pub output: Option<DevicesOutput>,
}

/// The devices of a run, in JSON output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DevicesOutput {
    /// The devices by name.
    devices: Vec<DeviceOutput>,
    /// The entries of `/dev`.
    nodes: Vec<NodeOutput>,
    /// The paths of the container at which files of the host are mounted.
    files: Vec<String>,
    /// What the specifications ask for and the container does not have: sockets, and links to files that are not mounted.
    left_out: Vec<String>,
    /// The version of NVIDIA's driver; null for other devices, and where it cannot be read.
    driver: Option<String>,
}

/// A device, in JSON output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DeviceOutput {
    /// `VENDOR/CLASS=NAME`.
    name: String,
    /// The file with its specification.
    specification: PathBuf,
    /// SHA-256 of this file, hexadecimal.
    sha256: String,
}

/// An entry of `/dev`, in JSON output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct NodeOutput {
    /// Its path in the container.
    path: String,
    /// Its path on the host, without links.
    source: PathBuf,
    /// Major and minor number.
    numbers: String,
}

impl Devices {
    /// The environment of an image with the variables of the devices.
    pub fn added_to(&self, image: Vec<(String, String)>) -> Vec<(String, String)> {
        image.into_iter().chain(self.env.iter().cloned()).collect()
    }

    /// A whole environment in which the dynamic loader finds the libraries of the devices last.
    pub fn with_libraries(&self, mut env: Vec<(String, String)>) -> Vec<(String, String)> {
        if self.libraries.is_empty() {
            return env;
        }
        let own = self.libraries.iter().map(String::as_str).collect::<Vec<_>>().join(":");
        match env.iter_mut().find(|(name, _)| name == LIBRARY_PATH) {
            Some((_, value)) if !value.is_empty() => *value = format!("{value}:{own}"),
            Some((_, value)) => *value = own,
            None => env.push((LIBRARY_PATH.to_owned(), own)),
        }
        env
    }
}

/// What the devices ask for, before anything is opened.
#[derive(Debug, Default)]
pub(super) struct Collected {
    devices: Vec<DeviceOutput>,
    /// The files whose common part is added.
    added: BTreeSet<PathBuf>,
    env: Vec<(String, String)>,
    /// Paths in the container, and on the host.
    nodes: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    /// Texts of links, and their paths in the container.
    links: BTreeSet<(String, String)>,
    libraries: BTreeSet<String>,
}

impl Collected {
    /// Adds a device, and what its specification asks for every one.
    pub(super) fn add(&mut self, name: &DeviceName, file: &SpecFile, device: &Device) -> Result<()> {
        let doing = || format!("device {name} of {}", file.path.display());
        if self.added.insert(file.path.clone()) {
            self.edit(&file.spec.container_edits).with_context(doing)?;
        }
        self.edit(&device.container_edits).with_context(doing)?;
        let (specification, sha256) = (file.path.clone(), file.sha256.clone());
        self.devices.push(DeviceOutput { name: name.to_string(), specification, sha256 });
        Ok(())
    }

    fn edit(&mut self, edits: &Edits) -> Result<()> {
        for text in &edits.env {
            let (name, value) = text.split_once('=').unwrap_or_default();
            if name.is_empty() || text.contains(char::is_control) {
                return Err(Error::input(format!("the variable {text:?} is not NAME=VALUE")));
            }
            self.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &edits.device_nodes {
            if !matches!(node.kind.as_deref(), None | Some("" | "c" | "u")) {
                return Err(Error::input(format!("{} is not a character device", node.path)));
            }
            let source = node.host_path.as_ref().unwrap_or(&node.path);
            insert(&mut self.nodes, &node.path, source)?;
        }
        for mount in &edits.mounts {
            insert(&mut self.files, &mount.container_path, &mount.host_path)?;
        }
        for hook in &edits.hooks {
            for effect in hooks::effects(hook)? {
                match effect {
                    Effect::Link { text, at } => drop(self.links.insert((text, at))),
                    Effect::Libraries(directory) => drop(self.libraries.insert(directory)),
                }
            }
        }
        let all =
            [self.env.len(), self.nodes.len(), self.files.len(), self.links.len(), self.libraries.len()];
        if all.iter().sum::<usize>() > MAX {
            return Err(Error::input(format!(
                "the devices ask for more than {MAX} entries, files and variables"
            )));
        }
        Ok(())
    }

    /// Opens every device and file.
    pub(super) fn open(mut self) -> Result<Devices> {
        self.name_libraries();
        let mut left_out = self.follow_links();
        let (mut mounts, mut nodes, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (path, source) in self.nodes {
            let device = DeviceSource::open(Path::new(&source)).hint(OUTDATED)?;
            let (source, numbers) = (device.path().to_owned(), device.numbers().to_owned());
            nodes.push(NodeOutput { path: path.clone(), source, numbers });
            mounts.push(Mount { target: path, source: MountSource::Device(device) });
        }
        for (target, source) in self.files {
            let found = Path::new(&source).metadata();
            let found = found.with_context(|| format!("opening the file {source} of a device"));
            let found = found.map_err(|error| error.with_kind(Kind::Input)).hint(OUTDATED)?;
            if found.file_type().is_socket() {
                left_out.push(target);
                continue;
            }
            let source =
                mount_source::open(Path::new(&source), false).context("opening a file of a device")?;
            files.push(target.clone());
            mounts.push(Mount { target, source: MountSource::Bind { source, writable: false } });
        }
        let nvidia = self.devices.iter().any(|device| device.name.starts_with(NVIDIA));
        let driver = nvidia.then(library::nvidia_driver).flatten();
        let output = DevicesOutput { devices: self.devices, nodes, files, left_out, driver };
        Ok(Devices { mounts, env: self.env, libraries: self.libraries, output: Some(output) })
    }

    /// The dynamic loader finds a library by the name in it, for which `ldconfig` makes a link. Here the file is mounted a second time.
    fn name_libraries(&mut self) {
        for (target, source) in self.files.clone() {
            let Some((directory, name)) = target.rsplit_once('/') else { continue };
            let wanted =
                self.libraries.contains(directory).then(|| library::name(Path::new(&source))).flatten();
            if let Some(wanted) = wanted.filter(|wanted| wanted != name && !wanted.contains('/')) {
                self.files.entry(format!("{directory}/{wanted}")).or_insert(source);
            }
        }
    }

    /// Mounts a file a second time in place of each link to it. Returns the paths of the links whose file is not mounted.
    fn follow_links(&mut self) -> Vec<String> {
        let mut left = std::mem::take(&mut self.links);
        loop {
            let before = left.len();
            left.retain(|(text, at)| {
                let found = end_of_link(text, at).and_then(|end| self.files.get(&end).cloned());
                match found {
                    Some(source) => {
                        self.files.entry(at.clone()).or_insert(source);
                        false
                    }
                    None => true,
                }
            });
            if left.len() == before {
                return left.into_iter().map(|(_, at)| at).collect();
            }
        }
    }
}

/// The hint where a file of a specification does not exist.
const OUTDATED: &str = "the specification may be older than the driver: make it again, for NVIDIA's GPUs with `nvidia-ctk cdi generate`";

fn insert(into: &mut BTreeMap<String, String>, target: &str, source: &str) -> Result<()> {
    match into.insert(target.to_owned(), source.to_owned()) {
        Some(other) if other != source => {
            Err(Error::input(format!("{target} is to be {other} and {source}")))
        }
        _ => Ok(()),
    }
}

/// The path that a link leads to, without looking at any file.
fn end_of_link(text: &str, at: &str) -> Option<String> {
    let mut path = PathBuf::new();
    for part in Path::new(at).parent()?.join(text).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path.to_str().map(str::to_owned)
}
