//! JUnit XML: one test case per gate, and one that fails for each contradiction within the report. A gate that was not evaluated, or that does not decide, is a skipped test case.

use super::escape::xml;
use super::{GateSummary, Summary};
use crate::gates::Ended;

pub(super) fn render(summary: &Summary) -> String {
    let count = |kinds: &[Ended]| summary.gates.iter().filter(|gate| kinds.contains(&gate.ended)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
        summary.gates.len() + summary.contradictions.len(),
        count(&[Ended::Failed]) + summary.contradictions.len(),
        count(&[Ended::NotRecorded]),
        count(&[Ended::NotEvaluated, Ended::ShownOnly]),
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"invarlock\" {counts}>\n  <testsuite name=\"gates\" {counts}>\n"
    );
    out += "    <properties>\n";
    for (name, value) in properties(summary) {
        out += &format!("      <property name=\"{name}\" value=\"{}\"/>\n", xml(value));
    }
    out += "    </properties>\n";
    summary.gates.iter().for_each(|gate| out += &case(gate));
    summary.contradictions.iter().for_each(|sentence| out += &contradiction(sentence));
    out + "  </testsuite>\n</testsuites>\n"
}

/// Names are fixed; values are untrusted.
fn properties(summary: &Summary) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("verdict", Some(summary.verdict)),
        ("subject", summary.subject.name.as_deref()),
        ("baseline", summary.baseline.name.as_deref()),
        ("dataset", summary.dataset.name.as_deref()),
        ("profile", summary.profile.as_deref()),
        ("tier", summary.tier.as_deref()),
        ("run_id", summary.run_id.as_deref()),
        ("report_sha256", Some(&summary.report_sha256)),
        ("host_execution", summary.host_execution.as_deref()),
        ("manifest_fault", summary.manifest_fault),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

fn contradiction(sentence: &str) -> String {
    let sentence = xml(sentence);
    format!(
        "    <testcase classname=\"invarlock.report\" name=\"The report contradicts itself\" time=\"0\">\n      <failure type=\"report\" message=\"{sentence}\">{sentence}</failure>\n    </testcase>\n"
    )
}

fn case(gate: &GateSummary) -> String {
    let detail = xml(&gate.detail);
    let inside = match gate.ended {
        Ended::Passed => format!("<system-out>{detail}</system-out>"),
        Ended::Warned => format!("<system-out>warning: {detail}</system-out>"),
        Ended::Failed => {
            let sentence = xml(&format!("{}: {}", gate.name, gate.detail));
            format!("<failure type=\"gate\" message=\"{sentence}\">{sentence}</failure>")
        }
        Ended::ShownOnly | Ended::NotEvaluated => format!("<skipped message=\"{detail}\"/>"),
        Ended::NotRecorded => {
            "<error type=\"report\" message=\"the report does not state the outcome\"/>".to_owned()
        }
    };
    format!(
        "    <testcase classname=\"invarlock.gates\" name=\"{}\" time=\"0\">\n      {inside}\n    </testcase>\n",
        gate.name
    )
}
