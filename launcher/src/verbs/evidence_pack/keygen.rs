//! `invarlock advanced evidence-pack keygen`.

use crate::args::PackKeygenArgs;
use crate::error::Result;
use crate::output::ShownPath;
use crate::{keys, ui};
use serde::Serialize;

/// The output of `advanced evidence-pack keygen --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PackKeygenOutput<'a> {
    /// Always `evidence-pack-keygen-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "evidence-pack-keygen-v1")))]
    format_version: &'static str,
    /// Always true: a failure is an error.
    ok: bool,
    /// Always `ed25519`.
    algorithm: &'static str,
    /// File of the private key.
    private_key: ShownPath<'a>,
    /// File of the public key.
    public_key: ShownPath<'a>,
    /// `sha256:` and the digest of the public key.
    signing_key_fingerprint: &'a str,
}

/// Exits 2 if one of the files exists.
pub(super) fn run(args: &PackKeygenArgs) -> Result<u8> {
    let public = args.public_key_out.clone().unwrap_or_else(|| args.private.with_extension("pub.pem"));
    let fingerprint = keys::create_pair(&args.private, &public)?;
    if args.json {
        ui::json(&PackKeygenOutput {
            format_version: "evidence-pack-keygen-v1",
            ok: true,
            algorithm: "ed25519",
            private_key: ShownPath(&args.private),
            public_key: ShownPath(&public),
            signing_key_fingerprint: &fingerprint,
        })?;
    } else {
        keys::print_pair(&args.private, &public, &fingerprint);
    }
    Ok(0)
}
