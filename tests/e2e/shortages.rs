//! Machines that are short of something: full file systems, no memory, no cgroups, a strange `/proc`, too few processes or descriptors. One
//! clear error, nothing half-written, nothing left; or a run by other means, which says so.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::{RAN, Stage, outcome};
use invarlock_tests::{As, Ran, both, is_root, layout, program, read_json, skip};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Both ways to run, on a machine that root makes short of something for a while.
fn poor(test: &str) -> Vec<Stage> {
    if !is_root() {
        skip(test, "making this machine short of something takes root");
        return Vec::new();
    }
    both().into_iter().map(Stage::new).collect()
}

/// Runs the command where root's script has changed the mounts.
fn with_mounts(stage: &Stage, script: &str, command: &Command) -> Ran {
    stage.end_of(stage.place.inside(&["--mount"], script, command), script)
}

/// A tmpfs over the directory, as its owner's, with these options; what is in it is gone.
fn small(dir: &Path, options: &str) -> String {
    let dir = dir.display();
    format!("own=$(stat -c 'uid=%u,gid=%g,mode=%a' {dir}); mount -t tmpfs -o $own,{options} none {dir}")
}

/// The same, with nothing free.
fn full(dir: &Path) -> String {
    format!("{}; head -c 1M /dev/zero >{}/fill 2>/dev/null || true", small(dir, "size=64k"), dir.display())
}

#[test]
fn full_state_directory_is_a_system_error() {
    for stage in poor("full_state_directory_is_a_system_error") {
        let dir = stage.runtime_dir();
        let state = dir.join("invarlock").display().to_string();
        let make = format!(
            "{}; mkdir -m 700 {state}; chown --reference={} {state}",
            small(&dir, "size=64k"),
            dir.display()
        );
        let fill = format!("{make}; head -c 1M /dev/zero >{}/fill 2>/dev/null || true", dir.display());
        let no_inodes = small(&dir, "nr_inodes=1");
        for (script, doing) in [
            (fill, format!("writing {state}/")),
            (no_inodes, format!("creating the state directory {state}")),
        ] {
            let needles = ["error[system]", &doing, "No space left on device", "free some space"];
            let ran = with_mounts(&stage, &script, &stage.run(&[]));
            assert!(!ran.out.contains(RAN), "{ran:?}");
            ran.expect(125).one_error(&needles);
            with_mounts(&stage, &script, &stage.evaluation(&["--quiet"])).expect(3).one_error(&needles);
            stage.no_evidence(&script);
        }
    }
}

#[test]
fn full_temporary_directories_fail_only_host_runs() {
    for stage in poor("full_temporary_directories_fail_only_host_runs") {
        let dirs = [Path::new("/dev/shm"), &stage.place.path("tmp"), Path::new("/var/tmp")];
        let script = dirs.map(full).join("; ");
        let ran = with_mounts(&stage, &script, &stage.run(&[])).expect(0);
        assert!(ran.out.contains(RAN), "{ran:?}");
        // A plain child's files lie in a directory of the host.
        let script = format!("{script}; {}", full(&stage.place.path("run")));
        let host = stage.evaluation(&["--quiet", "--execution-mode", "host"]);
        let needles = ["error[system]", "No space left on device", "free some space"];
        with_mounts(&stage, &script, &host).expect(3).one_error(&needles);
        stage.no_evidence(&script);
    }
}

/// The disk fills up at whatever file: run directories and evidence are whole or not there.
#[test]
fn evidence_on_a_full_disk_is_complete_or_absent() {
    // Files are written the same way as root and as an ordinary user.
    for stage in poor("evidence_on_a_full_disk_is_complete_or_absent").into_iter().take(1) {
        std::fs::create_dir(stage.place.work("disk")).unwrap();
        stage.place.give(&stage.place.work("disk"));
        let mut evaluation = stage.evaluation(&["--quiet", "--profile", "dev"]);
        evaluation.args(["--out", "disk/runs", "--report-out", "disk/eval"]);
        let list = "\"$@\" && code=0 || code=$?; find disk -type f -o -name '.*'; exit $code";
        // Space for nothing, or for some of: two run reports, the manifest of each, the evaluation's report, its manifest.
        let mut failed = 0;
        for size in [4, 300, 620, 1000, 1252, 1500, 1690, 4096] {
            let script = format!("{}; {list}", small(&stage.place.work("disk"), &format!("size={size}k")));
            let ran = with_mounts(&stage, &script, &evaluation);
            let files: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("disk/")).collect();
            let has = |name: &str| files.iter().filter(|f| f.ends_with(name)).count();
            // Every run directory has its manifest, and the evaluation all or nothing.
            let whole =
                (has("/report.json"), has("eval/runtime.manifest.json"), has("eval/evaluation.report.json"));
            assert_eq!(has("runtime.manifest.json") - whole.1, whole.0, "{size}k: {files:?}");
            assert_eq!(whole.1, whole.2, "{size}k: {files:?}");
            assert!(files.iter().all(|f| !f.contains("/.")), "{size}k: hidden files are left: {files:?}");
            if ran.code == 0 {
                assert_eq!(whole, (2, 1, 1), "{size}k: {files:?}");
                continue;
            }
            failed += 1;
            assert_eq!(whole.1, 0, "{size}k: evidence of a failed evaluation: {files:?}");
            ran.expect(3).one_error(&[
                "error[system]",
                "disk/",
                "No space left on device",
                "free some space",
            ]);
        }
        assert!((5..8).contains(&failed), "{failed} of 8 sizes were too small");
    }
}

/// The largest amount with which `run` does not succeed, and how that ended; every amount ends in a way that `is_clear` accepts.
fn threshold(
    amounts: std::ops::Range<u64>,
    run: impl Fn(u64) -> Ran,
    is_clear: impl Fn(&Ran) -> bool,
) -> Ran {
    let (mut poor, mut rich) = (amounts.start, amounts.end);
    let mut last = run(poor);
    assert_ne!(last.code, 0, "{poor} is enough");
    while rich - poor > (amounts.end - amounts.start) / 128 {
        let middle = poor.midpoint(rich);
        let ran = run(middle);
        if ran.code == 0 {
            assert!(ran.out.contains(RAN), "{middle}: {ran:?}");
            rich = middle;
        } else {
            assert!(is_clear(&ran), "{middle}: {ran:?}");
            assert!(!ran.out.contains(RAN), "{middle}: {ran:?}");
            (poor, last) = (middle, ran);
        }
    }
    assert!(rich < amounts.end, "no amount was enough: {last:?}");
    last
}

fn limited(stage: &Stage, limit: &str, amount: u64) -> Ran {
    let run = stage.run(&[]);
    let mut command = stage.place.command_of("prlimit".as_ref(), &[&format!("--{limit}={amount}"), "--"]);
    let program = run.get_args().position(|a| a == stage.place.path("bin/invarlock").as_os_str());
    let line: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
    command.args(&line[program.map_or(0, |i| i + 1)..]);
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stage.end_of(command, &format!("--{limit}={amount}"))
}

/// One error of ours, or the kernel or the allocator ended the program before it could say anything.
fn is_clear(ran: &Ran) -> bool {
    let errors = ran.err.lines().filter(|line| line.starts_with("error[")).count();
    match ran.code {
        125 => errors == 1,
        -1 => errors == 0,
        // prlimit could not start it.
        126 | 127 => ran.err.starts_with("prlimit:"),
        _ => false,
    }
}

#[test]
fn small_address_space_is_an_error_and_does_not_hang() {
    for stage in both().into_iter().map(Stage::new) {
        threshold(4 << 20..128 << 20, |bytes| limited(&stage, "as", bytes), is_clear);
        threshold(1 << 16..4 << 20, |bytes| limited(&stage, "data", bytes), is_clear);
    }
}

#[test]
fn descriptor_and_file_size_limits_are_reported() {
    for stage in both().into_iter().map(Stage::new) {
        let last = threshold(4..132, |count| limited(&stage, "nofile", count), is_clear);
        assert!(last.err.contains("Too many open files"), "{last:?}");
        if !stage.is_roots() {
            let small = limited(&stage, "fsize", 4096);
            small.expect(125).one_error(&["error[system]", "File too large", "ulimit -f"]);
        }
    }
}

#[test]
fn process_limit_is_reported() {
    // Root may have more than that.
    let stage = Stage::new(As::User);
    if !is_root() {
        return skip("process_limit_is_reported", "the tests' user has other processes");
    }
    let mut seen = Vec::new();
    for count in 1..10 {
        let ran = limited(&stage, "nproc", count);
        if ran.code == 0 {
            break;
        }
        assert!(is_clear(&ran), "{count}: {ran:?}");
        seen.extend((ran.code == 125).then_some(ran.err));
    }
    assert!(!seen.is_empty(), "no number of processes was too small");
    for err in seen {
        assert!(err.contains("Resource temporarily unavailable") && err.contains("ulimit -u"), "{err}");
        assert!(!err.contains("max_user_namespaces"), "{err}");
    }
}

/// A cgroup of version 1 for a launcher and all that comes of it.
struct Group(std::path::PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn small_memory_cgroup_ends_the_run_and_leaves_nothing() {
    let name = "small_memory_cgroup_ends_the_run_and_leaves_nothing";
    let memory = Path::new("/sys/fs/cgroup/memory");
    if !is_root() || !memory.join("tasks").exists() {
        return skip(name, "it takes root and a memory cgroup of version 1");
    }
    for stage in both().into_iter().map(Stage::new) {
        let group = Group(memory.join(format!("short-{}", std::process::id())));
        std::fs::create_dir(&group.0).unwrap();
        let run = |bytes: u64| {
            std::fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
            let script = format!("echo 0 > {}/tasks", group.0.display());
            let command = stage.place.inside(&["--uts"], &script, &stage.run(&["--timeout=1"]));
            stage.end_of(command, &format!("a limit of {bytes} bytes"))
        };
        // The kernel kills the largest process. If it kills the launcher, the supervisor cleans up; otherwise the launcher reports it. Or
        // it evicts the pages of programs as fast as they are read again, until the time limit.
        threshold(1 << 20..128 << 20, run, |ran| matches!(ran.code, -1 | 137) || is_clear(ran));
    }
}

/// Every cgroup mount read-only, or none at all.
fn cgroups(change: &str) -> String {
    format!("for m in $(awk '$3 ~ /^cgroup/ {{print $2}}' /proc/mounts); do {change} $m; done")
}

#[test]
fn without_writable_cgroups_limits_are_enforced_by_other_means() {
    let absences = [
        (cgroups("mount -o remount,bind,ro"), "Read-only file system"),
        (
            format!("{}; mount -t tmpfs none /sys/fs/cgroup", cgroups("umount -l")),
            "no cgroup hierarchy is mounted",
        ),
    ];
    for stage in poor("without_writable_cgroups_limits_are_enforced_by_other_means") {
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let run = |flags: &[&str], workload: &[&str]| {
            stage.command(&[&["runtime", "run"], flags, &[&image, "--", "/workload"], workload].concat())
        };
        for (script, why) in &absences {
            let ran = with_mounts(&stage, script, &stage.run(&["--json"])).expect(0);
            let told = outcome(&ran);
            let rows = told["observations"]["limits"]["value"].as_array().unwrap();
            for (name, by) in [("memory", "rlimit"), ("pids", "rlimit"), ("cpu", "affinity")] {
                let row = rows.iter().find(|row| row["name"] == name).unwrap();
                assert_eq!((&row["by"], &row["effective"]), (&json!(by), &row["asked"]), "{row}");
                // A user without delegation has another reason.
                let reason = row["reason"].as_str().unwrap();
                assert!(!stage.is_roots() || reason.contains(why), "{reason}");
            }
            for flag in ["--memory=64M", "--cpus=1"] {
                let ran = with_mounts(&stage, script, &stage.run(&[flag]));
                assert!(!ran.out.contains(RAN), "{ran:?}");
                ran.expect(125).one_error(&[
                    "error[unsupported]",
                    "control \"limits\": ",
                    "cannot be enforced",
                    "do without the flag",
                ]);
            }
            let bomb = with_mounts(&stage, script, &run(&["--pids=20"], &["fork-bomb"])).expect(0);
            assert!(bomb.out.trim().ends_with(" 11"), "{bomb:?}");
        }
        let (script, _) = &absences[0];
        with_mounts(&stage, script, &stage.evaluation(&["--quiet"])).expect(0);
        let manifest = read_json(&stage.place.work("reports/eval/runtime.manifest.json"));
        let rows = &manifest["context"]["sides"]["subject"]["observations"]["limits"]["value"];
        assert!(
            rows.as_array().unwrap().iter().any(|row| row["name"] == "memory" && row["by"] == "rlimit"),
            "{rows}"
        );
        stage.place.run(&["verify", "reports/eval"]).expect(0);
    }
}

#[test]
fn runs_with_hidepid_but_not_without_proc() {
    for stage in poor("runs_with_hidepid_but_not_without_proc") {
        for how in ["noaccess", "invisible"] {
            let hidden = format!("mount -t proc -o hidepid={how} proc /proc");
            let command =
                stage.place.inside(&["--mount", "--pid", "--fork"], &hidden, &stage.run(&["--json"]));
            let ran = stage.end_of(command, &hidden).expect(0);
            let told = outcome(&ran);
            assert!(ran.out.contains(RAN), "{ran:?}");
            assert_eq!(told["observations"]["init"]["value"]["dumpable"], false, "{told:#}");
            // A watchdog that does not see every process is none.
            let rows = told["observations"]["limits"]["value"].as_array().unwrap();
            let memory = rows.iter().find(|row| row["name"] == "memory").unwrap();
            let blind = memory["reason"].as_str().is_some_and(|reason| reason.contains("hidepid"));
            assert_eq!(blind, memory["by"] == "rlimit", "{memory}");
        }
        let none = "umount -l /proc";
        let needles = ["error[unsupported]", "control \"executable\": ", "/proc/self/exe", "mount /proc"];
        let ran = with_mounts(&stage, none, &stage.run(&[]));
        assert!(!ran.out.contains(RAN), "{ran:?}");
        ran.expect(125).one_error(&needles);
        let ran = with_mounts(&stage, none, &stage.evaluation(&["--quiet"])).expect(3);
        ran.one_error(&["error[unsupported]", "/proc", "mount /proc"]);
        stage.no_evidence(none);
    }
}

#[test]
fn image_build_succeeds_after_disk_space_is_freed() {
    for stage in poor("image_build_succeeds_after_disk_space_is_freed") {
        let store = stage.place.path("store");
        let dir = store.display();
        let again = format!("\"$@\" && exit 99 || true; rm {dir}/fill; mount -o remount,size=1g {dir}");
        let script = format!("{}; {again}", full(&store));
        let ran = with_mounts(&stage, &script, &stage.command(&["runtime", "image", "build"])).expect(0);
        ran.one_error(&["error[system]", "No space left on device"]);
    }
}
