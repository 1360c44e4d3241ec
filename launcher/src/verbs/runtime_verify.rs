//! `invarlock advanced runtime-verify`: checks that a runtime manifest contains the digest of a report.

use crate::args::RuntimeVerifyArgs;
use crate::error::Result;
use crate::ui;
use console::style;
use invarlock_evidence::verify::{runtime_verify, to_line};

/// Exits 0 when the manifest belongs to the report, otherwise 1.
pub fn run(args: &RuntimeVerifyArgs) -> Result<u8> {
    let digest = args.expected_runtime_image_digest.as_ref().map(ToString::to_string);
    let verdict = runtime_verify(&args.report, &args.manifest, digest.as_deref());
    if args.json {
        ui::out(&to_line(&verdict.to_json()));
    } else {
        let word = if verdict.ok() { style("PASS").green().bold() } else { style("FAIL").red().bold() };
        ui::out(&format!("{word} ({})", verdict.trust.as_str()));
        ui::out(&format!("Report: {}\nManifest: {}", args.report.display(), args.manifest.display()));
        if let Some(sentence) = &verdict.host_execution {
            ui::out(&ui::host_execution(sentence));
        }
        verdict.errors.iter().for_each(|error| ui::out(&format!("- {}", ui::printable(error))));
    }
    Ok(u8::from(!verdict.ok()))
}
