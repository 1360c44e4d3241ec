//! The TLS roots that are trusted: the machine's (or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`) and, for one registry, the certificates
//! in its `certs.d` directory, where podman and Docker keep them too. They are read when a client is created.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use ureq::tls::Certificate;

const MAX_FILE: u64 = 1 << 20;

/// The roots of the machine.
pub(crate) fn machine_roots() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
}

/// The additional roots for one registry.
pub(crate) fn registry_roots(host: &str) -> Result<Vec<Certificate<'static>>> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let mut roots = Vec::new();
    for dir in home.into_iter().chain(system) {
        // A parsed host has neither '/' nor a leading '.'.
        for entry in std::fs::read_dir(dir.join(host)).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                let read = read_certificates(&path);
                roots.extend(
                    read.with_context(|| format!("reading the certificates of {}", path.display()))
                        .kind(Kind::Input)?,
                );
            }
        }
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(Error::from)?;
    CertificateDer::pem_slice_iter(&bytes)
        .map(|parsed| Ok(Certificate::from_der(&parsed.err_kind(Kind::Input)?).to_owned()))
        .collect()
}
