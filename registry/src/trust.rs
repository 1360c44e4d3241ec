//! Whose certificates are believed: those of the machine's store (or of `SSL_CERT_FILE` and `SSL_CERT_DIR`), and for one registry those
//! that its directory in `certs.d` has, as other tools keep them. Read when a client is made, and so only where one is.

use std::io::Read as _;
use std::path::PathBuf;

use invarlock_images::{Error, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use ureq::tls::Certificate;

const LONGEST_FILE: u64 = 1 << 20;

/// The machine's.
pub(crate) fn of_machine() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|it| Certificate::from_der(it).to_owned()).collect()
}

/// Those for one registry.
pub(crate) fn of_registry(host: &str) -> Result<Vec<Certificate<'static>>> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
    let places = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let mut all = Vec::new();
    for place in home.into_iter().chain(places) {
        // A host has neither '/' nor leading '.'.
        for entry in std::fs::read_dir(place.join(host)).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|it| it != "crt") {
                continue;
            }
            let doing = |why: &dyn std::fmt::Display| {
                Error::input(format!("reading the certificates of {}: {why}", path.display()))
            };
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path).map_err(|error| doing(&error))?;
            file.take(LONGEST_FILE).read_to_end(&mut bytes).map_err(|error| doing(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                all.push(Certificate::from_der(&certificate.map_err(|error| doing(&error))?).to_owned());
            }
        }
    }
    Ok(all)
}
