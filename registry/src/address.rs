//! Classifies IP addresses, so that a registry elsewhere cannot direct the client to this machine or its network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The reach of an address, ordered from the most protected to the least protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AddressScope {
    /// An address that no registry has: link-local (used by cloud metadata services), multicast, broadcast, unspecified or reserved.
    Reserved,
    /// This machine.
    Loopback,
    /// A private network.
    Private,
    /// Any other address.
    Public,
}

impl AddressScope {
    /// The scope of `address`. An IPv4 address mapped or translated (NAT64) into IPv6 has the scope of the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        // 100.64.0.0/10: shared by the customers of a provider (RFC 6598).
        let is_shared = a == 100 && b & 0xc0 == 64;
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || a == 0
            || a >= 240
        {
            Self::Reserved
        } else if address.is_private() || is_shared {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if let Some(mapped) = address.to_ipv4_mapped() {
            return Self::of_v4(mapped);
        }
        // 64:ff9b::/96: IPv4 addresses translated by NAT64 (RFC 6052).
        if address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
            let [.., a, b, c, d] = address.octets();
            return Self::of_v4(Ipv4Addr::new(a, b, c, d));
        }
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local() {
            Self::Reserved
        } else if address.is_unique_local() {
            Self::Private
        } else {
            Self::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_of_addresses() {
        for (address, expected) in [
            ("127.0.0.1", AddressScope::Loopback),
            ("127.9.9.9", AddressScope::Loopback),
            ("::1", AddressScope::Loopback),
            ("::ffff:127.0.0.1", AddressScope::Loopback),
            ("64:ff9b::7f00:1", AddressScope::Loopback),
            ("169.254.169.254", AddressScope::Reserved),
            ("::ffff:169.254.169.254", AddressScope::Reserved),
            ("fe80::1", AddressScope::Reserved),
            ("0.0.0.0", AddressScope::Reserved),
            ("::", AddressScope::Reserved),
            ("255.255.255.255", AddressScope::Reserved),
            ("224.0.0.1", AddressScope::Reserved),
            ("10.0.0.1", AddressScope::Private),
            ("172.31.0.1", AddressScope::Private),
            ("192.168.1.1", AddressScope::Private),
            ("100.64.0.1", AddressScope::Private),
            ("fd00::1", AddressScope::Private),
            ("192.0.2.1", AddressScope::Public),
            ("2001:db8::1", AddressScope::Public),
        ] {
            assert_eq!(AddressScope::of(address.parse().expect(address)), expected, "{address}");
        }
    }
}
