//! Resolves host names by `/etc/hosts` and the name servers of `/etc/resolv.conf`.
//!
//! The program is static. The C library's resolver would load plug-ins of the C library that the machine has, so it is not used.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Instant;

use crate::dns::{self, TYPE};
use crate::url::is_localhost;

const ATTEMPTS: usize = 2;
// The limits of the C library.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH_DOMAINS: usize = 6;
const MAX_FILE: u64 = 1 << 20;

/// The name resolution settings of this machine.
#[derive(Clone, Debug)]
pub(crate) struct HostNames {
    hosts: String,
    servers: Vec<SocketAddr>,
    search_domains: Vec<String>,
}

impl HostNames {
    /// Reads `/etc/hosts` and `/etc/resolv.conf`.
    pub fn of_this_machine() -> Self {
        let read = |path: &str| {
            let mut text = String::new();
            let file =
                std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
            file.map(|_| text).unwrap_or_default()
        };
        Self::parse(read("/etc/hosts"), &read("/etc/resolv.conf"), 53)
    }

    /// Parses the two files. `port` is the port of the name servers.
    pub fn parse(hosts: String, resolv_conf: &str, port: u16) -> Self {
        let (mut servers, mut search_domains) = (Vec::new(), Vec::new());
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    servers.extend(words.next().and_then(|address| server_address(address, port)));
                }
                // The last line of either kind counts. The root domain adds nothing to a name.
                Some("search" | "domain") => {
                    let domains = words.filter(|domain| *domain != ".");
                    search_domains = domains.take(MAX_SEARCH_DOMAINS).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        Self { hosts, servers, search_domains }
    }

    /// The addresses of a host name or of a literal address. Name servers are asked until `deadline`.
    pub fn resolve(&self, host: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let in_hosts = self.in_hosts_file(host);
        if !in_hosts.is_empty() {
            return Ok(in_hosts);
        }
        let mut names = vec![host.to_owned()];
        if !host.contains('.') {
            names.extend(self.search_domains.iter().map(|domain| format!("{host}.{domain}")));
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no name server has an address for it");
        for name in names {
            match self.query_servers(&name, deadline) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn in_hosts_file(&self, host: &str) -> Vec<IpAddr> {
        let address = |line: &str| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        };
        self.hosts.lines().filter_map(address).collect()
    }

    fn query_servers(&self, name: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server responds");
        for server in std::iter::repeat_n(&self.servers, ATTEMPTS).flatten() {
            // An empty result requires both address families.
            let both = dns::query(*server, name, TYPE::A, deadline).map(|mut found| {
                found.extend(dns::query(*server, name, TYPE::AAAA, deadline).unwrap_or_default());
                found
            });
            match both {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(io::Error::new(last.kind(), format!("querying the name servers of /etc/resolv.conf: {last}")))
    }
}

/// The address of a name server. A link-local address is followed by `%` and its interface.
fn server_address(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, interface_index(interface)?).into())
}

/// The index of a network interface, which is given by name or by index.
fn interface_index(interface: &str) -> Option<u32> {
    if let Ok(index) = interface.parse() {
        return Some(index);
    }
    let path = Path::new("/sys/class/net").join(Path::new(interface).file_name()?).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddressScope;
    use simple_dns::rdata::{A, AAAA, RData};
    use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, ResourceRecord};
    use std::io::Write as _;
    use std::net::{TcpListener, UdpSocket};

    fn response(query: &[u8], truncated: bool) -> Vec<u8> {
        let query = Packet::parse(query).expect("query");
        let mut response = Packet::new_reply(query.id());
        response.questions = query.questions.clone();
        let name = query.questions[0].qname.clone();
        let data = match query.questions[0].qtype {
            QTYPE::TYPE(TYPE::A) => RData::A(A { address: Ipv4Addr::new(192, 0, 2, 7).into() }),
            _ => RData::AAAA(AAAA { address: "2001:db8::7".parse::<Ipv6Addr>().expect("address").into() }),
        };
        match truncated {
            true => response.set_flags(PacketFlag::TRUNCATION),
            false => response.answers.push(ResourceRecord::new(name, CLASS::IN, 1, data)),
        }
        response.build_bytes_vec().expect("response")
    }

    /// Starts a name server that answers every query and returns its port. Responses over UDP are truncated if `truncated`.
    fn start_name_server(truncated: bool) -> u16 {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let port = udp.local_addr().expect("address").port();
        let tcp = TcpListener::bind(("127.0.0.1", port)).expect("socket");
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((read, from)) = udp.recv_from(&mut buffer) {
                // A response to another query comes first.
                let mut other = response(&buffer[..read], false);
                other[0] ^= 0xff;
                udp.send_to(&other, from).expect("sent");
                udp.send_to(&response(&buffer[..read], truncated), from).expect("sent");
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("stream");
                let mut length = [0; 2];
                stream.read_exact(&mut length).expect("query");
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).expect("query");
                let response = response(&query, false);
                stream.write_all(&(response.len() as u16).to_be_bytes()).expect("response");
                stream.write_all(&response).expect("response");
            }
        });
        port
    }

    #[test]
    fn resolves_by_hosts_file_then_by_name_server() {
        for truncated in [false, true] {
            let hosts = "10.1.2.3 one.example other # two.example\n";
            let resolv_conf = "nameserver 127.0.0.1\nsearch far.example\n";
            let names = HostNames::parse(hosts.to_owned(), resolv_conf, start_name_server(truncated));
            let deadline = Instant::now() + std::time::Duration::from_secs(10);
            let resolve = |name: &str| names.resolve(name, deadline).expect(name);
            assert_eq!(resolve("one.example"), ["10.1.2.3".parse::<IpAddr>().expect("address")]);
            assert_eq!(resolve("[::1]"), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
            let is_loopback = |address: &IpAddr| AddressScope::of(*address) == AddressScope::Loopback;
            assert!(resolve("x.localhost").iter().all(is_loopback));
            let served: Vec<IpAddr> =
                ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().expect("address")).into();
            assert_eq!(resolve("two.example"), served);
            assert_eq!(resolve("plain"), served);
        }
    }

    #[test]
    fn resolv_conf_is_read_like_the_c_library_reads_it() {
        let parse = |resolv_conf: &str| {
            let names = HostNames::parse(String::new(), resolv_conf, 53);
            let servers: Vec<String> = names.servers.iter().map(ToString::to_string).collect();
            (servers.join(" "), names.search_domains.join(" "))
        };
        for (resolv_conf, servers, domains) in [
            ("", "127.0.0.1:53", ""),
            ("nameserver\t192.0.2.1\nsearch\ta.example\tb.example\n", "192.0.2.1:53", "a.example b.example"),
            (" nameserver  ::1 # a comment\r\n", "[::1]:53", ""),
            (
                "nameserver invalid\nnameservers 192.0.2.1\n#nameserver 192.0.2.2\n; search c\n",
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
            assert_eq!(parse(resolv_conf), (servers.to_owned(), domains.to_owned()), "{resolv_conf:?}");
        }
        // The index of the loopback interface is 1 on every machine.
        let has_index = Path::new("/sys/class/net/lo/ifindex").exists();
        let expected = if has_index { "[fe80::1%1]:53" } else { "127.0.0.1:53" };
        assert_eq!(parse("nameserver fe80::1%lo\n").0, expected);
    }
}
