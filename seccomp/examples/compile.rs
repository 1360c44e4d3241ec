//! Compiles the built-in profiles for each architecture and writes `programs/`.

use invarlock_seccomp::{Arch, BuiltinProfile};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    for profile in BuiltinProfile::ALL {
        for arch in Arch::ALL {
            let program = profile.profile().compile_notify_for(arch)?;
            let path = directory.join(format!("{}-{}.bpf", profile.as_str(), arch.as_str()));
            std::fs::write(path, program.filters.concat())?;
        }
    }
    Ok(())
}
