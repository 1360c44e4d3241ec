//! The table of a sweep as a page: every run with its ratio on one axis, so that they can be compared at a glance.

use super::svg::{self, Strip};
use super::{STYLE, environment};
use crate::Error;
use crate::sweep::{Columns, Row, Status, Table};
use serde::Serialize;

const TEMPLATE: &str = include_str!("sweep.html.j2");

#[derive(Serialize)]
struct Page {
    style: &'static str,
    counted: String,
    ok: bool,
    groups: Vec<Group>,
}

/// The runs of one preset and seed, which have the same windows and the same baseline.
#[derive(Serialize)]
struct Group {
    title: String,
    rows: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    subject: String,
    class: &'static str,
    sign: &'static str,
    word: &'static str,
    ratio: String,
    interval: String,
    /// What failed, or why there is no result.
    why: String,
    /// Inline SVG.
    picture: Option<String>,
    report: Option<String>,
}

/// The page of a sweep. Links lead to the pages' reports, below the directory of the sweep.
///
/// # Errors
/// The built-in template cannot be rendered, which is a fault of this program.
pub fn render(table: &Table) -> Result<String, Error> {
    let fault = |e: minijinja::Error| Error::system(format!("the HTML page could not be rendered: {e:#}"));
    let mut groups: Vec<Group> = Vec::new();
    let axis = points(table);
    for row in &table.runs {
        let title = match row.seed {
            Some(seed) => format!("{}, seed {seed}", row.preset),
            None => row.preset.clone(),
        };
        let shown = shown(row, &axis);
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.rows.push(shown),
            None => groups.push(Group { title, rows: vec![shown] }),
        }
    }
    let page = Page { style: STYLE, counted: table.counted(), ok: table.ok, groups };
    let mut templates = environment().map_err(fault)?;
    templates.add_template("sweep", TEMPLATE).map_err(fault)?;
    let template = templates.get_template("sweep").map_err(fault)?;
    template.render(minijinja::value::Serde(page)).map_err(fault)
}

/// All numbers that the common axis must show.
fn points(table: &Table) -> Vec<f64> {
    let results = table.runs.iter().filter_map(|row| row.result.as_ref());
    let numbers = results.flat_map(|result| {
        let ends = result.interval.into_iter().flatten();
        result.ratio.into_iter().chain(ends).chain(result.limit)
    });
    std::iter::once(1.0).chain(numbers.filter(|number| number.is_finite() && *number > 0.0)).collect()
}

fn shown(row: &Row, axis: &[f64]) -> Shown {
    let Columns { ratio, interval, failed, .. } = Columns::of(row);
    let (class, sign) = match row.status {
        Status::Pass => ("pass", "✓"),
        Status::Fail | Status::Error => ("fail", "✗"),
        Status::Missing => ("none", "–"),
    };
    let strip = row.result.as_ref().and_then(|result| {
        let strip = Strip {
            value: result.ratio?,
            interval: result.interval.map(|[low, high]| (low, high)),
            limit: result.limit,
            good: row.status == Status::Pass,
        };
        svg::strip(&strip, axis)
    });
    Shown {
        subject: row.subject.clone(),
        class,
        sign,
        word: row.status.word(),
        ratio,
        interval,
        why: row.error.clone().unwrap_or(failed),
        picture: strip,
        report: row.result.as_ref().map(|_| row.evidence.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Numbers;

    fn row(subject: &str, status: Status, ratio: Option<f64>) -> Row {
        Row {
            subject: subject.to_owned(),
            preset: "<valid>".to_owned(),
            seed: None,
            status,
            found: false,
            result: ratio.map(|ratio| Numbers {
                ratio: Some(ratio),
                interval: Some([ratio * 0.99, ratio * 1.01]),
                limit: Some(1.102),
                baseline_final: Some(4.0),
                subject_final: Some(4.0 * ratio),
                gates: Vec::new(),
            }),
            evidence: "runs/0".to_owned(),
            error: ratio.is_none().then(|| "no <b>such</b> directory".to_owned()),
        }
    }

    #[test]
    fn every_run_has_its_picture_and_no_text_becomes_markup() {
        let rows = vec![
            row("a", Status::Pass, Some(1.01)),
            row("b", Status::Fail, Some(40.0)),
            row("<img>", Status::Error, None),
        ];
        let page = render(&Table::new(rows)).expect("a page");
        assert_eq!(page.matches("<svg").count(), 2);
        for word in [
            "1.010000",
            "40.000000",
            "&lt;img&gt;",
            "no &lt;b&gt;such",
            "&lt;valid&gt;",
            "1 PASS, 1 FAIL, 1 ERROR",
        ] {
            assert!(page.contains(word), "{word}");
        }
        assert!(!page.contains("<img>") && !page.contains("<script"));
    }
}
