//! The tokenizer of a subject against the one that made the windows.

use invarlock_evidence::format::subject_tokenizer::SubjectTokenizer;
use invarlock_evidence::numerics::digest;
use invarlock_evidence::run_report::{BaselineWindows, WindowsTokenizer};

use super::Tokenizer;
use invarlock_error::{Error, Result, bail};

/// Largest number of added tokens that a report names.
const MAX_ADDED_NAMES: usize = 32;
/// Characters of a token in a message.
const SHOWN: usize = 80;

/// What a baseline's report says of its tokenizer. `used` are the ids that its windows use, sorted.
pub fn described(tokenizer: &Tokenizer, used: &[u32]) -> Result<WindowsTokenizer> {
    let token = |id: &u32| match tokenizer.token(*id) {
        Some(token) => Ok(token),
        None => bail!(Input, "the tokenizer gives the id {id}, but has no token with it"),
    };
    Ok(WindowsTokenizer {
        vocab_size: tokenizer.vocab_size,
        mapping_sha256: tokenizer.mapping.clone(),
        special: tokenizer.special.clone(),
        used_tokens: used.iter().map(token).collect::<Result<_>>()?,
    })
}

/// How the tokenizer of a subject differs from the one that made the windows; none where it is the same.
///
/// # Errors
/// A window uses a token that differs, or the baseline was measured by an evaluator that did not record its tokens.
pub fn of_subject(own: Option<&Tokenizer>, baseline: &BaselineWindows) -> Result<Option<SubjectTokenizer>> {
    let hash = baseline.tokenizer_hash.as_deref().unwrap_or("(none)");
    let same = own.is_some_and(|own| own.hash == hash);
    let Some(windows) = &baseline.tokenizer else {
        let found = own.map_or("(none)", |own| own.hash.as_str());
        return match same {
            true => Ok(None),
            false => Err(Error::input(format!(
                "the tokenizer of the baseline has the digest {hash}, that of the subject {found}, and the baseline's run report \
                 does not state the tokens that its windows use"
            ))
            .with_hint("measure the baseline again; an older evaluator measured it")),
        };
    };
    let Some(own) = own else { return Ok(Some(SubjectTokenizer::Missing)) };
    let same_mapping = own.mapping == windows.mapping_sha256;
    if same && same_mapping {
        return Ok(None);
    }
    let used = baseline.used_ids();
    if used.len() != windows.used_tokens.len() {
        let tokens = windows.used_tokens.len();
        bail!(
            Input,
            "invalid windows of the baseline: they use {} ids, but {tokens} tokens are stated",
            used.len()
        );
    }
    let tokens: Vec<Option<String>> = used.iter().map(|id| own.token(*id)).collect();
    let mut pairs = used.iter().zip(&windows.used_tokens).zip(&tokens);
    if let Some(((id, one), other)) = pairs.find(|((_, one), other)| Some(*one) != other.as_ref()) {
        let other = other.as_ref().map_or_else(|| "no token".to_owned(), |token| shown(token));
        return Err(Error::input(format!(
            "tokenizer mismatch: the id {id}, which the windows use, is {} in the baseline and {other} in the subject; losses over \
             different vocabularies cannot be compared",
            shown(one)
        ))
        .with_hint("use a subject with the tokenizer of the baseline; it may have more tokens, but not other ones"));
    }
    let added = own.tokens_from(windows.vocab_size);
    Ok(Some(SubjectTokenizer::Other {
        hash: own.hash.clone(),
        vocab_size: own.vocab_size,
        mapping_sha256: own.mapping.clone(),
        same_mapping,
        used_tokens_sha256: digest::used_tokens(used.into_iter().zip(tokens.iter().map(Option::as_deref))),
        added_tokens: added.len() as u64,
        added_token_names: added.into_iter().take(MAX_ADDED_NAMES).collect(),
    }))
}

/// A token in quotes.
fn shown(token: &str) -> String {
    format!("{:?}", token.chars().take(SHOWN).collect::<String>())
}
