//! Which addresses a stranger may send us to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Addresses that no registry has: link-local ones, where clouds keep what machines know of themselves, and those for many.
    Odd,
    /// This machine.
    Here,
    /// A private network.
    Near,
    /// Anywhere.
    Far,
}

/// Where `address` is; one of version 4 in one of version 6 is what it is.
pub(crate) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => place_v6(address),
    }
}

fn place_v4(it: Ipv4Addr) -> Place {
    let [a, b, ..] = it.octets();
    match () {
        () if it.is_loopback() => Place::Here,
        () if it.is_link_local() || it.is_multicast() || it.is_broadcast() || a == 0 || a >= 240 => {
            Place::Odd
        }
        // Those that providers share among their customers, too.
        () if it.is_private() || (a == 100 && b & 0xc0 == 64) => Place::Near,
        () => Place::Far,
    }
}

fn place_v6(it: Ipv6Addr) -> Place {
    let segments = it.segments();
    if let Some(inner) = it.to_ipv4_mapped() {
        return place_v4(inner);
    }
    // Translated ones.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = it.octets();
        return place_v4(Ipv4Addr::new(a, b, c, d));
    }
    match () {
        () if it.is_loopback() => Place::Here,
        () if it.is_unspecified() || it.is_multicast() || it.is_unicast_link_local() => Place::Odd,
        () if it.is_unique_local() => Place::Near,
        () => Place::Far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (address, expected) in [
            ("127.0.0.1", Place::Here),
            ("127.9.9.9", Place::Here),
            ("::1", Place::Here),
            ("::ffff:127.0.0.1", Place::Here),
            ("64:ff9b::7f00:1", Place::Here),
            ("169.254.169.254", Place::Odd),
            ("::ffff:169.254.169.254", Place::Odd),
            ("fe80::1", Place::Odd),
            ("0.0.0.0", Place::Odd),
            ("::", Place::Odd),
            ("255.255.255.255", Place::Odd),
            ("224.0.0.1", Place::Odd),
            ("10.0.0.1", Place::Near),
            ("172.31.0.1", Place::Near),
            ("192.168.1.1", Place::Near),
            ("100.64.0.1", Place::Near),
            ("fd00::1", Place::Near),
            ("192.0.2.1", Place::Far),
            ("2001:db8::1", Place::Far),
        ] {
            assert_eq!(place(address.parse().expect(address)), expected, "{address}");
        }
    }
}
