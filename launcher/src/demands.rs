//! What `verify` requires of evidence: from its options, or from a trust profile.

use crate::args::{Provenance, VerifyArgs, parse_age};
use crate::error::{Context as _, Error, Result};
use crate::policy::ACCEPTABLE;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::{checkpoint_files, hub, inputs, keys, tiers_file};
use chrono::{TimeDelta, Utc};
use invarlock_evidence::format::to_value;
use invarlock_evidence::format::trust_profile::{TRUST_FORMAT, TrustProfile};
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use invarlock_evidence::receipt::Policy;
use invarlock_evidence::signing::dsse::ENVELOPE_LIMIT;
use invarlock_evidence::signing::keys::PublicKey;
use invarlock_evidence::signing::statement::Descriptor;
use invarlock_evidence::verify::{Assurance, Pins, RuntimeProvenance, VerifyOptions, read_evidence};
use invarlock_images::Digest;
use std::path::Path;

/// Largest trust profile that is read.
const PROFILE_LIMIT: u64 = 1 << 20;

/// The options of a verification that only requires evidence not to contradict itself, and keeps what was derived.
pub fn consistency() -> VerifyOptions {
    VerifyOptions {
        runtime_provenance: RuntimeProvenance::Host,
        keep_verified: true,
        any_tiers: true,
        granted: ACCEPTABLE.map(str::to_owned).to_vec(),
        ..VerifyOptions::default()
    }
}

/// What a verification requires.
pub struct Demands {
    /// The options of the verifier.
    pub options: VerifyOptions,
    /// What a receipt says of them.
    pub policy: Policy,
}

/// The demands of a command line.
pub fn of(args: &VerifyArgs, ui: &Ui) -> Result<Demands> {
    if !(args.tolerance.is_finite() && (0.0..=1e-3).contains(&args.tolerance)) {
        return Err(Error::input(format!("--tolerance {}: out of range", args.tolerance)))
            .hint("use a number from 0 to 0.001");
    }
    let (demands, descriptor, trust_profile) = match &args.trust {
        Some(file) => {
            let (trust_profile, sha256) = profile(file)?;
            let demands = of_profile(&trust_profile);
            let demands = demands.with_context(|| format!("reading the trust profile {}", file.display()))?;
            (demands, Descriptor::new(file.to_string_lossy(), &sha256), trust_profile)
        }
        None => {
            let demands = of_options(args, ui)?;
            let trust_profile = trust_profile(&demands, args.max_age)?;
            let canonical = canonical_json(&to_value(&trust_profile));
            let descriptor =
                Descriptor::new("options of invarlock verify", &sha256_hex(canonical.as_bytes()));
            (demands, descriptor, trust_profile)
        }
    };
    let options = VerifyOptions {
        tolerance: args.tolerance,
        baseline: args.baseline.clone(),
        upstream_parity: args.upstream_parity,
        keep_verified: args.reproduce.is_some() || args.receipt.is_some(),
        ..demands
    };
    Ok(Demands { options, policy: Policy { descriptor, trust_profile, tolerance: args.tolerance } })
}

/// The trust profile that requires the same as these options.
fn trust_profile(options: &VerifyOptions, max_age: Option<TimeDelta>) -> Result<TrustProfile> {
    let digest = |digest: &Option<String>| {
        let digest = digest.as_deref().map(|digest| digest.trim_start_matches("sha256:"));
        digest.map(|digest| format!("sha256:{digest}"))
    };
    Ok(TrustProfile {
        format_version: TRUST_FORMAT.to_owned(),
        profile: Some(options.profile.to_string()),
        tier: options.tier.map(|tier| tier.to_string()),
        baseline_checkpoint: digest(&options.pins.baseline),
        subject: digest(&options.pins.subject),
        dataset: digest(&options.pins.dataset),
        image: digest(&options.expected_image_digest),
        keys: options.keys.iter().map(PublicKey::to_pem).collect::<Result<_>>()?,
        lock: digest(&options.lock),
        tiers: options.tiers.clone(),
        max_age: max_age.map(|age| format!("{}h", age.num_hours())),
        allow: options.granted.clone(),
        accept_host_execution: options.runtime_provenance == RuntimeProvenance::Host,
        accept_foreign: options.accept_foreign,
    })
}

fn of_options(args: &VerifyArgs, ui: &Ui) -> Result<VerifyOptions> {
    let signals = Signals::catch()?;
    let checkpoint = |flag: &str, pin: &Option<String>| {
        let digest = |text: &String| {
            pinned(flag, text, |path| {
                let path = hub::model(&format!("--{flag}"), path)?.dir;
                let path = path.as_path();
                // An adapter is measured over the weights of the baseline.
                let base = args.baseline_checkpoint.as_deref().filter(|base| !base.starts_with("sha256:"));
                let files = match (flag, base) {
                    ("subject", Some(base)) => checkpoint_files::open_subject(
                        path,
                        &hub::model("--baseline-checkpoint", Path::new(base))?.dir,
                    )?,
                    _ => checkpoint_files::open_checkpoint(flag, path)?,
                };
                inputs::digest(ui, &signals, flag, path, &files)
            })
        };
        pin.as_ref().map(digest).transpose()
    };
    let dataset = |text: &String| {
        pinned("dataset", text, |path| {
            let files = inputs::open_dataset(&[path.to_path_buf()], None)?;
            inputs::digest(ui, &signals, "dataset", path, &files)
        })
    };
    let image = args.image.as_ref().or(args.expected_runtime_image_digest.as_ref());
    Ok(VerifyOptions {
        profile: args.profile.parse().map_err(|e| Error::input(format!("--profile: {e}")))?,
        tier: args
            .tier
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|e| Error::input(format!("--tier: {e}")))?,
        pins: Pins {
            baseline: checkpoint("baseline", &args.baseline_checkpoint)?,
            subject: checkpoint("subject", &args.subject)?,
            dataset: args.dataset.as_ref().map(dataset).transpose()?,
        },
        require: signed(args.keys.is_empty()),
        keys: args.keys.iter().map(|path| keys::public(path)).collect::<Result<_>>()?,
        lock: args.lock.as_deref().map(lock).transpose()?,
        tiers: args.tiers.as_deref().map(tiers_file::read).transpose()?,
        oldest: args.max_age.map(|age| (Utc::now() - age).fixed_offset()),
        expected_image_digest: image.map(ToString::to_string),
        runtime_provenance: match args.runtime_provenance {
            Provenance::Container => RuntimeProvenance::Container,
            Provenance::Host => RuntimeProvenance::Host,
        },
        granted: args.allow.clone(),
        accept_foreign: args.accept_foreign,
        ..VerifyOptions::default()
    })
}

/// A verifier with keys requires a signature: without it, an attacker would only have to remove the attestation.
fn signed(no_keys: bool) -> Option<Assurance> {
    (!no_keys).then_some(Assurance::Signed)
}

/// The digest of a plan lock: itself, or that of a file.
fn lock(text: &str) -> Result<String> {
    if text.starts_with("sha256:") {
        return Ok(Digest::parse(text).map_err(|e| Error::input(format!("--lock: {e}")))?.to_string());
    }
    let read = read_evidence(Path::new(text), ENVELOPE_LIMIT).map_err(|e| inputs::not_read(&e));
    Ok(sha256_hex(&read.with_context(|| format!("reading the plan lock {text}"))?))
}

/// The digest that an option names: itself, or that of a directory or file.
fn pinned(
    flag: &str,
    text: &str,
    hash: impl FnOnce(&Path) -> Result<invarlock_evidence::format::plan::Files>,
) -> Result<String> {
    match text.starts_with("sha256:") {
        true => {
            let digest = Digest::parse(text).map_err(|e| Error::input(format!("--{flag}: {e}")))?;
            Ok(digest.to_string())
        }
        false => Ok(hash(Path::new(text))?.tree_sha256),
    }
}

/// A trust profile, and the SHA-256 of its file.
fn profile(file: &Path) -> Result<(TrustProfile, String)> {
    let reading = || format!("reading the trust profile {}", file.display());
    let bytes =
        read_evidence(file, PROFILE_LIMIT).map_err(|e| Error::input(e.to_string())).with_context(reading)?;
    let profile: TrustProfile =
        serde_json::from_slice(&bytes).map_err(|e| Error::input(e.to_string())).with_context(reading)?;
    if profile.format_version != TRUST_FORMAT {
        let found = &profile.format_version;
        return Err(Error::input(format!("format_version is {found:?}, expected {TRUST_FORMAT:?}")))
            .with_context(reading);
    }
    Ok((profile, sha256_hex(&bytes)))
}

fn of_profile(profile: &TrustProfile) -> Result<VerifyOptions> {
    let digest = |member: &str, digest: &Option<String>| {
        let checked = digest.as_deref().map(Digest::parse).transpose();
        checked
            .map(|digest| digest.map(|digest| digest.to_string()))
            .map_err(|e| Error::input(format!("{member}: {e}")))
    };
    let age = profile
        .max_age
        .as_deref()
        .map(parse_age)
        .transpose()
        .map_err(|e| Error::input(format!("max_age: {e}")))?;
    if let Some(unknown) = profile.allow.iter().find(|name| !ACCEPTABLE.contains(&name.as_str())) {
        return Err(Error::input(format!("allow: {unknown:?} is not one of {}", ACCEPTABLE.join(", "))));
    }
    let named = |member: &str, e: &dyn std::fmt::Display| Error::input(format!("{member}: {e}"));
    Ok(VerifyOptions {
        profile: profile.profile.as_deref().unwrap_or("ci").parse().map_err(|e| named("profile", &e))?,
        tier: profile.tier.as_deref().map(str::parse).transpose().map_err(|e| named("tier", &e))?,
        pins: Pins {
            baseline: digest("baseline_checkpoint", &profile.baseline_checkpoint)?,
            subject: digest("subject", &profile.subject)?,
            dataset: digest("dataset", &profile.dataset)?,
        },
        require: signed(profile.keys.is_empty()),
        keys: profile
            .keys
            .iter()
            .map(|text| PublicKey::parse(text).context("keys"))
            .collect::<Result<_>>()?,
        lock: digest("lock", &profile.lock)?,
        tiers: profile.tiers.clone(),
        oldest: age.map(|age| (Utc::now() - age).fixed_offset()),
        expected_image_digest: digest("image", &profile.image)?,
        runtime_provenance: match profile.accept_host_execution {
            true => RuntimeProvenance::Host,
            false => RuntimeProvenance::Container,
        },
        granted: profile.allow.clone(),
        accept_foreign: profile.accept_foreign,
        ..VerifyOptions::default()
    })
}
