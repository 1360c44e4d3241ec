//! `invarlock runtime image …`: what is done with the images of the store.

use crate::args::ImageCommand;
use crate::error::{Error, Kind, Result};
use crate::image;
use crate::ui::{self, Level, Step, Ui};
use invarlock_images::{Checked, Freed, Policy, Reference, Store};
use serde_json::{Value, json};

mod build;

/// Runs the sub-command.
pub fn run(command: &ImageCommand, network: &crate::policy::Policy) -> Result<u8> {
    match command {
        ImageCommand::Build(args) => build::run(args),
        ImageCommand::Sbom { image } => {
            let bill = image::store()?.sbom(&Reference::parse(image)?)?;
            let bill: Value = serde_json::from_slice(&bill).map_err(|e| {
                Error::new(Kind::Integrity, format!("reading the bill of materials of {image}: {e}"))
            })?;
            ui::out(&ui::ascii(&format!("{bill:#}")));
            Ok(0)
        }
        ImageCommand::Ls { json } => list(*json),
        ImageCommand::Inspect { image } => {
            let value = image::store()?.inspect(&Reference::parse(image)?)?;
            ui::out(&ui::ascii(&format!("{value:#}")));
            Ok(0)
        }
        ImageCommand::Import { from, name, unwanted, json } => {
            import(from, name.as_deref(), (*unwanted).into(), *json)
        }
        ImageCommand::Pull(args) => super::transport::pull(args, network),
        ImageCommand::Push(args) => super::transport::push(args, network),
        ImageCommand::Export { image, to, json } => export(image, to, *json),
        ImageCommand::Tag { image, name, json } => {
            let digest = image::store()?.tag(&Reference::parse(image)?, name)?;
            let value = json!({"format_version": "runtime-image-tag-v1", "reference": name, "manifest_digest": digest});
            say(*json, &value, &format!("{name} {digest}"));
            Ok(0)
        }
        ImageCommand::Rm { image, json } => {
            let gone = image::store()?.remove(&Reference::parse(image)?)?;
            let value = json!({"format_version": "runtime-image-rm-v1", "removed": gone});
            let lines: Vec<String> =
                gone.iter().map(|name| format!("removed {}", ui::printable(name))).collect();
            say(*json, &value, &lines.join("\n"));
            Ok(0)
        }
        ImageCommand::Verify { image, repair, json } => verify(image.as_deref(), *repair, *json),
        ImageCommand::Gc { dry_run, json } => {
            let freed = image::store()?.gc(*dry_run)?;
            let mut value = json!(freed);
            value["format_version"] = "runtime-image-gc-v1".into();
            value["dry_run"] = (*dry_run).into();
            say(*json, &value, &freed_text(&freed, *dry_run));
            Ok(0)
        }
    }
}

pub(super) fn say(as_json: bool, value: &Value, text: &str) {
    if as_json { ui::json(value) } else { ui::out(text) }
}

fn import(from: &str, name: Option<&str>, policy: Policy, json: bool) -> Result<u8> {
    let store = image::store()?;
    let reference = Reference::parse(from)?;
    let step = progress("importing", &store, &reference)?;
    let imported = store.import(&reference, name, policy, &|bytes| step.add(bytes))?;
    drop(step);
    let mut value = json!(imported);
    value["format_version"] = "runtime-image-import-v1".into();
    say(
        json,
        &value,
        &match name {
            Some(name) => format!("{name} {}", imported.manifest_digest),
            None => imported.reference,
        },
    );
    Ok(0)
}

fn export(image: &str, to: &str, json: bool) -> Result<u8> {
    let store = image::store()?;
    let (reference, place) = (Reference::parse(image)?, Reference::parse(to)?);
    let step = progress("exporting", &store, &reference)?;
    let digest = store.export(&reference, &place, &|bytes| step.add(bytes))?;
    drop(step);
    let value = json!({"format_version": "runtime-image-export-v1", "to": place, "manifest_digest": digest});
    say(json, &value, &format!("{} {digest}", ui::printable(to)));
    Ok(0)
}

/// A bar over the bytes of an image's blobs, on a terminal.
fn progress(doing: &str, store: &Store, reference: &Reference) -> Result<Step> {
    Ok(Ui::new(Level::Normal).step(doing, store.resolve(reference)?.bytes, true))
}

fn list(json: bool) -> Result<u8> {
    let entries = image::store()?.list()?;
    if json {
        ui::json(&json!({"format_version": "runtime-image-ls-v1", "images": entries}));
        return Ok(0);
    }
    ui::out(&format!("{:<32} {:<71} SIZE", "REFERENCE", "DIGEST"));
    for e in entries {
        ui::out(&format!(
            "{:<32} {:<71} {}",
            ui::printable(&e.reference),
            e.manifest_digest,
            ui::size(e.bytes)
        ));
    }
    Ok(0)
}

fn verify(image: Option<&str>, repair: bool, json: bool) -> Result<u8> {
    let reference = image.map(Reference::parse).transpose()?;
    let checked = image::store()?.verify(reference.as_ref(), repair)?;
    let wrong = checked.iter().filter(|it| it.problem.is_some()).count();
    let value = json!({"format_version": "runtime-image-verify-v1", "ok": wrong == 0, "checked": checked});
    let line = |it: &Checked| {
        let state = match &it.problem {
            Some(problem) => ui::printable(problem),
            None if it.repaired => "unpacked anew".to_owned(),
            None => "ok".to_owned(),
        };
        format!("{:<5} {} {state}", it.kind, ui::printable(&it.name))
    };
    say(json, &value, &checked.iter().map(line).collect::<Vec<_>>().join("\n"));
    match wrong {
        0 => Ok(0),
        // What is wrong was said.
        _ if json => Ok(Kind::Integrity.exit_code()),
        _ => Err(Error::new(
            Kind::Integrity,
            format!(
                "verifying the image store: {wrong} of {} things are wrong; `--repair` unpacks altered trees anew; take an image \
                 with a damaged blob away (`invarlock runtime image rm`, then `gc`) and get it again",
                checked.len()
            ),
        )),
    }
}

fn freed_text(freed: &Freed, dry_run: bool) -> String {
    let kept = match freed.in_use.len() {
        0 => String::new(),
        count => format!("; {count} unpacked layers are in use and stay"),
    };
    format!(
        "{} {} of {} blobs and {} unpacked layers{kept}",
        if dry_run { "would free" } else { "freed" },
        ui::size(freed.bytes),
        freed.blobs.len(),
        freed.trees.len()
    )
}
