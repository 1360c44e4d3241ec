//! `--self-test`: checks that this program works on this machine.

use serde_json::{Value, json};

use crate::math::products::{self, Products};
use crate::math::simd;
use invarlock_error::{Error, Result, bail};

/// A small tokenizer that uses the regular expressions of the library.
const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4}, "merges": [["a", "b"], ["Ġ", "ab"]]}
}"#;

/// Largest difference that rounding explains.
const TOLERANCE: f32 = 1e-4;

/// Checks the tokenizer library and the matrix kernel. Returns the line to print.
pub fn run() -> Result<Value> {
    let broken = |e: tokenizers::Error| Error::system(format!("the tokenizer library fails: {e}"));
    let tokenizer = tokenizers::Tokenizer::from_bytes(TOKENIZER).map_err(broken)?;
    let ids = tokenizer.encode_fast("ab abab", true).map_err(broken)?.get_ids().to_vec();
    if ids != [2, 4, 2] {
        bail!(System, "the tokenizer library returns wrong ids: {ids:?}");
    }
    check(Products::Float32)?;
    Ok(json!({
        "self_test": "ok",
        "program": "invarlock-evaluator",
        "version": crate::VERSION,
        "kernel": simd::kernel(),
        "threads": std::thread::available_parallelism().map_or(1, |n| n.get()),
    }))
}

/// Checks a product on this processor.
pub fn check(products: Products) -> Result<()> {
    let error = products::check(products);
    // Written so that a NaN fails.
    let exact = error <= TOLERANCE;
    if !exact {
        bail!(System, "the matrix kernel {} has an error of {error} on this processor", products.kernel());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes_on_this_machine() {
        assert_eq!(super::run().expect("passed")["self_test"], "ok");
    }
}
