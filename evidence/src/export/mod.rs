//! A report in the formats of other tools: one file per format, and one table of them.
//!
//! Report and manifest are untrusted. Every string of them passes the escaping of its format ([`escape`]). An export restates the report;
//! it verifies nothing, and those for readers say so.

mod csv;
pub mod escape;
mod github_summary;
mod json;
mod junit;
mod markdown;
mod mlflow;
mod model_card;
mod summary;

pub use summary::{DatasetSummary, GateSummary, ModelSummary, Summary};

/// One format.
pub struct Format {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    render: fn(&Summary) -> String,
}

/// Every format. A new format is a file of this module and an element of this table.
pub static FORMATS: [Format; 7] = [
    Format { name: "md", purpose: "Markdown for readers", render: markdown::render },
    Format { name: "csv", purpose: "one row per window", render: csv::render },
    Format { name: "junit", purpose: "JUnit XML: one test case per gate", render: junit::render },
    Format { name: "json", purpose: "the summary as one JSON object", render: json::render },
    Format {
        name: "mlflow",
        purpose: "JSON with metrics, params and tags for MLflow",
        render: mlflow::render,
    },
    Format {
        name: "model-card",
        purpose: "Hugging Face model card: YAML front matter with model-index, and a section",
        render: model_card::render,
    },
    Format {
        name: "github-summary",
        purpose: "Markdown for $GITHUB_STEP_SUMMARY",
        render: github_summary::render,
    },
];

impl Format {
    /// The format of this name.
    pub fn of(name: &str) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// The report in this format. It ends with a line feed.
    pub fn render(&self, summary: &Summary) -> String {
        (self.render)(summary)
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
