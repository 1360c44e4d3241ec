//! Takes parameters out of a checkpoint by name and shape, and records which were taken.

use std::collections::BTreeSet;

use invarlock_evidence::run_report::InvariantChecks;
use sha2::{Digest as _, Sha256};

use super::matrix::{Layout, Matrix};
use crate::checkpoint::{Checkpoint, Tensor};
use invarlock_error::{Error, Result, bail};

/// Name of the output projection.
const HEAD: &str = "lm_head.weight";

/// Takes the parameters of one model.
#[derive(Debug)]
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    /// Prefix of names in this checkpoint.
    stored_prefix: &'static str,
    /// Prefix of names in Hugging Face's model.
    prefix: &'static str,
    taken: Vec<(String, Tensor<'a>)>,
    taken_names: BTreeSet<String>,
    norms: Vec<String>,
}

impl<'a> Loader<'a> {
    /// A loader of names with `prefix`. A checkpoint that was saved from the bare model has names without it: such a
    /// checkpoint contains `probe` (a name without the prefix) as it is.
    pub fn new(checkpoint: &'a Checkpoint, prefix: &'static str, probe: &str) -> Self {
        let bare =
            !checkpoint.tensors.contains(&format!("{prefix}{probe}")) && checkpoint.tensors.contains(probe);
        let stored_prefix = if bare { "" } else { prefix };
        Self {
            checkpoint,
            stored_prefix,
            prefix,
            taken: Vec::new(),
            taken_names: BTreeSet::new(),
            norms: Vec::new(),
        }
    }

    fn take(&mut self, stored: String, name: String, shape: &[usize]) -> Result<Tensor<'a>> {
        let Some(tensor) = self.checkpoint.tensors.get(&stored)? else {
            bail!(
                Input,
                "{}: tensor {stored}, which config.json requires, is missing",
                self.checkpoint.directory().display()
            );
        };
        if tensor.shape != shape {
            bail!(
                Input,
                "{}: tensor {stored} has shape {:?}, but config.json requires {shape:?}",
                self.checkpoint.directory().display(),
                tensor.shape
            );
        }
        self.taken_names.insert(stored);
        self.taken.push((name, tensor));
        Ok(tensor)
    }

    fn take_prefixed(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
        self.take(format!("{}{name}", self.stored_prefix), format!("{}{name}", self.prefix), shape)
    }

    /// A weight matrix.
    pub fn matrix(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        layout: Layout,
    ) -> Result<Matrix<'a>> {
        let shape = match layout {
            Layout::InOut => [inputs, outputs],
            Layout::OutIn => [outputs, inputs],
        };
        Ok(Matrix::new(self.take_prefixed(name, &shape)?, inputs, outputs, layout))
    }

    /// A vector, converted to single precision.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let tensor = self.take_prefixed(name, &[length])?;
        let mut values = vec![0.0; length];
        Matrix::new(tensor, length, 1, Layout::OutIn).row(0, &mut values);
        Ok(values)
    }

    /// Records the name of a normalisation module for the invariants guard.
    pub fn norm(&mut self, module: &str) {
        self.norms.push(format!("{}{module}", self.prefix));
    }

    /// The output projection; none when it is tied to the embedding.
    ///
    /// Where the configuration ties them and the file contains both, they must be equal: releases of transformers
    /// disagree about which of two different tensors counts.
    pub fn lm_head(
        &mut self,
        tied: bool,
        embedding: &str,
        inputs: usize,
        vocab_size: usize,
    ) -> Result<Option<Matrix<'a>>> {
        if !tied {
            let tensor = self.take(HEAD.to_owned(), HEAD.to_owned(), &[vocab_size, inputs])?;
            return Ok(Some(Matrix::new(tensor, inputs, vocab_size, Layout::OutIn)));
        }
        if let Some(head) = self.checkpoint.tensors.get(HEAD)? {
            let embedding = format!("{}{embedding}", self.stored_prefix);
            let equal = self
                .checkpoint
                .tensors
                .get(&embedding)?
                .is_some_and(|e| e.bytes == head.bytes && e.dtype == head.dtype);
            if !equal {
                let name = self.checkpoint.directory().display();
                return Err(Error::input(format!(
                    "{name}: config.json ties {HEAD} to {embedding}, but the checkpoint contains both and they differ"
                ))
                .with_hint("set `tie_word_embeddings` to false, or remove one of the two tensors"));
            }
            self.taken_names.insert(HEAD.to_owned());
        }
        Ok(None)
    }

    /// The parameters that were taken and the tensors that were not. `embeddings` are module names and their sizes.
    pub fn finish(self, tied: bool, vocab_size: usize, embeddings: &[(&str, usize)]) -> Loaded<'a> {
        let buffers = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"];
        let unused = self.checkpoint.tensors.names().filter(|n| !self.taken_names.contains(*n));
        let unused = unused.filter(|n| !buffers.iter().any(|b| n.ends_with(b))).map(str::to_owned).collect();

        let mut lines: Vec<String> = self.taken.iter().map(|(n, t)| format!("{n}:{:?}\n", t.shape)).collect();
        lines.sort_unstable();
        let digest = Sha256::digest(lines.concat());
        let mut layer_norm_paths = self.norms;
        layer_norm_paths.sort_unstable();
        let elements = |t: &Tensor<'_>| (t.bytes.len() / t.dtype.size()) as u64;
        let checks = InvariantChecks {
            parameter_count: self.taken.iter().map(|(_, t)| elements(t)).sum(),
            layer_norm_paths,
            embedding_vocab_sizes: embeddings
                .iter()
                .map(|(n, size)| (format!("{}{n}", self.prefix), *size as u64))
                .collect(),
            config_vocab_size: Some(vocab_size as u64),
            weight_tying: Some(tied),
            structure_hash: hex::encode(&digest[..8]),
            non_finite: Vec::new(),
        };
        Loaded { checks, parameters: self.taken, unused }
    }
}

/// The result of a [`Loader`].
#[derive(Debug)]
pub struct Loaded<'a> {
    /// Values that the invariants guard compares.
    pub checks: InvariantChecks,
    /// Parameters by their names in Hugging Face's model.
    pub parameters: Vec<(String, Tensor<'a>)>,
    /// Tensors of the checkpoint that were not taken.
    pub unused: Vec<String>,
}
