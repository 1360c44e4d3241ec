//! The profiles as data, and the programs as bytes.

use invarlock_error::Kind;
use std::collections::BTreeSet;

use invarlock_seccomp::{Arch, BuiltinProfile, Profile, Program};

/// Digests of the program without notification, with notification of denied calls, and with notification of all calls. A changed
/// digest changes what the workload may do and belongs in the changelog.
const DIGESTS: [(&str, Arch, [&str; 3]); 10] = [
    (
        "evaluator",
        Arch::X86_64,
        [
            "sha256:3619b4f389463a27f41d6bc1d2eaaabd04a3cef2e4ca1e6c7bc666cfadf15e1e",
            "sha256:9d25b9b314d3ac83b9e4e4062f9cd42ebff3269c6b1427736bd7a998addd323f",
            "sha256:fcba896f9cc294b7cdcb532ec8864d53944ed5166d222c4e203c44be3b559cda",
        ],
    ),
    (
        "evaluator",
        Arch::Aarch64,
        [
            "sha256:6850ce1c866210fc62a6873fb85ec5572e705d429693227aedca46792dfffd99",
            "sha256:46435c1cc868a37e05b11ceef76b55af1105e75af08c418385b979135c767745",
            "sha256:fa1e3e0e844ace88963cb49df641ca4050c7c0a9df2e168fca045941bf2af292",
        ],
    ),
    (
        "evaluator-amx",
        Arch::X86_64,
        [
            "sha256:9d8c7807e25256eec0aeea12d0a097be34ea5b28680f353cf12345ef5ceaaee7",
            "sha256:2d2bea8c097358989f0c688fe9af650375753274ff988d3db95c5fdf324e227e",
            "sha256:c2f9db7833ece26104eebadc364aa81c230706fc1358dfb898f0d276fd1b3cdb",
        ],
    ),
    (
        "evaluator-amx",
        Arch::Aarch64,
        [
            "sha256:6850ce1c866210fc62a6873fb85ec5572e705d429693227aedca46792dfffd99",
            "sha256:46435c1cc868a37e05b11ceef76b55af1105e75af08c418385b979135c767745",
            "sha256:fa1e3e0e844ace88963cb49df641ca4050c7c0a9df2e168fca045941bf2af292",
        ],
    ),
    (
        "general",
        Arch::X86_64,
        [
            "sha256:b258c52b4322e45b574a96843610792860d50612bef0803fcc9fc5b0ac1b3176",
            "sha256:e4f0d421867e1545a6cda9bf465759695b97682a30bc1f5edabdef9523ba4d86",
            "sha256:2c992c230d64a29831d15916092aa8c80383687b168dcbe13150b0bd68a90106",
        ],
    ),
    (
        "general",
        Arch::Aarch64,
        [
            "sha256:fb7d10ca169600f650b0d181c479bd604e4cc89deadc50a87c76498e2f47284a",
            "sha256:95064754993600804eb1ef8fe4445f780381e80535fc4b43b4e0f93c93fc792a",
            "sha256:030a4cd817ad9d87c423f44cf3d33310ddc621d6a15f12614f88dde80c5e55ce",
        ],
    ),
    (
        "terminal",
        Arch::X86_64,
        [
            "sha256:f760968da4b5414f43aead0c1a7dcab6d93d1237a7f78903a6788fa3fd3b9ac6",
            "sha256:f04b7ec20021c65caf7d4ced47d2127ed21560b55efd047a84f6e7c288765264",
            "sha256:767605dc44346cc9efde02d2f7114bb89a3a5cb53c2d69ceb35b4e4b0bca9608",
        ],
    ),
    (
        "terminal",
        Arch::Aarch64,
        [
            "sha256:32ea83adf8fd5a4f15e87c8dedfe753722aa1f4ac7c30c5408322ae41c463d69",
            "sha256:ab722ac397d75cdf1e77125d88741bfef2c54e2f1fc1e6a047d96f236b73904a",
            "sha256:1c7c381a0f6fd03c4f258ee643d1cbe3d0ee11a3e2b36096286215e9b2a5678d",
        ],
    ),
    (
        "no-network",
        Arch::X86_64,
        [
            "sha256:ab8aa0ffedbb310ba60bc6772d4eeedf9aaf4c5655da1e9b4b1dafea332e14df",
            "sha256:ae413aa44c6138d52e5ac0b5fe30b7180c02d95822b1ef8dea09c5dfd84b1eca",
            "sha256:edcca7e898f21af8a43e471e6c8a834650302bf9f8e3e53e016d65dd59563d60",
        ],
    ),
    (
        "no-network",
        Arch::Aarch64,
        [
            "sha256:655bdcb9fd2b52f8dbef6fd24722e271821963083f1b7ad7d3c368958099ee2f",
            "sha256:da3765f2dc0c96453f1fac9a7b58ab33d98eb10456065d8142f467875648adaf",
            "sha256:b39d0d05dd88d29a28d92ff0b20571bc06b93ebca3c8df847ccf3530995a5e00",
        ],
    ),
];

const TEXTS: [(&str, &str); 5] = [
    ("evaluator", include_str!("../profiles/evaluator.json")),
    (
        "evaluator-amx",
        concat!(include_str!("../profiles/evaluator.json"), include_str!("../profiles/evaluator-amx.json")),
    ),
    ("general", include_str!("../profiles/general.json")),
    (
        "terminal",
        concat!(include_str!("../profiles/general.json"), include_str!("../profiles/terminal.json")),
    ),
    ("no-network", include_str!("../profiles/no-network.json")),
];

fn built_in(name: &str) -> Profile {
    let profile = match name {
        "evaluator" => Profile::evaluator(),
        "evaluator-amx" => Profile::evaluator_amx(),
        "general" => Profile::general(),
        "terminal" => Profile::terminal(),
        _ => Profile::no_network(),
    };
    assert_eq!(profile.name, name);
    profile
}

#[test]
fn digests_are_pinned_and_compilation_is_deterministic() {
    let programs = |name: &str, arch| {
        let profile = built_in(name);
        let resolved = profile.resolve(arch).expect("resolved");
        [
            profile.compile_for(arch).expect("program"),
            profile.compile_notify_for(arch).expect("program"),
            resolved.compile_trace().expect("program"),
        ]
    };
    let seen = DIGESTS.map(|(name, arch, _)| {
        let once = programs(name, arch);
        assert_eq!(once, programs(name, arch));
        (name, arch, once.map(|program| program.digest))
    });
    assert_eq!(seen, DIGESTS.map(|(name, arch, digests)| (name, arch, digests.map(str::to_owned))));
}

#[test]
fn compiled_programs_match_their_profiles() {
    for builtin in BuiltinProfile::ALL {
        for arch in Arch::ALL {
            let path =
                format!("{}/programs/{}-{}.bpf", env!("CARGO_MANIFEST_DIR"), builtin.as_str(), arch.as_str());
            let program = builtin.profile().compile_notify_for(arch).expect("program");
            assert!(
                std::fs::read(&path).expect(&path) == program.filters.concat(),
                "{path} is outdated; run: cargo run -p invarlock-seccomp --example compile"
            );
            if arch == Arch::native().expect("native") {
                assert_eq!(builtin.program().expect("program"), program);
            }
        }
    }
}

#[test]
fn digest_covers_rules_and_not_the_name() {
    let mut profile = Profile::evaluator();
    let digest = |profile: &Profile| profile.compile_for(Arch::X86_64).expect("program").digest;
    let before = digest(&profile);
    profile.name = "other".to_owned();
    assert_eq!(digest(&profile), before);
    for at in 0..profile.allow.len() {
        let mut without = profile.clone();
        let rule = without.allow.remove(at);
        assert_ne!(digest(&without), before, "{}", rule.syscall);
    }
}

#[test]
fn every_rule_has_its_own_line_and_a_reason() {
    for (name, text) in TEXTS {
        let profile = built_in(name);
        let mut lines = BTreeSet::new();
        for rule in profile.rules() {
            assert!(rule.reason.trim().len() > 5, "{}: {:?}", rule.syscall, rule.reason);
            assert!(lines.insert((&rule.syscall, format!("{:?}", rule.args))), "{} twice", rule.syscall);
        }
        let written = text.lines().filter(|line| line.contains("\"syscall\"")).count();
        assert_eq!(written, lines.len(), "{}: one rule a line", profile.name);
    }
}

fn refused(text: &str) -> String {
    let error = Profile::parse(text.as_bytes()).expect_err(text);
    assert!(error.kind() == Kind::Input, "{error}");
    error.to_string()
}

#[test]
fn rejects_invalid_profiles() {
    let with = |rules: &str| format!(r#"{{"name":"p","default":"enosys","allow":[{rules}]}}"#);
    let rule = |call: &str, more: &str| format!(r#"{{"syscall":"{call}",{more}"reason":"a reason"}}"#);
    assert!(Profile::parse(with(&rule("read", "")).as_bytes()).is_ok());
    for (text, word) in [
        (with(""), "no rule"),
        (with(r#"{"syscall":"read","reason":" "}"#), "no reason"),
        (with(r#"{"syscall":"read"}"#), "missing field"),
        (with(&rule("reed", "")), "unknown system call"),
        (with(&rule("clone3", "")), "clone3"),
        (with(&rule("open", "")), "aarch64 has no open"),
        (with(&rule("read", r#""arch":["x86_64"],"#)), "does not list it"),
        (with(&rule("read", r#""arch":["mips"],"#)), "unknown variant"),
        (with(&rule("read", r#""extra":1,"#)), "unknown field"),
        (with(&format!("{},{}", rule("read", ""), rule("read", ""))), "twice"),
        (
            with(&format!(
                "{},{}",
                rule("read", ""),
                rule("read", r#""args":[{"index":0,"op":"eq","value":1}],"#)
            )),
            "twice",
        ),
        (
            with(&rule("read", r#""args":[{"index":6,"op":"eq","value":1}],"#)),
            "`index` is 6; it counts the arguments from 0 to 5",
        ),
        (with(&rule("read", r#""args":[{"index":0,"op":"eq","value":4294967296}],"#)), "dword"),
        (with(&rule("read", r#""args":[{"index":0,"op":"eq","value":"AF_NONE"}],"#)), "AF_NONE"),
        (with(&rule("read", r#""args":[{"index":0,"op":"masked_eq","value":1}],"#)), "mask"),
        (with(&rule("read", r#""args":[{"index":0,"op":"eq","mask":1,"value":1}],"#)), "mask"),
        (r#"{"name":"p","default":"enosys","allow":[],"refuse":[]}"#.to_owned(), "no rule"),
        (
            r#"{"name":"","default":"enosys","allow":[{"syscall":"read","reason":"a reason"}]}"#.to_owned(),
            "name",
        ),
        (
            r#"{"name":"p","default":"allow","allow":[{"syscall":"read","reason":"a reason"}]}"#.to_owned(),
            "deny-list",
        ),
        (
            r#"{"name":"p","default":"enosys","refuse":[{"syscall":"read","reason":"a reason"}]}"#.to_owned(),
            "allow-list",
        ),
        (" ".repeat((1 << 20) + 1), "bytes"),
    ] {
        let message = refused(&text);
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn programs_round_trip_through_json() {
    for (name, _) in TEXTS {
        let program = built_in(name).compile_for(Arch::Aarch64).expect("program");
        let json = serde_json::to_string(&program).expect("json");
        assert_eq!(serde_json::from_str::<Program>(&json).expect("json"), program);
        assert_eq!(serde_json::to_string(&program).expect("json"), json);
    }
}

#[test]
fn rejects_altered_programs() {
    let program = Profile::no_network().compile().expect("program");
    let bytes = serde_json::to_vec(&program).expect("json");
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        // The name is not covered by the digest: only there may a change go through.
        if let Ok(read) = serde_json::from_slice::<Program>(&altered) {
            assert_eq!(read.digest, program.digest);
            assert_ne!(read.name, program.name);
        }
        assert!(serde_json::from_slice::<Program>(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(serde_json::from_slice::<Program>(&[bytes.as_slice(), b"x"].concat()).is_err());
    let json = serde_json::to_value(&program).expect("json");
    for (field, value) in [
        ("digest", serde_json::json!("sha256:00")),
        ("filters", serde_json::json!([])),
        ("filters", serde_json::json!(["zz"])),
        ("filters", serde_json::json!(["060000000000ff7f0"])),
        ("filters", serde_json::json!(["00".repeat(8 * 4097)])),
        ("filters", serde_json::json!(vec!["060000000000ff7f"; 9])),
        ("name", serde_json::json!("")),
        ("more", serde_json::json!(1)),
    ] {
        let mut altered = json.clone();
        altered[field] = value;
        assert!(serde_json::from_value::<Program>(altered.clone()).is_err(), "{altered}");
    }
}

#[test]
fn rejects_program_for_another_architecture() {
    let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::native().expect("native")).expect("other");
    let program = Profile::no_network().compile_for(other).expect("program");
    assert!(matches!(program.install(), Err(error) if error.kind() == Kind::Unsupported));
}

#[test]
fn rejects_program_altered_in_memory() {
    let mut program = Profile::no_network().compile().expect("program");
    program.filters[0][0] ^= 1;
    assert!(matches!(program.install(), Err(error) if error.kind() == Kind::Integrity));
}
