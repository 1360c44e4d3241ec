//! Translates profiles in the format of Docker, Podman and the OCI runtime specification to [`ResolvedProfile`].
//!
//! The translation follows the runtimes that read this format. Entries count where `includes` and `excludes` match (a workload
//! has no capability); comparisons are of the whole register; an entry with the default action adds nothing; of several entries
//! that name a call without `args` the first counts. Where the runtimes contradict the specification, a profile contradicts
//! itself, or a program cannot express it, the result is an error.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::profile::invalid;
use crate::resolved_profile::{Action, Comparison, Decision, Machine, Operator, ResolvedProfile};
use crate::{Arch, Result, table};

/// Name of programs from this format, which has no names.
const NAME: &str = "docker-format";
/// No program can contain more.
const MAX_DECISIONS: usize = 4096;
/// Highest errno of the kernel.
const MAX_ERRNO: u64 = 4095;
const EPERM: u64 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DockerProfile {
    default_action: String,
    default_errno_ret: Option<u64>,
    default_errno: Option<String>,
    arch_map: Option<Vec<ArchMap>>,
    architectures: Option<Vec<String>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

/// Ignored: other architectures are killed in any case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    #[serde(rename = "architecture")]
    _architecture: String,
    #[serde(rename = "subArchitectures")]
    _sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    args: Option<Vec<Arg>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Circumstances>,
    excludes: Option<Circumstances>,
    errno_ret: Option<u64>,
    errno: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u64,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Circumstances {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// A resolved profile, and names in it that are not calls of the machine.
type Resolved = (ResolvedProfile, Vec<String>);

/// Parses and resolves a profile.
pub(crate) fn resolve(text: &[u8], machine: Machine) -> Result<Resolved> {
    translate(serde_json::from_slice(text).map_err(invalid)?, machine)
}

/// Parses and resolves the profile in an OCI configuration.
pub(crate) fn resolve_config(text: &[u8], machine: Machine) -> Result<Resolved> {
    #[derive(Deserialize)]
    struct Config {
        linux: Linux,
    }
    #[derive(Deserialize)]
    struct Linux {
        seccomp: Option<DockerProfile>,
    }
    let config: Config = serde_json::from_slice(text).map_err(invalid)?;
    translate(config.linux.seccomp.ok_or_else(|| invalid("linux.seccomp is missing"))?, machine)
}

fn translate(written: DockerProfile, machine: Machine) -> Result<Resolved> {
    if written.arch_map.is_some() && written.architectures.is_some() {
        return Err(invalid("both archMap and architectures are set; remove one"));
    }
    if let Some(flag) = written.flags.iter().flatten().next() {
        return Err(invalid(format!("flag {flag:?} is not supported; remove `flags`")));
    }
    let listener = [&written.listener_path, &written.listener_metadata];
    if listener.into_iter().flatten().any(|value| !value.is_empty()) {
        return Err(invalid(
            "the listener belongs to the supervisor; remove listenerPath and listenerMetadata",
        ));
    }
    let (action, errno) = (&written.default_action, (written.default_errno_ret, &written.default_errno));
    let otherwise = self::action(action, errno).map_err(|why| invalid(format!("defaultAction: {why}")))?;
    let mut all = Decisions { machine, otherwise, decisions: Vec::new(), unknown_calls: BTreeSet::new() };
    for (at, entry) in written.syscalls.iter().flatten().enumerate() {
        all.add(at, entry)?;
    }
    all.check_contradictions()?;
    let Decisions { decisions, unknown_calls, .. } = all;
    let resolved =
        ResolvedProfile { name: NAME.to_owned(), arch: machine.arch, closed: true, decisions, otherwise };
    Ok((resolved, unknown_calls.into_iter().collect()))
}

struct Decisions {
    machine: Machine,
    otherwise: Action,
    decisions: Vec<Decision>,
    unknown_calls: BTreeSet<String>,
}

impl Decisions {
    fn add(&mut self, at: usize, entry: &Entry) -> Result<()> {
        let names = match (&entry.name, &entry.names) {
            (Some(name), None) => std::slice::from_ref(name),
            (None, Some(names)) if !names.is_empty() => names,
            (None, _) => return Err(invalid(format!("syscalls[{at}] names no call"))),
            (Some(_), Some(_)) => {
                return Err(invalid(format!("syscalls[{at}] has both `name` and `names`; remove one")));
            }
        };
        let place = match names {
            [name] => format!("syscalls[{at}] ({name})"),
            _ => format!("syscalls[{at}] ({}, …)", names[0]),
        };
        let wrong = |why: String| invalid(format!("{place}: {why}"));
        let action = action(&entry.action, (entry.errno_ret, &entry.errno)).map_err(wrong)?;
        let when = comparisons(entry.args.as_deref().unwrap_or_default()).map_err(wrong)?;
        let (includes, excludes) = (entry.includes.as_ref(), entry.excludes.as_ref());
        if !applies(includes, excludes, self.machine).map_err(wrong)? || action == self.otherwise {
            return Ok(());
        }
        for name in names {
            let Some(number) = table::number(self.machine.arch, name) else {
                self.unknown_calls.insert(name.clone());
                continue;
            };
            let (when_none, when, reason) = (when.is_empty(), when.clone(), format!("syscalls[{at}]"));
            let decision = Decision { syscall: name.clone(), number, when, action, reason };
            let is_covered_by = |other: &Decision| {
                let whole = other.when.is_empty() && (when_none || other.action == action);
                other.number == number && (whole || other.action == action && other.when == decision.when)
            };
            if self.decisions.iter().any(is_covered_by) {
                continue;
            }
            if when_none {
                // It covers the earlier entries with conditions.
                self.decisions.retain(|other| other.number != number || other.action != action);
            }
            self.decisions.push(decision);
            if self.decisions.len() > MAX_DECISIONS {
                return Err(invalid(format!("more than {MAX_DECISIONS} decisions do not fit a filter")));
            }
        }
        Ok(())
    }

    /// An error for two entries that contradict each other: the format does not define which counts.
    fn check_contradictions(&self) -> Result<()> {
        for (at, one) in self.decisions.iter().enumerate() {
            let differs = |other: &&Decision| other.number == one.number && other.action != one.action;
            for other in self.decisions[at + 1..].iter().filter(differs) {
                let exclusive = one.when.iter().any(|a| other.when.iter().any(|b| are_exclusive(a, b)));
                if !exclusive {
                    return Err(invalid(format!(
                        "{} and {} contradict each other for {} where both match; make their `args` exclude each other",
                        one.reason, other.reason, one.syscall
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Whether no value satisfies both. The answer false may be wrong, the answer true is correct.
fn are_exclusive(a: &Comparison, b: &Comparison) -> bool {
    if a.index != b.index {
        return false;
    }
    let holds = |comparison: &Comparison, value: u64| comparison.holds(&[value; 6]);
    match (a.op, b.op) {
        (Operator::Eq, _) => !holds(b, a.value),
        (_, Operator::Eq) => !holds(a, b.value),
        (Operator::MaskedEq, Operator::MaskedEq) => (a.value ^ b.value) & a.mask & b.mask != 0,
        _ => match (range(a), range(b)) {
            (Some((low, high)), Some((other_low, other_high))) => high < other_low || other_high < low,
            _ => false,
        },
    }
}

/// The range of values that satisfies an ordering, unless it is empty.
fn range(comparison: &Comparison) -> Option<(u64, u64)> {
    match comparison.op {
        Operator::Lt => Some((0, comparison.value.checked_sub(1)?)),
        Operator::Le => Some((0, comparison.value)),
        Operator::Gt => Some((comparison.value.checked_add(1)?, u64::MAX)),
        Operator::Ge => Some((comparison.value, u64::MAX)),
        Operator::Eq | Operator::Ne | Operator::MaskedEq => None,
    }
}

fn action(text: &str, (number, name): (Option<u64>, &Option<String>)) -> std::result::Result<Action, String> {
    let errno = errno(number, name.as_deref().filter(|name| !name.is_empty()))?;
    let action = match text {
        "SCMP_ACT_ERRNO" => return Ok(Action::Errno(errno.unwrap_or(EPERM) as u16)),
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_LOG" => {
            return Err(
                "SCMP_ACT_LOG allows a call and only logs it; use SCMP_ACT_ALLOW or SCMP_ACT_ERRNO".into()
            );
        }
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            return Err(format!(
                "{text} leaves the decision to another program, which is not supported; use SCMP_ACT_ERRNO"
            ));
        }
        _ => return Err(format!("unknown action {text:?}")),
    };
    match errno {
        Some(_) => Err(format!("an errno is valid with SCMP_ACT_ERRNO, not with {text}")),
        None => Ok(action),
    }
}

fn errno(number: Option<u64>, name: Option<&str>) -> std::result::Result<Option<u64>, String> {
    let named = match name {
        Some(name) => Some(
            ERRNOS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| *number as u64)
                .ok_or_else(|| format!("unknown errno {name:?}; use its number as errnoRet"))?,
        ),
        None => None,
    };
    match (number, named) {
        (Some(number), Some(named)) if number != named => {
            Err(format!("errnoRet {number} and errno {} differ", name.unwrap_or("")))
        }
        (Some(number), _) if number > MAX_ERRNO => {
            Err(format!("{number} is not an errno; the highest is {MAX_ERRNO}"))
        }
        (number, named) => Ok(number.or(named)),
    }
}

/// The errno names that profiles use.
const ERRNOS: &[(&str, i32)] = &[
    ("EPERM", libc::EPERM),
    ("ENOENT", libc::ENOENT),
    ("EINTR", libc::EINTR),
    ("EIO", libc::EIO),
    ("EAGAIN", libc::EAGAIN),
    ("ENOMEM", libc::ENOMEM),
    ("EACCES", libc::EACCES),
    ("EBUSY", libc::EBUSY),
    ("ENODEV", libc::ENODEV),
    ("EINVAL", libc::EINVAL),
    ("ENOTTY", libc::ENOTTY),
    ("ENOSYS", libc::ENOSYS),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ("EPROTONOSUPPORT", libc::EPROTONOSUPPORT),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("ENOTSUP", libc::ENOTSUP),
];

fn comparisons(args: &[Arg]) -> std::result::Result<Vec<Comparison>, String> {
    let mut all: Vec<Comparison> = Vec::new();
    for arg in args {
        let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
        let index =
            index.ok_or_else(|| format!("`index` is {}; it counts the arguments from 0 to 5", arg.index))?;
        if all.iter().any(|other| other.index == index) {
            return Err(format!(
                "the argument with `index` {index} is compared twice, which runtimes treat as alternatives, contrary to the specification; write one entry for each alternative"
            ));
        }
        let op = match arg.op.as_str() {
            "SCMP_CMP_EQ" => Operator::Eq,
            "SCMP_CMP_NE" => Operator::Ne,
            "SCMP_CMP_LT" => Operator::Lt,
            "SCMP_CMP_LE" => Operator::Le,
            "SCMP_CMP_GT" => Operator::Gt,
            "SCMP_CMP_GE" => Operator::Ge,
            "SCMP_CMP_MASKED_EQ" => Operator::MaskedEq,
            other => return Err(format!("unknown operator {other:?}")),
        };
        let (mask, value) = match op {
            Operator::MaskedEq => (arg.value, arg.value_two.unwrap_or(0)),
            _ => (u64::MAX, arg.value),
        };
        if value & !mask != 0 {
            return Err(format!(
                "valueTwo {value} has bits outside of the mask {mask}, so the condition never holds"
            ));
        }
        all.push(Comparison { index, wide: true, op, mask, value });
    }
    Ok(all)
}

/// Whether an entry counts on this machine. A workload has no capability.
fn applies(
    includes: Option<&Circumstances>,
    excludes: Option<&Circumstances>,
    machine: Machine,
) -> std::result::Result<bool, String> {
    let here = match machine.arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let named = |list: &Option<Vec<String>>| list.iter().flatten().any(|arch| arch == here);
    let new_enough = |least: &Option<String>| -> std::result::Result<Option<bool>, String> {
        let Some(text) = least.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let number =
            |part: &str| part.parse::<u32>().ok().filter(|_| part.bytes().all(|c| c.is_ascii_digit()));
        let version = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        let version = version.ok_or_else(|| format!("minKernel {text:?} is not a version MAJOR.MINOR"))?;
        Ok(Some(machine.kernel >= version))
    };
    if let Some(includes) = includes {
        let fits = !some(&includes.caps) && (!some(&includes.arches) || named(&includes.arches));
        if !new_enough(&includes.min_kernel)?.unwrap_or(true) || !fits {
            return Ok(false);
        }
    }
    match excludes {
        Some(excludes) => Ok(!new_enough(&excludes.min_kernel)?.unwrap_or(false) && !named(&excludes.arches)),
        None => Ok(true),
    }
}
