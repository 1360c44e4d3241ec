//! `invarlock verify`: reads the evidence again from disk and trusts none of it.

use crate::args::VerifyArgs;
use crate::demands::{self, Demands};
use crate::error::{Context as _, Result};
use crate::policy::Policy;
use crate::receipt::ReceiptRequest;
use crate::record::now;
use crate::reproduce::{self, Inputs};
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use console::style;
use invarlock_evidence::verify::{
    About, Verdict, VerifyOptions, envelope, exit_code, success_line, to_line, verify_report,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Verifies the reports. Exits 0 when all are accepted, 1 policy, 2 malformed, 3 integrity (all profiles but dev).
pub fn run(args: &VerifyArgs, policy: &Policy) -> Result<u8> {
    let ui = Ui::new(if args.json { Level::Quiet } else { Level::Normal });
    let inputs = args.reproduce.map(|_| Inputs::of(args)).transpose()?;
    let receipt = ReceiptRequest::of(args)?;
    let Demands { options, policy: demands } = demands::of(args, &ui)?;
    let mut verdicts = verify_all(&args.reports, &options);
    if let (Some(amount), Some(inputs)) = (args.reproduce, &inputs) {
        let signals = Signals::catch()?;
        let run = reproduce::Run { inputs, amount, policy, ui: &ui, signals: &signals };
        // Evidence that contradicts itself need not be measured.
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.errors.is_empty()) {
            run.reproduce(verdict).with_context(|| format!("measuring {} again", verdict.path.display()))?;
        }
    }
    if let (Some(receipt), [verdict]) = (receipt, &verdicts[..])
        && verdict.ok()
    {
        receipt.write(verdict, demands, &now())?;
    }
    if args.json {
        ui::out(&to_line(&envelope(&verdicts, &now())));
    } else {
        verdicts.iter().for_each(print);
    }
    Ok(u8::try_from(exit_code(&verdicts)).unwrap_or(2))
}

/// The verdicts, in the order of the reports. Each thread verifies one report at a time, so memory does not grow with their number.
fn verify_all(reports: &[PathBuf], options: &VerifyOptions) -> Vec<Verdict> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(reports.len());
    if threads <= 1 {
        return reports.iter().map(|path| verify_report(path, options)).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(reports.len())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((place, path)) = take(&next, reports) {
                    let verdict = verify_report(path, options);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, verdict));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The next report that no thread has taken.
fn take<'a>(next: &AtomicUsize, reports: &'a [PathBuf]) -> Option<(usize, &'a PathBuf)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    Some((place, reports.get(place)?))
}

fn print(verdict: &Verdict) {
    let path = ui::printable(&verdict.path.to_string_lossy());
    if verdict.ok() {
        let line = ui::printable(&success_line(verdict));
        ui::out(&format!("{} {path}", style(line).green().bold()));
        ui::out(&format!("  {}", verdict.meaning()));
    } else {
        let (reason, assurance) = (verdict.reason.as_str(), verdict.assurance.as_str());
        ui::out(&format!("{} {path} ({reason}) assurance={assurance}", style("VERIFY FAIL").red().bold()));
        verdict.all_errors().for_each(|error| ui::out(&format!("  - {}", ui::printable(error))));
    }
    if let Some(sentence) = &verdict.host_execution {
        ui::out(&format!("  {}", ui::host_execution(sentence)));
    }
    if let Some(run) = &verdict.delegated {
        ui::out(&format!("  {}", ui::printable(&run.sentence())));
    }
    for (name, value) in verdict.about.iter().flat_map(About::lines) {
        ui::out(&format!("  {name:<9} {}", ui::printable(&value)));
    }
    if let Some(judged) = verdict.judged {
        ui::out(&format!("  {:<9} profile {}, tier {}", "judged", judged.profile, judged.tier));
    }
    if let Some(reproduction) = &verdict.reproduction {
        ui::out(&format!("  {}", reproduction.sentence()));
    }
    for digest in &verdict.matched {
        ui::out(&format!("  matched: {digest}"));
    }
    for value in &verdict.not_recomputed {
        ui::out(&format!("  not recomputed: {}", ui::printable(value)));
    }
}
