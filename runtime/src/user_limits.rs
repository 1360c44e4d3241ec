//! The limits of the run's user namespace for resources that the kernel counts for each user of the host: `user.max_*`.
//!
//! Without them a run could use all inotify instances of the user who started it, and that user's own programs would fail. The kernel counts
//! a use in the namespace and in all above it, and each has its own limit.

use crate::{hooks, procfs};
use invarlock_error::{Context as _, Foreign as _, Kind, Result};
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// The limits: the name of the file in `/proc/sys/user`, and the value. The run's own namespaces exist already, and it may create no others.
/// `max_mnt_namespaces` is not among them, because the kernel counts every detached mount while a container is built; the filter denies
/// the calls that create one.
pub(crate) const USER_LIMITS: [(&str, u64); 11] = [
    ("max_cgroup_namespaces", 0),
    ("max_fanotify_groups", 0),
    ("max_fanotify_marks", 0),
    ("max_inotify_instances", 4),
    ("max_inotify_watches", 1024),
    ("max_ipc_namespaces", 0),
    ("max_net_namespaces", 0),
    ("max_pid_namespaces", 0),
    ("max_time_namespaces", 0),
    ("max_user_namespaces", 0),
    ("max_uts_namespaces", 0),
];

/// Sets the limits of this process's user namespace. `proc` is the directory of a mounted `/proc`. A kernel without a kind of resource has no
/// limit of it.
pub(crate) fn set(proc: &str) -> Result<()> {
    if hooks::off("user limits") {
        return Ok(());
    }
    for (name, value) in USER_LIMITS {
        let path = format!("{proc}/sys/user/{name}");
        match std::fs::write(&path, value.to_string()) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => other.with_context(|| format!("writing {path}")).in_control("limits")?,
        }
    }
    Ok(())
}

/// Reads the limits of this process's user namespace. One that the kernel does not have is 0: no such resource can be used.
pub(crate) fn read() -> Result<BTreeMap<String, u64>> {
    let limit = |(name, _): (&str, u64)| {
        let path = format!("/proc/sys/user/{name}");
        let doing = || format!("reading {path}");
        match procfs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok((name.to_owned(), 0)),
            other => {
                let value =
                    other.with_context(doing)?.trim().parse().err_kind(Kind::System).with_context(doing)?;
                Ok((name.to_owned(), value))
            }
        }
    };
    USER_LIMITS.into_iter().map(limit).collect()
}

/// Whether no limit is above its value.
pub(crate) fn are_set(limits: &BTreeMap<String, u64>) -> bool {
    USER_LIMITS.iter().all(|(name, value)| limits.get(*name).is_some_and(|found| found <= value))
}
