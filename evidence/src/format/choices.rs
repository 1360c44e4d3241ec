//! Examples with choices. Each choice is a window: the prompt, and the choice as what is predicted. The windows of an example follow each
//! other, in the order of its choices.

use serde::{Deserialize, Serialize};

/// The most choices of an example.
pub const MAX_CHOICES: usize = 256;

/// An example: how many windows belong to it, and which of them is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// Number of choices, 2 or more.
    pub choices: usize,
    /// Position of the right choice, from 0.
    pub answer: usize,
}

impl Choices {
    /// Whether this choice alone has the smallest loss. `losses` are those of the example's windows, each of a whole choice.
    fn is_answered(self, losses: &[f64]) -> bool {
        let Some(right) = losses.get(self.answer) else { return false };
        let mut others = losses.iter().enumerate().filter(|(place, _)| *place != self.answer);
        others.all(|(_, loss)| right < loss)
    }
}

/// Splits a list with an element for each window into the parts of the examples, which [`check`] accepts.
pub fn parts<'a, T>(examples: &'a [Choices], windows: &'a [T]) -> impl Iterator<Item = &'a [T]> {
    let mut rest = windows;
    examples.iter().map(move |example| {
        let (part, others) = rest.split_at(example.choices.min(rest.len()));
        rest = others;
        part
    })
}

/// Why these examples do not have `windows` windows, or why one of them is none.
///
/// # Errors
/// The first fault, in words.
pub fn check(examples: &[Choices], windows: usize) -> Result<(), String> {
    let mut sum = 0usize;
    for (place, Choices { choices, answer }) in examples.iter().enumerate() {
        if !(2..=MAX_CHOICES).contains(choices) {
            return Err(format!("example {place} has {choices} choices; supported: 2 to {MAX_CHOICES}"));
        }
        if answer >= choices {
            return Err(format!("example {place} has {choices} choices, and the answer {answer}"));
        }
        sum += choices;
    }
    match sum == windows && sum > 0 {
        true => Ok(()),
        false => {
            Err(format!("{} examples have {sum} choices, but there are {windows} windows", examples.len()))
        }
    }
}

/// Whether the right choice of each example is the most likely one: the sum of its losses is smaller than that of every other choice. An
/// example in which another choice is equally likely is not answered. `losses` are means of `tokens` predicted tokens.
pub fn answered(examples: &[Choices], losses: &[f64], tokens: &[u64]) -> Vec<bool> {
    let sums: Vec<f64> = losses.iter().zip(tokens).map(|(loss, tokens)| loss * *tokens as f64).collect();
    let parts = parts(examples, &sums);
    examples.iter().zip(parts).map(|(example, losses)| example.is_answered(losses)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Choices = Choices { choices: 2, answer: 0 };

    #[test]
    fn the_most_likely_choice_counts_whatever_its_length() {
        let last = Choices { choices: 3, answer: 2 };
        // Sums 4 and 6; 3, 2 and 1.
        let (losses, tokens) = ([4.0, 2.0, 1.0, 2.0, 0.5], [1, 3, 3, 1, 2]);
        assert_eq!(answered(&[FIRST, last], &losses, &tokens), [true, true]);
        assert_eq!(answered(&[FIRST, FIRST], &[2.0, 1.0, 1.0, 2.0], &[1; 4]), [false, true]);
    }

    #[test]
    fn equally_likely_choices_are_no_answer() {
        assert_eq!(answered(&[FIRST], &[2.0, 1.0], &[1, 2]), [false]);
        assert_eq!(answered(&[Choices { choices: 3, answer: 1 }], &[3.0, 1.0, 3.0], &[1; 3]), [true]);
    }

    #[test]
    fn examples_must_have_all_windows() {
        assert_eq!(check(&[FIRST, FIRST], 4), Ok(()));
        for (examples, windows, word) in [
            (vec![FIRST], 3, "1 examples have 2 choices, but there are 3 windows"),
            (vec![], 0, "0 examples"),
            (vec![Choices { choices: 1, answer: 0 }], 1, "1 choices"),
            (vec![Choices { choices: 257, answer: 0 }], 257, "257 choices"),
            (vec![Choices { choices: 2, answer: 2 }], 2, "the answer 2"),
            (vec![Choices { choices: usize::MAX, answer: 0 }, FIRST], 2, "supported: 2 to 256"),
        ] {
            let why = check(&examples, windows).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }
}
