//! Registry authentication. Credentials are sent only to the host they were issued for, and to a token server in its domain.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use invarlock_error::{Error, Kind, Result};
use invarlock_images::RegistryName;
use serde::Deserialize;
use ureq::http::Method;

use crate::challenge::Challenge;
use crate::credential::Credential;
use crate::http::{Http, HttpRequest};
use crate::retry::Attempt;
use crate::url::{encode_pairs, is_loopback, printable, with_query, without_port};
use crate::{credentials, status};

const MAX_TOKEN_RESPONSE: u64 = 1 << 20;
const MAX_TOKEN: usize = 64 << 10;

/// Authentication for one repository.
pub(crate) struct Auth {
    host: String,
    repository: String,
    /// The requested access: `pull` or `pull,push`.
    actions: &'static str,
    /// The current value of the header `Authorization`.
    header: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct TokenResponse {
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

    /// Authenticates as the challenges require, unless another thread has done so since the request with the header `used`.
    pub fn authenticate(&self, http: &Http, challenges: &[Challenge], used: Option<&String>) -> Attempt<()> {
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        if header.as_ref() != used {
            return Ok(());
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        *header = Some(match bearer {
            Some((realm, service)) => self.bearer_header(http, realm, service)?,
            None if challenges.contains(&Challenge::Basic) => self.basic_header(http)?,
            None => {
                let message = "unsupported authentication scheme; supported: Basic, Bearer";
                return Err(Error::unsupported(format!("{}: {message}", self.host)).into());
            }
        });
        Ok(())
    }

    fn basic_header(&self, http: &Http) -> Result<String> {
        let host = &self.host;
        match self.credential_for(host)? {
            Some(Credential::Password(name, password)) => {
                if http.base.starts_with("http:") && !http.is_local() {
                    return Err(Error::safety(format!(
                        "{host} requests a password without TLS; the password is not sent"
                    )));
                }
                Ok(basic_header(&name, &password))
            }
            Some(Credential::Refresh(_)) => {
                Err(Error::input(format!("{host} requests a password, but the stored credential is a token"))
                    .with_hint(format!("log in again (`podman login {host}`)")))
            }
            None => {
                Err(Error::input(format!("{host} requires authentication, and no credentials are stored"))
                    .with_hint(self.login_hint()))
            }
        }
    }

    fn login_hint(&self) -> String {
        format!("log in (`podman login {0}` or `docker login {0}`)", self.host)
    }

    fn credential_for(&self, host: &str) -> Result<Option<Credential>> {
        let repository = if host == self.host { self.repository.as_str() } else { "" };
        credentials::find(host, repository, &|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// Gets a token for the repository from the token server `realm`, which must use TLS or be this machine. The token server gets the
    /// registry's credential if it belongs to the registry, otherwise the credential stored for itself.
    fn bearer_header(&self, http: &Http, realm: &str, service: Option<&str>) -> Attempt<String> {
        let base = realm_base(realm).map_err(|why| {
            let realm = printable(realm);
            Error::safety(format!("{} directs the client to the token server {realm}, {why}", self.host))
        })?;
        // The rules for redirects also apply to the realm, so that it cannot lead into a private network.
        let realm = http.redirect_target(&http.base, realm)?;
        let realm_host = base.split("://").nth(1).unwrap_or_default();
        let credential = if is_token_server_of(realm_host, api_host(&self.host)) {
            self.credential_for(&self.host)?
        } else {
            self.credential_for(realm_host)?
        };
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let mut parameters = vec![("scope", scope.as_str())];
        parameters.extend(service.map(|service| ("service", service)));
        let is_anonymous = credential.is_none();
        let bytes = match credential {
            Some(Credential::Refresh(token)) => {
                parameters.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "invarlock"),
                    ("refresh_token", &token),
                ]);
                let form = encode_pairs(&parameters);
                let mut request = HttpRequest::new(Method::POST, realm)
                    .header("Content-Type", "application/x-www-form-urlencoded");
                request.body = Some((form.len() as u64, Box::new(form.as_bytes())));
                self.send_token_request(http, request, is_anonymous, realm_host)?
            }
            other => {
                let mut request = HttpRequest::new(Method::GET, with_query(&realm, &parameters));
                if let Some(Credential::Password(name, password)) = other {
                    request.authorization = Some((base.clone(), basic_header(&name, &password)));
                }
                self.send_token_request(http, request, is_anonymous, realm_host)?
            }
        };
        let token = parse_token(&bytes).ok_or_else(|| {
            Error::integrity(format!("the response of the token server {realm_host} contains no valid token"))
        })?;
        Ok(format!("Bearer {token}"))
    }

    fn send_token_request(
        &self,
        http: &Http,
        request: HttpRequest<'_>,
        is_anonymous: bool,
        realm_host: &str,
    ) -> Attempt<Vec<u8>> {
        let url = request.url.clone();
        let response = http.send(request)?;
        match response.status().as_u16() {
            200 => http.read_document(&url, response, MAX_TOKEN_RESPONSE),
            401 | 403 => Err(self.rejected_by_token_server(is_anonymous, realm_host).into()),
            _ => Err(status::unexpected(http, &url, response, "requesting a token")),
        }
    }

    fn rejected_by_token_server(&self, is_anonymous: bool, realm_host: &str) -> Error {
        if is_anonymous {
            let message =
                format!("the token server {realm_host} issues no anonymous token for {}", self.repository);
            return Error::new(Kind::Input, message).with_hint(self.login_hint());
        }
        Error::input(format!("the token server {realm_host} rejects the stored credentials"))
            .with_hint(format!("log in again (`podman login {}`)", self.host))
    }
}

/// The token of a response, if it is one that can be sent in a header.
fn parse_token(bytes: &[u8]) -> Option<String> {
    let response: TokenResponse = serde_json::from_slice(bytes).ok()?;
    let token = response.token.or(response.access_token)?;
    let is_valid =
        !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then_some(token)
}

fn basic_header(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// The host that serves the protocol for a registry.
pub(crate) fn api_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// Scheme and authority of a token server's URL.
fn realm_base(realm: &str) -> std::result::Result<String, &'static str> {
    let parsed = fluent_uri::Uri::parse(realm).map_err(|_| "which is not a valid URL")?;
    let authority = parsed.authority().ok_or("which names no host")?;
    if authority.userinfo().is_some() || authority.host().is_empty() {
        return Err("which contains credentials or no host");
    }
    match parsed.scheme().as_str() {
        "https" => {}
        "http" if is_loopback(authority.host()) => {}
        _ => return Err("which is without TLS"),
    }
    Ok(format!("{}://{}", parsed.scheme(), authority.as_str()))
}

/// Whether a token server gets the credential of the registry `host`: both are the same host and port, or both are names in one domain,
/// like `auth.docker.io` and `registry-1.docker.io`.
fn is_token_server_of(realm_host: &str, host: &str) -> bool {
    if realm_host == host {
        return true;
    }
    let is_name = |host: &str| {
        without_port(host) == host && !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err()
    };
    let domain = match host.split_once('.') {
        Some((_, domain)) if domain.contains('.') => domain,
        _ => host,
    };
    let is_in_domain = realm_host == domain
        || realm_host.strip_suffix(domain).is_some_and(|subdomain| subdomain.ends_with('.'));
    is_name(realm_host) && is_name(host) && host.contains('.') && is_in_domain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_server_in_domain_gets_registry_credential() {
        for (realm, host) in [
            ("auth.docker.io", "registry-1.docker.io"),
            ("gitlab.example.com", "registry.gitlab.example.com"),
            ("ghcr.io", "ghcr.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert!(is_token_server_of(realm, host), "{realm} {host}");
        }
    }

    #[test]
    fn other_token_servers_get_no_registry_credential() {
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
            assert!(!is_token_server_of(realm, host), "{realm} {host}");
        }
    }

    #[test]
    fn realm_must_be_url_with_tls_or_local() {
        assert_eq!(realm_base("https://a.example/token?x=y").as_deref(), Ok("https://a.example"));
        assert_eq!(realm_base("http://127.0.0.1:1/token").as_deref(), Ok("http://127.0.0.1:1"));
        for realm in
            ["http://a.example/token", "ftp://a.example", "/token", "https://u@a.example/", "https:///x", ""]
        {
            assert!(realm_base(realm).is_err(), "{realm}");
        }
    }
}
