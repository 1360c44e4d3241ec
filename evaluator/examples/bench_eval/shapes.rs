//! Checkpoints with random weights.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Result;

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Uniformly distributed, with a standard deviation of 0.02.
    pub fn weight(&mut self) -> f32 {
        ((self.next() & 0xff_ffff) as f32 / 16_777_216.0 - 0.5) * 0.069_3
    }
}

/// A configuration and the tensors that it needs.
pub struct Shape {
    config: Value,
    tensors: Vec<(String, Vec<usize>)>,
}

/// The shape of GPT-2 small.
pub fn gpt2_small() -> Shape {
    let (width, layers, vocab, positions) = (768, 12, 50_257, 1024);
    let mut tensors = vec![
        ("wte.weight".to_owned(), vec![vocab, width]),
        ("wpe.weight".to_owned(), vec![positions, width]),
    ];
    let mut norm =
        |name: String| tensors.extend(["weight", "bias"].map(|p| (format!("{name}.{p}"), vec![width])));
    norm("ln_f".to_owned());
    (0..layers).flat_map(|i| [format!("h.{i}.ln_1"), format!("h.{i}.ln_2")]).for_each(norm);
    for i in 0..layers {
        for (name, inputs, outputs) in [
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ] {
            tensors.push((format!("h.{i}.{name}.weight"), vec![inputs, outputs]));
            tensors.push((format!("h.{i}.{name}.bias"), vec![outputs]));
        }
    }
    let config = json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": vocab, "n_positions": positions,
        "n_embd": width, "n_layer": layers, "n_head": 12, "activation_function": "gelu_new", "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 0,
    });
    Shape { config, tensors }
}

/// The shape of Llama 3.2 with 1.2 billion parameters.
pub fn llama_1b() -> Shape {
    llama(2048, 8192, 16, 128_256)
}

/// A Llama with heads of 64 elements, four of which share keys and values.
pub fn llama(width: usize, intermediate: usize, layers: usize, vocab: usize) -> Shape {
    let kv = width / 4;
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, width]),
        ("model.norm.weight".to_owned(), vec![width]),
    ];
    for i in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![width]),
            ("post_attention_layernorm", vec![width]),
            ("self_attn.q_proj", vec![width, width]),
            ("self_attn.k_proj", vec![kv, width]),
            ("self_attn.v_proj", vec![kv, width]),
            ("self_attn.o_proj", vec![width, width]),
            ("mlp.gate_proj", vec![intermediate, width]),
            ("mlp.up_proj", vec![intermediate, width]),
            ("mlp.down_proj", vec![width, intermediate]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "hidden_size": width,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": width / 64,
        "num_key_value_heads": width / 256, "head_dim": 64, "max_position_embeddings": 131_072, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "attention_bias": false, "mlp_bias": false, "torch_dtype": "bfloat16",
        "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 0,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192},
    });
    Shape { config, tensors }
}

impl Shape {
    /// Multiplications and additions for one token, without attention scores: two for each element of a matrix. The embedding counts
    /// once, as the output projection.
    pub fn operations(&self) -> f64 {
        let matrices = self.tensors.iter().filter(|(_, shape)| shape.len() == 2);
        matrices.map(|(_, shape)| 2.0 * shape.iter().product::<usize>() as f64).sum()
    }

    /// Writes `config.json` and `model.safetensors` with elements of a type: F32, F16 or BF16.
    pub fn write(&self, directory: &Path, dtype: &str) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("config.json"), self.config.to_string())?;
        let size = if dtype == "F32" { 4 } else { 2 };
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut end = 0;
        for (tensor, shape) in &self.tensors {
            let start = end;
            end += shape.iter().product::<usize>() * size;
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            header.insert(tensor.clone(), entry);
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = BufWriter::with_capacity(1 << 20, File::create(directory.join("model.safetensors"))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut random = Random(7);
        for (tensor, shape) in &self.tensors {
            let one = shape.len() == 1 && tensor.ends_with("weight");
            for _ in 0..shape.iter().product::<usize>() {
                let value = if one { 1.0 } else { random.weight() };
                match dtype {
                    "F32" => file.write_all(&value.to_le_bytes())?,
                    "BF16" => file.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
                    "F16" => file.write_all(&half::f16::from_f32(value).to_le_bytes())?,
                    other => return Err(format!("unknown type {other}").into()),
                }
            }
        }
        file.flush()?;
        Ok(())
    }
}
