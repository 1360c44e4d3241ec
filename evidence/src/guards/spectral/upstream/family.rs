//! Scope and families of the spectral guard of InvarLock 0.12.

use crate::format::evaluation_report::Scope;
use crate::format::statistics::WeightStatistics;
use crate::guards::family;

/// Names of families with parts of names, in the order in which they are tried. InvarLock 0.8 has only `gate_proj` in the first one.
const FAMILIES: [(&str, &[&str]); 6] = [
    ("ffn", &["gate_up_proj", "gate_proj", "up_proj", "down_proj", "c_fc", "fc1", "fc2", "densereludense"]),
    ("router", &["router", "routing", "gate", "gating", "dispatch", "switch"]),
    ("expert_ffn", &["expert", "moe"]),
    ("ffn", &["mlp", "ffn", "feed_forward"]),
    ("attn", &["attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj"]),
    ("embed", &["embed", "wte"]),
];

/// Last parts of the names of embeddings whose names do not say so. InvarLock knows them by their class.
const EMBEDDINGS: [&str; 2] = ["wpe", "shared"];

/// The family of a module.
pub(crate) fn family_of(module: &str) -> &'static str {
    let name = module.to_lowercase();
    match family::first_match(&FAMILIES, module) {
        Some(family) => family,
        None if EMBEDDINGS.contains(&name.rsplit('.').next().unwrap_or_default()) => "embed",
        None => "other",
    }
}

/// Whether InvarLock checks a module: its weight is a matrix, and its name is in the scope. Normalisations have a vector, and slices of the
/// tensor of all experts are no modules.
pub(super) fn is_checked(module: &WeightStatistics, scope: Scope) -> bool {
    let name = module.module.to_lowercase();
    let vector = module.shape[0] == 1 && family::family(&module.module) == "norm";
    let named = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let in_scope = match scope {
        Scope::All => true,
        Scope::Attn => named(&["attn", "attention"]),
        Scope::Ffn => named(&["mlp", "ffn", "feed_forward", "fc"]),
    };
    in_scope && !vector && !name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_those_of_upstream() {
        for (module, expected) in [
            ("transformer.wte", "embed"),
            ("transformer.wpe", "embed"),
            ("shared", "embed"),
            ("transformer.h.0.attn.c_proj", "attn"),
            ("transformer.h.0.mlp.c_proj", "ffn"),
            ("model.layers.0.mlp.gate_proj", "ffn"),
            ("model.layers.0.mlp.gate", "router"),
            ("model.decoder.layers.0.fc1", "ffn"),
            ("encoder.block.0.layer.1.DenseReluDense.wi", "ffn"),
            ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "attn"),
            ("bert.encoder.layer.0.intermediate.dense", "other"),
            ("bert.encoder.layer.0.output.dense", "other"),
            ("model.layers.0.mlp.experts.3.w1", "expert_ffn"),
            ("lm_head", "other"),
        ] {
            assert_eq!(family_of(module), expected, "{module}");
        }
    }

    #[test]
    fn only_matrices_in_the_scope_are_checked() {
        let checked = |name: &str, rows, scope| {
            let module = WeightStatistics {
                module: name.to_owned(),
                shape: [rows, 8],
                spectral_norm: 1.0,
                frobenius_norm: 1.0,
                weakest: 1.0,
                sketch: Vec::new(),
            };
            is_checked(&module, scope)
        };
        assert!(!checked("transformer.ln_f", 1, Scope::All));
        assert!(!checked("bert.embeddings.LayerNorm", 1, Scope::All));
        assert!(checked("classifier", 1, Scope::All));
        assert!(!checked("model.layers.0.mlp.experts.gate_up_proj[3]", 8, Scope::All));
        assert!(checked("transformer.h.0.mlp.c_fc", 8, Scope::Ffn));
        assert!(!checked("transformer.h.0.attn.c_attn", 8, Scope::Ffn));
        assert!(checked("transformer.h.0.attn.c_attn", 8, Scope::Attn));
    }
}
