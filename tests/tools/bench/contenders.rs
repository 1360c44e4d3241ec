//! The programs that are compared: each runs the same no-op.

use invarlock_tests::{program, set_mode};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// A program that runs the no-op.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// The command of a round.
    pub command: Box<dyn Fn(usize) -> Command>,
}

/// All contenders that work on this machine, ours first. One that is missing or fails is reported and left out.
pub fn all(invarlock: &Path, dir: &Path) -> Vec<Contender> {
    let noop = program("noop");
    let bundle = dir.join("bundle");
    make_bundle(&bundle, &noop);
    let mut all = vec![ours(invarlock, dir, &noop)];
    all.push(oci("crun", "crun", &bundle, dir));
    all.push(oci("crun, user namespace", "crun", &user_namespace(dir, &bundle), dir));
    all.push(oci("runc", "runc", &bundle, dir));
    all.push(bwrap(&bundle));
    all.extend(podman(dir, &bundle));
    all.retain(works);
    assert_eq!(all.first().map(|c| c.name), Some("invarlock"), "the invarlock run failed");
    all
}

/// Removes the directory unless something is still mounted in it (podman keeps a mount while it runs).
pub fn finish(dir: tempfile::TempDir) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|m| Path::new(m).starts_with(dir.path()))
    {
        rustix::mount::unmount(mount, rustix::mount::UnmountFlags::empty()).unwrap();
    }
    dir.close().unwrap();
}

fn ours(invarlock: &Path, dir: &Path, noop: &Path) -> Contender {
    let store = dir.join("store");
    std::fs::create_dir(&store).unwrap();
    let built = Command::new(invarlock)
        .args(["runtime", "image", "build", "--evaluator"])
        .arg(noop)
        .env("INVARLOCK_STORE", &store)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success(), "building the no-op image failed");
    let ours = invarlock.to_path_buf();
    Contender {
        name: "invarlock",
        command: Box::new(move |_| {
            let mut c = Command::new(&ours);
            c.args(["runtime", "run", "invarlock-runtime:local"]).env("INVARLOCK_STORE", &store);
            c
        }),
    }
}

fn oci(name: &'static str, runtime: &'static str, bundle: &Path, dir: &Path) -> Contender {
    let (bundle, state) = (bundle.to_path_buf(), dir.join(runtime));
    let command = move |i| {
        let mut c = Command::new(runtime);
        c.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&bundle);
        c.arg(format!("invarlock-bench-{i}"));
        c
    };
    Contender { name, command: Box::new(command) }
}

fn bwrap(bundle: &Path) -> Contender {
    let rootfs = bundle.join("rootfs");
    let command = move |_| {
        let mut c = Command::new("bwrap");
        c.args(["--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--ro-bind"])
            .arg(&rootfs)
            .arg("/");
        c.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/noop"]);
        c
    };
    Contender { name: "bwrap", command: Box::new(command) }
}

/// podman with crun and its own storage, which holds an image of the same root directory. podman's default rlimits exceed the limits
/// of this machine.
fn podman(dir: &Path, bundle: &Path) -> Option<Contender> {
    let (storage, run) = (dir.join("podman"), dir.join("podman-run"));
    let podman = move || {
        let mut c = Command::new("podman");
        c.arg("--root").arg(&storage).arg("--runroot").arg(&run);
        c.args([
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--runtime",
            "crun",
        ]);
        c
    };
    let archive = dir.join("rootfs.tar");
    let packed =
        Command::new("tar").arg("-C").arg(bundle.join("rootfs")).arg("-cf").arg(&archive).arg(".").status();
    assert!(packed.unwrap().success(), "tar failed");
    let imported = podman().arg("import").arg(&archive).arg("invarlock-bench:1").output();
    match imported {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skipped("podman", String::from_utf8_lossy(&output.stderr).trim()),
        Err(e) => return skipped("podman", &e.to_string()),
    }
    let command = move |_| {
        let mut c = podman();
        c.args([
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        c.args([
            "--read-only",
            "--cap-drop",
            "all",
            "--memory",
            "1g",
            "--pids-limit",
            "64",
            "invarlock-bench:1",
            "/noop",
        ]);
        c
    };
    Some(Contender { name: "podman", command: Box::new(command) })
}

/// Gives the contender private files as standard descriptors: crun changes their owner to the container's user, which must not happen
/// to the host's `/dev/null`.
pub fn detach(command: &mut Command) {
    let file = || tempfile::tempfile().unwrap();
    command.stdin(file()).stdout(file()).stderr(file());
}

/// Runs it once.
fn works(contender: &Contender) -> bool {
    let mut command = (contender.command)(usize::MAX);
    detach(&mut command);
    let why = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).output() {
        Err(e) => e.to_string(),
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    };
    skipped(contender.name, &why).is_some()
}

fn skipped(name: &str, why: &str) -> Option<Contender> {
    println!("SKIPPED {name}: {why}");
    None
}

fn make_bundle(bundle: &Path, noop: &Path) {
    for name in ["proc", "dev", "tmp", "sys"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(name)).unwrap();
    }
    std::fs::copy(noop, bundle.join("rootfs/noop")).unwrap();
    set_mode(&bundle.join("rootfs/noop"), 0o755);
    let namespaces: Vec<_> =
        ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|t| json!({"type": t})).into();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 65532, "gid": 65532}, "args": ["/noop"], "env": [], "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"memory": {"limit": 1 << 30}, "pids": {"limit": 64}},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
}

/// The same bundle with a user namespace like ours.
fn user_namespace(dir: &Path, plain: &Path) -> std::path::PathBuf {
    let bundle = dir.join("bundle-user");
    std::fs::create_dir(&bundle).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(plain.join("config.json")).unwrap()).unwrap();
    config["root"]["path"] = json!(plain.join("rootfs"));
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65_536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle
}
