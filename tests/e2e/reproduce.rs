//! `verify --reproduce`: honest evidence is confirmed, and evidence whose author invented or changed losses is refused although it does not
//! contradict itself.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::evaluation::{BASELINE_REPORT, Facts, REPORT, SUBJECT_REPORT};
use invarlock_evidence::format::plan::{Files, PlannedSide};
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest;
use invarlock_evidence::measured::Measured;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_tests::{As, Place, Ran, demo, has_matrix_unit, skip};
use serde_json::json;

/// The evidence of the demo's baseline and one of its subjects in `eval`: 24 windows of each arm.
fn evaluated(subject: &str, more: &[&str]) -> Place {
    // Only root can have a cpu cgroup here.
    let place = Place::new(if more.contains(&"--cpus") { As::Caller } else { As::User });
    for name in ["baseline", "healthy", "damaged"] {
        place.copy_dir(&demo(name), name);
    }
    let data = demo("valid.jsonl");
    std::fs::copy(data, place.work("valid.jsonl")).unwrap();
    let preset = json!({"dataset": {"provider": {"kind": "local_jsonl", "file": "valid.jsonl"}, "seq_len": 64, "preview_n": 24, "final_n": 24}});
    place.write("preset.yaml", preset.to_string().as_bytes());
    let args = [
        "evaluate",
        "--quiet",
        "--no-gate",
        "--profile",
        "dev",
        "--preset",
        "preset.yaml",
        "--report-out",
        "eval",
    ];
    place.run(&[&args[..], &["--baseline", "baseline", "--subject", subject], more].concat()).expect(0);
    place
}

fn reproduce(place: &Place, subject: &str, amount: &str) -> Ran {
    let args =
        ["verify", "--profile", "dev", amount, "--baseline-checkpoint", "baseline", "--subject", subject];
    place.run(&[&args[..], &["--dataset", "valid.jsonl", "--json", "eval"]].concat())
}

/// Changes what was measured, and computes everything again that follows from it.
fn forge(place: &Place, change: impl Fn(Role, &mut Measured), facts_too: impl Fn(&mut Facts)) {
    let read = |name: &str| std::fs::read(place.work("eval").join(name)).unwrap();
    let mut facts = Facts::read(&serde_json::from_slice(&read(manifest::FILE_NAME)).unwrap()).unwrap();
    facts_too(&mut facts);
    let mut reports = Vec::new();
    for (role, name) in [(Role::Baseline, BASELINE_REPORT), (Role::Subject, SUBJECT_REPORT)] {
        let mut measured = Measured::read(&serde_json::from_slice(&read(name)).unwrap()).unwrap();
        change(role, &mut measured);
        let report = measured.report().unwrap();
        let bytes = to_bytes(&report);
        for output in &mut facts.sides.get_mut(role.name()).unwrap().outputs {
            if output.name == "report.json" {
                (output.sha256, output.bytes) = (sha256_hex(&bytes), bytes.len() as u64);
            }
        }
        std::fs::write(place.work("eval").join(name), bytes).unwrap();
        reports.push(report);
    }
    let report = to_bytes(&facts.compare(&reports[0], &reports[1]).unwrap());
    let manifest = manifest::to_bytes(&facts.manifest(&sha256_hex(&report)));
    std::fs::write(place.work("eval").join(REPORT), report).unwrap();
    std::fs::write(place.work("eval").join(manifest::FILE_NAME), manifest).unwrap();
}

/// The evidence does not contradict itself, and a reproduction finds losses that were not measured.
#[track_caller]
fn found_only_by_measuring(place: &Place, subject: &str, needle: &str) {
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    let ran = reproduce(place, subject, "--reproduce").expect(1);
    let row = &ran.json()["results"][0];
    assert_eq!(row["assurance"], "failed");
    assert!(row["errors"].to_string().contains(needle), "{}", row["errors"]);
}

#[test]
fn honest_evidence_is_reproduced() {
    let place = evaluated("healthy", &[]);
    for (amount, measured) in [("--reproduce=3", 3), ("--reproduce=all", 24), ("--reproduce=1000", 24)] {
        let row = reproduce(&place, "healthy", amount).expect(0).json()["results"][0].clone();
        assert_eq!(row["assurance"], "reproduced");
        let reproduction = &row["reproduction"];
        assert_eq!((&reproduction["measured"], &reproduction["bit_equal"]), (&json!(measured), &json!(true)));
    }
    let row = reproduce(&place, "healthy", "--reproduce").expect(0).json()["results"][0].clone();
    assert!(row["reproduction"]["probability"].as_f64().unwrap() >= 0.99, "{row}");
}

/// The number of threads does not change a loss.
#[test]
fn evidence_of_one_thread_is_reproduced_by_two() {
    let place = evaluated("healthy", &["--cpus", "1"]);
    let row = reproduce(&place, "healthy", "--reproduce=all").expect(0).json()["results"][0].clone();
    assert_eq!(row["reproduction"]["bit_equal"], true);
}

/// The losses of one kernel are equal bit by bit. Those of another one may differ by its rounding errors, and not by more.
#[test]
fn bf16x3_is_reproduced_bit_by_bit_and_float32_within_its_rounding_errors() {
    if !has_matrix_unit() {
        let name = "bf16x3_is_reproduced_bit_by_bit_and_float32_within_its_rounding_errors";
        return skip(name, "this processor lacks AMX");
    }
    let place = evaluated("healthy", &["--dtype", "bf16x3"]);
    let equal = |place: &Place| {
        let row = reproduce(place, "healthy", "--reproduce=all").expect(0).json()["results"][0].clone();
        assert_eq!(row["assurance"], "reproduced");
        row["reproduction"]["bit_equal"].clone()
    };
    assert_eq!(equal(&place), true);
    // Losses of float32 under the name of another kernel for bf16x3.
    let single = evaluated("healthy", &[]);
    let losses = [(Role::Baseline, BASELINE_REPORT), (Role::Subject, SUBJECT_REPORT)].map(|(role, name)| {
        let bytes = std::fs::read(single.work("eval").join(name)).unwrap();
        (role, Measured::read(&serde_json::from_slice(&bytes).unwrap()).unwrap())
    });
    let other = |factor: f64| {
        let losses = &losses;
        move |role: Role, measured: &mut Measured| {
            let (_, single) = losses.iter().find(|(found, _)| *found == role).unwrap();
            measured.evaluator.kernel = "another".to_owned();
            for (arm, single) in
                [(&mut measured.preview, &single.preview), (&mut measured.final_, &single.final_)]
            {
                arm.losses = single.losses.iter().map(|loss| loss * factor).collect();
            }
        }
    };
    forge(&place, other(1.0), |_| {});
    assert_eq!(equal(&place), false);
    forge(&place, other(0.99), |_| {});
    found_only_by_measuring(&place, "healthy", "measured again, it is");
}

#[test]
fn lowered_losses_are_found() {
    let place = evaluated("damaged", &[]);
    let lowered = |role: Role, measured: &mut Measured| {
        if role == Role::Subject {
            let losses = measured.preview.losses.iter_mut().chain(&mut measured.final_.losses);
            losses.for_each(|loss| *loss *= 0.6);
        }
    };
    forge(&place, lowered, |_| {});
    found_only_by_measuring(&place, "damaged", "measured again, it is");
}

/// No container ever ran: the losses are made up.
fn invent(_: Role, measured: &mut Measured) {
    for (index, loss) in measured.preview.losses.iter_mut().chain(&mut measured.final_.losses).enumerate() {
        *loss = 1.4 + 0.01 * (index % 7) as f64;
    }
}

#[test]
fn invented_evidence_is_found() {
    let place = evaluated("healthy", &[]);
    forge(&place, invent, |_| {});
    found_only_by_measuring(&place, "healthy", "measured again, it is");
    let other_texts = |_: Role, measured: &mut Measured| {
        for row in measured.preview.input_ids.iter_mut().chain(&mut measured.final_.input_ids) {
            row.swap(0, 1);
        }
    };
    forge(&place, other_texts, |_| {});
    found_only_by_measuring(
        &place,
        "healthy",
        "windows of the evidence are not those that the dataset gives",
    );
}

/// The losses are those of another model: the damaged checkpoint has the digests of the baseline's measurement.
#[test]
fn relabelled_evidence_is_found() {
    let place = evaluated("baseline", &[]);
    relabel(&place);
    let ran = reproduce(&place, "damaged", "--reproduce");
    assert_ne!(ran.code, 0);
    assert_eq!(ran.json()["results"][0]["assurance"], "failed", "{}", ran.out);
}

/// The subject of the evidence gets the name and digests of the damaged checkpoint.
fn relabel(place: &Place) {
    let digest = place.run(&[
        "evaluate",
        "--dry-run",
        "--profile",
        "dev",
        "--preset",
        "preset.yaml",
        "--baseline",
        "baseline",
        "--subject",
        "damaged",
    ]);
    let damaged: Files =
        serde_json::from_value(digest.expect(0).json()["sides"]["subject"]["checkpoint"].clone()).unwrap();
    let relabelled = |facts: &mut Facts| {
        facts.sides.get_mut("subject").unwrap().checkpoint =
            Files { path: "baseline".to_owned(), ..damaged.clone() };
        if let Some(PlannedSide::Container(side)) = facts.plan.sides.get_mut("subject") {
            side.checkpoint = Files { path: "baseline".to_owned(), ..damaged.clone() };
        }
    };
    forge(place, |_, _| {}, relabelled);
}

/// The fewest lowered losses with which the damaged subject passes: the largest differences to the baseline become none.
fn lower_as_few_as_possible(place: &Place) -> usize {
    let read = |name: &str| {
        let bytes = std::fs::read(place.work("eval").join(name)).unwrap();
        Measured::read(&serde_json::from_slice(&bytes).unwrap()).unwrap()
    };
    let (baseline, subject) = (read(BASELINE_REPORT).final_.losses, read(SUBJECT_REPORT).final_.losses);
    let mut excess: Vec<(usize, f64)> =
        baseline.iter().zip(&subject).map(|(b, s)| s - b).enumerate().collect();
    excess.sort_by(|one, other| other.1.total_cmp(&one.1));
    let total = |from: usize| excess[from..].iter().map(|(_, more)| more).sum::<f64>();
    let limit = 1.05_f64.ln() * baseline.len() as f64;
    let needed = (0..excess.len()).find(|lowered| total(*lowered) < limit).unwrap_or(excess.len());
    let lowered: Vec<usize> = excess[..needed].iter().map(|(index, _)| *index).collect();
    let change = |role: Role, measured: &mut Measured| {
        if role == Role::Subject {
            lowered.iter().for_each(|index| measured.final_.losses[*index] = baseline[*index]);
            // Without a drift of the subject between the arms.
            measured.preview.losses = measured.final_.losses.clone();
        }
    };
    forge(place, change, |_| {});
    needed
}

/// `make reproduction-trials`. The windows are chosen anew each time.
#[test]
#[ignore = "400 reproductions take minutes"]
#[allow(clippy::print_stdout, reason = "the result of the target")]
fn a_hundred_trials_of_each_forgery() {
    const TRIALS: usize = 100;
    let passed = |place: &Place, subject: &str| {
        (0..TRIALS).filter(|_| reproduce(place, subject, "--reproduce").code == 0).count()
    };
    let mut rows = Vec::new();
    let place = evaluated("healthy", &[]);
    rows.push(("honest", passed(&place, "healthy")));
    forge(&place, invent, |_| {});
    rows.push(("invented", passed(&place, "healthy")));
    let place = evaluated("damaged", &[]);
    let windows = lower_as_few_as_possible(&place);
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    rows.push(("lowered", passed(&place, "damaged")));
    let place = evaluated("baseline", &[]);
    relabel(&place);
    rows.push(("relabelled", passed(&place, "damaged")));
    println!("accepted of {TRIALS} ({windows} lowered windows): {rows:?}");
    assert_eq!(rows[0].1, TRIALS, "{rows:?}");
    assert!(rows[1..].iter().all(|(_, accepted)| *accepted <= TRIALS / 100), "{rows:?}");
}

#[test]
fn a_reproduction_needs_the_files() {
    let place = evaluated("healthy", &[]);
    let ran = place.run(&["verify", "--profile", "dev", "--reproduce", "--dataset", "valid.jsonl", "eval"]);
    ran.expect(2).one_error(&["--baseline-checkpoint is missing", "--subject DIR"]);
    for wrong in ["--reproduce=1", "--reproduce=0", "--reproduce=x"] {
        place.run(&["verify", wrong, "eval"]).expect(2);
    }
}
