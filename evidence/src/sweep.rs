//! The table of a sweep (`sweep-v1`): its runs, and what their evidence says.

use crate::format::untrusted::Node;
use crate::gates::{self, Ended};
use serde::Serialize;
use serde_json::Value;

/// `format_version` of [`Table`].
pub const SWEEP_FORMAT: &str = "sweep-v1";

/// All runs of a sweep, in the order of its plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Table {
    /// Always `sweep-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "sweep-v1")))]
    pub format_version: &'static str,
    /// Whether every run was measured, and every subject passed.
    pub ok: bool,
    /// The runs.
    pub runs: Vec<Row>,
}

/// One run: a subject on the windows of a preset.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Row {
    /// Name of the subject.
    pub subject: String,
    /// Name of the preset.
    pub preset: String,
    /// The seed that drew the windows; null where the first rows were taken.
    pub seed: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// Whether it was there before, and was not measured again.
    pub found: bool,
    /// What its report says; null for an error.
    pub result: Option<Numbers>,
    /// Directory of its evidence, below that of the sweep.
    pub evidence: String,
    /// Why there is no result; null if there is one.
    pub error: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The subject passed its gates.
    Pass,
    /// The subject failed a gate.
    Fail,
    /// The run failed, so there is no result.
    Error,
    /// The run was not started.
    Missing,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Fail, Self::Error, Self::Missing];

    /// As tables show it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Error => "ERROR",
            Self::Missing => "MISSING",
        }
    }
}

/// The numbers of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Numbers {
    /// Perplexity of the subject divided by that of the baseline.
    pub ratio: Option<f64>,
    /// Confidence interval of the ratio.
    pub interval: Option<[f64; 2]>,
    /// The largest ratio that is accepted.
    pub limit: Option<f64>,
    /// Perplexity of the final arm of the baseline.
    pub baseline_final: Option<f64>,
    /// Perplexity of the final arm of the subject.
    pub subject_final: Option<f64>,
    /// The gates, in the order of the terminal.
    pub gates: Vec<Gate>,
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// `passed`, `warned`, `failed`, `shown only`, `not evaluated` or `not recorded`.
    pub outcome: &'static str,
}

impl Numbers {
    /// What a report says, and whether the subject passed. Nothing is verified here.
    pub fn of(report: &Value) -> (Status, Self) {
        let gates = gates::gates(report);
        let limit = gates.first().and_then(|gate| gate.measured).and_then(|measured| measured.most);
        let report_passed = gates::passed(report);
        let report = Node::root("", report);
        let metric = report.get("primary_metric");
        let interval = metric.get("display_ci");
        let result = Self {
            ratio: metric.get("ratio_vs_baseline").f64(),
            interval: interval.index(0).f64().zip(interval.index(1).f64()).map(|(low, high)| [low, high]),
            limit,
            baseline_final: report.at("baseline_ref.primary_metric.final").f64(),
            subject_final: metric.get("final").f64(),
            gates: gates.iter().map(|gate| Gate { name: gate.name, outcome: gate.outcome.words() }).collect(),
        };
        (if report_passed { Status::Pass } else { Status::Fail }, result)
    }

    /// Names of the gates that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.gates.iter().filter(|gate| gate.outcome == Ended::Failed.words()).map(|gate| gate.name)
    }
}

impl Table {
    /// The table of these runs.
    pub fn new(runs: Vec<Row>) -> Self {
        let ok = runs.iter().all(|row| row.status == Status::Pass);
        Self { format_version: SWEEP_FORMAT, ok, runs }
    }

    /// `3 PASS, 1 ERROR`: how many runs ended how.
    pub fn counted(&self) -> String {
        let count = |status: Status| self.runs.iter().filter(|row| row.status == status).count();
        let counts = Status::ALL.into_iter().map(|status| (count(status), status.word()));
        counts.filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
    }
}

/// The columns of a run as text; `–` where there is no number.
pub struct Columns {
    /// The seed.
    pub seed: String,
    /// Six decimals.
    pub ratio: String,
    /// Both ends, four decimals.
    pub interval: String,
    /// Three decimals.
    pub limit: String,
    /// Names of the gates that failed.
    pub failed: String,
}

impl Columns {
    /// Those of a run.
    pub fn of(row: &Row) -> Self {
        let dash = || "–".to_owned();
        let result = row.result.as_ref();
        let number = |number: Option<f64>, decimals: usize| {
            number.map_or_else(dash, |number| format!("{number:.decimals$}"))
        };
        Self {
            seed: row.seed.map_or_else(dash, |seed| seed.to_string()),
            ratio: number(result.and_then(|result| result.ratio), 6),
            interval: result
                .and_then(|result| result.interval)
                .map_or_else(dash, |[low, high]| format!("{low:.4} to {high:.4}")),
            limit: number(result.and_then(|result| result.limit), 3),
            failed: result.map_or_else(String::new, |result| result.failed().collect::<Vec<_>>().join(", ")),
        }
    }
}
