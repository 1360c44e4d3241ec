//! The decoder architecture that Llama, Mistral and Qwen2 share. Fields have the names of Hugging Face's modules.

mod options;

use super::attention::Attention;
use super::head::Head;
use super::loader::Loader;
use super::matrix::{Layout, Matrix};
use super::scratch::{Scratch, row_blocks, sized, spans};
use super::{ForwardPass, Model, ModelInfo, profile};
use crate::checkpoint::Checkpoint;
use crate::math::activation::{Activation, add, add2, multiply};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use crate::math::rotary::Rotary;
use invarlock_error::Result;
use options::Options;

/// Weights of a decoder.
#[derive(Debug)]
pub struct Decoder<'a> {
    hidden_size: usize,
    intermediate_size: usize,
    rope_theta: f64,
    activation: Activation,
    embed_tokens: Matrix<'a>,
    layers: Vec<Layer<'a>>,
    norm: Norm,
    /// Absent where it is tied to `embed_tokens`.
    lm_head: Option<Matrix<'a>>,
}

#[derive(Debug)]
struct Layer<'a> {
    attention: Attention,
    input_layernorm: Norm,
    q_proj: Linear<'a>,
    k_proj: Linear<'a>,
    v_proj: Linear<'a>,
    o_proj: Linear<'a>,
    post_attention_layernorm: Norm,
    gate_proj: Linear<'a>,
    up_proj: Linear<'a>,
    down_proj: Linear<'a>,
}

#[derive(Debug)]
struct Linear<'a> {
    weight: Matrix<'a>,
    bias: Option<Vec<f32>>,
}

/// Reads the configuration and the headers of the weights.
pub fn load(checkpoint: &Checkpoint) -> Result<Model<'_>> {
    let options = Options::read(&checkpoint.config)?;
    let Options { hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, vocab_size, .. } =
        options;
    let epsilon = options.rms_norm_eps;
    let tied = options.tie_word_embeddings;

    let mut loader = Loader::new(checkpoint, "model.", "embed_tokens.weight");
    let embed_tokens = loader.matrix("embed_tokens.weight", hidden_size, vocab_size, Layout::OutIn)?;
    let norm = |loader: &mut Loader<'_>, name: &str| -> Result<Norm> {
        loader.norm(name);
        Ok(Norm::Rms { weight: loader.vector(&format!("{name}.weight"), hidden_size)?, epsilon })
    };
    let mut layers = Vec::with_capacity(options.sliding_windows.len());
    for (i, sliding_window) in options.sliding_windows.iter().enumerate() {
        let name = |module: &str| format!("layers.{i}.{module}");
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        let (q_size, kv_size) = (num_heads * head_dim, num_kv_heads * head_dim);
        let (qkv_bias, o_bias, mlp_bias) = (options.qkv_bias, options.o_bias, options.mlp_bias);
        let l = &mut loader;
        layers.push(Layer {
            attention: Attention {
                num_heads,
                num_kv_heads,
                head_dim,
                scale,
                sliding_window: *sliding_window,
            },
            input_layernorm: norm(l, &name("input_layernorm"))?,
            q_proj: linear(l, &name("self_attn.q_proj"), hidden_size, q_size, qkv_bias)?,
            k_proj: linear(l, &name("self_attn.k_proj"), hidden_size, kv_size, qkv_bias)?,
            v_proj: linear(l, &name("self_attn.v_proj"), hidden_size, kv_size, qkv_bias)?,
            o_proj: linear(l, &name("self_attn.o_proj"), q_size, hidden_size, o_bias)?,
            post_attention_layernorm: norm(l, &name("post_attention_layernorm"))?,
            gate_proj: linear(l, &name("mlp.gate_proj"), hidden_size, intermediate_size, mlp_bias)?,
            up_proj: linear(l, &name("mlp.up_proj"), hidden_size, intermediate_size, mlp_bias)?,
            down_proj: linear(l, &name("mlp.down_proj"), intermediate_size, hidden_size, mlp_bias)?,
        });
    }
    let norm = norm(&mut loader, "norm")?;
    let lm_head = loader.lm_head(tied, "embed_tokens.weight", hidden_size, vocab_size)?;
    let loaded = loader.finish(tied, vocab_size, &[("embed_tokens", vocab_size)]);
    let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    // Upstream lists these for every family with rotary embeddings.
    let attention = [&attention[..], &["linear_attn.in_proj_qkv", "linear_attn.out_proj"]].concat();
    let info = ModelInfo {
        model_type: options.model_type.clone(),
        vocab_size,
        // Rotary angles exist for any position; the window length is the user's choice.
        max_positions: None,
        starts_with_bos: true,
        checks: loaded.checks,
        profile: profile(
            options.family(),
            "rope_rotary_embedding",
            "Causal evaluation report must use causal ppl metric.",
            &attention,
            &["mlp.up_proj", "mlp.down_proj", "mlp.gate_proj"],
        ),
        parameters: loaded.parameters,
        unused: loaded.unused,
    };
    let decoder = Decoder {
        hidden_size,
        intermediate_size,
        rope_theta: options.rope_theta,
        activation: options.hidden_act,
        embed_tokens,
        layers,
        norm,
        lm_head,
    };
    Ok(Model::new(decoder, info))
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

impl ForwardPass for Decoder<'_> {
    fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        let hidden_size = self.hidden_size;
        let spans = spans(windows);
        let rows = spans.last().map_or(0, |span| span.end);
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        let Scratch { hidden, update, qkv, attended, intermediate, gated, scores, panel, rotary } = scratch;
        let hidden = sized(hidden, rows * hidden_size);
        for (row, id) in hidden.chunks_exact_mut(hidden_size).zip(windows.iter().copied().flatten()) {
            self.embed_tokens.row(*id as usize, row);
        }

        for layer in &self.layers {
            let (qkv_width, attended_width) = (layer.attention.qkv_width(), layer.attention.width());
            rotary.prepare(layer.attention.head_dim, self.rope_theta, longest);
            let qkv = sized(qkv, rows * qkv_width);
            for block in row_blocks(rows) {
                let normed = sized(update, block.len() * hidden_size);
                layer.input_layernorm.rows(
                    &hidden[block.start * hidden_size..block.end * hidden_size],
                    hidden_size,
                    normed,
                );
                let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
                layer.project_qkv(View::dense(normed, block.len(), hidden_size), out, panel);
            }
            for span in &spans {
                layer.rotate(&mut qkv[span.start * qkv_width..span.end * qkv_width], rotary);
            }
            let attended = sized(attended, rows * attended_width);
            layer.attention.run(qkv, &spans, scores, attended);
            for block in row_blocks(rows) {
                let n = block.len();
                let hidden = &mut hidden[block.start * hidden_size..block.end * hidden_size];
                let update = sized(update, n * hidden_size);
                let attended = &attended[block.start * attended_width..block.end * attended_width];
                layer.o_proj.add_to(View::dense(attended, n, attended_width), hidden, update, panel);

                layer.post_attention_layernorm.rows(hidden, hidden_size, update);
                let intermediate = sized(intermediate, n * self.intermediate_size);
                let gated = sized(gated, n * self.intermediate_size);
                self.gate(layer, View::dense(update, n, hidden_size), intermediate, gated, panel);
                let x = View::dense(intermediate, n, self.intermediate_size);
                layer.down_proj.add_to(x, hidden, update, panel);
            }
        }
        let head = Head {
            norm: &self.norm,
            lm_head: self.lm_head.as_ref().unwrap_or(&self.embed_tokens),
            hidden_size,
        };
        head.losses(windows, hidden, update, scores, panel)
    }
}

impl Decoder<'_> {
    /// intermediate ← activation(gate_proj(x)) · up_proj(x); `up` is working memory of the same size.
    fn gate(
        &self,
        layer: &Layer<'_>,
        x: View<'_>,
        intermediate: &mut [f32],
        up: &mut [f32],
        panel: &mut Vec<f32>,
    ) {
        let (rows, width) = (x.rows(), self.intermediate_size);
        layer.gate_proj.weight.apply(x, &mut ViewMut::dense(intermediate, rows, width), panel);
        layer.up_proj.weight.apply(x, &mut ViewMut::dense(up, rows, width), panel);
        self.activation.apply(intermediate, layer.gate_proj.bias.as_deref(), width);
        if let Some(bias) = &layer.up_proj.bias {
            up.chunks_exact_mut(width).for_each(|row| add(row, bias));
        }
        multiply(intermediate, up);
    }
}

impl Layer<'_> {
    /// Queries, keys and values of some rows, each into its own columns.
    fn project_qkv(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
        let width = self.attention.qkv_width();
        let mut view = ViewMut::dense(out, x.rows(), width);
        let mut first = 0;
        for projection in [&self.q_proj, &self.k_proj, &self.v_proj] {
            let last = first + projection.weight.outputs();
            projection.weight.apply(x, &mut view.columns(first..last), panel);
            first = last;
        }
        let mut first = 0;
        for projection in [&self.q_proj, &self.k_proj, &self.v_proj] {
            let last = first + projection.weight.outputs();
            if let Some(bias) = &projection.bias {
                out.chunks_exact_mut(width).for_each(|row| add(&mut row[first..last], bias));
            }
            first = last;
        }
    }

    /// Rotates the queries and keys of one window.
    fn rotate(&self, qkv: &mut [f32], rotary: &Rotary) {
        let Attention { num_heads, num_kv_heads, head_dim, .. } = self.attention;
        let rotated = (num_heads + num_kv_heads) * head_dim;
        for (position, row) in qkv.chunks_exact_mut(self.attention.qkv_width()).enumerate() {
            for head in row[..rotated].chunks_exact_mut(head_dim) {
                rotary.rotate(head, position);
            }
        }
    }
}

impl Linear<'_> {
    /// hidden ← hidden + x · W + bias; `update` is working memory for the product.
    fn add_to(&self, x: View<'_>, hidden: &mut [f32], update: &mut [f32], panel: &mut Vec<f32>) {
        let (rows, width) = (x.rows(), self.weight.outputs());
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
