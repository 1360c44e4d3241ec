//! Every verb of `runtime image`, as root and as an ordinary user, and runs of what it brings in.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, layout, program};
use serde_json::Value;
use std::path::{Path, PathBuf};

const DEFAULT: &str = "invarlock-runtime:local";

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out))
}

/// The digest in what a verb printed.
fn digest(ran: &Ran) -> String {
    json(ran)["manifest_digest"].as_str().unwrap().to_owned()
}

fn images(place: &Place) -> Vec<String> {
    let list = json(&place.run(&["runtime", "image", "ls", "--json"]));
    list["images"].as_array().unwrap().iter().map(|it| it["reference"].as_str().unwrap().to_owned()).collect()
}

fn through_all_verbs(user: As) {
    let place = Place::new(user);
    let image = |args: &[&str]| place.run(&[&["runtime", "image"][..], args].concat());
    let built = digest(&image(&["build", "--json"]));
    assert_eq!(digest(&image(&["tag", DEFAULT, "mine:1", "--json"])), built);
    assert_eq!(images(&place), [DEFAULT, "mine:1"]);
    let inspected = json(&image(&["inspect", "mine:1"]));
    assert_eq!(inspected["manifest_digest"], built.as_str());

    // Out in every format and in again: a machine without a network gets it as one file.
    for (to, from) in [
        ("oci:out:it", "oci:out:it"),
        ("oci-archive:out.tar:it", "oci-archive:out.tar"),
        ("docker-archive:docker.tar:mine:1", "docker-archive:docker.tar:mine:1"),
    ] {
        assert_eq!(digest(&image(&["export", "mine:1", to, "--json"])), built, "{to}");
        // Docker's format has no manifest; the one that is made for it is the one that the image was built with.
        assert_eq!(digest(&image(&["import", from, "again:1", "--json"])), built, "{to}");
        for run in ["again:1", from] {
            let args =
                ["runtime", "run", "--verify-image=full", run, "--", "/invarlock-evaluator", "--self-test"];
            let ran = place.run(&args);
            assert_eq!(ran.code, 0, "{run}: {}{}", ran.out, ran.err);
        }
    }
    assert_eq!(images(&place), ["again:1", DEFAULT, "mine:1"]);
    let there = image(&["export", "mine:1", "oci-archive:out.tar"]);
    assert_eq!(there.code, 2, "{}", there.err);

    let verified = json(&image(&["verify", "--json"]));
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(json(&image(&["rm", "again:1", "--json"]))["removed"][0], "again:1");
    let would = json(&image(&["gc", "--dry-run", "--json"]));
    assert_eq!(would["bytes"], 0, "the other names need all of it: {would}");
    assert_eq!(json(&image(&["gc", "--json"]))["bytes"], 0);
    assert_eq!(images(&place), [DEFAULT, "mine:1"]);

    // What is altered is named, with exit code 3, and made right again.
    let tree = std::fs::read_dir(place.path("store/trees")).unwrap().map(|it| it.unwrap().path());
    let tree = tree.into_iter().find(|it| it.join("root/etc").is_dir()).unwrap();
    std::fs::write(tree.join("root/etc/ld.so.preload"), "x").unwrap();
    let wrong = image(&["verify", "mine:1", "--json"]);
    assert_eq!(wrong.code, 3, "{}", wrong.out);
    assert!(wrong.out.contains("ld.so.preload"), "{}", wrong.out);
    let run = place.run(&["runtime", "run", "--verify-image=quick", "mine:1"]);
    assert_eq!(run.code, 125, "{}", run.err);
    assert!(run.err.contains("ld.so.preload"), "{}", run.err);
    assert_eq!(image(&["verify", "--repair"]).code, 0);
    assert_eq!(image(&["verify"]).code, 0);

    for (bad, code) in [
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
        let ran = image(bad);
        assert_eq!(ran.code, code, "{bad:?}: {}", ran.err);
    }
}

#[test]
fn image_verbs_work_for_root_and_for_a_user() {
    both().into_iter().for_each(through_all_verbs);
}

#[test]
fn imported_image_can_be_removed_while_it_runs() {
    for user in both() {
        let place = Place::new(user);
        let from = layout::of_program(&place, "image", &program("invarlock-workload"));
        let imported = place.run(&["runtime", "image", "import", &from, "stranger:1"]);
        assert_eq!(imported.code, 0, "{}", imported.err);
        let run = ["runtime", "run", "--timeout=4", "stranger:1", "--", "/workload", "sleep"];
        let running = place.command(&run).stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(place.run(&["runtime", "image", "rm", "stranger:1"]).code, 0);
        let freed = json(&place.run(&["runtime", "image", "gc", "--json"]));
        assert_eq!(freed["in_use"].as_array().unwrap().len(), 1, "{freed}");
        let ran = Ran::from(running.wait_with_output().unwrap());
        assert_eq!(ran.code, 125, "it ran until its time was up: {}", ran.err);
        assert!(ran.err.contains("time"), "{}", ran.err);
        let freed = json(&place.run(&["runtime", "image", "gc", "--json"]));
        assert_eq!(
            (freed["in_use"].as_array().unwrap().len(), freed["trees"].as_array().unwrap().len()),
            (0, 1)
        );
    }
}

fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            it if it.is_dir() => files(&entry.path(), all),
            it if it.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
}

/// A flipped bit, cut short, emptied, longer. In the two documents that no digest covers it is a byte that says something.
fn altered(name: &str, good: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let says = |text: &[u8]| good.windows(text.len()).position(|it| it == text).unwrap() + text.len() - 1;
    let at = match name {
        "index.json" => says(b"sha256:") + 20,
        "oci-layout" => says(b"1.0.0"),
        _ => good.len() / 2,
    };
    let mut flipped = good.to_vec();
    flipped[at] ^= 1;
    [
        ("flipped", flipped),
        ("cut", good[..good.len() - 1].to_vec()),
        ("emptied", Vec::new()),
        ("longer", [good, b"x"].concat()),
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
        files(&store, &mut all);
        // Stamps are no evidence: the full way does not look at them.
        all.retain(|file| !file.ends_with("stamps"));
        assert!(all.len() >= 8, "index, layout, three blobs, seal, record, a file: {all:?}");
        for file in all {
            let name = file.strip_prefix(&store).unwrap().to_str().unwrap();
            let good = std::fs::read(&file).unwrap();
            for (what, bad) in altered(name, &good) {
                std::fs::write(&file, bad).unwrap();
                let ran = run();
                assert_eq!(ran.code, 125, "{name} {what}: {}", ran.err);
                let kinds = ["error[integrity]", "error[safety_violation]", "error[input]"];
                let version = name == "oci-layout" && ran.err.contains("error[unsupported]");
                assert!(version || kinds.iter().any(|it| ran.err.contains(it)), "{name} {what}: {}", ran.err);
                let verified = place.run(&["runtime", "image", "verify"]);
                assert_ne!(verified.code, 0, "{name} {what}: {}{}", verified.out, verified.err);
            }
            std::fs::write(&file, good).unwrap();
            run().expect(0);
        }
    }
}
