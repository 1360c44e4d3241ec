//! Evidence of another program that this one ran in a container. The files in `data/delegated` are of InvarLock's Python package 0.12.1.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::delegated::{DelegatedFacts, Version, plan_digest};
use invarlock_evidence::format::delegated::DelegatedPlan;
use invarlock_evidence::html::render;
use invarlock_evidence::manifest::to_bytes;
use invarlock_evidence::policy::Profile;
use invarlock_evidence::verify::{Assurance, Reason, Verdict, VerifyOptions, runtime_verify, verify_report};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REPORT: &str = "evaluation.report.json";
const MANIFEST: &str = "runtime.manifest.json";

fn honest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/delegated")
}

fn manifest() -> Value {
    serde_json::from_slice(&std::fs::read(honest().join(MANIFEST)).unwrap()).unwrap()
}

fn verify(directory: &Path, accept_foreign: bool, profile: Profile) -> Verdict {
    verify_report(directory, &VerifyOptions { accept_foreign, profile, ..VerifyOptions::default() })
}

/// The verdict about the report with another manifest.
fn with(directory: &Path, manifest: &Value) -> Verdict {
    std::fs::copy(honest().join(REPORT), directory.join(REPORT)).unwrap();
    std::fs::write(directory.join(MANIFEST), to_bytes(manifest)).unwrap();
    verify(directory, true, Profile::Dev)
}

#[test]
fn the_report_is_foreign_and_its_run_is_judged() {
    let verdict = verify(&honest(), true, Profile::Dev);
    assert_eq!(verdict.errors, [] as [&str; 0]);
    // It has 256 tokens, of which the package requires 50,000 in every profile.
    assert_eq!(verdict.gate_failures.len(), 1, "{:?}", verdict.gate_failures);
    assert!(verdict.gate_failures[0].contains("too few tokens"), "{:?}", verdict.gate_failures);
    let run = verdict.delegated.unwrap();
    assert!(run.isolated && run.controls >= 27 && run.version == "0.12.1", "{run:?}");
    let refused = verify(&honest(), false, Profile::Dev);
    assert!(refused.errors[0].contains("accept it with --accept-foreign"), "{:?}", refused.errors);
    assert!(runtime_verify(&honest().join(REPORT), &honest().join(MANIFEST), None).ok());
    let parity = VerifyOptions { upstream_parity: true, profile: Profile::Dev, ..VerifyOptions::default() };
    let verdict = verify_report(&honest(), &parity);
    assert!(verdict.ok() && verdict.delegated.is_none(), "{verdict:?}");
}

#[test]
fn the_page_shows_the_run() {
    let report: Value = serde_json::from_slice(&std::fs::read(honest().join(REPORT)).unwrap()).unwrap();
    let page = render(&report, Some(&manifest())).unwrap();
    for words in ["privileges cannot be gained", "Program of the image", "evaluation.report.json"] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn an_open_boundary_is_a_fault_of_integrity() {
    let directory = tempfile::tempdir().unwrap();
    let mut edited = manifest();
    edited["context"]["delegated"]["run"]["observations"].as_object_mut().unwrap().remove("landlock");
    with(directory.path(), &edited);
    let verdict = verify(directory.path(), true, Profile::Ci);
    assert_eq!((verdict.reason, verdict.assurance), (Reason::Integrity, Assurance::Failed));
    assert!(!verdict.delegated.as_ref().unwrap().isolated);
    assert!(verdict.errors.iter().any(|error| error.contains("landlock is missing")), "{:?}", verdict.errors);
}

/// Values that nothing else in the manifest determines: numbers of the kernel, what the run used, what it left besides the report, the machine,
/// and parts of a plan that a run rounds or chooses from. `*` stands for places in lists.
const FREE: &[&str] = &[
    "/context/delegated/plan/content/container/identity/host_ids/*",
    "/context/delegated/plan/content/container/limits/memory_bytes",
    "/context/delegated/plan/content/container/limits/wall/nanos",
    "/context/delegated/run/directory",
    "/context/delegated/run/observations/cgroup/value/*",
    "/context/delegated/run/observations/inputs/value/*/bytes",
    "/context/delegated/run/observations/mounts/value/*/kind",
    "/context/delegated/run/observations/mounts/value/*/options",
    "/context/delegated/run/observations/namespaces/value/cgroup/container",
    "/context/delegated/run/observations/namespaces/value/cgroup/launcher",
    "/context/delegated/run/observations/namespaces/value/ipc/container",
    "/context/delegated/run/observations/namespaces/value/ipc/launcher",
    "/context/delegated/run/observations/namespaces/value/mnt/container",
    "/context/delegated/run/observations/namespaces/value/mnt/launcher",
    "/context/delegated/run/observations/namespaces/value/net/container",
    "/context/delegated/run/observations/namespaces/value/net/launcher",
    "/context/delegated/run/observations/namespaces/value/pid/container",
    "/context/delegated/run/observations/namespaces/value/pid/launcher",
    "/context/delegated/run/observations/namespaces/value/user/container",
    "/context/delegated/run/observations/namespaces/value/user/launcher",
    "/context/delegated/run/observations/namespaces/value/uts/container",
    "/context/delegated/run/observations/namespaces/value/uts/launcher",
    "/context/delegated/run/observations/process/value/oom_score_adj",
    "/context/delegated/run/outputs/*/bytes",
    "/context/delegated/run/refused/mbind",
    "/context/delegated/run/refused/shmget",
    "/context/delegated/run/refused/socket(AF_INET6)",
    "/context/delegated/run/usage/cpu_system_ms",
    "/context/delegated/run/usage/cpu_user_ms",
    "/context/delegated/run/usage/forks_refused",
    "/context/delegated/run/usage/log_bytes_dropped",
    "/context/delegated/run/usage/peak_memory_by",
    "/context/delegated/run/usage/peak_memory_bytes",
    "/context/delegated/run/usage/stderr_bytes",
    "/context/delegated/run/usage/stdout_bytes",
    "/context/delegated/run/usage/wall_ms",
    "/context/launcher/version",
    "/context/machine/arch",
    "/context/machine/cpus",
    "/context/machine/kernel",
];

#[test]
fn no_other_value_can_be_edited() {
    let directory = tempfile::tempdir().unwrap();
    let honest = manifest();
    let mut leaves = Vec::new();
    leaves_of(&honest, String::new(), &mut leaves);
    assert!(leaves.len() > 500, "{}", leaves.len());
    let mut accepted = BTreeSet::new();
    for pointer in leaves {
        let mut edited = honest.clone();
        let leaf = edited.pointer_mut(&pointer).unwrap();
        *leaf = altered(leaf);
        if !pointer.ends_with("/plan/digest") {
            seal(&mut edited);
        }
        if with(directory.path(), &edited).errors.is_empty() {
            let parts = pointer.split('/').map(|part| if part.parse::<u64>().is_ok() { "*" } else { part });
            accepted.insert(parts.collect::<Vec<_>>().join("/"));
        }
    }
    let expected: BTreeSet<String> = FREE.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(accepted, expected);
}

/// The manifest of the same run with a GPU.
fn with_device() -> Value {
    let mut manifest = manifest();
    let gpu = json!({"name": "nvidia.com/gpu=0", "specification": "/etc/cdi/nvidia.yaml", "sha256": "0".repeat(64)});
    let nodes = [("/dev/nvidia0", "195:0"), ("/dev/dri/card0", "226:0")];
    let file = "/usr/lib/libcuda.so.1";
    let context = &mut manifest["context"];
    context["loosened"] = json!(["device"]);
    context["allowances"]["device"] = json!(true);
    context["allowances"]["granted_by"] = json!({"device": "--device"});
    let allowances = context["allowances"].clone();
    let plan = &mut context["delegated"]["plan"]["content"];
    plan["allowances"] = allowances;
    plan["request"]["device"] = json!("cuda");
    let node = |(path, numbers)| json!({"path": path, "source": path, "numbers": numbers});
    plan["devices"] = json!({
        "devices": [gpu], "nodes": nodes.map(node), "files": [file], "environment": ["NVIDIA_VISIBLE_DEVICES=void"],
        "libraries": ["/usr/lib"], "left_out": ["/run/nvidia/socket"], "driver": "580.65.06",
    });
    let container = &mut plan["container"];
    container["seccomp"]["profile"] = json!("general-devices");
    let push = |list: &mut Value, new: Value| list.as_array_mut().unwrap().push(new);
    let device = container["argv"].as_array().unwrap().iter().position(|word| word == "--device").unwrap();
    container["argv"][device + 1] = json!("cuda");
    for variable in ["NVIDIA_VISIBLE_DEVICES=void", "LD_LIBRARY_PATH=/opt/lib:/usr/lib"] {
        push(&mut container["environment"], json!(variable));
    }
    for (path, _) in nodes {
        let options = ["ro", "nosuid", "noexec"];
        let mount = json!({"target": path, "kind": "device", "options": options, "source": path});
        push(&mut container["mounts"], mount);
    }
    let options = ["ro", "nosuid", "nodev"];
    push(
        &mut container["mounts"],
        json!({"target": file, "kind": "bind", "options": options, "source": "/usr/lib/libcuda.so.580"}),
    );
    let observed = &mut context["delegated"]["run"]["observations"];
    for name in ["NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"] {
        push(&mut observed["environment"]["value"], json!(name));
    }
    for (target, options) in
        [(nodes[0].0, "ro,nosuid,noexec"), (nodes[1].0, "ro,nosuid,noexec"), (file, "ro,nosuid,nodev")]
    {
        let mount = json!({"target": target, "kind": "x", "options": options, "propagation": "private"});
        push(&mut observed["mounts"]["value"], mount);
    }
    for (name, value) in [("nvidia0", "195:0"), ("dri/card0", "226:0"), ("dri", "Directory")] {
        observed["devices"]["value"][name] = json!(value);
    }
    seal(&mut manifest);
    manifest
}

fn errors_with_device(directory: &Path, manifest: &Value, granted: &[&str]) -> Vec<String> {
    std::fs::copy(honest().join(REPORT), directory.join(REPORT)).unwrap();
    std::fs::write(directory.join(MANIFEST), to_bytes(manifest)).unwrap();
    let granted = granted.iter().map(|name| (*name).to_owned()).collect();
    let options =
        VerifyOptions { accept_foreign: true, granted, profile: Profile::Dev, ..VerifyOptions::default() };
    verify_report(directory, &options).errors
}

#[test]
fn a_device_is_accepted_by_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let honest = with_device();
    assert_eq!(errors_with_device(directory.path(), &honest, &["device"]), [] as [&str; 0]);
    for granted in [&[][..], &["allow_network", "custom_seccomp_profile"]] {
        let errors = errors_with_device(directory.path(), &honest, granted);
        assert!(errors.len() == 1 && errors[0].contains("context.loosened names device"), "{errors:?}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(self::honest().join(REPORT)).unwrap()).unwrap();
    let page = render(&report, Some(&honest)).unwrap();
    for words in ["the program could use", "gpu=0", "specified in", "and the planned ones of the host"] {
        assert!(page.contains(words), "{words}");
    }
}

/// What describes the devices is recorded, and nothing else confirms it.
#[test]
fn no_other_value_of_a_device_can_be_edited() {
    let directory = tempfile::tempdir().unwrap();
    let honest = with_device();
    let mut leaves = Vec::new();
    leaves_of(&honest, String::new(), &mut leaves);
    let content = "/context/delegated/plan/content/";
    let mut accepted = Vec::new();
    for pointer in leaves.iter().filter(|pointer| {
        pointer.contains("/devices/") || pointer.contains("/allowances/") || pointer.ends_with("/device")
    }) {
        let mut edited = honest.clone();
        let leaf = edited.pointer_mut(pointer).unwrap();
        *leaf = altered(leaf);
        seal(&mut edited);
        if errors_with_device(directory.path(), &edited, &["device"]).is_empty() {
            accepted.push(pointer.trim_start_matches(content));
        }
    }
    assert_eq!(accepted, ["devices/devices/0/specification", "devices/left_out/0", "devices/driver"]);
}

#[test]
fn a_record_has_the_devices_that_were_asked_for_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let content = "/context/delegated/plan/content";
    let errors = |edit: &dyn Fn(&mut Value)| {
        let mut edited = with_device();
        edit(&mut edited);
        seal(&mut edited);
        errors_with_device(directory.path(), &edited, &["device"])
    };
    let set = |pointer: &str, value: Value| {
        let pointer = format!("{content}/{pointer}");
        errors(&|edited| *edited.pointer_mut(&pointer).unwrap() = value.clone())
    };
    // `nvidia.com/gpu=0`, and the GPUs of a job, can be one and the same device.
    for device in ["nvidia.com/gpu=0", "nvidia.com/gpu=all"] {
        assert_eq!(set("request/device", json!(device)), [] as [&str; 0]);
    }
    for device in ["nvidia.com/gpu=1", "amd.com/gpu=0", "amd.com/gpu=all", "auto", "cpu", "cuda:0", "mps", ""]
    {
        assert!(!set("request/device", json!(device)).is_empty(), "{device}");
    }
    for (pointer, value) in [
        ("devices/devices", json!([])),
        ("devices/devices/0/name", json!("amd.com/gpu=0")),
        ("devices/files/0", json!("/in/dataset")),
        ("devices/files/0", json!("/usr/../proc/x")),
        ("devices/environment", json!(["LD_LIBRARY_PATH=/x"])),
        ("devices/libraries", json!(["/usr/lib64"])),
        ("container/mounts", json!([])),
        ("allowances/device", json!(false)),
    ] {
        assert!(!set(pointer, value).is_empty(), "{pointer}");
    }
    // Memory and terminals are no devices of a container, also where every value agrees.
    for numbers in ["1:1", "5:0", "136:0"] {
        let found = errors(&|edited| {
            *edited.pointer_mut(&format!("{content}/devices/nodes/0/numbers")).unwrap() = json!(numbers);
            edited["context"]["delegated"]["run"]["observations"]["devices"]["value"]["nvidia0"] =
                json!(numbers);
        });
        assert!(
            found.iter().any(|error| error.contains(".nodes has an entry that no container has")),
            "{found:?}"
        );
    }
    // The evaluator of this program gets none.
    let hidden = errors(&|edited| edited["context"]["loosened"] = json!([]));
    assert!(!hidden.is_empty());
}

/// Computes the digest of the plan again.
fn seal(manifest: &mut Value) {
    let plan = &mut manifest["context"]["delegated"]["plan"];
    if let Ok(content) = serde_json::from_value::<DelegatedPlan>(plan["content"].clone()) {
        plan["digest"] = json!(plan_digest(&content));
    }
}

fn leaves_of(value: &Value, pointer: String, leaves: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves_of(member, format!("{pointer}/{name}"), leaves);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| leaves_of(item, format!("{pointer}/{i}"), leaves));
        }
        _ => leaves.push(pointer),
    }
}

fn altered(leaf: &Value) -> Value {
    match leaf {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => match number.as_u64() {
            Some(number) => json!(number + 1),
            None => json!(number.as_f64().unwrap() + 1.0),
        },
        Value::String(text) => json!(text.chars().rev().chain("x".chars()).collect::<String>()),
        _ => json!("x"),
    }
}

#[test]
fn facts_give_the_manifest_that_they_were_read_from() {
    let recorded = manifest();
    let facts = DelegatedFacts::read(&serde_json::from_value(recorded.clone()).unwrap()).unwrap();
    let sha256 = recorded["report"]["sha256"].as_str().unwrap();
    let bytes = std::fs::read(honest().join(MANIFEST)).unwrap();
    assert_eq!(to_bytes(&facts.manifest(sha256)), bytes);
}

#[test]
fn versions_of_the_package_are_compared_by_their_numbers() {
    let version = |text: &str| Version::parse(text).unwrap();
    for text in ["0.8.0", "0.12.1", "0.10"] {
        assert!(version(text).is_supported(), "{text}");
    }
    for text in ["0.7.9", "0.13.0", "0.17.1", "1.0"] {
        assert!(!version(text).is_supported(), "{text}");
    }
    assert!(version("0.12.1").has_assurance() && !version("0.8.0").has_assurance());
    assert!(["", "1", "x.y", "0.x"].iter().all(|text| Version::parse(text).is_none()));
}
