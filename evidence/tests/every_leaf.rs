//! Edits each value of the evidence of two honest runs: removed, altered, or replaced by the value of the other run. All digests are then
//! computed again, as a forger would do. `verify` must refuse every edit, except of the values that docs/verify.md lists.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod common;

use invarlock_evidence::evaluation::{Facts, plan_digest};
use invarlock_evidence::format::evaluation_report::UpstreamVariancePolicy;
use invarlock_evidence::format::plan::Plan;
use invarlock_evidence::format::statistics::{
    ActivationStatistics, GuardStatistics, ModuleActivations, ProjectionSquares, UpstreamStatistics,
    VarianceMeasurement, WeightStatistics,
};
use invarlock_evidence::format::to_value;
use invarlock_evidence::guards::variance::upstream::scales_of;
use invarlock_evidence::job::Role;
use invarlock_evidence::measured::Measured;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::run_report::RunReport;
use invarlock_evidence::verify::{VerifyOptions, verify_report};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const REPORT: &str = "evaluation.report.json";
const MANIFEST: &str = "runtime.manifest.json";
const BASELINE: &str = "baseline.report.json";
const SUBJECT: &str = "subject.report.json";

/// A document, with the bytes of its file and their digest.
struct Document {
    name: &'static str,
    value: Value,
    bytes: OnceCell<Vec<u8>>,
    sha256: OnceCell<String>,
}

impl Document {
    fn new(name: &'static str, value: Value) -> Rc<Self> {
        Rc::new(Self { name, value, bytes: OnceCell::new(), sha256: OnceCell::new() })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| match self.name {
            MANIFEST => invarlock_evidence::manifest::to_bytes(&self.value),
            _ => invarlock_evidence::compare::to_bytes(&self.value),
        })
    }

    fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| sha256_hex(self.bytes()))
    }
}

/// The files of one evaluation. Those that are not edited are shared with the evidence that they come from.
#[derive(Clone)]
struct Evidence(BTreeMap<&'static str, Rc<Document>>);

impl Evidence {
    fn honest(run: &str) -> Self {
        Self::read(&common::made::honest(run))
    }

    /// A run of masked language models.
    fn masked(run: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        common::Made::masked(run).write(directory.path());
        Self::read(directory.path())
    }

    /// A run that measured an accuracy. One of the two subjects answers an example wrong.
    fn choices(wrong: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let right = |role, example| role == Role::Baseline || example != wrong;
        common::Made::choices(2, Profile::Dev, Tier::Balanced, &right).write(directory.path());
        Self::read(directory.path())
    }

    fn read(directory: &Path) -> Self {
        let read = |name: &'static str| {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            (name, Document::new(name, serde_json::from_slice(&bytes).unwrap()))
        };
        Self([REPORT, MANIFEST, BASELINE, SUBJECT].map(read).into())
    }

    fn value(&self, name: &str) -> &Value {
        &self.0[name].value
    }

    fn replace(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, Document::new(name, value));
    }

    fn edit(&mut self, name: &'static str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.value(name).clone();
        edit(&mut value);
        self.replace(name, value);
    }

    /// The same with a text for each final window of the baseline, as newer evaluators write it.
    fn with_texts(run: &str) -> Self {
        let mut evidence = Self::honest(run);
        evidence.edit(BASELINE, |baseline| {
            let windows = &mut baseline["evaluation_windows"]["final"];
            let count = windows["window_ids"].as_array().unwrap().len();
            let texts: Vec<String> = (0..count).map(|index| format!("{run} \u{e4} {index}")).collect();
            windows["predicted_utf8_bytes"] = texts.iter().map(String::len).collect();
            windows["predicted_texts"] = texts.into();
        });
        evidence.reseal();
        evidence.compare();
        evidence
    }

    /// The same with statistics of the guards, as newer evaluators measure them.
    fn with_statistics(run: &str) -> Self {
        let mut evidence = Self::honest(run);
        for (side, name) in [BASELINE, SUBJECT].into_iter().enumerate() {
            let report = serde_json::from_value(evidence.value(name).clone()).unwrap();
            let mut measured = Measured::read(&report).unwrap();
            measured.statistics = Some(statistics(run.len() + side));
            measured.seconds.guards = Some(0.0);
            evidence.replace(name, to_value(&measured.report().unwrap()));
        }
        evidence.reseal();
        evidence.compare();
        evidence
    }

    /// The same for the guards of InvarLock 0.12, as `--guards upstream` measures them.
    fn with_upstream_statistics(run: &str) -> Self {
        let request = json!({"mode": "upstream"});
        let mut evidence = Self::with_statistics(run);
        for (side, name) in [BASELINE, SUBJECT].into_iter().enumerate() {
            let report: RunReport = serde_json::from_value(evidence.value(name).clone()).unwrap();
            let mut measured = Measured::read(&report).unwrap();
            let found = measured.statistics.as_mut().unwrap();
            found.upstream = Some(upstream_statistics(&report, run.len() + side));
            measured.requested.guards = serde_json::from_value(request.clone()).unwrap();
            evidence.replace(name, to_value(&measured.report().unwrap()));
        }
        let longer = format!(r#""guards":{request},"#).len();
        evidence.edit(MANIFEST, |manifest| {
            manifest["context"]["plan"]["content"]["guards"] = request;
            lengthen_jobs(manifest, longer as u64);
        });
        evidence.reseal();
        evidence.compare();
        evidence
    }

    /// Derives the report again.
    fn compare(&mut self) {
        let facts = Facts::read(&serde_json::from_value(self.value(MANIFEST).clone()).unwrap()).unwrap();
        let [baseline, subject] =
            [BASELINE, SUBJECT].map(|name| serde_json::from_value(self.value(name).clone()).unwrap());
        self.replace(REPORT, to_value(&facts.compare(&baseline, &subject).unwrap()));
        self.reseal();
    }

    /// Sets a member that exists, of the value at a pointer.
    fn set(&mut self, name: &'static str, pointer: &str, member: &str, new: Value) {
        let found = self.value(name).pointer(pointer).and_then(|value| value.get(member));
        if found.is_some_and(|found| *found != new) {
            self.edit(name, |document| document.pointer_mut(pointer).unwrap()[member] = new);
        }
    }

    /// Computes the digests again that depend on the bytes of a file or on the plan.
    fn reseal(&mut self) {
        for (name, side, provenance) in [(BASELINE, "baseline", "baseline"), (SUBJECT, "subject", "edited")] {
            let document = self.0[name].clone();
            let outputs = format!("/context/sides/{side}/outputs");
            let count = self.value(MANIFEST).pointer(&outputs).and_then(Value::as_array).map_or(0, Vec::len);
            for output in (0..count).map(|index| format!("{outputs}/{index}")) {
                let name = self.value(MANIFEST).pointer(&format!("{output}/name"));
                if name == Some(&json!("report.json")) {
                    self.set(MANIFEST, &output, "sha256", json!(document.sha256()));
                    self.set(MANIFEST, &output, "bytes", json!(document.bytes().len()));
                }
            }
            let reference = format!("/provenance/{provenance}");
            self.set(REPORT, &reference, "report_sha256", json!(document.sha256()));
            self.set(REPORT, &reference, "report_hash", json!(document.sha256()[..16]));
        }
        let report = self.0[REPORT].clone();
        self.set(MANIFEST, "/report", "sha256", json!(report.sha256()));
        let content = self.value(MANIFEST).pointer("/context/plan/content");
        if let Some(plan) = content.and_then(|content| Plan::deserialize(content).ok()) {
            self.set(MANIFEST, "/context/plan", "digest", json!(plan_digest(&plan)));
        }
    }

    fn write(&self, directory: &Path) {
        for (name, document) in &self.0 {
            std::fs::write(directory.join(name), document.bytes()).unwrap();
        }
    }

    fn accepted(&self, directory: &Path) -> bool {
        self.write(directory);
        is_accepted(directory)
    }
}

fn is_accepted(directory: &Path) -> bool {
    let options = VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() };
    verify_report(&directory.join(REPORT), &options).ok()
}

/// A directory with evidence; only files that differ from those there are written.
struct Directory {
    path: tempfile::TempDir,
    written: Evidence,
}

impl Directory {
    fn new(evidence: &Evidence) -> Self {
        let path = tempfile::tempdir().unwrap();
        evidence.write(path.path());
        Self { path, written: evidence.clone() }
    }

    fn accepts(&mut self, evidence: &Evidence) -> bool {
        for (name, document) in &evidence.0 {
            if !Rc::ptr_eq(document, &self.written.0[name]) {
                std::fs::write(self.path.path().join(name), document.bytes()).unwrap();
            }
        }
        self.written = evidence.clone();
        is_accepted(self.path.path())
    }
}

/// Statistics of two modules, which depend on a number.
fn statistics(number: usize) -> GuardStatistics {
    let number = 1.0 + number as f64 / 100.0;
    let weights = |module: &str| WeightStatistics {
        module: module.to_owned(),
        shape: [4, 8],
        spectral_norm: 2.0 * number,
        frobenius_norm: 3.0 * number,
        weakest: 0.5,
        sketch: (0..64).map(|lane| ((lane * 7 % 64) as f64 / 256.0 * number * 1e4).round() / 1e4).collect(),
    };
    let activations = |module: &str| ModuleActivations {
        module: module.to_owned(),
        edge: 4.0 * number,
        mean_square: 0.25 * number,
    };
    GuardStatistics {
        upstream: None,
        weights: ["h.0.attn.c_proj", "h.0.mlp.c_proj"].map(weights).to_vec(),
        activations: ActivationStatistics {
            windows: vec![0, 1],
            modules: ["h.0.attn.c_proj", "h.0.mlp.c_proj"].map(activations).to_vec(),
        },
    }
}

/// What is measured for the guards of InvarLock 0.12, of two modules.
fn upstream_statistics(report: &RunReport, number: usize) -> UpstreamStatistics {
    let arm = &report.evaluation_windows.preview;
    let policy = UpstreamVariancePolicy::of(Profile::Dev, Tier::Balanced);
    let tried = policy.calibration.windows as usize;
    let number = 1.0 + number as f64 / 100.0;
    let edges =
        |module: &str| ModuleActivations { module: module.to_owned(), edge: 3.0 * number, mean_square: 1.0 };
    let ids: Vec<u64> =
        arm.window_ids.iter().chain(&report.evaluation_windows.final_.window_ids).copied().collect();
    let first = |count: usize| ids[..count.min(ids.len())].to_vec();
    let windows = first(policy.windows());
    let projection = ProjectionSquares {
        module: "model.layers.0.mlp.down_proj".to_owned(),
        target: "transformer.h.0.mlp.c_proj".to_owned(),
        squares: (0..windows.len()).map(|i| 0.85 + i as f64 / 1000.0).collect(),
    };
    let both = [arm, &report.evaluation_windows.final_];
    let mut measurement = VarianceMeasurement {
        projections: vec![projection],
        windows,
        calibration_windows: first(tried),
        tokens: both.iter().flat_map(|arm| arm.actual_token_counts.iter().copied()).take(tried).collect(),
        losses: both.iter().flat_map(|arm| arm.logloss.iter().copied()).take(tried).collect(),
        scales: BTreeMap::new(),
        scaled_losses: Vec::new(),
    };
    measurement.scales = scales_of(&measurement, &policy).proposed.into_iter().collect();
    assert_eq!(measurement.scales.len(), 1);
    measurement.scaled_losses = measurement.losses.iter().map(|loss| loss - 0.01 * number).collect();
    let outputs = ["transformer.wte", "transformer.h.0.mlp.c_proj"].map(edges).to_vec();
    UpstreamStatistics {
        outputs: ActivationStatistics { windows: vec![0, 1], modules: outputs },
        variance: measurement,
    }
}

/// Adds bytes to each job that a manifest names.
fn lengthen_jobs(value: &mut Value, longer: u64) {
    match value {
        Value::Object(members) => {
            if members.get("target").is_some_and(|target| target == "/in/job.json")
                && let Some(bytes) = members.get("bytes").and_then(Value::as_u64)
            {
                members.insert("bytes".to_owned(), json!(bytes + longer));
            }
            members.values_mut().for_each(|member| lengthen_jobs(member, longer));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| lengthen_jobs(element, longer)),
        _ => {}
    }
}

/// JSON pointers of all values without members, empty lists and objects included.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(member, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                leaves(element, &format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Another value of the same type, which looks like the first.
fn altered(value: &Value) -> Value {
    match value {
        Value::Null => json!(1),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) if number.is_f64() => json!(number.as_f64().unwrap() * 1.25 + 0.001),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => {
            let hexadecimal =
                text.len() >= 16 && text.bytes().rev().take(16).all(|byte| byte.is_ascii_hexdigit());
            let mut text = text.clone();
            match (hexadecimal, text.pop()) {
                (true, Some('0')) => text.push('1'),
                (true, _) => text.push('0'),
                (false, Some(last)) if last.is_ascii_digit() => {
                    text.push(if last == '7' { '8' } else { '7' })
                }
                (false, last) => text.extend(last.into_iter().chain(['x'])),
            }
            json!(text)
        }
        Value::Array(_) => json!([1]),
        Value::Object(_) => json!({"x": 1}),
    }
}

/// Removes the value at a pointer.
fn remove(document: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.shift_remove(&name.replace("~1", "/").replace("~0", "~"))),
        Value::Array(elements) => drop(elements.remove(name.parse().unwrap())),
        _ => unreachable!("a leaf has a parent"),
    }
}

/// The path patterns of docs/verify.md: the file, and a dotted path in which `*` is one member.
fn documented() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, section) = text.split_once("## Values that nothing else confirms").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|');
        (cell(cells.next().unwrap()), cell(cells.next().unwrap()))
    })
    .collect()
}

fn matches(pattern: &str, pointer: &str) -> bool {
    let path: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let pattern: Vec<&str> = pattern.split('.').collect();
    pattern.len() <= path.len()
        && pattern.iter().zip(&path).all(|(expected, found)| *expected == "*" || expected == found)
}

fn short(name: &str) -> &str {
    name.trim_end_matches(".json")
}

/// Every edit of a value below `below` that is accepted: file, pointer and edit.
fn survivors(honest: &Evidence, other: &Evidence, below: &str) -> Vec<(&'static str, String, &'static str)> {
    let mut directory = Directory::new(honest);
    assert!(directory.accepts(honest), "the honest evidence must verify");
    let mut survivors = Vec::new();
    for name in [REPORT, MANIFEST, BASELINE, SUBJECT] {
        let mut pointers = Vec::new();
        leaves(honest.value(name), "", &mut pointers);
        for pointer in pointers.into_iter().filter(|pointer| pointer.starts_with(below)) {
            let leaf = honest.value(name).pointer(&pointer).unwrap();
            let swapped = other.value(name).pointer(&pointer).filter(|value| *value != leaf).cloned();
            let edits = [("removed", None), ("altered", Some(altered(leaf))), ("swapped", swapped)];
            for (edit, value) in edits {
                if value.is_none() && edit != "removed" {
                    continue;
                }
                let mut forged = honest.clone();
                forged.edit(name, |document| match value {
                    Some(value) => *document.pointer_mut(&pointer).unwrap() = value,
                    None => remove(document, &pointer),
                });
                forged.reseal();
                let changed = forged.0.keys().any(|name| forged.value(name) != honest.value(name));
                if changed && directory.accepts(&forged) {
                    survivors.push((name, pointer.clone(), edit));
                }
            }
        }
    }
    survivors
}

/// The accepted edits of a run that docs/verify.md does not list.
fn undocumented(honest: &Evidence, other: &Evidence, below: &str) -> Vec<String> {
    let documented = documented();
    let listed = |name: &str, pointer: &str| {
        documented.iter().any(|(file, pattern)| file == short(name) && matches(pattern, pointer))
    };
    let survivors = survivors(honest, other, below).into_iter();
    let unlisted = survivors.filter(|(name, pointer, _)| !listed(name, pointer));
    unlisted.map(|(name, pointer, edit)| format!("{name} {pointer} {edit}")).collect()
}

#[test]
fn only_listed_values_of_a_run_by_root_can_be_edited() {
    let found = undocumented(&Evidence::honest("root"), &Evidence::honest("user"), "");
    assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
}

#[test]
fn only_listed_values_of_a_run_by_a_user_can_be_edited() {
    let found = undocumented(&Evidence::honest("user"), &Evidence::honest("root"), "");
    assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
}

#[test]
fn only_listed_values_of_a_masked_run_can_be_edited() {
    let (honest, other) = (Evidence::masked("root"), Evidence::masked("user"));
    let found = undocumented(&honest, &other, "");
    assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
}

#[test]
fn what_an_accuracy_follows_from_cannot_be_edited() {
    let (honest, other) = (Evidence::choices(0), Evidence::choices(1));
    let edited = "/primary_metric /metrics /baseline_ref /quality_overhead /validation /confidence /dataset/windows \
                  /evaluation_windows/preview/examples /evaluation_windows/final/examples /evaluation_windows/final/logloss \
                  /baseline_windows/final/logloss /context/plan/content/dataset /data";
    for below in edited.split_whitespace() {
        let found = undocumented(&honest, &other, below);
        assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
    }
}

/// Another choice of masked tokens is refused, though both sides agree on it.
#[test]
fn masks_follow_from_the_seed() {
    let directory = tempfile::tempdir().unwrap();
    let forged = |change: &dyn Fn(&mut Value)| {
        let mut evidence = Evidence::masked("root");
        for name in [BASELINE, SUBJECT] {
            let mut run = evidence.value(name).clone();
            change(&mut run["evaluation_windows"]["final"]);
            let read = serde_json::from_value(run).unwrap();
            let report = Measured::read(&read).unwrap().report().unwrap();
            evidence.replace(name, to_value(&report));
        }
        evidence.reseal();
        evidence.compare();
        evidence.write(directory.path());
        let options = VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() };
        let verdict = verify_report(&directory.path().join(REPORT), &options);
        verdict.all_errors().any(|error| error.contains("its masks do not follow from the seed"))
    };
    assert!(!forged(&|_| ()));
    assert!(forged(&|arm| {
        let labels = arm["labels"][0].as_array_mut().unwrap();
        let (label, free) = (
            labels.iter().position(|label| *label != -100).unwrap(),
            labels.iter().position(|label| *label == -100).unwrap(),
        );
        labels.swap(label, free);
    }));
    assert!(forged(&|arm| {
        let labels = arm["labels"][0].as_array().unwrap();
        let label = labels.iter().position(|label| *label != -100).unwrap();
        arm["input_ids"][0][label] = json!(9);
    }));
}

/// Evidence with and without texts is accepted. A text is free, its length is not.
#[test]
fn only_the_text_of_a_window_can_be_edited() {
    const TEXTS: &str = "/evaluation_windows/final/predicted_texts/0";
    let (honest, other) = (Evidence::with_texts("root"), Evidence::with_texts("user"));
    let found = undocumented(&honest, &other, "/evaluation_windows/final/predicted");
    assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
    let accepted = survivors(&honest, &other, TEXTS);
    assert!(accepted.contains(&(BASELINE, TEXTS.to_owned(), "altered")), "{accepted:?}");

    let directory = tempfile::tempdir().unwrap();
    let forged = |edit: &dyn Fn(&mut Evidence)| {
        let mut forged = honest.clone();
        edit(&mut forged);
        forged.reseal();
        !forged.accepted(directory.path())
    };
    let windows = |evidence: &mut Evidence, file, arm: &str, member: &str, value: Value| {
        evidence.edit(file, |document| document["evaluation_windows"][arm][member] = value);
    };
    let texts = honest.value(BASELINE).pointer("/evaluation_windows/final").unwrap().clone();
    for (file, arm) in [(SUBJECT, "final"), (BASELINE, "preview"), (SUBJECT, "preview")] {
        let edit = |evidence: &mut Evidence| {
            for member in ["predicted_texts", "predicted_utf8_bytes"] {
                windows(evidence, file, arm, member, texts[member].clone());
            }
        };
        assert!(forged(&edit), "{file} {arm}");
    }
    for member in ["predicted_texts", "predicted_utf8_bytes"] {
        for value in [Value::Null, json!([])] {
            assert!(
                forged(&|evidence| windows(evidence, BASELINE, "final", member, value.clone())),
                "{member}"
            );
        }
    }
}

/// Evidence with statistics is accepted, and none of their numbers, or of what follows from them, can be edited.
#[test]
fn numbers_of_the_guards_cannot_be_edited() {
    let (honest, other) = (Evidence::with_statistics("root"), Evidence::with_statistics("user"));
    for block in ["spectral", "rmt", "variance"] {
        assert_eq!(honest.value(REPORT)[block]["evaluated"], true, "{block}");
    }
    let places =
        ["/guards", "/spectral", "/rmt", "/variance", "/guard_overhead", "/resolved_policy", "/assurance"];
    for place in places {
        let found = undocumented(&honest, &other, place);
        assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
    }
}

/// The same where the guards compare each side with itself.
#[test]
fn numbers_of_the_guards_of_upstream_cannot_be_edited() {
    let (honest, other) =
        (Evidence::with_upstream_statistics("root"), Evidence::with_upstream_statistics("user"));
    for block in ["spectral", "rmt", "variance"] {
        assert_eq!(honest.value(REPORT)[block]["mode"], "upstream", "{block}");
    }
    for place in ["/guards", "/spectral", "/rmt", "/variance", "/resolved_policy", "/context"] {
        let found = undocumented(&honest, &other, place);
        assert!(found.is_empty(), "{} accepted edits:\n{}", found.len(), found.join("\n"));
    }
}

#[test]
fn the_list_is_short() {
    let rows = documented().len();
    assert!((1..=20).contains(&rows), "{rows} path patterns");
}

#[test]
fn evidence_without_one_of_its_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let honest = Evidence::honest("root");
    for missing in [MANIFEST, BASELINE, SUBJECT] {
        assert!(honest.accepted(directory.path()));
        let path: PathBuf = directory.path().join(missing);
        std::fs::remove_file(&path).unwrap();
        let options = VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() };
        let verdict = verify_report(&directory.path().join(REPORT), &options);
        assert!(!verdict.ok(), "{missing}");
        assert!(verdict.all_errors().any(|error| error.contains(missing)), "{missing}: {:?}", verdict.errors);
    }
}
