//! GPT-2.

use super::attention::Attention;
use super::head::Head;
use super::loader::Loader;
use super::matrix::{Layout, Matrix};
use super::scratch::{Scratch, row_blocks, sized, spans};
use super::{Kind, Model, ModelInfo, profile};
use crate::checkpoint::Checkpoint;
use crate::limits;
use crate::math::activation::{Activation, add, add2};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use invarlock_error::{Result, bail};

/// Weights of a GPT-2.
#[derive(Debug)]
pub struct Gpt2<'a> {
    width: usize,
    inner: usize,
    activation: Activation,
    tokens: Matrix<'a>,
    positions: Matrix<'a>,
    layers: Vec<Layer<'a>>,
    norm: Norm,
    /// Absent where it is the embedding of tokens.
    head: Option<Matrix<'a>>,
}

#[derive(Debug)]
struct Layer<'a> {
    attention: Attention,
    norm_1: Norm,
    qkv: Biased<'a>,
    mix: Biased<'a>,
    norm_2: Norm,
    expand: Biased<'a>,
    contract: Biased<'a>,
}

#[derive(Debug)]
struct Biased<'a> {
    weight: Matrix<'a>,
    bias: Vec<f32>,
}

/// Reads the configuration and takes the parameters.
pub fn load(checkpoint: &Checkpoint) -> Result<Model<'_>> {
    let config = &checkpoint.config;
    let vocab = config.required_size("vocab_size", limits::VOCAB)?;
    let width = config.required_size("n_embd", limits::WIDTH)?;
    let heads = config.required_size("n_head", limits::HEADS)?;
    let count = config.required_size("n_layer", limits::LAYERS)?;
    let positions = config.required_size("n_positions", limits::POSITIONS)?;
    let inner = config.size("n_inner", limits::WIDTH)?.unwrap_or(4 * width);
    let epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;
    if width % heads != 0 {
        bail!(Input, "{}: `n_embd` {width} is not a multiple of `n_head` {heads}", config.name());
    }
    let name = config.text("activation_function")?.unwrap_or("gelu_new");
    let Some(activation) = Activation::by_name(name) else {
        bail!(
            Unsupported,
            "{}: activation_function {name:?} is not implemented; known: {}",
            config.name(),
            Activation::KNOWN
        );
    };
    let scaled = config.flag("scale_attn_weights", true)?;
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    // Same mathematics in another order; everything is in single precision here anyhow.
    config.flag("reorder_and_upcast_attn", false)?;
    let tied = config.flag("tie_word_embeddings", true)?;

    let mut loader = Loader::new(checkpoint, "transformer.", "wte.weight");
    let tokens = loader.matrix("wte.weight", width, vocab, Layout::OutIn)?;
    let position_table = loader.matrix("wpe.weight", width, positions, Layout::OutIn)?;
    let norm = |loader: &mut Loader<'_>, name: &str| -> Result<Norm> {
        loader.norm(name);
        let weight = loader.vector(&format!("{name}.weight"), width)?;
        Ok(Norm::Layer { weight, bias: loader.vector(&format!("{name}.bias"), width)?, epsilon })
    };
    let mut layers = Vec::with_capacity(count);
    for i in 0..count {
        let head = width / heads;
        let mut scale = if scaled { 1.0 / (head as f64).sqrt() } else { 1.0 };
        if by_layer {
            scale /= (i + 1) as f64;
        }
        let attention = Attention { heads, kv_heads: heads, head, scale: scale as f32, window: None };
        let at = |part: &str| format!("h.{i}.{part}");
        layers.push(Layer {
            attention,
            norm_1: norm(&mut loader, &at("ln_1"))?,
            qkv: biased(&mut loader, &at("attn.c_attn"), width, 3 * width)?,
            mix: biased(&mut loader, &at("attn.c_proj"), width, width)?,
            norm_2: norm(&mut loader, &at("ln_2"))?,
            expand: biased(&mut loader, &at("mlp.c_fc"), width, inner)?,
            contract: biased(&mut loader, &at("mlp.c_proj"), inner, width)?,
        });
    }
    let norm = norm(&mut loader, "ln_f")?;
    let head = loader.head(tied, "wte.weight", width, vocab)?;
    let account = loader.finish(tied, vocab, &[("wte", vocab), ("wpe", positions)]);
    let facts = ModelInfo {
        model_type: "gpt2".to_owned(),
        vocab,
        positions: Some(positions),
        starts_with_bos: false,
        checks: account.checks,
        profile: profile(
            "gpt2",
            "causal_masking",
            "GPT-style evaluation report must use causal ppl metric.",
            &["attn.c_attn", "attn.c_proj"],
            &["mlp.c_fc", "mlp.c_proj"],
        ),
        parameters: account.parameters,
        unused: account.unused,
    };
    let model = Gpt2 { width, inner, activation, tokens, positions: position_table, layers, norm, head };
    Ok(Model { kind: Kind::Gpt2(model), facts })
}

fn biased<'a>(loader: &mut Loader<'a>, name: &str, inputs: usize, outputs: usize) -> Result<Biased<'a>> {
    let weight = loader.matrix(&format!("{name}.weight"), inputs, outputs, Layout::InOut)?;
    Ok(Biased { weight, bias: loader.vector(&format!("{name}.bias"), outputs)? })
}

impl Gpt2<'_> {
    /// The loss of each window.
    pub fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        let spans = spans(windows);
        let rows = spans.last().map_or(0, |s| s.end);
        let Scratch { hidden, update, qkv, mixed, inner, scores, panel, .. } = scratch;
        let hidden_rows = sized(hidden, rows * self.width);
        self.embed(windows, hidden_rows, sized(update, self.width));

        for layer in &self.layers {
            let qkv_width = layer.attention.qkv_width();
            let qkv = sized(qkv, rows * qkv_width);
            for block in row_blocks(rows) {
                let normed = sized(update, block.len() * self.width);
                layer.norm_1.rows(
                    &hidden_rows[block.start * self.width..block.end * self.width],
                    self.width,
                    normed,
                );
                let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
                let view = View::dense(normed, block.len(), self.width);
                layer.qkv.weight.apply(view, &mut ViewMut::dense(out, block.len(), qkv_width), panel);
                out.chunks_exact_mut(qkv_width).for_each(|row| add(row, &layer.qkv.bias));
            }
            let mixed = sized(mixed, rows * self.width);
            layer.attention.run(qkv, &spans, scores, mixed);
            for block in row_blocks(rows) {
                let n = block.len();
                let range = block.start * self.width..block.end * self.width;
                let hidden = &mut hidden_rows[range.clone()];
                let update = sized(update, n * self.width);
                layer.mix.add_to(View::dense(&mixed[range], n, self.width), hidden, update, panel);

                layer.norm_2.rows(hidden, self.width, update);
                let inner = sized(inner, n * self.inner);
                let view = View::dense(update, n, self.width);
                layer.expand.weight.apply(view, &mut ViewMut::dense(inner, n, self.inner), panel);
                self.activation.apply(inner, Some(&layer.expand.bias), self.inner);
                layer.contract.add_to(View::dense(inner, n, self.inner), hidden, update, panel);
            }
        }
        let head = Head {
            norm: &self.norm,
            projection: self.head.as_ref().unwrap_or(&self.tokens),
            width: self.width,
        };
        head.losses(windows, hidden_rows, update, scores, panel)
    }

    fn embed(&self, windows: &[&[u32]], hidden: &mut [f32], position: &mut [f32]) {
        let places = windows.iter().flat_map(|w| w.iter().enumerate());
        for (row, (at, id)) in hidden.chunks_exact_mut(self.width).zip(places) {
            self.tokens.row(*id as usize, row);
            self.positions.row(at, position);
            add(row, position);
        }
    }
}

impl Biased<'_> {
    /// hidden ← hidden + x · W + bias; `update` is room for the product.
    fn add_to(&self, x: View<'_>, hidden: &mut [f32], update: &mut [f32], panel: &mut Vec<f32>) {
        let width = self.weight.outputs();
        let rows = x.rows();
        self.weight.apply(x, &mut ViewMut::dense(update, rows, width), panel);
        for (hidden, update) in hidden.chunks_exact_mut(width).zip(update.chunks_exact(width)) {
            add2(hidden, update, &self.bias);
        }
    }
}
