//! One HTTP request to the registry, or to the host that it redirects to. Bounds sizes and times, checks redirects, and decides which
//! failures are transient. Responses are untrusted.

use std::io::Read;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fluent_uri::{Uri, UriRef};
use invarlock_error::{Error, Foreign as _, Kind, Result};
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector, TcpConnector};
use ureq::{Agent, Body, Proxy, SendBody};

use crate::address::AddressScope;
use crate::body::BodyReader;
use crate::deadline::{self, LimitedConnector};
use crate::guarded_resolver::GuardedResolver;
use crate::limits::{Deadlines, MAX_HEADERS};
use crate::names::HostNames;
use crate::retry::Attempt;
use crate::url::{has_base, is_localhost, is_loopback, printable, without_port};
use crate::{transport_error, trust};

const MAX_REDIRECTS: u32 = 5;
/// The size of one write to a connection. The time limit of a write starts again when a part of it was sent, so writes must be small.
const WRITE_SIZE: usize = 16 << 10;

/// HTTP clients for one registry.
pub(crate) struct Http {
    /// For the registry itself.
    registry: Agent,
    /// For hosts that the registry redirects to.
    elsewhere: Agent,
    /// `https://HOST` or `http://HOST`.
    pub base: String,
    scope: AddressScope,
    is_local: bool,
    deadlines: Deadlines,
}

/// A request.
pub(crate) struct HttpRequest<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    /// The value of `Authorization`, after the base of the only URLs that it is sent to.
    pub authorization: Option<(String, String)>,
    /// Size and content of the body.
    pub body: Option<(u64, Box<dyn Read + 'a>)>,
}

impl<'a> HttpRequest<'a> {
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), authorization: None, body: None }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Http {
    /// Clients for the registry at `host`; `scheme` is `https` or `http`.
    pub fn new(names: &HostNames, host: &str, scheme: &str, deadlines: Deadlines) -> Result<Self> {
        let bare = without_port(host);
        let is_local = is_loopback(bare);
        // A name that resolves to a loopback address is not this machine, because it may resolve to another address the next time. Of
        // several addresses any may be connected to, so the least protected scope decides where redirects may lead.
        let resolved = names.resolve(bare, deadline::earliest(deadlines.resolve));
        let scopes = resolved.unwrap_or_default().into_iter().map(AddressScope::of);
        let minimum = if is_local { AddressScope::Loopback } else { AddressScope::Private };
        let scope = scopes.max().unwrap_or(AddressScope::Public).max(minimum);
        let proxy = Proxy::try_from_env().filter(|_| !is_local);
        let machine_roots = trust::machine_roots();
        let registry_roots = [trust::registry_roots(host)?, machine_roots.clone()].concat();
        let agent = |scopes: RangeInclusive<AddressScope>, roots: &[Certificate<'static>]| {
            let resolver = GuardedResolver {
                names: names.clone(),
                scopes,
                proxy: proxy.as_ref().map(|proxy| proxy.host().to_owned()),
            };
            new_agent(resolver, roots, proxy.clone(), &deadlines)
        };
        Ok(Self {
            registry: agent(AddressScope::Reserved..=scope, &registry_roots),
            elsewhere: agent(scope..=AddressScope::Public, &machine_roots),
            base: format!("{scheme}://{host}"),
            scope,
            is_local,
            deadlines,
        })
    }

    /// Whether the registry is this machine by the text of its host, independent of name resolution.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Sends a request and follows redirects. All of it has one deadline, up to the headers of the last response.
    pub fn send(&self, request: HttpRequest<'_>) -> Attempt<Response<Body>> {
        let upload = request.body.as_ref().map_or(Duration::ZERO, |(size, _)| self.upload_time(*size));
        let limit = self.deadlines.exchange.saturating_add(upload);
        deadline::within(limit, || self.follow_redirects(request))
    }

    fn upload_time(&self, size: u64) -> Duration {
        self.deadlines.rate.time_for(size)
    }

    fn follow_redirects(&self, mut request: HttpRequest<'_>) -> Attempt<Response<Body>> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&mut request)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if request.body.is_some() || ![Method::GET, Method::HEAD].contains(&request.method) {
                return Err(Error::unsupported("the registry redirects an upload").into());
            }
            let location = header(&response, "location")
                .ok_or_else(|| Error::integrity("the registry sends a redirect without a location"))?;
            request.url = self.redirect_target(&request.url, location)?;
            // The authorization is dropped for good: the other host may redirect back to the registry.
            request.authorization = request.authorization.filter(|(base, _)| has_base(&request.url, base));
        }
        Err(Error::safety(format!("the registry redirects more than {MAX_REDIRECTS} times")).into())
    }

    fn send_once(&self, request: &mut HttpRequest<'_>) -> Attempt<Response<Body>> {
        let HttpRequest { method, url, headers, authorization, body } = request;
        let mut builder = Request::builder().method(&*method).uri(&*url);
        for (name, value) in headers {
            builder = builder.header(*name, &*value);
        }
        if let Some((_, value)) = authorization.as_ref().filter(|(base, _)| has_base(url, base)) {
            builder = builder.header("Authorization", value);
        }
        let agent = if has_base(url, &self.base) { &self.registry } else { &self.elsewhere };
        let context = || format!("invalid URL {}", printable(url));
        let sent = match body {
            Some((size, content)) => {
                let builder = builder.header("Content-Length", *size);
                let request = builder.body(SendBody::from_reader(content.as_mut()));
                let request = request.err_kind(Kind::Integrity).map_err(|error| error.context(context()))?;
                let limit = Some(self.upload_time(*size));
                agent.run(agent.configure_request(request).timeout_send_body(limit).build())
            }
            None => {
                let request = builder.body(());
                let request = request.err_kind(Kind::Integrity).map_err(|error| error.context(context()))?;
                agent.run(request)
            }
        };
        sent.map_err(|error| transport_error::from_ureq(url, error, &self.deadlines))
    }

    /// The URL that the reference `location` means at the URL `from`, if a redirect may lead there.
    pub fn redirect_target(&self, from: &str, location: &str) -> Result<String> {
        let reject = |why: &str| {
            Err(Error::safety(format!("the registry redirects to {}, {why}", printable(location))))
        };
        let resolved = UriRef::parse(location)
            .ok()
            .zip(Uri::parse(from).ok())
            .and_then(|(to, from)| to.resolve_against(&from).ok().map(|uri| uri.normalize()));
        let Some(target) = resolved else { return reject("which is not a valid URL") };
        if !["http", "https"].contains(&target.scheme().as_str()) {
            return reject("which is not HTTP");
        }
        let Some(authority) = target.authority() else { return reject("which names no host") };
        if authority.userinfo().is_some() || authority.host().is_empty() {
            return reject("which contains credentials or no host");
        }
        let url = target.as_str().split('#').next().unwrap_or_default().to_owned();
        let is_registry = has_base(&url, &self.base);
        match target.scheme().as_str() {
            "https" => {}
            "http" if from.starts_with("https:") => {
                return reject("which leads from TLS to a URL without TLS");
            }
            "http" if is_registry || is_loopback(authority.host()) => {}
            _ => return reject("which is another host without TLS"),
        }
        let literal = authority.host().trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let scope = match is_localhost(authority.host()) {
            true => Some(AddressScope::Loopback),
            false => literal.map(AddressScope::of),
        };
        if !is_registry && scope.is_some_and(|scope| scope < self.scope) {
            return reject(
                "an address of this machine or its network; a registry elsewhere must not direct the client there",
            );
        }
        Ok(url)
    }

    /// Reads a small response of at most `limit` bytes.
    pub fn read_document(&self, url: &str, response: Response<Body>, limit: u64) -> Attempt<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_stream(url, response, |piece| {
            bytes.extend_from_slice(piece);
            match bytes.len() as u64 > limit {
                true => Err(Error::safety(format!("the registry sends more than the allowed {limit} bytes"))),
                false => Ok(()),
            }
        })?;
        Ok(bytes)
    }

    /// Reads a response in pieces, at the minimum rate.
    pub fn read_stream(
        &self,
        url: &str,
        response: Response<Body>,
        mut on_piece: impl FnMut(&[u8]) -> Result<()>,
    ) -> Attempt<()> {
        let mut reader = BodyReader::new(url, response.into_body().into_reader(), &self.deadlines);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                read => on_piece(&buffer[..read])?,
            }
        }
    }

    /// Sends a plain GET to the registry, to find out whether it uses TLS.
    pub fn probe(&self, url: &str) -> std::result::Result<Response<Body>, ureq::Error> {
        let request = Request::builder().uri(url).body(()).map_err(ureq::Error::Http)?;
        deadline::within(self.deadlines.exchange, || self.registry.run(request))
    }
}

fn new_agent(
    resolver: GuardedResolver,
    roots: &[Certificate<'static>],
    proxy: Option<Proxy>,
    deadlines: &Deadlines,
) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("invarlock/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(MAX_HEADERS)
        .output_buffer_size(WRITE_SIZE)
        .timeout_resolve(Some(deadlines.resolve))
        .timeout_connect(Some(deadlines.connect))
        .timeout_send_request(Some(deadlines.headers))
        .timeout_recv_response(Some(deadlines.headers))
        .timeout_per_read(Some(deadlines.silence))
        .timeout_per_write(Some(deadlines.silence))
        .build();
    // The default connector without SOCKS, which this build does not have, and with the limits of this crate below TLS.
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(LimitedConnector)
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, resolver)
}

/// The value of a header, if it is text.
pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(host: &str, scheme: &str) -> Http {
        let names = HostNames::of_this_machine();
        Http::new(&names, host, scheme, Deadlines::default()).expect("clients")
    }

    fn assert_rejected(http: &Http, from: &str, location: &str) {
        let result = http.redirect_target(from, location);
        assert!(result.as_ref().is_err_and(|error| error.kind() == Kind::Safety), "{location}: {result:?}");
    }

    #[test]
    fn remote_registry_redirects_only_to_public_tls_hosts() {
        let remote = http("192.0.2.1", "https");
        let from = "https://192.0.2.1/v2/a/blobs/x?y=z";
        for (location, expected) in [
            ("/v2/b", "https://192.0.2.1/v2/b"),
            ("../c#x", "https://192.0.2.1/v2/a/c"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("https://cdn.example:8443/x?y=1", "https://cdn.example:8443/x?y=1"),
        ] {
            assert_eq!(remote.redirect_target(from, location).expect(location), expected);
        }
        for location in [
            "http://192.0.2.1/v2/b",
            "http://127.0.0.1/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://localhost/x",
            "https://10.0.0.1/x",
            "https://169.254.169.254/latest",
            "https://user:pw@cdn.example/x",
            "ftp://cdn.example/x",
            "file:///etc/passwd",
            "https:///x",
            "https://a b/x",
            "é",
        ] {
            assert_rejected(&remote, from, location);
        }
    }

    #[test]
    fn local_registry_redirects_to_local_and_tls_hosts() {
        let local = http("127.0.0.1:5000", "http");
        let from = "http://127.0.0.1:5000/v2/";
        for location in
            ["http://127.0.0.1:5001/x", "http://localhost:1/x", "https://10.0.0.1/x", "https://cdn.example/"]
        {
            local.redirect_target(from, location).expect(location);
        }
        for location in ["http://cdn.example/x", "http://10.0.0.1/x", "https://169.254.169.254/x"] {
            assert_rejected(&local, from, location);
        }
    }

    #[test]
    fn loopback_hosts_are_local() {
        for host in
            ["localhost", "localhost:5000", "a.localhost", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]
        {
            assert!(http(host, "http").is_local(), "{host}");
        }
    }

    #[test]
    fn name_that_resolves_to_loopback_is_not_local() {
        let names = HostNames::parse("127.0.0.1 one.example\n10.0.0.1 two.example\n".to_owned(), "", 53);
        for host in ["one.example:5000", "two.example:5000"] {
            let http = Http::new(&names, host, "https", Deadlines::default()).expect("clients");
            assert!(!http.is_local(), "{host}");
            let from = format!("https://{host}/v2/");
            for location in
                ["https://127.0.0.1/x", "https://localhost/x", "https://a.localhost/x", "http://127.0.0.1/x"]
            {
                assert_rejected(&http, &from, location);
            }
            for location in ["/v2/b", "https://10.0.0.2/x", "https://cdn.example/x"] {
                http.redirect_target(&from, location).expect(location);
            }
        }
    }
}
