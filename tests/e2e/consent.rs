//! What the user agreed to when an image was added to the store: it is shown, and holds for each run of the image.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, both, program};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// An archive of a root directory with the workload that `fill`, a script, completes.
fn archive(place: &Place, fill: &str) -> PathBuf {
    let (root, archive) = (place.path("root"), place.path("root.tar"));
    fs::create_dir(&root).unwrap();
    fs::copy(program("invarlock-workload"), root.join("workload")).unwrap();
    let tar = "tar --sparse --owner=0 --group=0 --mode=a+rX -cf ../root.tar .";
    let made =
        Command::new("sh").args(["-euc", &format!("{fill}\n{tar}")]).current_dir(&root).status().unwrap();
    assert!(made.success());
    archive
}

/// The consent that `inspect` and a run show.
fn shown(place: &Place, image: &str) -> [Value; 2] {
    let inspected = place.run(&["runtime", "image", "inspect", "--json", image]).expect(0).json();
    let indented: Value =
        serde_json::from_str(&place.run(&["runtime", "image", "inspect", image]).expect(0).out).unwrap();
    assert_eq!(indented, inspected);
    let ran = place.run(&["runtime", "run", "--json", image, "--", "/workload", "noop"]).expect(0);
    let record = ran.err.lines().find(|line| line.starts_with('{')).unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    [inspected["consent"].clone(), record["image"]["consent"].clone()]
}

#[test]
fn devices_that_are_left_out_are_shown() {
    for user in both() {
        let place = Place::new(user);
        let archive = archive(&place, "mkfifo pipe");
        let build = |flags: &[&str]| {
            let from = ["runtime", "image", "build", "--from", archive.to_str().unwrap(), "--name", "a:1"];
            place.run(&[&from, flags].concat())
        };
        build(&[]).expect(3).one_error(&["--drop-devices"]);
        build(&["--drop-devices"]).expect(0);
        assert_eq!(shown(&place, "a:1"), [json!({"drop_devices": true}), json!({"drop_devices": true})]);
        place.hold("invarlock-workload");
        let inspected = place.run(&["runtime", "image", "inspect", "--json"]).expect(0).json();
        assert_eq!(inspected.get("consent"), None);
    }
}

#[test]
fn files_of_more_than_the_usual_size_are_allowed_by_an_option() {
    // Each step hashes the whole file, so this is tried by one user.
    let place = Place::new(As::User);
    let archive = archive(&place, "truncate -s 4100M large");
    let build = |flags: &[&str]| {
        let from = ["runtime", "image", "build", "--from", archive.to_str().unwrap(), "--name", "a:1"];
        place.run(&[&from, flags].concat())
    };
    build(&[]).expect(3).one_error(&["--layer-size"]);
    build(&["--layer-size", "4G"]).expect(3).one_error(&["--layer-size"]);
    let misused = build(&["--layer-size", "65G"]).expect(2);
    assert!(misused.err.contains("the maximum is 64G"), "{misused:?}");
    build(&["--layer-size", "6G"]).expect(0);
    let consent = json!({"layer_size": 6_u64 << 30});
    // Elsewhere the same image needs it again.
    place.run(&["runtime", "image", "export", "a:1", "oci:layout:a"]).expect(0);
    place.run(&["runtime", "image", "rm", "a:1"]).expect(0);
    place.run(&["runtime", "image", "gc"]).expect(0);
    let import = ["runtime", "image", "import", "oci:layout:a", "b:1"];
    place.run(&import).expect(3).one_error(&["--layer-size"]);
    place.run(&[&import[..], &["--layer-size", "6G"]].concat()).expect(0);
    assert_eq!(shown(&place, "b:1"), [consent.clone(), consent]);
}
