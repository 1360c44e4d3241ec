//! Sending: a blob in one piece to where the registry opens an upload, then the manifest.

use invarlock_images::{Digest, Document, Error, Opener};
use ureq::http::{Method, StatusCode};

use crate::auth::encode;
use crate::client::{Client, of_status};
use crate::http::{Ask, Tried, header, printable};

impl Client {
    pub(crate) fn try_has_blob(&self, digest: &Digest, size: u64) -> Tried<bool> {
        let url = self.url("blobs", &digest.to_string());
        let response = self.send(&mut || Ok(Ask::new(Method::HEAD, url.clone())))?;
        match response.status() {
            // One of another size is another blob; it is sent anew, and the registry looks at its digest.
            StatusCode::OK => Ok(header(&response, "content-length").is_none_or(|it| it == size.to_string())),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(of_status(&self.http, &url, response, "asking whether a blob is there")),
        }
    }

    pub(crate) fn try_put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Tried<()> {
        let url = self.url("blobs", "uploads/");
        let response = self.send(&mut || {
            let mut ask = Ask::new(Method::POST, url.clone());
            // Some want to hear that nothing follows.
            ask.headers.push(("Content-Length", "0".to_owned()));
            Ok(ask)
        })?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(of_status(&self.http, &url, response, "opening an upload"));
        }
        let place = header(&response, "location")
            .ok_or_else(|| Error::integrity("the registry opens an upload nowhere"))?;
        let place = self.http.follow(&url, place)?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{joint}{}", encode(&[("digest", &digest.to_string())]));
        // Who we are was asked for when the upload was opened.
        let mut ask = Ask::new(Method::PUT, place.clone()).header("Content-Type", "application/octet-stream");
        ask.authorization = self.auth.header().map(|it| (self.http.base.clone(), it));
        ask.body = Some((size, open()?));
        ask.document = false;
        let response = self.http.send(ask)?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(of_status(&self.http, &place, response, "sending a blob")),
        }
    }

    pub(crate) fn try_put_manifest(&self, tag: &str, document: &Document) -> Tried<()> {
        let url = self.url("manifests", tag);
        let response = self.send(&mut || {
            let mut ask = Ask::new(Method::PUT, url.clone()).header("Content-Type", &document.media_type);
            ask.body = Some((document.bytes.len() as u64, Box::new(document.bytes.as_slice())));
            Ok(ask)
        })?;
        if response.status() != StatusCode::CREATED {
            return Err(of_status(&self.http, &url, response, "sending the manifest"));
        }
        let digest = Digest::of(&document.bytes).to_string();
        match header(&response, "docker-content-digest") {
            Some(said) if said.starts_with("sha256:") && said != digest => Err(Error::integrity(format!(
                "the registry says that it keeps {digest} as {}",
                printable(said)
            ))
            .into()),
            _ => Ok(()),
        }
    }
}
