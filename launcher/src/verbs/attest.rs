//! `invarlock advanced attest`: keys and signatures.

use crate::args::{AttestCommand, InspectArgs, KeygenArgs, SignArgs, VerifyEnvelopeArgs};
use crate::demands::consistency;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{ATTESTATION, write_output};
use crate::output::ShownPath;
#[cfg(feature = "schemas")]
use crate::output::{NamedSchema, schema};
use crate::verbs::row::Verb;
use crate::{keys, ui};
use invarlock_evidence::signing::dsse::{ENVELOPE_LIMIT, Envelope};
use invarlock_evidence::verify::{read_evidence, verify_report};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The row of a command.
pub fn of(command: &AttestCommand) -> Verb<'_> {
    match command {
        AttestCommand::Keygen(args) => Verb::new(|_| keygen(args)).json(args.json),
        AttestCommand::Sign(args) => Verb::new(|_| sign(args)).json(args.json),
        AttestCommand::Verify(args) => Verb::new(|_| verify(args)).json(args.json),
        AttestCommand::Inspect(args) => Verb::new(|_| inspect(args)).json(true),
    }
}

/// The output of `advanced attest keygen --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct KeygenOutput<'a> {
    /// Always `attest-keygen-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "attest-keygen-v1")))]
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
    fingerprint: &'a str,
}

/// The output of `advanced attest sign --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct SignOutput<'a> {
    /// Always `attest-sign-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "attest-sign-v1")))]
    format_version: &'static str,
    /// Always true: a failure is an error.
    ok: bool,
    /// File of the attestation.
    attestation: ShownPath<'a>,
    /// Fingerprint of the key that signed.
    fingerprint: &'a str,
    /// Fingerprints of all keys that the attestation names.
    signers: &'a [&'a str],
}

/// The output of `advanced attest verify --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct VerifySignatureOutput<'a> {
    /// Always `attest-verify-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "attest-verify-v1")))]
    format_version: &'static str,
    /// Whether every key signed.
    ok: bool,
    /// Fingerprints of the keys that signed.
    signers: &'a [String],
    /// Fingerprints of the keys that did not sign.
    missing: &'a [String],
    /// Type of the predicate, as the statement has it.
    predicate_type: Option<&'a Value>,
}

/// The output of `advanced attest inspect`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct InspectSignatureOutput<'a> {
    /// Always `attest-inspect-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "attest-inspect-v1")))]
    format_version: &'static str,
    /// Always false: no signature was checked.
    checked: bool,
    /// Fingerprints of the keys that the signatures name.
    key_ids: Vec<&'a str>,
    /// The signed statement.
    statement: Value,
}

fn keygen(args: &KeygenArgs) -> Result<u8> {
    let public_path = args.public_key_out.clone().unwrap_or_else(|| args.private.with_extension("pub"));
    let fingerprint = keys::create_pair(&args.private, &public_path)?;
    if args.json {
        ui::json(&KeygenOutput {
            format_version: "attest-keygen-v1",
            ok: true,
            algorithm: "ed25519",
            private_key: ShownPath(&args.private),
            public_key: ShownPath(&public_path),
            fingerprint: &fingerprint,
        })?;
    } else {
        keys::print_pair(&args.private, &public_path, &fingerprint);
    }
    Ok(0)
}

/// Signs only evidence that does not contradict itself. A failed gate is a result like another.
fn sign(args: &SignArgs) -> Result<u8> {
    let key = keys::signing(&args.signing_key)?;
    // The exceptions of the evaluation are in the statement's files; those who verify decide on them.
    let verdict = verify_report(&args.report, &consistency());
    let signing = || format!("signing {}", args.report.display());
    if let Some(why) = verdict.errors.first() {
        return Err(Error::integrity(why.clone())).with_context(signing);
    }
    let statement = verdict.statement.ok_or_else(|| Error::input("evidence of other makers is not signed"));
    let statement = statement.with_context(signing)?;
    let path = attestation_path(&args.report);
    let envelope = match read_evidence(&path, ENVELOPE_LIMIT) {
        // The verification accepted it: it is about this evidence.
        Ok(bytes) => {
            let mut envelope = Envelope::parse(&bytes)?;
            envelope.add_signature(&key);
            envelope
        }
        Err(_) => Envelope::sign(statement, &key),
    };
    write_output(&path, &envelope.to_bytes(), true)?;
    let fingerprint = key.public().fingerprint();
    let signers: Vec<&str> = envelope.key_ids().collect();
    if args.json {
        ui::json(&SignOutput {
            format_version: "attest-sign-v1",
            ok: true,
            attestation: ShownPath(&path),
            fingerprint: &fingerprint,
            signers: &signers,
        })?;
    } else {
        ui::out(&format!("SIGNED {} by {fingerprint}", ui::printable(&path.to_string_lossy())));
    }
    Ok(0)
}

/// Where the attestation of a report lies.
fn attestation_path(report: &Path) -> PathBuf {
    if report.is_dir() { report.join(ATTESTATION) } else { report.with_file_name(ATTESTATION) }
}

fn verify(args: &VerifyEnvelopeArgs) -> Result<u8> {
    let envelope = envelope(&args.file)?;
    let mut missing = Vec::new();
    let mut signers = Vec::new();
    for path in &args.keys {
        let key = keys::public(path)?;
        let checking = || format!("checking {}", args.file.display());
        match envelope.signed_by(&key).with_context(checking)? {
            true => signers.push(key.fingerprint()),
            false => missing.push(key.fingerprint()),
        }
    }
    let ok = missing.is_empty();
    if args.json {
        ui::json(&VerifySignatureOutput {
            format_version: "attest-verify-v1",
            ok,
            signers: &signers,
            missing: &missing,
            predicate_type: payload(&envelope)?.get("predicateType"),
        })?;
    } else {
        signers.iter().for_each(|key| ui::out(&format!("SIGNED by {key}")));
        missing.iter().for_each(|key| ui::out(&format!("NOT SIGNED by {key}")));
    }
    Ok(u8::from(!ok))
}

fn inspect(args: &InspectArgs) -> Result<u8> {
    let envelope = envelope(&args.file)?;
    ui::json(&InspectSignatureOutput {
        format_version: "attest-inspect-v1",
        checked: false,
        key_ids: envelope.key_ids().collect(),
        statement: payload(&envelope)?,
    })?;
    Ok(0)
}

fn envelope(path: &Path) -> Result<Envelope> {
    let reading = || format!("reading {}", path.display());
    let bytes = read_evidence(path, ENVELOPE_LIMIT).map_err(|why| Error::input(why.to_string()));
    Envelope::parse(&bytes.with_context(reading)?).with_context(reading)
}

fn payload(envelope: &Envelope) -> Result<Value> {
    invarlock_evidence::json::parse("the statement", envelope.payload())
}

/// The schema of each output.
#[cfg(feature = "schemas")]
pub fn schemas() -> [NamedSchema; 4] {
    [
        schema::<KeygenOutput<'_>>("attest-keygen-v1"),
        schema::<SignOutput<'_>>("attest-sign-v1"),
        schema::<VerifySignatureOutput<'_>>("attest-verify-v1"),
        schema::<InspectSignatureOutput<'_>>("attest-inspect-v1"),
    ]
}
