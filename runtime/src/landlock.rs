//! A second wall: Landlock, where the kernel has it. The mounts of the container already allow no more than this.
//!
//! The workload may read and execute everything in its root, write in `/out`, `/tmp`, `/run`, `/var/tmp`, `/dev` and `/proc` (as far as mounts
//! and modes allow), and nothing else. From Linux 6.12 it cannot send signals to init or connect to abstract sockets of other processes.

use crate::hooks;
use ::landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use invarlock_error::{Context as _, Foreign as _, Kind, Result};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;

/// The newest version of Landlock whose restrictions are requested; an older kernel applies those that it knows.
const VERSION: ABI = ABI::V6;
/// Where the workload may write.
const WRITABLE: [&str; 4] = ["/out", "/tmp", "/dev", "/proc"];
/// Where it may write too, if this is the file system of `/tmp`. Else the image decides what is there: a link to `/`, for instance.
const LIKE_TMP: [&str; 2] = ["/run", "/var/tmp"];

/// How much of the requested restrictions the kernel applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Landlock {
    /// All of them.
    Full,
    /// Those that this kernel knows.
    Partial,
    /// None: this kernel has no Landlock, or it is not enabled.
    None,
}

/// Restricts this process and all that it starts, which may also write in `mounts`. It must have no new privileges.
pub(crate) fn restrict(mounts: &[String]) -> Result<Landlock> {
    if hooks::second_wall_off() {
        return Ok(Landlock::None);
    }
    let status =
        build(mounts).err_kind(Kind::System).context("restricting the workload").in_control("landlock")?;
    Ok(match status {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::None,
    })
}

fn build(mounts: &[String]) -> std::result::Result<RulesetStatus, ::landlock::RulesetError> {
    let file_system = |path: &str| std::fs::metadata(path).ok().map(|found| found.dev());
    let temporary = file_system("/tmp");
    let like_tmp = LIKE_TMP.into_iter().filter(|path| temporary.is_some() && file_system(path) == temporary);
    // A path that cannot be opened gets no rule, so nothing below it is allowed.
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(VERSION)))?
        .add_rules(path_beneath_rules(WRITABLE.into_iter().chain(like_tmp), AccessFs::from_all(VERSION)))?
        .add_rules(path_beneath_rules(mounts, AccessFs::from_all(VERSION)))?
        .restrict_self()?;
    Ok(status.ruleset)
}
