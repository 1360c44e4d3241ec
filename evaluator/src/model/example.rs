//! What a model is measured on.

/// One input of a model, and what it is to predict. All tokens are below the model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example<'w> {
    /// The tokens that the model reads, without padding: at least two of a causal model, at least one of others.
    pub tokens: &'w [u32],
    /// The tokens to predict; a negative label is not predicted. A masked model needs as many as there are tokens, one for
    /// each position. A sequence-to-sequence model needs those of the target, at least one: its decoder reads them shifted
    /// by one. Labels of a causal model are as many as its tokens, and each is predicted from the tokens before it; without
    /// labels they are the tokens.
    pub labels: Option<&'w [i64]>,
}

impl<'w> Example<'w> {
    /// The tokens of a text, each predicted from those before it.
    pub fn causal(tokens: &'w [u32]) -> Self {
        Self { tokens, labels: None }
    }

    /// Rows of hidden states that the example needs in the encoder or in the decoder, whichever is more.
    pub fn rows(&self) -> usize {
        self.tokens.len().max(self.labels.map_or(0, <[i64]>::len))
    }

    /// The targets of a causal model, with the position that predicts each.
    pub(super) fn next_tokens(&self) -> Vec<Prediction> {
        let at = |(position, target)| Prediction { position, target };
        match self.labels {
            None => self.tokens.iter().skip(1).map(|id| *id as usize).enumerate().map(at).collect(),
            Some(labels) => predicted(labels.get(1..).unwrap_or_default()),
        }
    }
}

/// A token to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prediction {
    /// Position in the example whose hidden state predicts it.
    pub(super) position: usize,
    /// Its id.
    pub(super) target: usize,
}

/// The labels that are to be predicted.
pub(super) fn predicted(labels: &[i64]) -> Vec<Prediction> {
    let at = |(position, label): (usize, &i64)| {
        usize::try_from(*label).ok().map(|target| Prediction { position, target })
    };
    labels.iter().enumerate().filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(predictions: &[Prediction]) -> Vec<(usize, usize)> {
        predictions.iter().map(|p| (p.position, p.target)).collect()
    }

    #[test]
    fn negative_labels_are_not_predicted() {
        assert_eq!(pairs(&predicted(&[-100, 7, -1, 0])), [(1, 7), (3, 0)]);
        assert!(predicted(&[-100]).is_empty());
    }

    #[test]
    fn causal_labels_are_shifted_by_one() {
        let tokens = [5, 6, 7];
        assert_eq!(pairs(&Example::causal(&tokens).next_tokens()), [(0, 6), (1, 7)]);
        let labelled = Example { tokens: &tokens, labels: Some(&[5, -100, 7]) };
        assert_eq!(pairs(&labelled.next_tokens()), [(1, 7)]);
    }
}
