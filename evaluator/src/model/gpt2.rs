//! GPT-2. Fields have the names of Hugging Face's modules.

use super::attention::Attention;
use super::head::Head;
use super::loader::Loader;
use super::matrix::{Layout, Matrix};
use super::scratch::{Scratch, row_blocks, sized, spans};
use super::{ForwardPass, Model, ModelInfo, profile};
use crate::checkpoint::{Checkpoint, Config};
use crate::limits;
use crate::math::activation::{Activation, add, add2};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use invarlock_error::{Result, bail};

/// Weights of a GPT-2.
#[derive(Debug)]
pub struct Gpt2<'a> {
    hidden_size: usize,
    intermediate_size: usize,
    activation: Activation,
    wte: Matrix<'a>,
    wpe: Matrix<'a>,
    layers: Vec<Layer<'a>>,
    ln_f: Norm,
    /// Absent where it is tied to `wte`.
    lm_head: Option<Matrix<'a>>,
}

#[derive(Debug)]
struct Layer<'a> {
    attention: Attention,
    ln_1: Norm,
    c_attn: Conv1d<'a>,
    attn_c_proj: Conv1d<'a>,
    ln_2: Norm,
    c_fc: Conv1d<'a>,
    mlp_c_proj: Conv1d<'a>,
}

/// Hugging Face's `Conv1D`: a linear layer with its weight stored by inputs.
#[derive(Debug)]
struct Conv1d<'a> {
    weight: Matrix<'a>,
    bias: Vec<f32>,
}

/// The configuration, every default filled in.
struct Options {
    vocab_size: usize,
    hidden_size: usize,
    num_heads: usize,
    num_layers: usize,
    max_positions: usize,
    intermediate_size: usize,
    layer_norm_epsilon: f32,
    activation: Activation,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
}

impl Options {
    fn read(config: &Config) -> Result<Self> {
        let vocab_size = config.required_size("vocab_size", limits::VOCAB)?;
        let hidden_size = config.required_size("n_embd", limits::WIDTH)?;
        let num_heads = config.required_size("n_head", limits::HEADS)?;
        let num_layers = config.required_size("n_layer", limits::LAYERS)?;
        let max_positions = config.required_size("n_positions", limits::POSITIONS)?;
        let intermediate_size = config.size("n_inner", limits::WIDTH)?.unwrap_or(4 * hidden_size);
        let layer_norm_epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;
        if hidden_size % num_heads != 0 {
            bail!(
                Input,
                "{}: `n_embd` {hidden_size} is not a multiple of `n_head` {num_heads}",
                config.name()
            );
        }
        let activation = config.activation("activation_function", "gelu_new")?;
        let scale_attn_weights = config.flag("scale_attn_weights", true)?;
        let scale_attn_by_inverse_layer_idx = config.flag("scale_attn_by_inverse_layer_idx", false)?;
        // This option changes the order of operations only; everything is computed in single precision here anyway.
        config.flag("reorder_and_upcast_attn", false)?;
        let tie_word_embeddings = config.flag("tie_word_embeddings", true)?;
        Ok(Self {
            vocab_size,
            hidden_size,
            num_heads,
            num_layers,
            max_positions,
            intermediate_size,
            layer_norm_epsilon,
            activation,
            scale_attn_weights,
            scale_attn_by_inverse_layer_idx,
            tie_word_embeddings,
        })
    }

    fn attention(&self, layer: usize) -> Attention {
        let head_dim = self.hidden_size / self.num_heads;
        let mut scale = if self.scale_attn_weights { 1.0 / (head_dim as f64).sqrt() } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        Attention {
            num_heads: self.num_heads,
            num_kv_heads: self.num_heads,
            head_dim,
            scale: scale as f32,
            sliding_window: None,
        }
    }
}

/// Reads the configuration and the headers of the weights.
pub fn load(checkpoint: &Checkpoint) -> Result<Model<'_>> {
    let options = Options::read(&checkpoint.config)?;
    let Options { vocab_size, hidden_size, intermediate_size, max_positions, .. } = options;
    let epsilon = options.layer_norm_epsilon;
    let tied = options.tie_word_embeddings;

    let mut loader = Loader::new(checkpoint, "transformer.", "wte.weight");
    let wte = loader.matrix("wte.weight", hidden_size, vocab_size, Layout::OutIn)?;
    let wpe = loader.matrix("wpe.weight", hidden_size, max_positions, Layout::OutIn)?;
    let norm = |loader: &mut Loader<'_>, name: &str| -> Result<Norm> {
        loader.norm(name);
        let weight = loader.vector(&format!("{name}.weight"), hidden_size)?;
        Ok(Norm::Layer { weight, bias: loader.vector(&format!("{name}.bias"), hidden_size)?, epsilon })
    };
    let mut layers = Vec::with_capacity(options.num_layers);
    for i in 0..options.num_layers {
        let name = |module: &str| format!("h.{i}.{module}");
        let l = &mut loader;
        layers.push(Layer {
            attention: options.attention(i),
            ln_1: norm(l, &name("ln_1"))?,
            c_attn: conv1d(l, &name("attn.c_attn"), hidden_size, 3 * hidden_size)?,
            attn_c_proj: conv1d(l, &name("attn.c_proj"), hidden_size, hidden_size)?,
            ln_2: norm(l, &name("ln_2"))?,
            c_fc: conv1d(l, &name("mlp.c_fc"), hidden_size, intermediate_size)?,
            mlp_c_proj: conv1d(l, &name("mlp.c_proj"), intermediate_size, hidden_size)?,
        });
    }
    let ln_f = norm(&mut loader, "ln_f")?;
    let lm_head = loader.lm_head(tied, "wte.weight", hidden_size, vocab_size)?;
    let loaded = loader.finish(tied, vocab_size, &[("wte", vocab_size), ("wpe", max_positions)]);
    let info = ModelInfo {
        model_type: "gpt2".to_owned(),
        vocab_size,
        max_positions: Some(max_positions),
        starts_with_bos: false,
        checks: loaded.checks,
        profile: profile(
            "gpt2",
            "causal_masking",
            "GPT-style evaluation report must use causal ppl metric.",
            &["attn.c_attn", "attn.c_proj"],
            &["mlp.c_fc", "mlp.c_proj"],
        ),
        parameters: loaded.parameters,
        unused: loaded.unused,
    };
    let activation = options.activation;
    let gpt2 = Gpt2 { hidden_size, intermediate_size, activation, wte, wpe, layers, ln_f, lm_head };
    Ok(Model::new(gpt2, info))
}

fn conv1d<'a>(loader: &mut Loader<'a>, name: &str, inputs: usize, outputs: usize) -> Result<Conv1d<'a>> {
    let weight = loader.matrix(&format!("{name}.weight"), inputs, outputs, Layout::InOut)?;
    Ok(Conv1d { weight, bias: loader.vector(&format!("{name}.bias"), outputs)? })
}

impl ForwardPass for Gpt2<'_> {
    fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        let hidden_size = self.hidden_size;
        let spans = spans(windows);
        let rows = spans.last().map_or(0, |span| span.end);
        let Scratch { hidden, update, qkv, attended, intermediate, scores, panel, .. } = scratch;
        let hidden = sized(hidden, rows * hidden_size);
        self.embed(windows, hidden, sized(update, hidden_size));

        for layer in &self.layers {
            let qkv_width = layer.attention.qkv_width();
            let qkv = sized(qkv, rows * qkv_width);
            for block in row_blocks(rows) {
                let normed = sized(update, block.len() * hidden_size);
                layer.ln_1.rows(
                    &hidden[block.start * hidden_size..block.end * hidden_size],
                    hidden_size,
                    normed,
                );
                let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
                let x = View::dense(normed, block.len(), hidden_size);
                layer.c_attn.weight.apply(x, &mut ViewMut::dense(out, block.len(), qkv_width), panel);
                out.chunks_exact_mut(qkv_width).for_each(|row| add(row, &layer.c_attn.bias));
            }
            let attended = sized(attended, rows * hidden_size);
            layer.attention.run(qkv, &spans, scores, attended);
            for block in row_blocks(rows) {
                let n = block.len();
                let range = block.start * hidden_size..block.end * hidden_size;
                let hidden = &mut hidden[range.clone()];
                let update = sized(update, n * hidden_size);
                layer.attn_c_proj.add_to(
                    View::dense(&attended[range], n, hidden_size),
                    hidden,
                    update,
                    panel,
                );

                layer.ln_2.rows(hidden, hidden_size, update);
                let width = self.intermediate_size;
                let intermediate = sized(intermediate, n * width);
                let x = View::dense(update, n, hidden_size);
                layer.c_fc.weight.apply(x, &mut ViewMut::dense(intermediate, n, width), panel);
                self.activation.apply(intermediate, Some(&layer.c_fc.bias), width);
                layer.mlp_c_proj.add_to(View::dense(intermediate, n, width), hidden, update, panel);
            }
        }
        let head =
            Head { norm: &self.ln_f, lm_head: self.lm_head.as_ref().unwrap_or(&self.wte), hidden_size };
        head.losses(windows, hidden, update, scores, panel)
    }
}

impl Gpt2<'_> {
    /// Embeddings of tokens and positions; `embedding` is working memory for one row.
    fn embed(&self, windows: &[&[u32]], hidden: &mut [f32], embedding: &mut [f32]) {
        let tokens = windows.iter().flat_map(|window| window.iter().enumerate());
        for (row, (position, id)) in hidden.chunks_exact_mut(self.hidden_size).zip(tokens) {
            self.wte.row(*id as usize, row);
            self.wpe.row(position, embedding);
            add(row, embedding);
        }
    }
}

impl Conv1d<'_> {
    /// hidden ← hidden + x · W + bias; `update` is working memory for the product.
    fn add_to(&self, x: View<'_>, hidden: &mut [f32], update: &mut [f32], panel: &mut Vec<f32>) {
        let (rows, width) = (x.rows(), self.weight.outputs());
        self.weight.apply(x, &mut ViewMut::dense(update, rows, width), panel);
        for (hidden, update) in hidden.chunks_exact_mut(width).zip(update.chunks_exact(width)) {
            add2(hidden, update, &self.bias);
        }
    }
}
