//! Results of the upstream Python package, committed in `tests/fixtures/upstream/`. The README
//! there documents how they were generated.

use crate::root;
use std::fs::File;
use std::path::Path;

/// Window size of the archives: 2^27 bytes.
const WINDOW_LOG: u32 = 27;

/// Extracts an archive of the fixtures into `to`.
pub fn extract(archive: &str, to: &Path) {
    let path = root().join("tests/fixtures/upstream").join(archive);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut decoder = zstd::stream::read::Decoder::new(file).unwrap();
    decoder.window_log_max(WINDOW_LOG).unwrap();
    tar::Archive::new(decoder).unpack(to).unwrap();
}
