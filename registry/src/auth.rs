//! Being who the registry asks us to be, and to nobody else.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use invarlock_images::{Error, RegistryName, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::Method;

use crate::challenge::Challenge;
use crate::credentials::{self, Credential};
use crate::http::{Ask, Http, Tried, is_loopback, printable, without_port};

const LONGEST_ANSWER: u64 = 1 << 20;
/// What does not stand for itself in a query or form.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');
const LONGEST_TOKEN: usize = 64 << 10;

/// Who we are to one repository.
pub(crate) struct Auth {
    host: String,
    repository: String,
    /// What we want to do: `pull` or `pull,push`.
    actions: &'static str,
    /// The value of the header `Authorization` that was had last.
    header: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    pub fn new(name: &RegistryName, actions: &'static str) -> Self {
        let (host, repository) = (name.host.clone(), name.repository.clone());
        Self { host, repository, actions, header: Mutex::new(None) }
    }

    pub fn header(&self) -> Option<String> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets what the registry asks for, unless somebody did so since `used` was tried.
    pub fn answer(&self, http: &Http, challenges: &[Challenge], used: Option<&String>) -> Tried<()> {
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        if header.as_ref() != used {
            return Ok(());
        }
        let bearer = challenges.iter().find_map(|it| match it {
            Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        let got = match bearer {
            Some((realm, service)) => self.token(http, realm, service)?,
            None if challenges.contains(&Challenge::Basic) => self.basic(http)?,
            None => {
                return Err(Error::unsupported(format!(
                    "{} asks for a proof of who you are of a kind that is not known here; Basic and Bearer are",
                    self.host
                ))
                .into());
            }
        };
        *header = Some(got);
        Ok(())
    }

    fn basic(&self, http: &Http) -> Result<String> {
        match self.credential(&self.host)? {
            Some(Credential::Password(name, password)) => {
                if http.base.starts_with("http:") && !http.is_here() {
                    return Err(Error::safety(format!(
                        "{} asks for your password without TLS; it is not sent",
                        self.host
                    )));
                }
                Ok(basic(&name, &password))
            }
            Some(Credential::Refresh(_)) => Err(Error::input(format!(
                "{} asks for a password, and what is stored for it is a token; log in again (`podman login {}`)",
                self.host, self.host
            ))),
            None => Err(Error::input(format!(
                "{} asks who you are, and no credentials are stored for it; log in (`podman login {}` or `docker login {}`)",
                self.host, self.host, self.host
            ))),
        }
    }

    fn credential(&self, host: &str) -> Result<Option<Credential>> {
        let repository = if host == self.host { self.repository.as_str() } else { "" };
        credentials::find(host, repository, &|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// A token for this repository, from where the registry says. That must have TLS or be this machine; it gets credentials where
    /// it is the same host or in its domain, or where there are some for itself.
    fn token(&self, http: &Http, realm: &str, service: Option<&str>) -> Tried<String> {
        let base = realm_base(realm).map_err(|why| {
            Error::safety(format!("{} sends us for a token to {}, {why}", self.host, printable(realm)))
        })?;
        // Nobody else's network is looked into for a token.
        let realm = http.follow(&http.base, realm)?;
        let realm_host = base.split("://").nth(1).unwrap_or_default();
        let credential = if is_of(realm_host, api_host(&self.host)) {
            self.credential(&self.host)?
        } else {
            self.credential(realm_host)?
        };
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let mut query = vec![("scope", scope.as_str())];
        query.extend(service.map(|it| ("service", it)));
        let known = credential.is_some();
        let bytes = match credential {
            Some(Credential::Refresh(token)) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "invarlock"),
                    ("refresh_token", &token),
                ]);
                let form = encode(&query);
                let mut ask =
                    Ask::new(Method::POST, realm).header("Content-Type", "application/x-www-form-urlencoded");
                ask.body = Some((form.len() as u64, Box::new(form.as_bytes())));
                self.ask_for_token(http, ask, known, realm_host)?
            }
            other => {
                let joint = if realm.contains('?') { '&' } else { '?' };
                let mut ask = Ask::new(Method::GET, format!("{realm}{joint}{}", encode(&query)));
                if let Some(Credential::Password(name, password)) = other {
                    ask.authorization = Some((base.clone(), basic(&name, &password)));
                }
                self.ask_for_token(http, ask, known, realm_host)?
            }
        };
        let nonsense = || Error::integrity(format!("the token server {realm_host} gives no token"));
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| nonsense())?;
        let token = answer.token.or(answer.access_token).filter(|it| !it.is_empty()).ok_or_else(nonsense)?;
        let plain = token.bytes().all(|it| it.is_ascii_graphic()) && token.len() <= LONGEST_TOKEN;
        if plain { Ok(format!("Bearer {token}")) } else { Err(nonsense().into()) }
    }

    fn ask_for_token(&self, http: &Http, ask: Ask<'_>, known: bool, realm_host: &str) -> Tried<Vec<u8>> {
        let url = ask.url.clone();
        let response = http.send(ask)?;
        match response.status().as_u16() {
            200 => http.read_bounded(&url, response, LONGEST_ANSWER),
            401 | 403 => Err(Error::input(match known {
                true => format!("the token server {realm_host} refuses the stored credentials; log in again (`podman login {}`)", self.host),
                false => format!(
                    "the token server {realm_host} gives nobody a token for {}; log in (`podman login {}` or `docker login {}`)",
                    self.repository, self.host, self.host
                ),
            })
            .into()),
            _ => Err(crate::client::of_status(http, &url, response, "asking for a token")),
        }
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// The host that speaks the protocol for a registry.
pub(crate) fn api_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// Scheme and host of a place that tokens may come from.
fn realm_base(realm: &str) -> std::result::Result<String, &'static str> {
    let parsed = fluent_uri::Uri::parse(realm).map_err(|_| "which is no address")?;
    let authority = parsed.authority().ok_or("which is no address of a host")?;
    if authority.userinfo().is_some() || authority.host().is_empty() {
        return Err("which has more than a host in it");
    }
    match parsed.scheme().as_str() {
        "https" => {}
        "http" if is_loopback(authority.host()) => {}
        _ => return Err("which is without TLS"),
    }
    Ok(format!("{}://{}", parsed.scheme(), authority.as_str()))
}

/// Whether a token server gets what is stored for a registry: it is the same host and port, or both are in one domain, as
/// auth.docker.io and registry-1.docker.io.
fn is_of(realm_host: &str, host: &str) -> bool {
    if realm_host == host {
        return true;
    }
    let is_name =
        |it: &str| without_port(it) == it && !it.starts_with('[') && it.parse::<std::net::IpAddr>().is_err();
    let domain = match host.split_once('.') {
        Some((_, domain)) if domain.contains('.') => domain,
        _ => host,
    };
    is_name(realm_host)
        && is_name(host)
        && host.contains('.')
        && (realm_host == domain || realm_host.strip_suffix(domain).is_some_and(|it| it.ends_with('.')))
}

/// A query or form.
pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    let put = |part| utf8_percent_encode(part, ESCAPED);
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", put(key), put(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_credentials() {
        assert!(is_of("auth.docker.io", "registry-1.docker.io"));
        assert!(is_of("gitlab.example.com", "registry.gitlab.example.com"));
        assert!(is_of("ghcr.io", "ghcr.io"));
        assert!(is_of("127.0.0.1:5000", "127.0.0.1:5000"));
        for (realm, host) in [
            ("127.0.0.1:5001", "127.0.0.1:5000"),
            ("evil.io", "ghcr.io"),
            ("xdocker.io", "registry-1.docker.io"),
            ("docker.io.evil.example", "registry-1.docker.io"),
            ("auth.docker.io:444", "registry-1.docker.io"),
            ("1.2.3.4", "9.2.3.4"),
            ("other", "localhost"),
            ("io", "ghcr.io"),
        ] {
            assert!(!is_of(realm, host), "{realm} {host}");
        }
    }

    #[test]
    fn where_tokens_come_from() {
        assert_eq!(realm_base("https://a.example/token?x=y").as_deref(), Ok("https://a.example"));
        assert_eq!(realm_base("http://127.0.0.1:1/token").as_deref(), Ok("http://127.0.0.1:1"));
        for realm in
            ["http://a.example/token", "ftp://a.example", "/token", "https://u@a.example/", "https:///x", ""]
        {
            assert!(realm_base(realm).is_err(), "{realm}");
        }
    }

    #[test]
    fn queries() {
        assert_eq!(encode(&[("a", "b c"), ("d", "&=é")]), "a=b%20c&d=%26%3D%C3%A9");
    }
}
