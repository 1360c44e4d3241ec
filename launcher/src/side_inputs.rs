//! The input files of one side: where the evaluator finds each, and the words by which the user knows it.

use crate::inputs::InputFile;
use crate::plan::Opened;
use invarlock_evidence::job::{JobPaths, Role};

/// One input file of an evaluator.
pub struct InputMount<'a> {
    /// The path that the evaluator reads.
    pub target: String,
    /// The opened file.
    pub file: &'a InputFile,
    /// The file in the user's words: `model.safetensors of the subject`, or the dataset file as the user named it.
    words: String,
}

/// The inputs of one side.
pub struct SideInputs<'a> {
    /// Directory of all inputs: `/in` in a container.
    root: String,
    role: Role,
    /// Files of the checkpoint.
    pub checkpoint: Vec<InputMount<'a>>,
    /// Dataset files; they are mounted for the baseline only.
    pub dataset: Vec<InputMount<'a>>,
}

impl<'a> SideInputs<'a> {
    /// The inputs of `role`, below `root`.
    pub fn new(opened: &'a Opened, role: Role, root: &str) -> Self {
        let checkpoint = opened.files(role).iter().map(|file| InputMount {
            target: format!("{root}/checkpoint/{}", file.name),
            words: format!("{} of the {}", file.name, role.name()),
            file,
        });
        let paths = opened.dataset.files.iter();
        let dataset = opened.data.iter().zip(paths).map(|(file, path)| InputMount {
            target: format!("{root}/dataset/{}", file.name),
            words: path.display().to_string(),
            file,
        });
        Self { root: root.to_owned(), role, checkpoint: checkpoint.collect(), dataset: dataset.collect() }
    }

    /// The paths that the job names.
    pub fn job_paths(&self) -> JobPaths {
        JobPaths {
            checkpoint: format!("{}/checkpoint", self.root),
            dataset: self.dataset.iter().map(|mount| mount.target.clone()).collect(),
            windows: self.windows(),
            journal: None,
        }
    }

    /// The path of the job.
    pub fn job(&self) -> String {
        format!("{}/job.json", self.root)
    }

    /// The path of the baseline's windows.
    pub fn windows(&self) -> String {
        format!("{}/windows.json", self.root)
    }

    /// The path of the losses of an interrupted measurement.
    pub fn journal(&self) -> String {
        format!("{}/journal.json", self.root)
    }

    /// An evaluator's message with the user's words in place of the evaluator's paths.
    pub fn in_users_words(&self, message: &str) -> String {
        let files = self.checkpoint.iter().chain(&self.dataset);
        let files = files.map(|mount| (mount.target.clone(), mount.words.clone()));
        let mut table: Vec<(String, String)> = files.collect();
        table.push((self.windows(), "the windows of the baseline".into()));
        table.push((self.journal(), "the journal of the interrupted measurement".into()));
        table.push((format!("{}/checkpoint", self.root), format!("the {} checkpoint", self.role.name())));
        // `model.safetensors.index.json` before `model.safetensors`, files before their directory.
        table.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        table.iter().fold(message.to_owned(), |message, (path, words)| message.replace(path, words))
    }
}
