//! User seccomp profiles: they replace the built-in profile, the evidence records them, and the
//! default policy rejects them.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, demo, read_json, root, skip};
use serde_json::{Value, json};

const PODMAN: &str = "/usr/share/containers/seccomp.json";

/// A place whose default image contains the test workload, with a profile in Docker's format in the
/// work directory.
fn place_with_workload(user: As) -> Place {
    let place = Place::holding(user, "invarlock-workload");
    place.write("docker.json", sample().to_string().as_bytes());
    place
}

fn sample() -> Value {
    read_json(&root().join("seccomp/tests/data/docker-format.json"))
}

fn run(place: &Place, flags: &[&str], command: &[&str]) -> Ran {
    let start = ["runtime", "run", "invarlock-runtime:local"];
    place.run(&[&start, flags, &["--"], command].concat())
}

fn outcome(ran: &Ran) -> Value {
    ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{ran:?}"))
}

fn evaluate(place: &Place, flags: &[&str]) -> Ran {
    let (baseline, preset) = (demo("baseline"), demo("preset.yaml"));
    let paths = [baseline.to_str().unwrap(), preset.to_str().unwrap()];
    let args = ["evaluate", "--baseline", paths[0], "--subject", paths[0], "--preset", paths[1]];
    place.run(&[&args[..], flags].concat())
}

#[test]
fn docker_format_profile_is_enforced() {
    for user in both() {
        let place = place_with_workload(user);
        let flags = ["--seccomp", "docker.json", "--json"];
        let ran = run(&place, &flags, &["sockets", "1", "2", "16", "40"]).expect(0);
        // Families 0, 1 and 2 are allowed. Families from 16 on give 97 (EAFNOSUPPORT).
        assert_eq!(ran.out, "0 0 97 97\n");
        let seccomp = outcome(&ran)["seccomp"].clone();
        assert_eq!(
            (&seccomp["custom"]["format"], &seccomp["profile"]),
            (&json!("docker"), &json!("docker-format"))
        );
        assert_eq!(seccomp["custom"]["no_calls_here"], json!(["_llseek", "socketcall"]));
        assert_eq!(seccomp["custom"]["program_digest"], seccomp["digest"]);
        // Calls denied with EPERM are counted. The default profile denies these sockets with EPERM.
        let ran = run(&place, &flags, &["pipes", "3"]).expect(0);
        assert_eq!(outcome(&ran)["refused"], json!({"pipe2": 3}));
        let ran = run(&place, &["--json"], &["sockets", "1"]).expect(0);
        assert_eq!((ran.out.as_str(), &outcome(&ran)["seccomp"]["custom"]), ("1\n", &Value::Null));
    }
}

#[test]
fn user_profile_is_recorded_and_rejected_by_default_policy() {
    let place = Place::new(As::User);
    place.write("docker.json", sample().to_string().as_bytes());
    let flags = ["--seccomp", "docker.json", "--quiet"];
    evaluate(&place, &flags).expect(0);
    let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
    let context = &manifest["context"];
    let custom = &context["custom_seccomp_profile"];
    assert_eq!(context["loosened"], json!(["custom_seccomp_profile"]));
    assert_eq!(context["allowances"]["granted_by"]["custom_seccomp_profile"], "--seccomp");
    assert_eq!((&custom["path"], &custom["format"]), (&json!("docker.json"), &json!("docker")));
    assert_eq!(context["plan"]["content"]["custom_seccomp_profile"], *custom);
    for side in ["baseline", "subject"] {
        assert_eq!(context["sides"][side]["filter_digest"], custom["program_digest"], "{side}");
    }
    let plan = evaluate(&place, &[&flags[..], &["--dry-run"]].concat()).expect(0).json();
    assert_eq!(plan["custom_seccomp_profile"], *custom);
    assert_eq!(plan["sides"]["subject"]["seccomp"]["digest"], custom["program_digest"]);
    let verdict = place.run(&["verify", "reports/eval"]).expect(1);
    assert!(verdict.out.contains("a control was disabled by --seccomp"), "{}", verdict.out);
    place.run(&["report", "html", "-i", "reports/eval", "-o", "page.html"]).expect(0);
    let page = std::fs::read_to_string(place.work("page.html")).unwrap();
    assert!(page.contains("under a seccomp profile that the user supplied"));
    // A manifest that hides the user profile contradicts itself.
    let path = place.work("reports/eval/runtime.manifest.json");
    let mut hidden = manifest.clone();
    hidden["context"]["loosened"] = json!([]);
    hidden["context"]["allowances"]["granted_by"] = json!({});
    std::fs::write(&path, hidden.to_string()).unwrap();
    let verdict = place.run(&["verify", "reports/eval"]);
    assert!(verdict.code != 0 && verdict.out.contains("context.loosened is []"), "{}", verdict.out);
}

#[test]
fn podman_default_profile_works() {
    if !std::path::Path::new(PODMAN).is_file() {
        return skip("podman_default_profile_works", &format!("{PODMAN} not found"));
    }
    for user in both() {
        let place = Place::new(user);
        evaluate(&place, &["--seccomp", PODMAN, "--quiet"]).expect(0);
        let manifest = read_json(&place.work("reports/eval/runtime.manifest.json"));
        assert_eq!(manifest["context"]["sides"]["subject"]["refused"], json!({}));
    }
}

#[test]
fn unusable_profile_gives_one_error() {
    let place = place_with_workload(As::User);
    let write_changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut profile = sample();
        change(&mut profile);
        place.write(name, profile.to_string().as_bytes());
        name.to_owned()
    };
    let no_execve = write_changed("no-execve.json", &|profile| {
        let names = profile["syscalls"][0]["names"].as_array_mut().unwrap();
        names.retain(|name| name != "execve");
    });
    let log = write_changed("log.json", &|profile| profile["defaultAction"] = json!("SCMP_ACT_LOG"));
    let like = write_changed("like.json", &|profile| {
        profile["syscalls"][1]["args"][0]["op"] = json!("SCMP_CMP_LIKE")
    });
    place.write("large.json", &vec![b' '; (1 << 20) + 1]);
    std::os::unix::fs::symlink("/dev/zero", place.work("endless.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.work("fifo.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    for (file, needles) in [
        (no_execve.as_str(), ["--seccomp no-execve.json", "execve", "allow read, write"]),
        (&log, ["--seccomp log.json", "defaultAction", "SCMP_ACT_ALLOW or SCMP_ACT_ERRNO"]),
        (&like, ["--seccomp like.json", "syscalls[1] (clone)", "SCMP_CMP_LIKE"]),
        ("large.json", ["--seccomp large.json", "larger than", "1048576"]),
        ("endless.json", ["--seccomp endless.json", "not a regular file", "safety_violation"]),
        ("fifo.json", ["--seccomp fifo.json", "not a regular file", "safety_violation"]),
        ("missing.json", ["--seccomp missing.json", "No such file", "input"]),
        (".", ["--seccomp .", "not a regular file", "safety_violation"]),
    ] {
        run(&place, &["--seccomp", file], &["noop"]).expect(125).one_error(&needles);
    }
    evaluate(&place, &["--seccomp", "like.json"]).expect(2).one_error(&["SCMP_CMP_LIKE"]);
    let host = ["--execution-mode", "host", "--seccomp", "docker.json"];
    evaluate(&place, &host).expect(2).one_error(&["host execution has no container"]);
}
