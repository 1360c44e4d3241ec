//! Replays the baseline's windows on a subject.

use std::collections::HashSet;

use invarlock_evidence::run_report::{BaselineWindows, ReplayArm};

use super::{Arm, Window, Windows, check_size};
use invarlock_error::{Error, Result, bail};

/// Checks the windows of a baseline. `vocab_size` is the number of tokens that the subject embeds.
pub fn replay(baseline: BaselineWindows, seq_len: usize, vocab_size: usize) -> Result<Windows> {
    check_size(seq_len, baseline.preview.input_ids.len().saturating_add(baseline.final_.input_ids.len()))?;
    let preview = check_arm("preview", baseline.preview, seq_len, vocab_size)?;
    let final_ = check_arm("final", baseline.final_, seq_len, vocab_size)?;
    let mut ids = HashSet::new();
    let mut tokens = HashSet::new();
    for (id, window) in
        preview.ids.iter().chain(&final_.ids).zip(preview.windows.iter().chain(&final_.windows))
    {
        if !ids.insert(id) {
            return Err(invalid(format!("two windows have the id {id}")));
        }
        if !tokens.insert(window.tokens()) {
            return Err(invalid(format!("window {id} repeats another window")));
        }
    }
    Ok(Windows { preview, final_, ..Windows::default() })
}

fn invalid(problem: String) -> Error {
    Error::input(format!("invalid windows of the baseline: {problem}"))
        .with_hint("measure the baseline again")
}

fn check_arm(name: &str, arm: ReplayArm, seq_len: usize, vocab_size: usize) -> Result<Arm> {
    let n = arm.window_ids.len();
    if n == 0 || arm.input_ids.len() != n || arm.attention_masks.len() != n {
        return Err(invalid(format!(
            "the {name} arm has {n} window ids, {} windows and {} masks",
            arm.input_ids.len(),
            arm.attention_masks.len()
        )));
    }
    let mut windows = Vec::with_capacity(n);
    for ((id, ids), mask) in arm.window_ids.iter().zip(arm.input_ids).zip(arm.attention_masks) {
        if ids.len() != seq_len || mask.len() != seq_len {
            return Err(invalid(format!(
                "window {id} has {} ids and {} masks, not {seq_len}",
                ids.len(),
                mask.len()
            )));
        }
        let real = mask.iter().take_while(|m| **m == 1).count();
        if mask[real..].iter().any(|m| *m != 0) {
            return Err(invalid(format!("the mask of window {id} is not ones followed by zeros")));
        }
        if real < 2 {
            return Err(invalid(format!("window {id} has fewer than 2 tokens")));
        }
        if let Some(token) = ids.iter().find(|token| **token as usize >= vocab_size) {
            bail!(
                Input,
                "window {id} of the baseline contains the token {token}, but the subject embeds only {vocab_size} tokens"
            );
        }
        windows.push(Window { ids, real });
    }
    Ok(Arm { ids: arm.window_ids, windows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> BaselineWindows {
        let arm = |ids: &[u64], first: u32| ReplayArm {
            window_ids: ids.to_vec(),
            input_ids: ids.iter().map(|i| vec![first, *i as u32, 5, 0]).collect(),
            attention_masks: ids.iter().map(|_| vec![1, 1, 1, 0]).collect(),
        };
        BaselineWindows {
            tokenizer_hash: None,
            tokenizer: None,
            preview: arm(&[0, 1], 3),
            final_: arm(&[2, 7], 4),
        }
    }

    #[test]
    fn accepts_valid_windows_unchanged() {
        let w = replay(baseline(), 4, 8).expect("accepted");
        assert_eq!(w.final_.ids, [2, 7]);
        assert_eq!(w.final_.windows[1], Window { ids: vec![4, 7, 5, 0], real: 3 });
    }

    #[test]
    fn rejects_invalid_windows() {
        let rejected = |change: &dyn Fn(&mut BaselineWindows), word: &str| {
            let mut windows = baseline();
            change(&mut windows);
            let message = replay(windows, 4, 8).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        };
        rejected(&|w| w.final_.window_ids[1] = 0, "two windows have the id 0");
        rejected(&|w| w.final_.input_ids[0] = vec![3, 0, 5, 1], "repeats another");
        rejected(&|w| w.final_.input_ids[0][3] = 8, "embeds only 8");
        rejected(&|w| w.final_.input_ids[0].push(0), "has 5 ids");
        rejected(&|w| w.preview.attention_masks[0] = vec![0, 1, 1, 1], "ones followed by zeros");
        rejected(&|w| w.preview.attention_masks[0] = vec![1, 1, 2, 0], "ones followed by zeros");
        rejected(&|w| w.preview.attention_masks[0] = vec![1, 0, 0, 0], "fewer than 2 tokens");
        rejected(&|w| w.preview = ReplayArm::default(), "preview arm has 0");
        rejected(&|w| drop(w.preview.attention_masks.pop()), "1 masks");
    }
}
