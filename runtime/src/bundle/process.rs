//! `process` of a configuration.

use super::reader::{BundleLimits, Reader, invalid, refused};
use crate::boundary::UMASK;
use crate::identity::IdsInside;
use crate::rlimit;
use crate::rlimit_kind::{LowerRlimit, RlimitKind};
use crate::spec::Limits;
use invarlock_error::Result;
use oci_spec::runtime::{Capability, LinuxCapabilities, PosixRlimit, Process, User};
use std::collections::BTreeSet;

/// Capabilities that container engines give every container. A program that needs another one asks for it.
const USUAL: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The command of a configuration.
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: IdsInside,
    pub(super) terminal: bool,
    pub(super) limits: BundleLimits,
}

pub(super) fn read(process: &Process, limits: &Limits, reader: &mut Reader) -> Result<Command> {
    let argv = process.args().clone().unwrap_or_default();
    if argv.first().is_none_or(String::is_empty) {
        return Err(invalid("process.args", "it names no program"));
    }
    check_labels(process)?;
    check_scheduling(process)?;
    if let Some(capabilities) = process.capabilities() {
        self::capabilities(capabilities, reader)?;
    }
    if let Some(score) = process.oom_score_adj().filter(|score| *score != 0) {
        reader.without("process.oomScoreAdj", score);
    }
    let cwd = process.cwd().to_str().filter(|path| path.starts_with('/'));
    Ok(Command {
        env: process.env().iter().flatten().enumerate().map(variable).collect::<Result<_>>()?,
        argv,
        cwd: cwd.ok_or_else(|| invalid("process.cwd", "it must be an absolute path"))?.to_owned(),
        user: user(process.user(), reader)?,
        terminal: process.terminal().unwrap_or(false),
        limits: rlimits(process.rlimits().as_deref().unwrap_or_default(), limits, reader)?,
    })
}

fn variable((i, text): (usize, &String)) -> Result<(String, String)> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) =
        pair.ok_or_else(|| invalid(&format!("process.env[{i}]"), format!("{text:?} is not NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn user(user: &User, reader: &mut Reader) -> Result<IdsInside> {
    let ids = IdsInside { uid: user.uid(), gid: user.gid() };
    if let Some(id) = [ids.uid, ids.gid].into_iter().find(|id| *id > IdsInside::MAX) {
        return Err(invalid("process.user", format!("{id} is above the largest id, {}", IdsInside::MAX)));
    }
    let others = user.additional_gids().iter().flatten().filter(|group| **group != ids.gid);
    for group in others.collect::<BTreeSet<_>>() {
        reader.without("process.user.additionalGids", group);
    }
    match user.umask() {
        Some(umask) if umask != UMASK => {
            Err(refused("process.user.umask", umask, &format!("a run starts with {UMASK} ({UMASK:#05o})")))
        }
        _ => Ok(ids),
    }
}

fn capabilities(sets: &LinuxCapabilities, reader: &mut Reader) -> Result<()> {
    let all = [sets.bounding(), sets.effective(), sets.inheritable(), sets.permitted(), sets.ambient()];
    let named = all.into_iter().flatten().flatten();
    let mut names = BTreeSet::new();
    for capability in named {
        let name = format!("CAP_{capability}");
        if !USUAL.contains(capability) {
            return Err(refused("process.capabilities", name, "no container has a capability"));
        }
        names.insert(name);
    }
    names.iter().for_each(|name| reader.without("process.capabilities", name));
    Ok(())
}

/// Labels are restrictions that a run does not apply.
fn check_labels(process: &Process) -> Result<()> {
    let labels = [
        ("process.apparmorProfile", process.apparmor_profile(), "unconfined"),
        ("process.selinuxLabel", process.selinux_label(), ""),
    ];
    for (member, label, none) in labels {
        if let Some(label) = label.as_deref().filter(|label| !label.is_empty() && *label != none) {
            return Err(refused(member, label, "runs have no label of a security module"));
        }
    }
    Ok(())
}

fn check_scheduling(process: &Process) -> Result<()> {
    let set = [
        ("process.commandLine", process.command_line().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((member, _)) => Err(refused(member, "…", "a run cannot apply it")),
        None => Ok(()),
    }
}

/// A lower limit than that of a run is applied; a higher one is not granted.
fn rlimits(requested: &[PosixRlimit], limits: &Limits, reader: &mut Reader) -> Result<BundleLimits> {
    let mut found = BundleLimits::default();
    let of_run = rlimit::of_run(limits, false, false);
    let mut seen = BTreeSet::new();
    for limit in requested {
        let member = format!("process.rlimits {}", limit.typ());
        let kind = RlimitKind::of_posix(limit.typ());
        if !seen.insert(kind) {
            return Err(invalid(&member, "it is set twice"));
        }
        if limit.soft() > limit.hard() {
            return Err(invalid(&member, format!("soft {} is above hard {}", limit.soft(), limit.hard())));
        }
        let own = match kind {
            RlimitKind::Nproc => Some(limits.pids),
            _ => rlimit::value(&of_run, kind).and_then(|value| value.soft),
        };
        let soft = Some(limit.soft()).filter(|value| *value != u64::MAX);
        match (soft, own) {
            (None, None) => {}
            (None, Some(_)) => reader.without(&member, "unlimited"),
            (Some(soft), Some(own)) if soft > own => reader.without(&member, soft),
            (Some(soft), Some(own)) if soft == own => {}
            (Some(soft), _) => match kind {
                RlimitKind::Nofile => found.open_files = Some(soft),
                RlimitKind::Nproc => found.pids = Some(soft),
                // A run's is 1 byte, which prevents dumps: see `core_dumps.rs`.
                RlimitKind::Core => {}
                _ => found.rlimits.push(LowerRlimit { kind, value: soft }),
            },
        }
    }
    Ok(found)
}
