//! Families of modules, by their names.

/// Names of families with parts of names, in the order in which they are tried: those of InvarLock 0.12, and normalisations.
const FAMILIES: [(&str, &[&str]); 7] = [
    ("norm", &["norm", ".ln_"]),
    ("ffn", &["gate_up_proj", "gate_proj", "up_proj", "down_proj", "c_fc", "fc1", "fc2"]),
    ("router", &["router", "routing", "gate", "gating", "dispatch", "switch"]),
    ("expert_ffn", &["expert", "moe"]),
    ("ffn", &["mlp", "ffn", "feed_forward", "intermediate"]),
    ("attn", &["attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj", "c_attn"]),
    ("embed", &["embed", "wte", "wpe"]),
];

/// The family of a module.
pub(super) fn family(module: &str) -> &'static str {
    first_match(&FAMILIES, module).unwrap_or("other")
}

/// The first family of a table one of whose parts is in the name of a module. Case does not matter.
pub(super) fn first_match(families: &[(&'static str, &[&str])], module: &str) -> Option<&'static str> {
    let name = module.to_lowercase();
    let found = families.iter().find(|(_, parts)| parts.iter().any(|part| name.contains(part)));
    found.map(|(family, _)| *family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_common_models_have_a_family() {
        for (module, expected) in [
            ("transformer.h.0.ln_1", "norm"),
            ("model.layers.0.input_layernorm", "norm"),
            ("model.layers.0.self_attn.q_norm", "norm"),
            ("transformer.h.0.mlp.c_proj", "ffn"),
            ("model.layers.3.mlp.gate_proj", "ffn"),
            ("model.layers.3.mlp.gate", "router"),
            ("model.layers.3.block_sparse_moe.gate", "router"),
            ("model.layers.3.mlp.experts.7.up_proj", "ffn"),
            ("model.layers.3.block_sparse_moe.experts.7.w1", "expert_ffn"),
            ("bert.encoder.layer.0.attention.self.query", "attn"),
            ("transformer.wpe", "embed"),
            ("embeddings", "embed"),
            ("lm_head", "other"),
        ] {
            assert_eq!(family(module), expected, "{module}");
        }
    }
}
