//! The decoder that Llama, Mistral and Qwen2 share.

mod options;

use super::attention::Attention;
use super::head::Head;
use super::loader::Loader;
use super::matrix::{Layout, Matrix};
use super::scratch::{Scratch, row_blocks, sized, spans};
use super::{Kind, Model, ModelInfo, profile};
use crate::checkpoint::Checkpoint;
use crate::math::activation::{Activation, add, add2, multiply};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use invarlock_error::Result;
use options::Options;

/// Weights of a decoder.
#[derive(Debug)]
pub struct Decoder<'a> {
    width: usize,
    inner: usize,
    theta: f64,
    activation: Activation,
    tokens: Matrix<'a>,
    layers: Vec<Layer<'a>>,
    norm: Norm,
    /// Absent where it is the embedding of tokens.
    head: Option<Matrix<'a>>,
}

#[derive(Debug)]
struct Layer<'a> {
    attention: Attention,
    norm_1: Norm,
    query: Linear<'a>,
    key: Linear<'a>,
    value: Linear<'a>,
    mix: Linear<'a>,
    norm_2: Norm,
    gate: Linear<'a>,
    expand: Linear<'a>,
    contract: Linear<'a>,
}

#[derive(Debug)]
struct Linear<'a> {
    weight: Matrix<'a>,
    bias: Option<Vec<f32>>,
}

/// Reads the configuration and takes the parameters.
pub fn load(checkpoint: &Checkpoint) -> Result<Model<'_>> {
    let options = Options::read(&checkpoint.config)?;
    let Options { width, inner, heads, kv_heads, head, vocab, .. } = options;
    let epsilon = options.epsilon;

    let mut loader = Loader::new(checkpoint, "model.", "embed_tokens.weight");
    let tokens = loader.matrix("embed_tokens.weight", width, vocab, Layout::OutIn)?;
    let norm = |loader: &mut Loader<'_>, name: &str| -> Result<Norm> {
        loader.norm(name);
        Ok(Norm::Rms { weight: loader.vector(&format!("{name}.weight"), width)?, epsilon })
    };
    let mut layers = Vec::with_capacity(options.windows.len());
    for (i, window) in options.windows.iter().enumerate() {
        let at = |part: &str| format!("layers.{i}.{part}");
        let scale = (1.0 / (head as f64).sqrt()) as f32;
        let (qkv, out, mlp) = (options.qkv_bias, options.out_bias, options.mlp_bias);
        let l = &mut loader;
        layers.push(Layer {
            attention: Attention { heads, kv_heads, head, scale, window: *window },
            norm_1: norm(l, &at("input_layernorm"))?,
            query: linear(l, &at("self_attn.q_proj"), width, heads * head, qkv)?,
            key: linear(l, &at("self_attn.k_proj"), width, kv_heads * head, qkv)?,
            value: linear(l, &at("self_attn.v_proj"), width, kv_heads * head, qkv)?,
            mix: linear(l, &at("self_attn.o_proj"), heads * head, width, out)?,
            norm_2: norm(l, &at("post_attention_layernorm"))?,
            gate: linear(l, &at("mlp.gate_proj"), width, inner, mlp)?,
            expand: linear(l, &at("mlp.up_proj"), width, inner, mlp)?,
            contract: linear(l, &at("mlp.down_proj"), inner, width, mlp)?,
        });
    }
    let norm = norm(&mut loader, "norm")?;
    let output = loader.head(options.tied, "embed_tokens.weight", width, vocab)?;
    let account = loader.finish(options.tied, vocab, &[("embed_tokens", vocab)]);
    let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    // Upstream lists these for every family with rotary embeddings.
    let attention = [&attention[..], &["linear_attn.in_proj_qkv", "linear_attn.out_proj"]].concat();
    let facts = ModelInfo {
        model_type: options.model_type.clone(),
        vocab,
        // Angles exist for any position; the window length is the user's choice.
        positions: None,
        starts_with_bos: true,
        checks: account.checks,
        profile: profile(
            options.family(),
            "rope_rotary_embedding",
            "Causal evaluation report must use causal ppl metric.",
            &attention,
            &["mlp.up_proj", "mlp.down_proj", "mlp.gate_proj"],
        ),
        parameters: account.parameters,
        unused: account.unused,
    };
    let activation = options.activation;
    let model =
        Decoder { width, inner, theta: options.theta, activation, tokens, layers, norm, head: output };
    Ok(Model { kind: Kind::Decoder(model), facts })
}

fn linear<'a>(
    loader: &mut Loader<'a>,
    name: &str,
    inputs: usize,
    outputs: usize,
    bias: bool,
) -> Result<Linear<'a>> {
    let weight = loader.matrix(&format!("{name}.weight"), inputs, outputs, Layout::OutIn)?;
    let bias = if bias { Some(loader.vector(&format!("{name}.bias"), outputs)?) } else { None };
    Ok(Linear { weight, bias })
}

impl Decoder<'_> {
    /// The loss of each window.
    pub fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        let spans = spans(windows);
        let rows = spans.last().map_or(0, |s| s.end);
        let Scratch { hidden, update, qkv, mixed, inner, gated, scores, panel, rotary } = scratch;
        let hidden_rows = sized(hidden, rows * self.width);
        for (row, id) in hidden_rows.chunks_exact_mut(self.width).zip(windows.iter().copied().flatten()) {
            self.tokens.row(*id as usize, row);
        }

        for layer in &self.layers {
            let (qkv_width, mixed_width) = (layer.attention.qkv_width(), layer.attention.width());
            let longest = windows.iter().map(|w| w.len()).max().unwrap_or(0);
            rotary.prepare(layer.attention.head, self.theta, longest);
            let qkv = sized(qkv, rows * qkv_width);
            for block in row_blocks(rows) {
                let normed = sized(update, block.len() * self.width);
                layer.norm_1.rows(
                    &hidden_rows[block.start * self.width..block.end * self.width],
                    self.width,
                    normed,
                );
                let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
                layer.project(View::dense(normed, block.len(), self.width), out, panel);
            }
            for span in &spans {
                let tokens = qkv[span.start * qkv_width..span.end * qkv_width].chunks_exact_mut(qkv_width);
                for (position, token) in tokens.enumerate() {
                    let rotated = (layer.attention.heads + layer.attention.kv_heads) * layer.attention.head;
                    for head in token[..rotated].chunks_exact_mut(layer.attention.head) {
                        rotary.rotate(head, position);
                    }
                }
            }
            let mixed = sized(mixed, rows * mixed_width);
            layer.attention.run(qkv, &spans, scores, mixed);
            for block in row_blocks(rows) {
                let n = block.len();
                let hidden = &mut hidden_rows[block.start * self.width..block.end * self.width];
                let update = sized(update, n * self.width);
                let view =
                    View::dense(&mixed[block.start * mixed_width..block.end * mixed_width], n, mixed_width);
                layer.mix.add_to(view, hidden, update, panel);

                layer.norm_2.rows(hidden, self.width, update);
                let (inner, gated) = (sized(inner, n * self.inner), sized(gated, n * self.inner));
                let view = View::dense(update, n, self.width);
                layer.gate.weight.apply(view, &mut ViewMut::dense(inner, n, self.inner), panel);
                layer.expand.weight.apply(view, &mut ViewMut::dense(gated, n, self.inner), panel);
                self.activation.apply(inner, layer.gate.bias.as_deref(), self.inner);
                if let Some(bias) = &layer.expand.bias {
                    gated.chunks_exact_mut(self.inner).for_each(|row| add(row, bias));
                }
                multiply(inner, gated);
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
}

impl Layer<'_> {
    /// Queries, keys and values of some rows, each into its own columns.
    fn project(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
        let width = self.attention.qkv_width();
        let mut view = ViewMut::dense(out, x.rows(), width);
        let mut first = 0;
        for part in [&self.query, &self.key, &self.value] {
            let last = first + part.weight.outputs();
            part.weight.apply(x, &mut view.columns(first..last), panel);
            first = last;
        }
        let mut first = 0;
        for part in [&self.query, &self.key, &self.value] {
            let last = first + part.weight.outputs();
            if let Some(bias) = &part.bias {
                out.chunks_exact_mut(width).for_each(|row| add(&mut row[first..last], bias));
            }
            first = last;
        }
    }
}

impl Linear<'_> {
    /// hidden ← hidden + x · W + bias; `update` is room for the product.
    fn add_to(&self, x: View<'_>, hidden: &mut [f32], update: &mut [f32], panel: &mut Vec<f32>) {
        let width = self.weight.outputs();
        let rows = x.rows();
        self.weight.apply(x, &mut ViewMut::dense(update, rows, width), panel);
        match &self.bias {
            None => add(hidden, update),
            Some(bias) => {
                for (hidden, update) in hidden.chunks_exact_mut(width).zip(update.chunks_exact(width)) {
                    add2(hidden, update, bias);
                }
            }
        }
    }
}
