//! `invarlock export kubernetes`: what it prints is valid and starts what it says.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, read_json, skip, small, target};
use serde_json::{Value, json};
use std::process::Command;

const IMAGE: &str =
    "registry.example/invarlock@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn place() -> Place {
    let place = small::place();
    let plan =
        json!({"baseline": "base", "subjects": ["subject"], "presets": ["preset.yaml"], "seeds": [1, 2, 3]});
    place.write("plan.yaml", plan.to_string().as_bytes());
    place
}

/// The documents: the network policy and the Job.
fn exported(place: &Place, more: &[&str]) -> (String, Vec<Value>) {
    let args = ["export", "kubernetes", "plan.yaml", "--out", "sw", "--image", IMAGE, "--claim", "models"];
    let text = place.run(&[&args[..], more].concat()).expect(0).out;
    let documents = text.split("\n---\n").map(|document| serde_norway::from_str(document).unwrap()).collect();
    (text, documents)
}

#[test]
fn pods_have_no_privileges_and_no_network() {
    let (_, documents) = exported(&place(), &["--tasks", "2", "--", "--profile", "dev"]);
    let [policy, job] = documents.as_slice() else { panic!("{documents:#?}") };
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], job["spec"]["template"]["metadata"]["labels"]);
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(2), &json!(0)));
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], IMAGE);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let writable: Vec<&Value> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .collect();
    assert_eq!(writable.len(), 2, "the directory of the sweep and /tmp: {writable:?}");
}

/// The arguments of a pod, run here: its evidence names Kubernetes, and is refused by default.
#[test]
fn evidence_of_a_pod_says_so_and_is_refused() {
    let place = place();
    let (_, documents) = exported(&place, &["--", "--profile", "dev"]);
    let args = documents[1]["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
    let args: Vec<String> =
        args.iter().map(|arg| arg.as_str().unwrap().replace("$(JOB_COMPLETION_INDEX)", "1")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = place.command(&args).env("INVARLOCK_BOUNDARY", "kubernetes").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let runs = place.names("work/sw/runs");
    assert_eq!(runs.len(), 1, "one of three runs");
    let evidence = place.work("sw/runs").join(&runs[0]);
    let manifest = read_json(&evidence.join("runtime.manifest.json"));
    assert_eq!(
        (&manifest["execution_mode"], &manifest["context"]["boundary"]),
        (&json!("host-bypass"), &json!("kubernetes"))
    );
    let evidence = evidence.to_str().unwrap();
    place.run(&["verify", "--profile", "dev", evidence]).expect(1);
    place.run(&["verify", "--profile", "dev", "--runtime-provenance", "host", evidence]).expect(0);

    let ran = place.command(&args).env("INVARLOCK_BOUNDARY", "mainframe").output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn kubernetes_validate_accepts_the_manifest() {
    let place = place();
    let validate = target().join("upstream/kubernetes/bin/kubernetes-validate");
    if !validate.exists() {
        return skip("kubernetes_validate_accepts_the_manifest", "kubernetes-validate is not installed");
    }
    let (text, _) = exported(&place, &["--name", "int8-sweep", "--memory", "512Mi", "--jobs", "2"]);
    let file = place.write("job.yaml", text.as_bytes());
    let output = Command::new(validate).arg("--strict").arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn faults_are_named() {
    let place = place();
    let refused = |args: &[&str], needles: &[&str]| {
        let all = [&["export", "kubernetes", "plan.yaml", "--claim", "models"][..], args].concat();
        place.run(&all).expect(2).one_error(needles);
    };
    refused(&["--out", "../sw", "--image", IMAGE], &["not a plain path below the volume"]);
    refused(&["--out", "/sw", "--image", IMAGE], &["not a plain path below the volume"]);
    refused(&["--out", "sw", "--image", IMAGE, "--", "--bogus"], &["options of evaluate", "--bogus"]);
    let wrong = |args: &[&str], needle: &str| {
        let args =
            [&["export", "kubernetes", "plan.yaml", "--out", "sw", "--claim", "models"][..], args].concat();
        let ran = place.run(&args).expect(2);
        assert!(ran.err.contains(needle), "{}", ran.err);
    };
    wrong(&["--image", "invarlock:1"], "not an image by digest");
    wrong(&["--image", IMAGE, "--name", "A_b"], "lower-case letters");
    wrong(&["--image", IMAGE, "--memory", "4GB"], "not a size");
}
