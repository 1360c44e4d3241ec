//! What a measuring container prints, as progress for people: every line of it is untrusted and bounded.

use crate::error::Error;
use crate::ui::{Level, Step, Ui, printable};
use invarlock_evidence::events::{Cause, Event};
use invarlock_runtime::Sink;

/// Longest line of progress accepted from a container.
const MAX_LINE: usize = 64 << 10;
/// How much of a container's standard error is kept for the log.
const MAX_STDERR: usize = 1 << 20;

/// The reason that the evaluator gave for its failure. Untrusted; printable.
pub struct ReportedError {
    pub error: Error,
    pub cause: Option<Cause>,
}

/// Turns the evaluator's lines into bars; everything it says is untrusted.
pub struct Progress<'a> {
    ui: &'a Ui,
    /// Which side prints.
    pub side: &'static str,
    line: Vec<u8>,
    seen: Vec<&'static str>,
    step: Option<Step>,
    /// The reason the evaluator gave for its failure.
    pub error: Option<ReportedError>,
    /// What it printed that is no event.
    pub strange: Vec<u8>,
    /// What it printed on standard error.
    pub stderr: Vec<u8>,
}

impl<'a> Progress<'a> {
    /// For the container of `side`.
    pub fn new(ui: &'a Ui, side: &'static str) -> Self {
        Progress {
            ui,
            side,
            line: Vec::new(),
            seen: Vec::new(),
            step: None,
            error: None,
            strange: Vec::new(),
            stderr: Vec::new(),
        }
    }

    fn event(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Event>(line) {
            Ok(Event::Progress { phase, done, total }) => self.progress(&phase, done, total),
            Ok(Event::Error { kind, message, hint, cause }) => {
                let one_line = |text: &str| printable(&text.replace('\n', " "));
                let error = Error::new(kind, one_line(&message));
                let error = match hint {
                    Some(hint) => error.with_hint(one_line(&hint)),
                    None => error,
                };
                self.error = Some(ReportedError { error, cause });
            }
            Err(_) => keep(&mut self.strange, line),
        }
    }

    fn progress(&mut self, phase: &str, done: u64, total: u64) {
        let known = ["load", "tokenize", "preview", "final", "guards"];
        let phase = known.into_iter().find(|k| *k == phase).unwrap_or("working");
        // Each phase is one step, whatever order they are claimed in: a container cannot flood the terminal.
        if !self.seen.contains(&phase) {
            self.seen.push(phase);
            self.finish();
            self.step = Some(self.ui.step(&format!("{} {phase}", self.side), total, false));
        }
        if let Some(step) = &self.step {
            step.set(done, total);
        }
    }

    /// Ends the step that is running.
    pub fn finish(&mut self) {
        if let Some(step) = self.step.take() {
            step.done("done");
        }
    }
}

fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_STDERR.saturating_sub(buffer.len());
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
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
