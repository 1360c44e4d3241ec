//! Finds the hierarchy of a controller and the parent of a run's cgroup in it.

use super::Controller;
use crate::procfs::{self, unescape};
use std::path::{Path, PathBuf};

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where the run's directory is created.
#[derive(Debug, PartialEq)]
pub(crate) struct Parent {
    pub(crate) version: Version,
    pub(crate) dir: PathBuf,
}

/// The cgroup hierarchies and this process's cgroups in them.
pub(crate) struct Hierarchies {
    mounts: String,
    own: String,
}

impl Hierarchies {
    /// Reads both files once, because generating the mount table is slow.
    pub(crate) fn read() -> Result<Self, String> {
        let read = |path: &str| procfs::read(path).map_err(|e| format!("reading {path}: {e}"));
        Ok(Hierarchies { mounts: read("/proc/self/mountinfo")?, own: read("/proc/self/cgroup")? })
    }

    /// The parent for a controller, or why there is none.
    pub(crate) fn find(&self, controller: Controller) -> Result<Parent, String> {
        let (version, mount) = hierarchy(controller, &self.mounts).ok_or("no cgroup hierarchy is mounted")?;
        let dir = own_dir(version, controller, &mount, &self.own)
            .ok_or("the caller's own cgroup is not visible")?;
        match version {
            Version::V1 => Ok(Parent { version, dir }),
            Version::V2 => v2_parent(controller, &mount, &dir).map(|dir| Parent { version, dir }),
        }
    }
}

struct Mount {
    /// The mounted directory of the hierarchy.
    root: String,
    point: PathBuf,
}

/// The hierarchy with the controller: version 1 if it is mounted there, otherwise version 2.
fn hierarchy(controller: Controller, mountinfo: &str) -> Option<(Version, Mount)> {
    let mut unified = None;
    for line in mountinfo.lines() {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(point)) = (left.get(3), left.get(4)) else { continue };
        let mount = Mount { root: unescape(root), point: PathBuf::from(unescape(point)) };
        match (right.first(), right.last()) {
            (Some(&"cgroup"), Some(options)) if options.split(',').any(|o| o == controller.name()) => {
                return Some((Version::V1, mount));
            }
            (Some(&"cgroup2"), _) => unified = unified.or(Some((Version::V2, mount))),
            _ => {}
        }
    }
    unified
}

/// The caller's own directory in that hierarchy, below its mount point.
fn own_dir(version: Version, controller: Controller, mount: &Mount, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let matches = match version {
            Version::V1 => controllers.split(',').any(|c| c == controller.name()),
            Version::V2 => number == "0",
        };
        matches.then_some(path)
    })?;
    let below = Path::new(path).strip_prefix(&mount.root).ok()?;
    if below.components().any(|c| c == std::path::Component::ParentDir) {
        return None;
    }
    Some(mount.point.join(below))
}

/// On version 2 a cgroup with processes cannot delegate controllers to children. The run's cgroup is therefore below the caller's own
/// cgroup only if that one delegates the controller, otherwise beside it.
fn v2_parent(controller: Controller, mount: &Mount, own: &Path) -> Result<PathBuf, String> {
    let delegates = |dir: &Path| {
        let text = procfs::read(dir.join("cgroup.subtree_control")).unwrap_or_default();
        text.split_whitespace().any(|c| c == controller.name())
    };
    let above = own.parent().filter(|p| p.starts_with(&mount.point));
    let parent = [Some(own), above].into_iter().flatten().find(|dir| delegates(dir));
    parent.map(Path::to_path_buf).ok_or_else(|| {
        format!(
            "the {} controller is not delegated to {} nor to the cgroup above it",
            controller.name(),
            own.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_a_controller_in_its_own_hierarchy() {
        let (version, mount) = hierarchy(Controller::Cpu, HYBRID).expect("cpu");
        assert_eq!((version, mount.point), (Version::V1, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        let (version, mount) = hierarchy(Controller::Pids, HYBRID).expect("pids");
        assert_eq!((version, mount.point), (Version::V2, PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn own_directory_is_below_the_mount() {
        let mount = Mount { root: "/job".into(), point: "/cg/memory".into() };
        let own = "4:memory:/job/step\n0::/x\n";
        assert_eq!(own_dir(Version::V1, Controller::Memory, &mount, own), Some("/cg/memory/step".into()));
        assert_eq!(own_dir(Version::V1, Controller::Memory, &mount, "4:memory:/other\n"), None);
        assert_eq!(own_dir(Version::V1, Controller::Memory, &mount, "4:memory:/job/../..\n"), None);
    }
}
