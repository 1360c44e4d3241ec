//! Resuming an interrupted measurement: the losses that it finished go out as events and come back as an input.
//!
//! The losses of a window depend on the checkpoint, on the other windows of its group, on this program and on its matrix kernel. The launcher
//! gives a job a journal only for the same checkpoint, windows and image; the rest is checked here.

use std::path::Path;

use invarlock_evidence::events::{ArmName, Event, Finished};
use invarlock_evidence::job::Job;
use invarlock_evidence::journal::Journal;

use crate::math::products::Products;
use crate::{VERSION, files, limits};
use invarlock_error::{Error, Result};

/// The journal of a job: without losses where it has none.
pub fn open(job: &Job, products: Products) -> Result<Journal> {
    let Some(path) = &job.journal else { return Ok(Journal::default()) };
    let journal: Journal = files::read_json(Path::new(path), "journal", limits::JOURNAL_BYTES)?;
    let own = (VERSION, &*products.kernel());
    if (&*journal.evaluator, &*journal.kernel) != own {
        return Err(Error::input(format!(
            "{path}: it was measured by version {} with the matrix kernel {}, not by version {} with {}",
            journal.evaluator, journal.kernel, own.0, own.1
        ))
        .with_hint("pass --no-resume to measure all windows again"));
    }
    Ok(journal)
}

/// The event for finished windows.
pub fn finished(arm: ArmName, first: usize, losses: &[f64], products: Products) -> Event {
    let (evaluator, kernel) = (VERSION.to_owned(), products.kernel());
    Event::Losses(Finished { arm, first, losses: losses.to_vec(), evaluator, kernel })
}
