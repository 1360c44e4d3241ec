//! The distribution protocol, for one repository.

use std::time::Duration;

use invarlock_images::{Digest, Document, Error, Opener, RegistryName, Remote, Result, Sink};
use invarlock_security::Network;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use crate::auth::{Auth, api_host};
use crate::challenge::{self, Challenge};
use crate::http::{Ask, Http, Tried, header, printable};
use crate::resolver::Names;
use crate::retry::{Problem, RetryPolicy};

const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Of what a registry says of an error.
const LONGEST_ERROR: u64 = 16 << 10;

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Without TLS.
    pub plain_http: bool,
    /// Also to push.
    pub push: bool,
    /// How long nothing may come.
    pub stall: Duration,
    /// How often in a row something may fail.
    pub tries: u32,
    /// How long is waited after the first failure; after each further one twice as long.
    pub pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            push: false,
            stall: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
        }
    }
}

/// A repository of a registry.
pub struct Client {
    pub(crate) http: Http,
    pub(crate) auth: Auth,
    pub(crate) patience: RetryPolicy,
    pub(crate) name: RegistryName,
}

impl Client {
    /// Finds out how the registry is spoken to. Only one that is this machine by its name as it is written may do without TLS unasked.
    pub fn new(_: Network, name: &RegistryName, options: Options) -> Result<Self> {
        Self::with(&Names::of_machine(), name, options)
    }

    fn with(names: &Names, name: &RegistryName, options: Options) -> Result<Self> {
        let host = api_host(&name.host);
        let scheme = if options.plain_http { "http" } else { "https" };
        let mut http = Http::new(names, host, scheme, options.stall)?;
        if http.is_here() && !options.plain_http {
            let looked = http.look(&format!("{}/v2/", http.base));
            if looked.is_err_and(|error| Http::is_plain(&error)) {
                http = Http::new(names, host, "http", options.stall)?;
            }
        }
        Ok(Self {
            http,
            auth: Auth::new(name, if options.push { "pull,push" } else { "pull" }),
            patience: RetryPolicy { tries: options.tries.max(1), first: options.pause },
            name: name.clone(),
        })
    }

    pub(crate) fn url(&self, kind: &str, which: &str) -> String {
        format!("{}/v2/{}/{kind}/{which}", self.http.base, self.name.repository)
    }

    /// Sends what `make` makes, and once more where the registry asks who we are.
    pub(crate) fn send<'a>(&self, make: &mut dyn FnMut() -> Result<Ask<'a>>) -> Tried<Response<Body>> {
        let mut once = |used: Option<&String>| -> Tried<Response<Body>> {
            let mut ask = make()?;
            ask.authorization = used.map(|it| (self.http.base.clone(), it.clone()));
            self.http.send(ask)
        };
        let used = self.auth.header();
        let response = once(used.as_ref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.auth.answer(&self.http, &challenges(&response), used.as_ref())?;
        once(self.auth.header().as_ref())
    }

    /// The same, tried again where that may help.
    pub(crate) fn retry<T>(&self, mut work: impl FnMut() -> Tried<T>) -> Result<T> {
        self.patience.with(|| work().map_err(|problem| (problem, false)))
    }

    fn try_blob(&self, url: &str, size: u64, to: &mut dyn Sink) -> Tried<()> {
        let have = to.have();
        if have == size && size > 0 {
            return Ok(());
        }
        let response = self.send(&mut || {
            let mut ask = Ask::new(Method::GET, url.to_owned());
            ask.document = false;
            Ok(if have > 0 { ask.header("Range", format!("bytes={have}-")) } else { ask })
        })?;
        let expected = match response.status().as_u16() {
            206 if have > 0 => {
                let range = header(&response, "content-range").unwrap_or_default();
                if !range.starts_with(&format!("bytes {have}-")) {
                    return Err(Error::integrity(format!(
                        "the registry gives {} where the bytes from {have} on were asked for",
                        printable(range)
                    ))
                    .into());
                }
                size - have
            }
            200 => {
                if have > 0 {
                    to.restart()?;
                }
                size
            }
            416 if have > 0 => {
                to.restart()?;
                return Err(Problem::Passing(
                    Error::system("the registry does not go on with the blob"),
                    Some(Duration::ZERO),
                ));
            }
            _ => return Err(of_status(&self.http, url, response, "asking for a blob")),
        };
        let said = header(&response, "content-length").and_then(|it| it.parse::<u64>().ok());
        if said.is_some_and(|it| it != expected) {
            return Err(Error::integrity(format!(
                "the registry says that {} bytes follow, and by the manifest it is {expected}",
                said.unwrap_or_default()
            ))
            .into());
        }
        self.http.read_all(url, response, |bytes| to.take(bytes))?;
        match to.have() == size {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "the registry gives {} bytes, and the manifest says {size}",
                to.have()
            ))
            .into()),
        }
    }

    fn try_manifest(&self, which: &str, most: u64) -> Tried<Document> {
        let url = self.url("manifests", which);
        let response =
            self.send(&mut || Ok(Ask::new(Method::GET, url.clone()).header("Accept", MANIFESTS.join(", "))))?;
        if response.status() != StatusCode::OK {
            return Err(of_status(
                &self.http,
                &url,
                response,
                &format!("asking for the manifest of {}", self.name),
            ));
        }
        let named = header(&response, "docker-content-digest").map(str::to_owned);
        let media_type = header(&response, "content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = self.http.read_bounded(&url, response, most)?;
        let found = Digest::of(&bytes);
        // One by another algorithm says nothing here.
        if let Some(named) = named.filter(|it| it.starts_with("sha256:") && *it != found.to_string()) {
            return Err(Error::integrity(format!(
                "the registry says that the manifest is {}, and gives {found}",
                printable(&named)
            ))
            .into());
        }
        Ok(Document { media_type: media_type_of(&media_type, &bytes)?, bytes })
    }
}

/// What a registry asks for.
fn challenges(response: &Response<Body>) -> Vec<Challenge> {
    let headers = response.headers().get_all("www-authenticate").iter().take(8);
    headers.filter_map(|it| it.to_str().ok()).flat_map(challenge::parse).collect()
}

/// What a manifest is: what header and document say, which must not be two things.
fn media_type_of(header: &str, bytes: &[u8]) -> Result<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        Error::integrity(format!("what the registry gives as a manifest is none: {error}"))
    })?;
    let inner = value["mediaType"].as_str();
    match (inner, MANIFESTS.contains(&header)) {
        (Some(inner), true) if inner != header => Err(Error::integrity(format!(
            "the registry gives a manifest as {header} that says it is {}",
            printable(inner)
        ))),
        (_, true) => Ok(header.to_owned()),
        // A header that names no kind of manifest, as servers of plain files give.
        (Some(inner), false)
            if ["application/json", "application/octet-stream", "text/plain", ""].contains(&header) =>
        {
            Ok(inner.to_owned())
        }
        (None, false) if value["schemaVersion"] == 1 => Err(Error::unsupported(
            "the registry gives a manifest of schema version 1, which nothing can be verified by; 2 is known",
        )),
        _ => Err(Error::unsupported(format!(
            "the registry gives {}, which is no image's manifest",
            if header.is_empty() { "something without a media type".to_owned() } else { printable(header) }
        ))),
    }
}

/// What an answer means that is not the one hoped for.
pub(crate) fn of_status(http: &Http, url: &str, response: Response<Body>, doing: &str) -> Problem {
    let status = response.status();
    let after = header(&response, "retry-after").and_then(|it| it.parse().ok()).map(Duration::from_secs);
    // What it says of it, where it says it in time and short.
    let text = http.read_bounded(url, response, LONGEST_ERROR).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let first = &value["errors"][0];
    let said = [&first["code"], &first["message"]].map(|it| it.as_str().unwrap_or_default()).join(" ");
    let said = if said.trim().is_empty() { String::new() } else { format!(" ({})", printable(said.trim())) };
    let message = format!("{doing}: the registry answers {status}{said}");
    match status.as_u16() {
        404 => {
            Error::input(format!("{message}: it is not there, or not for you; see whether the name is right"))
                .into()
        }
        401 | 403 => {
            Error::input(format!("{message}: you may not; log in as somebody who may (`podman login`)"))
                .into()
        }
        408 | 429 | 500 | 502..=504 => Problem::Passing(Error::system(message), after),
        300..=399 => Error::unsupported(message).into(),
        _ => Error::system(message).into(),
    }
}

impl Remote for Client {
    fn manifest(&self, tag_or_digest: &str, most: u64) -> Result<Document> {
        self.retry(|| self.try_manifest(tag_or_digest, most))
    }

    fn blob(&self, digest: &Digest, size: u64, to: &mut dyn Sink) -> Result<()> {
        let url = self.url("blobs", &digest.to_string());
        self.patience.with(|| {
            let before = to.have();
            self.try_blob(&url, size, to).map_err(|problem| (problem, to.have() > before))
        })
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.retry(|| self.try_has_blob(digest, size))
    }

    fn put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Result<()> {
        self.retry(|| self.try_put_blob(digest, size, open))
    }

    fn put_manifest(&self, tag: &str, document: &Document) -> Result<()> {
        self.retry(|| self.try_put_manifest(tag, document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// A registry that speaks no TLS and asks for a password, and what it was sent.
    fn plain() -> (u16, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let port = listener.local_addr().expect("address").port();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut buffer) = (stream.expect("connection"), [0; 4096]);
                let read = stream.read(&mut buffer).expect("request");
                noted.lock().expect("seen").extend(&buffer[..read]);
                let _ = stream.write_all(
                    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"it\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
        });
        (port, seen)
    }

    #[test]
    fn a_name_that_leads_here_is_not_spoken_to_without_tls() {
        let (port, seen) = plain();
        let names = Names::of("127.0.0.1 far.example\n".to_owned(), "", 53);
        let name = |host: &str| RegistryName::parse(&format!("docker://{host}:{port}/a:1")).expect("name");
        let client = Client::with(&names, &name("far.example"), Options::default()).expect("client");
        assert!(client.http.base.starts_with("https://"), "{}", client.http.base);
        let refused = client.manifest("1", 1000).expect_err("no TLS");
        assert!(
            refused.kind() == Kind::Input && refused.message().contains("does not speak TLS"),
            "{refused}"
        );
        let sent = seen.lock().expect("seen").clone();
        assert!(!sent.is_empty() && !sent.windows(5).any(|it| it == b"HTTP/"), "{sent:?}");
        // One that is this machine by its name may.
        for host in ["127.0.0.1", "localhost", "it.localhost"] {
            let client = Client::with(&names, &name(host), Options::default()).expect("client");
            assert!(client.http.base.starts_with("http://"), "{host}");
        }
    }
}
