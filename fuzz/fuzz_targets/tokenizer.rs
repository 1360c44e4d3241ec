//! Opens a tokenizer and tokenizes a text: a byte that chooses its files, `tokenizer_config.json` (its length first, 2 bytes), and one file, or
//! two with a line of `----` between them.
#![no_main]

use invarlock_evaluator::checkpoint::Config;
use invarlock_evaluator::tokenizer::{ForModel, Tokenizer};
use invarlock_evidence::format::objective::Objective;

const FILES: [[&str; 2]; 5] = [
    ["tokenizer.json", "chat_template.jinja"],
    ["vocab.json", "merges.txt"],
    ["vocab.txt", "added_tokens.json"],
    ["tokenizer.model", "added_tokens.json"],
    ["spiece.model", "special_tokens_map.json"],
];
const BETWEEN: &[u8] = b"\n----\n";
/// Rows of the embedding.
const EMBEDDED: usize = 1 << 16;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, rest)) = bytes.split_first() else { return };
    let Some((length, rest)) = rest.split_first_chunk() else { return };
    let Some((settings, files)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).expect("a file");
    if !settings.is_empty() {
        write("tokenizer_config.json", settings);
    }
    let [first, second] = FILES[usize::from(*chosen) % FILES.len()];
    match files.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        Some(at) => {
            write(first, &files[..at]);
            write(second, &files[at + BETWEEN.len()..]);
        }
        None => write(first, files),
    }
    let config = Config::from_members(serde_json::Map::new());
    let objective = if chosen & 128 != 0 { Objective::Masked } else { Objective::Causal };
    let model = ForModel { objective, embedded: EMBEDDED, with_bos: true };
    let Ok(Some(tokenizer)) = Tokenizer::in_directory(directory.path(), &config, 32, model) else { return };
    if let Ok(ids) = tokenizer.encode("A text: caf\u{e9}, <s> \u{4e2d}\n 12 [MASK]") {
        assert!(ids.len() <= 32 && ids.iter().all(|id| (*id as usize) < EMBEDDED), "{ids:?}");
        // A decoder may refuse ids; it must not panic.
        let _ = tokenizer.decode(&ids);
    }
});
