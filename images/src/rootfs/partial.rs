//! A layer that is being extracted.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use cap_std::fs::Dir;
use invarlock_error::Context as _;

use super::change_stamps;
use super::record::{RecordWriter, Seal};
use crate::Result;
use crate::cas::LayerReader;
use crate::cas::files::{ensure_dir, open, open_dir, write_atomic};
use crate::hooks::step;
use crate::layer::Totals;
use crate::layer::extract::extract;
use crate::layer::limits::{Limits, Policy};
use crate::oci::Layer;

/// Timestamps of files are as coarse as the kernel's clock tick. A change after this time has another timestamp.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// The locked directory to which a layer is extracted. It is deleted, and unlocked, when this value is dropped.
pub(super) struct PartialLayer<'a> {
    cache: &'a Dir,
    dir: Dir,
    name: String,
    partial: String,
}

impl<'a> PartialLayer<'a> {
    /// Empties the locked directory `dir`, which is called `partial`. The layer will be called `name`.
    pub fn new(cache: &'a Dir, dir: Dir, name: String, partial: String) -> Result<Self> {
        let partial_layer = Self { cache, dir, name, partial };
        let emptying = "removing the leftovers of an interrupted extraction";
        for entry in partial_layer.dir.entries().context(emptying)? {
            let name = entry.context(emptying)?.file_name();
            remove(&partial_layer.dir, &name.to_string_lossy()).context(emptying)?;
        }
        Ok(partial_layer)
    }

    /// Extracts `blob` and writes record, change stamps and seal. Returns what the layer contains.
    pub fn extract(
        &self,
        blob: &mut LayerReader<'_>,
        layer: &Layer,
        limits: Limits,
        policy: Policy,
    ) -> Result<Totals> {
        ensure_dir(&self.dir, "tree")?;
        let dir = open_dir(&self.dir, "tree")?;
        ensure_dir(&dir, "root")?;
        let root = open_dir(&dir, "root")?;
        let seal = write_atomic(&dir, "record", |file| {
            let mut record = RecordWriter::new(file);
            let totals = extract(blob, layer, &root, &mut |line| record.write(line), limits, policy)?;
            record.finish(totals)
        })?;
        step("store: layer unpacked");
        write_change_stamps(&dir, &seal)?;
        write_atomic(&self.dir, "seal", |file| write_seal(&seal, file))?;
        step("store: record sealed");
        Ok(seal.totals)
    }

    /// Gives the extracted layer, which is sealed and synced, its name.
    pub fn finish(&self) -> Result<()> {
        let naming = || format!("naming extracted layer {}", self.name);
        // The seal is beside the layer, so that a change of the layer's own directory alone is detected.
        self.dir.rename("seal", self.cache, format!("{}.seal", self.name)).with_context(naming)?;
        step("store: seal beside");
        self.dir.rename("tree", self.cache, &self.name).with_context(naming)?;
        step("store: tree named");
        Ok(())
    }
}

impl Drop for PartialLayer<'_> {
    fn drop(&mut self) {
        // The lock is released after this. A process that waits for it then finds no directory, or one of its own.
        let _ = self.cache.remove_dir_all(&self.partial);
    }
}

/// Writes the change stamps of an extracted layer.
pub(super) fn write_change_stamps(dir: &Dir, seal: &Seal) -> Result<()> {
    std::thread::sleep(CLOCK_TICK);
    let (root, record) = (open_dir(dir, "root")?, open(dir, "record")?);
    write_atomic(dir, "stamps", |file| change_stamps::write(&root, &record, seal, file))
}

pub(super) fn write_seal(seal: &Seal, file: &mut File) -> Result<()> {
    let writing = "writing the seal of an extracted layer";
    let text = serde_json::to_vec(seal).map_err(std::io::Error::from).context(writing)?;
    file.write_all(&text).context(writing)
}

/// Deletes a file, or a directory with its contents.
pub(super) fn remove(dir: &Dir, name: &str) -> std::io::Result<()> {
    match dir.symlink_metadata(name)?.is_dir() {
        true => dir.remove_dir_all(name),
        false => dir.remove_file(name),
    }
}
