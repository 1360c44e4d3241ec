//! Group H: evidence that is forged from inside, or that is about something else than what ran.

use crate::stage::{Stage, config, race, told};
use invarlock_tests::As;
use serde_json::{Value, json};
use std::fs;

attack!(h1_forged_manifest, forged_manifest);
attack!(h1_report_that_is_no_file, report_that_is_no_file);
attack!(h2_image_swapped_while_it_is_resolved, image_swapped);

#[track_caller]
fn nothing_is_kept(stage: &Stage) {
    assert_eq!(stage.place.names("work/reports/eval"), Vec::<String>::new());
    for run in stage.place.names("work/runs/source") {
        assert_eq!(stage.place.names(&format!("work/runs/source/{run}")), ["stderr.log"]);
    }
    stage.is_unharmed();
}

/// The evaluator leaves a manifest beside its report, and tries to leave one anywhere else.
fn forged_manifest(user: As) {
    let stage = Stage::new(user);
    let ran = stage.evaluate_by("forge", &[]).expect(3);
    ran.one_error(&["integrity", "baseline"]);
    nothing_is_kept(&stage);
}

/// The report is a link to a file of the container, or a FIFO without a writer. The evaluator's filter does not even let it
/// be made; what becomes of one that was is `only_regular_output_files_are_collected`'s.
fn report_that_is_no_file(user: As) {
    for attack in ["link", "fifo"] {
        let stage = Stage::new(user);
        let ran = stage.evaluate_by(attack, &[]).expect(3);
        ran.one_error(&["baseline"]);
        assert!(ran.err.contains("invarlock: denied "), "{}", ran.err);
        nothing_is_kept(&stage);
    }
}

/// A tag means another image from one moment to the next: what is said to have run is what ran.
fn image_swapped(user: As) {
    let stage = Stage::new(user);
    let layout = stage.layout("layout", |_| {});
    let index = layout.dir.join("index.json");
    let digest_of = |name: &str| {
        fs::write(&index, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        layout.image("test", &config(&json!({"Env": [format!("IMAGE={name}")]})));
        let digest = invarlock_tests::read_json(&index)["manifests"][0]["digest"].clone();
        fs::copy(&index, layout.dir.join(name)).unwrap();
        digest
    };
    let digests = [("one", digest_of("one")), ("other", digest_of("other"))];
    let image = format!("oci:{}:test", layout.dir.display());
    let other = layout.dir.join("one");
    race("images", user, &[(index.clone(), other)], || {
        let ran = stage.run(&["--json"], &image, &["see"]).expect(0);
        let said: Value = ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
        let environment = told(&ran)["environment"].clone();
        let of = digests.iter().find(|(name, _)| environment == json!([format!("IMAGE={name}")])).unwrap();
        assert_eq!(said["image"]["manifest_digest"], of.1, "{environment}");
        (1, 0)
    });
    // Named by its digest, no other image will do.
    fs::copy(layout.dir.join("other"), &index).unwrap();
    let pinned = format!("oci:{}@{}", layout.dir.display(), digests[0].1.as_str().unwrap());
    stage
        .run(&[], &pinned, &["see"])
        .expect(125)
        .one_error(&["error[input]", digests[0].1.as_str().unwrap()]);
}
