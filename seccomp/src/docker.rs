//! Profiles as Docker, Podman and the OCI runtime specification write them, translated into a [`ResolvedProfile`].
//!
//! What is meant is what the runtimes that read this format do with it: entries whose `includes` and `excludes` fit (a workload of ours
//! has no capability), comparisons of the whole register, an entry that says what the default says adds nothing, of several entries that
//! name a call without `args` the first counts. Where they disagree with the text, or the text with itself, or a program of ours
//! cannot say it, it is an error and not a guess.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::resolved_profile::{Action, Comparison, Decision, ResolvedProfile};
use crate::user_profile::{Format, Machine, UserProfile, bad};
use crate::{Arch, Operator, Result, table};

/// What programs of this format are called: it has no names.
const NAME: &str = "docker-format";
/// No program has room for more.
const MOST_DECISIONS: usize = 4096;
/// The kernel's.
const HIGHEST_ERRNO: u64 = 4095;
const EPERM: u64 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
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

/// Other architectures are killed whatever stands here.
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

/// Reads a profile.
pub(crate) fn profile(text: &[u8], machine: Machine) -> Result<UserProfile> {
    translate(serde_json::from_slice(text).map_err(bad)?, machine)
}

/// Reads the profile in an OCI configuration.
pub(crate) fn of_config(text: &[u8], machine: Machine) -> Result<UserProfile> {
    #[derive(Deserialize)]
    struct Config {
        linux: Linux,
    }
    #[derive(Deserialize)]
    struct Linux {
        seccomp: Option<Written>,
    }
    let config: Config = serde_json::from_slice(text).map_err(bad)?;
    translate(config.linux.seccomp.ok_or_else(|| bad("its linux.seccomp is missing"))?, machine)
}

fn translate(written: Written, machine: Machine) -> Result<UserProfile> {
    if written.arch_map.is_some() && written.architectures.is_some() {
        return Err(bad("it has archMap and architectures; leave one of them out"));
    }
    if let Some(flag) = written.flags.iter().flatten().next() {
        return Err(bad(format!("flag {flag:?} cannot be honoured; leave `flags` out")));
    }
    let listener = [&written.listener_path, &written.listener_metadata];
    if listener.into_iter().flatten().any(|it| !it.is_empty()) {
        return Err(bad(
            "a listener is the supervisor's alone here; leave listenerPath and listenerMetadata out",
        ));
    }
    let (action, errno) = (&written.default_action, (written.default_errno_ret, &written.default_errno));
    let otherwise = self::action(action, errno).map_err(|why| bad(format!("its default: {why}")))?;
    let mut all = Decisions { machine, otherwise, decisions: Vec::new(), elsewhere: BTreeSet::new() };
    for (at, entry) in written.syscalls.iter().flatten().enumerate() {
        all.add(at, entry)?;
    }
    all.disagreements()?;
    let Decisions { decisions, elsewhere, .. } = all;
    let meaning =
        ResolvedProfile { name: NAME.to_owned(), arch: machine.arch, closed: true, decisions, otherwise };
    Ok(UserProfile { format: Format::Docker, meaning, elsewhere: elsewhere.into_iter().collect() })
}

struct Decisions {
    machine: Machine,
    otherwise: Action,
    decisions: Vec<Decision>,
    elsewhere: BTreeSet<String>,
}

impl Decisions {
    fn add(&mut self, at: usize, entry: &Entry) -> Result<()> {
        let names = match (&entry.name, &entry.names) {
            (Some(name), None) => std::slice::from_ref(name),
            (None, Some(names)) if !names.is_empty() => names,
            (None, _) => return Err(bad(format!("syscalls[{at}] names no call"))),
            (Some(_), Some(_)) => {
                return Err(bad(format!("syscalls[{at}] has `name` and `names`; leave one out")));
            }
        };
        let place = match names {
            [name] => format!("syscalls[{at}] ({name})"),
            _ => format!("syscalls[{at}] ({}, …)", names[0]),
        };
        let wrong = |why: String| bad(format!("{place}: {why}"));
        let action = action(&entry.action, (entry.errno_ret, &entry.errno)).map_err(wrong)?;
        let when = comparisons(entry.args.as_deref().unwrap_or_default()).map_err(wrong)?;
        let (includes, excludes) = (entry.includes.as_ref(), entry.excludes.as_ref());
        if !applies(includes, excludes, self.machine).map_err(wrong)? || action == self.otherwise {
            return Ok(());
        }
        for name in names {
            let Some(number) = table::number(self.machine.arch, name) else {
                self.elsewhere.insert(name.clone());
                continue;
            };
            let (when_none, when, reason) = (when.is_empty(), when.clone(), format!("syscalls[{at}]"));
            let it = Decision { syscall: name.clone(), number, when, action, reason };
            let said = |other: &Decision| {
                let whole = other.when.is_empty() && (when_none || other.action == action);
                other.number == number && (whole || other.action == action && other.when == it.when)
            };
            if self.decisions.iter().any(said) {
                continue;
            }
            if when_none {
                // It says what its alternatives say, and more.
                self.decisions.retain(|other| other.number != number || other.action != action);
            }
            self.decisions.push(it);
            if self.decisions.len() > MOST_DECISIONS {
                return Err(bad(format!(
                    "it decides more than {MOST_DECISIONS} things, for which no filter has room"
                )));
            }
        }
        Ok(())
    }

    /// No format says which of two entries counts.
    fn disagreements(&self) -> Result<()> {
        for (at, one) in self.decisions.iter().enumerate() {
            let differs = |it: &&Decision| it.number == one.number && it.action != one.action;
            for other in self.decisions[at + 1..].iter().filter(differs) {
                let apart = one.when.iter().any(|a| other.when.iter().any(|b| contradict(a, b)));
                if !apart {
                    return Err(bad(format!(
                        "{} and {} disagree about {} where both match, and the format does not say which counts; make their `args` exclude each other",
                        one.reason, other.reason, one.syscall
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Whether no value satisfies both. A "no" may be wrong, a "yes" is not.
fn contradict(a: &Comparison, b: &Comparison) -> bool {
    if a.index != b.index {
        return false;
    }
    let holds = |it: &Comparison, value: u64| it.holds(&[value; 6]);
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

/// The values that satisfy an ordering, where there are any.
fn range(it: &Comparison) -> Option<(u64, u64)> {
    match it.op {
        Operator::Lt => Some((0, it.value.checked_sub(1)?)),
        Operator::Le => Some((0, it.value)),
        Operator::Gt => Some((it.value.checked_add(1)?, u64::MAX)),
        Operator::Ge => Some((it.value, u64::MAX)),
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
                "SCMP_ACT_LOG would allow and only note it; say SCMP_ACT_ALLOW or SCMP_ACT_ERRNO".into()
            );
        }
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            return Err(format!(
                "{text} leaves the decision to another program, and there is none here; say SCMP_ACT_ERRNO"
            ));
        }
        _ => return Err(format!("action {text:?} is unknown")),
    };
    match errno {
        Some(_) => Err(format!("an errno goes with SCMP_ACT_ERRNO, not with {text}")),
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
                .ok_or_else(|| format!("errno {name:?} is unknown; write its number as errnoRet"))?,
        ),
        None => None,
    };
    match (number, named) {
        (Some(number), Some(named)) if number != named => {
            Err(format!("its errno is {number} and {}", name.unwrap_or("")))
        }
        (Some(number), _) if number > HIGHEST_ERRNO => {
            Err(format!("{number} is no errno; the highest is {HIGHEST_ERRNO}"))
        }
        (number, named) => Ok(number.or(named)),
    }
}

/// Those that profiles use.
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
        let index = index.ok_or_else(|| format!("there is no argument {}; they are 0 to 5", arg.index))?;
        if all.iter().any(|it| it.index == index) {
            return Err(format!(
                "argument {index} is compared twice, which the runtimes take as alternatives though the format says otherwise; write one entry for each alternative"
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
            other => return Err(format!("operator {other:?} is unknown")),
        };
        let (mask, value) = match op {
            Operator::MaskedEq => (arg.value, arg.value_two.unwrap_or(0)),
            _ => (u64::MAX, arg.value),
        };
        if value & !mask != 0 {
            return Err(format!(
                "its valueTwo {value} has bits that the mask {mask} leaves out, so it never holds"
            ));
        }
        all.push(Comparison { index, wide: true, op, mask, value });
    }
    Ok(all)
}

/// Whether an entry counts here. A workload of ours has no capability.
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
        let version = version
            .ok_or_else(|| format!("minKernel {text:?} is not two numbers with a point between them"))?;
        Ok(Some(machine.kernel >= version))
    };
    if let Some(it) = includes {
        let fits = !some(&it.caps) && (!some(&it.arches) || named(&it.arches));
        if !new_enough(&it.min_kernel)?.unwrap_or(true) || !fits {
            return Ok(false);
        }
    }
    match excludes {
        Some(it) => Ok(!new_enough(&it.min_kernel)?.unwrap_or(false) && !named(&it.arches)),
        None => Ok(true),
    }
}
