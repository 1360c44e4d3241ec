//! A client of the OCI distribution protocol for one repository.

mod download;
mod upload;

use std::time::Duration;

use invarlock_error::Result;
use invarlock_images::{Digest, Document, Opener, RegistryName, Remote, Sink};
use invarlock_security::Network;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use crate::auth::{Auth, api_host};
use crate::challenge::{self, Challenge};
use crate::http::{Http, HttpRequest};
use crate::limits::Deadlines;
use crate::names::HostNames;
use crate::retry::{Attempt, RetryPolicy};
use crate::transport_error::is_not_tls;

/// How to communicate with a registry.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Use HTTP without TLS.
    pub plain_http: bool,
    /// Request the permission to push.
    pub push: bool,
    /// Time limits.
    pub deadlines: Deadlines,
    /// How often a request may fail without a substantial gain.
    pub attempts: u32,
    /// The pause after the first failure. It doubles with each further failure.
    pub first_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            push: false,
            deadlines: Deadlines::default(),
            attempts: 5,
            first_pause: Duration::from_millis(500),
        }
    }
}

/// A repository of a registry.
pub struct Client {
    http: Http,
    auth: Auth,
    options: Options,
    name: RegistryName,
}

impl Client {
    /// Creates a client. If the registry's host is written as `localhost` or a loopback address, the registry is asked whether it uses TLS;
    /// for every other host, plain HTTP requires [`Options::plain_http`].
    pub fn new(_: Network, name: &RegistryName, options: Options) -> Result<Self> {
        Self::with_names(&HostNames::of_this_machine(), name, options)
    }

    fn with_names(names: &HostNames, name: &RegistryName, options: Options) -> Result<Self> {
        let host = api_host(&name.host);
        let scheme = if options.plain_http { "http" } else { "https" };
        let mut http = Http::new(names, host, scheme, options.deadlines)?;
        if http.is_local() && !options.plain_http {
            let probed = http.probe(&format!("{}/v2/", http.base));
            if probed.is_err_and(|error| is_not_tls(&error)) {
                http = Http::new(names, host, "http", options.deadlines)?;
            }
        }
        Ok(Self {
            http,
            auth: Auth::new(name, if options.push { "pull,push" } else { "pull" }),
            options,
            name: name.clone(),
        })
    }

    fn url(&self, endpoint: &str, name: &str) -> String {
        format!("{}/v2/{}/{endpoint}/{name}", self.http.base, self.name.repository)
    }

    /// Sends a request, and once more after authentication if the registry requires it.
    fn send<'a>(&self, new_request: &mut dyn FnMut() -> Result<HttpRequest<'a>>) -> Attempt<Response<Body>> {
        let mut send_with = |authorization: Option<&String>| -> Attempt<Response<Body>> {
            let mut request = new_request()?;
            request.authorization = authorization.map(|value| (self.http.base.clone(), value.clone()));
            self.http.send(request)
        };
        let used = self.auth.header();
        let response = send_with(used.as_ref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.auth.authenticate(&self.http, &challenges(&response), used.as_ref())?;
        send_with(self.auth.header().as_ref())
    }

    /// The policy for a request that transfers a blob of `size` bytes, or 0.
    fn retry_policy(&self, size: u64) -> RetryPolicy {
        let Options { attempts, first_pause, deadlines, .. } = self.options;
        let total = deadlines.retries.saturating_add(deadlines.rate.time_for(size));
        RetryPolicy { attempts: attempts.max(1), first_pause, total }
    }

    fn retry<T>(&self, size: u64, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
        self.retry_policy(size).run(|| attempt().map_err(|error| (error, 0)))
    }
}

fn challenges(response: &Response<Body>) -> Vec<Challenge> {
    let headers = response.headers().get_all("www-authenticate").iter().take(8);
    headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
}

impl Remote for Client {
    fn manifest(&self, tag_or_digest: &str, limit: u64) -> Result<Document> {
        self.retry(0, || self.try_manifest(tag_or_digest, limit))
    }

    fn blob(&self, digest: &Digest, size: u64, to: &mut dyn Sink) -> Result<()> {
        let url = self.url("blobs", &digest.to_string());
        // A registry that does not resume sends the same bytes again; they count once.
        let mut most = to.have();
        self.retry_policy(size).run(|| {
            self.try_blob(&url, size, to).map_err(|error| {
                let gained = to.have().saturating_sub(most);
                most += gained;
                (error, gained)
            })
        })
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.retry(0, || self.try_has_blob(digest, size))
    }

    fn put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Result<()> {
        self.retry(size, || self.try_put_blob(digest, size, open))
    }

    fn put_manifest(&self, tag: &str, document: &Document) -> Result<()> {
        self.retry(0, || self.try_put_manifest(tag, document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// Starts a registry without TLS that requests a password. Returns its port and the bytes that it receives.
    fn start_plain_registry() -> (u16, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let port = listener.local_addr().expect("address").port();
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut buffer) = (stream.expect("connection"), [0; 4096]);
                let read = stream.read(&mut buffer).expect("request");
                log.lock().expect("log").extend(&buffer[..read]);
                let _ = stream.write_all(
                    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"it\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
        });
        (port, received)
    }

    #[test]
    fn only_host_written_as_local_is_used_without_tls() {
        let (port, received) = start_plain_registry();
        let names = HostNames::parse("127.0.0.1 far.example\n".to_owned(), "", 53);
        let name = |host: &str| RegistryName::parse(&format!("docker://{host}:{port}/a:1")).expect("name");
        let client =
            |host: &str| Client::with_names(&names, &name(host), Options::default()).expect("client");
        let far = client("far.example");
        assert!(far.http.base.starts_with("https://"), "{}", far.http.base);
        let error = far.manifest("1", 1000).expect_err("no TLS");
        assert!(error.kind() == Kind::Input && error.message().contains("does not speak TLS"), "{error}");
        let sent = received.lock().expect("log").clone();
        assert!(!sent.is_empty() && !sent.windows(5).any(|bytes| bytes == b"HTTP/"), "{sent:?}");
        for host in ["127.0.0.1", "localhost", "it.localhost"] {
            assert!(client(host).http.base.starts_with("http://"), "{host}");
        }
    }
}
