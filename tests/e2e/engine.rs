//! `runtime engine`: the `podman` and `docker` that InvarLock's Python package calls. The calls in `fixtures/engine` were made by the package
//! itself (`fixtures/engine/upstream_calls.py`).
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, is_root, program, read_json, root, set_mode, skip, target};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "worker:1";
/// The six files of a side.
const SIDE: [&str; 6] = [
    "model-artifact.identity.json",
    "report.json",
    "run.yaml",
    "runtime-provider.receipt.json",
    "runtime-scoring.observation.json",
    "runtime.manifest.json",
];

/// An installed engine, and an image in the store.
struct Engine {
    place: Place,
    dir: PathBuf,
    records: PathBuf,
    /// `sha256:…`
    manifest: String,
    config: String,
}

impl Engine {
    fn new(user: As) -> Self {
        Engine::with(user, &[])
    }

    /// Installed with these options.
    fn with(user: As, options: &[&str]) -> Self {
        let place = Place::new(user);
        let fill = |rootfs: &Path| {
            fs::create_dir(rootfs.join("bin")).unwrap();
            fs::copy(program("invarlock-workload"), rootfs.join("bin/python")).unwrap();
            fs::write(rootfs.join("bin/text"), "no program").unwrap();
            set_mode(&rootfs.join("bin/text"), 0o644);
        };
        let config = json!({
            "Entrypoint": ["/bin/python", "-m", "invarlock"], "Cmd": ["--help"], "Env": ["PATH=/bin", "HOME=/tmp"],
        });
        let reference = Layout::of_tree(&place, "image", fill).image("test", &config);
        let imported = place.run(&["runtime", "image", "import", &reference, NAME, "--json"]);
        let manifest = imported.expect(0).json()["manifest_digest"].as_str().unwrap().to_owned();
        let inspected = place.run(&["runtime", "image", "inspect", NAME, "--json"]).expect(0).json();
        let config = inspected["config_digest"].as_str().unwrap().to_owned();
        let (dir, records) = (place.work("engine"), place.path("home").join("records"));
        let record = records.to_str().unwrap();
        let install = [&["runtime", "engine", "install", "engine", "--record", record], options].concat();
        let installed = place.run(&install).expect(0);
        assert_eq!(installed.out, "engine/podman\nengine/docker\n");
        Engine { place, dir, records, manifest, config }
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        self.place.command_of(&self.dir.join(name), args)
    }

    fn podman(&self, args: &[&str]) -> Ran {
        Ran::from(self.command("podman", args).output().unwrap())
    }

    /// Runs `python ARGV`.
    fn python(&self, options: &[&str], argv: &[&str]) -> Ran {
        self.podman(&[&["run", "--rm"], options, &["--entrypoint", "python", NAME], argv].concat())
    }

    /// The only record; it is removed.
    fn record(&self) -> Value {
        let mut found: Vec<_> =
            fs::read_dir(&self.records).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        let path = found.remove(0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let record = read_json(&path);
        fs::remove_file(path).unwrap();
        record
    }

    fn directory(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.place.work(name);
        fs::create_dir(&path).unwrap();
        self.place.give(&path);
        set_mode(&path, mode);
        path
    }

    /// Starts `python COMMAND`, and waits until its id is in the file.
    fn start(&self, options: &[&str], command: &str) -> (Child, String) {
        let cidfile = self.place.work("cid");
        _ = fs::remove_file(&cidfile);
        let args =
            [&["run", "--cidfile", "cid"], options, &["--entrypoint", "python", NAME, command]].concat();
        let child = self.command("podman", &args).stdout(Stdio::piped()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match fs::read_to_string(&cidfile) {
                Ok(id) if id.len() == 32 => return (child, id),
                _ => assert!(Instant::now() < end, "no id"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The calls of a version of the package.
fn calls(version: &str) -> Value {
    read_json(&root().join(format!("tests/fixtures/engine/calls-{version}.json")))
}

/// The Python of an installation of the package.
fn python_of(version: &str) -> Option<PathBuf> {
    let path = target().join("upstream").join(version).join("bin/python");
    path.is_file().then_some(path)
}

#[test]
fn installed_programs_call_this_one() {
    for user in both() {
        let engine = Engine::new(user);
        for name in ["podman", "docker"] {
            let version = Ran::from(engine.command(name, &["version"]).output().unwrap()).expect(0).json();
            assert!(version["Client"]["Name"].as_str().unwrap().contains(name), "{version}");
            let args = ["version", "--format", "{{.Client.Version}} {{.Server.Os}}"];
            let short = Ran::from(engine.command(name, &args).output().unwrap()).expect(0).out;
            assert_eq!(short, format!("{} linux\n", version["Client"]["Version"].as_str().unwrap()));
        }
        let info = engine.podman(&["info"]).expect(0).json();
        assert_eq!(info["store"]["imageStore"]["number"], 1);
        assert_eq!(info["store"]["graphRoot"], json!(engine.place.path("store")));
        // Again over its own files; not over others.
        let again = engine.place.run(&["runtime", "engine", "install", "engine"]).expect(0);
        assert!(again.err.contains("runs leave no record"), "{}", again.err);
        engine.podman(&[]).expect(125).one_error(&["no command", "supported commands: ", "run"]);
        fs::remove_file(engine.dir.join("docker")).unwrap();
        engine.place.write("engine/docker", b"#!/bin/sh\nexec /usr/bin/docker\n");
        let refused = engine.place.run(&["runtime", "engine", "install", "engine"]).expect(2);
        refused.one_error(&["error[input]", "engine/docker", "another program", "help:"]);
        // This program was moved.
        fs::rename(engine.place.path("bin/invarlock"), engine.place.path("bin/moved")).unwrap();
        let gone = engine.podman(&["version"]).expect(125);
        assert!(gone.err.contains("install the engine again"), "{gone:?}");
    }
}

#[test]
fn images_have_the_names_and_ids_of_the_engines() {
    let engine = Engine::new(As::User);
    let (manifest, config) = (&engine.manifest, &engine.config);
    let id = config.trim_start_matches("sha256:");
    let digests = json!([format!("worker@{manifest}"), format!("localhost/worker@{manifest}")]);
    let names = [
        NAME.to_owned(),
        format!("localhost/{NAME}"),
        format!("worker@{manifest}"),
        format!("localhost/worker@{manifest}"),
        config.clone(),
        id.to_owned(),
        manifest.clone(),
    ];
    for name in &names {
        let inspected = engine.podman(&["image", "inspect", name]).expect(0).json();
        assert_eq!(inspected.as_array().unwrap().len(), 1);
        let image = &inspected[0];
        assert_eq!((&image["Id"], &image["RepoDigests"]), (&json!(id), &digests), "{name}");
        assert_eq!((&image["RepoTags"], &image["Digest"]), (&json!([NAME]), &json!(manifest)), "{name}");
        assert_eq!(image["Config"]["Entrypoint"], json!(["/bin/python", "-m", "invarlock"]));
        let format = "{{json .RepoDigests}}\n{{.Id}}";
        let docker = engine.command("docker", &["image", "inspect", name, "--format", format]);
        let docker = Ran::from({ docker }.output().unwrap()).expect(0).out;
        assert_eq!(docker, format!("{digests}\n{config}\n"));
        engine.podman(&["image", "exists", name]).expect(0);
        engine.podman(&["run", "--entrypoint", "python", name, "noop"]).expect(0);
    }
    let other = format!("worker@sha256:{}", "5".repeat(64));
    for missing in ["worker", "worker:2", &other, &"7".repeat(64), "ghcr.io/a/worker:1"] {
        let inspected = engine.podman(&["image", "inspect", missing]).expect(125);
        assert_eq!(inspected.out, "[]\n", "{missing}");
        inspected.one_error(&[missing.split('@').next().unwrap()]);
        engine.podman(&["image", "exists", missing]).expect(1);
        engine.podman(&["run", missing, "x"]).expect(125).one_error(&["help:"]);
    }
    let bad = engine.podman(&["image", "inspect", NAME, "--format", "{{range .RepoTags}}"]).expect(125);
    bad.one_error(&["error[input]", "range", "help: supported"]);
    // Its evaluator has another contract.
    engine.place.run(&["runtime", "image", "build"]).expect(0);
    for command in [&["image", "inspect"][..], &["run"]] {
        let refused = engine.podman(&[command, &["invarlock-runtime:local"]].concat()).expect(125);
        refused.one_error(&["error[input]", "`measure`", "help:"]);
    }
}

/// The calls of the package as it made them.
#[test]
fn calls_of_upstream_are_answered() {
    for user in both() {
        // A user can be without a cgroup.
        let engine = Engine::with(user, if user == As::User { &["--weaker-limits"] } else { &[] });
        for version in ["0.12.1", "0.17.1"] {
            let fixture = calls(version);
            let (image, digest) = fixture["image"].as_str().unwrap().split_once('@').unwrap();
            for name in ["baseline", "subject", "job"] {
                engine.directory(&format!("{version}-{name}"), 0o755);
            }
            let work = engine.directory(version, 0o755);
            for name in ["baseline", "subject", "job"] {
                fs::rename(engine.place.work(&format!("{version}-{name}")), work.join(name)).unwrap();
            }
            engine.place.write(&format!("{version}/subject/config.json"), b"{}");
            engine.place.write(&format!("{version}/preset.yaml"), b"dataset: {}");
            engine
                .place
                .write(&format!("{version}/job/job.json"), br#"{"output":"/invarlock/output-root/side"}"#);
            let output = work.join("output");
            fs::create_dir(&output).unwrap();
            engine.place.give(&output);
            set_mode(&output, 0o733);
            // What was written just before a run counts as changed by it.
            std::thread::sleep(Duration::from_millis(100));
            for call in fixture["calls"].as_array().unwrap() {
                let replace = |word: &Value| {
                    let word = word.as_str().unwrap().replace("{work}", work.to_str().unwrap());
                    word.replace(image, "localhost/worker").replace(digest, &engine.manifest)
                };
                let call: Vec<String> = call.as_array().unwrap().iter().map(replace).collect();
                let call: Vec<&str> = call.iter().map(String::as_str).collect();
                check_call(&engine, &work, &call);
            }
        }
    }
}

fn check_call(engine: &Engine, work: &Path, call: &[&str]) {
    let ran = engine.podman(call);
    match call {
        ["run", .., "/invarlock/job/job.json"] => {
            let seen = ran.expect(0).json();
            let expected = json!({
                "uid": "65532", "gid": "65532", "containerenv": true, "home": "/tmp", "marked": "1", "cwd": "/", "tmp": true,
            });
            assert_eq!(seen, expected);
            check_record(engine, "/invarlock/output-root", "side/", &SIDE);
        }
        ["run", .., "/invarlock/output-root"] => {
            ran.expect(0);
            assert_eq!(fs::read_dir(work.join("output")).unwrap().count(), 0);
            engine.record();
        }
        ["run", .., "report"] => {
            let seen = ran.expect(0).json();
            assert_eq!((&seen["cwd"], &seen["containerenv"]), (&json!("/workspace"), &json!(true)));
            check_record(
                engine,
                "/workspace",
                "report/",
                &["evaluation.report.json", "runtime.manifest.json"],
            );
            assert!(work.join("report/evaluation.report.json").is_file());
        }
        ["image", "inspect", _] => {
            assert_eq!(ran.expect(0).json()[0]["RepoDigests"].as_array().unwrap().len(), 2);
        }
        ["image", "inspect", ..] => {
            let out = ran.expect(0).out;
            let digests: Vec<String> = serde_json::from_str(out.lines().next().unwrap()).unwrap();
            assert!(digests.iter().all(|name| name.ends_with(&engine.manifest)), "{out}");
        }
        ["stop" | "kill", ..] => ran.expect(125).one_error(&["no running command"]),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_record(engine: &Engine, target: &str, below: &str, files: &[&str]) {
    let record = engine.record();
    assert_eq!(record["format_version"], "engine-record-v1");
    assert_eq!((&record["engine"], &record["arguments"][0]), (&json!("podman"), &json!("run")));
    assert_eq!(record["run"]["image"]["manifest_digest"], json!(engine.manifest));
    assert_eq!(record["run"]["loosened"], json!(["writable_bind"]));
    assert!(record["plan"]["argv"].is_array() && record["finished_at"].is_string(), "{record}");
    assert_eq!(record["run"]["observations"]["interfaces"]["value"], json!(["lo"]), "{record}");
    let outputs = record["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["target"] == target).unwrap();
    assert_eq!(output["complete"], true);
    let names: Vec<String> = files.iter().map(|name| format!("{below}{name}")).collect();
    let found: Vec<&str> =
        output["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(found, names);
}

/// The package itself calls the engine and reads its answers.
#[test]
fn upstream_reads_the_answers() {
    for version in ["0.12.1", "0.17.1"] {
        let Some(python) = python_of(version) else {
            skip(&format!("upstream_reads_the_answers {version}"), "upstream's package is not installed");
            continue;
        };
        let script = root().join("tests/fixtures/engine/upstream_calls.py");
        let recorded = Command::new(&python).arg(&script).arg("record").output().unwrap();
        assert_eq!(
            Ran::from(recorded).expect(0).json(),
            calls(version),
            "the fixture is not what the package calls"
        );
        let engine = Engine::new(As::Caller);
        let work = engine.directory("upstream", 0o755);
        let image = match version {
            "0.12.1" => NAME.to_owned(),
            _ => format!("worker@{}", engine.manifest),
        };
        let mut command = engine.place.command_of(&python, &[script.to_str().unwrap(), "use"]);
        command.arg(&engine.dir).arg(image).arg(&work);
        let ran = Ran::from(command.output().unwrap()).expect(0);
        let answers: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
        assert_eq!(answers["exit_code"], 0, "{ran:?}");
        if version == "0.12.1" {
            assert_eq!((&answers["available"], &answers["digest"]), (&json!(true), &json!(engine.manifest)));
            assert!(work.join("report/runtime.manifest.json").is_file());
        } else {
            assert_eq!(answers["config_id"], json!(engine.config));
            assert_eq!(
                answers["preflight"],
                json!({"baseline": engine.manifest, "subject": engine.manifest})
            );
            assert_eq!((&answers["written"], &answers["left"]), (&json!(SIDE), &json!([])));
            assert_eq!(answers["slow"]["exit_code"], 124, "{answers}");
            let listed = engine.place.run(&["runtime", "ps", "--json"]).expect(0).json();
            let mine = |run: &Value| run["image"].as_str().unwrap().contains(&engine.manifest);
            assert!(!listed["running"].as_array().unwrap().iter().any(mine), "{listed}");
        }
    }
}

#[test]
fn what_would_weaken_the_boundary_is_refused_by_name() {
    for user in both() {
        let engine = Engine::new(user);
        for (options, needles) in [
            (&["--privileged"][..], ["--privileged", "help: leave out --privileged"]),
            (&["--cap-add", "SYS_ADMIN"], ["--cap-add", "no capability"]),
            (&["--gpus", "2"], ["--gpus", "device=NAME"]),
            (&["--device", "/dev/kvm"], ["--device", "VENDOR/CLASS=NAME"]),
            (&["--device", "invarlock.test/none=0"], ["invarlock.test/none=0", "no specification"]),
            (&["--pid", "host"], ["--pid", "namespaces of its own"]),
            (&["--userns=host"], ["--userns", "namespaces of its own"]),
            (&["-it"], ["--interactive", "standard input"]),
            (&["-d"], ["--detach", "no daemon"]),
            (&["--network", "host"], ["--network", "never has a network"]),
            (&["--net=bridge"], ["--network", "never has a network"]),
            (&["--security-opt", "seccomp=unconfined"], ["--security-opt", "weaken"]),
            (&["--pull=always"], ["--pull", "no network"]),
            (&["--bogus"], ["--bogus", "help: supported options: --rm, --init"]),
            (&["-v", "/:/host"], ["mount source /", "root of this machine"]),
            (&["-v", "/proc:/host"], ["/proc", "kernel"]),
            (&["-v", "/no/such:/x"], ["/no/such", "help:"]),
            (&["-v", "named:/x"], ["--volume", "named volumes"]),
            (
                &["--mount", "type=bind,source=/a,target=/b,bind-propagation=shared"],
                ["--mount", "bind-propagation"],
            ),
            (&["--tmpfs", "/tmp:exec"], ["--tmpfs", "exec"]),
            (&["--pids-limit=-1"], ["--pids-limit", "whole number"]),
        ] {
            let ran = engine.podman(&[&["run"], options, &["--rm", NAME, "noop"]].concat()).expect(125);
            assert!(ran.out.is_empty(), "{ran:?}");
            ran.one_error(&needles);
        }
        let store = format!("{}:/store", engine.place.path("store").display());
        engine.python(&["-v", &store], &["noop"]).expect(125).one_error(&["image store"]);
        // Records that the command could write would prove nothing.
        for source in [&engine.records, &engine.place.path("home")] {
            let bind = format!("{}:/x", source.display());
            engine
                .python(&["-v", &bind], &["noop"])
                .expect(125)
                .one_error(&["records", "help: record elsewhere"]);
            engine.python(&["-v", &format!("{bind}:ro")], &["noop"]).expect(0);
            engine.record();
        }
        for (command, needle) in
            [("ps", "supported commands: version, info, image"), ("images", "supported commands")]
        {
            engine.podman(&[command]).expect(125).one_error(&[command, needle]);
        }
    }
}

/// The variable is meant for the caller: it says what the caller may do.
#[test]
fn only_pull_has_a_network() {
    let engine = Engine::new(As::User);
    // Nothing listens there.
    let image = "127.0.0.1:1/a/worker:1";
    let mut run = engine.command("podman", &["run", image, "x"]);
    let ran = Ran::from(run.env("INVARLOCK_ALLOW_NETWORK", "1").output().unwrap()).expect(125);
    ran.one_error(&["error[input]", image, "not in the store", "podman pull"]);
    let pulled = engine.podman(&["pull", image]).expect(125);
    assert!(pulled.err.contains("127.0.0.1:1") && pulled.err.contains("onnect"), "{pulled:?}");
    let mut see = engine.command("podman", &["run", "--entrypoint", "python", NAME, "see"]);
    let seen = Ran::from(see.env("INVARLOCK_ALLOW_NETWORK", "1").output().unwrap()).expect(0).json();
    assert_eq!(seen["interfaces"], json!(["lo"]));
}

/// A limit holds, or the run is refused, or who installed the engine accepted that it holds by weaker means, which is recorded.
#[test]
fn limits_are_enforced_or_refused() {
    for user in both() {
        for options in [&[][..], &["--weaker-limits"]] {
            let engine = Engine::with(user, options);
            let ran = engine.python(&["--memory", "256m", "--pids-limit", "64", "--cpus", "1"], &["noop"]);
            if ran.code != 0 {
                assert!(user == As::User && options.is_empty(), "{ran:?}");
                ran.expect(125).one_error(&["memory limit cannot be enforced", "help:"]);
                assert!(engine.record()["error"].is_string());
                continue;
            }
            let record = engine.record();
            assert_eq!(record["weaker_limits"], !options.is_empty());
            assert_eq!(record["plan"]["limits"]["memory_bytes"], 256 << 20);
            let limits = &record["run"]["observations"]["limits"]["value"];
            assert!(limits.to_string().contains("memory"), "{limits}");
        }
    }
}

#[test]
fn exit_codes_are_those_of_podman() {
    for user in both() {
        let engine = Engine::new(user);
        for (program, argv, code) in [
            ("python", "exit 7", 7),
            ("python", "raise 9", 137),
            ("missing", "", 127),
            ("/bin/missing", "", 127),
            ("/bin/python/x", "", 127),
            ("/bin/text", "", 126),
            ("/bin", "", 126),
        ] {
            let args = [
                &["run", "--rm", "--init", "--entrypoint", program, NAME],
                &*argv.split_whitespace().collect::<Vec<_>>(),
            ]
            .concat();
            let ran = engine.podman(&args).expect(code);
            assert_eq!(code == 126 || code == 127, ran.err.contains("error[input]"), "{ran:?}");
            let record = engine.record();
            assert_eq!(record["run"].is_null(), record["error"].is_string(), "{record}");
        }
        engine
            .podman(&["run", "--rm", "--cidfile", "/no/such/file", NAME])
            .expect(125)
            .one_error(&["--cidfile"]);
    }
}

#[test]
fn runs_are_stopped_and_killed_by_id_and_name() {
    for user in both() {
        let engine = Engine::new(user);
        let name =
            engine.place.dir.path().file_name().unwrap().to_str().unwrap().replace("invarlock-test-", "e");
        let (mut child, id) = engine.start(&["--stop-timeout", "2"], "sleep");
        assert_eq!(engine.podman(&["stop", "--time", "5", &id]).expect(0).out, format!("{id}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let record = engine.record();
        assert_eq!((&record["id"], record["error"].is_string()), (&json!(id), true), "{record}");
        // It does not end by itself.
        let (mut child, id) = engine.start(&["--stop-timeout", "1", "--name", &name], "ignore-term");
        let started = Instant::now();
        assert_eq!(engine.podman(&["stop", "-t", "1", &name]).expect(0).out, format!("{name}\n"));
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(!child.wait().unwrap().success());
        assert_eq!(engine.record()["id"], json!(id));
        let (mut child, id) = engine.start(&[], "ignore-term");
        engine.podman(&["kill", &id]).expect(0);
        assert!(!child.wait().unwrap().success());
        // What was planned is known of a run that was killed.
        let record = engine.record();
        assert_eq!(
            (&record["id"], &record["run"], &record["finished_at"]),
            (&json!(id), &Value::Null, &Value::Null)
        );
        for command in [&["stop", "--time", "5"][..], &["kill"]] {
            engine.podman(&[command, &[&id]].concat()).expect(125).one_error(&[&id]);
        }
    }
}

/// The same calls to Podman, where it can run containers here.
#[test]
fn podman_answers_in_the_same_way() {
    let test = "podman_answers_in_the_same_way";
    if !Path::new("/usr/bin/podman").exists() {
        return skip(test, "podman not found");
    }
    if !is_root() {
        return skip(test, "a store of its own needs root here");
    }
    let engine = Engine::new(As::Caller);
    let store = tempfile::tempdir().unwrap();
    let podman = |args: &[&str]| {
        // Its runtime refuses machines with both versions of cgroups.
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec /usr/bin/podman --root root --runroot run --storage-driver vfs \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh"]).args(args);
        command.env("HOME", store.path()).env("CONTAINERS_CONF", store.path().join("containers.conf"));
        Ran::from(command.current_dir(store.path()).output().unwrap())
    };
    // Limits above those of this process are not its to give.
    let conf = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\n";
    fs::write(store.path().join("containers.conf"), conf).unwrap();
    // It takes the path for a part of the name, which must be in lower case.
    let copied = Command::new("cp").arg("-r").arg(engine.place.path("image")).arg(store.path()).status();
    assert!(copied.unwrap().success());
    let pulled = podman(&["pull", "--quiet", "oci:image:test"]).expect(0).out;
    podman(&["tag", pulled.trim(), NAME]).expect(0);
    let id = |ran: Ran| ran.expect(0).json()[0]["Id"].as_str().unwrap().to_owned();
    assert_eq!(id(podman(&["image", "inspect", NAME])), id(engine.podman(&["image", "inspect", NAME])));
    let can_run =
        podman(&["run", "--rm", "--init", "--network", "none", "--entrypoint", "python", NAME, "noop"]);
    if can_run.code != 0 {
        return skip(test, &format!("podman cannot run a container here: {}", can_run.err));
    }
    let run = ["run", "--rm", "--init", "--pull=never", "--network", "none", "--entrypoint"];
    let cases: [&[&str]; 11] = [
        &["image", "exists", NAME],
        &["image", "exists", "worker:2"],
        &["image", "inspect", "worker:2"],
        &["run", "--rm", "--pull=never", "worker:2", "x"],
        &["run", "--bogus", NAME],
        &["stop", "--time", "1", "cccccccccccc"],
        &["kill", "cccccccccccc"],
        &[&run[..], &["python", NAME, "exit", "7"]].concat(),
        &[&run[..], &["python", NAME, "raise", "9"]].concat(),
        // With --init, Podman's init answers for its program, with 1.
        &["run", "--rm", "--network", "none", "--entrypoint", "/bin/missing", NAME],
        &["run", "--rm", "--network", "none", "--entrypoint", "/bin/text", NAME],
    ];
    for args in cases {
        let (theirs, ours) = (podman(args), engine.podman(args));
        assert_eq!(theirs.code, ours.code, "{args:?}\n{theirs:?}\n{ours:?}");
        assert_eq!(theirs.out, ours.out, "{args:?}");
        assert_eq!(theirs.err.is_empty(), ours.err.is_empty(), "{args:?}\n{theirs:?}\n{ours:?}");
    }
}
