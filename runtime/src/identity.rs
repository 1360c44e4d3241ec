//! The ids of the workload, inside and on the host.
//!
//! | started by | inside | on the host |
//! |---|---|---|
//! | root | init 0, workload 65532 | two random ids of [`HOST_IDS`] |
//! | a user | 0 for both, without any capability | the user's own ids |
//!
//! A run of a user's command can have other ids inside ([`IdsInside`]): those of the image's user. If the workload is 0, init of root's run is
//! 65533. The ids on the host are the same.
//!
//! The kernel counts many resources for each user of the host (inotify instances, pending signals, pages of pipes). So each of root's runs
//! has its own ids: a random pair. Process ids would be the same in two pid namespaces that share the host's users.
//!
//! [`HOST_IDS`] are above all ids that `useradd` assigns to users (up to 60000) or as subordinate ranges (from 100000, at most
//! 600100000), above systemd's dynamic and container ranges (up to 1879048191), and below 2^31, the limit of some file systems. Therefore
//! no account and no other container runtime uses them.

use crate::boundary::SETGROUPS;
use crate::{hooks, procfs};
use invarlock_error::{Context as _, Error, Result};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// Number of pairs of host ids. Two of a hundred runs at the same time have the same pair with a probability of about 1 to 850.
const PAIRS: u32 = 1 << 22;
/// First of the host ids.
const FIRST_HOST_ID: u32 = 2_080_374_784;
/// The host ids of runs started by root: two for each pair.
pub const HOST_IDS: RangeInclusive<u32> = FIRST_HOST_ID..=FIRST_HOST_ID + 2 * PAIRS - 1;
/// The pair of this process.
static PAIR: LazyLock<u32> = LazyLock::new(|| {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => u32::from_ne_bytes(bytes) % PAIRS,
        // No kernel that is supported fails here.
        _ => std::process::id() % PAIRS,
    }
});
/// The workload's id inside, in a run started by root: `nonroot` of distroless images.
pub const INSIDE: u32 = 65_532;

/// Init's id inside, in a run started by root whose workload is 0.
const INIT_BESIDE_0: u32 = 65_533;

/// What root needs to map ids, to mount files with other owners, and to give pipes to the workload.
const NEEDED: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
];

/// The workload's ids inside. They decide only how the ids are named inside: no id of a run has a privilege on the host, and the workload has
/// no capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsInside {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl IdsInside {
    /// Those of an image without a user.
    pub const ROOT: Self = IdsInside { uid: 0, gid: 0 };
    /// The largest id: the kernel and many programs give the two above it a meaning of their own.
    pub const MAX: u32 = u32::MAX - 2;
}

/// The ids of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whether root started it.
    pub by_root: bool,
    /// The workload's user id on the host.
    pub host_uid: u32,
    /// The workload's group id on the host.
    pub host_gid: u32,
    /// The workload's ids inside.
    pub inside: IdsInside,
}

impl Identity {
    /// The identity of a measurement whose supervisor is this process.
    pub fn of_own_run() -> Self {
        Self::of_own_run_as(None)
    }

    /// The identity of a run whose supervisor is this process, with these ids inside.
    pub(crate) fn of_own_run_as(inside: Option<IdsInside>) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        match uid.is_root() {
            true => {
                let id = FIRST_HOST_ID + 2 * *PAIR + 1;
                let inside = inside.unwrap_or(IdsInside { uid: INSIDE, gid: INSIDE });
                Identity { by_root: true, host_uid: id, host_gid: id, inside }
            }
            false => Identity {
                by_root: false,
                host_uid: uid.as_raw(),
                host_gid: gid.as_raw(),
                inside: inside.unwrap_or(IdsInside::ROOT),
            },
        }
    }

    /// Whether this is the host id of a workload, and not of its init, in a run started by root.
    pub fn is_workload_of_root(host_id: u32) -> bool {
        HOST_IDS.contains(&host_id) && (host_id - FIRST_HOST_ID) % 2 == 1
    }

    /// Init's user and group id on the host, in a run started by root.
    fn init(self) -> u32 {
        self.host_uid - 1
    }

    /// Init's ids inside: those of the workload in a run started by a user, which can map only one id.
    pub(crate) fn init_inside(self) -> IdsInside {
        let beside = |workload| if workload == 0 { INIT_BESIDE_0 } else { 0 };
        match self.by_root {
            true => IdsInside { uid: beside(self.inside.uid), gid: beside(self.inside.gid) },
            false => self.inside,
        }
    }

    /// Fails for a root user who cannot have runs with ids of their own: in a user namespace that does not map the two host ids, or without
    /// the capabilities that this needs. Such a root user is usual in containers.
    pub(crate) fn check(self) -> Result<()> {
        if !self.by_root {
            return Ok(());
        }
        let unfit = |why: String| {
            let hint = "run as an ordinary user (in a container: `--user 1000`, or `runAsUser` in Kubernetes), or as root of the machine";
            Err(Error::unsupported(format!("this root user {why}")).in_control("identity").with_hint(hint))
        };
        let held = rustix::thread::capabilities(None).context("reading the own capabilities")?.effective;
        let missing = NEEDED.iter().filter(|(capability, _)| !held.contains(*capability));
        let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
        if !missing.is_empty() {
            return unfit(format!("lacks {}", missing.join(", ")));
        }
        let covers = |line: &str| {
            let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
            let (first, _, count) =
                (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
            first <= u64::from(self.init()) && first + count > u64::from(self.host_uid)
        };
        for file in ["/proc/self/uid_map", "/proc/self/gid_map"] {
            let text = procfs::read(file).with_context(|| format!("reading {file}"))?;
            if !text.lines().any(covers) {
                let (init, workload) = (self.init(), self.host_uid);
                return unfit(format!("is in a user namespace without the ids {init} and {workload}"));
            }
        }
        Ok(())
    }

    /// Lines of `uid_map` and `gid_map`.
    pub(crate) fn maps(self) -> (String, String) {
        match self.by_root {
            true => {
                let (init, first) = (self.init_inside(), self.init());
                let map = |init, workload, host| format!("{init} {first} 1\n{workload} {host} 1\n");
                (map(init.uid, self.inside.uid, self.host_uid), map(init.gid, self.inside.gid, self.host_gid))
            }
            false => (
                format!("{} {} 1\n", self.inside.uid, self.host_uid),
                format!("{} {} 1\n", self.inside.gid, self.host_gid),
            ),
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
