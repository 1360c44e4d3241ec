//! Every export of a report with hostile text stays one document of its format.
#![cfg(all(feature = "export", feature = "verify"))]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::made::{Made, honest};
use invarlock_evidence::beside::Beside;
use invarlock_evidence::explain::Explanation;
use invarlock_evidence::export::{FORMATS, Format, Measurements, Output, Summary};
use invarlock_evidence::measured::Measured;
use invarlock_evidence::numerics::digest::{canonical_utf8_line, sha256_hex};
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::contradictions;
use serde_json::{Map, Value, json};

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(honest("user").join(name)).unwrap()).unwrap()
}

fn export(format: &str, report: &Value, manifest: &Value) -> String {
    let summary = Summary::new(report, Beside::OfThisReport(manifest), &"ab".repeat(32));
    match Format::of(format).unwrap().output {
        Output::File(render) => render(&summary),
        Output::Directory(_) => panic!("{format} is no file"),
    }
}

/// `value` with every string replaced by `text`, but those that decide what is shown.
fn with_text(value: &Value, text: &str) -> Value {
    match value {
        Value::String(kept) if ["dev", "balanced", "pass"].contains(&kept.as_str()) => value.clone(),
        Value::String(_) => json!(text),
        Value::Array(items) => items.iter().map(|item| with_text(item, text)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, item)| (name.clone(), with_text(item, text)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "EVIL|a|b\n| c | d |\n# heading",
        "EVIL```\n~~~\n`` ` <script>alert(1)</script> @team #1 [a](https://example.org) ![x](y)",
        "=EVIL+cmd|' /C calc'!A0",
        "\t=EVIL",
        "EVIL\",\"x\"\r\n=1",
        "EVIL]]></failure><!-- <![CDATA[ &amp; \"' />",
        "EVIL: {a: [b, *c, &d]} # e\n---\nx: \"y\\",
        "EVIL\u{202e}\u{2028}\u{85}\0\u{1b}[2J\u{fffe}\u{feff}",
        "</summary></details>EVIL",
    ]
    .map(str::to_owned)
    .into();
    texts.push("EVIL".repeat(100_000));
    texts
}

/// Every export of evidence with a hostile text in each string and in ids of windows.
fn hostile_exports(format: &str) -> Vec<String> {
    let (report, manifest) = (read("evaluation.report.json"), read("runtime.manifest.json"));
    let exports = hostile().into_iter().map(|text| {
        let mut report = with_text(&report, &text);
        for side in ["baseline_windows", "evaluation_windows"] {
            report[side]["final"]["window_ids"] = json!([text, "=1", 5]);
        }
        report["warnings"] = json!([{"message": text}]);
        report["spectral"] = json!({"evaluated": false, "reason": text});
        let out = export(format, &report, &with_text(&manifest, &text));
        assert!(out.len() < 40_000, "{format}: {} bytes", out.len());
        let is_hidden =
            |c: char| (c.is_control() && c != '\n' && c != '\r') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!out.contains(is_hidden), "{format}");
        out
    });
    exports.collect()
}

#[test]
fn json_formats_stay_json_of_the_same_shape() {
    let (report, manifest) = (read("evaluation.report.json"), read("runtime.manifest.json"));
    for format in ["json", "mlflow"] {
        let honest: Value = serde_json::from_str(&export(format, &report, &manifest)).unwrap();
        for out in hostile_exports(format) {
            assert!(out.is_ascii(), "{format}");
            let value: Value = serde_json::from_str(&out).unwrap();
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&value), names(&honest), "{format}");
        }
    }
}

#[test]
fn csv_has_one_row_per_window_and_no_formula() {
    for out in hostile_exports("csv") {
        let rows: Vec<&str> = out.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        assert_eq!(rows.len(), 1 + 3 + 3, "{out}");
        for row in &rows[1..] {
            let cells = cells(row);
            assert_eq!(cells.len(), 6, "{row}");
            assert!(!cells[1].starts_with(['=', '+', '-', '@', '\t']), "{row}");
        }
    }
}

#[test]
fn windows_are_lines_of_json() {
    for out in hostile_exports("windows") {
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3 + 3, "{out}");
        assert!(
            !out.chars().any(|c| c != '\n' && c.is_control() || "\u{202e}\u{2028}\u{feff}".contains(c)),
            "{out}"
        );
    }
}

/// The fields of one row of CSV.
fn cells(row: &str) -> Vec<String> {
    let (mut cells, mut quoted, mut letters) = (vec![String::new()], false, row.chars().peekable());
    while let Some(c) = letters.next() {
        match c {
            '"' if quoted && letters.peek() == Some(&'"') => {
                cells.last_mut().unwrap().push(letters.next().unwrap())
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    assert!(!quoted, "{row}");
    cells
}

#[test]
fn xml_has_only_its_own_elements() {
    const ELEMENTS: [&str; 9] = [
        "?xml",
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "system-out",
        "failure",
        "skipped",
    ];
    for out in hostile_exports("junit") {
        let mut open = Vec::new();
        for tag in out.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap();
            assert!(!text.contains("]]>"), "{text}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            assert!(ELEMENTS.contains(&name), "<{tag}>");
            match (tag.starts_with('/'), tag.ends_with(['/', '?'])) {
                (true, _) => assert_eq!(open.pop(), Some(name)),
                (false, false) => open.push(name),
                (false, true) => {}
            }
            assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        }
        assert!(open.is_empty());
        assert_eq!(out.matches("<testcase").count(), 7);
    }
}

#[test]
fn front_matter_is_yaml_of_the_same_shape() {
    for out in hostile_exports("model-card") {
        let (front, section) = out.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
        let front: Value = serde_norway::from_str(front).unwrap();
        let model = &front["model-index"][0];
        assert!(model["name"].as_str().unwrap().contains("EVIL"), "{front}");
        assert_eq!(model["results"][0]["metrics"].as_array().unwrap().len(), 3);
        assert_eq!(front.as_object().unwrap().len(), 1);
        assert!(section.starts_with("\n## Evaluation with InvarLock: PASS\n"), "{section}");
    }
}

#[test]
fn markdown_has_hostile_text_in_code_spans_only() {
    for format in ["md", "github-summary", "model-card"] {
        for out in hostile_exports(format) {
            let section = out.rsplit_once("\n---\n").map_or(out.as_str(), |(_, section)| section);
            for line in section.lines() {
                let outside = without_code(line);
                assert!(!outside.contains("EVIL"), "{format}: {line}");
                if line.starts_with('|') {
                    let bars = line.matches('|').count();
                    assert!((4..=5).contains(&bars), "{format}: {line}");
                }
            }
            assert!(section.contains("EVIL"), "{format}");
        }
    }
}

/// A line without its code spans.
fn without_code(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(start) = rest.find('`') {
        out.push_str(&rest[..start]);
        let run = rest[start..].bytes().take_while(|byte| *byte == b'`').count();
        let inside = &rest[start + run..];
        let mut at = 0;
        // The span ends at a run of the same length.
        let end = loop {
            let next =
                at + inside[at..].find('`').unwrap_or_else(|| panic!("a code span does not end: {line}"));
            let length = inside[next..].bytes().take_while(|byte| *byte == b'`').count();
            if length == run {
                break next;
            }
            at = next + length;
        };
        rest = &inside[end + run..];
    }
    out + rest
}

#[test]
fn any_report_can_be_exported_and_explained() {
    let manifest = read("runtime.manifest.json");
    for report in [json!(null), json!([]), json!({}), json!({"validation": 1, "primary_metric": []})] {
        for format in FORMATS.iter().filter(|format| matches!(format.output, Output::File(_))) {
            let out = export(format.name, &report, &manifest);
            // There is no line where there is no window.
            assert!(out.ends_with('\n') || format.name == "windows" && out.is_empty(), "{}", format.name);
        }
        let explained = Explanation::new(&report, Beside::Missing, "");
        assert_eq!(explained.summary.verdict, "NO VERDICT");
    }
}

#[test]
fn honest_reports_do_not_contradict_themselves_and_edited_ones_do() {
    let mut report = read("evaluation.report.json");
    assert_eq!(contradictions(&report), Vec::<String>::new());
    report["evaluation_windows"]["final"]["logloss"][0] = json!(1.0);
    assert!(!contradictions(&report).is_empty());
}

/// The files of `invarlock-captured`, from losses around 3 and these texts.
fn captured(texts: Option<Vec<String>>) -> invarlock_evidence::Result<Vec<(&'static str, Value)>> {
    let made = Made::new(40, 0.02, Profile::Dev, Tier::Balanced);
    let (mut baseline, subject) =
        (Measured::read(&made.baseline).unwrap(), Measured::read(&made.subject).unwrap());
    baseline.predicted_texts = texts;
    let Output::Directory(files) = Format::of("invarlock-captured").unwrap().output else {
        panic!("a directory")
    };
    let made = files(&Measurements { facts: &made.facts, baseline: &baseline, subject: &subject })?;
    Ok(made.files.into_iter().map(|(name, bytes)| (name, serde_json::from_slice(&bytes).unwrap())).collect())
}

#[test]
fn runs_of_a_captured_evaluation_are_bound_to_each_other() {
    let texts: Vec<String> = (0..40).map(|index| format!("\u{e4} {index}")).collect();
    let files = captured(Some(texts.clone())).unwrap();
    let file = |name: &str| &files.iter().find(|(found, _)| *found == name).unwrap().1;
    let digest = |value: &Value| format!("sha256:{}", sha256_hex(canonical_utf8_line(value).as_bytes()));
    let (baseline, policy) = (file("baseline.run.json"), &file("policy.json")["metrics"][0]);
    let records = baseline["records"].as_array().unwrap();
    assert_eq!(records.len(), texts.len());
    for (record, text) in records.iter().zip(&texts) {
        let facts = &record["likelihood"];
        assert_eq!((&record["expected"], &facts["utf8_byte_count"]), (&json!(text), &json!(text.len())));
        assert_eq!(facts["reference_digest"], digest(&json!(text)));
        assert_eq!(facts["input_digest"], digest(&record["input"]));
        assert_eq!(facts["artifact_digest"], baseline["artifact_digest"]);
        assert_eq!(facts["configuration_digest"], digest(file("configuration.json")));
        assert_eq!(facts["configuration_digest"], policy["configuration"]["configuration_digest"]);
        assert_eq!(facts["tokenizer_digest"], policy["configuration"]["baseline_tokenizer_digest"]);
    }
    // The limit 1.10 of the tier with its tolerance, for losses with a mean of about 3.
    let ratio = policy["ratio_max"].as_f64().unwrap();
    assert!((ratio - (1.0 + 1.102f64.ln() / 3.0)).abs() < 0.002, "{ratio}");
}

#[test]
fn a_captured_evaluation_needs_a_text_for_each_window() {
    let old = captured(None).unwrap_err();
    assert!(old.to_string().contains("has no texts"), "{old}");
    assert!(old.hint().unwrap().contains("evaluate again"), "{old:?}");
    let empty = captured(Some(vec![String::new(); 40])).unwrap_err();
    assert!(empty.to_string().contains("have no text"), "{empty}");
}
