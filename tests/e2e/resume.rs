//! A killed `evaluate` resumes: the next one measures no finished block again, and its losses are the same bits.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, demo, is_root, read_json, set_mode, skip};
use serde_json::{Value, json};

/// The step after each block of windows.
const JOURNALED: &str = "files: windows journaled";

fn evaluate(place: &Place, out: &str, more: &[&str], step: Option<&str>) -> Ran {
    let mut command = place.command(&["evaluate", "--out", &format!("{out}/runs")]);
    if !more.contains(&"--report-out") {
        command.args(["--report-out", &format!("{out}/eval")]);
    }
    command.arg("--preset").arg(demo("preset.yaml"));
    command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy")).args(more);
    if let Some(step) = step {
        command.env("INVARLOCK_TEST_KILL_AT", step);
    }
    Ran::from(command.output().unwrap())
}

/// The losses of a run report beside the evaluation report, as they are written.
fn losses(place: &Place, out: &str, side: &str) -> [Value; 2] {
    let report = read_json(&place.work(&format!("{out}/eval/{side}.report.json")));
    ["preview", "final"].map(|arm| report["evaluation_windows"][arm]["logloss"].clone())
}

/// The journal of a side, if there is one.
fn journal(place: &Place, out: &str, directory: &str) -> Option<String> {
    let directory = format!("work/{out}/runs/{directory}");
    let mut names = place.names(&directory).into_iter().filter(|name| name.starts_with(".journal-"));
    let name = names.next()?;
    assert_eq!(names.next(), None, "one journal");
    Some(format!("{directory}/{name}"))
}

/// Number of windows in a journal.
fn windows(place: &Place, journal: &str) -> usize {
    let text = std::fs::read_to_string(place.path(journal)).unwrap();
    let lines =
        text.lines().map(|line| serde_json::from_str::<Value>(line.split_once(' ').unwrap().1).unwrap());
    lines.map(|line| line["losses"].as_array().unwrap().len()).sum()
}

#[test]
fn a_killed_evaluation_resumes_with_the_same_bits() {
    for user in both() {
        let place = Place::new(user);
        evaluate(&place, "whole", &["--quiet"], None).expect(0);
        assert_eq!(journal(&place, "whole", "source"), None, "nothing is left after success");

        // Each command measures one more block before it is killed.
        let mut measured = [0, 0];
        let mut kills = 0;
        let finished = loop {
            let ran = evaluate(&place, "killed", &[], Some(JOURNALED));
            if ran.code != -1 {
                break ran.expect(0);
            }
            kills += 1;
            let now = ["source", "edited"]
                .map(|side| journal(&place, "killed", side).map_or(0, |journal| windows(&place, &journal)));
            let side = usize::from(measured[0] == 480);
            assert!(
                now[side] > measured[side] && now[1 - side] == measured[1 - side],
                "{measured:?} {now:?}"
            );
            measured = now;
        };
        assert!(kills >= 4, "{kills} blocks");
        assert_eq!(measured, [480, 480], "no block was measured twice");
        for line in
            ["baseline", "subject"].map(|side| format!("resuming {side}: 480 of 480 windows are measured"))
        {
            assert!(finished.err.contains(&line), "{}", finished.err);
        }
        for side in ["baseline", "subject"] {
            assert_eq!(losses(&place, "killed", side), losses(&place, "whole", side), "{side}");
        }
        for side in ["source", "edited"] {
            let names = place.names(&format!("work/killed/runs/{side}"));
            assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
        }
        let verified = place.run(&["verify", "killed/eval"]).expect(0);
        let sentence = "480 of 480 windows were measured by an earlier, interrupted run";
        assert!(verified.out.contains(&format!("subject: {sentence}")), "{verified:?}");
    }
}

/// Evidence of a run that was resumed in the middle of both sides.
fn resumed() -> Place {
    let place = Place::new(As::Caller);
    // The journal of the baseline is complete when the subject is measured.
    while journal(&place, "out", "edited").is_none_or(|journal| windows(&place, &journal) == 0) {
        assert_eq!(evaluate(&place, "out", &[], Some(JOURNALED)).code, -1);
    }
    place
}

#[test]
fn losses_of_another_arithmetic_are_not_resumed() {
    let place = resumed();
    let ran = evaluate(&place, "out", &["--weight-only"], None).expect(0);
    assert!(!ran.err.contains("resuming"), "{}", ran.err);
}

#[test]
fn windows_that_repeat_are_not_counted() {
    let place = Place::new(As::Caller);
    let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let mut rows: Vec<&str> = text.lines().take(60).collect();
    rows[47] = rows[0];
    place.write("rows.jsonl", (rows.join("\n") + "\n").as_bytes());
    let dataset =
        "dataset: {provider: {kind: local_jsonl, file: rows.jsonl}, seq_len: 64, preview_n: 24, final_n: 24}";
    place.write("repeated.yaml", dataset.as_bytes());
    let evaluate = |step: Option<&str>| {
        let mut command = place.command(&["evaluate", "--profile", "dev", "--preset", "repeated.yaml"]);
        command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
        if let Some(step) = step {
            command.env("INVARLOCK_TEST_KILL_AT", step);
        }
        Ran::from(command.output().unwrap())
    };
    // The preview arm is a block.
    assert_eq!(evaluate(Some(JOURNALED)).code, -1);
    let ran = evaluate(None).expect(0);
    assert!(ran.err.contains("resuming baseline: 19 of 38 windows are measured"), "{}", ran.err);
}

#[test]
fn host_execution_resumes_with_the_same_bits() {
    let place = Place::new(As::User);
    let host = ["--execution-mode", "host"];
    evaluate(&place, "whole", &host, None).expect(0);
    while journal(&place, "out", "edited").is_none_or(|journal| windows(&place, &journal) == 0) {
        assert_eq!(evaluate(&place, "out", &host, Some(JOURNALED)).code, -1);
    }
    let before = windows(&place, &journal(&place, "out", "edited").unwrap());
    let ran = evaluate(&place, "out", &host, None).expect(0);
    for line in [
        "resuming baseline: 480 of 480 windows are measured".to_owned(),
        format!("resuming subject: {before} of 480 windows are measured"),
    ] {
        assert!(ran.err.contains(&line), "{}", ran.err);
    }
    for side in ["baseline", "subject"] {
        assert_eq!(losses(&place, "out", side), losses(&place, "whole", side), "{side}");
    }
    let ran = place.run(&["verify", "--runtime-provenance", "host", "out/eval"]).expect(0);
    let sentence = format!("subject: {before} of 480 windows were measured by an earlier, interrupted run");
    assert!(ran.out.contains(&sentence), "{}", ran.out);
    for side in ["source", "edited"] {
        assert_eq!(journal(&place, "out", side), None, "nothing is left after success");
    }
    // A journal of the host is not one of a container, whose losses were measured by another program.
    assert_eq!(evaluate(&place, "other", &host, Some(JOURNALED)).code, -1);
    let ran = evaluate(&place, "other", &[], None).expect(0);
    assert!(!ran.err.contains("resuming"), "{}", ran.err);
}

#[test]
fn resumed_evidence_is_reproduced() {
    let place = resumed();
    evaluate(&place, "out", &[], None).expect(0);
    let (baseline, subject, dataset) = (demo("baseline"), demo("healthy"), demo("valid.jsonl"));
    let mut command = place.command(&["verify", "--reproduce=all", "--json", "out/eval"]);
    command.arg("--baseline-checkpoint").arg(baseline).arg("--subject").arg(subject);
    let ran = Ran::from(command.arg("--dataset").arg(dataset).output().unwrap()).expect(0);
    let row = &ran.json()["results"][0];
    assert_eq!((&row["assurance"], &row["reproduction"]["bit_equal"]), (&json!("reproduced"), &json!(true)));
    assert_eq!(row["about"]["resumed"][0]["windows"], 480);
}

#[test]
fn what_was_resumed_is_recorded_shown_and_checked() {
    let place = resumed();
    let before = windows(&place, &journal(&place, "out", "edited").unwrap());
    let ran = evaluate(&place, "out", &[], None).expect(0);
    assert!(
        ran.err.contains(&format!("resuming subject: {before} of 480 windows are measured")),
        "{}",
        ran.err
    );

    let manifest = read_json(&place.work("out/eval/runtime.manifest.json"));
    let side = &manifest["context"]["sides"]["subject"];
    let count = |arm: &str| side["resumed"][arm].as_u64().unwrap();
    assert_eq!(count("preview") + count("final"), before as u64);
    let inputs = side["observations"]["inputs"]["value"].as_array().unwrap();
    let input = inputs.iter().find(|input| input["target"] == "/in/journal.json").unwrap();
    assert_eq!(input["bytes"], side["resumed"]["bytes"]);

    let sentence = format!("{before} of 480 windows were measured by an earlier, interrupted run");
    let accept = |more: &[&str]| place.run(&[&["verify", "--json", "out/eval"], more].concat());
    let verified = accept(&[]).json();
    let row = &verified["results"][0];
    assert_eq!(row["errors"], json!([]), "{row}");
    assert_eq!(
        row["about"]["resumed"],
        json!([{"side": "baseline", "windows": 480, "of": 480}, {"side": "subject", "windows": before, "of": 480}])
    );
    place.run(&["report", "html", "-i", "out/eval", "-o", "page.html"]).expect(0);
    assert!(std::fs::read_to_string(place.work("page.html")).unwrap().contains(&sentence));

    // The manifest of evidence that hides it, or has another digest of the journal, is refused.
    let path = place.work("out/eval/runtime.manifest.json");
    let written = std::fs::read_to_string(&path).unwrap();
    let digest = side["resumed"]["sha256"].as_str().unwrap();
    std::fs::write(&path, written.replace(digest, &"0".repeat(64))).unwrap();
    let errors = accept(&[]).json()["results"][0]["errors"].to_string();
    assert!(errors.contains("context.sides.subject.resumed is not the journal"), "{errors}");
    let mut hidden = manifest.clone();
    hidden["context"]["sides"]["subject"].as_object_mut().unwrap().remove("resumed");
    std::fs::write(&path, invarlock_evidence::manifest::to_bytes(&hidden)).unwrap();
    let errors = accept(&[]).json()["results"][0]["errors"].to_string();
    assert!(errors.contains("context.sides.subject.resumed is not the journal"), "{errors}");
    assert!(errors.contains("/in/journal.json"), "{errors}");
}

#[test]
fn a_damaged_or_unwanted_journal_is_not_used() {
    let place = resumed();
    let path = place.path(&journal(&place, "out", "edited").unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"losses\":[", "\"losses\":[1", 1)).unwrap();
    set_mode(&path, 0o600);
    let ran = evaluate(&place, "out", &[], None).expect(0);
    assert!(ran.err.contains("resuming baseline: 480 of 480"), "{}", ran.err);
    assert!(
        ran.err.contains("subject: the journal of an interrupted run is not used, because it is damaged"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("resuming subject"), "{}", ran.err);

    let place = resumed();
    let ran = evaluate(&place, "out", &["--no-resume"], None).expect(0);
    assert!(!ran.err.contains("resuming") && !ran.err.contains("journal"), "{}", ran.err);
    let manifest = read_json(&place.work("out/eval/runtime.manifest.json"));
    assert!(manifest["context"]["sides"]["baseline"].get("resumed").is_none());
    assert_eq!(journal(&place, "out", "source"), None);
}

/// Where the evidence cannot be written, the command says that nothing is measured again, and that is so.
#[test]
fn evidence_that_cannot_be_written_costs_no_measurement() {
    const TEST: &str = "resume::evidence_that_cannot_be_written_costs_no_measurement";
    if !is_root() {
        return skip(TEST, "only root finds out late that it cannot write in /proc");
    }
    let place = Place::new(As::Caller);
    let ran = evaluate(&place, "out", &["--report-out", "/proc/evidence"], None).expect(3);
    assert!(ran.err.contains("another --report-out, measures no window again"), "{}", ran.err);
    let ran = evaluate(&place, "out", &[], None).expect(0);
    for side in ["baseline", "subject"] {
        assert!(ran.err.contains(&format!("resuming {side}: 480 of 480 windows")), "{}", ran.err);
        assert!(ran.err.contains(&format!("{side} preview: already measured")), "{}", ran.err);
    }
}
