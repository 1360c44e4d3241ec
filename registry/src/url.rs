//! Hosts and URLs as text.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Whether a URL is `base` (scheme and authority) followed by nothing, a path or a query.
pub(crate) fn has_base(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Whether a name is `localhost` or below it. Such names are never resolved by a name server (RFC 6761).
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a host is this machine by its text alone. NAT64 addresses of loopback addresses are not: another host translates them.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    is_localhost(host) || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !bare.ends_with(':') => bare,
        _ => host,
    }
}

/// Host and port of a URL.
pub(crate) fn authority(url: &str) -> &str {
    url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or(url)
}

/// A query string or an `application/x-www-form-urlencoded` body.
pub(crate) fn encode_pairs(pairs: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, ESCAPED);
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

/// Appends parameters to a URL that may have a query already.
pub(crate) fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{}", encode_pairs(pairs))
}

/// Untrusted text for a message: shortened, and without control characters, which could steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_ends_at_the_authority() {
        assert!(has_base("https://a.example/x", "https://a.example"));
        assert!(!has_base("https://a.example.evil/x", "https://a.example"));
        assert!(!has_base("https://a.example:444/x", "https://a.example"));
        assert!(!has_base("https://a.example@evil/x", "https://a.example"));
        assert!(!has_base("http://a.example/x", "https://a.example"));
    }

    #[test]
    fn port_is_removed() {
        assert_eq!(without_port("a.example:5000"), "a.example");
        assert_eq!(without_port("[::1]:5000"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }

    #[test]
    fn loopback_is_decided_by_text() {
        for host in
            ["localhost", "localhost:5000", "a.localhost", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]
        {
            assert!(is_loopback(without_port(host)), "{host}");
        }
        for host in [
            "localhost.example",
            "notlocalhost",
            "127.0.0.1.example",
            "10.0.0.1",
            "[64:ff9b::7f00:1]",
            "127.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(is_loopback("[::ffff:127.0.0.1]"));
    }

    #[test]
    fn pairs_are_percent_encoded() {
        assert_eq!(encode_pairs(&[("a", "b c"), ("d", "&=é")]), "a=b%20c&d=%26%3D%C3%A9");
        assert_eq!(with_query("https://a.example/?x", &[("y", "z")]), "https://a.example/?x&y=z");
    }
}
