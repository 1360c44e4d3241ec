//! What people see: progress bars on a terminal, colours only there, and text from outside made harmless.

pub use invarlock_runtime::printable;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How much is said while working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Level {
    /// Only results and errors.
    Quiet,
    /// Progress and results.
    Normal,
    /// Also what containers print on standard error, and timings.
    Verbose,
}

/// Progress and messages of one command. Progress goes to standard error, results to standard output.
pub struct Ui {
    bars: MultiProgress,
    level: Level,
}

impl Ui {
    /// Bars appear only at `Normal` or more and when standard error is a terminal; elsewhere a step is a line.
    pub fn new(level: Level) -> Self {
        let shown = level > Level::Quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Ui { bars: MultiProgress::with_draw_target(target), level }
    }

    /// A step of `total` units (bytes if `bytes`); finish it with [`Step::done`].
    pub fn step(&self, name: &str, total: u64, bytes: bool) -> Step {
        let bar = self.bars.add(ProgressBar::new(total));
        let counts = if bytes { "{bytes}/{total_bytes} {bytes_per_sec}" } else { "{pos}/{len}" };
        let template = format!("{{spinner}} {{prefix:22}} [{{bar:32}}] {counts} {{eta}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar, name: name.to_owned(), line: self.level > Level::Quiet && self.bars.is_hidden() }
    }

    /// A remark for people at `level` or more.
    pub fn say(&self, level: Level, message: &str) {
        if self.level >= level {
            let text = printable(message);
            self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
        }
    }

    /// Whether `--verbose` was given.
    pub fn is_verbose(&self) -> bool {
        self.level == Level::Verbose
    }
}

/// One running step.
pub struct Step {
    bar: ProgressBar,
    name: String,
    line: bool,
}

impl Step {
    /// Moves to `done` of `total` units.
    pub fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done.min(total));
    }

    /// Adds `n` units.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Adds `n` units of a total that shows only on the way.
    pub fn grow(&self, n: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.inc(n);
    }

    /// Ends the step; without a terminal this prints its one line.
    pub fn done(self, result: &str) {
        let (seconds, name) = (self.bar.elapsed().as_secs_f64(), &self.name);
        self.bar.finish_and_clear();
        if self.line {
            drop(writeln!(std::io::stderr(), "{name}: {} ({seconds:.1} s)", printable(result)));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a result to standard output; a closed pipe is not an error worth a word.
pub fn out(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Writes a result as JSON to standard output.
pub fn json(value: &serde_json::Value) {
    out(&ascii(&value.to_string()));
}

/// JSON text in ASCII: it means the same, and what strangers named in it cannot steer a terminal.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Only strings hold such characters, and there an escape stands for them.
            '\u{7f}'.. => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")))
            }
            _ => text.push(c),
        }
    }
    text
}

/// `1536` as `1.5 KiB`.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::ascii;
    use serde_json::{Value, json};

    #[test]
    fn json_for_people_and_programs_is_ascii() {
        let value = json!({"ö\u{9b}31m": "\u{1b}[2J\u{7f}\u{202e}😀"});
        let text = ascii(&value.to_string());
        assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
