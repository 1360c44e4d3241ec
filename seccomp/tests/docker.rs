//! Profiles in Docker's format: an independent reading of the JSON and the compiled BPF agree on random calls; profiles that cannot
//! be expressed are rejected; malformed text does not panic.

mod bpf;

use bpf::{ALLOW, ERRNO, KILL, NOTIFY, X32};
use invarlock_error::Kind;
use invarlock_seccomp::{Arch, Format, Machine, ResolvedProfile, UserProfile, syscall_name, syscall_number};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("data/docker-format.json");
const PODMAN: &str = "/usr/share/containers/seccomp.json";

fn machine(arch: Arch) -> Machine {
    Machine { arch, kernel: (6, 1) }
}

fn read(text: &str, arch: Arch) -> ResolvedProfile {
    UserProfile::parse(text.as_bytes(), machine(arch)).expect("a profile").resolved
}

/// The return value of a filter for an action, by the documentation of the format.
fn return_value(action: &Value, errno: &Value, name: &Value) -> u32 {
    match action.as_str().expect("an action") {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL,
        "SCMP_ACT_ERRNO" => {
            let by_name = name.as_str().map(|name| match name {
                "EPERM" => libc::EPERM as u64,
                "EACCES" => libc::EACCES as u64,
                "EINVAL" => libc::EINVAL as u64,
                "ENOSYS" => libc::ENOSYS as u64,
                other => panic!("{other}"),
            });
            ERRNO | errno.as_u64().or(by_name).unwrap_or(1) as u32
        }
        other => panic!("{other}"),
    }
}

/// Whether an entry counts for a workload without capabilities.
fn counts(entry: &Value, arch: Arch) -> bool {
    let here = if arch == Arch::X86_64 { "amd64" } else { "arm64" };
    let list = |side: &str, what: &str| entry[side][what].as_array().cloned().unwrap_or_default();
    let kernel = |side: &str| {
        let text = entry[side]["minKernel"].as_str()?;
        let (major, minor) = text.split_once('.').expect("a version");
        let (major, minor): (u32, u32) = (major.parse().expect("major"), minor.parse().expect("minor"));
        Some(6 > major || 6 == major && 1 >= minor)
    };
    let in_list = |side| list(side, "arches").contains(&json!(here));
    (list("includes", "arches").is_empty() || in_list("includes"))
        && list("includes", "caps").is_empty()
        && kernel("includes").unwrap_or(true)
        && !in_list("excludes")
        && !kernel("excludes").unwrap_or(false)
}

fn holds(arg: &Value, args: [u64; 6]) -> bool {
    let value = args[arg["index"].as_u64().expect("an index") as usize];
    let (one, two) = (arg["value"].as_u64().expect("a value"), arg["valueTwo"].as_u64().unwrap_or(0));
    match arg["op"].as_str().expect("an operator") {
        "SCMP_CMP_EQ" => value == one,
        "SCMP_CMP_NE" => value != one,
        "SCMP_CMP_LT" => value < one,
        "SCMP_CMP_LE" => value <= one,
        "SCMP_CMP_GT" => value > one,
        "SCMP_CMP_GE" => value >= one,
        "SCMP_CMP_MASKED_EQ" => value & one == two,
        other => panic!("{other}"),
    }
}

/// What the JSON says becomes of a call of this machine's own. Entries that say what the default says add nothing; of those that name
/// the call whatever its arguments, the first counts.
fn promised(profile: &Value, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
    let default =
        return_value(&profile["defaultAction"], &profile["defaultErrnoRet"], &profile["defaultErrno"]);
    let (mut whole, mut said) = (None, Vec::new());
    for entry in profile["syscalls"].as_array().into_iter().flatten().filter(|entry| counts(entry, arch)) {
        let action = return_value(&entry["action"], &entry["errnoRet"], &entry["errno"]);
        let named = entry["name"] == json!(name)
            || entry["names"].as_array().is_some_and(|names| names.contains(&json!(name)));
        let compared = entry["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !named || action == default {
            continue;
        }
        if compared.is_empty() {
            whole.get_or_insert(action);
        } else if compared.iter().all(|arg| holds(arg, args)) {
            said.push(action);
        }
    }
    said.extend(whole);
    said.dedup();
    assert!(said.len() <= 1, "two entries contradict each other for {name} {args:?}, and it was accepted");
    said.first().copied().unwrap_or(default)
}

/// Numbers at which comparisons turn, besides any.
fn argument(profile: &Value) -> BoxedStrategy<u64> {
    let entries = profile["syscalls"].as_array().into_iter().flatten();
    let args = entries.flat_map(|entry| entry["args"].as_array().cloned().unwrap_or_default());
    let values = args.flat_map(|arg| [arg["value"].as_u64(), arg["valueTwo"].as_u64()]).flatten();
    let edges: Vec<u64> =
        values.flat_map(|it| [it, it.wrapping_add(1), it.wrapping_sub(1)]).chain([0]).collect();
    let edge = prop::sample::select(edges);
    prop_oneof![
        3 => edge.clone(),
        1 => (edge.clone(), 0u32..64).prop_map(|(edge, bit)| edge ^ 1 << bit),
        1 => (edge, any::<u32>()).prop_map(|(edge, junk)| edge | u64::from(junk) << 32),
        1 => any::<u64>(),
    ]
    .boxed()
}

fn agrees_everywhere(text: &str, cases: u32) {
    Arch::ALL.into_iter().for_each(|arch| agrees(text, arch, cases));
}

fn agrees(text: &str, arch: Arch, cases: u32) {
    let profile: Value = serde_json::from_str(text).expect("JSON");
    let resolved = read(text, arch);
    let programs = [(resolved.compile(), ERRNO | 1), (resolved.compile_notify(), NOTIFY)];
    let programs = programs.map(|(program, refused)| (program.expect("a program"), refused));
    let tracer = bpf::Tracer::of(&resolved);
    let decided: Vec<u32> = resolved.decisions.iter().map(|it| it.number).chain([0]).collect();
    let compared: Vec<u32> =
        resolved.decisions.iter().filter(|it| !it.when.is_empty()).map(|it| it.number).chain([0]).collect();
    let number = prop_oneof![
        prop::sample::select(decided),
        prop::sample::select(compared),
        0u32..500,
        (0u32..500).prop_map(|number| number | X32),
        any::<u32>(),
    ];
    let audit = bpf::audit(arch);
    let said = prop_oneof![8 => Just(audit), 1 => any::<u32>()];
    let args = prop::array::uniform6(argument(&profile));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    runner
        .run(&(said, number, args), |(said, number, args)| {
            let expected = match syscall_name(arch, number) {
                _ if said != audit || arch == Arch::X86_64 && number >= X32 => KILL,
                None | Some("clone3") => ERRNO | 38,
                Some(name) => promised(&profile, arch, name, args),
            };
            for (program, refused) in &programs {
                let expected = if expected == ERRNO | 1 { *refused } else { expected };
                prop_assert_eq!(bpf::run(program, said, number, args), expected, "{:?} {}", arch, number);
            }
            tracer.agrees(said, number, args, expected);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn sample_matches_independent_reading() {
    agrees_everywhere(SAMPLE, 20_000);
    let x86_64 = UserProfile::parse(SAMPLE.as_bytes(), machine(Arch::X86_64)).expect("a profile");
    assert_eq!(x86_64.format, Format::Docker);
    assert_eq!(x86_64.unknown_calls, ["_llseek", "socketcall"]);
}

#[test]
fn podman_profile_matches_independent_reading() {
    let Ok(text) = std::fs::read_to_string(PODMAN) else {
        use std::io::Write as _;
        drop(writeln!(
            std::io::stderr(),
            "SKIPPED podman_profile_matches_independent_reading: {PODMAN} not found"
        ));
        return;
    };
    agrees_everywhere(&text, 20_000);
}

/// The same profile in an OCI configuration, and in the form of the OCI specification.
#[test]
fn reads_other_forms_of_the_format() {
    let direct = read(SAMPLE, Arch::X86_64);
    let mut profile: Value = serde_json::from_str(SAMPLE).expect("JSON");
    let config = json!({"ociVersion": "1.2.0", "process": {"cwd": "/"}, "linux": {"namespaces": [], "seccomp": profile}});
    assert_eq!(read(&config.to_string(), Arch::X86_64), direct);
    let members = profile.as_object_mut().expect("an object");
    members.remove("archMap");
    members.insert("architectures".into(), json!(["SCMP_ARCH_X86_64"]));
    assert_eq!(read(&profile.to_string(), Arch::X86_64), direct);
    let ours = include_str!("../profiles/evaluator.json");
    let given = UserProfile::parse(ours.as_bytes(), machine(Arch::X86_64)).expect("ours");
    assert_eq!(given.format, Format::Invarlock);
    let built_in =
        invarlock_seccomp::Profile::evaluator().compile_notify_for(Arch::X86_64).expect("a program");
    assert_eq!(given.resolved.compile_notify().expect("a program"), built_in);
}

/// In a user's deny-list of either format, unknown calls and clone3 give `ENOSYS`.
#[test]
fn deny_list_rejects_unknown_calls() {
    for text in [
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount", "stime"], "action": "SCMP_ACT_ERRNO"}]}"#,
        r#"{"name": "p", "default": "allow", "refuse": [{"syscall": "mount", "reason": "no"}]}"#,
    ] {
        for arch in Arch::ALL {
            let program = read(text, arch).compile().expect("a program");
            let audit = bpf::audit(arch);
            let run = |number| bpf::run(&program, audit, number, [0; 6]);
            let call = |name| syscall_number(arch, name).expect(name);
            assert_eq!([run(call("mount")), run(call("read"))], [ERRNO | 1, ALLOW], "{text}");
            assert_eq!([run(call("clone3")), run(100_000)], [ERRNO | 38; 2], "{text}");
        }
    }
}

fn refused(text: &str) -> String {
    match UserProfile::parse(text.as_bytes(), machine(Arch::X86_64)) {
        Err(why) if why.kind() == Kind::Input => format!("{why}; {}", why.hint().unwrap_or_default()),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn rejects_unsupported_profiles_by_name() {
    let needed = r#"{"names": ["read", "write", "execve", "exit_group"], "action": "SCMP_ACT_ALLOW"}"#;
    let with = |more: &str, entry: &str| {
        format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", {more} "syscalls": [{needed}, {entry}]}}"#)
    };
    let entry = |more: &str| with("", &format!(r#"{{"names": ["socket"], {more}}}"#));
    let args = |args: &str| entry(&format!(r#""action": "SCMP_ACT_ALLOW", "args": [{args}]"#));
    assert!(
        UserProfile::parse(entry(r#""action": "SCMP_ACT_ALLOW""#).as_bytes(), machine(Arch::X86_64)).is_ok()
    );
    for (text, words) in [
        (entry(r#""action": "SCMP_ACT_LOG""#), ["syscalls[1] (socket)", "only logs"]),
        (entry(r#""action": "SCMP_ACT_TRACE""#), ["syscalls[1] (socket)", "another program"]),
        (entry(r#""action": "SCMP_ACT_NOTIFY""#), ["syscalls[1] (socket)", "another program"]),
        (entry(r#""action": "SCMP_ACT_DANCE""#), ["SCMP_ACT_DANCE", "unknown"]),
        (entry(r#""action": "SCMP_ACT_ALLOW", "errnoRet": 1"#), ["syscalls[1]", "valid with SCMP_ACT_ERRNO"]),
        (entry(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 4096"#), ["4096", "not an errno"]),
        (entry(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 2, "errno": "EPERM""#), ["2", "EPERM"]),
        (entry(r#""action": "SCMP_ACT_ERRNO", "errno": "EWHAT""#), ["EWHAT", "errnoRet"]),
        (entry(r#""action": "SCMP_ACT_ALLOW", "when": 1"#), ["unknown field", "when"]),
        (entry(r#""action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}"#), ["minKernel", "new"]),
        (entry(r#""action": "SCMP_ACT_ALLOW", "includes": {"weekday": "friday"}"#), ["unknown field", "weekday"]),
        (entry(r#""action": "SCMP_ACT_ALLOW", "action": "SCMP_ACT_ERRNO""#), ["duplicate field", "action"]),
        (args(r#"{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}"#), ["syscalls[1] (socket)", "`index` is 6; it counts the arguments from 0 to 5"]),
        (args(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}"#), ["SCMP_CMP_LIKE", "unknown"]),
        (args(r#"{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}"#), ["-1", "u64"]),
        (args(r#"{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}"#), ["mask 1", "never holds"]),
        (
            args(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 5, "op": "SCMP_CMP_LE"}"#),
            ["the argument with `index` 0 is compared twice", "one entry for each"],
        ),
        (with("", r#"{"names": [], "action": "SCMP_ACT_ALLOW"}"#), ["syscalls[1]", "names no call"]),
        (with("", r#"{"names": ["a"], "name": "a", "action": "SCMP_ACT_ALLOW"}"#), ["syscalls[1]", "remove one"]),
        (with(r#""flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],"#, needed), ["SPEC_ALLOW", "flags"]),
        (with(r#""listenerPath": "/run/x","#, needed), ["listener", "supervisor"]),
        (with(r#""archMap": [], "architectures": [],"#, needed), ["archMap", "architectures"]),
        (with(r#""colour": "red","#, needed), ["unknown field", "colour"]),
        (
            with("", r#"{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}, {"names": ["socket"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_NE"}]}"#),
            ["syscalls[1] and syscalls[2] contradict each other for socket", "exclude each other"],
        ),
        (r#"{"defaultAction": "SCMP_ACT_LOG"}"#.to_owned(), ["defaultAction", "only logs"]),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}"#.to_owned(), ["does not allow read", "execve"]),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2}]}"#
                .to_owned(),
            ["does not allow execve", "allow read"],
        ),
        (needed.replace("execve", "read"), ["unknown format", "defaultAction"]),
        (r#"{"linux": {"seccomp": null}}"#.to_owned(), ["linux.seccomp", "missing"]),
        (r#"{"linux": 1}"#.to_owned(), ["invalid type", "Linux"]),
        ("[]".to_owned(), ["parsing a seccomp profile", "failed"]),
        ("".to_owned(), ["EOF", "failed"]),
        (" ".repeat((1 << 20) + 1), ["bytes", "more than"]),
    ] {
        let why = refused(&text);
        assert!(words.iter().all(|word| why.contains(word)), "{text}: {why}");
    }
}

/// Two entries that disagree are accepted only where no value satisfies both, for every pair of operators.
#[test]
fn contradicting_entries_must_be_exclusive() {
    let operators = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
    let values = [0, 1, 2, 3, u64::MAX - 1, u64::MAX];
    let args: Vec<_> = operators.iter().flat_map(|op| values.map(|value| (*op, value))).collect();
    let arg = |(op, value): (&str, u64)| {
        let two = if op == "MASKED_EQ" { value & 2 } else { 0 };
        json!({"index": 1, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two})
    };
    let (mut accepted, mut refused) = (0, 0);
    for (one, other) in args.iter().flat_map(|one| args.iter().map(|other| (arg(*one), arg(*other)))) {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "write", "execve", "exit_group"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [one]},
            {"names": ["socket"], "action": "SCMP_ACT_TRAP", "args": [other]},
        ]});
        let both =
            (0..9).chain(u64::MAX - 9..=u64::MAX).any(|it| holds(&one, [it; 6]) && holds(&other, [it; 6]));
        let given = UserProfile::parse(profile.to_string().as_bytes(), machine(Arch::X86_64));
        assert!(!(both && given.is_ok()), "both hold, and it was accepted: {one} {other}");
        let simple = [&one, &other]
            .iter()
            .all(|it| ["EQ", "LT", "LE", "GT", "GE"].iter().any(|op| it["op"] == format!("SCMP_CMP_{op}")));
        // Of an ordering that nothing satisfies the reader need not know.
        let empty =
            [&one, &other].iter().any(|it| !(0..9).chain(u64::MAX - 9..=u64::MAX).any(|v| holds(it, [v; 6])));
        assert!(both || !simple || empty || given.is_ok(), "never both, and it was refused: {one} {other}");
        *if given.is_ok() { &mut accepted } else { &mut refused } += 1;
    }
    assert!(accepted > 300 && refused > 300, "{accepted} {refused}");
}

/// A profile of entries from a small vocabulary, so that they meet each other often.
fn profiles() -> impl Strategy<Value = Value> {
    let word =
        |words: &[&str]| prop::sample::select(words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let operator = word(&[
        "SCMP_CMP_EQ",
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_GT",
        "SCMP_CMP_GE",
        "SCMP_CMP_MASKED_EQ",
    ]);
    let number = prop_oneof![0u64..8, Just(u64::from(u32::MAX)), Just(1 << 32), Just(u64::MAX)];
    let arg = (0u64..3, number.clone(), number, operator).prop_map(
        |(index, value, two, op)| json!({"index": index, "value": value, "valueTwo": value & two, "op": op}),
    );
    let actions = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ];
    let names = prop::collection::vec(
        word(&["socket", "mount", "open", "renameat", "stime", "ioctl", "clone3"]),
        1..3,
    );
    let entry =
        (names, word(&actions), prop::collection::vec(arg, 0..3), prop::option::of(0u64..100), 0u8..4);
    let entry = entry.prop_map(|(names, action, args, errno, circumstance)| {
        let mut entry = json!({"names": names, "action": action, "args": args});
        if action == "SCMP_ACT_ERRNO" {
            entry["errnoRet"] = json!(errno);
        }
        match circumstance {
            0 => entry["includes"] = json!({"arches": ["arm64"]}),
            1 => entry["excludes"] = json!({"minKernel": "5.4"}),
            _ => {}
        }
        entry
    });
    let defaults = word(&["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"]);
    (defaults, prop::collection::vec(entry, 0..5)).prop_map(|(default, mut entries)| {
        entries.push(json!({"names": ["read", "write", "execve", "exit_group"], "action": "SCMP_ACT_ALLOW"}));
        json!({"defaultAction": default, "syscalls": entries})
    })
}

#[test]
fn random_profiles_are_rejected_or_match_independent_reading() {
    let mut accepted = 0u32;
    let mut runner = TestRunner::deterministic();
    for _ in 0..600 {
        let profile = profiles().new_tree(&mut runner).expect("a profile").current();
        let text = profile.to_string();
        match UserProfile::parse(text.as_bytes(), machine(Arch::X86_64)) {
            Ok(_) => {
                accepted += 1;
                agrees(&text, Arch::X86_64, 150);
            }
            Err(why) if why.kind() == Kind::Input => {
                assert!(
                    why.message().contains("contradict") || why.message().contains("compared twice"),
                    "{text}: {why}"
                );
            }
            Err(other) => panic!("{text}: {other}"),
        }
    }
    assert!((100..550).contains(&accepted), "{accepted} of 600 were accepted");
}

proptest! {
    #![proptest_config(Config::with_cases(4_000))]

    /// Random bytes, and a profile with a changed byte.
    #[test]
    fn random_text_does_not_panic(junk in prop::collection::vec(any::<u8>(), 0..200), at in 0..SAMPLE.len(), byte in any::<u8>()) {
        let mut altered = SAMPLE.as_bytes().to_vec();
        altered[at] = byte;
        for text in [junk.as_slice(), &altered, &SAMPLE.as_bytes()[..at]] {
            match UserProfile::parse(text, machine(Arch::X86_64)) {
                Ok(given) => drop(given.resolved.compile_notify()),
                Err(error) => prop_assert!(error.kind() == Kind::Input, "{}", error),
            }
        }
    }
}
