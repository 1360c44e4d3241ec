//! Takes parameters out of a checkpoint by name and shape, and records which were taken.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use invarlock_evidence::run_report::InvariantChecks;
use sha2::{Digest as _, Sha256};

use super::adapter::Lora;
use super::attention::Attention;
use super::families::{OTHER_HEADS, OTHER_MODALITIES};
use super::matrix::{Layout, Linear, Matrix};
use super::modules::{Elements, Module};
use super::norm::Norm;
use super::{Arithmetic, spec};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::math::norm;
use crate::weights::{self, Floats, Format, Pages, Parts, RESIDENT, Wanted};
use invarlock_error::{Result, bail};

/// Takes the parameters of one model.
#[derive(Debug)]
pub struct Loader<'a, 'f> {
    parts: Parts<'a>,
    /// How weights are quantised.
    format: Option<&'f dyn Format>,
    adapter: Option<&'f Lora>,
    arithmetic: Arithmetic,
    /// Prefix of names in this checkpoint.
    stored_prefix: String,
    /// Prefix of the output projection in this checkpoint.
    head_prefix: &'static str,
    /// Prefix of names in Hugging Face's model.
    prefix: &'static str,
    /// Names and shapes of parameters in Hugging Face's model, as if none were quantised.
    parameters: BTreeMap<String, Vec<usize>>,
    norms: Vec<String>,
    modules: Vec<Module<'a>>,
    /// The step of the forward pass whose parameters are taken.
    pages: Arc<Pages<'a>>,
}

/// A parameter's names.
struct Names {
    /// In the checkpoint.
    stored: String,
    /// In Hugging Face's model.
    name: String,
}

impl<'a, 'f> Loader<'a, 'f> {
    /// A loader of names with `prefix`. A checkpoint contains names that start with `probe` (without the prefix) after one of several
    /// prefixes: that of Hugging Face's model, that of the bare model, which lacks the first part, or that of a text model in a model with
    /// images.
    pub fn new(
        checkpoint: &'a Checkpoint,
        format: Option<&'f dyn Format>,
        adapter: Option<&'f Lora>,
        arithmetic: Arithmetic,
        (prefix, probe): (&'static str, &str),
    ) -> Self {
        let bare = prefix.split_once('.').map_or("", |(_, rest)| rest);
        let stored = [
            (prefix.to_owned(), ""),
            (bare.to_owned(), ""),
            (format!("language_model.{prefix}"), "language_model."),
            (format!("model.language_model.{bare}"), ""),
        ];
        let contains =
            |(prefix, _): &(String, &str)| checkpoint.tensors.contains_prefix(&format!("{prefix}{probe}"));
        let (stored_prefix, head_prefix) =
            stored.into_iter().find(contains).unwrap_or_else(|| (prefix.to_owned(), ""));
        Self {
            parts: Parts::new(checkpoint),
            pages: Arc::new(Pages::new(&checkpoint.tensors, RESIDENT)),
            format,
            adapter,
            arithmetic,
            stored_prefix,
            head_prefix,
            prefix,
            parameters: BTreeMap::new(),
            norms: Vec::new(),
            modules: Vec::new(),
        }
    }

    /// Takes the parameters of one step of the forward pass with `take`, and returns its weights as well.
    pub fn step<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Arc<Pages<'a>>)> {
        let pages = Arc::new(Pages::new(self.parts.tensors(), RESIDENT));
        let outer = mem::replace(&mut self.pages, Arc::clone(&pages));
        let first = self.parts.count();
        let taken = take(self);
        self.pages = outer;
        pages.set(self.parts.taken_since(first));
        Ok((taken?, pages))
    }

    /// The weights of the last step: those that belong to no other step. `steps` are the others.
    pub fn last_step(&self, steps: &[Arc<Pages<'a>>]) -> Arc<Pages<'a>> {
        let others: BTreeSet<*const u8> = steps.iter().flat_map(|step| step.starts()).collect();
        let own = self.parts.taken_since(0).into_iter().filter(|bytes| !others.contains(&bytes.as_ptr()));
        self.pages.set(own.collect());
        Arc::clone(&self.pages)
    }

    /// The attention of a layer, with the arithmetic of this model.
    pub fn attention(&self, attention: &Attention) -> Attention {
        Attention { products: self.arithmetic.products, ..attention.clone() }
    }

    /// The name of a module in Hugging Face's model.
    pub fn module(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn prefixed(&self, name: &str) -> Names {
        Names { stored: format!("{}{name}", self.stored_prefix), name: format!("{}{name}", self.prefix) }
    }

    /// The names of a tensor of the output projection.
    fn of_head(&self, name: &str) -> Names {
        Names { stored: format!("{}{name}", self.head_prefix), name: name.to_owned() }
    }

    /// A tensor of plain numbers, or the slice of one that holds one for each expert.
    fn plain(&mut self, names: &Names, shape: &[usize], slice: Option<(usize, usize)>) -> Result<Floats<'a>> {
        let whole = whole(shape, slice);
        let tensor = self.parts.take(&names.stored, &[&whole])?;
        self.parameters.insert(names.name.clone(), whole);
        let (index, count) = slice.unwrap_or((0, 1));
        let size = tensor.bytes.len() / count;
        let tensor = Tensor { bytes: &tensor.bytes[index * size..(index + 1) * size], ..tensor };
        self.parts.as_floats(&names.stored, tensor)
    }

    /// A weight matrix with the change that an adapter makes.
    fn weight(&mut self, names: &Names, spec: &spec::Linear, may_be_plain: bool) -> Result<Matrix<'a>> {
        let weight = self.stored_weight(names, spec, may_be_plain)?;
        let weight = match (self.adapter, names.name.strip_suffix(".weight")) {
            (Some(adapter), Some(module)) => {
                adapter.apply(module, weight, &mut self.parts, self.arithmetic.products)?
            }
            _ => weight,
        };
        let weight = weight.in_step(&self.pages).with_products(self.arithmetic.products);
        self.add_module(&names.name, spec.slice, Elements::Stored(weight.clone()));
        Ok(weight)
    }

    /// Remembers the weights of a parameter's module.
    fn add_module(&mut self, parameter: &str, slice: Option<(usize, usize)>, weights: Elements<'a>) {
        let name = parameter.strip_suffix(".weight").unwrap_or(parameter);
        let name = match slice {
            Some((index, _)) => format!("{name}[{index}]"),
            None => name.to_owned(),
        };
        self.modules.push(Module { name, weights });
    }

    /// A weight matrix, quantised or plain.
    fn stored_weight(
        &mut self,
        names: &Names,
        spec: &spec::Linear,
        may_be_plain: bool,
    ) -> Result<Matrix<'a>> {
        let spec::Linear { inputs, outputs, layout, slice, .. } = *spec;
        let shape = layout.shape(inputs, outputs);
        if let Some(format) = self.format {
            let module = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_owned();
            // The configuration of a model with images has names as they are stored.
            let wrapped = names.stored.contains("language_model.");
            let wanted = Wanted {
                module: &module(if wrapped { &names.stored } else { &names.name }),
                stored: &module(&names.stored),
                inputs,
                outputs,
                layout,
                slice,
                may_be_plain,
            };
            if let Some(matrix) = weights::quantised(format, &wanted, &mut self.parts)? {
                self.parameters.insert(names.name.clone(), whole(&shape, slice));
                let rounding = match self.arithmetic.weight_only {
                    true => None,
                    false => format.inputs(&wanted, &mut self.parts)?,
                };
                return Ok(Matrix::quantised(matrix, rounding, inputs, outputs));
            }
        }
        Ok(Matrix::new(self.plain(names, &shape, slice)?, inputs, outputs, layout))
    }

    /// A weight matrix that formats do not quantise.
    pub fn matrix(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        layout: Layout,
    ) -> Result<Matrix<'a>> {
        let names = self.prefixed(name);
        let floats = self.plain(&names, &layout.shape(inputs, outputs), None)?;
        let matrix = Matrix::new(floats, inputs, outputs, layout).with_products(self.arithmetic.products);
        self.add_module(&names.name, None, Elements::Stored(matrix.clone()));
        Ok(matrix)
    }

    /// Takes tensors that are named like the output projection, without the prefix of others.
    pub fn beside<T>(&mut self, take: impl FnOnce(&mut Self) -> T) -> T {
        let stored_prefix = mem::replace(&mut self.stored_prefix, self.head_prefix.to_owned());
        let prefix = mem::take(&mut self.prefix);
        let taken = take(self);
        (self.stored_prefix, self.prefix) = (stored_prefix, prefix);
        taken
    }

    /// Whether the checkpoint contains a tensor that is named like the output projection.
    pub fn contains_beside(&self, name: &str) -> bool {
        self.parts.contains(&self.of_head(name).stored)
    }

    /// Whether the checkpoint contains the tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.parts.contains(&self.prefixed(name).stored)
    }

    /// A linear layer.
    pub fn linear(&mut self, spec: &spec::Linear) -> Result<Linear<'a>> {
        self.linear_layer(spec, false)
    }

    /// A linear layer that formats may leave plain without a word: a router, or a gate with one output.
    pub fn router(&mut self, spec: &spec::Linear) -> Result<Linear<'a>> {
        self.linear_layer(spec, true)
    }

    fn linear_layer(&mut self, spec: &spec::Linear, may_be_plain: bool) -> Result<Linear<'a>> {
        let weight = self.weight(&self.prefixed(&spec.weight), spec, may_be_plain)?;
        let bias = match &spec.bias {
            Some(bias) => {
                Some(all(&self.plain(&self.prefixed(bias), &[spec.outputs], spec.slice)?, spec.outputs))
            }
            None => None,
        };
        let module = self.module(spec.weight.strip_suffix(".weight").unwrap_or(&spec.weight));
        Ok(Linear { module, weight, bias })
    }

    /// A tensor of a known shape, converted to single precision.
    pub fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let floats = self.plain(&self.prefixed(name), shape, None)?;
        Ok(all(&floats, shape.iter().product()))
    }

    /// The weights of an embedding, row by row, converted to single precision.
    pub fn table(&mut self, module: &str, rows: usize, columns: usize) -> Result<Vec<f32>> {
        let values = self.values(&format!("{module}.weight"), &[rows, columns])?;
        self.add_module(&self.module(module), None, Elements::Dense { values: values.clone(), columns });
        Ok(values)
    }

    /// A normalisation of `width` elements.
    pub fn norm(&mut self, spec: &spec::Norm, width: usize) -> Result<Norm> {
        Ok(Norm::new(self.module(&spec.module), self.norm_of_shape(spec, &[width])?))
    }

    /// A normalisation whose parameters have a shape.
    pub fn norm_of_shape(&mut self, spec: &spec::Norm, shape: &[usize]) -> Result<norm::Norm> {
        let spec::Norm { module, kind, epsilon } = spec;
        let count = shape.iter().product();
        self.norms.push(self.module(module));
        let weight = match kind {
            spec::NormKind::LayerPlain => vec![1.0; count],
            _ => self.norm_values(module, ["weight", "gamma"], shape)?,
        };
        let bias = match kind {
            spec::NormKind::Layer => self.norm_values(module, ["bias", "beta"], shape)?,
            _ => vec![0.0; count],
        };
        let weight = match kind {
            spec::NormKind::RmsPlusOne => weight.into_iter().map(|w| 1.0 + w).collect(),
            _ => weight,
        };
        self.add_module(&self.module(module), None, Elements::row(weight.clone()));
        let epsilon = *epsilon;
        Ok(match kind {
            spec::NormKind::Rms | spec::NormKind::RmsPlusOne => norm::Norm::Rms { weight, epsilon },
            _ => norm::Norm::Layer { weight, bias, epsilon },
        })
    }

    /// A parameter of a normalisation, which has its second name in checkpoints of BERT from 2018.
    fn norm_values(&mut self, module: &str, names: [&str; 2], shape: &[usize]) -> Result<Vec<f32>> {
        let [name, old] = names.map(|name| self.prefixed(&format!("{module}.{name}")));
        let renamed = !self.parts.contains(&name.stored) && self.parts.contains(&old.stored);
        let names = if renamed { Names { stored: old.stored, name: name.name } } else { name };
        Ok(all(&self.plain(&names, shape, None)?, shape.iter().product()))
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
        let (tokens, projection) = self.stored_embeddings(embedding, head, vocab_size)?;
        if projection.is_none() {
            // The guards compare the projection with that of another checkpoint, which may store it.
            self.add_module(head.module, None, Elements::Stored(tokens.clone()));
        }
        Ok((tokens, projection))
    }

    /// The token embedding, and the output projection where it is another matrix.
    fn stored_embeddings(
        &mut self,
        embedding: &spec::Embedding,
        head: &spec::Head,
        vocab_size: usize,
    ) -> Result<(Matrix<'a>, Option<Matrix<'a>>)> {
        let linear = |module: &str| spec::Linear::new(module, embedding.width, vocab_size, false);
        let projection = linear(head.module);
        let (tokens, names) = self.token_names(embedding, linear)?;
        let head_names = self.of_head(&projection.weight);
        if !head.tied {
            let tokens = self.weight(&names, &tokens, true)?;
            return Ok((tokens, Some(self.weight(&head_names, &projection, true)?)));
        }
        let stored_head = self.parts.get(&head_names.stored)?;
        if stored_head.is_some() && !self.parts.contains(&names.stored) {
            let both = Names { name: names.name, ..head_names };
            return Ok((self.weight(&both, &projection, true)?, None));
        }
        let tokens = self.weight(&names, &tokens, true)?;
        match stored_head.zip(self.parts.get(&names.stored)?) {
            Some((head, same)) if head.bytes != same.bytes || head.dtype != same.dtype => {
                Ok((tokens, Some(self.weight(&head_names, &projection, true)?)))
            }
            Some(_) => {
                self.parts.skip(&head_names.stored);
                Ok((tokens, None))
            }
            None => Ok((tokens, None)),
        }
    }

    /// The token embedding and its names: those of a copy where only that is stored. An error when a copy differs.
    fn token_names(
        &mut self,
        embedding: &spec::Embedding,
        linear: impl Fn(&str) -> spec::Linear,
    ) -> Result<(spec::Linear, Names)> {
        let tokens = linear(embedding.tokens);
        let mut names = self.prefixed(&tokens.weight);
        for copy in embedding.copies {
            let copy = self.prefixed(&format!("{copy}.weight")).stored;
            let Some(stored) = self.parts.get(&copy)? else { continue };
            match self.parts.get(&names.stored)? {
                None => names.stored = copy,
                Some(same) if same.bytes == stored.bytes && same.dtype == stored.dtype => {
                    self.parts.skip(&copy);
                }
                Some(_) => bail!(
                    Unsupported,
                    "{}: tensor {copy} differs from {}; models with different embeddings of source and target are not \
                     supported",
                    self.parts.place(),
                    names.stored
                ),
            }
        }
        Ok((tokens, names))
    }

    /// The bias of the output projection.
    pub fn head_bias(
        &mut self,
        head: &spec::Head,
        tied: bool,
        vocab_size: usize,
    ) -> Result<Option<Vec<f32>>> {
        let own = self.of_head(&format!("{}.bias", head.module));
        let take = |loader: &mut Self, names: &Names| {
            Ok(Some(all(&loader.plain(names, &[vocab_size], None)?, vocab_size)))
        };
        match head.bias {
            spec::HeadBias::None => Ok(None),
            spec::HeadBias::Module => take(self, &own),
            spec::HeadBias::Buffer(name) => {
                let name = self.of_head(name).stored;
                if !self.parts.contains(&name) {
                    return Ok(None);
                }
                let bias = self.parts.floats(&name, &[&[1, vocab_size]])?;
                Ok(Some(all(&bias, vocab_size)))
            }
            spec::HeadBias::Shared(name) => {
                let names = self.of_head(name);
                let shared = take(self, &names)?;
                match self.parts.get(&own.stored)?.zip(self.parts.get(&names.stored)?) {
                    None if tied => Ok(shared),
                    Some((stored, same))
                        if tied && stored.bytes == same.bytes && stored.dtype == same.dtype =>
                    {
                        self.parts.skip(&own.stored);
                        Ok(shared)
                    }
                    // As the projection itself: two different tensors are not tied.
                    _ => take(self, &own),
                }
            }
        }
    }

    /// The parameters that were taken and the tensors that were not. `embeddings` are module names and their sizes.
    pub fn finish(self, tied: bool, vocab_size: usize, embeddings: &[(&str, usize)]) -> Loaded<'a> {
        // Masks and frequencies, which older releases of transformers stored.
        let buffers = [
            ".attn.bias",
            ".attention.bias",
            ".masked_bias",
            ".rotary_emb.inv_freq",
            ".position_ids",
            "encoder.version",
            "decoder.version",
            // T5 stores it and has no biases there.
            ".EncDecAttention.relative_attention_bias.weight",
        ];
        let unused = self.parts.rest();
        let other = |name: &str| {
            let bare = name.strip_prefix(self.prefix).unwrap_or(name);
            let name = name.strip_prefix("model.").unwrap_or(name);
            OTHER_MODALITIES.iter().any(|prefix| name.starts_with(prefix))
                || OTHER_HEADS.iter().any(|prefix| bare.starts_with(prefix))
        };
        let expected = |name: &&str| !other(name) && !buffers.iter().any(|b| name.ends_with(b));
        let unused = unused.filter(expected).map(str::to_owned).collect();

        let mut lines: Vec<String> =
            self.parameters.iter().map(|(n, shape)| format!("{n}:{shape:?}\n")).collect();
        lines.sort_unstable();
        let digest = Sha256::digest(lines.concat());
        let mut layer_norm_paths = self.norms;
        layer_norm_paths.sort_unstable();
        // Layers may share their modules.
        layer_norm_paths.dedup();
        let elements = |shape: &Vec<usize>| shape.iter().product::<usize>() as u64;
        let checks = InvariantChecks {
            parameter_count: self.parameters.values().map(elements).sum(),
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
        // Layers may share their modules.
        let mut seen = BTreeSet::new();
        let mut modules = self.modules;
        modules.retain(|module| seen.insert(module.name.clone()));
        Loaded { checks, tensors: self.parts.into_taken(), modules, unused }
    }
}

/// The shape of the tensor that holds a slice of this shape for each expert.
fn whole(shape: &[usize], slice: Option<(usize, usize)>) -> Vec<usize> {
    slice.iter().map(|(_, count)| *count).chain(shape.iter().copied()).collect()
}

/// All elements in single precision.
fn all(floats: &Floats<'_>, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    floats.read(0, &mut values);
    values
}

/// The result of a [`Loader`].
#[derive(Debug)]
pub struct Loaded<'a> {
    /// Values that the invariants guard compares.
    pub checks: InvariantChecks,
    /// The stored tensors of parameters.
    pub tensors: Vec<(String, Tensor<'a>)>,
    /// The weights by module, in the order in which they were taken.
    pub modules: Vec<Module<'a>>,
    /// Tensors of the checkpoint that were not taken.
    pub unused: Vec<String>,
}
