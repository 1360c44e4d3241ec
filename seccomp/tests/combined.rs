//! Profiles in the format of the OCI, and combinations of two profiles, decide random calls as the profiles that they were made from.

use invarlock_seccomp::{
    Action, Arch, Machine, Profile, ResolvedProfile, UserProfile, syscall_name, syscall_number,
};
use proptest::prelude::*;

const ENOSYS: u16 = 38;

fn machine(arch: Arch) -> Machine {
    Machine { arch, kernel: (6, 1) }
}

fn docker(text: &str, arch: Arch) -> ResolvedProfile {
    UserProfile::parse(text.as_bytes(), machine(arch)).expect("a profile").resolved
}

fn profiles(arch: Arch) -> Vec<ResolvedProfile> {
    let of_docker = include_str!("data/docker-format.json");
    let kills = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        {"names": ["read", "write", "execve", "exit_group", "mount", "ioctl", "prctl"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["fcntl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 3, "op": "SCMP_CMP_GE"}]},
        {"names": ["fcntl"], "action": "SCMP_ACT_TRAP", "args": [{"index": 1, "value": 3, "op": "SCMP_CMP_LT"}]}]}"#;
    let denies = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97},
        {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 256, "valueTwo": 256, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    let built_in = [Profile::evaluator(), Profile::general(), Profile::terminal(), Profile::no_network()];
    let built_in = built_in.iter().map(|profile| profile.resolve(arch).expect("resolved"));
    built_in.chain([of_docker, kills, denies].map(|text| docker(text, arch))).collect()
}

#[test]
fn profile_in_the_oci_format_is_combined_with_its_own() {
    let started = std::time::Instant::now();
    let general = Profile::general().resolve(Arch::X86_64).expect("resolved");
    let text = serde_json::to_string(&general.to_oci().expect("written")).expect("JSON");
    let both = general.combined(&docker(&text, Arch::X86_64)).expect("combined");
    both.compile_notify().expect("a program");
    for number in 0..470 {
        for args in [[0; 6], [1; 6], [2; 6], [3; 6], [26; 6], [0x5401; 6], [1 << 32 | 1; 6], [u64::MAX; 6]] {
            assert_eq!(both.decide(number, &args).0, general.decide(number, &args).0, "{number} {args:?}");
        }
    }
    // Conditions that do not fit are an error, and not a long wait.
    let many: Vec<String> = (0..4000).map(|i| {
        format!(r#"{{"names": ["ioctl"], "action": "SCMP_ACT_TRAP", "args": [{{"index": 1, "value": {}, "valueTwo": {}, "op": "SCMP_CMP_MASKED_EQ"}}]}}"#, u32::MAX - i % 61, i & !(i % 61))
    }).collect();
    let hostile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}}"#, many.join(","));
    if let Ok(hostile) = UserProfile::parse(hostile.as_bytes(), machine(Arch::X86_64)) {
        drop(general.combined(&hostile.resolved));
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

fn calls() -> impl Strategy<Value = (u32, [u64; 6])> {
    let often = [
        "fcntl",
        "ioctl",
        "prctl",
        "clone",
        "clone3",
        "socket",
        "setsockopt",
        "prlimit64",
        "mount",
        "mmap",
        "setpriority",
        "ioprio_set",
    ];
    let number = prop_oneof![
        3 => prop::sample::select(often.to_vec()).prop_map(|name| syscall_number(Arch::X86_64, name).expect("a call")),
        1 => 0..500u32,
    ];
    let value = prop_oneof![
        0..60u64,
        1024..1040u64,
        0x5400..0x5460u64,
        prop::sample::select(vec![1u64 << 32, 1 << 32 | 3, u64::MAX, 0x1000_0000, 256, 0x4_0000]),
        any::<u64>(),
    ];
    (number, prop::array::uniform6(value))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn oci_format_decides_as_the_profile((number, args) in calls()) {
        static WRITTEN: std::sync::LazyLock<Vec<(ResolvedProfile, ResolvedProfile)>> = std::sync::LazyLock::new(|| {
            let written = |profile: ResolvedProfile| {
                let text = serde_json::to_string(&profile.to_oci().expect("written")).expect("JSON");
                let read = UserProfile::parse(text.as_bytes(), machine(Arch::X86_64));
                // The list against networks is a deny-list for this program itself.
                (profile, read.expect("read again").resolved)
            };
            profiles(Arch::X86_64).into_iter().map(written).collect()
        });
        for (profile, read) in WRITTEN.iter() {
            if syscall_name(Arch::X86_64, number).is_some() && (profile.closed || syscall_name(Arch::X86_64, number) != Some("clone3")) {
                prop_assert_eq!(profile.decide(number, &args).0, read.decide(number, &args).0, "{} {}", profile.name, number);
            }
        }
    }

    #[test]
    fn combination_is_the_stricter_of_both((number, args) in calls()) {
        type Combined = (ResolvedProfile, ResolvedProfile, ResolvedProfile);
        static COMBINED: std::sync::LazyLock<Vec<Combined>> = std::sync::LazyLock::new(|| {
            let all = profiles(Arch::X86_64);
            let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
            pairs.map(|(one, other)| {
                let both = one.combined(other).expect("combined");
                both.compile_notify().expect("a program");
                (one.clone(), other.clone(), both)
            }).collect()
        });
        let severity = |action| match action {
            Action::Allow => 0,
            Action::Errno(_) => 1,
            Action::Trap => 2,
            Action::KillThread => 3,
            Action::KillProcess => 4,
        };
        for (one, other, both) in COMBINED.iter() {
            let (a, b) = (one.decide(number, &args).0, other.decide(number, &args).0);
            let found = both.decide(number, &args).0;
            let denied_by_closed = both.closed && found == Action::Errno(ENOSYS);
            let expected = if severity(b) > severity(a) { b } else { a };
            prop_assert!(found == expected || denied_by_closed, "{} {number} {args:?}: {found:?}, not {expected:?}", both.name);
        }
    }
}

#[test]
fn every_built_in_profile_is_short_in_the_oci_format() {
    for arch in Arch::ALL {
        for profile in [Profile::evaluator(), Profile::general(), Profile::terminal()] {
            let text =
                serde_json::to_string(&profile.resolve(arch).expect("resolved").to_oci().expect("written"));
            let length = text.expect("JSON").len();
            assert!(length < 100_000, "{} for {arch:?}: {length} bytes", profile.name);
        }
    }
}
