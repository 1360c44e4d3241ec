//! The choice of an image for this machine from an index.

use oci_spec::image::Descriptor;

use crate::oci::descriptor::{annotation, architecture, is_artifact};

/// Annotation by which BuildKit marks an attestation in an index.
const BUILDKIT_TYPE: &str = "vnd.docker.reference.type";
/// Annotation of an image whose layers are compressed with zstd, beside the same image with gzip.
const ZSTD: &str = "io.github.containers.compression.zstd";

/// Whether a descriptor is that of an attestation about an image.
pub(super) fn is_attestation(entry: &Descriptor) -> bool {
    annotation(entry, BUILDKIT_TYPE).is_some()
}

/// Whether a descriptor names a platform, and not that of this machine.
pub(super) fn is_of_another_machine(entry: &Descriptor) -> bool {
    entry.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() != "linux" || platform.architecture().to_string() != architecture()
    })
}

/// The descriptor for this machine. Several can match: the one that most machines run comes first (no variant, then the lowest one), and one
/// without a platform comes last. Of equal ones zstd precedes gzip, and then the order of the index decides. So the choice depends on the index
/// alone.
pub(super) fn choose(entries: &[Descriptor]) -> Option<&Descriptor> {
    let is_candidate =
        |entry: &&Descriptor| !is_artifact(entry) && !is_attestation(entry) && !is_of_another_machine(entry);
    let has_no_zstd = |entry: &Descriptor| annotation(entry, ZSTD) != Some("true");
    // `min_by_key` returns the first of equal entries.
    entries.iter().filter(is_candidate).min_by_key(|entry| (variant(entry), has_no_zstd(entry)))
}

/// The place of a variant in the order.
fn variant(entry: &Descriptor) -> (bool, String) {
    // The first variant of an architecture is what a name without a variant means.
    let first = if architecture() == "arm64" { "v8" } else { "v1" };
    match entry.platform() {
        None => (true, String::new()),
        Some(platform) => {
            let variant = platform.variant().as_deref().filter(|variant| *variant != first);
            (false, variant.unwrap_or_default().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The number of the chosen entry.
    fn chosen(entries: &[Value]) -> Option<usize> {
        let parse = |(number, entry): (usize, &Value)| {
            let mut entry = entry.clone();
            entry["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
            entry["digest"] = json!(format!("sha256:{number:064}"));
            entry["size"] = json!(1);
            serde_json::from_value::<Descriptor>(entry).expect("descriptor")
        };
        let entries: Vec<Descriptor> = entries.iter().enumerate().map(parse).collect();
        let chosen = choose(&entries)?;
        entries.iter().position(|entry| entry == chosen)
    }

    fn of(architecture: &str, variant: &str) -> Value {
        let mut platform = json!({ "os": "linux", "architecture": architecture });
        if !variant.is_empty() {
            platform["variant"] = json!(variant);
        }
        json!({ "platform": platform })
    }

    #[test]
    fn chooses_by_variant_compression_and_position() {
        let own = architecture();
        let with = |entry: &Value, name: &str, value: &str| {
            let mut entry = entry.clone();
            entry["annotations"] = json!({ name: value });
            entry
        };
        let plain = of(own, "");
        let none = json!({});
        for (entries, expected) in [
            (vec![of(own, "v9"), plain.clone()], Some(1)),
            (vec![of(own, "v9"), of(own, "v2")], Some(1)),
            (vec![plain.clone(), plain.clone()], Some(0)),
            (vec![plain.clone(), with(&plain, ZSTD, "true")], Some(1)),
            (vec![with(&of(own, "v9"), ZSTD, "true"), plain.clone()], Some(1)),
            (vec![none.clone(), plain.clone()], Some(1)),
            (vec![of("s390x", ""), none], Some(1)),
            (vec![of("s390x", "")], None),
            (vec![with(&plain, BUILDKIT_TYPE, "attestation-manifest"), plain.clone()], Some(1)),
            (vec![json!({ "artifactType": "application/x-what" })], None),
            (vec![], None),
        ] {
            assert_eq!(chosen(&entries), expected, "{entries:?}");
        }
    }
}
