//! The table of a sweep in Markdown and in CSV (RFC 4180).

use super::escape::{csv, markdown};
use crate::sweep::{Columns, Table};

/// The table in Markdown, for readers.
pub fn to_markdown(table: &Table) -> String {
    let mut out = format!("# InvarLock sweep: {}\n\n", table.counted());
    out += "| Subject | Preset | Seed | Verdict | Ratio | Interval | Limit | Failed gates |\n";
    out += "|---|---|---|---|---|---|---|---|\n";
    for row in &table.runs {
        let Columns { seed, ratio, interval, limit, failed, .. } = Columns::of(row);
        let why = row.error.as_deref().map_or(failed, markdown);
        out += &format!(
            "| {} | {} | {seed} | {} | {ratio} | {interval} | {limit} | {why} |\n",
            markdown(&row.subject),
            markdown(&row.preset),
            row.status.word()
        );
    }
    out + "\nThe ratio is the perplexity of the subject divided by that of the baseline. Nothing is verified here.\n"
}

/// The table in CSV: one line per run.
pub fn to_csv(table: &Table) -> String {
    let mut out =
        "subject,preset,seed,verdict,ratio,low,high,limit,baseline_final,subject_final,failed_gates,evidence,error\r\n"
            .to_owned();
    for row in &table.runs {
        let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let result = row.result.as_ref();
        let interval = result.and_then(|result| result.interval);
        let fields = [
            csv(&row.subject),
            csv(&row.preset),
            row.seed.map_or(String::new(), |seed| seed.to_string()),
            row.status.word().to_owned(),
            number(result.and_then(|result| result.ratio)),
            number(interval.map(|[low, _]| low)),
            number(interval.map(|[_, high]| high)),
            number(result.and_then(|result| result.limit)),
            number(result.and_then(|result| result.baseline_final)),
            number(result.and_then(|result| result.subject_final)),
            csv(&Columns::of(row).failed),
            csv(&row.evidence),
            csv(row.error.as_deref().unwrap_or_default()),
        ];
        out += &(fields.join(",") + "\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Numbers, Row, Status};

    fn table() -> Table {
        let row = |subject: &str, status, result, error: Option<&str>| Row {
            subject: subject.to_owned(),
            preset: "valid".to_owned(),
            seed: Some(43),
            status,
            found: false,
            result,
            evidence: "runs/0".to_owned(),
            error: error.map(str::to_owned),
        };
        let result = Numbers {
            ratio: Some(1.25),
            interval: Some([1.2, 1.3]),
            limit: Some(1.102),
            baseline_final: Some(4.0),
            subject_final: Some(5.0),
            gates: Vec::new(),
        };
        Table::new(vec![
            row("int8", Status::Fail, Some(result), None),
            row("=cmd|x", Status::Error, None, Some("no such\ndirectory")),
        ])
    }

    #[test]
    fn untrusted_names_are_neither_markup_nor_formulas() {
        let csv = to_csv(&table());
        assert!(
            csv.contains("\"int8\",\"valid\",43,FAIL,1.25,1.2,1.3,1.102,4,5,\"\",\"runs/0\",\"\"\r\n"),
            "{csv}"
        );
        assert!(csv.contains("\"'=cmd|x\"") && csv.contains("\"no such[U+000A]directory\""), "{csv}");
        let text = to_markdown(&table());
        assert!(text.starts_with("# InvarLock sweep: 1 FAIL, 1 ERROR\n"), "{text}");
        assert!(
            text.contains("| `int8` | `valid` | 43 | FAIL | 1.250000 | 1.2000 to 1.3000 | 1.102 |"),
            "{text}"
        );
        assert!(text.contains("`=cmd[U+007C]x`"), "{text}");
    }
}
