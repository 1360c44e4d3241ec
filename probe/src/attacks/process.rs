//! Who the workload is, and what it has: namespaces, network, identity, capabilities, descriptors, environment.

use super::super::sys::{
    self,
    Arg::{Memory, N},
};
use super::{Answer, Attack, Expect, Facts, attack, call, status};
use libc::{EAFNOSUPPORT, ECONNREFUSED, EINVAL, ENETUNREACH, EPERM};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

const NAMESPACES_ROW: &str = "namespaces";
const NETWORK_ROW: &str = "network";
const IDENTITY_ROW: &str = "identity";
const CAPABILITIES_ROW: &str = "capabilities";
const OWN_ROW: &str = "descriptors, environment";
const NOTHING: &str = "0000000000000000";

macro_rules! namespace {
    ($id:literal, $name:literal) => {
        attack(
            NAMESPACES_ROW,
            $id,
            concat!("be in the host's ", $name, " namespace"),
            Expect::Outside("another one", |facts, answer| namespace(facts, answer, $name)),
            Some(|| match std::fs::read_link(concat!("/proc/self/ns/", $name)) {
                Ok(link) => Answer::Said(link.display().to_string()),
                Err(e) => Answer::Said(e.to_string()),
            }),
        )
    };
}

/// The supervisor's word, and the attacker's where it has one: both must say that it is another.
fn namespace(facts: &Facts, answer: Option<&Answer>, name: &str) -> Option<(String, bool)> {
    let seen = facts.observations.namespaces.value.get(name)?;
    let own = format!("{name}:[{}]", seen.launcher);
    let inside = match answer {
        Some(Answer::Said(link)) => *link != own,
        Some(_) => false,
        None => true,
    };
    let good = seen.new && inside;
    Some((if good { "another one" } else { "the host's" }.into(), good))
}

/// Row "namespaces".
pub(super) const NAMESPACES: &[Attack] = &[
    namespace!("ns-user", "user"),
    namespace!("ns-pid", "pid"),
    namespace!("ns-mnt", "mnt"),
    namespace!("ns-net", "net"),
    namespace!("ns-ipc", "ipc"),
    namespace!("ns-uts", "uts"),
    namespace!("ns-cgroup", "cgroup"),
    attack(
        NAMESPACES_ROW,
        "hostname",
        "learn the host's name",
        Expect::Says("invarlock"),
        Some(|| Answer::Said(rustix::system::uname().nodename().to_string_lossy().into_owned())),
    ),
    attack(
        NAMESPACES_ROW,
        "domainname",
        "learn the host's NIS domain",
        Expect::Says("(none)"),
        Some(|| Answer::Said(rustix::system::uname().domainname().to_string_lossy().into_owned())),
    ),
    attack(
        NAMESPACES_ROW,
        "session",
        "be in the launcher's session",
        Expect::Says("its own"),
        Some(|| {
            // The attacker's own, of which each attack is a child.
            let (session, own) = (rustix::process::getsid(None), rustix::process::getppid());
            Answer::Said(if session.ok() == own { "its own" } else { "another" }.into())
        }),
    ),
    attack(
        NAMESPACES_ROW,
        "cgroup-path",
        "learn where its cgroup lies on the host",
        Expect::Says("/"),
        Some(|| {
            let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let mut paths: Vec<&str> = text.lines().filter_map(|l| l.splitn(3, ':').nth(2)).collect();
            paths.sort_unstable();
            paths.dedup();
            Answer::Said(paths.join(" "))
        }),
    ),
    attack(
        NAMESPACES_ROW,
        "kill-init",
        "kill init with SIGKILL",
        Expect::Says("init lives on"),
        Some(|| {
            let init = rustix::process::Pid::from_raw(1);
            let sent = init.map(|init| rustix::process::kill_process(init, rustix::process::Signal::KILL));
            let alive = init.is_some_and(|init| rustix::process::test_kill_process(init).is_ok());
            let alive = alive || matches!(sent, Some(Err(rustix::io::Errno::PERM)));
            Answer::Said(if alive { "init lives on" } else { "init is dead" }.into())
        }),
    ),
];

/// Names of interfaces.
pub(crate) fn interfaces() -> String {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = text.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
    names.join(" ")
}

const UNREACHABLE: Expect = Expect::Refused(&[EPERM, ENETUNREACH, EAFNOSUPPORT]);
const PERM: Expect = Expect::Refused(&[EPERM]);

fn connected(address: &str) -> Answer {
    match address.parse() {
        Ok(address) => Answer::of(TcpStream::connect_timeout(&address, Duration::from_secs(1))),
        Err(_) => Answer::Said("no address".into()),
    }
}

fn socket(family: i32, kind: i32) -> Answer {
    call(libc::SYS_socket, &mut [N(family.into()), N(kind.into()), N(0)])
}

/// Row "network". The addresses are those that documents use; nobody has them.
pub(super) const NETWORK: &[Attack] = &[
    attack(
        NETWORK_ROW,
        "interfaces",
        "see an interface of the host",
        Expect::Outside("lo", |facts, _| {
            let names = facts.observations.interfaces.value.join(" ");
            Some((names.clone(), names == "lo"))
        }),
        None,
    ),
    attack(
        NETWORK_ROW,
        "routes",
        "have a route",
        Expect::Outside("none", |facts, _| {
            let routes = &facts.observations.routes.value;
            let seen = if routes.is_empty() { "none".to_owned() } else { routes.join("; ") };
            Some((seen, routes.is_empty()))
        }),
        None,
    ),
    attack(
        NETWORK_ROW,
        "connect-v4",
        "connect to 192.0.2.1:443",
        UNREACHABLE,
        Some(|| connected("192.0.2.1:443")),
    ),
    attack(
        NETWORK_ROW,
        "connect-v6",
        "connect to [2001:db8::1]:443",
        UNREACHABLE,
        Some(|| connected("[2001:db8::1]:443")),
    ),
    attack(
        NETWORK_ROW,
        "connect-metadata",
        "connect to 192.0.2.254:80, as to a cloud's metadata",
        UNREACHABLE,
        Some(|| connected("192.0.2.254:80")),
    ),
    attack(
        NETWORK_ROW,
        "datagram",
        "send a datagram to 192.0.2.1:53, as for a name",
        UNREACHABLE,
        Some(|| Answer::of(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", "192.0.2.1:53")))),
    ),
    attack(
        NETWORK_ROW,
        "abstract-socket",
        "reach an abstract socket of the host",
        Expect::Refused(&[ECONNREFUSED, EPERM]),
        Some(|| {
            use std::os::linux::net::SocketAddrExt as _;
            let name = std::env::args().nth(2).unwrap_or_default();
            Answer::of(SocketAddr::from_abstract_name(name).and_then(|name| UnixStream::connect_addr(&name)))
        }),
    ),
    attack(
        NETWORK_ROW,
        "abstract-socket-outside",
        "the same, seen from the socket",
        Expect::Outside("nobody came", |facts, _| {
            let reached = facts.changes.reached;
            Some((if reached { "somebody came" } else { "nobody came" }.into(), !reached))
        }),
        None,
    ),
    attack(
        NETWORK_ROW,
        "netlink",
        "a socket of AF_NETLINK",
        PERM,
        Some(|| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ),
    attack(
        NETWORK_ROW,
        "packet",
        "a socket of AF_PACKET",
        PERM,
        Some(|| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ),
    attack(
        NETWORK_ROW,
        "vsock",
        "a socket of AF_VSOCK",
        PERM,
        Some(|| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    ),
    attack(
        NETWORK_ROW,
        "alg",
        "a socket of AF_ALG",
        PERM,
        Some(|| socket(libc::AF_ALG, libc::SOCK_SEQPACKET)),
    ),
];

/// Row "identity".
pub(super) const IDENTITY: &[Attack] = &[
    attack(
        IDENTITY_ROW,
        "host-id",
        "be root on the host",
        Expect::Outside("the run's own id", |facts, _| {
            let (ids, own) = (&facts.observations.identity.value, facts.identity);
            let good = ids.uid == [own.host_uid; 4] && ids.gid == [own.host_gid; 4] && own.host_uid != 0;
            Some((format!("uid {:?} gid {:?}", ids.uid, ids.gid), good))
        }),
        None,
    ),
    attack(
        IDENTITY_ROW,
        "inside-id",
        "have another id inside than the plan's",
        Expect::SaysAs(|facts| ids_line(facts.identity.inside)),
        Some(|| Answer::Said(format!("uid {}; gid {}", status("Uid"), status("Gid")))),
    ),
    attack(
        IDENTITY_ROW,
        "change-id",
        "become somebody else: setresuid",
        Expect::Refused(&[EPERM, EINVAL]),
        Some(|| {
            let other = if rustix::process::geteuid().is_root() { 1 } else { 0 };
            call(libc::SYS_setresuid, &mut [N(other), N(other), N(other)])
        }),
    ),
    attack(
        IDENTITY_ROW,
        "set-uid-program",
        "start as root from a set-uid program",
        Expect::SaysAs(|facts| facts.identity.inside.to_string()),
        // The attacker's own program is set-uid for the one who is root inside.
        Some(|| Answer::Said(rustix::process::geteuid().as_raw().to_string())),
    ),
    attack(
        IDENTITY_ROW,
        "groups",
        "have a supplementary group of the launcher's",
        Expect::Outside("none, or those that a user cannot give up", |facts, answer| {
            let Some(Answer::Said(inside)) = answer else { return None };
            let outside = &facts.observations.identity.value.groups;
            let good = if facts.identity.by_root {
                outside.is_empty() && inside.is_empty()
            } else {
                inside.split_whitespace().count() == outside.len()
            };
            Some((if inside.is_empty() { "none".to_owned() } else { inside.clone() }, good))
        }),
        Some(|| Answer::Said(status("Groups"))),
    ),
    attack(
        IDENTITY_ROW,
        "setgroups",
        "take a group: setgroups",
        PERM,
        Some(|| call(libc::SYS_setgroups, &mut [N(1), Memory(&mut [0; 4])])),
    ),
    attack(
        IDENTITY_ROW,
        "setgroups-file",
        "find setgroups allowed in its user namespace",
        Expect::Says("deny"),
        Some(|| {
            Answer::Said(std::fs::read_to_string("/proc/self/setgroups").unwrap_or_default().trim().into())
        }),
    ),
    attack(
        IDENTITY_ROW,
        "map",
        "widen its user namespace: write uid_map",
        PERM,
        Some(|| Answer::of(std::fs::write("/proc/self/uid_map", "0 0 4294967295\n"))),
    ),
];

fn ids_line(id: u32) -> String {
    format!("uid {id} {id} {id} {id}; gid {id} {id} {id} {id}")
}

/// Row "capabilities".
pub(super) const CAPABILITIES: &[Attack] = &[
    attack(
        CAPABILITIES_ROW,
        "before",
        "have a capability before its first instruction",
        Expect::Outside("none in five sets", |facts, _| {
            let c = &facts.observations.capabilities.value;
            let sets = [&c.inheritable, &c.permitted, &c.effective, &c.ambient, &c.bounding];
            let good = sets.iter().all(|set| *set == NOTHING);
            Some((if good { "none in five sets".into() } else { format!("{c:?}") }, good))
        }),
        None,
    ),
    attack(
        CAPABILITIES_ROW,
        "after",
        "have a capability after it",
        Expect::Says("0000000000000000 0000000000000000 0000000000000000 0000000000000000"),
        Some(|| Answer::Said(["CapInh", "CapPrm", "CapEff", "CapAmb"].map(status).join(" "))),
    ),
    attack(
        CAPABILITIES_ROW,
        "bounding",
        "have one that a program could give",
        Expect::Says(NOTHING),
        Some(|| Answer::Said(status("CapBnd"))),
    ),
    attack(
        CAPABILITIES_ROW,
        "capset",
        "take all of them: capset",
        PERM,
        Some(|| {
            // Version 3, this process; then effective, permitted and inheritable twice.
            let mut header = [0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0];
            call(libc::SYS_capset, &mut [Memory(&mut header), Memory(&mut [0xff; 24])])
        }),
    ),
    attack(
        CAPABILITIES_ROW,
        "ambient",
        "raise one into the ambient set",
        PERM,
        Some(|| call(libc::SYS_prctl, &mut [N(47), N(2), N(21), N(0), N(0)])),
    ),
    attack(
        CAPABILITIES_ROW,
        "secure-bits",
        "gain some by being id 0: secure bits",
        // NOROOT and NO_CAP_AMBIENT_RAISE, both locked, and KEEP_CAPS locked.
        Expect::Says("0xe3"),
        Some(|| {
            match sys::call(libc::SYS_prctl, &mut [N(libc::PR_GET_SECUREBITS.into()), N(0), N(0), N(0), N(0)])
            {
                Ok(bits) => Answer::Said(format!("{bits:#x}")),
                Err(errno) => Answer::Refused(errno),
            }
        }),
    ),
];

/// Row "descriptors, environment".
pub(super) const OWN: &[Attack] = &[
    attack(
        OWN_ROW,
        "descriptors",
        "have a descriptor of the launcher's",
        Expect::Says("0 1 2"),
        Some(|| Answer::Said(super::DESCRIPTORS.get().cloned().unwrap_or_default())),
    ),
    attack(
        OWN_ROW,
        "environment",
        "have a variable of the launcher's",
        Expect::Says("LANG"),
        Some(|| {
            let mut names: Vec<String> =
                std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
            names.sort();
            Answer::Said(names.join(" "))
        }),
    ),
    attack(
        OWN_ROW,
        "stdin",
        "read the launcher's standard input",
        Expect::Says("/dev/null"),
        Some(|| match std::fs::read_link("/proc/self/fd/0") {
            Ok(link) => Answer::Said(link.display().to_string()),
            Err(e) => Answer::Said(e.to_string()),
        }),
    ),
];
