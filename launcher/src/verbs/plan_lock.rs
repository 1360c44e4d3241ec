//! `invarlock plan lock`: fixes the criteria of an evaluation before it runs.

use crate::args::LockArgs;
use crate::error::Result;
use crate::evidence_dir::write_output;
use crate::plan::DatasetChanges;
use crate::preset::Preset;
use crate::record::now;
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use crate::{checkpoint_files, hub, inputs, keys, plan, request};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::plan_lock::PlanLock;
use invarlock_evidence::signing::dsse::Envelope;

/// Writes the lock. Exits 0.
pub fn run(args: &LockArgs) -> Result<u8> {
    let (ui, signals) = (Ui::new(Level::Normal), Signals::catch()?);
    let key = keys::signing(&args.signing_key)?;
    let (profile, tier) = request::profile_and_tier(&args.profile, &args.tier)?;
    let source = request::data_source(args.preset.as_deref(), args.dataset.as_deref())?;
    let Preset { dataset, warnings, .. } = plan::dataset(&source, DatasetChanges::default(), profile)?;
    warnings.iter().for_each(|warning| ui.warn(&warning.message));
    let opened = inputs::open_dataset(&dataset.files, source.preset())?;
    let path = dataset.files.first().cloned().unwrap_or_default();
    let files = inputs::digest(&ui, &signals, "dataset", &path, &opened)?;
    let baseline = args.baseline.as_deref().map(|path| {
        let path = hub::model("--baseline", path)?.dir;
        let opened = checkpoint_files::open_checkpoint("baseline", &path)?;
        inputs::digest(&ui, &signals, "baseline", &path, &opened)
    });
    let baseline = baseline.transpose()?;
    let settings = dataset.recorded(files.tree_sha256.clone());
    let lock = PlanLock::new(profile, tier, settings, baseline.as_ref(), now());
    let bytes = Envelope::sign(lock.statement(&files, baseline.as_ref()).to_bytes(), &key).to_bytes();
    write_output(&args.output, &bytes, args.force)?;
    ui::out(&format!("LOCKED {}", ui::printable(&args.output.to_string_lossy())));
    ui::out(&format!("sha256:{}", sha256_hex(&bytes)));
    Ok(0)
}
