//! Uploads: a blob in one request to the location that the registry opens for it, then the manifest.

use invarlock_error::Error;
use invarlock_images::{Digest, Document, Opener};
use ureq::http::{Method, StatusCode};

use super::Client;
use crate::http::{HttpRequest, header};
use crate::retry::Attempt;
use crate::status;
use crate::url::{printable, with_query};

impl Client {
    pub(super) fn try_has_blob(&self, digest: &Digest, size: u64) -> Attempt<bool> {
        let url = self.url("blobs", &digest.to_string());
        let response = self.send(&mut || Ok(HttpRequest::new(Method::HEAD, url.clone())))?;
        match response.status() {
            // A blob of another size is sent again; the registry verifies its digest.
            StatusCode::OK => {
                let length = header(&response, "content-length");
                Ok(length.is_none_or(|length| length == size.to_string()))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(status::unexpected(&self.http, &url, response, "checking whether a blob exists")),
        }
    }

    pub(super) fn try_put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Attempt<()> {
        let url = self.url("blobs", "uploads/");
        let response = self.send(&mut || {
            // Some registries require the length of the empty body.
            Ok(HttpRequest::new(Method::POST, url.clone()).header("Content-Length", "0"))
        })?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(status::unexpected(&self.http, &url, response, "opening an upload"));
        }
        let location = header(&response, "location")
            .ok_or_else(|| Error::integrity("the registry opens an upload without a location"))?;
        let location = self.http.redirect_target(&url, location)?;
        let location = with_query(&location, &[("digest", &digest.to_string())]);
        let mut request = HttpRequest::new(Method::PUT, location.clone())
            .header("Content-Type", "application/octet-stream");
        // Opening the upload has authenticated the client.
        request.authorization = self.auth.header().map(|value| (self.http.base.clone(), value));
        request.body = Some((size, open()?));
        let response = self.http.send(request)?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(status::unexpected(&self.http, &location, response, "sending a blob")),
        }
    }

    pub(super) fn try_put_manifest(&self, tag: &str, document: &Document) -> Attempt<()> {
        let url = self.url("manifests", tag);
        let response = self.send(&mut || {
            let mut request =
                HttpRequest::new(Method::PUT, url.clone()).header("Content-Type", &document.media_type);
            request.body = Some((document.bytes.len() as u64, Box::new(document.bytes.as_slice())));
            Ok(request)
        })?;
        if response.status() != StatusCode::CREATED {
            return Err(status::unexpected(&self.http, &url, response, "sending the manifest"));
        }
        let digest = Digest::of(&document.bytes).to_string();
        match header(&response, "docker-content-digest") {
            Some(announced) if announced.starts_with("sha256:") && announced != digest => {
                Err(Error::integrity(format!("the registry stores {digest} as {}", printable(announced)))
                    .into())
            }
            _ => Ok(()),
        }
    }
}
