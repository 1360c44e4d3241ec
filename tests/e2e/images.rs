//! Every verb of `runtime image`, as root and as an ordinary user, and runs of imported images.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, layout, program};
use serde_json::Value;
use std::path::{Path, PathBuf};

const DEFAULT: &str = "invarlock-runtime:local";

/// Standard output as JSON. Fails the test unless the exit code is 0.
fn successful_json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out))
}

/// The manifest digest that a verb printed.
fn manifest_digest(ran: &Ran) -> String {
    successful_json(ran)["manifest_digest"].as_str().unwrap().to_owned()
}

fn image_names(place: &Place) -> Vec<String> {
    let list = successful_json(&place.run(&["runtime", "image", "ls", "--json"]));
    let images = list["images"].as_array().unwrap().iter();
    images.map(|image| image["reference"].as_str().unwrap().to_owned()).collect()
}

fn run_all_verbs(user: As) {
    let place = Place::new(user);
    let image = |args: &[&str]| place.run(&[&["runtime", "image"][..], args].concat());
    let built = manifest_digest(&image(&["build", "--json"]));
    assert_eq!(manifest_digest(&image(&["tag", DEFAULT, "mine:1", "--json"])), built);
    assert_eq!(image_names(&place), [DEFAULT, "mine:1"]);
    let inspected = successful_json(&image(&["inspect", "mine:1"]));
    assert_eq!(inspected["manifest_digest"], built.as_str());

    // Export and import in every format.
    for (to, from) in [
        ("oci:out:it", "oci:out:it"),
        ("oci-archive:out.tar:it", "oci-archive:out.tar"),
        ("docker-archive:docker.tar:mine:1", "docker-archive:docker.tar:mine:1"),
    ] {
        assert_eq!(manifest_digest(&image(&["export", "mine:1", to, "--json"])), built, "{to}");
        // The format of Docker has no manifest. The import creates the same manifest as the build.
        assert_eq!(manifest_digest(&image(&["import", from, "again:1", "--json"])), built, "{to}");
        for run in ["again:1", from] {
            let args = ["runtime", "run", "--verify-image=full", run, "--", "--self-test"];
            let ran = place.run(&args);
            assert_eq!(ran.code, 0, "{run}: {}{}", ran.out, ran.err);
        }
    }
    assert_eq!(image_names(&place), ["again:1", DEFAULT, "mine:1"]);
    let second_export = image(&["export", "mine:1", "oci-archive:out.tar"]);
    assert_eq!(second_export.code, 2, "{}", second_export.err);

    let verified = successful_json(&image(&["verify", "--json"]));
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(successful_json(&image(&["rm", "again:1", "--json"]))["removed"][0], "again:1");
    let dry_run = successful_json(&image(&["gc", "--dry-run", "--json"]));
    assert_eq!(dry_run["bytes"], 0, "the other names refer to the same blobs: {dry_run}");
    assert_eq!(successful_json(&image(&["gc", "--json"]))["bytes"], 0);
    assert_eq!(image_names(&place), [DEFAULT, "mine:1"]);

    // `verify` reports an altered file of an extracted layer, and `verify --repair` restores it.
    let mut layers = std::fs::read_dir(place.path("store/trees")).unwrap().map(|entry| entry.unwrap().path());
    let layer = layers.find(|layer| layer.join("root/etc").is_dir()).unwrap();
    std::fs::write(layer.join("root/etc/ld.so.preload"), "x").unwrap();
    let verified = image(&["verify", "mine:1", "--json"]);
    assert_eq!(verified.code, 3, "{}", verified.out);
    assert!(verified.out.contains("ld.so.preload"), "{}", verified.out);
    let run = place.run(&["runtime", "run", "--verify-image=quick", "mine:1"]);
    assert_eq!(run.code, 125, "{}", run.err);
    assert!(run.err.contains("ld.so.preload"), "{}", run.err);
    let verified = image(&["verify"]);
    assert!(
        verified.err.contains("help: for altered layers, run `invarlock runtime image verify --repair`"),
        "{}",
        verified.err
    );
    assert_eq!(image(&["verify", "--repair"]).code, 0);
    assert_eq!(image(&["verify"]).code, 0);

    for (args, code) in [
        (&["import", "oci-archive:missing.tar"][..], 2),
        (&["import", "oci-archive:out.tar", "Bad Name"], 2),
        (&["tag", "none:such", "x:y"], 2),
        (&["rm", "none:such"], 2),
        (&["export", "mine:1", "mine:2"], 2),
        (&["import", "docker://registry.invalid/x:1"], 2),
        (&["pull", "docker://registry.invalid/x:1"], 2),
        (&["pull", "--allow-network", "docker://python:3"], 2),
        (&["push", "invarlock-runtime:local", "docker://registry.invalid/x:1"], 2),
    ] {
        let ran = image(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
    }
}

#[test]
fn image_verbs_work_for_root_and_for_a_user() {
    both().into_iter().for_each(run_all_verbs);
}

#[test]
fn imported_image_can_be_removed_while_it_runs() {
    for user in both() {
        let place = Place::new(user);
        let from = layout::of_program(&place, "image", &program("invarlock-workload"));
        let import = place.run(&["runtime", "image", "import", &from, "stranger:1"]);
        assert_eq!(import.code, 0, "{}", import.err);
        let run = ["runtime", "run", "--timeout=4", "stranger:1", "--", "/workload", "sleep"];
        let running = place.command(&run).stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(place.run(&["runtime", "image", "rm", "stranger:1"]).code, 0);
        let freed = successful_json(&place.run(&["runtime", "image", "gc", "--json"]));
        assert_eq!(freed["in_use"].as_array().unwrap().len(), 1, "{freed}");
        let ran = Ran::from(running.wait_with_output().unwrap());
        assert_eq!(ran.code, 125, "the run did not reach its time limit: {}", ran.err);
        assert!(ran.err.contains("time"), "{}", ran.err);
        let freed = successful_json(&place.run(&["runtime", "image", "gc", "--json"]));
        assert_eq!(
            (freed["in_use"].as_array().unwrap().len(), freed["trees"].as_array().unwrap().len()),
            (0, 1)
        );
    }
}

/// Adds all regular files below `dir` to `all`.
fn collect_files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => collect_files(&entry.path(), all),
            kind if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
}

/// Four alterations of a file: one flipped bit, truncated, empty, extended. No digest covers
/// `index.json` and `oci-layout`, so there the flipped bit is in a byte that has a meaning.
fn alterations(name: &str, good: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let last_byte_of =
        |text: &[u8]| good.windows(text.len()).position(|window| window == text).unwrap() + text.len() - 1;
    let position = match name {
        "index.json" => last_byte_of(b"sha256:") + 20,
        "oci-layout" => last_byte_of(b"1.0.0"),
        _ => good.len() / 2,
    };
    let mut flipped = good.to_vec();
    flipped[position] ^= 1;
    [
        ("flipped", flipped),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("extended", [good, b"x"].concat()),
    ]
}

#[test]
fn rejects_store_with_any_altered_file() {
    for user in both() {
        let place = Place::new(user);
        let from = layout::of_program(&place, "image", &program("invarlock-workload"));
        place.run(&["runtime", "image", "import", &from, "stranger:1"]).expect(0);
        let run =
            || place.run(&["runtime", "run", "--verify-image=full", "stranger:1", "--", "/workload", "noop"]);
        run().expect(0);
        let (store, mut all) = (place.path("store"), Vec::new());
        collect_files(&store, &mut all);
        // Full verification does not read the change stamps.
        all.retain(|file| !file.ends_with("stamps"));
        assert!(all.len() >= 8, "index, layout, three blobs, seal, record, a file: {all:?}");
        for file in all {
            let name = file.strip_prefix(&store).unwrap().to_str().unwrap();
            let good = std::fs::read(&file).unwrap();
            for (alteration, content) in alterations(name, &good) {
                std::fs::write(&file, content).unwrap();
                let ran = run();
                assert_eq!(ran.code, 125, "{name} {alteration}: {}", ran.err);
                let kinds = ["error[integrity]", "error[safety_violation]", "error[input]"];
                let unknown_version = name == "oci-layout" && ran.err.contains("error[unsupported]");
                let reported = unknown_version || kinds.iter().any(|kind| ran.err.contains(kind));
                assert!(reported, "{name} {alteration}: {}", ran.err);
                let verified = place.run(&["runtime", "image", "verify"]);
                assert_ne!(verified.code, 0, "{name} {alteration}: {}{}", verified.out, verified.err);
            }
            std::fs::write(&file, good).unwrap();
            run().expect(0);
        }
    }
}
