//! What the fuzz target calls: bytes as a registry, a name server or somebody who writes the user's files could give them.

use crate::challenge;
use crate::credentials::AuthFile;
use crate::http::Http;
use crate::resolver::{Names, answer};

/// Bytes as a header, as an address to go to, as an answer about a name, and as a file of credentials.
pub fn bytes(bytes: &[u8]) {
    let _ = answer(bytes, u16::from_be_bytes([bytes.first().copied().unwrap_or(0), 0]), "x.example");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for challenge in challenge::parse(text) {
        if let challenge::Challenge::Bearer { realm, .. } = challenge {
            assert!(realm.len() <= text.len());
        }
    }
    // A file that names a program would start it.
    if !text.contains("cred") {
        let _ = AuthFile::parse(bytes).map(|file| file.find("x.example", "a/b").map(drop));
    }
    static HTTP: std::sync::OnceLock<Option<Http>> = std::sync::OnceLock::new();
    let http = HTTP.get_or_init(|| {
        Http::new(&Names::of_machine(), "192.0.2.1", "https", std::time::Duration::from_secs(1)).ok()
    });
    if let Some(url) = http.as_ref().and_then(|it| it.follow("https://192.0.2.1/v2/", text).ok()) {
        assert!(url.starts_with("https://"), "{url}");
        let host = url.trim_start_matches("https://").split(['/', '?']).next().unwrap_or_default();
        assert!(!host.is_empty() && !host.contains('@'), "{url}");
    }
}
