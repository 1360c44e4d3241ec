//! Devices by the Container Device Interface (CDI): files that the owner of the machine, or the package of a driver, writes. They say what a
//! container needs to use a device: entries of `/dev`, files of the driver, variables. A file can also ask for hooks, which are programs of the
//! host. None is run here: what the known ones do is done otherwise, and an unknown one is an error.
//!
//! Nothing in these files is trusted: every path that they name is opened and checked as that of `--mount`.

mod edits;
mod hooks;
mod library;
mod spec;

pub use edits::Devices;

use crate::device_name::DeviceName;
use crate::error::{Context as _, Error, Kind, Result};
use edits::Collected;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::verify::read_evidence;
use spec::Spec;
use std::path::{Path, PathBuf};

/// Where specifications are; a device in a later directory replaces one in an earlier directory.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Most entries of a directory that are looked at.
const MAX_FILES: usize = 256;

/// A specification, and its file.
struct SpecFile {
    path: PathBuf,
    sha256: String,
    spec: Spec,
}

/// Finds the devices in the specifications of `directories`, or the usual ones if it is empty, and opens what they need.
///
/// # Errors
/// A device has no specification, or two of them, or its specification asks for what no container can have.
pub fn resolve(names: &[DeviceName], directories: &[PathBuf]) -> Result<Devices> {
    if names.is_empty() {
        return Ok(Devices::default());
    }
    let usual = DIRECTORIES.map(PathBuf::from);
    let directories = if directories.is_empty() { &usual[..] } else { directories };
    let files: Vec<Vec<SpecFile>> =
        directories.iter().map(|path| in_directory(path)).collect::<Result<_>>()?;
    let mut collected = Collected::default();
    for name in names {
        for name in name.clone().given(|variable| std::env::var(variable).ok())? {
            let (file, device) = find(&name, &files, directories)?;
            collected.add(&name, file, device)?;
        }
    }
    collected.open()
}

/// The specifications of a directory, in the order of their names. A directory that does not exist has none.
fn in_directory(directory: &Path) -> Result<Vec<SpecFile>> {
    let doing = || format!("reading the device specifications in {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(doing)?,
    };
    let mut paths = Vec::new();
    for entry in entries.take(MAX_FILES) {
        let path = entry.with_context(doing)?.path();
        if path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<SpecFile> {
    let bytes = read_evidence(&path, spec::MAX_BYTES)
        .with_context(|| format!("reading the device specification {}", path.display()))
        .map_err(|error| error.with_kind(Kind::Input))?;
    Ok(SpecFile { spec: Spec::parse(&path, &bytes)?, sha256: sha256_hex(&bytes), path })
}

/// The device of this name in the last directory that has it.
fn find<'a>(
    name: &DeviceName,
    files: &'a [Vec<SpecFile>],
    directories: &[PathBuf],
) -> Result<(&'a SpecFile, &'a spec::Device)> {
    let devices = |file: &'a SpecFile| file.spec.devices.iter().map(move |device| (file, device));
    for directory in files.iter().rev() {
        let mut found = directory
            .iter()
            .filter(|file| file.spec.kind == name.kind)
            .flat_map(devices)
            .filter(|(_, device)| device.name == name.name);
        match (found.next(), found.next()) {
            (Some((one, _)), Some((other, _))) => {
                let (one, other) = (one.path.display(), other.path.display());
                return Err(Error::input(format!("device {name} is in {one} and again in {other}")))
                    .map_err(|error| error.with_hint("remove one of the two"));
            }
            (Some(found), None) => return Ok(found),
            (None, _) => {}
        }
    }
    let known: Vec<String> = files
        .iter()
        .flatten()
        .flat_map(devices)
        .take(32)
        .map(|(file, device)| format!("{}={}", file.spec.kind, device.name))
        .collect();
    let shown = directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ");
    Err(Error::input(format!("device {name} is in no specification of {shown}"))).map_err(|error| {
        error.with_hint(match known.is_empty() {
            true => "there is none; for NVIDIA's GPUs, `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` makes one".to_owned(),
            false => format!("devices: {}", known.join(", ")),
        })
    })
}

/// Reads a specification and collects what each of its devices asks for. No file is opened.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let path = PathBuf::from("devices.json");
    let Ok(spec) = Spec::parse(&path, bytes) else { return };
    let file = SpecFile { path, sha256: String::new(), spec };
    for device in &file.spec.devices {
        let name = DeviceName { kind: file.spec.kind.clone(), name: device.name.clone() };
        _ = Collected::default().add(&name, &file, device);
    }
}

#[cfg(test)]
mod tests;
