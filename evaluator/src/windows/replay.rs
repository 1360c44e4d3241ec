//! Replays the baseline's windows on a subject.

use std::collections::HashSet;

use invarlock_evidence::format::choices;
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::numerics::NOT_PREDICTED;
use invarlock_evidence::run_report::{BaselineWindows, ReplayArm};

use super::{Arm, Window, Windows, check_size};
use invarlock_error::{Error, Result, bail};

/// Checks the windows of a baseline. `vocab_size` is the number of tokens that the subject embeds; both sides predict the same.
pub fn replay(baseline: BaselineWindows, seq_len: usize, vocab_size: usize) -> Result<Windows> {
    let kind = Kind { objective: baseline.objective, vocab_size, choices: baseline.examples().is_some() };
    check_size(seq_len, baseline.preview.input_ids.len().saturating_add(baseline.final_.input_ids.len()))?;
    let preview = check_arm("preview", baseline.preview, seq_len, kind)?;
    let final_ = check_arm("final", baseline.final_, seq_len, kind)?;
    let mut ids = HashSet::new();
    if let Some(id) = preview.ids.iter().chain(&final_.ids).find(|id| !ids.insert(**id)) {
        return Err(invalid(format!("two windows have the id {id}")));
    }
    let mut units = HashSet::new();
    for arm in [&preview, &final_] {
        for (windows, ids) in arm.units() {
            let tokens: Vec<&[u32]> = windows.iter().map(Window::tokens).collect();
            if !units.insert(tokens) {
                return Err(invalid(format!("window {} repeats another window", ids[0])));
            }
        }
    }
    drop(units);
    Ok(Windows { preview, final_, ..Windows::default() })
}

/// What the windows of a baseline are for.
#[derive(Clone, Copy)]
struct Kind {
    objective: Objective,
    vocab_size: usize,
    /// Whether they are choices.
    choices: bool,
}

fn invalid(problem: String) -> Error {
    Error::input(format!("invalid windows of the baseline: {problem}"))
        .with_hint("measure the baseline again")
}

fn check_arm(name: &str, arm: ReplayArm, seq_len: usize, kind: Kind) -> Result<Arm> {
    let Kind { objective, vocab_size, choices } = kind;
    let n = arm.window_ids.len();
    match &arm.examples {
        Some(examples) if choices => choices::check(examples, n).map_err(invalid)?,
        None if !choices => {}
        _ => return Err(invalid("one arm has examples with choices, the other one not".to_owned())),
    }
    let mut rows = match (objective, arm.labels) {
        (Objective::Causal, None) if !choices => None,
        (_, Some(rows)) if rows.len() == n && (choices || objective != Objective::Causal) => {
            Some(rows.into_iter())
        }
        (_, rows) => {
            let found = rows.map_or(0, |rows| rows.len());
            return Err(invalid(format!(
                "the {name} arm of a {} has {found} rows of labels",
                objective.describe()
            )));
        }
    };
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
        let least = if objective == Objective::Causal { 2 } else { 1 };
        if real < least {
            return Err(invalid(format!("window {id} has fewer than {least} tokens")));
        }
        let labels = rows.as_mut().and_then(Iterator::next);
        let labels = labels.map(|row| check_labels(row, &ids, real, kind));
        let labels =
            labels.transpose().map_err(|what| invalid(format!("the labels of window {id} {what}")))?;
        if let Some(token) = ids.iter().find(|token| **token as usize >= vocab_size) {
            bail!(
                Input,
                "window {id} of the baseline contains the token {token}, but the subject embeds only {vocab_size} tokens"
            );
        }
        windows.push(Window { ids, real, labels });
    }
    Ok(Arm { ids: arm.window_ids, windows, examples: arm.examples })
}

/// The labels of a window with `real` tokens of these ids, without the padding behind them.
fn check_labels(mut labels: Vec<i64>, ids: &[u32], real: usize, kind: Kind) -> Result<Vec<i64>, String> {
    let Kind { objective, vocab_size, .. } = kind;
    if labels.len() != ids.len() {
        return Err(format!("are {}, not {}", labels.len(), ids.len()));
    }
    let is_token = |label: i64| usize::try_from(label).is_ok_and(|id| id < vocab_size);
    if let Some(label) = labels.iter().find(|label| **label != NOT_PREDICTED && !is_token(**label)) {
        return Err(format!("contain {label}, and the subject embeds {vocab_size} tokens"));
    }
    let end = labels.iter().rposition(|label| *label != NOT_PREDICTED).map_or(0, |last| last + 1);
    let start = labels.iter().position(|label| *label != NOT_PREDICTED).unwrap_or_default();
    let own = || labels[start..end].iter().zip(&ids[start..end]).all(|(label, id)| *label == i64::from(*id));
    let gap = || labels[..end].contains(&NOT_PREDICTED);
    match objective {
        _ if end == 0 => Err("predict no token".to_owned()),
        Objective::Masked | Objective::Causal if end > real => Err("predict padding".to_owned()),
        Objective::Causal if start == 0 || end < real || !own() => {
            Err("are not the last tokens of the window".to_owned())
        }
        Objective::Seq2Seq if gap() => Err("leave out a token of the target".to_owned()),
        _ => {
            labels.truncate(if objective == Objective::Seq2Seq { end } else { real });
            Ok(labels)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_evidence::format::choices::Choices;

    fn baseline() -> BaselineWindows {
        let arm = |ids: &[u64], first: u32| ReplayArm {
            window_ids: ids.to_vec(),
            input_ids: ids.iter().map(|i| vec![first, *i as u32, 5, 0]).collect(),
            attention_masks: ids.iter().map(|_| vec![1, 1, 1, 0]).collect(),
            labels: None,
            examples: None,
        };
        let objective = Objective::Causal;
        BaselineWindows {
            tokenizer_hash: None,
            tokenizer: None,
            objective,
            preview: arm(&[0, 1], 3),
            final_: arm(&[2, 7], 4),
        }
    }

    /// The same with labels.
    fn labelled(objective: Objective, row: [i64; 4]) -> BaselineWindows {
        let mut windows = BaselineWindows { objective, ..baseline() };
        for arm in [&mut windows.preview, &mut windows.final_] {
            arm.labels = Some(vec![row.to_vec(); 2]);
        }
        windows
    }

    #[test]
    fn labels_lose_their_padding() {
        for (objective, row, expected) in [
            (Objective::Masked, [-100, 6, -100, -100], vec![-100, 6, -100]),
            (Objective::Seq2Seq, [6, 2, -100, -100], vec![6, 2]),
            (Objective::Seq2Seq, [6, 2, 1, 1], vec![6, 2, 1, 1]),
        ] {
            let windows = replay(labelled(objective, row), 4, 8).expect("accepted");
            assert_eq!(windows.final_.windows[0].labels, Some(expected));
        }
        for (objective, row, word) in [
            (Objective::Masked, [-100; 4], "predict no token"),
            (Objective::Masked, [-100, -100, -100, 6], "predict padding"),
            (Objective::Masked, [-100, 8, -100, -100], "contain 8"),
            (Objective::Masked, [-100, -5, -100, -100], "contain -5"),
            (Objective::Seq2Seq, [6, -100, 2, -100], "leave out a token"),
            (Objective::Causal, [6, -100, 2, -100], "has 2 rows of labels"),
        ] {
            let message = replay(labelled(objective, row), 4, 8).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
        let without = BaselineWindows { objective: Objective::Masked, ..baseline() };
        assert!(replay(without, 4, 8).expect_err("no labels").to_string().contains("has 0 rows of labels"));
    }

    #[test]
    fn choices_are_the_last_tokens_of_windows() {
        let example = |choices, answer| Choices { choices, answer };
        let choices = |row: [i64; 4], preview: Choices, final_: Option<Choices>| {
            let mut windows = labelled(Objective::Causal, row);
            windows.preview.input_ids = vec![vec![3, 0, 5, 0], vec![3, 1, 5, 0]];
            windows.final_.input_ids = vec![vec![4, 2, 5, 0], vec![4, 7, 5, 0]];
            windows.preview.examples = Some(vec![preview]);
            windows.final_.examples = final_.map(|example| vec![example]);
            replay(windows, 4, 8)
        };
        let two = example(2, 1);
        let windows = choices([-100, -100, 5, -100], two, Some(two)).expect("accepted");
        assert_eq!(windows.final_.examples, Some(vec![two]));
        assert_eq!(windows.final_.windows[1].labels, Some(vec![-100, -100, 5]));
        for (row, preview, final_, word) in [
            ([-100, -100, 6, -100], two, Some(two), "are not the last tokens"),
            ([-100, 1, -100, -100], two, Some(two), "are not the last tokens"),
            ([3, 1, 5, -100], two, Some(two), "are not the last tokens"),
            ([-100, -100, 5, 0], two, Some(two), "predict padding"),
            ([-100, -100, 5, -100], example(3, 1), Some(two), "1 examples have 3 choices"),
            ([-100, -100, 5, -100], example(2, 2), Some(two), "the answer 2"),
            ([-100, -100, 5, -100], two, None, "examples with choices, the other one not"),
        ] {
            let message = choices(row, preview, final_).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn accepts_valid_windows_unchanged() {
        let w = replay(baseline(), 4, 8).expect("accepted");
        assert_eq!(w.final_.ids, [2, 7]);
        assert_eq!(w.final_.windows[1], Window { ids: vec![4, 7, 5, 0], real: 3, labels: None });
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
