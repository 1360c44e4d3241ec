"""The causal families: configurations, what each needs beyond a Llama decoder, and options that must matter."""

import dataclasses

import torch

VOCAB = 113
DELETE = object()


@dataclasses.dataclass
class Case:
    name: str
    config: dict
    # What the family does that a plain Llama decoder does not: options of config.json, tensors, formulas.
    notes: str = ""
    # Changes to the configuration, each of which must change the losses.
    matters: list = dataclasses.field(default_factory=list)
    kind: str = "causal"
    store: torch.dtype = torch.bfloat16
    # The weights of the last norm, and so how far apart the logits are.
    sharpness: float = 1.5
    # How loud the MLPs are: more where kinds of GELU must be told apart, which differ by 5e-4 at most.
    mlp_gain: float = 2.0
    # A change of the weights before they are stored, and one of the stored tensors.
    adjust: object = None
    layout: object = None
    # Endings of stored tensors that a reader must ignore, and of tensors that cannot move a loss.
    leftover: tuple = ()
    silent: tuple = ()
    # An expression for tensors that are stored and not used.
    unused: str = ""
    # Masked windows hold padding; targets hold tokens that are not predicted.
    padded: bool = False
    attention: str = "eager"
    # Another implementation of attention in transformers that must agree.
    other_attention: str | None = "sdpa"


LLAMA = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=44,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    hidden_act="silu",
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
)
NO_ROPE = {k: v for k, v in LLAMA.items() if k != "rope_theta"}


def family(model_type, architecture, base=LLAMA, **changes):
    merged = {**base, "model_type": model_type, "architectures": [architecture], **changes}
    return {key: value for key, value in merged.items() if value is not DELETE}


def gpt2():
    base = dict(
        model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2,
        n_head=4, activation_function="gelu_new", layer_norm_epsilon=1e-5, bos_token_id=1, eos_token_id=2,
    )
    yield Case(
        "gpt2", base,
        """transformer.{wte,wpe,h.N.{ln_1,attn.c_attn,attn.c_proj,ln_2,mlp.c_fc,mlp.c_proj},ln_f}; linear weights stored
        [in, out]; c_attn = q|k|v; LayerNorm with bias; learned positions; n_inner = 4 n_embd when absent; tied head""",
        [{"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-2}, {"n_head": 2}],
        mlp_gain=8.0,
    )
    yield Case(
        "gpt2-options",
        {**base, "n_inner": 46, "activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True,
         "reorder_and_upcast_attn": True, "tie_word_embeddings": False},
        "scores also divided by (layer + 1); untied lm_head.weight; n_inner given; reorder_and_upcast changes no result",
        [{"scale_attn_by_inverse_layer_idx": False}, {"activation_function": "gelu_new"}],
        mlp_gain=8.0, other_attention=None,
    )


# Chosen so that every branch of a formula is taken with 8 frequencies and 64 positions.
ROPE16 = {**LLAMA, "head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 100.0}
LLAMA3 = dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(factor=4.0, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=1.0)
LONG = dict(
    short_factor=[1.0, 1.1, 1.25, 1.4, 1.6, 1.9, 2.1, 2.5], long_factor=[1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0]
)


def llama():
    yield Case(
        "llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "head_dim": 12},
        "the plain decoder, with grouped heads, head_dim != hidden_size / heads, attention_bias (q k v o), mlp_bias",
        [{"rms_norm_eps": 1e-2}, {"rope_theta": 5000.0}, {"attention_bias": False}, {"mlp_bias": False},
         {"hidden_act": "gelu"}],
        store=torch.float16,
    )
    yield Case("llama-tied", {**LLAMA, "tie_word_embeddings": True}, "head = model.embed_tokens.weight")
    old = {**ROPE16, "rope_theta": 100.0}
    new = {key: value for key, value in ROPE16.items() if key != "rope_theta"}

    def both(kind, options, notes, matters, **more):
        """The same scaling in the spelling before transformers 5 and in the one since."""
        spelled = {"type" if kind in ("linear", "dynamic") else "rope_type": kind, **options}
        yield Case(f"llama-{kind}-old", {**old, "rope_scaling": spelled, **more}, "rope_scaling: " + notes,
                   [{"rope_scaling": None}] + [{"rope_scaling": m} for m in matters])
        parameters = {"rope_type": kind, "rope_theta": 100.0, **options}
        yield Case(f"llama-{kind}-new", {**new, "rope_parameters": parameters, **more}, "rope_parameters: " + notes,
                   [{"rope_parameters": m} for m in matters])

    yield from both("linear", {"factor": 2.5}, "linear, frequencies / factor (key `type` or `rope_type`)", [{"factor": 2.0}])
    yield from both(
        "dynamic", {"factor": 2.0},
        """dynamic: L = max(window length, max_position_embeddings); theta' = theta * (factor * L /
        max_position_embeddings - (factor - 1)) ** (dim / (dim - 2)); each window alone""",
        [{"factor": 3.0}], max_position_embeddings=32,
    )
    yield from both(
        "llama3", LLAMA3, "llama3, by wave length: kept, interpolated smoothly, / factor",
        [{"factor": 8.0}, {"low_freq_factor": 2.0}, {"high_freq_factor": 8.0}, {"original_max_position_embeddings": 64}],
    )
    yield from both(
        "yarn", YARN,
        """yarn: ramp between beta_fast and beta_slow (defaults 32 and 1), floor and ceil of its ends, cos and sin times
        0.1 ln(factor) + 1""",
        [{"factor": 8.0}, {"beta_fast": 8.0}, {"original_max_position_embeddings": 32}], max_position_embeddings=256,
    )
    yield Case(
        "llama-yarn-options",
        {**new, "rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, **YARN, "truncate": False, "mscale": 1.3,
                                    "mscale_all_dim": 0.7}, "max_position_embeddings": 256},
        """yarn with truncate false (no floor, no ceil) and attention factor (0.1 mscale ln f + 1) / (0.1 mscale_all_dim
        ln f + 1)""",
        [{"rope_parameters": {"truncate": True}}, {"rope_parameters": {"mscale": 1.0}},
         {"rope_parameters": {"mscale_all_dim": 1.0}}, {"rope_parameters": {"attention_factor": 1.1}}],
    )
    yield Case(
        "llama-yarn-attention-factor",
        {**old, "rope_scaling": {"rope_type": "yarn", **YARN, "attention_factor": 0.8}, "max_position_embeddings": 256},
        "yarn with attention_factor given: cos and sin times it", [{"rope_scaling": {"attention_factor": 0.9}}],
    )
    yield from both(
        "longrope", {**LONG, "factor": 4.0, "original_max_position_embeddings": 32},
        """longrope: frequencies / long_factor[i] when the window is longer than original_max_position_embeddings, else /
        short_factor[i]; cos and sin times attention_factor or sqrt(1 + ln(factor) / ln(original))""",
        [{"factor": 8.0}, {"long_factor": [1.0] * 8}, {"short_factor": [1.0] * 8},
         {"original_max_position_embeddings": 64}],
        max_position_embeddings=128,
    )


def llama_like():
    yield Case(
        "mistral", family("mistral", "MistralForCausalLM", head_dim=12, sliding_window=11),
        "sliding_window w on every layer: key j is seen by query i when i - w < j <= i; no biases; head_dim",
        [{"sliding_window": 12}, {"sliding_window": None}],
    )
    yield Case("mistral-full", family("mistral", "MistralForCausalLM", sliding_window=None), "sliding_window null: none",
               [{"sliding_window": 30}])
    yield Case(
        "ministral",
        family("ministral", "MinistralForCausalLM", NO_ROPE, head_dim=12, sliding_window=11,
               rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
               layer_types=["full_attention", "sliding_attention"]),
        "layer_types chooses per layer; without layer_types every layer slides when sliding_window is given",
        [{"sliding_window": 12}, {"layer_types": ["sliding_attention", "full_attention"]}],
    )
    yield Case(
        "qwen2",
        family("qwen2", "Qwen2ForCausalLM", use_sliding_window=True, sliding_window=11, max_window_layers=1,
               rope_theta=1000000.0, rms_norm_eps=1e-6),
        """biases on q, k, v (not o), always; layers >= max_window_layers slide when use_sliding_window; layer_types, where
        given, decides""",
        [{"use_sliding_window": False}, {"max_window_layers": 2}, {"sliding_window": 12}, {"rope_theta": 10000.0}],
    )
    yield Case(
        "qwen2-yarn",
        family("qwen2", "Qwen2ForCausalLM", ROPE16, use_sliding_window=False, sliding_window=11, max_window_layers=1,
               head_dim=DELETE, tie_word_embeddings=True, max_position_embeddings=128,
               rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
        "use_sliding_window false: no window though sliding_window is given; yarn spelled with `type`; tied",
        [{"rope_scaling": None}],
    )
    yield Case(
        "qwen3",
        family("qwen3", "Qwen3ForCausalLM", head_dim=12, attention_bias=False, tie_word_embeddings=True,
               use_sliding_window=False, sliding_window=None, max_window_layers=2, rope_theta=1000000.0),
        "self_attn.{q,k}_norm.weight [head_dim]: RMSNorm of each head before RoPE; head_dim (default 128)",
        [{"rms_norm_eps": 1e-2}],
    )
    yield Case(
        "qwen3-sliding",
        family("qwen3", "Qwen3ForCausalLM", NO_ROPE, head_dim=12, attention_bias=True, use_sliding_window=True,
               sliding_window=11, layer_types=["sliding_attention", "full_attention"],
               rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
        "attention_bias on q, k, v and o; layer_types",
        [{"sliding_window": 12}, {"layer_types": ["full_attention", "sliding_attention"]}],
    )


def phi():
    phi3 = family("phi3", "Phi3ForCausalLM", ROPE16, head_dim=DELETE, rope_theta=10000.0, pad_token_id=0)
    yield Case(
        "phi3", {**phi3, "sliding_window": 11, "original_max_position_embeddings": 64, "rope_scaling": None},
        "self_attn.qkv_proj (rows q|k|v) and mlp.gate_up_proj (rows gate|up) fused; sliding_window on every layer",
        [{"sliding_window": 12}],
    )
    longrope = {**phi3, "sliding_window": None, "max_position_embeddings": 128, "original_max_position_embeddings": 32}
    yield Case(
        "phi3-longrope", {**longrope, "rope_scaling": {"type": "longrope", **LONG}},
        """original_max_position_embeddings at the top level wins; factor = max_position_embeddings / original; window
        longer than original: long_factor""",
        [{"rope_scaling": None}, {"original_max_position_embeddings": 64}, {"max_position_embeddings": 256},
         {"rope_scaling": {"short_factor": [1.0] * 8}}, {"rope_scaling": {"long_factor": [1.0] * 8}}],
    )
    yield Case(
        "phi3-longrope-partial",
        {**longrope, "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
         "rope_scaling": {"rope_type": "longrope", "short_factor": LONG["short_factor"][:6], "long_factor": LONG["long_factor"][:6]}},
        "Phi-4-mini: partial_rotary_factor (first int(head_dim * f) elements rotate); type `yarn` means longrope in phi3",
        [{"rope_scaling": {"long_factor": [1.0] * 6}}],
    )
    base = family(
        "phi", "PhiForCausalLM", rms_norm_eps=DELETE, hidden_act="gelu_new", layer_norm_eps=1e-5,
        partial_rotary_factor=0.5,
    )
    yield Case(
        "phi", base,
        """parallel residual: x + attn(n) + mlp(n), n = input_layernorm(x), one LayerNorm with bias per layer; self_attn.dense
        for o_proj; mlp.fc1, act, fc2, not gated; biases everywhere, lm_head.bias too; model.final_layernorm;
        partial_rotary_factor (default 0.5)""",
        [{"partial_rotary_factor": 0.25}, {"hidden_act": "gelu"}, {"layer_norm_eps": 1e-2}],
        mlp_gain=8.0, sharpness=4.0,

    )
    yield Case(
        "phi-qk-norm", {**base, "qk_layernorm": True, "num_key_value_heads": None},
        "qk_layernorm: self_attn.{q,k}_layernorm, LayerNorm with bias over head_dim, shared by the heads, before RoPE",
        [], silent=("k_layernorm.bias",),
    )


def gemma():
    base = family(
        "gemma", "GemmaForCausalLM", head_dim=16, num_attention_heads=2, num_key_value_heads=1, hidden_act="gelu",
        hidden_activation=DELETE, tie_word_embeddings=DELETE, rms_norm_eps=1e-6, pad_token_id=0,
    )
    yield Case(
        "gemma", base,
        """embeddings times sqrt(hidden_size); RMSNorm times (1 + weight); hidden_act `gelu` and hidden_activation null mean
        gelu_pytorch_tanh; head_dim (default 256); tied by default""",
        [{"rms_norm_eps": 1e-2}, {"rope_theta": 5000.0}, {"hidden_act": "relu"}],
    )
    gemma2 = {key: value for key, value in base.items() if key != "hidden_act"}
    gemma2.update(
        model_type="gemma2", architectures=["Gemma2ForCausalLM"], hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh", num_attention_heads=4, num_key_value_heads=2, head_dim=12,
        query_pre_attn_scalar=20, sliding_window=11, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
        num_hidden_layers=3, hidden_size=32,
    )
    yield Case(
        "gemma2", gemma2,
        """as gemma; scale query_pre_attn_scalar ** -0.5; attn_logit_softcapping c: c tanh(s / c) before the mask;
        final_logit_softcapping likewise on logits; even layers (0, 2, …) slide unless layer_types is given; four norms:
        input, post_attention (on the attention's output), pre_feedforward, post_feedforward (on the MLP's output)""",
        [{"query_pre_attn_scalar": 16}, {"attn_logit_softcapping": 3.0}, {"attn_logit_softcapping": None},
         {"final_logit_softcapping": 4.0}, {"final_logit_softcapping": None}, {"sliding_window": 12},
         {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, {"hidden_activation": "gelu"}],
        other_attention=None, sharpness=3.0,
    )
    gemma3 = {key: value for key, value in gemma2.items() if "softcapping" not in key and key != "hidden_act"}
    gemma3.update(model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], rope_theta=1000000.0)
    old = {**gemma3, "rope_local_base_freq": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
           "sliding_window_pattern": 3}
    yield Case(
        "gemma3-text-old", old,
        """as gemma2 without soft caps (null); self_attn.{q,k}_norm (1 + weight) per head before RoPE; layer i is full when
        (i + 1) % sliding_window_pattern (default 6) == 0; full layers use rope_theta and rope_scaling, sliding layers
        rope_local_base_freq (default 10000) unscaled""",
        [{"rope_local_base_freq": 10000.0}, {"rope_scaling": None}, {"rope_theta": 10000.0}, {"sliding_window": 12},
         {"sliding_window_pattern": 2}, {"query_pre_attn_scalar": 16}],
    )
    new = {key: value for key, value in gemma3.items() if key != "rope_theta"}
    new.update(
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
    )
    yield Case(
        "gemma3-text-new", new, "rope_parameters nested by layer type; layer_types; both soft caps given",
        [{"rope_parameters": {"sliding_attention": {"rope_theta": 10000.0}}},
         {"rope_parameters": {"full_attention": {"factor": 4.0}}}, {"final_logit_softcapping": None}],
        other_attention=None, sharpness=3.0,
    )


def cases():
    yield from gpt2()
    yield from llama()
    yield from llama_like()
    yield from phi()
    yield from gemma()
