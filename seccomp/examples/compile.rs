//! Writes `programs/`: what the profiles for containers compile to on each machine.

use invarlock_seccomp::{Arch, BuiltinProfile};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    for ours in BuiltinProfile::ALL {
        for arch in Arch::ALL {
            let program = ours.profile().compile_heard_for(arch)?;
            let path = directory.join(format!("{}-{}.bpf", ours.as_str(), arch.as_str()));
            std::fs::write(path, program.filters.concat())?;
        }
    }
    Ok(())
}
