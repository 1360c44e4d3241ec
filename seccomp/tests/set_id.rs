//! Profiles without set-id bits: compared with the profile that they were made from, on random calls, for both architectures.

#[allow(dead_code, reason = "each test file uses its part")]
mod bpf;

use bpf::{ALLOW, ERRNO, audit, run};
use invarlock_seccomp::{Action, Arch, Machine, Profile, ResolvedProfile, UserProfile, syscall_number};
use proptest::prelude::*;

/// Calls with a mode, and the indexes of their flags, if they have any, and of the mode.
const CALLS: [(&str, Option<usize>, usize); 9] = [
    ("chmod", None, 1),
    ("creat", None, 1),
    ("fchmod", None, 1),
    ("fchmodat", None, 2),
    ("fchmodat2", None, 2),
    ("mknod", None, 1),
    ("mknodat", None, 2),
    ("open", Some(1), 2),
    ("openat", Some(2), 3),
];
const CREATE: u64 = libc::O_CREAT as u64 | (libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;
const SET_ID: u64 = (libc::S_ISUID | libc::S_ISGID) as u64;

fn profiles(arch: Arch) -> Vec<ResolvedProfile> {
    let docker = include_bytes!("data/docker-format.json");
    let docker = UserProfile::parse(docker, Machine { arch, kernel: (6, 1) }).expect("a profile").resolved;
    let built_in = [Profile::evaluator(), Profile::general(), Profile::terminal(), Profile::no_network()];
    built_in.iter().map(|profile| profile.resolve(arch).expect("resolved")).chain([docker]).collect()
}

#[test]
fn no_call_sets_a_set_id_bit() {
    let number = prop_oneof![prop::sample::select((0..CALLS.len()).collect::<Vec<_>>())];
    let bits = prop_oneof![
        prop::sample::select(vec![0, 0o644, 0o4755, 0o2755, 0o6000, 0o1777, 0o100, 0o20_200_000, 0o101]),
        any::<u64>(),
    ];
    let args = prop::array::uniform6(bits);
    for arch in Arch::ALL {
        for before in profiles(arch) {
            let after = before.clone().without_set_id();
            let program = after.compile().expect("compiled");
            let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4_000));
            let checked = runner.run(&(number.clone(), args.clone()), |(call, args)| {
                let (name, flags, mode) = CALLS[call];
                let Some(number) = syscall_number(arch, name) else { return Ok(()) };
                let sets = args[mode] & SET_ID != 0 && flags.is_none_or(|flags| args[flags] & CREATE != 0);
                let (was, is) = (before.decide(number, &args).0, after.decide(number, &args).0);
                match sets {
                    true => prop_assert_ne!(is, Action::Allow, "{} {} {:x?}", before.name, name, args),
                    false => prop_assert_eq!(is, was, "{} {} {:x?}", before.name, name, args),
                }
                let returned = run(&program, audit(arch), number, args);
                prop_assert_eq!(
                    returned == ALLOW,
                    is == Action::Allow,
                    "{} {} {:x?}",
                    before.name,
                    name,
                    args
                );
                Ok(())
            });
            checked.unwrap_or_else(|error| panic!("{error}"));
            let number = syscall_number(arch, "openat2").expect("a number");
            assert_eq!(run(&program, audit(arch), number, [0; 6]), ERRNO | libc::ENOSYS as u32);
        }
    }
}

#[test]
fn other_calls_are_decided_as_before() {
    for arch in Arch::ALL {
        for before in profiles(arch) {
            let after = before.clone().without_set_id();
            let others = (0..1024).filter(|number| {
                let is = |name: &str| syscall_number(arch, name) == Some(*number);
                !is("openat2") && !CALLS.iter().any(|(name, ..)| is(name))
            });
            for number in others {
                let args = [3; 6];
                assert_eq!(
                    after.decide(number, &args).0,
                    before.decide(number, &args).0,
                    "{} {number}",
                    before.name
                );
            }
        }
    }
}
