//! The command line of `invarlock-evaluator`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use invarlock_evaluator::progress::Progress;
use invarlock_evaluator::{Error, Result, run, selftest, sys};

/// Measure one checkpoint: read a job, write report.json and events.jsonl, print progress as JSON lines
///
/// Exit codes: 0 measured; 2 the checkpoint, the dataset or the job is invalid; 3 unsupported, or the machine failed.
#[derive(Debug, Parser)]
#[command(name = "invarlock-evaluator", version)]
struct Arguments {
    /// The job
    #[arg(long, value_name = "FILE", required_unless_present = "self_test", requires = "out")]
    job: Option<PathBuf>,
    /// Directory for report.json and events.jsonl
    #[arg(long, value_name = "DIR", requires = "job")]
    out: Option<PathBuf>,
    /// Check that this program works on this machine, print one JSON line and exit
    #[arg(long, conflicts_with_all = ["job", "out"])]
    self_test: bool,
}

fn main() -> ExitCode {
    std::hint::black_box(sys::crates::compressed());
    let arguments = Arguments::parse();
    let progress = Progress::to_stdout();
    // A panic is a bug of this program or of a library. It is reported as an error event like any other failure.
    let outcome = catch_unwind(AssertUnwindSafe(|| start(&arguments, &progress)));
    let failure = match outcome {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(_) => Error::system("the evaluator panicked; its standard error contains the location")
            .with_hint("report this as a bug, with the input"),
    };
    progress.error(&failure);
    ExitCode::from(failure.kind().exit_code())
}

fn start(arguments: &Arguments, progress: &Progress) -> Result<()> {
    match (&arguments.job, &arguments.out) {
        (Some(job), Some(out)) => run::run(job, out, progress),
        _ => {
            progress.line(&selftest::run()?);
            Ok(())
        }
    }
}
