//! Progress events, as JSON lines on standard output.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use invarlock_evidence::events::{Cause, Event};
use serde::Serialize;

use invarlock_error::Error;

/// Shortest time between two events of one phase.
const INTERVAL: Duration = Duration::from_millis(50);

/// Writes events. A failure to write one is ignored: the report is the result.
pub struct Progress {
    state: Mutex<State>,
}

struct State {
    out: Option<Box<dyn Write + Send>>,
    last: Option<Instant>,
    phase: &'static str,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// Writes events to standard output.
    pub fn to_stdout() -> Self {
        Self::to(Some(Box::new(std::io::stdout())))
    }

    /// Discards events.
    pub fn silent() -> Self {
        Self::to(None)
    }

    /// Writes events to `out`.
    pub fn to(out: Option<Box<dyn Write + Send>>) -> Self {
        Self { state: Mutex::new(State { out, last: None, phase: "" }) }
    }

    /// Reports `done` of `total`. The first and the last event of a phase are always written, others at most 20 times per
    /// second.
    pub fn report(&self, phase: &'static str, done: u64, total: u64) {
        // A poisoned lock means that another thread panicked; `main` reports the panic.
        let Ok(mut state) = self.state.lock() else { return };
        let soon = state.phase == phase && state.last.is_some_and(|t| t.elapsed() < INTERVAL);
        if soon && done < total {
            return;
        }
        (state.phase, state.last) = (phase, Some(Instant::now()));
        state.line(&Event::Progress { phase: phase.to_owned(), done, total });
    }

    /// Reports a failure, as the last event of a run.
    pub fn error(&self, error: &Error) {
        // The evaluator writes only below its output directory.
        let full = error.io_kind() == Some(std::io::ErrorKind::StorageFull);
        self.line(&Event::Error {
            kind: error.kind(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            cause: full.then_some(Cause::OutputFull),
        });
    }

    /// Writes one line.
    pub fn line(&self, value: &impl Serialize) {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).line(value);
    }
}

impl State {
    fn line(&mut self, value: &impl Serialize) {
        let Some(out) = &mut self.out else { return };
        let Ok(mut line) = serde_json::to_vec(value) else { return };
        line.push(b'\n');
        // The reader of the pipe may have exited.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_are_rate_limited_and_the_last_is_written() {
        let out = Shared::default();
        let progress = Progress::to(Some(Box::new(out.clone())));
        (0..=10_000).for_each(|i| progress.report("load", i, 10_000));
        progress.report("final", 0, 1);
        progress.error(&Error::input("two\nlines"));
        let text = String::from_utf8(out.0.lock().expect("not poisoned").clone()).expect("text");
        let lines: Vec<Event> = text.lines().map(|l| serde_json::from_str(l).expect("an event")).collect();
        assert!(lines.len() < 200);
        let progress = |phase: &str, done, total| Event::Progress { phase: phase.to_owned(), done, total };
        assert_eq!(lines[0], progress("load", 0, 10_000));
        assert!(lines.contains(&progress("load", 10_000, 10_000)));
        assert!(matches!(lines.last(), Some(Event::Error { message, .. }) if message == "two\nlines"));
    }
}
