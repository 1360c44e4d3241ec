//! Attacks on the control "namespaces".

use super::{Attack, Expect, attack, link_target};
use crate::answer::Answer;
use crate::findings::Findings;

const CONTROL: &str = "namespaces";

macro_rules! namespace {
    ($id:literal, $name:literal) => {
        attack(
            CONTROL,
            $id,
            concat!("be in the host's ", $name, " namespace"),
            Expect::Outside("another one", |findings, answer| check_namespace(findings, answer, $name)),
            Some(|| link_target(concat!("/proc/self/ns/", $name))),
        )
    };
}

/// The supervisor must observe another namespace than the launcher's, and so must the attacker if it answered.
fn check_namespace(findings: &Findings, answer: Option<&Answer>, name: &str) -> Option<(String, bool)> {
    let observed = findings.observations.namespaces.value.get(name)?;
    let of_launcher = format!("{name}:[{}]", observed.launcher);
    let other_inside = match answer {
        Some(Answer::Text(link)) => *link != of_launcher,
        Some(_) => false,
        None => true,
    };
    let good = observed.new && other_inside;
    Some((if good { "another one" } else { "the host's" }.into(), good))
}

/// Control "namespaces".
pub(super) const NAMESPACES: &[Attack] = &[
    namespace!("ns-user", "user"),
    namespace!("ns-pid", "pid"),
    namespace!("ns-mnt", "mnt"),
    namespace!("ns-net", "net"),
    namespace!("ns-ipc", "ipc"),
    namespace!("ns-uts", "uts"),
    namespace!("ns-cgroup", "cgroup"),
    attack(
        CONTROL,
        "hostname",
        "read the host's name",
        Expect::Text("invarlock"),
        Some(|| Answer::Text(rustix::system::uname().nodename().to_string_lossy().into_owned())),
    ),
    attack(
        CONTROL,
        "domainname",
        "read the host's NIS domain",
        Expect::Text("(none)"),
        Some(|| Answer::Text(rustix::system::uname().domainname().to_string_lossy().into_owned())),
    ),
    attack(
        CONTROL,
        "session",
        "be in the launcher's session",
        Expect::Text("its own"),
        Some(|| {
            // Each attack is a child of the attacker, which must lead the session.
            let (session, attacker) = (rustix::process::getsid(None), rustix::process::getppid());
            Answer::Text(if session.ok() == attacker { "its own" } else { "another" }.into())
        }),
    ),
    attack(
        CONTROL,
        "cgroup-path",
        "read the path of its cgroup on the host",
        Expect::Text("/"),
        Some(|| {
            let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let mut paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
            paths.sort_unstable();
            paths.dedup();
            Answer::Text(paths.join(" "))
        }),
    ),
    attack(CONTROL, "kill-init", "kill init with SIGKILL", Expect::Text("init is alive"), Some(kill_init)),
];

fn kill_init() -> Answer {
    let init = rustix::process::Pid::from_raw(1);
    let sent = init.map(|init| rustix::process::kill_process(init, rustix::process::Signal::KILL));
    let exists = init.is_some_and(|init| rustix::process::test_kill_process(init).is_ok());
    let alive = exists || matches!(sent, Some(Err(rustix::io::Errno::PERM)));
    Answer::Text(if alive { "init is alive" } else { "init is dead" }.into())
}
