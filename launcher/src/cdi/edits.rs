//! What a container gets of its devices.

use super::hooks::{self, Effect};
use super::spec::{Device, Edits};
use super::{SpecFile, library};
use crate::device_name::DeviceName;
use crate::error::{Context as _, Error, Kind, Result};
use crate::mount_source;
use invarlock_evidence::delegated::NVIDIA;
use invarlock_evidence::format::devices::{Device as RecordedDevice, DeviceNode, Devices as Record};
use invarlock_runtime::{DeviceSource, Mount, MountSource};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

/// The most entries, files, links and variables of all devices together.
const MAX: usize = 512;

/// The opened devices and files.
#[derive(Debug, Default)]
pub struct Devices {
    /// Mounts of the container: devices and read-only files.
    pub mounts: Vec<Mount>,
    /// As they are recorded; none without devices.
    pub record: Option<Record>,
}

impl Devices {
    /// The environment of an image with the variables of the devices.
    pub fn added_to(&self, image: Vec<(String, String)>) -> Vec<(String, String)> {
        let own = self.record.iter().flat_map(Record::variables);
        image.into_iter().chain(own.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    /// A whole environment in which the dynamic loader finds the libraries of the devices last.
    pub fn with_libraries(&self, env: Vec<(String, String)>) -> Vec<(String, String)> {
        match &self.record {
            Some(record) => record.with_libraries(env),
            None => env,
        }
    }
}

/// What the devices ask for, before anything is opened.
#[derive(Debug, Default)]
pub(super) struct Collected {
    devices: Vec<RecordedDevice>,
    /// The files whose common part is added.
    added: BTreeSet<PathBuf>,
    environment: Vec<String>,
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
        let (specification, sha256) = (file.path.display().to_string(), file.sha256.clone());
        self.devices.push(RecordedDevice { name: name.to_string(), specification, sha256 });
        Ok(())
    }

    fn edit(&mut self, edits: &Edits) -> Result<()> {
        for text in &edits.env {
            if text.split_once('=').is_none_or(|(name, _)| name.is_empty()) || text.contains(char::is_control)
            {
                return Err(Error::input(format!("the variable {text:?} is not NAME=VALUE")));
            }
            self.environment.push(text.clone());
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
        let Self { environment, nodes, files, links, libraries, .. } = self;
        let all = [environment.len(), nodes.len(), files.len(), links.len(), libraries.len()];
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
            let (source, numbers) = (device.path().display().to_string(), device.numbers().to_owned());
            nodes.push(DeviceNode { path: path.clone(), source, numbers });
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
        let record = Record {
            devices: self.devices,
            nodes,
            files,
            environment: self.environment,
            libraries: self.libraries.into_iter().collect(),
            left_out,
            driver,
        };
        Ok(Devices { mounts, record: Some(record) })
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
