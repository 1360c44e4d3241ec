//! Inside a container of another engine: `doctor` says what is missing there, and with the options of docs/places.md runs are isolated.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, is_root, read_json, set_mode, skip};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Podman's system-call profile, which its options can replace.
const PROFILE: &str = "/usr/share/containers/seccomp.json";
/// As in docs/places.md.
const UNMASKED: [&str; 2] = ["--security-opt", "unmask=ALL"];
/// What the pods of a careful administrator have.
const STRICT: [&str; 8] = [
    "--user",
    "1000:1000",
    "--cap-drop",
    "all",
    "--read-only",
    "--security-opt",
    "no-new-privileges",
    "--tmpfs=/tmp:rw,exec,size=512m",
];

/// A root file system with the programs and the demo, and a Podman that can start it.
struct Outer {
    place: Place,
    profile: PathBuf,
}

impl Outer {
    fn new(test: &str) -> Option<Self> {
        let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if !is_root() || !has("podman") || !has("unshare") || !Path::new(PROFILE).is_file() {
            skip(test, "needs root, podman and its system-call profile");
            return None;
        }
        let place = Place::new(As::Caller);
        let root = place.path("root");
        for name in ["proc", "sys", "dev", "tmp", "etc", "run", "bin", "out"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        set_mode(&root.join("tmp"), 0o1777);
        set_mode(&root.join("out"), 0o777);
        for name in ["invarlock", "invarlock-evaluator"] {
            fs::rename(place.path("bin").join(name), root.join("bin").join(name)).unwrap();
        }
        for name in ["baseline", "healthy"] {
            let to = root.join("demo").join(name);
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(demo(name)).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        for name in ["preset.yaml", "valid.jsonl"] {
            fs::copy(demo(name), root.join("demo").join(name)).unwrap();
        }
        // Limits above those of this process are not Podman's to give.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\n";
        fs::write(place.path("containers.conf"), settings).unwrap();
        let profile = place.path("nested.json");
        fs::write(&profile, names_allowed(&read_json(Path::new(PROFILE))).to_string()).unwrap();
        Some(Self { place, profile })
    }

    fn run(&self, options: &[&str], argv: &[&str]) -> Ran {
        // crun refuses machines with both versions of cgroups.
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec podman \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-c", script, "podman", "--root"])
            .arg(self.place.path("podman"));
        command.arg("--runroot").arg(self.place.path("podman-run"));
        command
            .args(["run", "--rm", "--network", "none", "--env", "HOME=/tmp", "--workdir", "/demo"])
            .args(options);
        command.arg("--rootfs").arg(self.place.path("root")).args(argv);
        Ran::from(command.env("CONTAINERS_CONF", self.place.path("containers.conf")).output().unwrap())
    }

    /// With the options of docs/places.md and these ones.
    fn prepared(&self, options: &[&str], argv: &[&str]) -> Ran {
        let profile = format!("seccomp={}", self.profile.display());
        self.run(&[&UNMASKED[..], &["--security-opt", &profile], options].concat(), argv)
    }
}

/// Podman's profile, in which every process may call sethostname and setdomainname, as the command of docs/places.md makes it.
fn names_allowed(profile: &Value) -> Value {
    let names = ["sethostname", "setdomainname"];
    let mut profile = profile.clone();
    let rules = profile["syscalls"].as_array_mut().unwrap();
    for rule in rules.iter_mut() {
        rule["names"].as_array_mut().unwrap().retain(|name| !names.contains(&name.as_str().unwrap()));
    }
    rules.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
    profile
}

fn row<'a>(doctor: &'a Value, control: &str) -> &'a Value {
    doctor["boundary"].as_array().unwrap().iter().find(|row| row["control"] == control).unwrap()
}

#[test]
fn doctor_says_what_a_container_lacks() {
    let Some(outer) = Outer::new("doctor_says_what_a_container_lacks") else { return };
    let doctor = ["/bin/invarlock", "doctor", "--json"];
    // Root of a container has few capabilities, and cannot have runs with ids of their own.
    let found = outer.run(&[], &doctor).expect(1).json();
    assert!(found["place"].as_str().unwrap().contains("Podman"), "{found:#}");
    assert_eq!(
        (&row(&found, "ids")["available"], &row(&found, "ids")["required"]),
        (&json!(false), &json!(true))
    );
    let (detail, remedy) =
        (row(&found, "ids")["detail"].to_string(), row(&found, "ids")["remedy"].to_string());
    assert!(detail.contains("CAP_SYS_ADMIN") && remedy.contains("--user 1000"), "{detail} {remedy}");
    let run = [
        "/bin/invarlock",
        "evaluate",
        "--baseline",
        "baseline",
        "--subject",
        "healthy",
        "--preset",
        "preset.yaml",
    ];
    outer.run(&[], &run).expect(3).one_error(&["CAP_SYS_ADMIN", "--user 1000"]);

    // An ordinary user: what is left are Podman's filter and its masked /proc.
    let found = outer.run(&["--user", "1000:1000"], &doctor).expect(1).json();
    assert_eq!(row(&found, "ids")["available"], true, "{found:#}");
    assert!(row(&found, "other namespaces")["remedy"].to_string().contains("sethostname"), "{found:#}");
    assert!(row(&found, "proc")["remedy"].to_string().contains("unmasked"), "{found:#}");
    let text = outer.run(&["--user", "1000:1000"], &["/bin/invarlock", "doctor"]).expect(1).out;
    assert!(text.contains("--security-opt unmask=ALL --security-opt seccomp="), "{text}");
}

#[test]
fn runs_are_isolated_in_a_container() {
    let Some(outer) = Outer::new("runs_are_isolated_in_a_container") else { return };
    let found = outer.prepared(&STRICT, &["/bin/invarlock", "doctor", "--json"]).expect(0).json();
    assert_eq!(found["summary"]["errors"], 0, "{found:#}");
    let out = format!("--volume={}:/out", outer.place.path("root/out").display());
    let evaluate = ["/bin/invarlock", "evaluate", "--profile", "dev", "--preset", "preset.yaml"];
    let sides = [
        "--baseline",
        "baseline",
        "--subject",
        "healthy",
        "--out",
        "/tmp/runs",
        "--report-out",
        "/out/report",
    ];
    outer.prepared(&[&STRICT[..], &[&out]].concat(), &[&evaluate[..], &sides].concat()).expect(0);
    let manifest = read_json(&outer.place.path("root/out/report/runtime.manifest.json"));
    assert_eq!(manifest["execution_mode"], "container", "{manifest:#}");
    let verify = ["/bin/invarlock", "verify", "--profile", "dev", "/out/report"];
    outer.run(&["--user", "1000:1000", &out], &verify).expect(0);
    let probed = outer.prepared(&STRICT, &["/bin/invarlock", "runtime", "probe", "--json"]).expect(0).json();
    assert_eq!(probed["summary"]["not_held"], 0, "{probed:#}");
}
