//! `model_profile` of a report, as upstream writes it for a family.

use invarlock_evidence::format::objective::Objective;
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
    /// Masked language models.
    Bert,
    /// Sequence-to-sequence models.
    Seq2Seq,
}

const BERT_ATTENTION: [&str; 4] =
    ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
const ATTENTION: [&str; 4] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];

impl Profile {
    /// Whether windows start with the token that begins a sequence, where the tokenizer has one.
    pub fn starts_with_bos(self) -> bool {
        !matches!(self, Self::Gpt2 | Self::Bert | Self::Seq2Seq)
    }

    /// The member of the report.
    pub fn members(self) -> Map<String, Value> {
        let causal = "Causal evaluation report must use causal ppl metric.";
        let (family, invariants, lints): (_, &[&str], _) = match self {
            Self::Gpt2 => {
                let message = "GPT-style evaluation report must use causal ppl metric.";
                ("gpt2", &["causal_masking"], kind_lint("ppl_causal", message))
            }
            Self::Phi => ("phi", &["causal_masking"], kind_lint("ppl_causal", causal)),
            Self::Named(family) => (family, &["rope_rotary_embedding"], kind_lint("ppl_causal", causal)),
            Self::GptOss => ("gpt_oss", &["rope_rotary_embedding"], kind_lint("ppl_causal", causal)),
            Self::Bert => ("bert", &["mlm_mask_alignment"], masked_lints()),
            Self::Seq2Seq => ("seq2seq", &[], json!([])),
        };
        let loss = match self {
            Self::Bert => Objective::Masked,
            Self::Seq2Seq => Objective::Seq2Seq,
            _ => Objective::Causal,
        };
        let profile = json!({
            "family": family,
            "default_loss": loss.loss_type(),
            "module_selectors": self.selectors(),
            "invariants": invariants,
            "cert_lints": lints,
        });
        match profile {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// Parts of the names of modules.
    fn selectors(self) -> Value {
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
            // Upstream lists these for every masked language model.
            Self::Bert => (BERT_ATTENTION.to_vec(), &["intermediate.dense", "output.dense"]),
            Self::Seq2Seq => (vec!["attention"], &[]),
        };
        json!({ "attention": attention, "ffn": ffn })
    }
}

/// The rule that a report has a metric of this kind.
fn kind_lint(kind: &str, message: &str) -> Value {
    json!([{ "type": "equals", "path": "primary_metric.kind", "value": kind, "message": message }])
}

/// The rules for reports of masked language models.
fn masked_lints() -> Value {
    json!([
        { "type": "equals", "path": "primary_metric.kind", "value": "ppl_mlm",
            "message": "BERT evaluation report must use MLM metric." },
        { "type": "gte", "path": "telemetry.masked_tokens_total", "value": "1",
            "message": "BERT evaluation report must report masked tokens." },
    ])
}
