//! `model_profile` of a report, as upstream writes it for a family.

use serde_json::{Map, Value, json};

/// A row of upstream's table of profiles. Tokenizers of [`Profile::Gpt2`] get no token that begins a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Families with `causal_masking`, whose selectors are GPT-2's whatever their modules are called.
    Gpt2,
    /// Phi.
    Phi,
    /// Families that upstream knows by name; the name is part of the profile.
    Named(&'static str),
    /// GPT-OSS.
    GptOss,
}

const ATTENTION: [&str; 4] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];

impl Profile {
    /// Whether windows start with the token that begins a sequence, where the tokenizer has one.
    pub fn starts_with_bos(self) -> bool {
        self != Self::Gpt2
    }

    /// The member of the report.
    pub fn members(self) -> Map<String, Value> {
        let causal = "Causal evaluation report must use causal ppl metric.";
        let (family, invariant, message) = match self {
            Self::Gpt2 => {
                ("gpt2", "causal_masking", "GPT-style evaluation report must use causal ppl metric.")
            }
            Self::Phi => ("phi", "causal_masking", causal),
            Self::Named(family) => (family, "rope_rotary_embedding", causal),
            Self::GptOss => ("gpt_oss", "rope_rotary_embedding", causal),
        };
        let (attention, ffn): (Vec<&str>, &[&str]) = match self {
            Self::Gpt2 => (vec!["attn.c_attn", "attn.c_proj"], &["mlp.c_fc", "mlp.c_proj"]),
            Self::Phi => (
                [&ATTENTION[..3], &["self_attn.dense", "self_attn.o_proj", "self_attn.qkv_proj"]].concat(),
                &["mlp.fc1", "mlp.fc2", "mlp.gate_up_proj", "mlp.down_proj"],
            ),
            // Upstream lists the last two for every family with rotary positions.
            Self::Named(_) => (
                [&ATTENTION[..], &["linear_attn.in_proj_qkv", "linear_attn.out_proj"]].concat(),
                &["mlp.up_proj", "mlp.down_proj", "mlp.gate_proj"],
            ),
            Self::GptOss => (ATTENTION.to_vec(), &["mlp.router", "mlp.experts"]),
        };
        let profile = json!({
            "family": family,
            "default_loss": "causal",
            "module_selectors": { "attention": attention, "ffn": ffn },
            "invariants": [invariant],
            "cert_lints": [
                { "type": "equals", "path": "primary_metric.kind", "value": "ppl_causal", "message": message }
            ],
        });
        match profile {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}
