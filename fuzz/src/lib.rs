//! What several fuzz targets share.
#![forbid(unsafe_code)]

use invarlock_evidence::verify::{VerifyOptions, verify_report};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Verifies the evidence of an honest run with one file replaced. It is accepted only with the honest file, apart from the manifest, which has
/// values that nothing else confirms (docs/verify.md).
pub fn verify_with(name: &str, bytes: &[u8]) {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let honest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evidence/tests/data/honest/root");
    let place = PLACE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a directory");
        for entry in std::fs::read_dir(&honest).expect("the fixtures").flatten() {
            std::fs::copy(entry.path(), place.path().join(entry.file_name())).expect("a copy");
        }
        place
    });
    let file: PathBuf = place.path().join(name);
    std::fs::write(&file, bytes).expect("the file");
    let options = VerifyOptions { profile: invarlock_evidence::policy::Profile::Dev, ..VerifyOptions::default() };
    let verdict = verify_report(place.path(), &options);
    if verdict.ok() && name != "runtime.manifest.json" {
        assert_eq!(std::fs::read(honest.join(name)).expect("the fixture"), bytes, "{name} can be changed");
    }
}
