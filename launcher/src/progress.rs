//! The progress that a measuring container prints. Every line is untrusted and its length is bounded.

use crate::error::Error;
use crate::journal::JournalFile;
use crate::ui::{Level, Step, Ui, printable};
use invarlock_evidence::events::{Cause, Event};
use invarlock_runtime::Sink;

/// Longest accepted line of a container in bytes.
const MAX_LINE: usize = 512 << 10;
/// How many bytes of a container's standard error are kept for the log.
const MAX_STDERR: usize = 1 << 20;

/// A failure that the evaluator reported. Untrusted, but printable.
pub struct ReportedError {
    /// Kind, message and hint.
    pub error: Error,
    /// A cause that the launcher knows more about.
    pub cause: Option<Cause>,
}

/// Shows the evaluator's progress and keeps what else it prints.
pub struct Progress<'a> {
    ui: &'a Ui,
    /// The side that is measured.
    pub side: &'static str,
    line: Vec<u8>,
    phases: Vec<&'static str>,
    shown: bool,
    step: Option<Step>,
    /// Phase of the step.
    phase: &'static str,
    /// Keeps the losses of finished windows; none if they are not needed again.
    pub journal: Option<&'a mut JournalFile>,
    /// The failure that the evaluator reported.
    pub error: Option<ReportedError>,
    /// Standard output that is not an event.
    pub not_events: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl<'a> Progress<'a> {
    /// For the container of `side`.
    pub fn new(ui: &'a Ui, side: &'static str) -> Self {
        Progress {
            ui,
            side,
            line: Vec::new(),
            phases: Vec::new(),
            shown: true,
            step: None,
            phase: "",
            journal: None,
            error: None,
            not_events: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// The same, without showing progress.
    pub fn hidden(ui: &'a Ui, side: &'static str) -> Self {
        Progress { shown: false, ..Progress::new(ui, side) }
    }

    fn event(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Event>(line) {
            Ok(Event::Progress { .. }) if !self.shown => {}
            Ok(Event::Progress { phase, done, total }) => self.progress(&phase, done, total),
            Ok(Event::Losses(finished)) => {
                if let Some(journal) = &mut self.journal {
                    journal.append(&finished);
                }
            }
            Ok(Event::Error { kind, message, hint, cause }) => {
                let one_line = |text: &str| printable(&text.replace('\n', " "));
                let error = Error::new(kind, one_line(&message));
                let error = match hint {
                    Some(hint) => error.with_hint(one_line(&hint)),
                    None => error,
                };
                self.error = Some(ReportedError { error, cause });
            }
            Err(_) => keep(&mut self.not_events, line),
        }
    }

    fn progress(&mut self, phase: &str, done: u64, total: u64) {
        let known = ["load", "tokenize", "preview", "final", "guards"];
        let phase = known.into_iter().find(|k| *k == phase).unwrap_or("working");
        // Each phase is shown once, in whatever order a container reports them, so a container cannot flood the terminal.
        if !self.phases.contains(&phase) {
            self.phases.push(phase);
            self.finish();
            let name = format!("{} {phase}", self.side);
            self.step = Some(match phase {
                "preview" | "final" => self.ui.tokens(&name, total),
                _ => self.ui.step(&name, total, phase == "load"),
            });
            self.phase = phase;
        }
        if let Some(step) = &self.step {
            step.set(done, total);
        }
    }

    /// Ends the current step.
    pub fn finish(&mut self) {
        let Some(step) = self.step.take() else { return };
        match self.phase {
            "preview" | "final" => {
                let text = match step.progress() {
                    (_, 0) => "already measured".to_owned(),
                    (done, total) if done < total => format!("stopped after {done} of {total} tokens"),
                    _ => format!("done, {:.0} tokens/s", step.rate()),
                };
                step.done(&text);
            }
            _ => step.done("done"),
        }
    }
}

fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let free = MAX_STDERR.saturating_sub(buffer.len());
    buffer.extend_from_slice(&bytes[..bytes.len().min(free)]);
}

impl Sink for Progress<'_> {
    fn stdout(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.event(&line);
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn stderr(&mut self, bytes: &[u8]) {
        keep(&mut self.stderr, bytes);
        if self.ui.is_verbose() {
            self.ui.say(Level::Verbose, String::from_utf8_lossy(bytes).trim_end());
        }
    }
}
