//! Devices of the host in a container, as the Container Device Interface describes them: in the plan of an evaluation by another program, and in
//! the JSON output of `runtime run`.

use serde::{Deserialize, Serialize};

/// The devices of a container, and what their specifications ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Devices {
    /// The devices by name.
    pub devices: Vec<Device>,
    /// The entries of `/dev`.
    pub nodes: Vec<DeviceNode>,
    /// The paths of the container at which files of the host are mounted, read-only.
    pub files: Vec<String>,
    /// The variables, `NAME=value`, in the order in which they are set.
    pub environment: Vec<String>,
    /// The directories of the container that are appended to `LD_LIBRARY_PATH`.
    pub libraries: Vec<String>,
    /// What the specifications ask for and the container does not have: sockets, and links to files that are not mounted.
    pub left_out: Vec<String>,
    /// The version of NVIDIA's driver; null for other devices, and where it cannot be read.
    pub driver: Option<String>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `VENDOR/CLASS=NAME`.
    pub name: String,
    /// The file with its specification.
    pub specification: String,
    /// SHA-256 of this file, hexadecimal.
    pub sha256: String,
}

/// An entry of `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceNode {
    /// Its path in the container.
    pub path: String,
    /// Its path on the host, without links.
    pub source: String,
    /// Major and minor number.
    pub numbers: String,
}

/// The variable in which the dynamic loader finds directories of libraries.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

impl Devices {
    /// The variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|line| line.split_once('=').unwrap_or((line, "")))
    }

    /// A whole environment in which the dynamic loader finds the libraries of the devices last.
    pub fn with_libraries(&self, mut environment: Vec<(String, String)>) -> Vec<(String, String)> {
        if self.libraries.is_empty() {
            return environment;
        }
        let own = self.libraries.join(":");
        match environment.iter_mut().find(|(name, _)| name == LIBRARY_PATH) {
            Some((_, value)) if !value.is_empty() => *value = format!("{value}:{own}"),
            Some((_, value)) => *value = own,
            None => environment.push((LIBRARY_PATH.to_owned(), own)),
        }
        environment
    }

    /// Whether a whole environment, in which the launcher set the variables `later`, is one with these devices.
    pub fn are_in(&self, environment: &[String], later: impl Fn(&str) -> bool) -> bool {
        let value = |name: &str| {
            let mut lines = environment.iter().filter_map(|line| line.split_once('='));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let last = |name: &str| self.variables().filter(|(found, _)| *found == name).last();
        let own = self.libraries.join(":");
        let path = match last(LIBRARY_PATH) {
            // What stands before is of the image.
            None if own.is_empty() => true,
            None => value(LIBRARY_PATH).is_some_and(|found| {
                found.strip_suffix(&own).is_some_and(|rest| rest.is_empty() || rest.ends_with(':'))
            }),
            Some((_, set)) => {
                let parts = [set, &own].into_iter().filter(|part| !part.is_empty());
                value(LIBRARY_PATH) == Some(parts.collect::<Vec<_>>().join(":").as_str())
            }
        };
        let mut others = self.variables().filter(|(name, _)| *name != LIBRARY_PATH && !later(name));
        path && others.all(|(name, _)| value(name) == last(name).map(|(_, set)| set))
    }
}

/// Kind and name of a device that is written `VENDOR/CLASS=NAME`; none if it is written otherwise.
pub fn parse_name(text: &str) -> Option<(&str, &str)> {
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        !part.is_empty() && part.len() <= 128 && part.chars().all(allowed)
    };
    let (kind, name) = text.split_once('=')?;
    let (vendor, class) = kind.split_once('/')?;
    [vendor, class, name].into_iter().all(plain).then_some((kind, name))
}
