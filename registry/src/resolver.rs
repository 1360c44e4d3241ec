//! From a name to addresses, by `/etc/hosts` and the name servers of `/etc/resolv.conf`.
//!
//! Our programs are static, and the C library's way to names would load parts of whatever C library the machine has. An answer is
//! believed no further than to whom a connection is tried: with whom we speak is proven by TLS.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, TYPE};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::address::{Place, place};

const WAIT: Duration = Duration::from_secs(3);
const TRIES: usize = 2;
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;
const LONGEST_FILE: u64 = 1 << 20;

/// What this machine says of names.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    hosts: String,
    servers: Vec<SocketAddr>,
    domains: Vec<String>,
}

impl Names {
    pub fn of_machine() -> Self {
        let read = |path: &str| {
            let mut text = String::new();
            let file =
                std::fs::File::open(path).and_then(|it| it.take(LONGEST_FILE).read_to_string(&mut text));
            file.map(|_| text).unwrap_or_default()
        };
        Self::of(read("/etc/hosts"), &read("/etc/resolv.conf"), 53)
    }

    pub fn of(hosts: String, settings: &str, port: u16) -> Self {
        let (mut servers, mut domains) = (Vec::new(), Vec::new());
        for line in settings.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(|it| server(it, port))),
                // The last of both counts. The root alone adds nothing to a name.
                Some("search" | "domain") => {
                    domains = words.filter(|it| *it != ".").take(MOST_DOMAINS).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        servers.truncate(MOST_SERVERS);
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        Self { hosts, servers, domains }
    }

    /// The addresses of a host, which may be one itself.
    pub fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let known = self.in_hosts(host);
        if !known.is_empty() {
            return Ok(known);
        }
        let plain = (!host.contains('.')).then(|| self.domains.iter().map(move |it| format!("{host}.{it}")));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no name server knows it");
        for name in std::iter::once(host.to_owned()).chain(plain.into_iter().flatten()) {
            match self.ask_all(&name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let line = |line: &str| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|it| it.eq_ignore_ascii_case(host)).then_some(address)
        };
        self.hosts.lines().filter_map(line).collect()
    }

    fn ask_all(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server answers");
        for server in std::iter::repeat_n(&self.servers, TRIES).flatten() {
            // Both are asked before it is said that there are none.
            let both = ask(*server, name, TYPE::A).map(|mut found| {
                found.extend(ask(*server, name, TYPE::AAAA).unwrap_or_default());
                found
            });
            match both {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(io::Error::new(last.kind(), format!("asking the name servers of /etc/resolv.conf: {last}")))
    }
}

/// A name server as it is written; a link-local address has the interface that leads to it behind a `%`.
fn server(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, index_of(interface)?).into())
}

/// The number of a network interface, by its name or as it is.
fn index_of(interface: &str) -> Option<u32> {
    if let Ok(index) = interface.parse() {
        return Some(index);
    }
    let path = Path::new("/sys/class/net").join(Path::new(interface).file_name()?).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a name is that of this machine, whatever anybody says.
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// One question to one server, over TCP where the answer does not fit.
fn ask(server: SocketAddr, name: &str, kind: TYPE) -> io::Result<Vec<IpAddr>> {
    let wrong =
        |error: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let id = std::hash::RandomState::new().build_hasher().finish() as u16;
    let mut question = Packet::new_query(id);
    question.set_flags(PacketFlag::RECURSION_DESIRED);
    let asked = Name::new(name).map_err(wrong)?;
    question.questions.push(Question::new(asked, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    let question = question.build_bytes_vec().map_err(wrong)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The kernel chooses the port, and lets only the server's packets in.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send(&question)?;
    let mut buffer = [0; 4096];
    for _ in 0..8 {
        let read = socket.recv(&mut buffer)?;
        match answer(&buffer[..read], id, name) {
            Some(Answer::Cut) => return answer_over_tcp(server, &question, id, name),
            Some(Answer::Found(found)) => return Ok(found),
            // Somebody else's, or nobody's.
            None => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "its answers are to other questions"))
}

fn answer_over_tcp(server: SocketAddr, question: &[u8], id: u16, name: &str) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    match answer(&bytes, id, name) {
        Some(Answer::Found(found)) => Ok(found),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "its answer makes no sense")),
    }
}

pub(crate) enum Answer {
    Cut,
    Found(Vec<IpAddr>),
}

/// The addresses of an answer to our question; nothing where it is none. Other names lead to them, so all addresses in it count.
pub(crate) fn answer(bytes: &[u8], id: u16, name: &str) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let of = |it: &Question<'_>| it.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'));
    if packet.id() != id
        || !packet.has_flags(PacketFlag::RESPONSE)
        || !packet.questions.first().is_some_and(of)
    {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Answer::Cut);
    }
    let address = |data: &RData<'_>| match data {
        RData::A(it) => Some(IpAddr::from(Ipv4Addr::from(it.address))),
        RData::AAAA(it) => Some(IpAddr::from(Ipv6Addr::from(it.address))),
        _ => None,
    };
    Some(Answer::Found(packet.answers.iter().filter_map(|it| address(&it.rdata)).collect()))
}

/// Names for the HTTP client, and whom it may speak with.
pub(crate) struct Guarded {
    pub names: Names,
    /// Addresses elsewhere are refused: before, since no stranger may send us there; behind, since the host was nearer when it was
    /// decided where it may send us.
    pub places: RangeInclusive<Place>,
    /// The proxy that the user named is where he says.
    pub proxy: Option<String>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("places", &self.places).finish_non_exhaustive()
    }
}

/// A stranger named an address that no stranger may name.
#[derive(Debug)]
pub(crate) struct Forbidden(pub String);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Forbidden {}

impl Guarded {
    fn allow(&self, host: &str, address: IpAddr) -> Result<(), Forbidden> {
        let at = place(address);
        if self.proxy.as_deref() == Some(host) || self.places.contains(&at) {
            return Ok(());
        }
        Err(Forbidden(if at < *self.places.start() {
            format!(
                "it leads to {host}, which is {address}: an address of this machine or its network, where no registry elsewhere may \
                 send us"
            )
        } else {
            format!(
                "{host} is {address} now, and was an address of this machine or its network a moment ago: its name servers play \
                 tricks, or the network was changed meanwhile; in that case try again"
            )
        }))
    }
}

impl Resolver for Guarded {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or_else(|| if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = self.names.resolve(host).map_err(|error| {
            ureq::Error::Io(io::Error::new(error.kind(), format!("looking up {host}: {error}")))
        })?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(16) {
            self.allow(host, address).map_err(|it| ureq::Error::Other(Box::new(it)))?;
            addresses.push(SocketAddr::new(address, port));
        }
        match addresses.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA};

    /// A name server that answers every question, over UDP cut short where `cut`.
    fn server(cut: bool) -> u16 {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let port = udp.local_addr().expect("address").port();
        let tcp = std::net::TcpListener::bind(("127.0.0.1", port)).expect("socket");
        let reply = move |question: &[u8], cut: bool| {
            let asked = Packet::parse(question).expect("question");
            let mut reply = Packet::new_reply(asked.id());
            reply.questions = asked.questions.clone();
            let name = asked.questions[0].qname.clone();
            let data = match asked.questions[0].qtype {
                QTYPE::TYPE(TYPE::A) => RData::A(A { address: Ipv4Addr::new(192, 0, 2, 7).into() }),
                _ => {
                    RData::AAAA(AAAA { address: "2001:db8::7".parse::<Ipv6Addr>().expect("address").into() })
                }
            };
            match cut {
                true => reply.set_flags(PacketFlag::TRUNCATION),
                false => reply.answers.push(ResourceRecord::new(name, CLASS::IN, 1, data)),
            }
            reply.build_bytes_vec().expect("reply")
        };
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((read, from)) = udp.recv_from(&mut buffer) {
                // Somebody else's answer first.
                let mut other = reply(&buffer[..read], false);
                other[0] ^= 0xff;
                udp.send_to(&other, from).expect("sent");
                udp.send_to(&reply(&buffer[..read], cut), from).expect("sent");
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("stream");
                let mut length = [0; 2];
                stream.read_exact(&mut length).expect("question");
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).expect("question");
                let reply = reply(&question, false);
                stream.write_all(&(reply.len() as u16).to_be_bytes()).expect("reply");
                stream.write_all(&reply).expect("reply");
            }
        });
        port
    }

    #[test]
    fn names_are_looked_up_here_and_then_asked_for() {
        for cut in [false, true] {
            let hosts = "10.1.2.3 one.example other # two.example\n";
            let names =
                Names::of(hosts.to_owned(), "nameserver 127.0.0.1\nsearch far.example\n", server(cut));
            let resolve = |name: &str| names.resolve(name).expect(name);
            assert_eq!(resolve("one.example"), ["10.1.2.3".parse::<IpAddr>().expect("address")]);
            assert_eq!(resolve("[::1]"), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
            assert!(resolve("x.localhost").iter().all(|it| place(*it) == Place::Here));
            let asked: Vec<IpAddr> =
                ["192.0.2.7", "2001:db8::7"].map(|it| it.parse().expect("address")).into();
            assert_eq!(resolve("two.example"), asked);
            assert_eq!(resolve("plain"), asked);
        }
    }

    #[test]
    fn a_host_is_no_farther_than_it_was_when_it_was_judged() {
        let names = Names::of(String::new(), "", 53);
        let with = |places| Guarded { names: names.clone(), places, proxy: Some("proxy".to_owned()) };
        let (registry, elsewhere) = (with(Place::Odd..=Place::Near), with(Place::Near..=Place::Far));
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        for near in ["127.0.0.1", "10.0.0.1", "fd00::1"] {
            registry.allow("it.example", address(near)).expect(near);
        }
        let refused = registry.allow("it.example", address("192.0.2.1")).expect_err("far").to_string();
        assert!(refused.contains("a moment ago"), "{refused}");
        elsewhere.allow("it.example", address("192.0.2.1")).expect("far");
        elsewhere.allow("it.example", address("10.0.0.1")).expect("near, as the registry");
        let refused = elsewhere.allow("it.example", address("::1")).expect_err("here").to_string();
        assert!(refused.contains("no registry elsewhere"), "{refused}");
        for guarded in [registry, elsewhere] {
            guarded.allow("proxy", address("127.0.0.1")).expect("the user said so");
            guarded.allow("proxy", address("192.0.2.1")).expect("the user said so");
        }
    }

    #[test]
    fn settings_are_read_as_the_c_library_reads_them() {
        let of = |settings: &str| {
            let names = Names::of(String::new(), settings, 53);
            (
                names.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                names.domains.join(" "),
            )
        };
        for (settings, servers, domains) in [
            ("", "127.0.0.1:53", ""),
            ("nameserver\t192.0.2.1\nsearch\ta.example\tb.example\n", "192.0.2.1:53", "a.example b.example"),
            (" nameserver  ::1 # ours\r\n", "[::1]:53", ""),
            (
                "nameserver nonsense\nnameservers 192.0.2.1\n#nameserver 192.0.2.2\n; search c\n",
                "127.0.0.1:53",
                "",
            ),
            ("search a.example\ndomain b.example\n", "127.0.0.1:53", "b.example"),
            ("domain b.example\nsearch a.example c\n", "127.0.0.1:53", "a.example c"),
            ("search .\n", "127.0.0.1:53", ""),
            ("search a b c d e f g\n", "127.0.0.1:53", "a b c d e f"),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
                "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53",
                "",
            ),
            ("nameserver fe80::1%7\n", "[fe80::1%7]:53", ""),
            ("nameserver fe80::1%no-such-one\nnameserver 10.0.0.1%lo\n", "127.0.0.1:53", ""),
        ] {
            assert_eq!(of(settings), (servers.to_owned(), domains.to_owned()), "{settings:?}");
        }
        // The loopback interface is the first of every machine.
        let known = Path::new("/sys/class/net/lo/ifindex").exists();
        let expected = if known { "[fe80::1%1]:53" } else { "127.0.0.1:53" };
        assert_eq!(of("nameserver fe80::1%lo\n").0, expected);
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert!(answer(b"", 1, "x").is_none());
        assert!(answer(&[0xff; 600], 0xffff, "x").is_none());
    }
}
