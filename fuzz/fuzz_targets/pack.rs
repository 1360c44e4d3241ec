//! An evidence pack in one file: an archive that this program would write, and its control files.
#![no_main]

use invarlock_evidence::pack::{Inspection, archive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(files) = archive::read(bytes) else { return };
    let mut again = Vec::new();
    archive::write(&files, &mut again).expect("an archive");
    assert_eq!(again, bytes, "only canonical archives are accepted");
    drop(Inspection::of(&files));
});
