//! Shortages: full file systems, little memory, no writable cgroups, a restricted or missing
//! `/proc`, few processes or descriptors. The run ends with one clear error and leaves no partial
//! files, or it enforces its limits by other means and records them.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::stage::{RAN, Stage, outcome};
use invarlock_tests::{As, Ran, both, is_root, layout, program, read_json, skip};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// A stage for each user, or none if the tests do not run as root, which these shortages need.
fn stages_as_root(test: &str) -> Vec<Stage> {
    if !is_root() {
        skip(test, "creating a shortage needs root");
        return Vec::new();
    }
    both().into_iter().map(Stage::new).collect()
}

/// Runs the command in a mount namespace that root has prepared with `script`.
fn run_with_mounts(stage: &Stage, script: &str, command: &Command) -> Ran {
    stage.end_of(stage.place.inside(&["--mount"], script, command), script)
}

/// A script that mounts an empty tmpfs with these options over the directory. Owner and mode stay
/// the same.
fn mount_tmpfs(dir: &Path, options: &str) -> String {
    let dir = dir.display();
    format!("own=$(stat -c 'uid=%u,gid=%g,mode=%a' {dir}); mount -t tmpfs -o $own,{options} none {dir}")
}

/// The same with a tmpfs that has no free space.
fn mount_full_tmpfs(dir: &Path) -> String {
    format!(
        "{}; head -c 1M /dev/zero >{}/.fill 2>/dev/null || true",
        mount_tmpfs(dir, "size=64k"),
        dir.display()
    )
}

#[test]
fn full_state_directory_is_a_system_error() {
    for stage in stages_as_root("full_state_directory_is_a_system_error") {
        let dir = stage.runtime_dir();
        let state = dir.join("invarlock").display().to_string();
        let mount_and_create = format!(
            "{}; mkdir -m 700 {state}; chown --reference={} {state}",
            mount_tmpfs(&dir, "size=64k"),
            dir.display()
        );
        let fill =
            format!("{mount_and_create}; head -c 1M /dev/zero >{}/.fill 2>/dev/null || true", dir.display());
        let no_inodes = mount_tmpfs(&dir, "nr_inodes=1");
        let no_directory = format!("creating the state directory {state}");
        for (script, of_run, of_evaluation) in [
            (fill, format!("registering the run in {state}/running"), format!("writing {state}/")),
            (no_inodes, no_directory.clone(), no_directory),
        ] {
            let needles = |context| ["error[system]", context, "No space left on device", "free some space"];
            let ran = run_with_mounts(&stage, &script, &stage.run(&[]));
            assert!(!ran.out.contains(RAN), "{ran:?}");
            ran.expect(125).one_error(&needles(&of_run));
            let ran = run_with_mounts(&stage, &script, &stage.evaluation(&["--quiet"]));
            ran.expect(3).one_error(&needles(&of_evaluation));
            stage.no_evidence(&script);
        }
    }
}

#[test]
fn full_temporary_directories_fail_only_host_runs() {
    for stage in stages_as_root("full_temporary_directories_fail_only_host_runs") {
        let dirs = [Path::new("/dev/shm"), &stage.place.path("tmp"), Path::new("/var/tmp")];
        let script = dirs.map(mount_full_tmpfs).join("; ");
        let ran = run_with_mounts(&stage, &script, &stage.run(&[])).expect(0);
        assert!(ran.out.contains(RAN), "{ran:?}");
        // Host execution keeps its files in a directory of the host.
        let script = format!("{script}; {}", mount_full_tmpfs(&stage.place.path("run")));
        let host = stage.evaluation(&["--quiet", "--execution-mode", "host"]);
        let needles = ["error[system]", "No space left on device", "free some space"];
        run_with_mounts(&stage, &script, &host).expect(3).one_error(&needles);
        stage.no_evidence(&script);
    }
}

/// The disk fills up at each of the files. Run directories and evidence are complete or absent.
#[test]
fn evidence_on_a_full_disk_is_complete_or_absent() {
    // One user is enough: root and an ordinary user write files in the same way.
    for stage in stages_as_root("evidence_on_a_full_disk_is_complete_or_absent").into_iter().take(1) {
        std::fs::create_dir(stage.place.work("disk")).unwrap();
        stage.place.give(&stage.place.work("disk"));
        let mut evaluation = stage.evaluation(&["--quiet", "--profile", "dev"]);
        evaluation.args(["--out", "disk/runs", "--report-out", "disk/eval"]);
        let list = "\"$@\" && code=0 || code=$?; find disk -type f -o -name '.*'; exit $code";
        // Each size is enough for some of these files: a report and a manifest of each of the two
        // runs, then the report and the manifest of the evaluation.
        let mut failed = 0;
        for size in [4, 300, 620, 1000, 1252, 1500, 1690, 4096] {
            let script =
                format!("{}; {list}", mount_tmpfs(&stage.place.work("disk"), &format!("size={size}k")));
            let ran = run_with_mounts(&stage, &script, &evaluation);
            let files: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("disk/")).collect();
            let has = |name: &str| files.iter().filter(|f| f.ends_with(name)).count();
            // Every run directory has a manifest. The evaluation has both of its files or none.
            let (run_reports, manifests, reports) =
                (has("/report.json"), has("eval/runtime.manifest.json"), has("eval/evaluation.report.json"));
            assert_eq!(has("runtime.manifest.json") - manifests, run_reports, "{size}k: {files:?}");
            assert_eq!(manifests, reports, "{size}k: {files:?}");
            // The losses that were measured are kept, so that the same command goes on with more space.
            let hidden = files.iter().filter(|f| f.contains("/.") && !f.contains("/.journal-"));
            assert_eq!(hidden.count(), 0, "{size}k: hidden files are left: {files:?}");
            if ran.code == 0 {
                assert_eq!((run_reports, manifests, reports), (2, 1, 1), "{size}k: {files:?}");
                continue;
            }
            failed += 1;
            assert_eq!(manifests, 0, "{size}k: evidence of a failed evaluation: {files:?}");
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

/// Searches for the largest amount with which `run` fails, and returns that failed run. Every
/// failure on the way must satisfy `is_clear`.
fn largest_failing_amount(
    amounts: std::ops::Range<u64>,
    run: impl Fn(u64) -> Ran,
    is_clear: impl Fn(&Ran) -> bool,
) -> Ran {
    let (mut failing, mut enough) = (amounts.start, amounts.end);
    let mut last = run(failing);
    assert_ne!(last.code, 0, "{failing} is enough");
    while enough - failing > (amounts.end - amounts.start) / 128 {
        let middle = failing.midpoint(enough);
        let ran = run(middle);
        if ran.code == 0 {
            assert!(ran.out.contains(RAN), "{middle}: {ran:?}");
            enough = middle;
        } else {
            assert!(is_clear(&ran), "{middle}: {ran:?}");
            // A kill can come after the workload has run.
            assert!(matches!(ran.code, -1 | 137) || !ran.out.contains(RAN), "{middle}: {ran:?}");
            (failing, last) = (middle, ran);
        }
    }
    assert!(enough < amounts.end, "no amount was enough: {last:?}");
    last
}

/// Runs the default image with a resource limit that `prlimit` sets on the launcher.
fn run_with_rlimit(stage: &Stage, limit: &str, amount: u64) -> Ran {
    let run = stage.run(&[]);
    let mut command = stage.place.command_of("prlimit".as_ref(), &[&format!("--{limit}={amount}"), "--"]);
    let program = run.get_args().position(|a| a == stage.place.path("bin/invarlock").as_os_str());
    let line: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
    command.args(&line[program.map_or(0, |i| i + 1)..]);
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stage.end_of(command, &format!("--{limit}={amount}"))
}

/// The launcher printed one error, or the kernel or the allocator ended it before it could print
/// one.
fn is_one_error_or_killed(ran: &Ran) -> bool {
    let errors = ran.err.lines().filter(|line| line.starts_with("error[")).count();
    match ran.code {
        125 => errors == 1,
        -1 => errors == 0,
        // prlimit could not start the launcher, or the dynamic linker could not load it.
        126 | 127 => ran.err.starts_with("prlimit:") || ran.err.starts_with("Fatal glibc error:"),
        _ => false,
    }
}

#[test]
fn small_address_space_is_an_error_and_does_not_hang() {
    for stage in both().into_iter().map(Stage::new) {
        largest_failing_amount(
            4 << 20..128 << 20,
            |bytes| run_with_rlimit(&stage, "as", bytes),
            is_one_error_or_killed,
        );
        largest_failing_amount(
            1 << 16..4 << 20,
            |bytes| run_with_rlimit(&stage, "data", bytes),
            is_one_error_or_killed,
        );
    }
}

#[test]
fn descriptor_and_file_size_limits_are_reported() {
    for stage in both().into_iter().map(Stage::new) {
        let last = largest_failing_amount(
            4..132,
            |count| run_with_rlimit(&stage, "nofile", count),
            is_one_error_or_killed,
        );
        assert!(last.err.contains("Too many open files"), "{last:?}");
        // No program is copied. A state file has less than a page.
        run_with_rlimit(&stage, "fsize", 4096).expect(0);
        let ran = run_with_rlimit(&stage, "fsize", 0);
        ran.expect(125).one_error(&["error[system]", "File too large", "ulimit -f"]);
    }
}

#[test]
fn process_limit_is_reported() {
    // The limit does not apply to root.
    let stage = Stage::new(As::User);
    if !is_root() {
        return skip("process_limit_is_reported", "the tests' user has other processes");
    }
    let mut errors = Vec::new();
    for count in 1..10 {
        let ran = run_with_rlimit(&stage, "nproc", count);
        if ran.code == 0 {
            break;
        }
        assert!(is_one_error_or_killed(&ran), "{count}: {ran:?}");
        errors.extend((ran.code == 125).then_some(ran.err));
    }
    assert!(!errors.is_empty(), "no number of processes was too small");
    for err in errors {
        assert!(err.contains("Resource temporarily unavailable") && err.contains("ulimit -u"), "{err}");
        assert!(!err.contains("max_user_namespaces"), "{err}");
    }
}

/// A version 1 cgroup for a launcher and its descendants.
struct CgroupV1(std::path::PathBuf);

impl Drop for CgroupV1 {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn small_memory_cgroup_ends_the_run_and_leaves_nothing() {
    let name = "small_memory_cgroup_ends_the_run_and_leaves_nothing";
    let memory = Path::new("/sys/fs/cgroup/memory");
    if !is_root() || !memory.join("tasks").exists() {
        return skip(name, "it needs root and a version 1 memory cgroup");
    }
    for stage in both().into_iter().map(Stage::new) {
        let group = CgroupV1(memory.join(format!("short-{}", std::process::id())));
        std::fs::create_dir(&group.0).unwrap();
        let run = |bytes: u64| {
            std::fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
            let script = format!("echo 0 > {}/tasks", group.0.display());
            let command = stage.place.inside(&["--uts"], &script, &stage.run(&["--timeout=1"]));
            stage.end_of(command, &format!("a limit of {bytes} bytes"))
        };
        // The kernel kills the largest process. If that is the launcher, the supervisor cleans up;
        // otherwise the launcher reports the kill. Instead of killing, the kernel may evict the
        // pages of programs as fast as they are read again, until the time limit.
        largest_failing_amount(1 << 20..128 << 20, run, |ran| {
            matches!(ran.code, -1 | 137) || is_one_error_or_killed(ran)
        });
    }
}

/// A script that runs the command `change` with each cgroup mount point.
fn for_each_cgroup_mount(change: &str) -> String {
    format!("for m in $(awk '$3 ~ /^cgroup/ {{print $2}}' /proc/mounts); do {change} $m; done")
}

#[test]
fn without_writable_cgroups_limits_are_enforced_by_other_means() {
    let cases = [
        (for_each_cgroup_mount("mount -o remount,bind,ro"), "Read-only file system"),
        (
            format!("{}; mount -t tmpfs none /sys/fs/cgroup", for_each_cgroup_mount("umount -l")),
            "no cgroup hierarchy is mounted",
        ),
    ];
    for stage in stages_as_root("without_writable_cgroups_limits_are_enforced_by_other_means") {
        let image = layout::of_program(&stage.place, "image", &program("invarlock-workload"));
        let run = |flags: &[&str], workload: &[&str]| {
            stage.command(&[&["runtime", "run"], flags, &[&image, "--", "/workload"], workload].concat())
        };
        for (script, why) in &cases {
            let ran = run_with_mounts(&stage, script, &stage.run(&["--json"])).expect(0);
            let outcome = outcome(&ran);
            let limits = outcome["observations"]["limits"]["value"].as_array().unwrap();
            for (name, by) in [("memory", "rlimit"), ("pids", "rlimit"), ("cpu", "affinity")] {
                let limit = limits.iter().find(|limit| limit["name"] == name).unwrap();
                assert_eq!((&limit["by"], &limit["effective"]), (&json!(by), &limit["asked"]), "{limit}");
                // For a user without a delegated cgroup the reason is another one.
                let reason = limit["reason"].as_str().unwrap();
                assert!(!stage.is_roots() || reason.contains(why), "{reason}");
            }
            for flag in ["--memory=64M", "--cpus=1"] {
                let ran = run_with_mounts(&stage, script, &stage.run(&[flag]));
                assert!(!ran.out.contains(RAN), "{ran:?}");
                ran.expect(125).one_error(&[
                    "error[unsupported]",
                    "control \"limits\": ",
                    "cannot be enforced",
                    "do without the flag",
                ]);
            }
            let fork_bomb = run_with_mounts(&stage, script, &run(&["--pids=20"], &["fork-bomb"])).expect(0);
            assert!(fork_bomb.out.trim().ends_with(" 11"), "{fork_bomb:?}");
        }
        let (script, _) = &cases[0];
        run_with_mounts(&stage, script, &stage.evaluation(&["--quiet"])).expect(0);
        let manifest = read_json(&stage.place.work("reports/eval/runtime.manifest.json"));
        let limits = &manifest["context"]["sides"]["subject"]["observations"]["limits"]["value"];
        assert!(
            limits
                .as_array()
                .unwrap()
                .iter()
                .any(|limit| limit["name"] == "memory" && limit["by"] == "rlimit"),
            "{limits}"
        );
        stage.place.run(&["verify", "reports/eval"]).expect(0);
    }
}

#[test]
fn runs_with_hidepid_but_not_without_proc() {
    for stage in stages_as_root("runs_with_hidepid_but_not_without_proc") {
        for mode in ["noaccess", "invisible"] {
            let script = format!("mount -t proc -o hidepid={mode} proc /proc");
            let command =
                stage.place.inside(&["--mount", "--pid", "--fork"], &script, &stage.run(&["--json"]));
            let ran = stage.end_of(command, &script).expect(0);
            let outcome = outcome(&ran);
            assert!(ran.out.contains(RAN), "{ran:?}");
            assert_eq!(outcome["observations"]["init"]["value"]["dumpable"], false, "{outcome:#}");
            // The memory watchdog needs to read every process. If it cannot, an rlimit replaces it.
            let limits = outcome["observations"]["limits"]["value"].as_array().unwrap();
            let memory = limits.iter().find(|limit| limit["name"] == "memory").unwrap();
            let watchdog_blocked = memory["reason"].as_str().is_some_and(|reason| reason.contains("hidepid"));
            assert_eq!(watchdog_blocked, memory["by"] == "rlimit", "{memory}");
        }
        let script = "umount -l /proc";
        let needles = ["error[unsupported]", "control \"executable\": ", "/proc/self/exe", "mount /proc"];
        let ran = run_with_mounts(&stage, script, &stage.run(&[]));
        assert!(!ran.out.contains(RAN), "{ran:?}");
        ran.expect(125).one_error(&needles);
        let ran = run_with_mounts(&stage, script, &stage.evaluation(&["--quiet"])).expect(3);
        ran.one_error(&["error[unsupported]", "/proc", "mount /proc"]);
        stage.no_evidence(script);
    }
}

#[test]
fn image_build_succeeds_after_disk_space_is_freed() {
    for stage in stages_as_root("image_build_succeeds_after_disk_space_is_freed") {
        let store = stage.place.path("store");
        let dir = store.display();
        let build_free_space_and_rebuild =
            format!("\"$@\" && exit 99 || true; rm {dir}/.fill; mount -o remount,size=1g {dir}");
        let script = format!("{}; {build_free_space_and_rebuild}", mount_full_tmpfs(&store));
        let ran = run_with_mounts(&stage, &script, &stage.command(&["runtime", "image", "build"])).expect(0);
        ran.one_error(&["error[system]", "No space left on device"]);
    }
}
