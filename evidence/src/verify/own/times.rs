//! Times: an evaluation starts, measures one side after the other, and ends; each side takes the time that its container took.

use super::run_reports::MeasuredSides;
use crate::evaluation::Facts;
use crate::format::runtime_manifest::Side;
use crate::job::Role;
use crate::measured::Measured;
use chrono::{DateTime, FixedOffset};

/// What the clock of a machine may be corrected by during a run, milliseconds.
pub(in crate::verify) const CLOCK: i64 = 5_000;

/// A time of the evidence.
pub(in crate::verify) fn time(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(text).ok().filter(|time| time.offset().local_minus_utc() == 0)
}

/// Checks all times; contradictions are added to `faults`.
pub(in crate::verify::own) fn faults(facts: &Facts, measured: &MeasuredSides, faults: &mut Vec<String>) {
    let (Some(started), Some(finished)) = (time(&facts.started_at), time(&facts.finished_at)) else {
        return faults.push(format!(
            "context.started_at_utc {:?} and finished_at_utc {:?} are not both times in UTC",
            facts.started_at, facts.finished_at
        ));
    };
    let took = (finished - started).num_milliseconds();
    if took < 0 {
        faults.push("context.finished_at_utc is before context.started_at_utc".to_owned());
    }
    let mut measuring = 0;
    for (role, measured) in [(Role::Baseline, &measured.baseline), (Role::Subject, &measured.subject)] {
        let Ok(side) = facts.side(role) else { continue };
        let name = role.name();
        match time(&measured.ended_at) {
            None => faults.push(format!("the {name} report has no time in UTC")),
            Some(ended) => {
                let (after, before) =
                    ((ended - started).num_milliseconds(), (finished - ended).num_milliseconds());
                let (when, possible) = match side.reused {
                    true => ("before", after <= CLOCK),
                    false => ("during", after >= -CLOCK && before >= -CLOCK),
                };
                if !possible {
                    faults.push(format!("the {name} was not measured {when} the evaluation"));
                }
            }
        }
        if !side.reused {
            measuring += i64::try_from(side.usage.wall_ms).unwrap_or(i64::MAX / 4);
        }
        faults.extend(of_container(name, side, measured));
    }
    if measuring > took.saturating_add(CLOCK) {
        faults.push(format!("the containers ran {measuring} ms, but the whole evaluation took {took} ms"));
    }
}

/// The phases that the evaluator states against the time that its container ran.
fn of_container(name: &str, side: &Side, measured: &Measured) -> Option<String> {
    let seconds = &measured.seconds;
    let phases = [seconds.load, seconds.tokenize, seconds.eval, seconds.guards.unwrap_or_default()];
    let possible = phases.iter().all(|phase| phase.is_finite() && *phase >= 0.0) && seconds.eval > 0.0;
    let sum: f64 = phases.iter().sum();
    if !possible || (sum - seconds.total).abs() > 1e-6 + 1e-9 * sum {
        return Some(format!("the {name} report: metrics.timings do not add up to their total"));
    }
    let wall = side.usage.wall_ms as f64 / 1000.0;
    (seconds.total > wall + CLOCK as f64 / 1000.0).then(|| {
        format!("the {name} report: its phases took {:.3} s, its container ran {wall:.3} s", seconds.total)
    })
}
