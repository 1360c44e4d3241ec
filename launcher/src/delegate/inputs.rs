//! The files below `/in` of the container: each is opened once, hashed through that handle, and mounted from it, read-only.

use super::options::Request;
use super::settings::{DatasetFiles, SettingsFile};
use crate::checkpoint_files;
use crate::error::{Context as _, Result};
use crate::inputs::{self, InputFile};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::delegated::{BASELINE_REPORT, EDIT, PRESET};
use invarlock_evidence::format::delegated::Settings;
use invarlock_evidence::format::plan::Files;
use invarlock_runtime::{Input, InputSource};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The inputs of a run.
pub struct Inputs {
    /// Files of the host by their directory below `/in`.
    groups: Vec<Group>,
    settings: BTreeMap<String, SettingsFile>,
}

struct Group {
    name: &'static str,
    /// As the user wrote it.
    path: PathBuf,
    files: Vec<InputFile>,
}

impl Inputs {
    /// Opens all inputs: settings first, which are small.
    pub fn open(request: &Request) -> Result<Self> {
        let mut dataset = DatasetFiles::default();
        let mut settings = BTreeMap::new();
        settings.insert(PRESET.to_owned(), SettingsFile::preset(&request.preset, &mut dataset)?);
        if let Some(path) = &request.edit_config {
            settings.insert(EDIT.to_owned(), SettingsFile::edit(path, &mut dataset)?);
        }
        // As the request names them: `ORG/NAME@REVISION`, or a path.
        let checkpoint = |name, named: &str, dir: &Path| -> Result<Group> {
            let files = checkpoint_files::open_whole(name, dir)?;
            Ok(Group { name, path: PathBuf::from(named), files })
        };
        let (baseline, subject) = (&request.baseline, &request.subject);
        let mut groups = vec![
            checkpoint("baseline", &baseline.name, &baseline.dir)?,
            checkpoint("subject", &subject.name, &subject.dir)?,
        ];
        if let Some(path) = &request.baseline_report {
            let failed = |error| inputs::not_opened(&format!("--baseline-report {}", path.display()), &error);
            let real = std::fs::canonicalize(path).map_err(failed)?;
            let [name, file] = BASELINE_REPORT;
            let files = vec![inputs::open_real("--baseline-report", &real, file.to_owned())?];
            groups.push(Group { name, path: path.clone(), files });
        }
        if !dataset.files.is_empty() {
            groups.push(Group { name: "dataset", path: request.preset.clone(), files: dataset.files });
        }
        Ok(Self { groups, settings })
    }

    /// Hashes the files of the host.
    pub fn digests(&self, ui: &Ui, signals: &Signals) -> Result<BTreeMap<String, Files>> {
        let digest = |group: &Group| {
            let files = inputs::digest(ui, signals, group.name, &group.path, &group.files)?;
            Ok((group.name.to_owned(), files))
        };
        self.groups.iter().map(digest).collect()
    }

    /// What is recorded of the settings.
    pub fn settings(&self) -> BTreeMap<String, Settings> {
        self.settings.iter().map(|(name, file)| (name.clone(), file.recorded.clone())).collect()
    }

    /// The inputs of the container.
    pub fn of_container(&self) -> Result<Vec<Input>> {
        let mut all = Vec::new();
        for group in &self.groups {
            for file in &group.files {
                let handle = file.file.try_clone().context("duplicating the handle of an input")?;
                let source = InputSource::File { path: file.path.clone(), file: handle };
                all.push(Input { target: format!("/in/{}/{}", group.name, file.name), source });
            }
        }
        for (name, file) in &self.settings {
            let source = InputSource::Bytes(file.text.clone().into_bytes());
            all.push(Input { target: format!("/in/{name}"), source });
        }
        Ok(all)
    }

    /// Fails if a file was changed or replaced since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.groups.iter().flat_map(|group| &group.files).try_for_each(InputFile::check_unchanged)
    }
}
