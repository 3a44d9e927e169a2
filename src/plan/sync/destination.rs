//! Which addresses are pushed to: public ones, and those that the installer allows. Whoever writes a tenant must not reach
//! with the operator's feet what he cannot reach himself.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that the installer allows besides public ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Vec<IpNet>);

impl Allowed {
    /// Networks such as 10.20.0.0/16.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether an address is pushed to.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address)) || is_public(address)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    let benchmarks = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 240;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || shared
        || protocols
        || benchmarks
        || reserved)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments().first().copied().unwrap_or_default();
    // Global unicast is 2000::/3; everything else is of this machine, this link, this site, or nobody's.
    let documentation = address.segments().starts_with(&[0x2001, 0x0db8]);
    first & 0xe000 == 0x2000 && !documentation
}

/// The IPv4 address inside of one that a translator leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [first, second, third, middle @ .., high, low] = address.segments();
    let between = [&[third], &middle[..]].concat().iter().all(|segment| *segment == 0);
    let of = |high: u16, low: u16| {
        let [one, two] = high.to_be_bytes();
        let [three, four] = low.to_be_bytes();
        Ipv4Addr::new(one, two, three, four)
    };
    match (first, second) {
        (0x64, 0xff9b) if between => Some(of(high, low)),
        (0x2002, _) => Some(of(second, third)),
        (0, 0) if between && address != Ipv6Addr::LOCALHOST => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_pushed_to_without_leave() {
        let none = Allowed::default();
        for refused in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.96.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!none.admits(refused.parse().unwrap()), "{refused}");
        }
        for admitted in [
            "1.1.1.1",
            "52.1.2.3",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "64:ff9b::101:101",
        ] {
            assert!(none.admits(admitted.parse().unwrap()), "{admitted}");
        }
    }

    #[test]
    fn the_installer_allows_networks() {
        let some = Allowed::new(vec!["10.20.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        assert!(some.admits("10.20.3.4".parse().unwrap()) && some.admits("fd00::5".parse().unwrap()));
        assert!(some.admits("::ffff:10.20.0.1".parse().unwrap()));
        assert!(!some.admits("10.21.0.1".parse().unwrap()) && !some.admits("127.0.0.1".parse().unwrap()));
    }
}
