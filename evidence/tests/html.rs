//! The HTML page shows the verdict and its reasons. Text of a report cannot act on the page.
#![cfg(feature = "html")]
#![allow(missing_docs, clippy::unwrap_used)]

use invarlock_evidence::beside::Beside;
use invarlock_evidence::html::render;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::window_texts::WindowTexts;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A report as `evaluate` writes it. Baseline perplexity 20, ratio `ratio`, four windows an arm.
fn report(ratio: f64, passed: bool) -> Value {
    let delta = ratio.ln();
    let baseline = [3.0, 2.9, 3.1, 3.0];
    let subject: Vec<f64> =
        baseline.iter().enumerate().map(|(i, x)| x + delta + 0.01 * (i as f64 - 1.5)).collect();
    json!({
        "schema_version": "v1",
        "run_id": "0123456789abcdef",
        "meta": {"model_id": "models/subject", "adapter": "hf_causal", "device": "cpu", "ts": "2026-11-22T10:00:00Z"},
        "context": {"profile": "ci"},
        "auto": {"tier": "balanced"},
        "artifacts": {}, "plugins": {},
        "baseline_ref": {"run_id": "fedcba9876543210", "model_id": "models/baseline",
                         "primary_metric": {"kind": "ppl_causal", "final": 20.0}},
        "dataset": {"provider": "local_jsonl", "split": "None", "seq_len": 128,
                    "hash": {"dataset": "c0ffee", "total_tokens": 61440},
                    "windows": {"preview": 4, "final": 4, "stats": {
                        "paired_windows": 4, "window_match_fraction": 1.0, "bootstrap": {"alpha": 0.05},
                        "coverage": {"preview": {"ok": true}, "final": {"ok": true}}}}},
        "primary_metric": {"kind": "ppl_causal", "preview": 20.1 * ratio, "final": 20.0 * ratio,
                           "ratio_vs_baseline": ratio, "display_ci": [ratio * 0.99, ratio * 1.01],
                           "drift_band": {"min": 0.95, "max": 1.07}},
        "resolved_policy": {"metrics": {"pm_ratio":
            {"ratio_limit_base": 1.1, "hysteresis_ratio": 0.002, "min_tokens": 50000}}},
        "telemetry": {"preview_total_tokens": 30720.0, "final_total_tokens": 30720.0},
        "evaluation_windows": {"final": {"window_ids": [4, 5, 6, 7], "logloss": subject,
                                         "token_counts": [128, 128, 128, 128]}},
        "baseline_windows": {"final": {"window_ids": [7, 6, 5, 4], "logloss": [3.0, 3.1, 2.9, 3.0],
                                       "token_counts": [128, 128, 128, 128]}},
        "invariants": {"status": "pass", "decision": "allow",
                       "summary": {"checks_performed": 8, "violations_found": 0}},
        "spectral": {"evaluated": false}, "rmt": {"evaluated": false}, "variance": {"evaluated": false},
        "validation": {"primary_metric_acceptable": passed, "preview_final_drift_acceptable": true,
                       "invariants_pass": true, "spectral_stable": true, "rmt_stable": true},
    })
}

fn manifest() -> Value {
    let digest = "ab".repeat(32);
    let side = |mounts: u64| {
        json!({
            "reused": false, "filter_digest": digest,
            "checkpoint": {"tree_sha256": digest, "files": [{"name": "config.json", "sha256": digest, "bytes": 812}]},
            "dataset": {"files": [{"name": "windows.jsonl", "sha256": digest}]},
            "outputs": [{"name": "report.json", "sha256": digest, "bytes": 2048}],
            "observations": {
                "network": {"observer": "init", "interfaces": ["lo"], "routes": 0},
                "inputs": {"observer": "init", "mounts": mounts},
                "limits": {"observer": "supervisor", "memory_bytes": 4_294_967_296_u64, "wall_ms": 3_600_000},
            },
            "usage": {"wall_ms": 812, "cpu_ms": 1490, "peak_memory_bytes": 62_914_560},
            "status": {"exited": 0},
        })
    };
    json!({
        "manifest_version": 1, "verifier_contract_version": "runtime-manifest-v1",
        "generated_at_utc": "2026-11-22T10:00:01.000000+00:00", "execution_mode": "container",
        "report": {"filename": "evaluation.report.json", "path": "/x/evaluation.report.json", "sha256": digest},
        "config": {"path": null, "sha256": digest, "source": "inline"},
        "runtime": {"image_ref": "invarlock-runtime:local", "image_digest": format!("sha256:{digest}"),
                    "container_execution": true, "allow_network": false, "allow_remote_code": false,
                    "allow_third_party_plugins": false},
        "context": {
            "profile": "ci", "tier": "balanced",
            "allowances": {"network": false, "host_execution": false, "remote_code": false, "granted_by": {}},
            "launcher": {"version": "0.1.0", "sha256": digest},
            "machine": {"kernel": "6.8.0", "arch": "x86_64", "cpus": 2},
            "image": {"reference": "invarlock-runtime:local", "manifest_digest": format!("sha256:{digest}"),
                      "layers": [{"digest": format!("sha256:{digest}"), "size": 7_340_032}], "verification": "full"},
            "plan": {"digest": digest, "sides": {}},
            "sides": {"baseline": side(5), "subject": side(7)},
        },
    })
}

fn page(report: &Value, manifest: Option<&Value>) -> String {
    render(report, manifest).expect("any JSON gives a page")
}

/// The text between `start` and the next `end`.
fn between<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
    let from = page.find(start).unwrap_or_else(|| panic!("{start} is on the page")) + start.len();
    &page[from..from + page[from..].find(end).expect("an end marker")]
}

/// All element names and attributes of the page, read by a parser of the tag syntax only.
fn markup(page: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut names, mut attributes) = (Vec::new(), Vec::new());
    let style_end = page.find("</style>").expect("one style sheet");
    let style_start = page.find("<style>").expect("one style sheet") + "<style>".len();
    let page = format!("{}{}", &page[..style_start], &page[style_end..]);
    let mut rest = page.as_str();
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..];
        let end = tag.find('>').expect("a tag ends");
        let mut inside = &tag[..end];
        let name: String = inside
            .chars()
            .take_while(|c| !c.is_whitespace())
            .collect::<String>()
            .trim_matches('/')
            .to_lowercase();
        names.push(name);
        while let Some(equals) = inside.find("=\"") {
            let attribute = inside[..equals].rsplit([' ', '\n']).next().unwrap().to_lowercase();
            let value = &inside[equals + 2..];
            let close = value.find('"').expect("a quoted value on one tag");
            attributes.push((attribute, value[..close].to_owned()));
            inside = &value[close + 1..];
        }
        rest = &tag[end + 1..];
    }
    (names, attributes)
}

/// Fails the test if the page contains anything that runs, loads content or leads off the page.
fn assert_inert(page: &str) {
    const ELEMENTS: &str = "!doctype html head meta title style body a header main section footer p span h1 h2 h3 \
        div dl dt dd ul li small figure figcaption svg desc rect line circle text g table \
        caption thead tbody tr th td pre code b i nav details summary";
    const ATTRIBUTES: &str = "lang charset http-equiv content name class href id aria-labelledby aria-label \
        aria-hidden role tabindex scope colspan width height x y x1 y1 x2 y2 cx cy r dx dy \
        text-anchor fill stroke d rx";
    let (names, attributes) = markup(page);
    for name in &names {
        assert!(ELEMENTS.split(' ').any(|known| known == name), "element <{name}>");
    }
    for (name, value) in &attributes {
        assert!(ATTRIBUTES.split(' ').any(|known| known == name), "attribute {name}={value:?}");
        if name == "href" {
            assert!(value.starts_with('#'), "a link leaves the page: {value}");
        }
        // Attributes contain only fixed words, never text of the report.
        assert!(!value.contains("EVIL"), "{name}={value:?}");
    }
    let lower = page.to_lowercase();
    for needle in
        ["<script", "http://", "https://", "url(", "@import", "<img", "<iframe", "<link", "javascript:"]
    {
        assert!(!lower.contains(needle), "{needle} is on the page");
    }
    assert_eq!(names.iter().filter(|n| *n == "html").count(), 2);
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'"));
    // Bidirectional, zero-width and control characters are escaped.
    assert!(
        !page.chars().any(
            |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}')
        )
    );
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn passing_report_shows_pass_and_reason() {
    let page = page(&report(1.01, true), Some(&manifest()));
    assert_inert(&page);
    assert!(page.contains(r#"class="hero pass""#));
    let reason = between(&page, r#"class="reason">"#, "</p>");
    assert_eq!(
        reason,
        "The subject’s perplexity is 1.0100 × the baseline’s (95 % CI 0.9999 to 1.0201), below the limit of 1.1020."
    );
    assert!(
        page.contains("Not evaluated: spectral stability and RMT stability."),
        "guards that did not run are named"
    );
    assert!(page.contains("models&#x2f;subject") && page.contains("models&#x2f;baseline"));
    assert!(page.contains("20.200"), "perplexities have five significant digits");
    assert!(!page.contains("class=\"warnings\""), "no control was disabled");
    assert_eq!(page.matches("<svg").count(), 3, "metric, windows and drift");
    assert_eq!(page.matches("<svg").count(), page.matches("<desc").count());
    assert!(page.contains("3 of 4 paired windows got worse (75.0\u{a0}%)"));
    assert!(page.contains("observed by init") && page.contains("4\u{a0}GiB") && page.contains("812\u{a0}ms"));
    assert!(page.contains("invarlock verify --profile ci evaluation.report.json"));
}

#[test]
fn failing_report_shows_fail_and_gate() {
    let mut report = report(1.31, false);
    report["validation"]["invariants_pass"] = json!(false);
    report["invariants"] = json!({"status": "fail", "failures": [
        {"check": "config_vocab_size", "type": "mismatch", "severity": "error", "detail": {"EVIL<b>": 1}}]});
    let page = page(&report, Some(&manifest()));
    assert_inert(&page);
    assert!(page.contains(r#"class="hero fail""#));
    assert!(between(&page, r#"class="reason">"#, "</p>").ends_with("above the limit of 1.1020."));
    assert!(
        page.contains("Failed: Invariants Pass: ") && page.contains("Failed: Primary Metric Acceptable: ")
    );
    assert!(page.contains("config_vocab_size") && page.contains("EVIL&lt;b&gt;"));
}

#[test]
fn dev_verdict_uses_only_ratio_and_invariants() {
    let mut report = report(1.01, true);
    (report["meta"]["profile"], report["context"]) = (json!("dev"), json!({"profile": "dev"}));
    report["validation"]["preview_final_drift_acceptable"] = json!(false);
    let shown = page(&report, Some(&manifest()));
    assert!(
        shown.contains(r#"class="hero pass""#)
            && shown.contains("shown only")
            && shown.contains("2 passed, 1 shown only")
    );
    assert!(shown.contains("invarlock verify --profile dev evaluation.report.json"));
}

#[test]
fn too_few_tokens_are_shown_as_the_reason() {
    let mut report = report(1.0, false);
    report["telemetry"]["final_total_tokens"] = json!(100);
    let page = page(&report, Some(&manifest()));
    assert!(page.contains("too few tokens were measured"));
    assert!(page.contains("≥ 49\u{202f}000"));
}

#[test]
fn flags_that_contradict_the_numbers_fail() {
    for (path, value) in [
        ("ratio_vs_baseline", json!(1.5)),
        ("ratio_vs_baseline", Value::Null),
        ("preview", json!(10.0)),
        ("invalid", json!(true)),
    ] {
        let mut report = report(1.01, true);
        report["primary_metric"][path] = value;
        let page = page(&report, Some(&manifest()));
        assert!(page.contains("The report contradicts itself"), "{path}");
        assert!(page.contains(r#"class="hero fail""#), "{path}");
    }
}

#[test]
fn missing_flags_give_no_verdict() {
    let mut bare = report(1.01, true);
    bare.as_object_mut().unwrap().remove("validation");
    let no_flags = page(&bare, Some(&manifest()));
    assert!(no_flags.contains("NO VERDICT") && !no_flags.contains(r#"class="hero pass""#));
    let mut one_less = report(1.01, true);
    one_less["validation"].as_object_mut().unwrap().remove("invariants_pass");
    assert!(page(&one_less, Some(&manifest())).contains("NO VERDICT"));
}

#[test]
fn host_execution_and_disabled_controls_show_warnings() {
    const HOST: &str = "HOST EXECUTION: this run was not isolated in a container (";
    let report = report(1.01, true);
    let mut host = manifest();
    host["execution_mode"] = json!("host-bypass");
    host["runtime"]["container_execution"] = json!(false);
    let text = page(&report, Some(&host));
    assert_inert(&text);
    assert!(text.contains(r#"class="warning danger""#) && text.contains(HOST));
    assert!(text.contains("--runtime-provenance host"));
    assert!(text.find(HOST).unwrap() < text.find(r#"id="verdict-word""#).unwrap());

    let mut contradictory = manifest();
    contradictory["context"]["allowances"]["host_execution"] = json!(true);
    assert!(page(&report, Some(&contradictory)).contains(HOST));

    let mut loose = manifest();
    loose["runtime"]["allow_network"] = json!(true);
    loose["context"]["allowances"]["remote_code"] = json!(true);
    loose["context"]["allowances"]["some_later_thing"] = json!(true);
    let text = page(&report, Some(&loose));
    assert!(text.contains("Controls were disabled"));
    for warning in ["Network: the launcher was allowed", "Remote code: code", "some later thing."] {
        assert!(text.contains(warning), "{warning}");
    }
}

#[test]
fn missing_manifest_or_baseline_is_reported() {
    let mut report = report(1.01, true);
    report.as_object_mut().unwrap().remove("baseline_windows");
    let text = page(&report, None);
    assert_inert(&text);
    assert!(text.contains("No runtime manifest"));
    assert!(
        text.contains(
            "The distribution cannot be shown: the baseline’s final windows are not in the report."
        )
    );
    assert!(page(&report, Some(&json!([1, 2]))).contains("The runtime manifest cannot be read"));

    let mut without_context = manifest();
    without_context.as_object_mut().unwrap().remove("context");
    assert!(page(&report, Some(&without_context)).contains("isolation is only claimed"));
}

#[test]
fn windows_are_paired_by_id_not_by_index() {
    // The baseline's windows are in reverse order. Pairing by index would change the differences.
    let text = page(&report(1.0, true), Some(&manifest()));
    let quantiles = between(&text, r#"id="h-windows">"#, "</section>");
    assert!(quantiles.contains("<dt>max</dt><dd>+0.0150</dd>"), "{quantiles}");

    let mut duplicate = report(1.0, true);
    duplicate["baseline_windows"]["final"]["window_ids"] = json!([4, 4, 5, 6]);
    assert!(page(&duplicate, None).contains("contain a window id twice"));
    let mut missing_id = report(1.0, true);
    missing_id["baseline_windows"]["final"]["window_ids"] = json!([4]);
    assert!(page(&missing_id, None).contains("one loss for each window id"));
    let mut disjoint = report(1.0, true);
    disjoint["baseline_windows"]["final"]["window_ids"] = json!([14, 15, 16, 17]);
    assert!(page(&disjoint, None).contains("have no window in common"));
    let mut null_loss = report(1.0, true);
    null_loss["baseline_windows"]["final"]["logloss"] = json!([3.0, null, 2.9, 3.0]);
    assert!(page(&null_loss, None).contains("1 window was left out"));
}

#[test]
fn the_most_changed_windows_are_shown() {
    let mut changed = report(1.0, true);
    changed["evaluation_windows"]["final"]["logloss"] = json!([3.0, 2.9, 3.6, 1.0]);
    let text = page(&changed, Some(&manifest()));
    let table = between(&text, "<table class=\"changed\">", "</table>");
    let rows: Vec<&str> = table.split("<th scope=\"row\">").skip(1).map(|row| &row[..1]).collect();
    // The baseline's windows 4 to 7 have the losses 3.0, 2.9, 3.1 and 3.0.
    assert_eq!(rows, ["7", "6"], "{table}");
    assert!(table.contains("−2.0000") && table.contains("+0.5000"), "{table}");
}

#[test]
fn the_boundary_is_folded_and_the_contents_lead_to_every_section() {
    let text = page(&report(1.01, true), Some(&manifest()));
    let boundary = between(&text, r#"id="h-boundary">"#, "</section>");
    let folded = between(boundary, "<details", "</details>");
    assert!(folded.contains("Controls, observed at run time") && !text.contains("<details open"));
    for link in between(&text, r#"aria-label="Contents">"#, "</nav>").split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(text.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[test]
fn a_manifest_of_another_report_is_named_and_not_shown() {
    let (beside, texts) = (Beside::OfAnotherReport, WindowTexts::default());
    let text = invarlock_evidence::html::render_with(&report(1.01, true), beside, &texts).unwrap();
    assert_inert(&text);
    assert!(text.contains("The runtime manifest is not that of this report"));
    assert!(!text.contains("No runtime manifest") && !text.contains("There is no runtime manifest beside"));
}

#[test]
fn the_most_changed_windows_are_shown_with_their_text() {
    let mut report = report(1.05, true);
    let arm = |losses: [f64; 3]| json!({"final": {"window_ids": [4, 5, 6], "logloss": losses, "token_counts": [8, 8, 8]}});
    report["baseline_windows"] = arm([1.0, 2.0, 3.0]);
    report["evaluation_windows"] = arm([1.0, 2.5, 3.1]);
    let texts = ["one", "two <script>\u{202e}", &"long ".repeat(1000)];
    let run = json!({"evaluation_windows": {"final": {"window_ids": [4, 5, 6], "predicted_texts": texts}}});
    let bytes = run.to_string().into_bytes();
    report["provenance"]["baseline"]["report_sha256"] = json!(sha256_hex(&bytes));
    let texts = WindowTexts::of(&report, &bytes);
    let text = invarlock_evidence::html::render_with(&report, Beside::Missing, &texts).unwrap();
    assert_inert(&text);
    assert!(
        text.contains("two &lt;script") && text.contains("U+202E") && text.contains("characters left out")
    );
    assert!(!text.contains(">one<"), "the loss of window 4 did not change");
}

#[test]
fn models_and_dataset_are_described() {
    let mut described = report(1.01, true);
    let side = json!({"parameter_count": 222_016, "checkpoint":
        {"model_type": "llama", "checkpoint_dtype": "bfloat16", "compute_dtype": "float32"}});
    described["measurements"] = json!({"baseline": side, "subject": side});
    let mut manifest = manifest();
    manifest["context"]["plan"]["content"] = json!({"dataset_files": {"path": "valid.jsonl"}});
    let text = page(&described, Some(&manifest));
    for shown in ["llama", "222\u{202f}016", "bfloat16, measured in float32", "valid.jsonl"] {
        assert!(text.contains(shown), "{shown}");
    }
}

#[test]
fn extreme_numbers_give_an_inert_page() {
    for x in [0.0, -1.0, 1e-300, 1e300, f64::MAX, f64::MIN_POSITIVE, -1e300] {
        let mut report = report(1.01, true);
        for path in ["ratio_vs_baseline", "final", "preview"] {
            report["primary_metric"][path] = json!(x);
        }
        report["primary_metric"]["display_ci"] = json!([x, f64::MAX]);
        report["primary_metric"]["drift_band"] = json!([1e-300, x]);
        report["baseline_ref"]["primary_metric"]["final"] = json!(x);
        report["evaluation_windows"]["final"]["logloss"] = json!([x, 0.0, -x, 1.0]);
        report["telemetry"]["final_total_tokens"] = json!(x);
        report["dataset"]["windows"]["stats"]["bootstrap"]["alpha"] = json!(x);
        let page = page(&report, Some(&manifest()));
        assert_inert(&page);
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{x}");
        assert!(page.len() < 200_000);
    }
}

/// Text that breaks out of HTML, hides characters or is very long.
fn hostile_texts() -> Vec<String> {
    vec![
        "EVIL<script>alert(1)</script>".into(),
        "EVIL\"><img src=x onerror=alert(1)>".into(),
        "EVIL' onmouseover='alert(1)".into(),
        "EVIL</title><script>alert(1)</script>".into(),
        "EVIL</style><link rel=stylesheet href=https://example.org/x.css>".into(),
        "EVIL{{ 7 * 7 }}{% include 'x' %}{# gone #}".into(),
        "EVIL&lt;script&gt; &#60;script&#62;".into(),
        "EVIL\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}\u{e0041}".into(),
        "EVIL\0\u{1b}[31m\r\n\t\u{85}\u{9b}".into(),
        format!("EVIL{}", "e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}".repeat(50)),
        "EVIL".repeat(300_000),
        "javascript:EVIL".replace("javascript", "java\u{ad}script"),
        "EVIL -->]]><!-- <![CDATA[".into(),
    ]
}

/// `value` with every string replaced by `text`. With `keys`, every object gets a member `text`.
fn with_text(value: &Value, text: &str, keys: bool) -> Value {
    match value {
        Value::String(_) => json!(text),
        Value::Array(items) => items.iter().map(|v| with_text(v, text, keys)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(k, v)| (k.clone(), with_text(v, text, keys)))
            .chain(keys.then(|| (text.to_owned(), json!(text))))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[test]
fn hostile_text_is_shown_and_inert() {
    for text in hostile_texts() {
        // The second page keeps kinds and modes, so that every branch of the page gets the text.
        let all = with_text(&report(1.01, true), &text, true);
        assert_inert(&page(&all, Some(&with_text(&manifest(), &text, true))));

        let mut report = report(1.31, false);
        for pointer in
            ["/run_id", "/meta/model_id", "/baseline_ref/model_id", "/dataset/provider", "/auto/tier"]
        {
            *report.pointer_mut(pointer).unwrap() = json!(text);
        }
        report["primary_metric"]["degraded"] = json!(true);
        report["primary_metric"]["degraded_reason"] = json!(text);
        report["invariants"]["failures"] = json!([text, {"check": text}]);
        report["confidence"] = json!({"label": text, "width": 0.1});
        report["guard_overhead"] = json!({"skipped": true, "skip_reason": text});
        let mut manifest = manifest();
        manifest["report"]["filename"] = json!(text);
        manifest["context"]["allowances"][&text] = json!(true);
        manifest["context"]["sides"]["subject"]["observations"][&text] =
            json!({"observer": text, &text: [text, {&text: text}]});
        manifest["context"]["sides"]["subject"]["outputs"][0]["name"] = json!(text);
        let page = page(&report, Some(&manifest));
        assert_inert(&page);
        assert!(page.contains("EVIL"), "the text is shown");
        assert!(page.len() < 200_000, "{} bytes", page.len());
        assert!(
            page.contains("invarlock verify --profile ci evaluation.report.json"),
            "commands contain no text of the report"
        );
    }
}

#[test]
fn invisible_characters_are_shown_as_code_points() {
    let mut report = report(1.01, true);
    report["meta"]["model_id"] = json!("safe\u{202e}gpj.exe\u{200b}\u{7}");
    let page = page(&report, None);
    assert!(
        page.contains(r#"safe<span class="hidden">U+202E</span>gpj.exe<span class="hidden">U+200B</span>"#)
    );
    assert!(between(&page, "<title>", "</title>").contains("safe[U+202E]gpj.exe[U+200B][U+0007]"));
}

#[test]
fn long_values_are_truncated_with_a_count() {
    let mut report = report(1.01, true);
    report["meta"]["model_id"] = json!(format!("start{}end", "x".repeat(1 << 20)));
    report["invariants"]["status"] = json!("fail");
    report["invariants"]["failures"] = (0..50_000).map(|i| json!({"check": i})).collect();
    let mut manifest = manifest();
    manifest["context"]["image"]["layers"] =
        (0..5000).map(|i| json!({"digest": format!("sha256:{i}")})).collect();
    manifest["context"]["sides"]["baseline"]["observations"] = (0..5000)
        .map(|i| (format!("row{i}"), json!({"observer": "init", "n": i})))
        .collect::<Map<_, _>>()
        .into();
    let page = page(&report, Some(&manifest));
    assert_inert(&page);
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert!(
        page.contains("characters left out")
            && page.contains("… and 49992 more")
            && page.contains("… and 4988 more")
    );
    assert!(page.contains("end</dd>"), "the end of a long path is kept");
}

#[test]
fn command_line_contains_only_plain_file_names() {
    for (name, used) in [
        ("eval-2.report.json", true),
        ("$(reboot).json", false),
        ("-rf", false),
        ("../x.json", false),
        ("a b.json", false),
        ("", false),
    ] {
        let mut manifest = manifest();
        manifest["report"]["filename"] = json!(name);
        let text = page(&report(1.01, true), Some(&manifest));
        let expected = if used { name } else { "evaluation.report.json" };
        assert_eq!(
            between(&text, "<pre><code>", "</code>"),
            format!("invarlock verify --profile ci {expected}")
        );
    }
}

#[test]
fn equal_input_gives_equal_pages() {
    let (report, manifest) = (report(1.01, true), manifest());
    assert_eq!(page(&report, Some(&manifest)), page(&report, Some(&manifest)));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        any::<String>().prop_map(Value::from),
        proptest::sample::select(vec!["pass", "fail", "ppl_causal", "EVIL<script>", "\u{202e}", "container"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// JSON pointers to `value` and to every value inside.
fn pointers(value: &Value, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{path}/{i}"), out))
        }
        Value::Object(members) => {
            for (key, value) in members {
                pointers(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any member may be missing or of any type, several at once.
    #[test]
    fn any_member_of_any_type_gives_an_inert_page(
        changes in proptest::collection::vec((any::<bool>(), any::<proptest::sample::Index>(), any_json()), 1..8),
    ) {
        let (mut report, mut manifest) = (report(1.01, true), manifest());
        for (in_manifest, index, value) in changes {
            let target = if in_manifest { &mut manifest } else { &mut report };
            let mut all = Vec::new();
            pointers(target, "", &mut all);
            let pointer = index.get(&all).clone();
            *target.pointer_mut(&pointer).unwrap() = value;
        }
        assert_inert(&page(&report, Some(&manifest)));
    }

    #[test]
    fn any_json_gives_an_inert_page(report in any_json(), manifest in proptest::option::of(any_json())) {
        assert_inert(&page(&report, manifest.as_ref()));
    }
}
