//! What a checkpoint's configuration says about a model, in the terms of the forward pass that all families share.
//!
//! A family turns a configuration into a [`Transformer`]; [`super::transformer`] takes the named tensors and computes.

use std::sync::Arc;

use invarlock_evidence::format::objective::Objective;

use super::attention::{Attention, Mask};
use super::matrix::Layout;
use super::profile::Profile;
use super::relative::Buckets;
use crate::math::activation::Activation;
use crate::math::rotary::Rotary;

/// A language model. Sizes are checked against [`crate::limits`] by the family.
#[derive(Debug)]
pub struct Transformer {
    pub profile: Profile,
    /// Prefix of the names of all tensors but the output projection. Checkpoints of the bare model lack it; those of a model with images
    /// have more before it.
    pub prefix: &'static str,
    pub vocab_size: usize,
    /// The part of a sequence-to-sequence model that reads the source. The other members describe its decoder.
    pub source: Option<Source>,
    pub hidden_size: usize,
    /// Largest number of tokens in a window, where the model has a limit.
    pub max_positions: Option<usize>,
    pub embedding: Embedding,
    pub layers: Vec<Layer>,
    /// Normalisation after the last layer.
    pub norm: Option<Norm>,
    pub head: Head,
}

impl Transformer {
    /// What the model predicts.
    pub fn objective(&self) -> Objective {
        let masks = |mask| self.layers.iter().any(|layer| layer.attention.module.attention.mask == mask);
        match self.source {
            Some(_) => Objective::Seq2Seq,
            None if masks(Mask::Full) => Objective::Masked,
            None => Objective::Causal,
        }
    }

    /// The start of a tensor's name that every such checkpoint has, without the prefix.
    pub fn probe(&self) -> &str {
        let weight = self.layers.first().map_or("", |layer| &layer.attention.module.output.weight);
        weight.strip_suffix("weight").unwrap_or(weight)
    }

    /// Replaces `q_proj`, `k_proj` and `v_proj` by `qkv_proj`, and fuses the projections of the feed-forward modules.
    pub fn fuse_projections(&mut self) {
        for layer in &mut self.layers {
            let module = &mut layer.attention.module;
            module.qkv = fused(&module.qkv, "q_proj", "qkv_proj");
        }
        self.fuse_gate_and_up();
    }

    /// Replaces `gate_proj` and `up_proj` by `gate_up_proj`.
    pub fn fuse_gate_and_up(&mut self) {
        for layer in &mut self.layers {
            if let FeedForward::Mlp(mlp) = &mut layer.feed_forward.module {
                mlp.input = fused(&mlp.input, "gate_proj", "gate_up_proj");
            }
        }
    }

    /// Sets the attention window of each layer.
    pub fn set_windows(&mut self, windows: Vec<Option<usize>>) {
        for (layer, window) in self.layers.iter_mut().zip(windows) {
            layer.attention.module.attention.sliding_window = window;
        }
    }
}

/// One projection with the outputs of all. Its tensors are named as those of the first, with `name` in place of `first`.
fn fused(projections: &[Linear], first: &str, name: &str) -> Vec<Linear> {
    let outputs = projections.iter().map(|linear| linear.outputs).sum();
    let rename = |tensor: &String| tensor.replace(first, name);
    let fuse = |linear: &Linear| Linear {
        weight: rename(&linear.weight),
        bias: linear.bias.as_ref().map(rename),
        outputs,
        ..linear.clone()
    };
    projections.first().map(fuse).into_iter().collect()
}

/// The encoder of a sequence-to-sequence model, and how its decoder starts.
#[derive(Debug)]
pub struct Source {
    /// Its token embedding is that of the decoder.
    pub embedding: Embedding,
    pub layers: Vec<Layer>,
    /// Normalisation after the last layer.
    pub norm: Option<Norm>,
    /// First token that the decoder reads.
    pub start_token: u32,
    /// The token that the decoder reads in place of one that is not predicted.
    pub pad_token: u32,
}

/// How token ids become the first hidden states.
#[derive(Debug)]
pub struct Embedding {
    /// Module of the token embedding.
    pub tokens: &'static str,
    /// Elements of a token's embedding.
    pub width: usize,
    /// Factor of the token's embedding.
    pub scale: f32,
    /// Modules that hold the token embedding again.
    pub copies: &'static [&'static str],
    /// Projection of the token's embedding to the hidden state, where they differ.
    pub project_in: Option<Linear>,
    /// Module and rows of the embedding of token types. All tokens have the type 0.
    pub token_types: Option<(&'static str, usize)>,
    pub positions: Option<Positions>,
    /// Normalisation of the sum.
    pub norm: Option<Norm>,
    /// Projection of the normalised sum, which has `width` elements, to the hidden state.
    pub project_sum: Option<Linear>,
}

/// Learned embeddings of positions.
#[derive(Debug)]
pub struct Positions {
    /// Module of the embedding.
    pub module: &'static str,
    /// Rows of the embedding.
    pub rows: usize,
    /// Row of position 0.
    pub first: usize,
    /// A token that has the row of its id, and is not counted in the positions of later tokens.
    pub padding: Option<usize>,
}

impl Positions {
    /// Position 0 is row 0.
    pub fn new(module: &'static str, rows: usize) -> Self {
        Self { module, rows, first: 0, padding: None }
    }
}

impl Embedding {
    /// Token embeddings as they are.
    pub fn of(tokens: &'static str, hidden_size: usize) -> Self {
        Self {
            tokens,
            width: hidden_size,
            scale: 1.0,
            copies: &[],
            project_in: None,
            token_types: None,
            positions: None,
            norm: None,
            project_sum: None,
        }
    }
}

/// How the last hidden states become logits.
#[derive(Debug)]
pub struct Head {
    /// Whether the projection is the token embedding.
    pub tied: bool,
    /// Module of the projection, without prefix, where it is not tied.
    pub module: &'static str,
    pub bias: HeadBias,
    /// Projection of the hidden state before the output projection.
    pub project_out: Option<Linear>,
    /// What masked language models do before the output projection. Its names, too, are without prefix.
    pub transform: Option<Transform>,
    /// Factor of the logits.
    pub scale: f32,
    /// Logits become limit · tanh(logits / limit).
    pub softcap: Option<f32>,
}

impl Head {
    /// `lm_head` without a bias.
    pub fn new(tied: bool) -> Self {
        Self {
            tied,
            module: "lm_head",
            bias: HeadBias::None,
            project_out: None,
            transform: None,
            scale: 1.0,
            softcap: None,
        }
    }
}

/// The bias of the output projection. Names are without prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadBias {
    None,
    /// `bias` of the projection's module.
    Module,
    /// This tensor, and `bias` of the projection's module: one parameter where the projection is tied, two where it is not, of which only the
    /// second is used.
    Shared(&'static str),
    /// This tensor of shape [1, vocabulary], which is no parameter, where it is stored.
    Buffer(&'static str),
}

/// norm(f(dense · x)).
#[derive(Debug)]
pub struct Transform {
    pub dense: Linear,
    pub activation: Activation,
    pub norm: Norm,
}

/// One layer.
#[derive(Debug)]
pub struct Layer {
    pub attention: Sublayer<SelfAttention>,
    /// Attention to the source of a sequence-to-sequence model. Such a layer is not parallel.
    pub cross: Option<Sublayer<CrossAttention>>,
    /// In a parallel layer without a normalisation of its own it has the input of the attention.
    pub feed_forward: Sublayer<FeedForward>,
    /// Whether both sublayers read the same hidden state. Otherwise the second reads the sum of the first.
    pub parallel: bool,
    /// Whether each module adds to its normalised input in place of the hidden state. Both inputs are normalised then.
    pub normed_residual: bool,
    /// Factor of what is added to the hidden state.
    pub residual_scale: f32,
}

impl Layer {
    /// A feed-forward module that reads the sum of the hidden state and the attention's output; both inputs are normalised.
    pub fn sequential(norms: [Norm; 2], attention: SelfAttention, feed_forward: FeedForward) -> Self {
        let [first, second] = norms;
        Self::of(Sublayer::normed(first, attention), Sublayer::normed(second, feed_forward))
    }

    /// A feed-forward module that reads the sum of the hidden state and the attention's output.
    pub fn of(attention: Sublayer<SelfAttention>, feed_forward: Sublayer<FeedForward>) -> Self {
        Self {
            attention,
            cross: None,
            feed_forward,
            parallel: false,
            normed_residual: false,
            residual_scale: 1.0,
        }
    }

    /// Both modules read the same normalised hidden state.
    pub fn parallel(norm: Norm, attention: SelfAttention, feed_forward: FeedForward) -> Self {
        let feed_forward = Sublayer { module: feed_forward, before: None, output: None, sum: None };
        Self { parallel: true, ..Self::of(Sublayer::normed(norm, attention), feed_forward) }
    }
}

/// A module that adds to the hidden state, and the normalisations around it.
#[derive(Debug)]
pub struct Sublayer<T> {
    pub module: T,
    /// Normalises the module's input.
    pub before: Option<Norm>,
    /// Normalises the module's output.
    pub output: Option<Norm>,
    /// Normalises the hidden state after the output was added.
    pub sum: Option<Norm>,
}

impl<T> Sublayer<T> {
    /// A module whose input is normalised.
    pub fn normed(before: Norm, module: T) -> Self {
        Self { module, before: Some(before), output: None, sum: None }
    }

    /// A module after whose output the sum is normalised.
    pub fn sum_normed(sum: Norm, module: T) -> Self {
        Self { module, before: None, output: None, sum: Some(sum) }
    }
}

/// An attention module.
#[derive(Debug)]
pub struct SelfAttention {
    pub attention: Attention,
    /// One projection, or three for queries, keys and values, whose outputs lie side by side.
    pub qkv: Vec<Linear>,
    pub output: Linear,
    /// Queries, keys and values are limited to this absolute value.
    pub clip: Option<f32>,
    /// Normalisation of queries and of keys.
    pub qk_norm: Option<QkNorm>,
    /// Rotation of queries and keys.
    pub rotary: Option<Arc<Rotary>>,
    /// Tensor with one additional score for each head.
    pub sinks: Option<String>,
    /// Biases of the scores by distance. A layer without its own has those of the layer before.
    pub relative: Option<Relative>,
}

/// Biases of attention scores by distance.
#[derive(Debug, Clone)]
pub struct Relative {
    /// Module of the biases, an embedding of buckets.
    pub module: String,
    pub buckets: Buckets,
}

/// An attention module whose keys and values are of the source.
#[derive(Debug)]
pub struct CrossAttention {
    /// Its columns are separate.
    pub attention: Attention,
    pub query: Linear,
    /// Projections for keys and for values, whose outputs lie side by side.
    pub key_value: Vec<Linear>,
    pub output: Linear,
}

impl SelfAttention {
    /// Attention without rotation or normalisation of queries and keys.
    pub fn new(attention: Attention, qkv: Vec<Linear>, output: Linear) -> Self {
        Self { attention, qkv, output, clip: None, qk_norm: None, rotary: None, sinks: None, relative: None }
    }
}

/// Normalisation of queries and keys before they are rotated.
#[derive(Debug)]
pub struct QkNorm {
    pub query: Norm,
    pub key: Norm,
    pub span: NormSpan,
}

/// Which elements a normalisation of queries or keys sees together, and its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormSpan {
    /// A head; all heads share the parameters.
    Head,
    /// A head; each head has parameters of its own, in one tensor of shape [heads, `head_dim`].
    HeadOwn,
    /// A head; each head has parameters of its own, in one tensor for each head.
    HeadModules,
    /// All heads.
    All,
}

/// A feed-forward module.
#[derive(Debug)]
pub enum FeedForward {
    Mlp(Mlp),
    Experts(Box<Experts>),
}

impl FeedForward {
    /// The tensor of the projection whose output is added to the hidden state; of experts, that of their router.
    pub fn output(&self) -> &str {
        match self {
            Self::Mlp(mlp) => &mlp.output.weight,
            Self::Experts(experts) => &experts.router.weight,
        }
    }
}

/// output · gating(input · x).
#[derive(Debug)]
pub struct Mlp {
    /// One projection, or two (gate and up), whose outputs lie side by side.
    pub input: Vec<Linear>,
    pub gating: Gating,
    pub output: Linear,
}

/// What happens between the projections of a feed-forward module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gating {
    /// f(x).
    None(Activation),
    /// f(gate) · up, where x is all of gate and then all of up.
    Halves(Activation),
    /// gate · logistic(alpha · gate) · (up + 1), both limited, where elements of gate and up alternate in x. A gate has no lower limit.
    Alternating { alpha: f32, limit: f32 },
}

impl Gating {
    /// Elements out of `inputs` elements in.
    pub fn outputs(self, inputs: usize) -> usize {
        match self {
            Self::None(_) => inputs,
            Self::Halves(_) | Self::Alternating { .. } => inputs / 2,
        }
    }
}

/// A mixture of experts.
#[derive(Debug)]
pub struct Experts {
    pub router: Linear,
    /// Experts of a token.
    pub top_k: usize,
    pub weights: ExpertWeights,
    pub experts: Vec<Mlp>,
    /// An expert of every token, and the projection whose logistic function is its weight.
    pub shared: Option<(Mlp, Linear)>,
}

/// The weights of a token's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertWeights {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over all experts, divided by the sum of the chosen ones.
    SoftmaxNormalised,
    /// Softmax over the chosen experts.
    SoftmaxOfChosen,
}

/// A linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Tensor of the weight.
    pub weight: String,
    /// Tensor of the bias.
    pub bias: Option<String>,
    pub inputs: usize,
    pub outputs: usize,
    pub layout: Layout,
    /// Index and number of the slices, where both tensors hold one for each expert.
    pub slice: Option<(usize, usize)>,
}

impl Linear {
    /// `module.weight` and, where there is one, `module.bias`.
    pub fn new(module: &str, inputs: usize, outputs: usize, bias: bool) -> Self {
        Self {
            weight: format!("{module}.weight"),
            bias: bias.then(|| format!("{module}.bias")),
            inputs,
            outputs,
            layout: Layout::OutIn,
            slice: None,
        }
    }
}

/// A normalisation.
#[derive(Debug, Clone)]
pub struct Norm {
    pub module: String,
    pub kind: NormKind,
    pub epsilon: f32,
}

impl Norm {
    pub fn new(module: impl Into<String>, kind: NormKind, epsilon: f32) -> Self {
        Self { module: module.into(), kind, epsilon }
    }
}

/// Kinds of normalisations, by what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Layer normalisation with weight and bias.
    Layer,
    /// Layer normalisation with a weight.
    LayerWeight,
    /// Layer normalisation without parameters.
    LayerPlain,
    /// RMS normalisation with a weight.
    Rms,
    /// RMS normalisation whose factor is 1 + weight.
    RmsPlusOne,
}
