//! Builds a pack in memory. The same input gives the same bytes.

use super::manifest::{FORMAT, Invocation, PackManifest, Reference, ReportCounts};
use super::{CHECKSUMS, FINAL_VERDICT, MANIFEST, PackFiles, SIGNATURE, checksums, signature};
use crate::numerics::digest::sha256_hex;
use crate::signing::keys::SigningKey;
use invarlock_error::{Error, Result};
use serde_json::Map;

/// The page about the pack.
pub const README: &str = "README.md";
const SOURCE: &str = "metadata/source_repo.json";
const ENVIRONMENT: &str = "metadata/environment.json";
/// Longest name of a material, so that every path fits into an archive.
const MAX_NAME: usize = 64;

/// What a pack is built from.
#[derive(Debug)]
pub struct BuildInput {
    /// The reports and their side files, below [`report_path`].
    pub reports: PackFiles,
    /// The number of reports.
    pub count: usize,
    /// The final verdict.
    pub final_verdict: Vec<u8>,
    /// `source_repo.json`.
    pub source_repo: Option<Vec<u8>>,
    /// `environment.json`.
    pub environment: Option<Vec<u8>>,
    /// Further JSON files.
    pub materials: Vec<Material>,
    /// The page; a generated one if there is none.
    pub readme: Option<Vec<u8>>,
    /// The profile that the reports were verified with.
    pub profile: String,
}

/// A further file.
#[derive(Debug)]
pub struct Material {
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The path of a file of a report; the first report has the number 1.
pub fn report_path(number: usize, name: &str) -> String {
    format!("reports/report-{number:03}/{name}")
}

/// Refuses a name that is not a plain file name.
///
/// # Errors
/// It has other characters than letters, digits, `.`, `_` and `-`, or is too long.
pub fn check_material_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && name.len() <= MAX_NAME && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(Error::input(format!("{name:?} is not the name of a material"))
            .with_hint(format!("use at most {MAX_NAME} letters, digits, dots, underscores and hyphens"))),
    }
}

/// The pack; signed, if there is a key.
///
/// # Errors
/// A limit of packs is exceeded, or two materials have the same name.
pub fn build(input: BuildInput, key: Option<&SigningKey>) -> Result<PackFiles> {
    let BuildInput {
        reports: mut files,
        count,
        final_verdict,
        source_repo,
        environment,
        materials,
        readme,
        profile,
    } = input;
    let level = if source_repo.is_some() && environment.is_some() { "high" } else { "medium" };
    let subject = add(&mut files, Some("final_verdict"), FINAL_VERDICT, final_verdict)?;
    let source = source_repo.map(|bytes| add(&mut files, None, SOURCE, bytes)).transpose()?;
    let environment = environment.map(|bytes| add(&mut files, None, ENVIRONMENT, bytes)).transpose()?;
    let materials = materials.into_iter().map(|Material { name, bytes }| {
        check_material_name(&name)?;
        add(&mut files, Some(&name), &format!("metadata/{name}.json"), bytes)
    });
    let materials = materials.collect::<Result<Vec<_>>>()?;
    let readme = readme.unwrap_or_else(|| page(count, &profile, key).into_bytes());
    files.insert(README, readme)?;
    let sums = checksums::write(&files);
    let counts = ReportCounts {
        clean_reports: Some(count as u64),
        error_injection_reports: Some(0),
        failed_reports: Some(0),
        policy_profile: Some(profile),
        report_assurance: Some("report".to_owned()),
        other: Map::new(),
    };
    let manifest = PackManifest {
        format: FORMAT.to_owned(),
        evidence_level: Some(level.to_owned()),
        checksums_sha256: CHECKSUMS.to_owned(),
        checksums_sha256_digest: sha256_hex(sums.as_bytes()),
        subject: Some(subject),
        verification: Some(counts),
        invocation: source.map(|source| Invocation { config_source: Some(source), other: Map::new() }),
        environment,
        materials,
        signing_key_fingerprint: key.map(|key| key.public().fingerprint()),
        other: Map::new(),
    };
    let manifest = manifest.to_bytes();
    if let Some(key) = key {
        files.insert(SIGNATURE, signature::sign(&manifest, key)?)?;
    }
    files.insert(CHECKSUMS, sums.into_bytes())?;
    files.insert(MANIFEST, manifest)?;
    Ok(files)
}

/// Adds a file; gives its reference.
fn add(files: &mut PackFiles, name: Option<&str>, path: &str, bytes: Vec<u8>) -> Result<Reference> {
    let digest = Some(format!("sha256:{}", sha256_hex(&bytes)));
    files.insert(path, bytes)?;
    Ok(Reference { name: name.map(str::to_owned), path: Some(path.to_owned()), digest, other: Map::new() })
}

fn page(count: usize, profile: &str, key: Option<&SigningKey>) -> String {
    let signed = match key {
        Some(key) => format!("The manifest is signed by `{}`.", key.public().fingerprint()),
        None => "The manifest is not signed.".to_owned(),
    };
    format!(
        "# Evidence pack\n\n\
         Evaluation reports: {count}. All of them verified with profile `{profile}` when the pack was built.\n\
         {signed}\n\n\
         ```sh\n\
         invarlock advanced evidence-pack verify --key PUBLIC_KEY .\n\
         sha256sum -c checksums.sha256\n\
         ```\n\n\
         The signature says who built the pack. It does not say that the reports are true: their author could have\n\
         written all of them. `invarlock verify --reproduce` measures again.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Inspection, Signer};
    use super::*;

    fn pack(key: Option<&SigningKey>) -> PackFiles {
        let mut reports = PackFiles::default();
        reports.insert(&report_path(1, "evaluation.report.json"), b"{}".to_vec()).expect("a file");
        let materials = vec![Material { name: "notes".to_owned(), bytes: b"{}".to_vec() }];
        let input = BuildInput {
            reports,
            count: 1,
            final_verdict: b"{}".to_vec(),
            source_repo: Some(b"{}".to_vec()),
            environment: None,
            materials,
            readme: None,
            profile: "ci".to_owned(),
        };
        build(input, key).expect("a pack")
    }

    fn accepted(files: &PackFiles) -> bool {
        Inspection::of(files)
            .is_ok_and(|found| found.signature_fault(&[]).is_none() && found.integrity_faults().is_empty())
    }

    #[test]
    fn a_built_pack_is_accepted_and_every_flipped_bit_refused() {
        let key = SigningKey::generate().expect("a key");
        let good = pack(Some(&key));
        assert!(accepted(&good));
        for (changed, bytes) in good.iter() {
            for bit in 0..bytes.len() * 8 {
                let mut files = PackFiles::default();
                for (path, bytes) in good.iter() {
                    let mut bytes = bytes.to_vec();
                    if path == changed {
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                    files.insert(path, bytes).expect("a file");
                }
                assert!(!accepted(&files), "{changed}: bit {bit}");
            }
        }
    }

    #[test]
    fn missing_and_extra_files_are_refused() {
        let key = SigningKey::generate().expect("a key");
        let good = pack(Some(&key));
        for (missing, _) in good.iter() {
            let mut files = PackFiles::default();
            for (path, bytes) in good.iter().filter(|(path, _)| *path != missing) {
                files.insert(path, bytes.to_vec()).expect("a file");
            }
            assert!(!accepted(&files), "without {missing}");
        }
        let mut extra = good.clone();
        extra.insert("metadata/other.json", b"{}".to_vec()).expect("a file");
        assert!(!accepted(&extra));
        let mut mirror = good.clone();
        mirror.insert("metadata/manifest.json", good.get(MANIFEST).expect("it").to_vec()).expect("a file");
        assert!(accepted(&mirror));
        assert_eq!(Inspection::of(&pack(None)).expect("a pack").signer, Signer::None);
    }
}
