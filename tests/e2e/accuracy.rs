//! The accuracy on examples with choices, through the whole program: evaluation, verification, exports, and what is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json, skip, target};
use serde_json::{Value, json};
use std::process::Command;

/// Examples of the demo's texts: the prompt is the start of a text, the right choice goes on, the others are of other texts.
fn examples(count: usize) -> Vec<Value> {
    let lines = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let texts: Vec<Vec<String>> = lines
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["text"].as_str().unwrap().split(' ').map(str::to_owned).collect()
        })
        .collect();
    let part =
        |text: usize, start: usize, words: usize| texts[text % texts.len()][start..start + words].join(" ");
    let example = |i: usize| {
        let right = part(i, 20, 3);
        let mut choices: Vec<String> = Vec::new();
        for wrong in (1..).map(|j| part(i + 31 * j, 1 + 3 * (i % 3), 3)) {
            if wrong != right && !choices.contains(&wrong) {
                choices.push(wrong);
            }
            if choices.len() == 3 {
                break;
            }
        }
        let answer = i % 4;
        choices.insert(answer, right);
        json!({"question": part(i, 0, 20), "choices": choices, "answer": answer})
    };
    (0..count).map(example).collect()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// A place with the demo's checkpoints and `n + n` examples.
fn place(user: As, n: usize) -> Place {
    let place = Place::new(user);
    for (name, dir) in [("baseline", "base"), ("healthy", "subject"), ("damaged", "damaged")] {
        place.copy_dir(&demo(name), dir);
    }
    place.write("rows.jsonl", lines(&examples(2 * n)).as_bytes());
    preset(&place, n, json!({"kind": "local_jsonl_choices", "file": "rows.jsonl"}));
    place
}

fn preset(place: &Place, n: usize, provider: Value) {
    let preset = json!({"dataset": {"provider": provider, "seq_len": 64, "preview_n": n, "final_n": n}});
    place.write("preset.yaml", preset.to_string().as_bytes());
}

fn evaluate(place: &Place, subject: &str, profile: &str, more: &[&str]) -> Ran {
    let args = ["evaluate", "--profile", profile, "--preset", "preset.yaml", "--baseline", "base"];
    place.run(&[&args[..], &["--subject", subject, "--report-out", subject_out(subject)], more].concat())
}

fn subject_out(subject: &str) -> &str {
    if subject == "damaged" { "eval-damaged" } else { "eval" }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// Whether each example of a side is answered right, from the losses of its run report.
fn answered(run: &Value) -> Vec<bool> {
    let arm = &run["evaluation_windows"]["final"];
    let mut first = 0;
    let of = |example: &Value| {
        let choices = example["choices"].as_u64().unwrap() as usize;
        let sum = |i: usize| number(&arm["logloss"][first + i]) * number(&arm["token_counts"][first + i]);
        let sums: Vec<f64> = (0..choices).map(sum).collect();
        first += choices;
        let answer = example["answer"].as_u64().unwrap() as usize;
        (0..choices).all(|i| i == answer || sums[answer] < sums[i])
    };
    arm["examples"].as_array().unwrap().iter().map(of).collect()
}

fn share(answered: &[bool]) -> f64 {
    answered.iter().filter(|right| **right).count() as f64 / answered.len() as f64
}

#[test]
fn a_healthy_subject_passes_and_a_damaged_one_fails() {
    let place = place(As::User, 40);
    for (subject, code) in [("base", 0), ("damaged", 1)] {
        let ran = evaluate(&place, subject, "dev", &["--json"]).expect(code);
        let out = subject_out(subject);
        let report = read_json(&place.work(out).join("evaluation.report.json"));
        let side = |name: &str| answered(&read_json(&place.work(out).join(format!("{name}.report.json"))));
        let (base, subj) = (side("baseline"), side("subject"));
        let metric = &report["primary_metric"];
        assert_eq!(
            (&metric["kind"], &metric["unit"], &metric["direction"]),
            (&json!("accuracy"), &json!("accuracy"), &json!("higher"))
        );
        assert_eq!(
            (number(&metric["final"]), number(&report["baseline_ref"]["primary_metric"]["final"])),
            (share(&subj), share(&base))
        );
        let delta = 100.0 * (share(&subj) - share(&base));
        assert!((number(&metric["delta_pp"]) - delta).abs() < 1e-9, "{metric}");
        let right = subj.iter().filter(|right| **right).count();
        let counts = &report["metrics"]["classification"];
        assert_eq!((&counts["n_correct"], &counts["n_total"]), (&json!(right), &json!(40)));
        let low = number(&metric["display_ci"][0]);
        assert!(low <= delta + 1e-9 && delta <= number(&metric["display_ci"][1]) + 1e-9, "{metric}");
        assert_eq!(report["validation"]["primary_metric_acceptable"], low >= -1.1);
        let gate = ran.json()["gates"][0]["detail"].as_str().unwrap().to_owned();
        assert!(gate.contains("percentage points") && gate.contains("at least -1.1"), "{gate}");
        let verified = place.run(&["verify", "--profile", "dev", "--json", out]).expect(code).json();
        let recompute = &verified["results"][0]["recompute"];
        assert_eq!((&recompute["family"], &recompute["ok"]), (&json!("accuracy"), &json!(true)));
    }
    // What readers get.
    place.run(&["report", "html", "eval-damaged", "--output", "page.html"]).expect(0);
    let page = std::fs::read_to_string(place.work("page.html")).unwrap();
    for words in [
        "Baseline accuracy",
        "Subject accuracy",
        "of 40)",
        "Its lower end must be",
        "pp",
        "subject − baseline, percentage points",
        "0 = no change",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let markdown = place.run(&["report", "export", "eval-damaged", "--format", "md"]).expect(0).out;
    assert!(
        markdown.contains("Accuracy of the subject minus that of the baseline: **")
            && markdown.contains("| Accuracy |"),
        "{markdown}"
    );
    let mlflow = place.run(&["report", "export", "eval-damaged", "--format", "mlflow"]).expect(0).json();
    assert!(number(&mlflow["metrics"]["invarlock.delta_pp"]) < 0.0, "{mlflow}");
    assert!(mlflow["metrics"].get("invarlock.baseline_perplexity").is_none(), "{mlflow}");
    let explained = place.run(&["report", "explain", "eval-damaged"]).expect(0).out;
    assert!(explained.contains("Change the model less"), "{explained}");
    let captured = ["report", "export", "eval-damaged", "--format", "invarlock-captured", "-o", "captured"];
    assert!(place.run(&captured).err.contains("the metric is an accuracy"));
}

#[test]
fn a_forged_answer_does_not_verify() {
    let place = place(As::User, 20);
    evaluate(&place, "base", "dev", &["--quiet"]).expect(0);
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    let file = place.work("eval/evaluation.report.json");
    let honest = std::fs::read(&file).unwrap();
    for change in [
        (|report: &mut Value| report["metrics"]["classification"]["n_correct"] = json!(20)) as fn(&mut Value),
        |report| report["primary_metric"]["final"] = json!(1.0),
        |report| report["primary_metric"]["delta_pp"] = json!(3.0),
        |report| report["evaluation_windows"]["final"]["examples"][0]["answer"] = json!(1),
    ] {
        let mut report: Value = serde_json::from_slice(&honest).unwrap();
        let before = report.clone();
        change(&mut report);
        if report == before {
            continue;
        }
        std::fs::write(&file, report.to_string()).unwrap();
        let ran = place.run(&["verify", "--profile", "dev", "eval"]);
        assert_ne!(ran.code, 0, "{}", ran.out);
    }
}

#[test]
fn choices_are_measured_again_and_a_baseline_is_reused() {
    let place = place(As::User, 12);
    let ran = evaluate(&place, "subject", "dev", &["--out", "runs", "--no-gate", "--json"]).expect(0).json();
    let path = std::fs::read_dir(place.work("runs/source"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("report.json");
    let reuse = ["--baseline-report", path.to_str().unwrap(), "--no-gate", "--json"];
    let again = evaluate(&place, "subject", "dev", &reuse).expect(0).json();
    assert_eq!((&ran["display_ci"], &ran["subject_final"]), (&again["display_ci"], &again["subject_final"]));
    let inputs = ["--baseline-checkpoint", "base", "--subject", "subject", "--dataset", "rows.jsonl"];
    let args = [&["verify", "--profile", "dev", "--reproduce", "--json"], &inputs[..], &["eval"]].concat();
    let verified = place.run(&args).json();
    let reproduction = &verified["results"][0]["reproduction"];
    assert_eq!(
        (&reproduction["measured"], &reproduction["examples"]),
        (&json!(12), &json!(true)),
        "{verified}"
    );
    assert_eq!(reproduction["bit_equal"], true, "{verified}");
}

#[test]
fn labels_are_measured() {
    let place = place(As::User, 6);
    let row = |i: usize| json!({"text": format!("The {i} books of {} were", i * 7), "label": if i.is_multiple_of(2) { "new" } else { "old" }});
    let rows: Vec<Value> = (0..12).map(row).collect();
    place.write("labels.jsonl", lines(&rows).as_bytes());
    let csv: String = rows.iter().map(|row| format!("{},{}\n", row["text"], row["label"])).collect();
    place.write("labels.csv", format!("text,label\n{csv}").as_bytes());
    let mut finals = Vec::new();
    for file in ["labels.jsonl", "labels.csv"] {
        preset(&place, 6, json!({"kind": "local_jsonl_labels", "file": file, "labels": ["new", "old"]}));
        let ran = evaluate(&place, "base", "dev", &["--json"]).expect(0).json();
        finals.push(ran["subject_final"].clone());
        place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    }
    assert_eq!(finals[0], finals[1]);
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_anything_is_measured() {
    let place = place(As::User, 6);
    let refused_in = |profile: &str, code: i32, more: &[&str], words: &[&str]| {
        let ran = evaluate(&place, "subject", profile, more).expect(code);
        words.iter().for_each(|word| assert!(ran.err.contains(word), "{word}: {}", ran.err));
        assert!(!place.work("runs").exists(), "{more:?}");
    };
    let refused = |code: i32, more: &[&str], words: &[&str]| refused_in("dev", code, more, words);
    refused(
        2,
        &["--metric", "ppl_causal"],
        &["--metric ppl_causal contradicts dataset.provider local_jsonl_choices"],
    );
    refused(3, &["--packing", "documents"], &["packing: documents is not supported for an accuracy"]);
    refused_in("ci", 2, &[], &["has 12 examples, but preview_n 240 and final_n 240 need 480"]);
    let mut rows = examples(12);
    rows[4]["choices"] = json!(["one"]);
    place.write("rows.jsonl", lines(&rows).as_bytes());
    refused(2, &[], &["rows.jsonl", "line 5", "has 1 choices; supported: 2 to 256"]);
    let mut rows = examples(12);
    rows[7] = rows[3].clone();
    place.write("rows.jsonl", lines(&rows).as_bytes());
    refused(2, &[], &["rows 4 and 8 of the dataset", "have the same prompt and choices"]);
    preset(&place, 6, json!({"kind": "local_jsonl", "file": demo("valid.jsonl")}));
    refused(
        2,
        &["--metric", "accuracy"],
        &["the metric accuracy is measured on examples with choices", "local_jsonl_labels"],
    );
}

#[test]
fn a_file_without_a_preset_is_read_as_choices() {
    let place = place(As::User, 6);
    place.write("many.jsonl", lines(&examples(128)).as_bytes());
    let args =
        ["evaluate", "--profile", "dev", "--dataset", "many.jsonl", "--metric", "accuracy", "--dry-run"];
    let plan =
        place.run(&[&args[..], &["--baseline", "base", "--subject", "subject"]].concat()).expect(0).json();
    assert_eq!(plan["dataset"]["provider"], "local_jsonl_choices");
    assert_eq!(plan["dataset"]["answers"]["choices_field"], "choices");
    let sweep = json!({"baseline": "base", "subjects": ["subject"], "presets": ["preset.yaml"]});
    place.write("sweep.yaml", sweep.to_string().as_bytes());
    let ran = place.run(&["sweep", "--out", "swept", "sweep.yaml"]);
    assert!(
        ran.code != 0 && ran.err.contains("the metric of") && ran.err.contains("is accuracy"),
        "{}",
        ran.err
    );
}

/// Upstream's verifier accepts the report of an accuracy under its strictest profile.
#[test]
fn upstream_0_12_1_accepts_the_report() {
    let program = target().join("upstream/0.12.1/bin/invarlock");
    if !program.is_file() {
        return skip(
            "accuracy::upstream_0_12_1",
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
    }
    let place = place(As::Caller, 240);
    evaluate(&place, "base", "ci", &["--quiet"]).expect(0);
    let report = place.work("eval/evaluation.report.json");
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(args)
            .arg(&report)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", place.path("home"));
        Ran::from(command.output().unwrap())
    };
    for mode in ["off", "report", "strict"] {
        run(&["verify", "--profile", "ci", "--assurance", mode]).expect(0);
    }
    let mut forged = read_json(&report);
    forged["primary_metric"]["final"] = json!(0.99);
    std::fs::write(&report, forged.to_string()).unwrap();
    let ran = run(&["verify", "--profile", "ci", "--assurance", "off"]);
    assert_ne!(ran.code, 0, "{}", ran.out);
}
