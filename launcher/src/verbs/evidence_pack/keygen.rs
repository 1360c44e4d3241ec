//! `invarlock advanced evidence-pack keygen`.

use crate::args::PackKeygenArgs;
use crate::error::Result;
use crate::{keys, ui};
use serde_json::json;

/// Exits 2 if one of the files exists.
pub(super) fn run(args: &PackKeygenArgs) -> Result<u8> {
    let public = args.public_key_out.clone().unwrap_or_else(|| args.private.with_extension("pub.pem"));
    let fingerprint = keys::create_pair(&args.private, &public)?;
    if args.json {
        ui::json(&json!({
            "format_version": "evidence-pack-keygen-v1",
            "ok": true,
            "algorithm": "ed25519",
            "private_key": args.private,
            "public_key": public,
            "signing_key_fingerprint": fingerprint,
        }));
    } else {
        keys::print_pair(&args.private, &public, &fingerprint);
    }
    Ok(0)
}
