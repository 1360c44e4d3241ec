//! Group H: evidence that a workload forges, or that describes another image than the one that ran.

use crate::stage::{Stage, config, printed_json, race};
use invarlock_tests::As;
use serde_json::{Value, json};
use std::fs;

attack!(h1_forged_manifest, forged_manifest);
attack!(h1_report_is_not_a_regular_file, report_is_not_a_regular_file);
attack!(h2_image_swapped_during_resolution, image_swapped);

#[track_caller]
fn assert_no_evidence(stage: &Stage) {
    assert_eq!(stage.place.names("work/reports/eval"), Vec::<String>::new());
    for run in stage.place.names("work/runs/source") {
        assert_eq!(stage.place.names(&format!("work/runs/source/{run}")), ["stderr.log"]);
    }
    stage.assert_unchanged();
}

/// The evaluator writes a manifest next to its report and tries to write one elsewhere.
fn forged_manifest(user: As) {
    let stage = Stage::new(user);
    let ran = stage.evaluate_by("forge", &[]).expect(3);
    ran.one_error(&["integrity", "baseline"]);
    assert_no_evidence(&stage);
}

/// The report is a link to a file of the container, or a FIFO without a writer. The evaluator's
/// filter denies creating either. `only_regular_output_files_are_collected` tests existing ones.
fn report_is_not_a_regular_file(user: As) {
    for attack in ["link", "fifo"] {
        let stage = Stage::new(user);
        let ran = stage.evaluate_by(attack, &[]).expect(3);
        ran.one_error(&["baseline"]);
        assert!(ran.err.contains("invarlock: denied "), "{}", ran.err);
        assert_no_evidence(&stage);
    }
}

/// A tag alternates between two images. The recorded digest is the digest of the image that ran.
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
    let has = |environment: &Value, variable: &str| {
        environment.as_array().unwrap().iter().any(|found| found == variable)
    };
    let other = layout.dir.join("one");
    race("images", user, &[(index.clone(), other)], || {
        let ran = stage.run(&["--json"], &image, &["see"]).expect(0);
        let outcome: Value = ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
        let environment = printed_json(&ran)["environment"].clone();
        let (_, digest) =
            digests.iter().find(|(name, _)| has(&environment, &format!("IMAGE={name}"))).unwrap();
        assert_eq!(outcome["image"]["manifest_digest"], *digest, "{environment}");
        (1, 0)
    });
    // A name with a digest never selects another image.
    fs::copy(layout.dir.join("other"), &index).unwrap();
    let pinned = format!("oci:{}@{}", layout.dir.display(), digests[0].1.as_str().unwrap());
    stage
        .run(&[], &pinned, &["see"])
        .expect(125)
        .one_error(&["error[input]", digests[0].1.as_str().unwrap()]);
}
