//! A report in the formats of other tools: one file per format, and one table of them.
//!
//! Report and manifest are untrusted. Every string of them passes the escaping of its format ([`escape`]). An export restates the report;
//! it verifies nothing, and those for readers say so.

mod captured;
mod csv;
pub mod escape;
mod github_summary;
mod json;
mod junit;
mod markdown;
mod mlflow;
mod model_card;
mod summary;
pub mod sweep;
mod windows;

pub use captured::{Directory, Measurements};
pub use markdown::render as markdown;
pub use summary::{DatasetSummary, GateSummary, ModelSummary, Summary};

use invarlock_error::Result;

/// One format.
pub struct Format {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// How it is made.
    pub output: Output,
}

/// What a format is made of, and how many files it has.
#[derive(Clone, Copy)]
pub enum Output {
    /// One file, which ends with a line feed unless it is empty, from a report that need not verify.
    File(fn(&Summary) -> String),
    /// A directory of files, from evidence that does not contradict itself.
    Directory(fn(&Measurements<'_>) -> Result<Directory>),
}

/// Every format. A new format is a file of this module and an element of this table.
pub static FORMATS: [Format; 9] = [
    Format { name: "md", purpose: "Markdown for readers", output: Output::File(markdown::render) },
    Format { name: "csv", purpose: "one row per window", output: Output::File(csv::render) },
    Format {
        name: "windows",
        purpose: "JSON lines: one object per window, with the text of final windows where it is known",
        output: Output::File(windows::render),
    },
    Format {
        name: "junit",
        purpose: "JUnit XML: one test case per gate",
        output: Output::File(junit::render),
    },
    Format { name: "json", purpose: "the summary as one JSON object", output: Output::File(json::render) },
    Format {
        name: "mlflow",
        purpose: "JSON with metrics, params and tags for MLflow",
        output: Output::File(mlflow::render),
    },
    Format {
        name: "model-card",
        purpose: "Hugging Face model card: YAML front matter with model-index, and a section",
        output: Output::File(model_card::render),
    },
    Format {
        name: "github-summary",
        purpose: "Markdown for $GITHUB_STEP_SUMMARY",
        output: Output::File(github_summary::render),
    },
    Format {
        name: "invarlock-captured",
        purpose: "directory from which the Python package InvarLock 0.17 publishes an evidence pack",
        output: Output::Directory(captured::files),
    },
];

impl Format {
    /// The format of this name.
    pub fn of(name: &str) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == name)
    }
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What every export for readers says of itself.
const NOT_VERIFIED: &str =
    "As the report states it; nothing was verified here. Verify the evidence with `invarlock verify`.";
