//! Attacks on the control "network".

use super::{Attack, Expect, attack, call, names_or_none};
use crate::answer::Answer;
use crate::sys::Arg::Number;
use libc::{EAFNOSUPPORT, ECONNREFUSED, ENETUNREACH, EPERM};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

const CONTROL: &str = "network";
const UNREACHABLE: Expect = Expect::Errno(&[EPERM, ENETUNREACH, EAFNOSUPPORT]);
const DENIED: Expect = Expect::Errno(&[EPERM]);

/// Names of the interfaces of this network namespace.
pub(crate) fn interfaces() -> String {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> =
        text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    names.join(" ")
}

fn connect(address: &str) -> Answer {
    match address.parse() {
        Ok(address) => Answer::of(TcpStream::connect_timeout(&address, Duration::from_secs(1))),
        Err(_) => Answer::Text("no address".into()),
    }
}

fn socket(family: i32, kind: i32) -> Answer {
    call(libc::SYS_socket, &mut [Number(family.into()), Number(kind.into()), Number(0)])
}

/// Control "network". The addresses are reserved for documentation (RFC 5737, RFC 3849): no host has them.
pub(super) const NETWORK: &[Attack] = &[
    attack(
        CONTROL,
        "interfaces",
        "have an interface of the host",
        Expect::Outside("lo", |findings, _| {
            let names = findings.observations.interfaces.value.join(" ");
            Some((names.clone(), names == "lo"))
        }),
        None,
    ),
    attack(
        CONTROL,
        "routes",
        "have a route",
        Expect::Outside("none", |findings, _| {
            let routes = &findings.observations.routes.value;
            Some((names_or_none(routes), routes.is_empty()))
        }),
        None,
    ),
    attack(CONTROL, "connect-v4", "connect to 192.0.2.1:443", UNREACHABLE, Some(|| connect("192.0.2.1:443"))),
    attack(
        CONTROL,
        "connect-v6",
        "connect to [2001:db8::1]:443",
        UNREACHABLE,
        Some(|| connect("[2001:db8::1]:443")),
    ),
    attack(
        CONTROL,
        "connect-metadata",
        "connect to 192.0.2.254:80, as to a cloud's metadata service",
        UNREACHABLE,
        Some(|| connect("192.0.2.254:80")),
    ),
    attack(
        CONTROL,
        "datagram",
        "send a datagram to 192.0.2.1:53, as to a name server",
        UNREACHABLE,
        Some(|| {
            Answer::of(UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "192.0.2.1:53")))
        }),
    ),
    attack(
        CONTROL,
        "abstract-socket",
        "connect to an abstract socket of the host",
        Expect::Errno(&[ECONNREFUSED, EPERM]),
        Some(|| {
            use std::os::linux::net::SocketAddrExt as _;
            let name = std::env::args().nth(2).unwrap_or_default();
            Answer::of(
                SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)),
            )
        }),
    ),
    attack(
        CONTROL,
        "abstract-socket-outside",
        "the same, observed at the host's socket",
        Expect::Outside("no connection", |findings, _| {
            let reached = findings.host_changes.socket_reached;
            Some((if reached { "a connection" } else { "no connection" }.into(), !reached))
        }),
        None,
    ),
    attack(
        CONTROL,
        "netlink",
        "create a socket of AF_NETLINK",
        DENIED,
        Some(|| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ),
    attack(
        CONTROL,
        "packet",
        "create a socket of AF_PACKET",
        DENIED,
        Some(|| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ),
    attack(
        CONTROL,
        "vsock",
        "create a socket of AF_VSOCK",
        DENIED,
        Some(|| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    ),
    attack(
        CONTROL,
        "alg",
        "create a socket of AF_ALG",
        DENIED,
        Some(|| socket(libc::AF_ALG, libc::SOCK_SEQPACKET)),
    ),
];
