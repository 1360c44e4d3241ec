//! Output: progress bars and colours on a terminal only, control characters of untrusted text escaped.

pub use invarlock_runtime::printable;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What fails where a result cannot be written as JSON.
const WRITING_JSON: &str = "writing a result as JSON";

/// What is printed about an image that names no platform.
pub const PLATFORM_ASSUMED: &str =
    "invarlock: the image names no architecture or no operating system; those of this machine are assumed";

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Level {
    /// Only results and errors.
    Quiet,
    /// Progress and results.
    Normal,
    /// Also the standard error of containers, and timings.
    Verbose,
}

/// Progress and messages of one command. Progress goes to standard error, results to standard output.
pub struct Ui {
    bars: MultiProgress,
    level: Level,
}

impl Ui {
    /// Bars are shown from `Normal` on and when standard error is a terminal; otherwise a finished step is one line.
    pub fn new(level: Level) -> Self {
        let shown = level > Level::Quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Ui { bars: MultiProgress::with_draw_target(target), level }
    }

    /// Starts a step of `total` units (bytes if `bytes`); [`Step::done`] ends it.
    pub fn step(&self, name: &str, total: u64, bytes: bool) -> Step {
        self.bar(name, total, if bytes { "{bytes}/{total_bytes} {bytes_per_sec}" } else { "{pos}/{len}" })
    }

    /// Starts a step of `total` tokens, shown with the tokens per second.
    pub fn tokens(&self, name: &str, total: u64) -> Step {
        self.bar(name, total, "{pos}/{len} tokens {tokens_per_sec}")
    }

    fn bar(&self, name: &str, total: u64, counts: &str) -> Step {
        let bar = self.bars.add(ProgressBar::new(total));
        let template = format!("{{spinner}} {{prefix:22}} [{{bar:32}}] {counts} {{eta}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Writing to a string cannot fail.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("tokens_per_sec", rate).progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar, name: name.to_owned(), line: self.level > Level::Quiet && self.bars.is_hidden() }
    }

    /// Prints a message from `level` on.
    pub fn say(&self, level: Level, message: &str) {
        if self.level >= level {
            let text = printable(message);
            self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
        }
    }

    /// Prints a warning, whatever the level.
    pub fn warn(&self, message: &str) {
        self.say(Level::Quiet, &format!("warning: {message}"));
    }

    /// Whether `--verbose` was passed.
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

    /// Adds `n` units, and sets a total that is not known from the start.
    pub fn add_of(&self, n: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.inc(n);
    }

    /// Units done, and all of them.
    pub fn progress(&self) -> (u64, u64) {
        (self.bar.position(), self.bar.length().unwrap_or_default())
    }

    /// Units per second since the start of the step.
    pub fn rate(&self) -> f64 {
        self.bar.position() as f64 / self.bar.elapsed().as_secs_f64().max(1e-9)
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

/// The first failure to write to standard output.
static UNWRITTEN: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Writes a line to standard output. A closed pipe is not an error; another failure ends the command with [`written`].
pub fn out(text: &str) {
    keep(writeln!(std::io::stdout(), "{text}"));
}

/// The same for bytes.
pub fn out_bytes(bytes: &[u8]) {
    keep(std::io::stdout().write_all(bytes));
}

fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Flushes standard output.
///
/// # Errors
/// Something could not be written to it since the start, though its reader was there.
pub fn written() -> Result<()> {
    keep(std::io::stdout().flush());
    match UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => Ok(()),
        Some(error) => Err(Error::from_source(Kind::System, error).context("writing standard output"))
            .hint("write it to another place; files that the command names are complete"),
    }
}

/// Writes a line to standard error. A closed pipe is not an error.
pub fn on_stderr(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// The sentence about host execution for standard output: red on a terminal.
pub fn host_execution(sentence: &str) -> String {
    console::style(printable(sentence)).red().bold().to_string()
}

/// [`host_execution`] for standard error.
pub fn host_execution_on_stderr(sentence: &str) -> String {
    console::style(printable(sentence)).red().bold().for_stderr().to_string()
}

/// Writes a value as one line of JSON to standard output.
pub fn json(value: &impl Serialize) -> Result<()> {
    out(&json_line(value)?);
    Ok(())
}

/// Writes a value as indented JSON to standard output.
pub fn indented_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).err_kind(Kind::System).context(WRITING_JSON)?;
    out(&ascii(&text));
    Ok(())
}

/// A value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> Result<String> {
    Ok(ascii(&serde_json::to_string(value).err_kind(Kind::System).context(WRITING_JSON)?))
}

/// Writes a result to standard output, as JSON or as text.
pub fn result(as_json: bool, value: &impl Serialize, text: &str) -> Result<()> {
    if as_json {
        return json(value);
    }
    out(text);
    Ok(())
}

/// The same JSON in ASCII, so that untrusted strings in it cannot control a terminal.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // JSON has such characters only in strings, where an escape means the same.
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
    fn escapes_json_to_ascii() {
        let value = json!({"ö\u{9b}31m": "\u{1b}[2J\u{7f}\u{202e}😀"});
        let text = ascii(&value.to_string());
        assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
