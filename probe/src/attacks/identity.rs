//! Attacks on the controls "identity", "capabilities" and "descriptors, environment".

use super::{Attack, Expect, attack, call, link_target, status};
use crate::answer::Answer;
use crate::findings::Findings;
use crate::sys::{
    self,
    Arg::{Memory, Number},
};
use invarlock_runtime::Identity;
use libc::{EINVAL, EPERM};

const IDENTITY_CONTROL: &str = "identity";
const CAPABILITIES_CONTROL: &str = "capabilities";
const OWN_CONTROL: &str = "descriptors, environment";
const DENIED: Expect = Expect::Errno(&[EPERM]);
/// An empty capability set in `/proc/PID/status`.
const EMPTY_SET: &str = "0000000000000000";

/// Control "identity".
pub(super) const IDENTITY: &[Attack] = &[
    attack(
        IDENTITY_CONTROL,
        "host-id",
        "be root on the host",
        Expect::Outside("the run's own id", |findings, _| {
            let (ids, run) = (&findings.observations.identity.value, findings.identity);
            let own = |found: &[u32], of_user: u32| match (run.by_root, found) {
                (true, [id, ..]) => found == [*id; 4] && Identity::is_workload_of_root(*id),
                _ => found == [of_user; 4],
            };
            let good = own(&ids.uid, run.host_uid) && own(&ids.gid, run.host_gid) && !ids.uid.contains(&0);
            Some((format!("uid {:?} gid {:?}", ids.uid, ids.gid), good))
        }),
        None,
    ),
    attack(
        IDENTITY_CONTROL,
        "inside-id",
        "have another id inside than planned",
        Expect::TextOf(|findings| ids_line(findings.identity.inside.uid)),
        Some(|| Answer::Text(format!("uid {}; gid {}", status("Uid"), status("Gid")))),
    ),
    attack(
        IDENTITY_CONTROL,
        "change-id",
        "change its user id: setresuid",
        Expect::Errno(&[EPERM, EINVAL]),
        Some(|| {
            let other = if rustix::process::geteuid().is_root() { 1 } else { 0 };
            call(libc::SYS_setresuid, &mut [Number(other), Number(other), Number(other)])
        }),
    ),
    attack(
        IDENTITY_CONTROL,
        "set-uid-program",
        "become root through a set-uid program",
        Expect::TextOf(|findings| findings.identity.inside.uid.to_string()),
        // The attacker's own executable is set-uid for the id that is root inside.
        Some(|| Answer::Text(rustix::process::geteuid().as_raw().to_string())),
    ),
    attack(
        IDENTITY_CONTROL,
        "groups",
        "keep a supplementary group of the launcher",
        Expect::Outside("none, or those a user cannot drop", check_groups),
        Some(|| Answer::Text(status("Groups"))),
    ),
    attack(
        IDENTITY_CONTROL,
        "setgroups",
        "add a supplementary group: setgroups",
        DENIED,
        Some(|| call(libc::SYS_setgroups, &mut [Number(1), Memory(&mut [0; 4])])),
    ),
    attack(
        IDENTITY_CONTROL,
        "setgroups-file",
        "have setgroups allowed in its user namespace",
        Expect::Text("deny"),
        Some(|| {
            Answer::Text(std::fs::read_to_string("/proc/self/setgroups").unwrap_or_default().trim().into())
        }),
    ),
    attack(
        IDENTITY_CONTROL,
        "map",
        "map more ids into its user namespace: write uid_map",
        DENIED,
        Some(|| Answer::of(std::fs::write("/proc/self/uid_map", "0 0 4294967295\n"))),
    ),
];

/// A run started by root has no supplementary group. A user cannot drop groups, so their number inside and outside must be the same.
fn check_groups(findings: &Findings, answer: Option<&Answer>) -> Option<(String, bool)> {
    let Some(Answer::Text(inside)) = answer else { return None };
    let outside = &findings.observations.identity.value.groups;
    let good = if findings.identity.by_root {
        outside.is_empty() && inside.is_empty()
    } else {
        inside.split_whitespace().count() == outside.len()
    };
    Some((if inside.is_empty() { "none".to_owned() } else { inside.clone() }, good))
}

fn ids_line(id: u32) -> String {
    format!("uid {id} {id} {id} {id}; gid {id} {id} {id} {id}")
}

/// Control "capabilities".
pub(super) const CAPABILITIES: &[Attack] = &[
    attack(
        CAPABILITIES_CONTROL,
        "before",
        "have a capability before its first instruction",
        Expect::Outside("none in five sets", |findings, _| {
            let observed = &findings.observations.capabilities.value;
            let sets = [
                &observed.inheritable,
                &observed.permitted,
                &observed.effective,
                &observed.ambient,
                &observed.bounding,
            ];
            let good = sets.iter().all(|set| *set == EMPTY_SET);
            Some((if good { "none in five sets".into() } else { format!("{observed:?}") }, good))
        }),
        None,
    ),
    attack(
        CAPABILITIES_CONTROL,
        "after",
        "have a capability after its first instruction",
        Expect::Text("0000000000000000 0000000000000000 0000000000000000 0000000000000000"),
        Some(|| Answer::Text(["CapInh", "CapPrm", "CapEff", "CapAmb"].map(status).join(" "))),
    ),
    attack(
        CAPABILITIES_CONTROL,
        "bounding",
        "have a capability in its bounding set",
        Expect::Text(EMPTY_SET),
        Some(|| Answer::Text(status("CapBnd"))),
    ),
    attack(
        CAPABILITIES_CONTROL,
        "capset",
        "set all capabilities: capset",
        DENIED,
        Some(|| {
            // Version 3, this process; then effective, permitted and inheritable twice.
            let mut header = [0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0];
            call(libc::SYS_capset, &mut [Memory(&mut header), Memory(&mut [0xff; 24])])
        }),
    ),
    attack(
        CAPABILITIES_CONTROL,
        "ambient",
        "raise a capability in the ambient set",
        DENIED,
        Some(|| {
            let (raise, sys_admin) = (libc::PR_CAP_AMBIENT_RAISE.into(), 21);
            let args = &mut [
                Number(libc::PR_CAP_AMBIENT.into()),
                Number(raise),
                Number(sys_admin),
                Number(0),
                Number(0),
            ];
            call(libc::SYS_prctl, args)
        }),
    ),
    attack(
        CAPABILITIES_CONTROL,
        "secure-bits",
        "gain capabilities as id 0: secure bits",
        // NOROOT and NO_CAP_AMBIENT_RAISE, both locked, and KEEP_CAPS locked.
        Expect::Text("0xe3"),
        Some(|| {
            let args =
                &mut [Number(libc::PR_GET_SECUREBITS.into()), Number(0), Number(0), Number(0), Number(0)];
            match sys::call(libc::SYS_prctl, args) {
                Ok(bits) => Answer::Text(format!("{bits:#x}")),
                Err(errno) => Answer::Failed(errno),
            }
        }),
    ),
];

/// Control "descriptors, environment".
pub(super) const DESCRIPTORS_ENVIRONMENT: &[Attack] = &[
    attack(
        OWN_CONTROL,
        "descriptors",
        "have a descriptor of the launcher",
        Expect::Text("0 1 2"),
        Some(|| Answer::Text(super::DESCRIPTORS.get().cloned().unwrap_or_default())),
    ),
    attack(
        OWN_CONTROL,
        "environment",
        "have an environment variable of the launcher",
        Expect::Text("LANG"),
        Some(|| {
            let mut names: Vec<String> =
                std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
            names.sort();
            Answer::Text(names.join(" "))
        }),
    ),
    attack(
        OWN_CONTROL,
        "stdin",
        "read the launcher's standard input",
        Expect::Text("/dev/null"),
        Some(|| link_target("/proc/self/fd/0")),
    ),
];
