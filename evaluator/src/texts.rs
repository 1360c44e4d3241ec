//! The text of the tokens that a measurement predicts.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::limits;
use crate::tokenizer::Tokenizer;
use crate::windows::Arm;
use invarlock_error::{Result, bail};

/// For each window, the text of the predicted tokens. They are decoded alone: a tokenizer that
/// removes the space before the first word of a text removes it here, too.
///
/// # Errors
/// The tokenizer cannot decode the tokens, or the texts are longer than [`limits::PREDICTED_TEXT_BYTES`].
pub fn predicted(tokenizer: &Tokenizer, arm: &Arm) -> Result<Vec<String>> {
    let bytes = AtomicUsize::new(0);
    let decode = |tokens: Vec<u32>| {
        let text = tokenizer.decode(&tokens)?;
        match bytes.fetch_add(text.len(), Ordering::Relaxed) + text.len() {
            all if all > limits::PREDICTED_TEXT_BYTES => {
                bail!(Input, "the texts are longer than {} bytes", limits::PREDICTED_TEXT_BYTES)
            }
            _ => Ok(text),
        }
    };
    arm.windows.par_iter().map(|window| decode(window.predicted())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::open;
    use crate::windows::Window;
    use serde_json::{Value, json};

    /// A byte-level tokenizer of `a`, a space and the two bytes of `é`, with the special token `<s>`.
    fn byte_level() -> Value {
        let special = json!({"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "\u{120}": 1, "\u{c3}": 2, "\u{a9}": 3, "<s>": 4}},
        })
    }

    fn texts(tokenizer: &Value, windows: &[&[u32]]) -> Result<Vec<String>> {
        let tokenizer = open(tokenizer.to_string().as_bytes(), None, json!({}), 27).expect("a tokenizer");
        let window = |tokens: &&[u32]| Window {
            ids: [tokens, [0; 3].as_slice()].concat(),
            real: tokens.len(),
            labels: None,
        };
        predicted(
            &tokenizer,
            &Arm {
                ids: (0..).take(windows.len()).collect(),
                windows: windows.iter().map(window).collect(),
                examples: None,
            },
        )
    }

    #[test]
    fn the_first_token_and_padding_are_left_out() {
        let found = texts(&byte_level(), &[&[0, 1, 2, 3], &[2, 3, 0], &[4, 4, 0, 2], &[0, 0]]);
        assert_eq!(found.expect("texts"), [" \u{e9}", "\u{fffd}a", "<s>a\u{fffd}", "a"]);
    }

    #[test]
    fn too_long_texts_are_refused() {
        let mut tokenizer = byte_level();
        tokenizer["model"]["vocab"] = json!({"a": 0, "a".repeat(limits::PREDICTED_TEXT_BYTES / 2): 1});
        assert!(texts(&tokenizer, &[&[0, 1, 1]]).is_ok());
        assert!(texts(&tokenizer, &[&[0, 1, 1], &[0, 0]]).is_err());
    }
}
