//! Takes parameters out of a checkpoint by name and shape, and records which were taken.

use std::collections::BTreeSet;

use invarlock_evidence::run_report::InvariantChecks;
use sha2::{Digest as _, Sha256};

use super::families::OTHER_MODALITIES;
use super::matrix::{Layout, Linear, Matrix};
use super::spec;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::math::norm::Norm;
use invarlock_error::{Result, bail};

/// Takes the parameters of one model.
#[derive(Debug)]
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    /// Prefix of names in this checkpoint.
    stored_prefix: String,
    /// Prefix of the output projection in this checkpoint.
    head_prefix: &'static str,
    /// Prefix of names in Hugging Face's model.
    prefix: &'static str,
    taken: Vec<(String, Tensor<'a>)>,
    taken_names: BTreeSet<String>,
    norms: Vec<String>,
}

impl<'a> Loader<'a> {
    /// A loader of names with `prefix`. A checkpoint contains `probe`, a name without the prefix, after one of several prefixes: that of
    /// Hugging Face's model, that of the bare model, which lacks the first part, or that of a text model in a model with images.
    pub fn new(checkpoint: &'a Checkpoint, prefix: &'static str, probe: &str) -> Self {
        let bare = prefix.split_once('.').map_or("", |(_, rest)| rest);
        let stored = [
            (prefix.to_owned(), ""),
            (bare.to_owned(), ""),
            (format!("language_model.{prefix}"), "language_model."),
            (format!("model.language_model.{bare}"), ""),
        ];
        let contains =
            |(prefix, _): &(String, &str)| checkpoint.tensors.contains(&format!("{prefix}{probe}"));
        let (stored_prefix, head_prefix) =
            stored.into_iter().find(contains).unwrap_or_else(|| (prefix.to_owned(), ""));
        Self {
            checkpoint,
            stored_prefix,
            head_prefix,
            prefix,
            taken: Vec::new(),
            taken_names: BTreeSet::new(),
            norms: Vec::new(),
        }
    }

    fn take(&mut self, stored: String, name: String, shape: &[usize]) -> Result<Tensor<'a>> {
        let Some(tensor) = self.checkpoint.tensors.get(&stored)? else {
            let missing = match self.checkpoint.tensors.is_absent(&stored) {
                true => "the index names it, but no file contains it",
                false => "it is missing",
            };
            bail!(
                Input,
                "{}: config.json requires the tensor {stored}: {missing}",
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
        if self.taken_names.insert(stored) {
            self.taken.push((name, tensor));
        }
        Ok(tensor)
    }

    fn take_prefixed(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
        self.take(format!("{}{name}", self.stored_prefix), format!("{}{name}", self.prefix), shape)
    }

    /// A tensor of this shape, or a slice of a tensor that has one for each expert.
    fn take_slice(
        &mut self,
        name: &str,
        shape: &[usize],
        slice: Option<(usize, usize)>,
    ) -> Result<Tensor<'a>> {
        let Some((index, count)) = slice else { return self.take_prefixed(name, shape) };
        let tensor = self.take_prefixed(name, &[&[count], shape].concat())?;
        let size = tensor.bytes.len() / count;
        Ok(Tensor { bytes: &tensor.bytes[index * size..(index + 1) * size], ..tensor })
    }

    /// A weight matrix.
    pub fn matrix(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        layout: Layout,
    ) -> Result<Matrix<'a>> {
        let tensor = self.take_prefixed(name, &layout.shape(inputs, outputs))?;
        Ok(Matrix::new(tensor, inputs, outputs, layout))
    }

    /// A linear layer.
    pub fn linear(&mut self, spec: &spec::Linear) -> Result<Linear<'a>> {
        let spec::Linear { weight, bias, inputs, outputs, layout, slice } = spec;
        let tensor = self.take_slice(weight, &layout.shape(*inputs, *outputs), *slice)?;
        let bias = match bias {
            Some(bias) => Some(values(self.take_slice(bias, &[*outputs], *slice)?)),
            None => None,
        };
        Ok(Linear { weight: Matrix::new(tensor, *inputs, *outputs, *layout), bias })
    }

    /// A tensor of a known shape, converted to single precision.
    pub fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(values(self.take_prefixed(name, shape)?))
    }

    /// A normalisation of `width` elements.
    pub fn norm(&mut self, spec: &spec::Norm, width: usize) -> Result<Norm> {
        self.norm_of_shape(spec, &[width])
    }

    /// A normalisation whose parameters have a shape.
    pub fn norm_of_shape(&mut self, spec: &spec::Norm, shape: &[usize]) -> Result<Norm> {
        let spec::Norm { module, kind, epsilon } = spec;
        let count = shape.iter().product();
        self.norms.push(format!("{}{module}", self.prefix));
        let weight = match kind {
            spec::NormKind::LayerPlain => vec![1.0; count],
            _ => self.values(&format!("{module}.weight"), shape)?,
        };
        let bias = match kind {
            spec::NormKind::Layer => self.values(&format!("{module}.bias"), shape)?,
            _ => vec![0.0; count],
        };
        let epsilon = *epsilon;
        Ok(match kind {
            spec::NormKind::Rms => Norm::Rms { weight, epsilon },
            spec::NormKind::RmsPlusOne => {
                Norm::Rms { weight: weight.into_iter().map(|w| 1.0 + w).collect(), epsilon }
            }
            _ => Norm::Layer { weight, bias, epsilon },
        })
    }

    /// The token embedding and the output projection, which is absent where it is the embedding.
    ///
    /// Where the configuration ties them, one of them suffices; a checkpoint with two different ones has both, as transformers 5 does it.
    pub fn embeddings(
        &mut self,
        embedding: &spec::Embedding,
        head: &spec::Head,
        vocab_size: usize,
    ) -> Result<(Matrix<'a>, Option<Matrix<'a>>)> {
        let inputs = embedding.width;
        let shape = [vocab_size, inputs];
        let tokens = format!("{}.weight", embedding.tokens);
        let projection = format!("{}.weight", head.module);
        let stored_projection = format!("{}{projection}", self.head_prefix);
        let matrix = |tensor| Matrix::new(tensor, inputs, vocab_size, Layout::OutIn);
        if !head.tied {
            let tokens = self.take_prefixed(&tokens, &shape)?;
            let head = self.take(stored_projection, projection, &shape)?;
            return Ok((matrix(tokens), Some(matrix(head))));
        }
        let stored_tokens = format!("{}{tokens}", self.stored_prefix);
        let stored_head = self.checkpoint.tensors.get(&stored_projection)?;
        if stored_head.is_some() && !self.checkpoint.tensors.contains(&stored_tokens) {
            let both = self.take(stored_projection, format!("{}{tokens}", self.prefix), &shape)?;
            return Ok((matrix(both), None));
        }
        let tokens = self.take_prefixed(&tokens, &shape)?;
        match stored_head {
            Some(head) if head.bytes != tokens.bytes || head.dtype != tokens.dtype => {
                let head = self.take(stored_projection, projection, &shape)?;
                Ok((matrix(tokens), Some(matrix(head))))
            }
            Some(_) => {
                self.taken_names.insert(stored_projection);
                Ok((matrix(tokens), None))
            }
            None => Ok((matrix(tokens), None)),
        }
    }

    /// The bias of the output projection.
    pub fn head_bias(&mut self, head: &spec::Head, vocab_size: usize) -> Result<Vec<f32>> {
        let name = format!("{}.bias", head.module);
        Ok(values(self.take(format!("{}{name}", self.head_prefix), name, &[vocab_size])?))
    }

    /// The parameters that were taken and the tensors that were not. `embeddings` are module names and their sizes.
    pub fn finish(self, tied: bool, vocab_size: usize, embeddings: &[(&str, usize)]) -> Loaded<'a> {
        // Masks and frequencies, which older releases of transformers stored.
        let buffers = [".attn.bias", ".attention.bias", ".masked_bias", ".rotary_emb.inv_freq"];
        let unused = self.checkpoint.tensors.names().filter(|n| !self.taken_names.contains(*n));
        let other = |name: &str| {
            let name = name.strip_prefix("model.").unwrap_or(name);
            OTHER_MODALITIES.iter().any(|prefix| name.starts_with(prefix))
        };
        let expected = |name: &&str| !other(name) && !buffers.iter().any(|b| name.ends_with(b));
        let unused = unused.filter(expected).map(str::to_owned).collect();

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

/// All elements of a tensor in single precision.
fn values(tensor: Tensor<'_>) -> Vec<f32> {
    let count = tensor.bytes.len() / tensor.dtype.size();
    let mut values = vec![0.0; count];
    Matrix::new(tensor, count, 1, Layout::OutIn).row(0, &mut values);
    values
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
