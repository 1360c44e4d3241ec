//! Group A: the image, or an attacker with write access to the image or to the inputs, redirects
//! the set-up of the root file system.

use crate::stage::{Stage, printed_json, race};
use invarlock_tests::{As, is_root, set_mode, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

attack!(a1_dev_is_a_link_cve_2026_41579, dev_is_a_link);
attack!(a2_masks_use_dev_null_of_the_image_cve_2025_31133, masks_use_dev_null);
attack!(a3_terminals_of_the_image_cve_2025_52565, terminals_of_the_image);
attack!(a4_proc_and_sys_are_links_cve_2019_19921, proc_and_sys_are_links);
attack!(a5_mount_points_swapped_cve_2021_30465, mount_points_swapped);
attack!(a6_parent_directories_are_links_cve_2024_45310, parent_directories_are_links);
attack!(a7_proc_writes_redirected_cve_2025_52881, proc_writes_redirected);
attack!(a8_inputs_swapped, inputs_swapped);
attack!(a9_mounts_propagate_between_host_and_run, mounts_propagate);
attack!(a9_mounts_below_the_image, mounts_below_the_image);

/// `name` in the image is a link or a file. The run is refused, and nothing is created, opened or
/// changed in the target.
fn assert_redirection_refused(stage: &Stage, name: &str) {
    let canary = stage.canary.path();
    let up = format!("../../../../../../../../../..{}", canary.display());
    let links = [canary.to_str().unwrap(), &up, ".", "etc", "not-there"];
    for (i, target) in links.into_iter().enumerate() {
        let image = stage.bare_image(&format!("{name}-{i}"), |rootfs| {
            fs::create_dir(rootfs.join("etc")).unwrap();
            symlink(target, rootfs.join(name)).unwrap();
        });
        stage.run(&[], &image, &["where"]).expect(125).one_error(&["safety_violation", name]);
        stage.assert_unchanged();
    }
    let image = stage.bare_image(&format!("{name}-file"), |rootfs| fs::write(rootfs.join(name), "").unwrap());
    stage.run(&[], &image, &["where"]).expect(125).one_error(&["safety_violation", name]);
    stage.assert_unchanged();
}

fn dev_is_a_link(user: As) {
    assert_redirection_refused(&Stage::new(user), "dev");
}

/// Masked paths are covered by the null device of the host or do not exist, even if `/dev/null` of
/// the image is a link or a file.
fn masks_use_dev_null(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path().join("null");
    for (name, target) in
        [("trigger", Some(Path::new("/proc/sysrq-trigger"))), ("canary", Some(&canary)), ("file", None)]
    {
        let image = stage.image(&format!("null-{name}"), |rootfs| {
            fs::create_dir(rootfs.join("dev")).unwrap();
            let null = rootfs.join("dev/null");
            match target {
                Some(target) => symlink(target, null).unwrap(),
                None => fs::write(null, "of the image").unwrap(),
            }
        });
        let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"];
        let printed =
            printed_json(&stage.run(&[], &image, &[&["stat", "/dev/null"], &masked[..]].concat()).expect(0));
        assert_eq!(printed["/dev/null"], "character device 1:3", "{printed}");
        for path in masked {
            assert!(printed[path] == "character device 1:3" || printed[path] == 2, "{path}: {printed}");
        }
        stage.assert_unchanged();
    }
}

/// The run has no terminal device, even if the launcher runs on a terminal and the image contains
/// links with these names.
fn terminals_of_the_image(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path();
    let image = stage.image("terminals", |rootfs| {
        fs::create_dir_all(rootfs.join("dev/pts")).unwrap();
        for (name, to) in [("console", "console"), ("ptmx", "ptmx"), ("tty", "tty"), ("pts/0", "null")] {
            symlink(canary.join(to), rootfs.join("dev").join(name)).unwrap();
        }
        symlink("/proc/sysrq-trigger", rootfs.join("dev/fd")).unwrap();
    });
    let shown = stage.on_a_terminal(&image, &["list", "/dev"]);
    let shown = String::from_utf8_lossy(&shown);
    let line = shown.lines().find(|line| line.contains('{')).unwrap_or_else(|| panic!("{shown}"));
    let printed: Value = serde_json::from_str(line.trim()).unwrap();
    let expected = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
    assert_eq!(printed["/dev"], json!(expected));
    stage.assert_unchanged();
}

fn proc_and_sys_are_links(user: As) {
    let stage = Stage::new(user);
    assert_redirection_refused(&stage, "proc");
    // A link at /sys is allowed, and stays one: nothing is mounted there. Its target does not exist
    // in the run.
    let canary = stage.canary.path();
    let image = stage.image("sys", |rootfs| symlink(canary, rootfs.join("sys")).unwrap());
    let printed = printed_json(&stage.run(&[], &image, &["list", "/sys", "/sys/"]).expect(0));
    assert_eq!(printed, json!({"/sys": 2, "/sys/": 2}));
    let image = stage.image("fake", |rootfs| {
        fs::create_dir_all(rootfs.join("sys/fs/cgroup")).unwrap();
        fs::write(rootfs.join("sys/fs/cgroup/cgroup.procs"), "").unwrap();
    });
    let group = "/sys/fs/cgroup/cgroup.procs";
    let printed = printed_json(&stage.run(&[], &image, &["open-write", group]).expect(0));
    assert_eq!(printed[group], 2, "the content of the image is hidden: {printed}");
    let printed = printed_json(&stage.run(&[], &image, &["create", "/sys/new"]).expect(0));
    assert_eq!(printed["/sys/new"], 30, "it is read-only: {printed}");
    stage.assert_unchanged();
}

/// An attacker with write access to the extracted image replaces every mount point with a link
/// while runs are set up.
fn mount_points_swapped(user: As) {
    let stage = Stage::new(user);
    let rootfs = stage.rootfs("tree");
    let canary = stage.canary.path();
    let up = Path::new("../../../../../../../../../../").join(canary.strip_prefix("/").unwrap());
    let links = [("dev", canary), ("in", &up), ("out", canary), ("proc", &up), ("tmp", Path::new("sub"))];
    let pairs = links.map(|(name, to)| {
        let link = rootfs.join(format!("{name}.link"));
        symlink(to, &link).unwrap();
        (rootfs.join(name), link)
    });
    let plan = json!({
        "rootfs": [rootfs], "argv": ["/workload", "where"], "env": [], "runs": 10,
        "bytes": [["/in/a/x", "of the launcher"]],
    });
    race("mount points", user, &pairs, || {
        let outcomes = stage.launch(&plan);
        let refused = outcomes.iter().filter(|outcome| !outcome["result"]["error"].is_null()).count();
        // Mounts stay on their directories. A run that starts may find them under the exchanged
        // names.
        for outcome in &outcomes {
            assert!(
                !stage.canary.is_visible_in(&outcome.to_string()),
                "the canary is visible in the run: {outcome:#}"
            );
        }
        (outcomes.len(), refused)
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(stage.place.dir.path().to_str().unwrap()), "a mount landed outside: {mounts}");
    stage.assert_unchanged();
}

/// Parent directories of paths that the set-up creates are links to the host.
fn parent_directories_are_links(user: As) {
    let stage = Stage::new(user);
    for name in ["in", "out", "tmp"] {
        assert_redirection_refused(&stage, name);
    }
    let rootfs = stage.rootfs("tree");
    let canary = stage.canary.path();
    for name in ["in/a", "in/checkpoint", "etc", "tmp/a", "out/a", "dev/pts"] {
        symlink(canary, rootfs.join(name)).unwrap();
    }
    let input = stage.place.write("input", b"of the host");
    let plan = json!({
        "rootfs": [rootfs], "argv": ["/workload", "cat", "/in/a/x"], "env": [],
        "bytes": [["/in/a/x", "of the launcher"], ["/in/checkpoint/x", "{}"], ["/in/a/attr/x", ""]],
        "files": [["/in/checkpoint/null", input], ["/in/a/sys/x", input]],
    });
    for outcome in stage.launch(&plan) {
        assert_eq!(outcome["stdout"], "of the launcher", "{outcome:#}");
    }
    stage.assert_unchanged();
    for target in ["/in/../out/x", "/in/a/../../../x", "/out/x", "/in//x", "/in/./x"] {
        let mut plan = plan.clone();
        plan["bytes"] = json!([[target, "x"]]);
        let outcomes = stage.launch(&plan);
        assert_eq!(outcomes[0]["result"]["error"]["kind"], "input", "{target}: {outcomes:?}");
    }
    stage.assert_unchanged();
}

/// The image has its own `/proc`, which could redirect writes to `/proc/self/attr` or to a sysctl
/// before procfs is mounted.
fn proc_writes_redirected(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path();
    let image = stage.image("proc", |rootfs| {
        let proc = rootfs.join("proc");
        fs::create_dir_all(proc.join("sys/kernel")).unwrap();
        fs::create_dir_all(proc.join("1")).unwrap();
        for (name, to) in [
            ("self", ""),
            ("thread-self", ""),
            ("1/attr", "attr"),
            ("sys/net", "sys"),
            ("sysrq-trigger", "x"),
            ("kcore", "kcore"),
            ("bus", "bus"),
        ] {
            symlink(canary.join(to), proc.join(name)).unwrap();
        }
        fs::write(proc.join("sys/kernel/hostname"), "of the image").unwrap();
    });
    let printed = printed_json(&stage.run(&[], &image, &["see"]).expect(0));
    assert_eq!(
        (&printed["hostname"], &printed["pid"]),
        (&json!("invarlock"), &json!(2)),
        "the image's own /proc"
    );
    assert_eq!(printed["status"]["NoNewPrivs"], "1");
    let files = ["/proc/self/attr/exec", "/proc/self/attr/current", "/proc/sys/kernel/hostname"];
    let printed = printed_json(&stage.run(&[], &image, &[&["open-write"], &files[1..]].concat()).expect(0));
    assert!(
        [libc::EACCES, libc::EROFS].iter().any(|errno| printed["/proc/sys/kernel/hostname"] == *errno),
        "{printed}"
    );
    stage.assert_unchanged();
}

/// An input is exchanged with another file and with a link between hashing and mounting. The
/// mounted file is the hashed one.
fn inputs_swapped(user: As) {
    let stage = Stage::new(user);
    let input = stage.place.write("weights", b"the weights");
    let forged = stage.place.write("forged", b"something else");
    let secret = stage.place.write("secret", b"a secret of the user's");
    set_mode(&secret, 0o600);
    let link = stage.place.work("link");
    symlink(&secret, &link).unwrap();
    let plan = json!({
        "rootfs": [stage.rootfs("tree")], "argv": ["/workload", "cat", "/in/weights"], "env": [], "runs": 10,
        "files": [["/in/weights", input]], "read": true,
    });
    race("inputs", user, &[(input.clone(), forged), (input, link)], || {
        let outcomes = stage.launch(&plan);
        let mut refused = 0;
        for outcome in &outcomes {
            match outcome["result"]["error"]["kind"].as_str() {
                Some(kind) => {
                    assert!(["safety", "input"].contains(&kind), "{outcome:#}");
                    refused += 1;
                }
                None => {
                    assert_eq!(outcome["stdout"], outcome["read"][0], "another file was mounted: {outcome:#}")
                }
            }
        }
        (outcomes.len(), refused)
    });
    stage.assert_unchanged();
}

/// Runs a shell as root in a new mount namespace with shared mounts, which systemd sets up on most
/// machines. Returns nothing if the tests do not run as root.
fn with_shared_mounts(test: &str, script: &str, command: &Command) -> Option<(String, String)> {
    if !is_root() {
        skip(test, "creating a mount namespace with shared mounts needs root");
        return None;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "shared", "sh", "-euc", script, "sh"]);
    unshare.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir()?);
    for (name, value) in command.get_envs() {
        unshare.env(name, value.unwrap_or_default());
    }
    let out = unshare.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(out.stdout), text(out.stderr));
    assert!(out.status.success(), "{stdout}\n{stderr}");
    Some((stdout, stderr))
}

/// An image that has all mount points, so that its layer is mounted without an additional one.
fn image_with_mount_points(stage: &Stage) -> String {
    stage.image("whole", |rootfs| {
        for name in ["dev", "in", "out", "proc", "tmp", "sub"] {
            fs::create_dir(rootfs.join(name)).unwrap();
        }
    })
}

/// `/` is shared. Mounts of the run do not appear on the host, and mounts of the host do not appear
/// in the run.
fn mounts_propagate(user: As) {
    let stage = Stage::new(user);
    let image = image_with_mount_points(&stage);
    let name = "a9_mounts_propagate_between_host_and_run";
    let script =
        "cat /proc/self/mountinfo > ../before; \"$@\" > /dev/null; cat /proc/self/mountinfo > ../after";
    let run = stage.command(&[], &image, &["see"]);
    if with_shared_mounts(name, script, &run).is_none() {
        return;
    }
    let mounts = |file: &str| fs::read_to_string(stage.place.path(file)).unwrap();
    assert!(mounts("before").lines().all(|line| line.contains(" shared:")), "{}", mounts("before"));
    assert_eq!(mounts("before"), mounts("after"), "mounts of the run appeared on the host");
    let script = "sub=$(echo ../store/trees/sha256-*/root/sub); \
         \"$@\" | { read -r ready; mount -t tmpfs host \"$sub\"; touch \"$sub/of-the-host\"; cat; }";
    let run = stage.command(&[], &image, &["list-later", "/sub"]);
    let Some((out, _)) = with_shared_mounts(name, script, &run) else { return };
    assert_eq!(out.trim(), "{\"/sub\":[]}", "a mount of the host appeared in the run");
    stage.assert_unchanged();
}

/// A mount below the extracted image that exists before the run cannot be written by the run.
fn mounts_below_the_image(user: As) {
    let stage = Stage::new(user);
    let image = image_with_mount_points(&stage);
    stage.run(&[], &image, &["exit", "0"]).expect(0);
    let script = "mount -t tmpfs -o mode=0777 host ../store/trees/sha256-*/root/sub; \
         chmod 0755 ../store/trees/sha256-*/root/sub; \"$@\" 2>&1 || echo \"code $?\"; ls -A ../store/trees/sha256-*/root/sub";
    let run = stage.command(&[], &image, &["create", "/sub/x"]);
    let Some((out, _)) = with_shared_mounts("a9_mounts_below_the_image", script, &run) else { return };
    let refused = out.contains("code 125") && out.contains("error[");
    assert!(refused || out.trim() == "{\"/sub/x\":30}", "{out}");
    stage.assert_unchanged();
}
