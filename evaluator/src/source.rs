//! Where the windows of a job come from: a dataset, or the windows of the baseline; and the tokenizer that made them.

use std::path::Path;

use invarlock_evidence::format::dataset::{Packing, Provider};
use invarlock_evidence::format::subject_tokenizer::SubjectTokenizer;
use invarlock_evidence::job::{Job, Role, WindowSource};
use invarlock_evidence::measured;
use invarlock_evidence::run_report::{BaselineWindows, WindowsTokenizer};

use crate::chat::{self, Template};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Limit, Texts};
use crate::model::Model;
use crate::progress::Progress;
use crate::tokenizer::{Tokenizer, described, of_subject};
use crate::windows::{Documents, WindowRequest, Windows, documents, replay, select, shuffled, stratified};
use crate::{dataset, files, limits};
use invarlock_error::{Error, Result};

/// What is known of the tokenizer that made the windows.
#[derive(Debug)]
pub struct WindowsSource {
    /// Digest of its vocabulary.
    pub hash: String,
    /// More about it; none where an older evaluator measured the baseline, and then it is the subject's own.
    pub described: Option<WindowsTokenizer>,
    /// How the subject's own tokenizer differs from it.
    pub subject: Option<SubjectTokenizer>,
}

impl WindowsSource {
    /// What a run report says of the tokenizer. `own` is that of the checkpoint.
    pub fn recorded(&self, own: Option<&Tokenizer>) -> measured::Tokenizer {
        let described = self.described.as_ref();
        measured::Tokenizer {
            hash: self.hash.clone(),
            vocab_size: described
                .map(|known| known.vocab_size)
                .or_else(|| own.map(|own| own.vocab_size))
                .unwrap_or_default(),
            mapping_sha256: described.map(|known| known.mapping_sha256.clone()),
            special: described
                .map(|known| &known.special)
                .or_else(|| own.map(|own| &own.special))
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// The tokens that the windows use. The report of a baseline states them.
    pub fn used_tokens(&self, role: Role) -> Option<Vec<String>> {
        self.described.as_ref().filter(|_| role == Role::Baseline).map(|known| known.used_tokens.clone())
    }
}

/// Opens the windows of a job: selects them from a dataset, or replays those of the baseline.
pub fn open(
    job: &Job,
    checkpoint: &Checkpoint,
    model: &Model<'_>,
    tokenizer: Option<&Tokenizer>,
    progress: &Progress,
) -> Result<(Windows, WindowsSource)> {
    match &job.windows {
        WindowSource::LocalJsonl { files, text_field, max_samples, packing } => {
            let tokenizer = tokenizer.ok_or_else(|| Tokenizer::missing(checkpoint))?;
            let limit = Limit {
                rows: *max_samples,
                blank_counts: job.provider == Provider::Wikitext2 && *packing == Packing::Rows,
            };
            let texts = dataset::read(files, text_field, limit)?;
            let windows = selected(job, *packing, *max_samples, texts, checkpoint, tokenizer, progress)?;
            let described = Some(described(tokenizer, &windows.used_ids())?);
            Ok((windows, WindowsSource { hash: tokenizer.hash.clone(), described, subject: None }))
        }
        WindowSource::Replay { file } => {
            let mut baseline: BaselineWindows =
                files::read_json(Path::new(file), "windows of the baseline", limits::WINDOWS_BYTES)?;
            let subject = of_subject(tokenizer, &baseline)?;
            let hash = baseline.tokenizer_hash.clone().unwrap_or_default();
            let described = baseline.tokenizer.take();
            let windows = replay(baseline, job.seq_len, model.info.vocab_size)?;
            Ok((windows, WindowsSource { hash, described, subject }))
        }
    }
}

/// Selects windows from the rows of a dataset.
fn selected(
    job: &Job,
    packing: Packing,
    max_samples: usize,
    texts: Texts,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
    progress: &Progress,
) -> Result<Windows> {
    let (texts, template) = match texts.conversations {
        true => {
            let template = Template::open(checkpoint.directory())?;
            (chat::render(&texts, &template)?, Some(template.sha256))
        }
        false => (texts, None),
    };
    let request = WindowRequest {
        seq_len: job.seq_len,
        preview: job.preview_n,
        final_: job.final_n,
        pad: tokenizer.pad_id,
        profile: &job.profile,
        max_samples,
    };
    // A rendered conversation contains its special tokens.
    let encode = |text: &str| match template {
        Some(_) => tokenizer.encode_plain(text),
        None => tokenizer.encode(text),
    };
    let report = |done, total| progress.report("tokenize", done, total);
    let windows = match (packing, job.provider) {
        (Packing::Documents, _) => {
            let Some(end) = tokenizer.eos else {
                return Err(Error::input(
                    "packing: documents joins documents by the end token, but the tokenizer has none",
                )
                .with_hint("set eos_token in tokenizer_config.json, or use packing: rows"));
            };
            let whole = tokenizer.whole()?;
            let stream = Documents { end, begin: tokenizer.bos, encode: &|text| whole.encode_plain(text) };
            documents(&texts, stream, &request, &report)?
        }
        (Packing::Rows, Provider::LocalJsonl) => select(&texts, &request, &encode, &report)?,
        (Packing::Rows, Provider::HfText) => shuffled(&texts, job.seed, &request, &encode, &report)?,
        (Packing::Rows, Provider::Wikitext2) => stratified(&texts, job.seed, &request, &encode, &report)?,
    };
    Ok(Windows { chat_template: template, ..windows })
}
