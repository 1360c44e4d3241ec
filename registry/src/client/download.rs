//! Downloads: manifests and blobs. A blob continues after the bytes that exist already, if the registry supports ranges.

use std::time::Duration;

use invarlock_error::{Error, Result};
use invarlock_images::{Digest, Document, Sink};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::Client;
use crate::http::{HttpRequest, header};
use crate::retry::{Attempt, RequestError};
use crate::status;
use crate::url::printable;

const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

impl Client {
    pub(super) fn try_manifest(&self, tag_or_digest: &str, limit: u64) -> Attempt<Document> {
        let url = self.url("manifests", tag_or_digest);
        let response = self.send(&mut || {
            Ok(HttpRequest::new(Method::GET, url.clone()).header("Accept", MANIFEST_TYPES.join(", ")))
        })?;
        if response.status() != StatusCode::OK {
            let context = format!("requesting the manifest of {}", self.name);
            return Err(status::unexpected(&self.http, &url, response, &context));
        }
        let announced = header(&response, "docker-content-digest").map(str::to_owned);
        let media_type = header(&response, "content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = self.http.read_document(&url, response, limit)?;
        let digest = Digest::of(&bytes).to_string();
        // A digest of another algorithm cannot be compared.
        match announced.filter(|announced| announced.starts_with("sha256:") && *announced != digest) {
            Some(announced) => Err(Error::integrity(format!(
                "the registry announces the manifest as {}, but sends {digest}",
                printable(&announced)
            ))
            .into()),
            None => Ok(Document { media_type: manifest_type(&media_type, &bytes)?, bytes }),
        }
    }

    pub(super) fn try_blob(&self, url: &str, size: u64, to: &mut dyn Sink) -> Attempt<()> {
        let have = to.have();
        if have == size && size > 0 {
            return Ok(());
        }
        let response = self.send(&mut || {
            let request = HttpRequest::new(Method::GET, url.to_owned());
            Ok(if have > 0 { request.header("Range", format!("bytes={have}-")) } else { request })
        })?;
        let response = self.check_range(url, response, to)?;
        let expected = size - to.have();
        let announced = header(&response, "content-length").and_then(|value| value.parse::<u64>().ok());
        if let Some(announced) = announced.filter(|announced| *announced != expected) {
            return Err(Error::integrity(format!(
                "the registry announces {announced} bytes; the manifest requires {expected}"
            ))
            .into());
        }
        self.http.read_stream(url, response, |bytes| to.take(bytes))?;
        match to.have() == size {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "the registry sends {} bytes; the manifest requires {size}",
                to.have()
            ))
            .into()),
        }
    }

    /// Checks that the response continues after the bytes that `to` has. If the registry sends the whole blob, `to` starts again.
    fn check_range(&self, url: &str, response: Response<Body>, to: &mut dyn Sink) -> Attempt<Response<Body>> {
        let have = to.have();
        match response.status().as_u16() {
            206 if have > 0 => {
                let range = header(&response, "content-range").unwrap_or_default();
                match range.starts_with(&format!("bytes {have}-")) {
                    true => Ok(response),
                    false => Err(Error::integrity(format!(
                        "the registry sends the range {}; requested were the bytes from {have}",
                        printable(range)
                    ))
                    .into()),
                }
            }
            200 => {
                if have > 0 {
                    to.restart()?;
                }
                Ok(response)
            }
            416 if have > 0 => {
                to.restart()?;
                let error = Error::system("the registry does not resume the blob");
                Err(RequestError::Transient(error, Some(Duration::ZERO)))
            }
            _ => Err(status::unexpected(&self.http, url, response, "requesting a blob")),
        }
    }
}

/// The media type of a manifest from the header and the document, which must not contradict each other.
fn manifest_type(header: &str, bytes: &[u8]) -> Result<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        Error::integrity(format!("the registry sends an invalid manifest: {error}")).with_source(error)
    })?;
    let inner = value["mediaType"].as_str();
    match (inner, MANIFEST_TYPES.contains(&header)) {
        (Some(inner), true) if inner != header => Err(Error::integrity(format!(
            "the registry sends a manifest as {header} whose mediaType is {}",
            printable(inner)
        ))),
        (_, true) => Ok(header.to_owned()),
        // Plain file servers send a generic type.
        (Some(inner), false)
            if ["application/json", "application/octet-stream", "text/plain", ""].contains(&header) =>
        {
            Ok(inner.to_owned())
        }
        (None, false) if value["schemaVersion"] == 1 => Err(Error::unsupported(
            "the registry sends a manifest of schema version 1, which cannot be verified; supported: 2",
        )),
        _ if header.is_empty() => {
            Err(Error::unsupported("the registry sends a document without a media type"))
        }
        _ => Err(Error::unsupported(format!(
            "the registry sends {}, which is not an image manifest",
            printable(header)
        ))),
    }
}
