//! Replaying the baseline's windows on a subject.

use std::collections::HashSet;

use invarlock_evidence::run_report::{BaselineWindows, ReplayArm};

use super::{Arm, Window, Windows, check_size};
use invarlock_error::{Error, Result, bail};

/// Checks windows that were handed over and takes them. `vocab` is the number of tokens the subject embeds.
pub fn replay(given: BaselineWindows, seq_len: usize, vocab: usize) -> Result<Windows> {
    check_size(seq_len, given.preview.input_ids.len().saturating_add(given.final_.input_ids.len()))?;
    let preview = arm("preview", given.preview, seq_len, vocab)?;
    let final_ = arm("final", given.final_, seq_len, vocab)?;
    let mut ids = HashSet::new();
    let mut tokens = HashSet::new();
    for (id, window) in
        preview.ids.iter().chain(&final_.ids).zip(preview.windows.iter().chain(&final_.windows))
    {
        if !ids.insert(id) {
            return Err(bad(format!("two windows have the id {id}")));
        }
        if !tokens.insert(window.tokens()) {
            return Err(bad(format!("window {id} repeats another window")));
        }
    }
    Ok(Windows { preview, final_, ..Windows::default() })
}

fn bad(problem: String) -> Error {
    Error::input(format!("the baseline's windows cannot be replayed: {problem}; measure the baseline again"))
}

fn arm(name: &str, given: ReplayArm, seq_len: usize, vocab: usize) -> Result<Arm> {
    let n = given.window_ids.len();
    if n == 0 || given.input_ids.len() != n || given.attention_masks.len() != n {
        return Err(bad(format!(
            "the {name} arm has {n} window ids, {} windows and {} masks",
            given.input_ids.len(),
            given.attention_masks.len()
        )));
    }
    let mut windows = Vec::with_capacity(n);
    for ((id, ids), mask) in given.window_ids.iter().zip(given.input_ids).zip(given.attention_masks) {
        if ids.len() != seq_len || mask.len() != seq_len {
            return Err(bad(format!(
                "window {id} has {} ids and {} masks, not {seq_len}",
                ids.len(),
                mask.len()
            )));
        }
        let real = mask.iter().take_while(|m| **m == 1).count();
        if mask[real..].iter().any(|m| *m != 0) {
            return Err(bad(format!("the mask of window {id} is not ones followed by zeros")));
        }
        if real < 2 {
            return Err(bad(format!("window {id} has fewer than 2 tokens")));
        }
        if let Some(token) = ids.iter().find(|t| **t as usize >= vocab) {
            bail!(
                Input,
                "window {id} of the baseline holds the token {token}, but this checkpoint embeds only {vocab}: \
                 the two checkpoints do not belong together"
            );
        }
        windows.push(Window { ids, real });
    }
    Ok(Arm { ids: given.window_ids, windows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> BaselineWindows {
        let arm = |ids: &[u64], first: u32| ReplayArm {
            window_ids: ids.to_vec(),
            input_ids: ids.iter().map(|i| vec![first, *i as u32, 5, 0]).collect(),
            attention_masks: ids.iter().map(|_| vec![1, 1, 1, 0]).collect(),
        };
        BaselineWindows { tokenizer_hash: None, preview: arm(&[0, 1], 3), final_: arm(&[2, 7], 4) }
    }

    #[test]
    fn good_windows_are_taken_as_they_are() {
        let w = replay(given(), 4, 8).expect("taken");
        assert_eq!(w.final_.ids, [2, 7]);
        assert_eq!(w.final_.windows[1], Window { ids: vec![4, 7, 5, 0], real: 3 });
    }

    #[test]
    fn bad_windows_are_refused() {
        let refused = |change: &dyn Fn(&mut BaselineWindows), word: &str| {
            let mut g = given();
            change(&mut g);
            let message = replay(g, 4, 8).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(&|g| g.final_.window_ids[1] = 0, "two windows have the id 0");
        refused(&|g| g.final_.input_ids[0] = vec![3, 0, 5, 1], "repeats another");
        refused(&|g| g.final_.input_ids[0][3] = 8, "embeds only 8");
        refused(&|g| g.final_.input_ids[0].push(0), "has 5 ids");
        refused(&|g| g.preview.attention_masks[0] = vec![0, 1, 1, 1], "ones followed by zeros");
        refused(&|g| g.preview.attention_masks[0] = vec![1, 1, 2, 0], "ones followed by zeros");
        refused(&|g| g.preview.attention_masks[0] = vec![1, 0, 0, 0], "fewer than 2 tokens");
        refused(&|g| g.preview = ReplayArm::default(), "preview arm has 0");
        refused(&|g| drop(g.preview.attention_masks.pop()), "1 masks");
    }
}
