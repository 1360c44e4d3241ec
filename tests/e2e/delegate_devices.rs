//! `evaluate --device` with an image of another program: the program has the devices of the specification, and the evidence says so. The harmless
//! devices of every machine stand for accelerators, and a stand-in for InvarLock's Python package.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::delegated::plan_digest;
use invarlock_evidence::format::delegated::DelegatedPlan;
use invarlock_tests::accelerator::{DEVICE, NODES, specification, write_specification};
use invarlock_tests::stand::Stand;
use invarlock_tests::{As, Ran, both, read_json};
use serde_json::{Value, json};

const CONTENT: &str = "/context/delegated/plan/content";
const MANIFEST: &str = "eval/runtime.manifest.json";

fn stand(user: As) -> Stand {
    let stand = Stand::new(user);
    write_specification(&stand.place);
    stand
}

fn evaluate(stand: &Stand, options: &[&str]) -> Ran {
    stand.evaluate(&[&["--cdi-spec-dir", "cdi", "--device", DEVICE][..], options].concat())
}

fn verify(stand: &Stand, options: &[&str]) -> Ran {
    stand.place.run(&[&["verify", "--accept-foreign"][..], options, &["eval"]].concat())
}

#[test]
fn the_program_of_an_image_has_the_devices_of_the_specification() {
    for user in both() {
        let stand = stand(user);
        let output = evaluate(&stand, &["--json"]).expect(0).json();
        assert_eq!(output["delegated"]["isolated"], true);
        assert_eq!(output["delegated"]["devices"], json!([DEVICE]));
        check_seen(&read_json(&stand.left(&output).join("report/seen.json")));
        check_record(&read_json(&stand.evidence("runtime.manifest.json")));
        let refused = verify(&stand, &[]).expect(1);
        assert!(refused.out.contains("context.loosened names device"), "{refused:?}");
        assert!(refused.out.contains("`verify --allow device`"), "{refused:?}");
        verify(&stand, &["--allow", "custom_seccomp_profile"]).expect(1);
        let accepted = verify(&stand, &["--allow", "device"]).expect(0);
        assert!(accepted.out.contains(&format!("ran isolated with {DEVICE} of the host")), "{accepted:?}");
        let profile =
            json!({"format_version": "invarlock-trust-v1", "accept_foreign": true, "allow": ["device"]});
        stand.place.write("trust.json", profile.to_string().as_bytes());
        stand.place.run(&["verify", "--trust", "trust.json", "eval"]).expect(0);
        stand.place.run(&["report", "html", "eval", "-o", "page.html"]).expect(0);
        let page = std::fs::read_to_string(stand.place.work("page.html")).unwrap();
        for words in ["Controls were disabled", "Devices of the host: the program could use", "accelerator=0"]
        {
            assert!(page.contains(words), "{words}");
        }
    }
}

/// The program could use the devices and read the file, and was told of them in its own words.
fn check_seen(seen: &Value) {
    let arguments = seen["arguments"].as_array().unwrap();
    assert!(arguments.windows(2).any(|pair| pair == [json!("--device"), json!("cuda")]), "{arguments:?}");
    assert_eq!(
        seen["devices"],
        json!({"/dev/accelerator0": null, "/dev/accelerators/control": libc::ENOSPC})
    );
    assert_eq!(seen["driver"], json!({"text": "of the driver", "writable": false}));
    let variables = &seen["environment"];
    assert_eq!((&variables["ACCELERATOR"], &variables["LD_LIBRARY_PATH"]), (&json!("0"), &json!("/usr/lib")));
}

fn check_record(manifest: &Value) {
    let context = &manifest["context"];
    assert_eq!(context["loosened"], json!(["device"]));
    assert_eq!(context["allowances"]["granted_by"], json!({"device": "--device"}));
    let plan = manifest.pointer(CONTENT).unwrap();
    assert_eq!(plan["request"]["device"], DEVICE);
    let devices = &plan["devices"];
    assert_eq!(devices["devices"][0]["name"], DEVICE);
    assert_eq!(devices["devices"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(devices["nodes"][0], json!({"path": NODES[0], "source": "/dev/null", "numbers": "1:3"}));
    assert_eq!(devices["environment"], json!(["ACCELERATOR=0"]));
    assert_eq!(devices["left_out"], json!(["/run/accelerator/socket"]));
    assert_eq!(devices["driver"], Value::Null);
    let container = &plan["container"];
    assert_eq!(container["seccomp"]["profile"], "general-devices");
    let mounts = container["mounts"].as_array().unwrap();
    for (target, kind) in
        [(NODES[0], "device"), (NODES[1], "device"), ("/usr/lib/libaccelerator.so.1", "bind")]
    {
        let mount = mounts.iter().find(|mount| mount["target"] == target).unwrap();
        assert_eq!((&mount["kind"], &mount["options"][0]), (&json!(kind), &json!("ro")), "{mount}");
    }
    assert_eq!(
        context["delegated"]["run"]["observations"]["devices"]["value"]["accelerators/control"],
        "1:7"
    );
}

/// The evidence of a run without a device has nothing of them.
#[test]
fn without_a_device_nothing_is_recorded() {
    let stand = stand(As::User);
    stand.evaluate(&["--device", "cpu", "--quiet"]).expect(0);
    let manifest = read_json(&stand.evidence("runtime.manifest.json"));
    let plan = manifest.pointer(CONTENT).unwrap();
    assert!(plan.get("devices").is_none() && plan["allowances"].get("device").is_none(), "{plan}");
    assert_eq!(manifest["context"]["loosened"], json!([]));
    verify(&stand, &[]).expect(0);
}

#[test]
fn edited_records_of_devices_are_refused() {
    let stand = stand(As::User);
    evaluate(&stand, &["--quiet"]).expect(0);
    let honest = read_json(&stand.evidence("runtime.manifest.json"));
    let refused = |edited: &Value, what: &str| {
        stand.place.write(MANIFEST, edited.to_string().as_bytes());
        let refused = verify(&stand, &["--allow", "device"]);
        assert_eq!(refused.code, 3, "{what}: {refused:?}");
    };
    // The digest of the plan holds every value of it.
    for pointer in ["devices/devices/0/sha256", "devices/devices/0/specification", "devices/driver"] {
        let mut edited = honest.clone();
        *edited.pointer_mut(&format!("{CONTENT}/{pointer}")).unwrap() = json!("0".repeat(64));
        refused(&edited, pointer);
    }
    // With the digest computed again, it is still not what was observed.
    let edit = |what: &str, edit: &dyn Fn(&mut Value)| {
        let mut edited = honest.clone();
        edit(&mut edited);
        let plan = edited.pointer_mut("/context/delegated/plan").unwrap();
        let content: DelegatedPlan = serde_json::from_value(plan["content"].clone()).unwrap();
        plan["digest"] = json!(plan_digest(&content));
        refused(&edited, what);
    };
    let content = |value: &mut Value| value.pointer_mut(CONTENT).unwrap().as_object_mut().unwrap().clone();
    let set = |value: &mut Value, pointer: &str, new: Value| {
        *value.pointer_mut(&format!("{CONTENT}/{pointer}")).unwrap() = new;
    };
    edit("no record", &|value| {
        let mut plan = content(value);
        plan.remove("devices");
        *value.pointer_mut(CONTENT).unwrap() = Value::Object(plan);
    });
    edit("hidden", &|value| {
        let mut plan = content(value);
        plan.remove("devices");
        plan["request"]["device"] = json!("auto");
        plan["allowances"] = json!({"network": false, "host_execution": false, "custom_seccomp_profile": false, "granted_by": {}});
        value["context"]["allowances"] = plan["allowances"].clone();
        value["context"]["loosened"] = json!([]);
        *value.pointer_mut(CONTENT).unwrap() = Value::Object(plan);
    });
    edit("other node", &|value| set(value, "devices/nodes/0/numbers", json!("1:5")));
    edit("other source", &|value| set(value, "devices/nodes/0/source", json!("/dev/zero")));
    edit("fewer nodes", &|value| {
        set(value, "devices/nodes", json!([{"path": NODES[0], "source": "/dev/null", "numbers": "1:3"}]));
    });
    edit("fewer files", &|value| set(value, "devices/files", json!([])));
    edit("other name", &|value| set(value, "devices/devices/0/name", json!("invarlock.test/accelerator=1")));
    edit("other request", &|value| set(value, "request/device", json!("cuda")));
    edit("other profile", &|value| set(value, "container/seccomp/profile", json!("general")));
    edit("other variable", &|value| set(value, "devices/environment", json!(["ACCELERATOR=1"])));
    edit("one more mount", &|value| {
        let mounts =
            value.pointer_mut(&format!("{CONTENT}/container/mounts")).unwrap().as_array_mut().unwrap();
        let mut mount = mounts.last().unwrap().clone();
        mount["target"] = json!("/usr/lib/other");
        mounts.push(mount);
    });
    stand.place.write(MANIFEST, honest.to_string().as_bytes());
    verify(&stand, &["--allow", "device"]).expect(0);
}

#[test]
fn wrong_devices_are_refused_before_anything_is_hashed() {
    let stand = stand(As::User);
    let refused = |options: &[&str], needles: &[&str]| {
        stand.evaluate(options).expect(2).one_error(&[&["error[input]", "help:"], needles].concat());
    };
    for word in ["mps", "gpu", "cuda:x", "CPU"] {
        let named = format!("--device {word}");
        refused(&["--device", word], &[&named, "not supported", "use auto, cpu, cuda"]);
    }
    refused(&["--device", "cuda:1"], &["--device cuda:1", "--device nvidia.com/gpu=1"]);
    refused(&["--device", "auto", "--cdi-spec-dir", "cdi"], &["--cdi-spec-dir", "needs no specification"]);
    refused(&["--cdi-spec-dir", "cdi", "--device", "a.b/c=d"], &["a.b/c=d is in no specification", DEVICE]);
    refused(&["--cdi-spec-dir", "cdi", "--device", "cuda"], &["nvidia.com/gpu=all is in no specification"]);
    let path = stand.evaluate(&["--device", "/dev/null"]).expect(2);
    path.one_error(&["--device /dev/null", "VENDOR/CLASS=NAME"]);
    let edited = |member: &str, value: Value, needles: &[&str]| {
        let mut specification = specification(&stand.place);
        specification["devices"][0]["containerEdits"][member] = value;
        stand.place.write("cdi/accelerator.json", specification.to_string().as_bytes());
        evaluate(&stand, &[]).expect(2).one_error(needles);
    };
    edited("deviceNodes", json!([{"path": "/dev/x", "hostPath": "/dev/kmsg"}]), &["/dev/kmsg", "memory"]);
    edited(
        "mounts",
        json!([{"hostPath": "/no/such", "containerPath": "/x"}]),
        &["/no/such", "older than the driver"],
    );
    // The check of the image has the devices, so a place that the image does not have is found early, too.
    edited("mounts", json!([{"hostPath": "/etc/hostname", "containerPath": "/python/x"}]), &["/python/x"]);
    stand.no_evidence();
}

/// `cuda` means the GPUs that the caller was given.
#[test]
fn cuda_means_the_given_gpus() {
    let stand = stand(As::User);
    let gpu = |name: &str, path: &str| json!({"name": name, "containerEdits": {"deviceNodes": [{"path": path, "hostPath": "/dev/null"}]}});
    let devices = [gpu("0", "/dev/gpu0"), gpu("1", "/dev/gpu1"), gpu("all", "/dev/gpu-all")];
    let specification = json!({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": devices});
    stand.place.write("cdi/gpu.json", specification.to_string().as_bytes());
    let evaluate = |device: &str, variables: &[(&str, &str)]| {
        let mut command = stand.command(&["--cdi-spec-dir", "cdi", "--device", device, "--dry-run"]);
        command.env_remove("SLURM_STEP_GPUS").env_remove("CUDA_VISIBLE_DEVICES");
        Ran::from(command.envs(variables.iter().copied()).output().unwrap())
    };
    let nodes = |ran: Ran| -> Vec<String> {
        let nodes = ran.expect(0).json()["devices"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(nodes(evaluate("cuda", &[])), ["/dev/gpu-all"]);
    assert_eq!(nodes(evaluate("cuda", &[("CUDA_VISIBLE_DEVICES", "1")])), ["/dev/gpu1"]);
    assert_eq!(
        nodes(evaluate("cuda", &[("SLURM_STEP_GPUS", "0,1"), ("CUDA_VISIBLE_DEVICES", "0")])).len(),
        2
    );
    assert_eq!(nodes(evaluate("nvidia.com/gpu=0", &[])), ["/dev/gpu0"]);
    evaluate("nvidia.com/gpu=0", &[("CUDA_VISIBLE_DEVICES", "1")])
        .expect(2)
        .one_error(&["CUDA_VISIBLE_DEVICES"]);
    let mut command = stand.command(&["--cdi-spec-dir", "cdi", "--device", "cuda", "--quiet"]);
    let ran =
        Ran::from(command.env("CUDA_VISIBLE_DEVICES", "0,1").env_remove("SLURM_STEP_GPUS").output().unwrap());
    ran.expect(0);
    verify(&stand, &["--allow", "device"]).expect(0);
}

/// The evaluator measures on the processor. The error names the way to an image that does not.
#[test]
fn the_evaluator_has_no_device() {
    let stand = stand(As::User);
    for device in ["cuda", "cuda:1", "nvidia.com/gpu=0", DEVICE] {
        let models = ["evaluate", "--baseline", "base", "--subject", "subject", "--dataset", "valid.jsonl"];
        let ran = stand.place.run(&[&models[..], &["--device", device]].concat()).expect(3);
        ran.one_error(&[
            "error[unsupported]",
            device,
            "supports only the CPU",
            "--image IMAGE",
            "docs/delegate.md",
        ]);
    }
    let models = ["evaluate", "--baseline", "base", "--subject", "subject", "--dataset", "valid.jsonl"];
    let ran = stand.place.run(&[&models[..], &["--cdi-spec-dir", "cdi"]].concat()).expect(2);
    ran.one_error(&["--cdi-spec-dir", "Python package"]);
}
