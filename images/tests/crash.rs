//! The store after a kill at any step and with concurrent processes: it is consistent and usable.
#![allow(clippy::print_stdout, reason = "a table")]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::*;
use invarlock_images::hooks::STEPS;
use invarlock_images::{Policy, RegistryName, RootfsOptions, Store, Verify};

/// The task of the subprocess and its directory.
const TASK: &str = "INVARLOCK_TEST_TASK";
const DIR: &str = "INVARLOCK_TEST_DIR";

/// The tasks that are killed at every step.
const TASKS: [&str; 6] = ["import", "pull", "run", "name", "export", "collect"];

/// Creates an image of three layers. The middle one is large enough for a kill at any point.
fn make_layout(dir: &Path) {
    let layout = TestLayout::new(&dir.join("layout"));
    let middle =
        (0..200).fold(Tar::default().dir("d/"), |tar, i| tar.file(&format!("d/{i}"), &"x".repeat(i * 37)));
    let archives = [
        Tar::default().file("a", "one").end(),
        middle.end(),
        Tar::default().file("a", "two").file("d/.wh.7", "").end(),
    ];
    let layers: Vec<_> = archives.into_iter().map(|archive| (GZIP, gzip(&archive), archive)).collect();
    let image = layout.image(&layers);
    layout.index(&[image]);
}

/// Runs a task that changes the store, in a subprocess that may be killed.
fn perform(task: &str, dir: &Path) {
    let store = Store::open(&dir.join("store")).expect("store");
    let from = format!("oci:{}", dir.join("layout").display());
    match task {
        "import" => {
            store.import(&reference(&from), Some("it:1"), Policy::default(), &|_| {}).expect("import");
        }
        "pull" => {
            let name = RegistryName::parse("localhost:1/it:1").expect("name");
            let registry = DirectoryRegistry(dir.join("layout"));
            store.pull(&name, &registry, Some("it:1"), Some(Policy::default()), &|_, _| {}).expect("pull");
        }
        "pulls" => (0..6).for_each(|round| {
            let text = format!("localhost:1/it:{}", std::process::id());
            let name = RegistryName::parse(&text).expect("name");
            let registry = DirectoryRegistry(dir.join("layout"));
            store.pull(&name, &registry, None, Some(Policy::default()), &|_, _| {}).expect("pull");
            let image = store.resolve(&reference(&text)).expect("resolve");
            drop(store.rootfs(&image, RootfsOptions::default()).expect("rootfs"));
            store.remove(&reference(&text)).expect("rm");
            if round % 2 == 1 {
                store.gc(false).expect("gc");
            }
        }),
        "run" => {
            let image = store.resolve(&reference(&from)).expect("resolve");
            store
                .rootfs(&image, RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() })
                .expect("rootfs");
        }
        "name" => {
            store.tag(&reference("it:1"), "it:2").expect("tag");
            store.remove(&reference("it:2")).expect("rm");
        }
        "export" => {
            let to = reference(&format!("oci:{}:it", dir.join("out").display()));
            store.export(&reference("it:1"), &to, &|_| {}).expect("export");
        }
        "collect" => {
            store.remove(&reference("it:1")).expect("rm");
            store.gc(false).expect("gc");
        }
        // `churn on` runs until it is killed.
        "churn" | "churn on" => (0..if task == "churn" { 6 } else { u32::MAX }).for_each(|round| {
            let tag = format!("it:{}", std::process::id());
            store.import(&reference(&from), Some(&tag), Policy::default(), &|_| {}).expect("import");
            let image = store.resolve(&reference(&tag)).expect("resolve");
            let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("rootfs");
            if round % 2 == 1 {
                store.remove(&reference(&tag)).expect("rm");
            }
            store.gc(false).expect("gc");
            assert!(rootfs.layers.iter().all(|layer| layer.is_dir()), "objects in use are kept");
        }),
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "a subprocess of other tests"]
fn run_task() {
    if let (Some(task), Some(dir)) = (std::env::var(TASK).ok(), std::env::var_os(DIR)) {
        perform(&task, dir.as_ref());
    }
}

fn start(task: &str, dir: &Path, kill_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("own program"));
    command.args(["--exact", "run_task", "--ignored", "--nocapture"]).env(TASK, task).env(DIR, dir);
    command.env_remove("INVARLOCK_TEST_KILL_AT").stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(step) = kill_at {
        command.env("INVARLOCK_TEST_KILL_AT", step);
    }
    command.spawn().expect("subprocess")
}

/// Whether the process was killed. Every other failure fails the test.
fn finish(child: Child, what: &str) -> bool {
    let output = child.wait_with_output().expect("wait");
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    killed
}

/// Asserts that every object is correct, that the store can be used, and that garbage collection removes every unreferenced object.
fn assert_usable(dir: &Path, what: &str) {
    let store = Store::open(&dir.join("store")).expect("store");
    let problems: Vec<_> = store
        .verify(None, false)
        .expect("verify")
        .into_iter()
        .filter(|checked| checked.problem.is_some())
        .collect();
    assert!(problems.is_empty(), "{what}: {problems:?}");
    perform("import", dir);
    perform("pull", dir);
    let image = store.resolve(&reference("it:1")).expect("resolve");
    store
        .rootfs(&image, RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() })
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    for image in store.list().expect("list") {
        store.remove(&reference(&image.reference)).expect("rm");
    }
    store.gc(false).expect("gc");
    assert_eq!(
        object_count(&store),
        0,
        "{what}: {:?}",
        fs::read_dir(store.root().join("trees")).expect("list").collect::<Vec<_>>()
    );
}

/// The number of objects in a store without images.
fn object_count(store: &Store) -> usize {
    let names = |place: &str| {
        let entries = fs::read_dir(store.root().join(place)).expect("list");
        entries
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect::<Vec<_>>()
    };
    let known = ["blobs", "trees", "index.json", "oci-layout"];
    names("blobs/sha256").len()
        + names("trees").iter().filter(|name| *name != "empty").count()
        + names(".").iter().filter(|name| !known.contains(&name.as_str())).count()
}

#[test]
fn store_is_consistent_after_kill_at_every_step() {
    if cfg!(not(debug_assertions)) {
        return println!(
            "SKIPPED store_is_consistent_after_kill_at_every_step: only debug builds have the steps"
        );
    }
    for step in STEPS {
        let mut killed = 0;
        for task in TASKS {
            let dir = scratch();
            make_layout(dir.path());
            if !["import", "pull", "run"].contains(&task) {
                perform("import", dir.path());
            }
            killed += usize::from(finish(start(task, dir.path(), Some(step)), step));
            if task == "export" {
                // A second export completes the partial layout.
                perform(task, dir.path());
                let out = reference(&format!("oci:{}:it", dir.path().join("out").display()));
                let store = Store::open(&dir.path().join("store")).expect("store");
                let digests =
                    [out, reference("it:1")].map(|name| store.resolve(&name).expect(step).manifest_digest);
                assert_eq!(digests[0], digests[1], "{step}");
            }
            assert_usable(dir.path(), &format!("{task} killed at {step}"));
        }
        println!("{step}: killed in {killed} of {} tasks, the store is consistent", TASKS.len());
        assert!(killed > 0, "{step} is reached by no task");
    }
}

#[test]
fn store_is_consistent_after_kill_at_any_time() {
    let dir = scratch();
    make_layout(dir.path());
    for round in 0..30u64 {
        let mut child = start("churn on", dir.path(), None);
        std::thread::sleep(std::time::Duration::from_millis(5 + round * 7));
        child.kill().expect("kill");
        assert!(finish(child, "churn"), "it exited before the kill");
    }
    let store = Store::open(&dir.path().join("store")).expect("store");
    for image in store.list().expect("list") {
        store.remove(&reference(&image.reference)).expect("rm");
    }
    assert_usable(dir.path(), "killed at any moment");
}

#[test]
fn four_concurrent_processes_agree_and_keep_objects_in_use() {
    let dir = scratch();
    make_layout(dir.path());
    for task in ["churn", "pulls"] {
        let children: Vec<Child> = (0..4).map(|_| start(task, dir.path(), None)).collect();
        for child in children {
            assert!(!finish(child, task));
        }
    }
    assert_eq!(Store::open(&dir.path().join("store")).expect("store").list().expect("list").len(), 0);
    assert_usable(dir.path(), "four at once");
}
