//! The entry point of the fuzz target: the same bytes as a header, a redirect, a DNS response and a credential file.

use crate::challenge::{self, Challenge};
use crate::credentials::AuthFile;
use crate::http::Http;
use crate::names::HostNames;
use crate::{dns, url};

/// Parses `bytes` in every way in which this crate reads untrusted input.
pub fn bytes(bytes: &[u8]) {
    let id = u16::from_be_bytes([bytes.first().copied().unwrap_or(0), 0]);
    let _ = dns::parse_response(bytes, id, "x.example");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for challenge in challenge::parse(text) {
        if let Challenge::Bearer { realm, .. } = challenge {
            assert!(realm.len() <= text.len());
        }
    }
    // A file with a credential helper would start a program.
    if !text.contains("cred") {
        let _ = AuthFile::parse(bytes).map(|file| file.find("x.example", "a/b").map(drop));
    }
    static HTTP: std::sync::OnceLock<Option<Http>> = std::sync::OnceLock::new();
    let http = HTTP.get_or_init(|| {
        let names = HostNames::of_this_machine();
        Http::new(&names, "192.0.2.1", "https", crate::limits::Deadlines::default()).ok()
    });
    let target = http.as_ref().and_then(|http| http.redirect_target("https://192.0.2.1/v2/", text).ok());
    if let Some(target) = target {
        assert!(target.starts_with("https://"), "{target}");
        let host = url::authority(&target);
        assert!(!host.is_empty() && !host.contains('@'), "{target}");
    }
}
