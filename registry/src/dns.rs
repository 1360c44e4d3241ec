//! One DNS query to one name server. Responses are untrusted: they only decide where a connection is attempted, and TLS proves the peer.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, SimpleDnsError};

pub(crate) use simple_dns::TYPE;

/// The limit for one query, including all packets and the repetition over TCP.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Packets that are read before the query fails, since other hosts can send packets with a forged source.
const MAX_PACKETS: usize = 8;

/// The addresses that `server` has for `name`. The query is repeated over TCP if the response is truncated.
/// Fails after [`TIMEOUT`], and at `deadline`.
pub(crate) fn query(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    deadline: Instant,
) -> io::Result<Vec<IpAddr>> {
    let deadline = deadline.min(Instant::now() + TIMEOUT);
    let id = std::hash::RandomState::new().build_hasher().finish() as u16;
    let packet = query_packet(id, name, kind)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The kernel chooses the port and, for a connected socket, drops packets of other senders.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&packet)?;
    let mut buffer = [0; 4096];
    for _ in 0..MAX_PACKETS {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let length = socket.recv(&mut buffer)?;
        match parse_response(&buffer[..length], id, name) {
            Some(Response::Truncated) => return query_over_tcp(server, &packet, id, name, deadline),
            Some(Response::Addresses(addresses)) => return Ok(addresses),
            // A response to another query.
            None => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the name server's responses belong to other queries"))
}

fn query_packet(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, SimpleDnsError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name)?, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec()
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero())
        .then_some(left)
        .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "no name server answered in time"))
}

fn query_over_tcp(
    server: SocketAddr,
    packet: &[u8],
    id: u16,
    name: &str,
    deadline: Instant,
) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let length = u16::try_from(packet.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), packet].concat())?;
    let mut length = [0; 2];
    read_exact(&mut stream, &mut length, deadline)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exact(&mut stream, &mut bytes, deadline)?;
    match parse_response(&bytes, id, name) {
        Some(Response::Addresses(addresses)) => Ok(addresses),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "invalid response of the name server")),
    }
}

/// Fills `buffer`. The time limit of a socket starts again with each read, so it is set for each.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => buffer = &mut buffer[read..],
        }
    }
    Ok(())
}

/// A response to a query.
pub(crate) enum Response {
    /// The addresses did not fit.
    Truncated,
    Addresses(Vec<IpAddr>),
}

/// Parses the response to the query `id` for `name`; `None` if it is malformed or belongs to another query. Addresses of all names count,
/// because the queried name may be an alias.
pub(crate) fn parse_response(bytes: &[u8], id: u16, name: &str) -> Option<Response> {
    let packet = Packet::parse(bytes).ok()?;
    let is_for_name =
        |question: &Question<'_>| question.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'));
    if packet.id() != id
        || !packet.has_flags(PacketFlag::RESPONSE)
        || !packet.questions.first().is_some_and(is_for_name)
    {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Response::Truncated);
    }
    let address = |data: &RData<'_>| match data {
        RData::A(record) => Some(IpAddr::from(Ipv4Addr::from(record.address))),
        RData::AAAA(record) => Some(IpAddr::from(Ipv6Addr::from(record.address))),
        _ => None,
    };
    Some(Response::Addresses(packet.answers.iter().filter_map(|answer| address(&answer.rdata)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a name server that truncates each response over UDP, and sends a byte per 20 ms over TCP. Returns its address.
    fn start_slow_name_server() -> SocketAddr {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let address = udp.local_addr().expect("address");
        let tcp = std::net::TcpListener::bind(address).expect("socket");
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((read, from)) = udp.recv_from(&mut buffer) {
                // The bits of a response and of its truncation.
                buffer[2] |= 0x82;
                udp.send_to(&buffer[..read], from).expect("sent");
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("connection");
                while stream.write_all(&[1]).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        address
    }

    #[test]
    fn trickled_response_has_a_deadline() {
        let (server, start) = (start_slow_name_server(), Instant::now());
        let error =
            query(server, "x.example", TYPE::A, start + Duration::from_millis(300)).expect_err("slow");
        assert!([io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind()), "{error}");
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }

    #[test]
    fn rejects_malformed_responses() {
        assert!(parse_response(b"", 1, "x").is_none());
        assert!(parse_response(&[0xff; 600], 0xffff, "x").is_none());
    }
}
