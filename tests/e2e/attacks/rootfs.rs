//! Group A: the image, or who can write to it or to the inputs, redirects the set-up of the root file system.

use crate::stage::{Stage, race, told};
use invarlock_tests::{As, is_root, set_mode, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

attack!(a1_dev_is_a_link_cve_2026_41579, dev_is_a_link);
attack!(a2_masks_made_of_the_images_null_cve_2025_31133, null_of_the_image);
attack!(a3_terminals_of_the_image_cve_2025_52565, terminals_of_the_image);
attack!(a4_proc_and_sys_are_links_cve_2019_19921, proc_and_sys_are_links);
attack!(a5_mount_points_swapped_cve_2021_30465, mount_points_swapped);
attack!(a6_parents_are_links_cve_2024_45310, parents_are_links);
attack!(a7_proc_writes_redirected_cve_2025_52881, proc_writes_redirected);
attack!(a8_inputs_swapped, inputs_swapped);
attack!(a9_mounts_that_leak, mounts_that_leak);
attack!(a9_mounts_below_the_image, mounts_below_the_image);

/// The image has `name` as anything but a directory: the run is refused, and nothing is made, opened or owned where it leads.
fn redirected(stage: &Stage, name: &str) {
    let canary = stage.canary.path();
    let up = format!("../../../../../../../../../..{}", canary.display());
    let links = [canary.to_str().unwrap(), &up, ".", "etc", "not-there"];
    for (i, target) in links.into_iter().enumerate() {
        let image = stage.bare_image(&format!("{name}-{i}"), |tree| {
            fs::create_dir(tree.join("etc")).unwrap();
            symlink(target, tree.join(name)).unwrap();
        });
        stage.run(&[], &image, &["where"]).expect(125).one_error(&["safety_violation", name]);
        stage.is_unharmed();
    }
    let image = stage.bare_image(&format!("{name}-file"), |tree| fs::write(tree.join(name), "").unwrap());
    stage.run(&[], &image, &["where"]).expect(125).one_error(&["safety_violation", name]);
    stage.is_unharmed();
}

fn dev_is_a_link(user: As) {
    redirected(&Stage::new(user), "dev");
}

/// What is masked is covered by the null device of the host or by nothing that can be written, whatever `/dev/null` of the image is.
fn null_of_the_image(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path().join("null");
    for (name, target) in
        [("trigger", Some(Path::new("/proc/sysrq-trigger"))), ("canary", Some(&canary)), ("file", None)]
    {
        let image = stage.image(&format!("null-{name}"), |tree| {
            fs::create_dir(tree.join("dev")).unwrap();
            let null = tree.join("dev/null");
            match target {
                Some(target) => symlink(target, null).unwrap(),
                None => fs::write(null, "of the image").unwrap(),
            }
        });
        let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"];
        let seen = told(&stage.run(&[], &image, &[&["stat", "/dev/null"], &masked[..]].concat()).expect(0));
        assert_eq!(seen["/dev/null"], "character device 1:3", "{seen}");
        for path in masked {
            assert!(seen[path] == "character device 1:3" || seen[path] == 2, "{path}: {seen}");
        }
        stage.is_unharmed();
    }
}

/// There is no terminal inside, not even where the launcher is on one and the image has them.
fn terminals_of_the_image(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path();
    let image = stage.image("terminals", |tree| {
        fs::create_dir_all(tree.join("dev/pts")).unwrap();
        for (name, to) in [("console", "console"), ("ptmx", "ptmx"), ("tty", "tty"), ("pts/0", "null")] {
            symlink(canary.join(to), tree.join("dev").join(name)).unwrap();
        }
        symlink("/proc/sysrq-trigger", tree.join("dev/fd")).unwrap();
    });
    let shown = stage.on_a_terminal(&image, &["list", "/dev"]);
    let shown = String::from_utf8_lossy(&shown);
    let line = shown.lines().find(|line| line.contains('{')).unwrap_or_else(|| panic!("{shown}"));
    let seen: Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(seen["/dev"], json!(["full", "null", "random", "urandom", "zero"]));
    stage.is_unharmed();
}

fn proc_and_sys_are_links(user: As) {
    let stage = Stage::new(user);
    redirected(&stage, "proc");
    // Nothing is mounted on /sys, so it may be what it likes, and leads nowhere.
    let canary = stage.canary.path();
    let image = stage.image("sys", |tree| symlink(canary, tree.join("sys")).unwrap());
    let seen = told(&stage.run(&[], &image, &["list", "/sys", "/sys/"]).expect(0));
    assert_eq!(seen, json!({"/sys": 2, "/sys/": 2}));
    let image = stage.image("fake", |tree| {
        fs::create_dir_all(tree.join("sys/fs/cgroup")).unwrap();
        fs::write(tree.join("sys/fs/cgroup/cgroup.procs"), "").unwrap();
    });
    let seen = told(&stage.run(&[], &image, &["open-write", "/sys/fs/cgroup/cgroup.procs"]).expect(0));
    assert_eq!(seen["/sys/fs/cgroup/cgroup.procs"], 30, "the image is read-only: {seen}");
    stage.is_unharmed();
}

/// An attacker with write access to the extracted image replaces every mount point with a link while runs are set up.
fn mount_points_swapped(user: As) {
    let stage = Stage::new(user);
    let tree = stage.tree("tree");
    let canary = stage.canary.path();
    let up = Path::new("../../../../../../../../../../").join(canary.strip_prefix("/").unwrap());
    let links = [("dev", canary), ("in", &up), ("out", canary), ("proc", &up), ("tmp", Path::new("sub"))];
    let pairs = links.map(|(name, to)| {
        let link = tree.join(format!("{name}.link"));
        symlink(to, &link).unwrap();
        (tree.join(name), link)
    });
    let plan = json!({
        "rootfs": [tree], "argv": ["/workload", "where"], "env": [], "runs": 10,
        "bytes": [["/in/a/x", "of the launcher"]],
    });
    race("mount points", user, &pairs, || {
        let ends = stage.launch(&plan);
        let refused = ends.iter().filter(|end| !end["result"]["error"].is_null()).count();
        // A run that goes on may find its mounts under the other names: they stay on the directories, whatever these are called.
        for end in &ends {
            assert!(!stage.canary.is_in(&end.to_string()), "the canary is seen inside: {end:#}");
        }
        (ends.len(), refused)
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(stage.place.dir.path().to_str().unwrap()), "a mount landed outside: {mounts}");
    stage.is_unharmed();
}

/// Parents of what the set-up makes lead outside.
fn parents_are_links(user: As) {
    let stage = Stage::new(user);
    for name in ["in", "out", "tmp"] {
        redirected(&stage, name);
    }
    let tree = stage.tree("tree");
    let canary = stage.canary.path();
    for name in ["in/a", "in/checkpoint", "etc", "tmp/a", "out/a", "dev/pts"] {
        symlink(canary, tree.join(name)).unwrap();
    }
    let input = stage.place.write("input", b"of the host");
    let plan = json!({
        "rootfs": [tree], "argv": ["/workload", "cat", "/in/a/x"], "env": [],
        "bytes": [["/in/a/x", "of the launcher"], ["/in/checkpoint/x", "{}"], ["/in/a/attr/x", ""]],
        "files": [["/in/checkpoint/null", input], ["/in/a/sys/x", input]],
    });
    for end in stage.launch(&plan) {
        assert_eq!(end["stdout"], "of the launcher", "{end:#}");
    }
    stage.is_unharmed();
    for target in ["/in/../out/x", "/in/a/../../../x", "/out/x", "/in//x", "/in/./x"] {
        let mut plan = plan.clone();
        plan["bytes"] = json!([[target, "x"]]);
        let ends = stage.launch(&plan);
        assert_eq!(ends[0]["result"]["error"]["kind"], "input", "{target}: {ends:?}");
    }
    stage.is_unharmed();
}

/// The image has its own `/proc`, for writers of `/proc/self/attr` or a sysctl before the real one is mounted.
fn proc_writes_redirected(user: As) {
    let stage = Stage::new(user);
    let canary = stage.canary.path();
    let image = stage.image("proc", |tree| {
        let proc = tree.join("proc");
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
    let seen = told(&stage.run(&[], &image, &["see"]).expect(0));
    assert_eq!((&seen["hostname"], &seen["pid"]), (&json!("invarlock"), &json!(2)), "the image's own /proc");
    assert_eq!(seen["status"]["NoNewPrivs"], "1");
    let files = ["/proc/self/attr/exec", "/proc/self/attr/current", "/proc/sys/kernel/hostname"];
    let seen = told(&stage.run(&[], &image, &[&["open-write"], &files[1..]].concat()).expect(0));
    assert!(
        [libc::EACCES, libc::EROFS].iter().any(|errno| seen["/proc/sys/kernel/hostname"] == *errno),
        "{seen}"
    );
    stage.is_unharmed();
}

/// An input is exchanged with another file and with a link between the hashing and the mount: what is mounted is what was hashed.
fn inputs_swapped(user: As) {
    let stage = Stage::new(user);
    let input = stage.place.write("weights", b"the weights");
    let forged = stage.place.write("forged", b"something else");
    let secret = stage.place.write("secret", b"a secret of the user's");
    set_mode(&secret, 0o600);
    let link = stage.place.work("link");
    symlink(&secret, &link).unwrap();
    let plan = json!({
        "rootfs": [stage.tree("tree")], "argv": ["/workload", "cat", "/in/weights"], "env": [], "runs": 10,
        "files": [["/in/weights", input]], "read": true,
    });
    race("inputs", user, &[(input.clone(), forged), (input, link)], || {
        let ends = stage.launch(&plan);
        let mut refused = 0;
        for end in &ends {
            match end["result"]["error"]["kind"].as_str() {
                Some(kind) => {
                    assert!(["safety", "input"].contains(&kind), "{end:#}");
                    refused += 1;
                }
                None => assert_eq!(end["stdout"], end["read"][0], "another file was mounted: {end:#}"),
            }
        }
        (ends.len(), refused)
    });
    stage.is_unharmed();
}

/// A shell of root's in a mount namespace of its own, whose mounts are shared as systemd makes them on most machines. None where the tests
/// do not run as root.
fn sharing(test: &str, script: &str, command: &Command) -> Option<(String, String)> {
    if !is_root() {
        skip(test, "making a mount namespace whose mounts are shared needs root");
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

/// An image that has all mount points, so that it is mounted as it is.
fn whole(stage: &Stage) -> String {
    stage.image("whole", |tree| {
        for name in ["dev", "in", "out", "proc", "tmp", "sub"] {
            fs::create_dir(tree.join(name)).unwrap();
        }
    })
}

/// Where `/` is shared, what is mounted inside does not appear on the host, and what the host mounts does not appear inside.
fn mounts_that_leak(user: As) {
    let stage = Stage::new(user);
    let image = whole(&stage);
    let name = "a9_mounts_that_leak";
    let script =
        "cat /proc/self/mountinfo > ../before; \"$@\" > /dev/null; cat /proc/self/mountinfo > ../after";
    let run = stage.command(&[], &image, &["see"]);
    if sharing(name, script, &run).is_none() {
        return;
    }
    let mounts = |file: &str| fs::read_to_string(stage.place.path(file)).unwrap();
    assert!(mounts("before").lines().all(|line| line.contains(" shared:")), "{}", mounts("before"));
    assert_eq!(mounts("before"), mounts("after"), "mounts of the run appeared on the host");
    let script = "sub=$(echo ../store/trees/sha256-*/root/sub); \
         \"$@\" | { read -r ready; mount -t tmpfs host \"$sub\"; touch \"$sub/of-the-host\"; cat; }";
    let run = stage.command(&[], &image, &["list-later", "/sub"]);
    let Some((out, _)) = sharing(name, script, &run) else { return };
    assert_eq!(out.trim(), "{\"/sub\":[]}", "a mount of the host appeared inside");
    stage.is_unharmed();
}

/// What is mounted below the image beforehand cannot be written through it.
fn mounts_below_the_image(user: As) {
    let stage = Stage::new(user);
    let image = whole(&stage);
    stage.run(&[], &image, &["exit", "0"]).expect(0);
    let script = "mount -t tmpfs -o mode=0777 host ../store/trees/sha256-*/root/sub; \
         chmod 0755 ../store/trees/sha256-*/root/sub; \"$@\" 2>&1 || echo \"code $?\"; ls -A ../store/trees/sha256-*/root/sub";
    let run = stage.command(&[], &image, &["create", "/sub/x"]);
    let Some((out, _)) = sharing("a9_mounts_below_the_image", script, &run) else { return };
    let refused = out.contains("code 125") && out.contains("error[");
    assert!(refused || out.trim() == "{\"/sub/x\":30}", "{out}");
    stage.is_unharmed();
}
