//! What made the windows of a job.

use invarlock_evidence::format::subject_tokenizer::SubjectTokenizer;
use invarlock_evidence::job::Role;
use invarlock_evidence::measured;
use invarlock_evidence::run_report::WindowsTokenizer;

use crate::tokenizer::Tokenizer;

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
