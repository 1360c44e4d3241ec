//! Makes windows of the rows of a dataset.

use invarlock_evidence::format::dataset::{Answers, Packing, Provider};
use invarlock_evidence::format::masking::Masked;
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::job::Job;
use invarlock_evidence::masking::{Masker, eligible};

use super::documents::{Documents, documents};
use super::examples::{Encoding, examples, label_rows};
use super::select::{WindowRequest, select};
use super::shuffled::shuffled;
use super::stratified::stratified;
use super::{Window, Windows};
use crate::chat::{self, Template};
use crate::checkpoint::Checkpoint;
use crate::dataset::{self, Fields, Limit, Row, Texts};
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;
use invarlock_error::{Error, Result, bail};

/// The rows of a dataset that a job asks for.
pub(super) struct Rows<'a> {
    pub files: &'a [String],
    pub fields: Fields<'a>,
    /// What an accuracy is measured on; none for a perplexity.
    pub answers: Option<&'a Answers>,
    pub max_samples: usize,
    pub packing: Packing,
}

/// Whether rows that are packed like this could be joined into full windows instead.
pub fn joinable(objective: Objective, packing: Packing) -> bool {
    objective == Objective::Causal && packing == Packing::Rows
}

/// What turns rows into windows.
pub(super) struct Windower<'a> {
    pub job: &'a Job,
    pub objective: Objective,
    pub checkpoint: &'a Checkpoint,
    pub tokenizer: &'a Tokenizer,
    /// How windows are masked; none unless the model is a masked language model.
    pub masked: Option<Masked>,
}

impl Windower<'_> {
    /// The windows of both arms.
    pub fn windows(self, rows: &Rows<'_>, progress: &Progress) -> Result<Windows> {
        self.check(rows)?;
        let limit = Limit {
            rows: rows.max_samples,
            blank_counts: self.job.provider == Provider::Wikitext2 && rows.packing == Packing::Rows,
            labels: matches!(rows.answers, Some(Answers::Labels { .. })),
        };
        let texts = dataset::read(rows.files, rows.fields, limit)?;
        if let Some(answers) = rows.answers {
            return self.choices(texts, answers, rows, progress);
        }
        let (texts, template) = self.rendered(texts)?;
        let windows = self.selected(&texts, rows, progress)?;
        Ok(Windows { chat_template: template, ..windows })
    }

    /// The windows of the choices of rows.
    fn choices(
        &self,
        mut texts: Texts,
        answers: &Answers,
        rows: &Rows<'_>,
        progress: &Progress,
    ) -> Result<Windows> {
        if let Answers::Labels { labels, .. } = answers {
            label_rows(&mut texts, labels.as_deref())?;
        }
        let whole = self.tokenizer.whole()?;
        let encode = |text: &str| whole.encode_plain(text);
        let encoding = Encoding { begin: whole.bos, pad: whole.pad_id, encode: &encode };
        examples(&texts, encoding, &self.request(rows), &|done, total| {
            progress.report("tokenize", done, total)
        })
    }

    fn request(&self, rows: &Rows<'_>) -> WindowRequest<'_> {
        WindowRequest {
            seq_len: self.job.seq_len,
            preview: self.job.preview_n,
            final_: self.job.final_n,
            profile: &self.job.profile,
            max_samples: rows.max_samples,
            joinable: joinable(self.objective, rows.packing),
        }
    }

    /// Fails where rows are chosen in a way that the model does not allow.
    fn check(&self, rows: &Rows<'_>) -> Result<()> {
        let provider = self.job.provider;
        let fits = match rows.answers {
            None => {
                !provider.has_choices()
                    && rows.fields.target.is_some() == (provider == Provider::LocalJsonlPairs)
            }
            Some(Answers::Choices { .. }) => provider == Provider::LocalJsonlChoices,
            Some(Answers::Labels { .. }) => provider == Provider::LocalJsonlLabels,
        };
        if !fits {
            bail!(Input, "the job has the provider {}, which does not fit its fields", provider.name());
        }
        if rows.answers.is_some() && rows.packing != Packing::Rows {
            return Err(Error::unsupported("packing: documents is not supported for an accuracy")
                .with_hint("use packing: rows"));
        }
        let refused = match (self.objective, provider) {
            (Objective::Causal, _) => None,
            (_, Provider::Wikitext2) => Some(provider.name()),
            (Objective::Seq2Seq, Provider::HfText) => Some(provider.name()),
            _ => (rows.packing != Packing::Rows).then_some("packing: documents"),
        };
        let Some(how) = refused else { return Ok(()) };
        let model = self.objective.describe();
        Err(Error::unsupported(format!("{how} is not supported for a {model}"))
            .with_hint("use the provider local_jsonl with packing: rows"))
    }

    /// Texts in place of conversations, and the digest of the template that made them.
    fn rendered(&self, texts: Texts) -> Result<(Texts, Option<String>)> {
        if !texts.are_conversations() {
            return Ok((texts, None));
        }
        if self.objective != Objective::Causal {
            let model = self.objective.describe();
            return Err(Error::unsupported(format!("conversations are not supported for a {model}"))
                .with_hint("use a dataset with texts"));
        }
        let template = Template::open(self.checkpoint.directory())?;
        Ok((chat::render(&texts, &template)?, Some(template.sha256)))
    }

    fn selected(mut self, texts: &Texts, rows: &Rows<'_>, progress: &Progress) -> Result<Windows> {
        let masked = self.masked.take();
        let Self { job, objective, tokenizer, .. } = self;
        let request = self.request(rows);
        let encode = |row: &Row| window(row, objective, tokenizer, job.seq_len);
        let report = |done, total| progress.report("tokenize", done, total);
        let masker = |masked| Masker::new(masked, tokenizer.vocab_size, job.seed);
        let mut masker = masked.as_ref().map(masker).transpose()?;
        let windows = match (rows.packing, job.provider) {
            (Packing::Documents, _) => self.documents(texts, &request, &report)?,
            (Packing::Rows, Provider::HfText) => {
                shuffled(texts, job.seed, &request, &encode, masker.as_mut(), &report)?
            }
            (Packing::Rows, Provider::Wikitext2) => stratified(texts, job.seed, &request, &encode, &report)?,
            // Choices do not come here.
            (
                Packing::Rows,
                Provider::LocalJsonl
                | Provider::LocalJsonlPairs
                | Provider::LocalJsonlChoices
                | Provider::LocalJsonlLabels,
            ) => select(texts, &request, &encode, masker.as_mut(), &report)?,
        };
        let draws = masker.map(|masker| masker.draws());
        let masked = masked.map(|masked| with_draws(masked, draws, &windows, tokenizer));
        Ok(Windows { masked, ..windows })
    }

    /// The rows, joined and cut into full windows.
    fn documents(
        &self,
        texts: &Texts,
        request: &WindowRequest<'_>,
        report: &dyn Fn(u64, u64),
    ) -> Result<Windows> {
        let Some(end) = self.tokenizer.eos else {
            return Err(Error::input(
                "packing: documents joins documents by the end token, but the tokenizer has none",
            )
            .with_hint("set eos_token in tokenizer_config.json, or use packing: rows"));
        };
        let whole = self.tokenizer.whole()?;
        let encode = |text: &str| whole.encode_plain(text);
        documents(texts, Documents { end, begin: self.tokenizer.bos, encode: &encode }, request, report)
    }
}

/// States how many random numbers of all were drawn before the last pass, which gave the windows.
fn with_draws(masked: Masked, draws: Option<u64>, windows: &Windows, tokenizer: &Tokenizer) -> Masked {
    let pass = [&windows.preview, &windows.final_].into_iter().flat_map(|arm| &arm.windows);
    let pass = pass.map(|window| draws_of(window, &tokenizer.special_ids)).sum::<u64>();
    Masked { draws_before: draws.map(|all| all - pass), ..masked }
}

/// Random numbers that decided what is predicted in a masked window.
fn draws_of(window: &Window, special: &[u32]) -> u64 {
    let Some(labels) = &window.labels else { return 0 };
    let original = invarlock_evidence::masking::original(window.tokens(), labels);
    original.map_or(0, |tokens| eligible(&tokens, special).len() as u64)
}

/// The window of a row, before it is masked; none where the row has too few tokens to predict one.
fn window(row: &Row, objective: Objective, tokenizer: &Tokenizer, seq_len: usize) -> Result<Option<Window>> {
    // A rendered conversation contains its special tokens.
    let mut ids = match row.is_conversation {
        true => tokenizer.encode_plain(&row.text)?,
        false => tokenizer.encode(&row.text)?,
    };
    ids.truncate(seq_len);
    let target = row.target.as_deref().map(|text| tokenizer.encode(text)).transpose()?;
    let labels = target.map(|ids| ids.into_iter().take(seq_len).map(i64::from).collect::<Vec<_>>());
    let usable = match objective {
        Objective::Causal => ids.len() > 1,
        Objective::Masked => !eligible(&ids, &tokenizer.special_ids).is_empty(),
        Objective::Seq2Seq => !ids.is_empty() && labels.as_ref().is_some_and(|labels| !labels.is_empty()),
    };
    let real = ids.len();
    ids.resize(seq_len, tokenizer.pad_id);
    Ok(usable.then_some(Window { ids, real, labels }))
}
