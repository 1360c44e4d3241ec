//! The ids of the workload, inside and on the host.
//!
//! | started by | inside | on the host |
//! |---|---|---|
//! | root | init 0, workload 65532 | [`ROOT_BASE`], [`ROOT_BASE`]` + 1` |
//! | a user | 0 for both, without any capability | the user's own ids |
//!
//! The two host ids of root's runs are above all ids that `useradd` assigns to users (up to 60000) or as subordinate ranges (from
//! 100000, at most 600100000), above systemd's dynamic and container ranges (up to 1879048191), and below 2^31, the limit of some file
//! systems. Therefore no account and no other container runtime uses them.

use crate::boundary::SETGROUPS;
use crate::{hooks, procfs};
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};

/// First of the two host ids of a run started by root.
pub const ROOT_BASE: u32 = 2_080_374_784;
/// The workload's id inside, in a run started by root: `nonroot` of distroless images.
pub const INSIDE: u32 = 65_532;

/// The ids of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whether root started it.
    pub by_root: bool,
    /// The workload's user id on the host.
    pub host_uid: u32,
    /// The workload's group id on the host.
    pub host_gid: u32,
    /// The workload's user and group id inside.
    pub inside: u32,
}

impl Identity {
    /// The identity of a run that this process starts.
    pub fn of_caller() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        match uid.is_root() {
            true => {
                Identity { by_root: true, host_uid: ROOT_BASE + 1, host_gid: ROOT_BASE + 1, inside: INSIDE }
            }
            false => Identity { by_root: false, host_uid: uid.as_raw(), host_gid: gid.as_raw(), inside: 0 },
        }
    }

    /// Fails for the root user of a user namespace that does not map the two host ids.
    pub(crate) fn check(self) -> Result<()> {
        let covers = |line: &str| {
            let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
            let (first, _, count) =
                (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
            first <= u64::from(ROOT_BASE) && first + count > u64::from(ROOT_BASE) + 1
        };
        for file in ["/proc/self/uid_map", "/proc/self/gid_map"] {
            let text = procfs::read(file).with_context(|| format!("reading {file}"))?;
            if self.by_root && !text.lines().any(covers) {
                return Err(Error::unsupported(format!(
                    "this root user is in a user namespace without the ids {ROOT_BASE} and {}",
                    ROOT_BASE + 1
                ))
                .in_control("identity")
                .with_hint("run as an ordinary user, or as root of the machine"));
            }
        }
        Ok(())
    }

    /// Lines of `uid_map` and `gid_map`.
    pub(crate) fn maps(self) -> (String, String) {
        match self.by_root {
            true => {
                let map = format!("0 {ROOT_BASE} 1\n{INSIDE} {} 1\n", ROOT_BASE + 1);
                (map.clone(), map)
            }
            false => (format!("0 {} 1\n", self.host_uid), format!("0 {} 1\n", self.host_gid)),
        }
    }

    /// Writes the id maps of a process that was cloned into a new user namespace. Root may map any id, a user only its own.
    ///
    /// setgroups is written first: the kernel accepts it only before the group map, and requires it of a user.
    pub(crate) fn write_maps_of(self, pid: i32) -> Result<()> {
        let (uid, gid) = self.maps();
        let setgroups = if hooks::off("setgroups") { "allow" } else { SETGROUPS };
        for (file, text) in [("setgroups", setgroups), ("uid_map", &uid), ("gid_map", &gid)] {
            std::fs::write(format!("/proc/{pid}/{file}"), text)
                .with_context(|| format!("writing the {file} of the run"))?;
        }
        Ok(())
    }
}
