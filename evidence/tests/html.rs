//! The HTML page: what it says, and that nothing a report holds can act on it.
#![cfg(feature = "html")]
#![allow(missing_docs, clippy::unwrap_used)]

use invarlock_evidence::html::render;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A report as we write it: `ratio` times the baseline's perplexity of 20, four windows an arm.
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
    &page[from..from + page[from..].find(end).expect("it ends")]
}

/// Every element name and attribute name of the page, by a reader that knows only the syntax of tags.
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

/// Nothing on the page runs, loads or leaves, whatever was in the report.
fn assert_inert(page: &str) {
    const ELEMENTS: [&str; 44] = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "main",
        "section",
        "footer",
        "p",
        "span",
        "h1",
        "h2",
        "h3",
        "div",
        "dl",
        "dt",
        "dd",
        "ul",
        "li",
        "small",
        "figure",
        "figcaption",
        "svg",
        "desc",
        "rect",
        "line",
        "circle",
        "text",
        "g",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "pre",
        "code",
        "b",
        "i",
    ];
    const ATTRIBUTES: [&str; 33] = [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "href",
        "id",
        "aria-labelledby",
        "aria-label",
        "aria-hidden",
        "role",
        "tabindex",
        "scope",
        "colspan",
        "width",
        "height",
        "x",
        "y",
        "x1",
        "y1",
        "x2",
        "y2",
        "cx",
        "cy",
        "r",
        "dx",
        "dy",
        "text-anchor",
        "fill",
        "stroke",
        "d",
        "rx",
    ];
    let (names, attributes) = markup(page);
    for name in &names {
        assert!(ELEMENTS.contains(&name.as_str()), "element <{name}>");
    }
    for (name, value) in &attributes {
        assert!(ATTRIBUTES.contains(&name.as_str()), "attribute {name}={value:?}");
        if name == "href" {
            assert!(value.starts_with('#'), "a link leaves the page: {value}");
        }
        // Attributes hold words of ours only.
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
    // What would act on the text around it is spelled out instead.
    assert!(
        !page.chars().any(
            |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}')
        )
    );
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn a_passing_report_says_pass_and_why() {
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
    assert!(!page.contains("class=\"warnings\""), "nothing was loosened");
    assert_eq!(page.matches("<svg").count(), 3, "metric, windows and drift");
    assert_eq!(page.matches("<svg").count(), page.matches("<desc").count());
    assert!(page.contains("3 of 4 paired windows got worse (75.0\u{a0}%)"));
    assert!(page.contains("observed by init") && page.contains("4\u{a0}GiB") && page.contains("812\u{a0}ms"));
    assert!(page.contains("invarlock verify --profile ci evaluation.report.json"));
}

#[test]
fn a_failing_report_says_fail_and_names_the_gate() {
    let mut report = report(1.31, false);
    report["validation"]["invariants_pass"] = json!(false);
    report["invariants"] = json!({"status": "fail", "failures": [
        {"check": "config_vocab_size", "type": "mismatch", "severity": "error", "detail": {"EVIL<b>": 1}}]});
    let page = page(&report, Some(&manifest()));
    assert_inert(&page);
    assert!(page.contains(r#"class="hero fail""#));
    assert!(between(&page, r#"class="reason">"#, "</p>").ends_with("above the limit of 1.1020."));
    assert!(page.contains("Failed gate: invariants."));
    assert!(page.contains("config_vocab_size") && page.contains("EVIL&lt;b&gt;"));
}

#[test]
fn a_dev_report_is_decided_by_ratio_and_invariants_alone() {
    let mut report = report(1.01, true);
    (report["meta"]["profile"], report["context"]) = (json!("dev"), json!({"profile": "dev"}));
    report["validation"]["preview_final_drift_acceptable"] = json!(false);
    let shown = page(&report, Some(&manifest()));
    assert!(
        shown.contains(r#"class="hero pass""#) && shown.contains("shown only") && shown.contains("2 of 2")
    );
    assert!(shown.contains("invarlock verify --profile dev evaluation.report.json"));
}

#[test]
fn a_gate_that_failed_for_want_of_tokens_says_so() {
    let mut report = report(1.0, false);
    report["telemetry"]["final_total_tokens"] = json!(100);
    let page = page(&report, Some(&manifest()));
    assert!(page.contains("too few tokens were measured"));
    assert!(page.contains("≥ 49\u{202f}000"));
}

#[test]
fn flags_that_do_not_follow_from_the_numbers_are_a_failure() {
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
fn without_flags_there_is_no_verdict() {
    let mut bare = report(1.01, true);
    bare.as_object_mut().unwrap().remove("validation");
    let no_flags = page(&bare, Some(&manifest()));
    assert!(no_flags.contains("NO VERDICT") && !no_flags.contains(r#"class="hero pass""#));
    let mut one_less = report(1.01, true);
    one_less["validation"].as_object_mut().unwrap().remove("invariants_pass");
    assert!(page(&one_less, Some(&manifest())).contains("NO VERDICT"));
}

#[test]
fn host_execution_and_loosened_controls_are_loud() {
    let report = report(1.01, true);
    let mut host = manifest();
    host["execution_mode"] = json!("host-bypass");
    host["runtime"]["container_execution"] = json!(false);
    let text = page(&report, Some(&host));
    assert_inert(&text);
    assert!(text.contains(r#"class="warning danger""#) && text.contains("Measured on the host"));
    assert!(text.contains("--runtime-provenance host"));
    assert!(text.find("Measured on the host").unwrap() < text.find(r#"id="verdict-word""#).unwrap());

    // One place that says host is enough, whatever the others claim.
    let mut claimed = manifest();
    claimed["context"]["allowances"]["host_execution"] = json!(true);
    assert!(page(&report, Some(&claimed)).contains("Measured on the host"));

    let mut loose = manifest();
    loose["runtime"]["allow_network"] = json!(true);
    loose["context"]["allowances"]["remote_code"] = json!(true);
    loose["context"]["allowances"]["some_later_thing"] = json!(true);
    let text = page(&report, Some(&loose));
    assert!(text.contains("Controls were disabled"));
    for words in ["Network: the workload was allowed", "Remote code: code", "some later thing."] {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn a_missing_manifest_or_baseline_is_said_plainly() {
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

    let mut declared = manifest();
    declared.as_object_mut().unwrap().remove("context");
    assert!(page(&report, Some(&declared)).contains("isolation is only claimed"));
}

#[test]
fn windows_are_paired_by_id_and_never_by_place() {
    // The baseline's windows stand in the reverse order; by place the first difference would be another.
    let text = page(&report(1.0, true), Some(&manifest()));
    let quantiles = between(&text, r#"id="h-windows">"#, "</section>");
    assert!(quantiles.contains("<dt>max</dt><dd>+0.0150</dd>"), "{quantiles}");

    let mut twice = report(1.0, true);
    twice["baseline_windows"]["final"]["window_ids"] = json!([4, 4, 5, 6]);
    assert!(page(&twice, None).contains("contain a window id twice"));
    let mut short = report(1.0, true);
    short["baseline_windows"]["final"]["window_ids"] = json!([4]);
    assert!(page(&short, None).contains("one loss for each window id"));
    let mut apart = report(1.0, true);
    apart["baseline_windows"]["final"]["window_ids"] = json!([14, 15, 16, 17]);
    assert!(page(&apart, None).contains("have no window in common"));
    let mut hole = report(1.0, true);
    hole["baseline_windows"]["final"]["logloss"] = json!([3.0, null, 2.9, 3.0]);
    assert!(page(&hole, None).contains("1 window was left out"));
}

#[test]
fn numbers_without_measure_do_no_harm() {
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

/// Text that has broken pages before.
fn hostile() -> Vec<String> {
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

/// `value` with every string and every member of an open object replaced.
fn poisoned(value: &Value, text: &str, keys: bool) -> Value {
    match value {
        Value::String(_) => json!(text),
        Value::Array(items) => items.iter().map(|v| poisoned(v, text, keys)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(k, v)| (k.clone(), poisoned(v, text, keys)))
            .chain(keys.then(|| (text.to_owned(), json!(text))))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[test]
fn hostile_text_is_shown_and_does_nothing() {
    for text in hostile() {
        // Kinds and modes are kept in a second round, so that every branch of the page meets the text.
        let (all, seen) = (poisoned(&report(1.01, true), &text, true), poisoned(&manifest(), &text, true));
        assert_inert(&page(&all, Some(&seen)));

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
        let mut seen = manifest();
        seen["report"]["filename"] = json!(text);
        seen["context"]["allowances"][&text] = json!(true);
        seen["context"]["sides"]["subject"]["observations"][&text] =
            json!({"observer": text, &text: [text, {&text: text}]});
        seen["context"]["sides"]["subject"]["outputs"][0]["name"] = json!(text);
        let page = page(&report, Some(&seen));
        assert_inert(&page);
        assert!(page.contains("EVIL"), "it is shown");
        assert!(page.len() < 200_000, "{} bytes", page.len());
        assert!(
            page.contains("invarlock verify --profile ci evaluation.report.json"),
            "commands hold no foreign text"
        );
    }
}

#[test]
fn characters_that_hide_are_spelled_out() {
    let mut report = report(1.01, true);
    report["meta"]["model_id"] = json!("safe\u{202e}gpj.exe\u{200b}\u{7}");
    let page = page(&report, None);
    assert!(
        page.contains(r#"safe<span class="hidden">U+202E</span>gpj.exe<span class="hidden">U+200B</span>"#)
    );
    assert!(between(&page, "<title>", "</title>").contains("safe[U+202E]gpj.exe[U+200B][U+0007]"));
}

#[test]
fn what_is_long_is_cut_and_counted() {
    let mut report = report(1.01, true);
    report["meta"]["model_id"] = json!(format!("start{}end", "x".repeat(1 << 20)));
    report["invariants"]["status"] = json!("fail");
    report["invariants"]["failures"] = (0..50_000).map(|i| json!({"check": i})).collect();
    let mut seen = manifest();
    seen["context"]["image"]["layers"] =
        (0..5000).map(|i| json!({"digest": format!("sha256:{i}")})).collect();
    seen["context"]["sides"]["baseline"]["observations"] = (0..5000)
        .map(|i| (format!("row{i}"), json!({"observer": "init", "n": i})))
        .collect::<Map<_, _>>()
        .into();
    let page = page(&report, Some(&seen));
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
fn a_command_line_takes_only_a_plain_file_name() {
    for (name, used) in [
        ("eval-2.report.json", true),
        ("$(reboot).json", false),
        ("-rf", false),
        ("../x.json", false),
        ("a b.json", false),
        ("", false),
    ] {
        let mut seen = manifest();
        seen["report"]["filename"] = json!(name);
        let text = page(&report(1.01, true), Some(&seen));
        let expected = if used { name } else { "evaluation.report.json" };
        assert_eq!(
            between(&text, "<pre><code>", "</code>"),
            format!("invarlock verify --profile ci {expected}")
        );
    }
}

#[test]
fn the_same_input_gives_the_same_page() {
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

/// Pointers to every value inside `value`.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out))
        }
        Value::Object(members) => {
            for (key, value) in members {
                pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
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
        let (mut report, mut seen) = (report(1.01, true), manifest());
        for (in_manifest, place, value) in changes {
            let target = if in_manifest { &mut seen } else { &mut report };
            let mut all = Vec::new();
            pointers(target, "", &mut all);
            let pointer = place.get(&all).clone();
            *target.pointer_mut(&pointer).unwrap() = value;
        }
        assert_inert(&page(&report, Some(&seen)));
    }

    #[test]
    fn any_json_gives_an_inert_page(report in any_json(), manifest in proptest::option::of(any_json())) {
        assert_inert(&page(&report, manifest.as_ref()));
    }
}
