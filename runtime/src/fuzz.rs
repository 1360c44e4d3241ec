//! Entry point of a fuzz target in `fuzz/`. It takes untrusted input and panics only on a fault of this crate.

use crate::boundary::MASKED;
use crate::bundle::{BundleConfig, BundleSource};
use crate::identity::IdsInside;
use crate::spec::Limits;
use invarlock_error::Kind;
use invarlock_seccomp::{Action, Arch, BuiltinProfile, Machine, UserProfile};
use std::path::Component;

/// Bytes as the configuration of an OCI bundle. What is accepted stays in the boundary; everything else is an error of the input.
pub fn bundle_config(bytes: &[u8]) {
    let limits = Limits { memory_bytes: 1 << 30, pids: 100, cpus: 2.0, ..Limits::for_machine() };
    let config = match BundleConfig::parse(bytes, &limits) {
        Err(error) => {
            assert!(matches!(error.kind(), Kind::Input | Kind::Unsupported), "{error}");
            return;
        }
        Ok(config) => config,
    };
    let mut root = config.root.components();
    assert!(config.root.components().count() > 0 && root.all(|part| matches!(part, Component::Normal(_))));
    assert!(!config.argv.is_empty() && config.cwd.starts_with('/'));
    assert!(config.user.uid <= IdsInside::MAX && config.user.gid <= IdsInside::MAX);
    let lower = |found: Option<u64>, own: u64| found.is_none_or(|found| found > 0 && found <= own);
    assert!(lower(config.limits.memory_bytes, limits.memory_bytes) && lower(config.limits.pids, limits.pids));
    assert!(config.limits.open_files.is_none_or(|files| files < limits.open_files));
    assert!(config.limits.cpus.is_none_or(|cpus| cpus > 0.0 && cpus < limits.cpus + 0.001));
    for path in &config.masked_paths {
        let name = path.strip_prefix("/proc/").expect("a name in /proc");
        assert!(!name.contains('/') && !name.starts_with("self") && !MASKED.contains(&path.as_str()));
    }
    for mount in &config.mounts {
        if let BundleSource::Bind { path, .. } = &mount.source {
            assert!(!path.as_os_str().is_empty());
        }
    }
    if config.has_seccomp {
        seccomp(bytes);
    }
}

/// Together with the profile of a run, the profile allows nothing more.
fn seccomp(bytes: &[u8]) {
    let machine = Machine { arch: Arch::X86_64, kernel: (6, 1) };
    let Ok(theirs) = UserProfile::parse(bytes, machine) else { return };
    let ours = BuiltinProfile::General.profile().resolve(machine.arch).expect("a built-in profile");
    let Ok(both) = ours.combined(&theirs.resolved) else { return };
    for number in 0..460 {
        for args in [[0; 6], [1; 6], [u64::MAX; 6], [3, 0x5401, 26, 0, 1 << 32, 2]] {
            if both.decide(number, &args).0 == Action::Allow {
                assert_eq!(ours.decide(number, &args).0, Action::Allow, "{number} {args:?}");
            }
        }
    }
}
