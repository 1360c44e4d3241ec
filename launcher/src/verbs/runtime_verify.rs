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
        ui::out(&to_line(&verdict.output()));
    } else {
        let (word, meaning) = match verdict.ok() {
            true => (
                style("BOUND").green(),
                "the manifest contains the digest of the report; the report was not verified",
            ),
            false => (style("NOT BOUND").red().bold(), "the manifest is not valid for the report"),
        };
        ui::out(&format!("{word} ({}): {meaning}", verdict.trust.as_str()));
        for (name, path) in [("Report", &args.report), ("Manifest", &args.manifest)] {
            ui::out(&format!("{name}: {}", ui::printable(&path.to_string_lossy())));
        }
        if let Some(sentence) = &verdict.host_execution {
            ui::out(&ui::host_execution(sentence));
        }
        verdict.errors.iter().for_each(|error| ui::out(&format!("- {}", ui::printable(error))));
    }
    Ok(u8::from(!verdict.ok()))
}
