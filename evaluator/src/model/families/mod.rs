//! Model families: each turns a configuration into the description of a transformer.
//!
//! To add a family, write its file, add its `model_type`s to [`FAMILIES`], and make a reference case (`tests/reference/make_families.py`).
//! Where it resembles Llama, start from [`llama::decoder`] and change what differs; `bert` and `t5` are examples of models with an encoder.

mod bart;
mod bert;
mod bloom;
mod cohere;
mod common;
mod distilbert;
mod experts;
mod falcon;
mod gemma;
mod glm;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod llama;
mod mistral;
mod modernbert;
mod olmo;
mod opt;
mod phi;
mod qwen;
mod smollm3;
mod stablelm;
mod starcoder2;
mod t5;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

use super::spec::Transformer;
use crate::checkpoint::Config;
use invarlock_error::Result;

/// Reads the configuration of a family, for windows of at most `seq_len` tokens.
pub type Read = fn(&Config, usize) -> Result<Transformer>;

/// Every supported `model_type`.
pub const FAMILIES: &[(&str, Read)] = &[
    ("albert", bert::albert),
    ("bart", bart::read),
    ("bert", bert::bert),
    ("bloom", bloom::read),
    ("camembert", bert::roberta),
    ("cohere", cohere::cohere),
    ("cohere2", cohere::cohere2),
    ("distilbert", distilbert::read),
    ("electra", bert::electra),
    ("falcon", falcon::read),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3_text", gemma::gemma3),
    ("glm", glm::glm),
    ("glm4", glm::glm4),
    ("gpt2", gpt2::read),
    ("gpt_neox", gpt_neox::read),
    ("gpt_oss", gpt_oss::read),
    ("gptj", gptj::read),
    ("granite", granite::read),
    ("llama", llama::read),
    ("ministral", mistral::ministral),
    ("mistral", mistral::mistral),
    ("mixtral", mistral::mixtral),
    ("modernbert", modernbert::read),
    ("mt5", t5::mt5),
    ("olmo", olmo::olmo),
    ("olmo2", olmo::olmo2),
    ("olmoe", olmo::olmoe),
    ("opt", opt::read),
    ("phi", phi::phi),
    ("phi3", phi::phi3),
    ("qwen2", qwen::qwen2),
    ("qwen2_moe", qwen::qwen2_moe),
    ("qwen2_vl", qwen::qwen2_vl),
    ("qwen3", qwen::qwen3),
    ("qwen3_moe", qwen::qwen3_moe),
    ("roberta", bert::roberta),
    ("smollm3", smollm3::read),
    ("stablelm", stablelm::read),
    ("starcoder2", starcoder2::read),
    ("t5", t5::t5),
    ("xlm-roberta", bert::roberta),
];

/// Models with images whose `text_config` describes a family. Only the text model is measured. Others may treat text in another way:
/// PaliGemma attends to a whole prompt.
pub const WRAPPERS: &[&str] = &["gemma3", "llava", "mistral3"];

/// Tensors of models with images that are not of the text model begin with one of these, perhaps after `model.`.
pub const OTHER_MODALITIES: &[&str] = &["multi_modal_projector.", "vision_tower.", "visual."];

/// Tensors of heads beside the one of a masked language model begin with one of these, perhaps after the prefix of the model.
pub const OTHER_HEADS: &[&str] = &["cls.seq_relationship.", "pooler.", "sop_classifier."];

/// Options that change the arithmetic. A family that does not read one of them rejects a checkpoint that sets it.
pub const OPTIONS: &[&str] = &[
    "add_cross_attention",
    "alibi",
    "apply_residual_connection_post_layernorm",
    "attention_bias",
    "attention_chunk_size",
    "attention_multiplier",
    "attn_logit_softcapping",
    "clip_qkv",
    "embedding_multiplier",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "layer_types",
    "logit_scale",
    "logits_scaling",
    "mlp_bias",
    "n_routed_experts",
    "no_rope_layers",
    "num_experts",
    "num_local_experts",
    "pruned_heads",
    "qk_layernorm",
    "query_pre_attn_scalar",
    "relative_attention_num_buckets",
    "residual_multiplier",
    "rope_parameters",
    "rope_scaling",
    "scale_embedding",
    "use_bidirectional_attention",
    "use_parallel_residual",
    "use_qk_norm",
    "use_qkv_bias",
    "word_embed_proj_dim",
];
