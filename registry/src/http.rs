//! One request: to the registry, or to where it sends us. Bounds, time limits, redirects, and what failures mean.

use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluent_uri::{Uri, UriRef};
use invarlock_images::{Error, Result};
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, SendBody};

use crate::address::{Place, place};
use crate::resolver::{Forbidden, Guarded, Names, is_localhost};
use crate::retry::Problem;
use crate::trust;

pub(crate) type Tried<T> = std::result::Result<T, Problem>;

const MOST_REDIRECTS: u32 = 5;
const LONGEST_HEADERS: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(10);
/// A document, from the request to its last byte.
const DOCUMENT: Duration = Duration::from_secs(300);
/// A connection slower than this for a minute is given up.
const SLOWEST: u64 = 64 << 10;

/// Clients for one registry.
pub(crate) struct Http {
    registry: Agent,
    elsewhere: Agent,
    /// `https://HOST` or `http://HOST`.
    pub base: String,
    place: Place,
    /// Whether the registry is this machine by its name as it is written.
    here: bool,
    stall: Duration,
}

/// A request.
pub(crate) struct Ask<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    /// Whom it may be shown to, by the beginning of his URLs, and what.
    pub authorization: Option<(String, String)>,
    pub body: Option<(u64, Box<dyn Read + 'a>)>,
    /// Whether the answer is small.
    pub document: bool,
}

impl<'a> Ask<'a> {
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), authorization: None, body: None, document: true }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Http {
    /// For the registry at `host`; `scheme` is `https` or `http`.
    pub fn new(names: &Names, host: &str, scheme: &str, stall: Duration) -> Result<Self> {
        let bare = without_port(host);
        let here = is_loopback(bare);
        // Which of several is connected to is open: what the strictest of them may not do, it may not. A name that leads here only by
        // what somebody says of it, who may say another thing the next time, is not this machine.
        let places = names.resolve(bare).unwrap_or_default().into_iter().map(place);
        let nearest = if here { Place::Here } else { Place::Near };
        let place = places.max().unwrap_or(Place::Far).max(nearest);
        let proxy = Proxy::try_from_env().filter(|_| !here);
        let machine = trust::of_machine();
        let own = [trust::of_registry(host)?, machine.clone()].concat();
        let agent = |places: RangeInclusive<Place>, roots: &[Certificate<'static>]| {
            let guarded = Guarded {
                names: names.clone(),
                places,
                proxy: proxy.as_ref().map(|it| it.host().to_owned()),
            };
            agent(guarded, roots, proxy.clone(), stall)
        };
        Ok(Self {
            registry: agent(Place::Odd..=place, &own),
            elsewhere: agent(place..=Place::Far, &machine),
            base: format!("{scheme}://{host}"),
            place,
            here,
            stall,
        })
    }

    /// Whether the registry is this machine, whatever anybody says of its name.
    pub fn is_here(&self) -> bool {
        self.here
    }

    /// Sends a request and follows where it leads.
    pub fn send(&self, mut ask: Ask<'_>) -> Tried<Response<Body>> {
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send_once(&mut ask)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if ask.body.is_some() || ![Method::GET, Method::HEAD].contains(&ask.method) {
                return Err(Error::unsupported("the registry redirects an upload").into());
            }
            let to = header(&response, "location")
                .ok_or_else(|| Error::integrity("the registry redirects to nowhere"))?;
            ask.url = self.follow(&ask.url, to)?;
            // Whoever answers there may send us back here: what we said here is not said again.
            ask.authorization = ask.authorization.filter(|(whom, _)| is_below(&ask.url, whom));
        }
        Err(Error::safety(format!("the registry redirects more than {MOST_REDIRECTS} times")).into())
    }

    fn send_once(&self, ask: &mut Ask<'_>) -> Tried<Response<Body>> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some((_, value)) = ask.authorization.as_ref().filter(|(whom, _)| is_below(&ask.url, whom)) {
            request = request.header("Authorization", value);
        }
        let agent = if is_below(&ask.url, &self.base) { &self.registry } else { &self.elsewhere };
        let limit = ask.document.then_some(DOCUMENT);
        let wrong = |error| Error::integrity(format!("{} is no address: {error}", printable(&ask.url)));
        let sent = match &mut ask.body {
            Some((size, from)) => {
                let request =
                    request.header("Content-Length", *size).body(SendBody::from_reader(from.as_mut()));
                let request = request.map_err(wrong)?;
                agent.run(agent.configure_request(request).timeout_global(limit).build())
            }
            None => {
                let request = request.body(()).map_err(wrong)?;
                agent.run(agent.configure_request(request).timeout_global(limit).build())
            }
        };
        sent.map_err(|error| self.problem(&ask.url, error))
    }

    /// The URL that `from` leads to by `reference`, if it may.
    pub fn follow(&self, from: &str, reference: &str) -> Result<String> {
        let no = |why: &str| {
            Err(Error::safety(format!("the registry sends us to {}, {why}", printable(reference))))
        };
        let resolved = UriRef::parse(reference)
            .ok()
            .zip(Uri::parse(from).ok())
            .and_then(|(to, from)| to.resolve_against(&from).ok().map(|it| it.normalize()));
        let Some(to) = resolved else { return no("which is no address") };
        if !["http", "https"].contains(&to.scheme().as_str()) {
            return no("which is not HTTP");
        }
        let Some(authority) = to.authority() else { return no("which is no address of a host") };
        if authority.userinfo().is_some() || authority.host().is_empty() {
            return no("which has more than a host in it");
        }
        let url = to.as_str().split('#').next().unwrap_or_default().to_owned();
        let same = is_below(&url, &self.base);
        match to.scheme().as_str() {
            "https" => {}
            "http" if from.starts_with("https:") => return no("which is without TLS, and we came with it"),
            "http" if same || is_loopback(authority.host()) => {}
            _ => return no("another host, which is without TLS"),
        }
        let at = authority.host().trim_matches(['[', ']']).parse::<IpAddr>().ok().map(place);
        let at = if is_localhost(authority.host()) { Some(Place::Here) } else { at };
        match at {
            Some(at) if !same && at < self.place => {
                no("an address of this machine or its network, where no registry elsewhere may send us")
            }
            _ => Ok(url),
        }
    }

    /// Reads all of a small answer.
    pub fn read_bounded(&self, url: &str, response: Response<Body>, most: u64) -> Tried<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.problem(url, ureq::Error::from(error)))?;
        match bytes.len() as u64 > most {
            true => {
                Err(Error::safety(format!("the registry gives more than the {most} bytes allowed")).into())
            }
            false => Ok(bytes),
        }
    }

    /// Reads a long answer piece by piece. One that trickles is no better than one that stalls.
    pub fn read_all(
        &self,
        url: &str,
        response: Response<Body>,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Tried<()> {
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        let (mut since, mut count) = (Instant::now(), 0);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    each(&buffer[..read])?;
                    count += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.problem(url, ureq::Error::from(error))),
            }
            if since.elapsed() > Duration::from_secs(60) {
                if count < SLOWEST {
                    let why = format!("{} gave only {count} bytes in a minute", host_of(url));
                    return Err(Problem::Passing(Error::system(why), None));
                }
                (since, count) = (Instant::now(), 0);
            }
        }
    }

    /// What a failure means.
    pub fn problem(&self, url: &str, error: ureq::Error) -> Problem {
        let host = host_of(url);
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                passing(format!("{host} did not answer within {} s", CONNECT.as_secs()))
            }
            ureq::Error::Timeout(_) => passing(format!(
                "{host} gave no byte for {} s, or no answer in time",
                self.stall.as_secs_f32()
            )),
            ureq::Error::LargeResponseHeader(..) => {
                Error::safety(format!("{host} answers with more than {LONGEST_HEADERS} bytes of headers"))
                    .into()
            }
            ureq::Error::Other(inner) => match inner.downcast::<Forbidden>() {
                Ok(forbidden) => Error::safety(forbidden.to_string()).into(),
                Err(other) => passing(format!("speaking with {host}: {other}")),
            },
            ureq::Error::Rustls(error) => of_tls(host, &error),
            ureq::Error::Protocol(error) => {
                Error::integrity(format!("what {host} answers is not HTTP as it should be: {error}")).into()
            }
            ureq::Error::Io(error) => match error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>())
            {
                Some(inner) => of_tls(host, inner),
                None => passing(format!("speaking with {host}: {error}")),
            },
            other => passing(format!("speaking with {host}: {other}")),
        }
    }

    /// Whether what answers does not speak TLS.
    pub fn is_plain(error: &ureq::Error) -> bool {
        let tls = match error {
            ureq::Error::Rustls(error) => Some(error),
            ureq::Error::Io(error) => error.get_ref().and_then(|it| it.downcast_ref()),
            _ => None,
        };
        matches!(tls, Some(rustls::Error::InvalidMessage(_)))
    }

    /// One request without anything, for how the registry is spoken to.
    pub fn look(&self, url: &str) -> std::result::Result<Response<Body>, ureq::Error> {
        let request = Request::builder().uri(url).body(()).map_err(ureq::Error::Http)?;
        self.registry.run(self.registry.configure_request(request).timeout_global(Some(DOCUMENT)).build())
    }
}

fn passing(why: String) -> Problem {
    Problem::Passing(Error::system(why), None)
}

fn of_tls(host: &str, error: &rustls::Error) -> Problem {
    match error {
        rustls::Error::InvalidCertificate(_) => Error::safety(format!(
            "{host} does not prove that it is {host}: {error}; where it is yours, put the certificate of its authority into \
             /etc/containers/certs.d/{host}/ca.crt, or name it by SSL_CERT_FILE"
        ))
        .into(),
        rustls::Error::InvalidMessage(_) => Error::input(format!(
            "{host} does not speak TLS; if it is meant to be spoken to without, say --plain-http"
        ))
        .into(),
        other => passing(format!("speaking TLS with {host}: {other}")),
    }
}

fn agent(names: Guarded, roots: &[Certificate<'static>], proxy: Option<Proxy>, stall: Duration) -> Agent {
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
        .max_response_header_size(LONGEST_HEADERS)
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .build();
    Agent::with_parts(config, DefaultConnector::new(), names)
}

/// A header as text.
pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|it| it.to_str().ok())
}

/// Whether a URL is one of the host whose URLs begin with `base`.
pub(crate) fn is_below(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Whether a host is this machine by its name alone. An address that somebody else would translate to a loopback one is not.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    is_localhost(host) || bare.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback())
}

/// A host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|it| it.is_ascii_digit()) && !bare.ends_with(':') => bare,
        _ => host,
    }
}

fn host_of(url: &str) -> &str {
    url.split("://").nth(1).and_then(|it| it.split(['/', '?']).next()).unwrap_or(url)
}

/// Text of a stranger for people: short, and without what steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn http(host: &str, scheme: &str) -> Http {
        Http::new(&Names::of_machine(), host, scheme, Duration::from_secs(1)).expect("clients")
    }

    #[test]
    fn redirects_lead_where_they_may() {
        let far = http("192.0.2.1", "https");
        let from = "https://192.0.2.1/v2/a/blobs/x?y=z";
        let follow = |to: &str| far.follow(from, to);
        for (to, expected) in [
            ("/v2/b", "https://192.0.2.1/v2/b"),
            ("../c#x", "https://192.0.2.1/v2/a/c"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("https://cdn.example:8443/x?y=1", "https://cdn.example:8443/x?y=1"),
        ] {
            assert_eq!(follow(to).expect(to), expected);
        }
        for to in [
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
            assert!(
                matches!(follow(to), Err(error) if error.kind() == Kind::Safety),
                "{to}: {:?}",
                follow(to)
            );
        }
        let here = http("127.0.0.1:5000", "http");
        let follow = |to: &str| here.follow("http://127.0.0.1:5000/v2/", to);
        for to in
            ["http://127.0.0.1:5001/x", "http://localhost:1/x", "https://10.0.0.1/x", "https://cdn.example/"]
        {
            follow(to).expect(to);
        }
        for to in ["http://cdn.example/x", "http://10.0.0.1/x", "https://169.254.169.254/x"] {
            assert!(matches!(follow(to), Err(error) if error.kind() == Kind::Safety), "{to}");
        }
    }

    #[test]
    fn only_a_written_name_is_this_machine() {
        for host in
            ["localhost", "localhost:5000", "a.localhost", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]
        {
            assert!(is_loopback(without_port(host)), "{host}");
            assert!(http(host, "http").is_here(), "{host}");
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
    fn a_name_that_leads_here_is_not_this_machine() {
        let names = Names::of("127.0.0.1 one.example\n10.0.0.1 two.example\n".to_owned(), "", 53);
        for host in ["one.example:5000", "two.example:5000"] {
            let http = Http::new(&names, host, "https", Duration::from_secs(1)).expect("clients");
            assert!(!http.is_here(), "{host}");
            let from = format!("https://{host}/v2/");
            let follow = |to: &str| http.follow(&from, to);
            for to in
                ["https://127.0.0.1/x", "https://localhost/x", "https://a.localhost/x", "http://127.0.0.1/x"]
            {
                assert!(matches!(follow(to), Err(error) if error.kind() == Kind::Safety), "{host} {to}");
            }
            for to in ["/v2/b", "https://10.0.0.2/x", "https://cdn.example/x"] {
                follow(to).expect(to);
            }
        }
    }

    #[test]
    fn hosts_and_what_is_theirs() {
        assert!(is_below("https://a.example/x", "https://a.example"));
        assert!(!is_below("https://a.example.evil/x", "https://a.example"));
        assert!(!is_below("https://a.example:444/x", "https://a.example"));
        assert!(!is_below("https://a.example@evil/x", "https://a.example"));
        assert!(!is_below("http://a.example/x", "https://a.example"));
        assert_eq!(without_port("a.example:5000"), "a.example");
        assert_eq!(without_port("[::1]:5000"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
