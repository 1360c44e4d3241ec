//! With `upstream_parity` the verifier gives upstream's verdicts on upstream's reports. The default
//! mode is never more lenient than upstream.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod common;

use common::golden;
use invarlock_evidence::policy::Profile;
use invarlock_evidence::verify::{
    RuntimeOptions, RuntimeProvenance, UpstreamVersion, VerifyOptions, runtime_verify, runtime_verify_with,
    verify_report,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const VERSIONS: [(&str, UpstreamVersion); 2] =
    [("0.8.0", UpstreamVersion::V0_8), ("0.12.1", UpstreamVersion::V0_12)];

/// Intended differences: case, column, reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Comma-separated values with quoted fields.
fn csv(text: &str) -> Vec<BTreeMap<String, String>> {
    let split = |line: &str| {
        let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
        for character in line.chars() {
            match character {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(std::mem::take(&mut field)),
                other => field.push(other),
            }
        }
        fields.push(field);
        fields
    };
    let mut lines = text.lines();
    let head = split(lines.next().unwrap());
    lines.map(|line| head.iter().cloned().zip(split(line)).collect()).collect()
}

fn parity(
    profile: Profile,
    upstream_version: UpstreamVersion,
    provenance: RuntimeProvenance,
) -> VerifyOptions {
    VerifyOptions {
        profile,
        upstream_parity: true,
        upstream_version,
        runtime_provenance: provenance,
        ..VerifyOptions::default()
    }
}

/// The report of a mutation case: the JSON file that is neither the manifest nor a verdict.
fn report_of(case: &Path) -> PathBuf {
    let mut reports: Vec<PathBuf> = std::fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name != "runtime.manifest.json" && !name.starts_with("verify_") && name.ends_with(".json")
        })
        .collect();
    reports.sort();
    reports.into_iter().next().unwrap()
}

#[test]
fn golden_cases_match_upstream_exit_codes() {
    let root = golden();
    let mut differences = Vec::new();
    for (version, upstream) in VERSIONS {
        let table = std::fs::read_to_string(root.join(version).join("verify_table.csv")).unwrap();
        for row in csv(&table) {
            let folder = root.join(version).join(&row["case"]);
            let report = folder.join("evaluation.report.json");
            if !report.is_file() {
                continue;
            }
            for (column, profile, provenance) in [
                ("default_dev_container", Profile::Dev, RuntimeProvenance::Container),
                ("ci_container", Profile::Ci, RuntimeProvenance::Container),
                ("ci_host", Profile::Ci, RuntimeProvenance::Host),
                ("ci_host_json", Profile::Ci, RuntimeProvenance::Host),
                ("release_host", Profile::Release, RuntimeProvenance::Host),
            ] {
                let verdict = verify_report(&report, &parity(profile, upstream, provenance));
                let (code, upstream_code) = (verdict.exit_code().to_string(), &row[column]);
                if code != *upstream_code {
                    differences.push(format!(
                        "{version} {} {column}: {code}, upstream {upstream_code}: {:?}",
                        row["case"], verdict.errors
                    ));
                }
            }
            let manifest = folder.join("runtime.manifest.json");
            let options = RuntimeOptions { upstream_parity: true, ..RuntimeOptions::default() };
            let code = if runtime_verify_with(&report, &manifest, &options).ok() { "0" } else { "1" };
            if code != row["runtime_verify"] {
                differences.push(format!("{version} {} runtime_verify: {code}", row["case"]));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn mutations_match_upstream_exit_codes() {
    let root = golden();
    let mut differences = Vec::new();
    let mut count = 0;
    for (version, upstream) in VERSIONS {
        let folder = root.join(version).join("mutations");
        for row in csv(&std::fs::read_to_string(folder.join("table.csv")).unwrap()) {
            let case = &row["case"];
            let directory = folder.join("cases").join(case);
            if !directory.is_dir() {
                continue;
            }
            let report = report_of(&directory);
            let input = if case.contains("directory_path") { directory.clone() } else { report.clone() };
            count += 1;
            let mut compare = |column: &str, actual: String, errors: &[String]| {
                let is_exception = EXCEPTIONS.iter().any(|(name, other, _)| name == case && *other == column);
                if actual != row[column] && !is_exception {
                    differences.push(format!(
                        "{version} {case} {column}: {actual:?}, upstream {:?}: {errors:?}",
                        row[column]
                    ));
                }
            };
            for (prefix, profile) in [("ci_json", Profile::Ci), ("dev_json", Profile::Dev)] {
                let verdict = verify_report(&input, &parity(profile, upstream, RuntimeProvenance::Container));
                compare(&format!("{prefix}_exit"), verdict.exit_code().to_string(), &verdict.errors);
                let code = verdict.stopped_by.as_ref().map(|stopped| stopped.code).unwrap_or_default();
                compare(&format!("{prefix}_code"), code.to_owned(), &verdict.errors);
                compare(&format!("{prefix}_reason"), verdict.reason.as_str().to_owned(), &verdict.errors);
            }
            let options = RuntimeOptions { upstream_parity: true, ..RuntimeOptions::default() };
            let verdict = runtime_verify_with(&input, &directory.join("runtime.manifest.json"), &options);
            compare("rtv_exit", if verdict.ok() { "0" } else { "1" }.to_owned(), &verdict.errors);
        }
    }
    assert!(count > 90, "only {count} cases found");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Mutations that at least one upstream version accepts and the default mode rejects, all with
/// profile ci.
const REJECTED_BY_DEFAULT: [&str; 11] = [
    "08_damaged_ratio_limit_raised_in_report",
    "20_ids_sha256_changed",
    "21_drop_invariants",
    "31_drift_band_widened",
    "41_tier_aggressive",
    "45_window_ids_duplicated",
    "47_spectral_stable_false",
    "69_duplicate_keys",
    "73_other_filename",
    "97_manifest_ref_digest_disagree",
    "10_damaged_auto_tiny_relax",
];

#[test]
fn default_mode_is_stricter_than_upstream() {
    let root = golden();
    let mut differences = Vec::new();
    for (version, upstream) in VERSIONS {
        let folder = root.join(version).join("mutations");
        for row in csv(&std::fs::read_to_string(folder.join("table.csv")).unwrap()) {
            let case = &row["case"];
            let directory = folder.join("cases").join(case);
            if !directory.is_dir() {
                continue;
            }
            let input =
                if case.contains("directory_path") { directory.clone() } else { report_of(&directory) };
            for (column, profile) in [("ci_json_exit", Profile::Ci), ("dev_json_exit", Profile::Dev)] {
                let options = VerifyOptions {
                    profile,
                    upstream_version: upstream,
                    accept_foreign: true,
                    ..VerifyOptions::default()
                };
                let verdict = verify_report(&input, &options);
                if verdict.ok() && row[column] != "0" {
                    differences.push(format!("{version} {case} {column}: accepted"));
                }
            }
            let options = VerifyOptions { upstream_version: upstream, ..VerifyOptions::default() };
            if verify_report(&input, &options).ok() {
                differences.push(format!("{version} {case}: accepted without --accept-foreign"));
            }
            let options = VerifyOptions { accept_foreign: true, ..options };
            let verdict = verify_report(&input, &options);
            if REJECTED_BY_DEFAULT.contains(&case.as_str()) && verdict.ok() {
                differences.push(format!("{version} {case}: accepted, {:?}", verdict.not_recomputed));
            }
            if case == "00_unmodified_int8" && !verdict.ok() {
                differences.push(format!("{version} {case}: {:?}", verdict.errors));
            }
            // Only the baseline's own losses reveal this forgery.
            if case == "06_FORGED_damaged_made_good" {
                let baseline = root.join(version).join("gpt2-damaged-ci-container/source.report.json");
                let options = VerifyOptions { baseline: Some(baseline), ..options };
                let verdict = verify_report(&input, &options);
                if verdict.ok() {
                    differences.push(format!("{version} {case}: accepted with --baseline"));
                }
            }
            if !verdict.ok() && row["ci_json_exit"] == "0" {
                eprintln!("{version} {case}: {:?}", verdict.errors);
            }
            let runtime = runtime_verify(&input, &directory.join("runtime.manifest.json"), None);
            if runtime.ok() && row["rtv_exit"] != "0" {
                differences.push(format!("{version} {case} runtime-verify: accepted"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn upstream_reports_are_recomputed_with_their_baseline() {
    let root = golden();
    for (version, upstream) in VERSIONS {
        for case in ["gpt2-noop-ci-host", "gpt2-int8-ci-host", "llama-int8-ci-host", "gpt2-int8-ci-container"]
        {
            let folder = root.join(version).join(case);
            let options = VerifyOptions {
                upstream_version: upstream,
                runtime_provenance: RuntimeProvenance::Host,
                baseline: Some(folder.join("source.report.json")),
                accept_foreign: true,
                ..VerifyOptions::default()
            };
            let verdict = verify_report(&folder.join("evaluation.report.json"), &options);
            let strict_report = case.ends_with("container") && upstream == UpstreamVersion::V0_12;
            if strict_report {
                continue;
            }
            assert!(verdict.ok(), "{version} {case}: {:?}", verdict.errors);
            for name in ["ratio_vs_baseline", "confidence interval"] {
                assert!(
                    verdict.recomputed.iter().any(|line| line.contains(name)),
                    "{:?}",
                    verdict.recomputed
                );
            }
        }
    }
}
