//! Evidence that is read quickly, because it is written as this program writes it, and evidence that is read by serde get the same verdict.
#![cfg(feature = "verify")]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Made;
use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::evaluation::{BASELINE_REPORT, REPORT, SUBJECT_REPORT};
use invarlock_evidence::format::run_report::RunReport;
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest::{self, FILE_NAME};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{Verdict, VerifyOptions, verify_report};

/// The verdict about evidence whose run reports have these bytes.
fn verdict(made: &Made, bytes: impl Fn(&RunReport) -> Vec<u8>) -> Verdict {
    let mut made = made.clone();
    let folder = tempfile::tempdir().unwrap();
    let runs =
        [(Role::Baseline, &made.baseline, BASELINE_REPORT), (Role::Subject, &made.subject, SUBJECT_REPORT)];
    for (role, run, name) in runs {
        let bytes = bytes(run);
        let side = made.facts.sides.get_mut(role.name()).unwrap();
        for output in side.outputs.iter_mut().filter(|file| file.name == "report.json") {
            (output.sha256, output.bytes) = (sha256_hex(&bytes), bytes.len() as u64);
        }
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let report = to_bytes(&made.report());
    let manifest = manifest::to_bytes(&made.facts.manifest(&sha256_hex(&report)));
    std::fs::write(folder.path().join(FILE_NAME), manifest).unwrap();
    std::fs::write(folder.path().join(REPORT), report).unwrap();
    let options = VerifyOptions { keep_verified: true, ..VerifyOptions::default() };
    verify_report(&folder.path().join(REPORT), &options)
}

#[test]
fn both_readers_give_the_same_verdict() {
    for (shift, good) in [(0.01, true), (0.3, false)] {
        let made = Made::new(180, shift, Profile::Ci, Tier::Balanced);
        let quick = verdict(&made, to_bytes);
        let mut slow = verdict(&made, |run| serde_json::to_vec_pretty(run).unwrap());
        assert_eq!((quick.ok(), quick.errors.len()), (good, 0), "{:?}", quick.errors);
        // The digests of the run reports differ, and with them the statement about the evidence.
        (slow.path, slow.statement) = (quick.path.clone(), quick.statement.clone());
        let (one, other) = (quick.verified.as_ref().unwrap(), slow.verified.take().unwrap());
        assert_eq!((&one.baseline, &one.subject), (&other.baseline, &other.subject));
        slow.verified = quick.verified.clone();
        assert_eq!(quick, slow);
    }
}

/// The quick reader cuts at `[[` and `]]`, which texts contain, too.
#[test]
fn texts_that_look_like_rows_stay_texts() {
    for text in ["[[0]]", "]]", "[[1]],\"input_ids\":[[9]]", "a [[b]] [[", "[[5]]]]"] {
        let mut made = Made::new(180, 0.01, Profile::Ci, Tier::Balanced);
        let final_ = &mut made.baseline.evaluation_windows.final_;
        let texts = vec![text.to_owned(); final_.window_ids.len()];
        final_.predicted_utf8_bytes = Some(texts.iter().map(|text| text.len() as u64).collect());
        final_.predicted_texts = Some(texts.clone());
        let quick = |run: &RunReport| to_bytes(run);
        let slow = |run: &RunReport| serde_json::to_vec_pretty(run).unwrap();
        for bytes in [quick as fn(&RunReport) -> Vec<u8>, slow] {
            let found = verdict(&made, bytes);
            assert!(found.ok(), "{text}: {:?}", found.errors);
            assert_eq!(found.verified.unwrap().baseline.predicted_texts.as_ref(), Some(&texts));
        }
    }
}

#[test]
fn a_contradiction_is_found_by_both_readers() {
    let mut made = Made::new(180, 0.01, Profile::Ci, Tier::Balanced);
    made.subject.artifacts.insert("logs_path".to_owned(), "x".into());
    let quick = verdict(&made, to_bytes);
    let slow = verdict(&made, |run| serde_json::to_vec_pretty(run).unwrap());
    assert!(quick.errors.iter().any(|error| error.contains("artifacts.logs_path")), "{:?}", quick.errors);
    assert_eq!((quick.errors, quick.reason), (slow.errors, slow.reason));
}
