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
    attention: str = "eager"
    # Another implementation of attention in transformers that must agree.
    other_attention: str | None = "sdpa"
    first_id: int = 0


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


def parallel():
    """Families with a parallel residual, ALiBi, or layouts of their own."""
    neox = dict(
        model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"], vocab_size=VOCAB, hidden_size=32,
        intermediate_size=52, num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu", layer_norm_eps=1e-5,
        max_position_embeddings=64, rotary_pct=0.25, rotary_emb_base=10000, use_parallel_residual=True,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )
    yield Case(
        "gpt-neox", neox,
        """gpt_neox.{embed_in, layers.N.{input_layernorm, attention.query_key_value, attention.dense,
        post_attention_layernorm, mlp.dense_h_to_4h, mlp.dense_4h_to_h}, final_layer_norm}, embed_out; LayerNorm with bias,
        biases everywhere but embed_out; query_key_value rows per head: q|k|v; x + attn(input_layernorm(x)) +
        mlp(post_attention_layernorm(x)); first int(head_dim * rotary_pct) elements rotate, base rotary_emb_base; buffers
        attention.{bias, masked_bias, rotary_emb.inv_freq} of old files are ignored""",
        [{"hidden_act": "gelu_new"}, {"rotary_pct": 0.5}, {"use_parallel_residual": False}, {"rotary_emb_base": 5000},
         {"layer_norm_eps": 1e-2}],
        mlp_gain=8.0, sharpness=4.0, layout=with_old_neox_buffers, leftover=("attention.bias", "masked_bias", "inv_freq"), store=torch.float16,
    )
    new = {key: value for key, value in neox.items() if not key.startswith("rotary")}
    yield Case(
        "gpt-neox-sequential",
        {**new, "use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new",
         "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        "use_parallel_residual false; attention_bias false; rope_parameters with partial_rotary_factor; gelu_new; scaling",
        [{"rope_parameters": {"partial_rotary_factor": 0.25}}, {"rope_parameters": {"factor": 4.0}}],
    )
    gptj = dict(
        model_type="gptj", architectures=["GPTJForCausalLM"], vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2,
        n_head=2, n_inner=None, rotary_dim=8, activation_function="gelu_new", layer_norm_epsilon=1e-5,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )
    yield Case(
        "gptj", gptj,
        """transformer.{wte, h.N.{ln_1, attn.{q,k,v,out}_proj, mlp.fc_in, mlp.fc_out}, ln_f}, lm_head with bias; weights
        [out, in]; no bias in attention; x + attn(ln_1(x)) + mlp(ln_1(x)); first rotary_dim elements rotate in neighbouring
        pairs (0,1), (2,3), …, base 10000""",
        [{"rotary_dim": 4}, {"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-2}], mlp_gain=8.0, sharpness=4.0,
        other_attention=None,
    )
    falcon = dict(
        model_type="falcon", architectures=["FalconForCausalLM"], vocab_size=VOCAB, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=4, layer_norm_epsilon=1e-5, alibi=False, bias=False,
        multi_query=True, new_decoder_architecture=False, parallel_attn=True, bos_token_id=1, eos_token_id=2,
    )
    yield Case(
        "falcon-7b-style", falcon,
        """transformer.{word_embeddings, h.N.{input_layernorm, self_attention.query_key_value, self_attention.dense,
        mlp.dense_h_to_4h, mlp.dense_4h_to_h}, ln_f}, tied lm_head; LayerNorm with bias, linear without unless `bias`;
        multi_query: rows q heads | one k | one v; x + attn(n) + mlp(n); gelu; ffn 4 * hidden_size; RoPE of whole heads""",
        [{"layer_norm_epsilon": 1e-2}, {"rope_theta": 5000.0}, {"activation": "gelu_new"}], mlp_gain=8.0,
    )
    yield Case(
        "falcon-new-decoder",
        {**falcon, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "ffn_hidden_size": 52,
         "multi_query": True, "hidden_size": 48, "num_attention_heads": 6},
        """new_decoder_architecture: query_key_value rows per kv group: its q heads | k | v, num_kv_heads groups; ln_attn for
        attention and ln_mlp for the MLP (both of x); bias true: every linear layer has one; ffn_hidden_size""",
        [], mlp_gain=4.0,
    )
    yield Case(
        "falcon-11b-style",
        {**falcon, "new_decoder_architecture": True, "num_kv_heads": 1, "num_ln_in_parallel_attn": 1,
         "tie_word_embeddings": False},
        "num_ln_in_parallel_attn 1: one input_layernorm for both; untied lm_head.weight",
        [], mlp_gain=4.0,
    )
    yield Case(
        "falcon-rw-style",
        {**falcon, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False, "hidden_size": 64,
         "num_attention_heads": 16, "num_hidden_layers": 1, "ffn_hidden_size": 48},
        """alibi: score = (q·k + a) / sqrt(head_dim), a[head, key j] = bfloat16(bfloat16(slope) * j); slopes as bloom;
        multi_query false: query_key_value rows per head q|k|v; parallel_attn false: sequential, post_attention_layernorm""",
        [{"alibi": False}], attention="sdpa", other_attention=None, mlp_gain=4.0,
    )
    bloom = dict(
        model_type="bloom", architectures=["BloomForCausalLM"], vocab_size=VOCAB, hidden_size=36, n_layer=2, n_head=6,
        layer_norm_epsilon=1e-5, apply_residual_connection_post_layernorm=False, pad_token_id=3, bos_token_id=1,
        eos_token_id=2,
    )
    yield Case(
        "bloom", bloom,
        """word_embeddings, word_embeddings_layernorm, h.N.{input_layernorm, self_attention.query_key_value (rows per head
        q|k|v), self_attention.dense, post_attention_layernorm, mlp.dense_h_to_4h, mlp.dense_4h_to_h}, ln_f, with or without
        `transformer.`; biases everywhere; tied head; GELU: x * 0.5 * (1 + tanh(0.79788456 x (1 + 0.044715 x^2))); no
        positions; ALiBi after the scale: q·k / sqrt(head_dim) + slope * j; slopes: with p = largest power of two <= heads,
        2^(-8 i / p), i = 1..p, then 2^(-4 i / p), i = 1, 3, 5, …""",
        [{"n_head": 4}, {"layer_norm_epsilon": 1e-2}], layout=without_prefix("transformer."), other_attention=None,
    )
    yield Case(
        "bloom-post-layernorm", {**bloom, "apply_residual_connection_post_layernorm": True, "hidden_size": 32, "n_head": 4},
        "apply_residual_connection_post_layernorm: the residual is the output of the LayerNorm, not its input",
        [{"apply_residual_connection_post_layernorm": False}], other_attention=None,
    )


def without_prefix(prefix):
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def with_old_neox_buffers(tensors):
    """Pythia as published: `embed_out`, and buffers saved beside the weights."""
    result = {name.replace("lm_head.", "embed_out."): tensor for name, tensor in tensors.items()}
    for name in [n for n in tensors if n.endswith("query_key_value.weight")]:
        attention = name.removesuffix("query_key_value.weight")
        result[attention + "bias"] = torch.tril(torch.ones(1, 1, 16, 16, dtype=torch.bool))
        result[attention + "masked_bias"] = torch.tensor(-1e9, dtype=torch.float32)
        # Not the right frequencies: a reader that uses these instead of the configuration is found out.
        result[attention + "rotary_emb.inv_freq"] = torch.ones(2)
    return result


def dense():
    """Other dense decoders."""
    olmo = family(
        "olmo", "OlmoForCausalLM", rms_norm_eps=DELETE, clip_qkv=1.5, attention_bias=False, num_key_value_heads=2,
        rope_theta=10000.0, pad_token_id=1,
    )
    yield Case(
        "olmo", olmo,
        """LayerNorm without weight and bias, eps 1e-5, computed in float32: no norm tensors at all; clip_qkv c: q, k, v clamped
        to [-c, c] after the projection, before RoPE""",
        [{"clip_qkv": 2.0}, {"clip_qkv": None}],
    )
    yield Case(
        "olmo2", family("olmo2", "Olmo2ForCausalLM", rms_norm_eps=1e-6, rope_theta=500000.0, attention_bias=False),
        """no input norms: x + post_attention_layernorm(attn(x)), x + post_feedforward_layernorm(mlp(x)); self_attn.q_norm
        [heads * head_dim] and k_norm [kv heads * head_dim]: RMSNorm over the whole projection, before the split in heads""",
        [{"rms_norm_eps": 1e-2}, {"rope_theta": 10000.0}],
    )
    yield Case(
        "granite",
        family("granite", "GraniteForCausalLM", tie_word_embeddings=True, attention_bias=True, mlp_bias=False,
               embedding_multiplier=3.0, logits_scaling=1.7, residual_multiplier=0.6, attention_multiplier=0.2),
        """embeddings times embedding_multiplier; scores times attention_multiplier in place of 1/sqrt(head_dim); outputs of
        attention and MLP times residual_multiplier before they are added; logits divided by logits_scaling""",
        [{"embedding_multiplier": 4.0}, {"logits_scaling": 2.0}, {"residual_multiplier": 0.5}, {"attention_multiplier": 0.3}],
    )
    stablelm = family(
        "stablelm", "StableLmForCausalLM", rms_norm_eps=DELETE, layer_norm_eps=1e-5, partial_rotary_factor=0.25,
        hidden_size=48, num_attention_heads=3, num_key_value_heads=3, use_qkv_bias=True, qk_layernorm=False,
        use_parallel_residual=False,
    )
    yield Case(
        "stablelm", stablelm,
        """LayerNorm with bias (input_layernorm, post_attention_layernorm, model.norm); use_qkv_bias: q, k, v biases, o none;
        partial_rotary_factor (default 0.25); gated MLP as llama""",
        [{"partial_rotary_factor": 0.5}, {"layer_norm_eps": 1e-2}, {"use_qkv_bias": False}], silent=("k_proj.bias",),
    )
    yield Case(
        "stablelm-parallel",
        {**stablelm, "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": False, "num_attention_heads": 6,
         "num_key_value_heads": 2, "partial_rotary_factor": 0.5},
        """StableLM-2-12B: x + attn(input_layernorm(x)) + mlp(input_layernorm(x)), no post_attention_layernorm;
        self_attn.{q,k}_layernorm.norms.H.weight [head_dim]: one LayerNorm without bias per head, before RoPE""",
        [],
    )
    yield Case(
        "starcoder2",
        family("starcoder2", "Starcoder2ForCausalLM", rms_norm_eps=DELETE, norm_epsilon=1e-5, use_bias=True,
               hidden_act="gelu_pytorch_tanh", sliding_window=11, tie_word_embeddings=DELETE, rope_theta=1000000.0),
        """LayerNorm with bias; mlp.c_fc, act, c_proj, not gated; use_bias: every linear layer but the head; sliding_window;
        tied by default""",
        [{"norm_epsilon": 1e-2}, {"sliding_window": 12}, {"hidden_act": "gelu"}], mlp_gain=8.0,
    )
    yield Case(
        "smollm3",
        family("smollm3", "SmolLM3ForCausalLM", pad_token_id=0, num_hidden_layers=4, intermediate_size=36, no_rope_layer_interval=2,
               no_rope_layers=[1, 0, 1, 1], rope_theta=2000000.0, tie_word_embeddings=DELETE, use_sliding_window=False,
               sliding_window=None, attention_bias=False, mlp_bias=False),
        """no_rope_layers[i] == 0: layer i does not rotate q and k; when absent, (i + 1) % no_rope_layer_interval (default 4)
        != 0; tied by default""",
        [{"no_rope_layers": [1, 1, 1, 0]}, {"no_rope_layers": None}, {"rope_theta": 10000.0}],
    )
    yield Case(
        "smollm3-interval-sliding",
        family("smollm3", "SmolLM3ForCausalLM", pad_token_id=0, num_hidden_layers=3, no_rope_layer_interval=2, use_sliding_window=True,
               sliding_window=11, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
        "use_sliding_window: layers without RoPE slide, those with RoPE are full",
        [{"no_rope_layer_interval": 3}, {"sliding_window": 12}], silent=("layers.1.self_attn.k_proj.bias",),
    )
    cohere = family(
        "cohere", "CohereForCausalLM", rms_norm_eps=DELETE, layer_norm_eps=1e-5, logit_scale=0.7,
        tie_word_embeddings=DELETE, use_qk_norm=False, attention_bias=False, rope_theta=10000.0,
    )
    yield Case(
        "cohere", cohere,
        """LayerNorm with weight only; x + attn(n) + mlp(n), n = input_layernorm(x), no post_attention_layernorm; RoPE in
        neighbouring pairs (0,1), (2,3), …; logits times logit_scale; tied by default; rope_theta default 500000""",
        [{"logit_scale": 0.5}, {"layer_norm_eps": 1e-2}, {"rope_theta": 5000.0}],
    )
    yield Case(
        "cohere-qk-norm", {**cohere, "use_qk_norm": True, "attention_bias": True},
        "use_qk_norm: self_attn.{q,k}_norm.weight [heads, head_dim], LayerNorm over each head's elements, before RoPE", [],
    )
    yield Case(
        "cohere2",
        family("cohere2", "Cohere2ForCausalLM", rms_norm_eps=DELETE, layer_norm_eps=1e-5, logit_scale=0.7,
               tie_word_embeddings=DELETE, sliding_window=11, sliding_window_pattern=2, head_dim=12, num_hidden_layers=3),
        """as cohere without qk norm; layer i is full when (i + 1) % sliding_window_pattern (default 4) == 0; full layers do
        not rotate, sliding layers do""",
        [{"sliding_window": 12}, {"sliding_window_pattern": 3}],
    )
    glm = family(
        "glm", "GlmForCausalLM", head_dim=16, attention_bias=True, partial_rotary_factor=0.5, rms_norm_eps=1.5625e-7,
        pad_token_id=0,
    )
    yield Case(
        "glm", glm,
        """as llama; attention_bias: q, k, v (o none); mlp.gate_up_proj fused, rows gate|up; first head_dim *
        partial_rotary_factor (default 0.5) elements rotate in neighbouring pairs""",
        [{"partial_rotary_factor": 1.0}, {"rms_norm_eps": 1e-2}],
    )
    yield Case(
        "glm4", {**glm, "model_type": "glm4", "architectures": ["Glm4ForCausalLM"], "attention_bias": False},
        """as glm, and post_self_attn_layernorm on the attention's output, post_mlp_layernorm on the MLP's output, before they
        are added""",
        [{"partial_rotary_factor": 1.0}],
    )
    opt = dict(
        model_type="opt", architectures=["OPTForCausalLM"], vocab_size=VOCAB, hidden_size=32, word_embed_proj_dim=32,
        ffn_dim=52, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, do_layer_norm_before=True,
        activation_function="relu", pad_token_id=1, bos_token_id=2, eos_token_id=2,
    )
    yield Case(
        "opt", opt,
        """model.decoder.{embed_tokens, embed_positions [max + 2], layers.N.{self_attn_layer_norm,
        self_attn.{q,k,v,out}_proj, final_layer_norm, fc1, fc2}, final_layer_norm}; learned positions from row 2 on;
        LayerNorm with bias, biases everywhere; relu; tied head""",
        [{"activation_function": "gelu"}, {"num_attention_heads": 2}], silent=("k_proj.bias",), store=torch.float16,
    )
    yield Case(
        "opt-350m-style", {**opt, "word_embed_proj_dim": 24, "do_layer_norm_before": False},
        """do_layer_norm_before false: LayerNorm after the sum, no final_layer_norm; word_embed_proj_dim != hidden_size:
        decoder.project_in and project_out [no bias] around the layers""",
        [], silent=("k_proj.bias",), store=torch.float16,
    )
    yield Case(
        "opt-no-bias",
        {**opt, "enable_bias": False, "layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True,
         "activation_function": "gelu"},
        """Galactica: enable_bias false: no biases in linear layers; layer_norm_elementwise_affine false: norms without
        tensors; _remove_final_layer_norm true: none at the end""",
        [{"activation_function": "relu"}, {"_remove_final_layer_norm": False}],
    )


def experts():
    """Mixtures of experts."""
    yield Case(
        "mixtral",
        family("mixtral", "MixtralForCausalLM", intermediate_size=24, num_local_experts=4, num_experts_per_tok=2,
               sliding_window=None, rope_theta=1000000.0),
        """block_sparse_moe.gate [experts, hidden], block_sparse_moe.experts.E.{w1 gate, w3 up, w2 down}; softmax over all
        experts, the num_experts_per_tok largest, divided by their sum""",
        [{"num_experts_per_tok": 1}, {"rope_theta": 10000.0}],
    )
    qwen2_moe = family(
        "qwen2_moe", "Qwen2MoeForCausalLM", intermediate_size=40, moe_intermediate_size=16, num_experts=6,
        num_experts_per_tok=3, shared_expert_intermediate_size=20, norm_topk_prob=False, decoder_sparse_step=1,
        mlp_only_layers=[], use_sliding_window=False, sliding_window=11, max_window_layers=1, hidden_size=24,
    )
    yield Case(
        "qwen2-moe", qwen2_moe,
        """biases on q, k, v; mlp.gate, mlp.experts.E.{gate,up,down}_proj, plus sigmoid(mlp.shared_expert_gate(x)) *
        mlp.shared_expert(x); norm_topk_prob false: the softmax's values are used undivided""",
        [{"num_experts_per_tok": 2}, {"norm_topk_prob": True}],
    )
    yield Case(
        "qwen2-moe-options",
        {**qwen2_moe, "num_hidden_layers": 4, "num_experts": 3, "num_experts_per_tok": 2, "norm_topk_prob": True,
         "decoder_sparse_step": 2, "mlp_only_layers": [3], "use_sliding_window": True, "max_window_layers": 3},
        """decoder_sparse_step s: layer i has experts when (i + 1) % s == 0 and i is not in mlp_only_layers, else a dense MLP
        of intermediate_size; norm_topk_prob true; use_sliding_window: even layers below max_window_layers slide""",
        [{"norm_topk_prob": False}, {"sliding_window": 12}, {"max_window_layers": 1}, {"use_sliding_window": False}],
    )
    yield Case(
        "qwen3-moe",
        family("qwen3_moe", "Qwen3MoeForCausalLM", NO_ROPE, head_dim=12, intermediate_size=40, moe_intermediate_size=16,
               num_experts=6, num_experts_per_tok=3, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[0],
               rope_theta=1000000.0, use_sliding_window=False, sliding_window=None),
        "as qwen3 (q_norm, k_norm per head); mlp.gate and mlp.experts.E as qwen2_moe, no shared expert; mlp_only_layers",
        [{"num_experts_per_tok": 2}, {"norm_topk_prob": False}],
    )
    olmoe = family(
        "olmoe", "OlmoeForCausalLM", intermediate_size=16, num_experts=6, num_experts_per_tok=3, norm_topk_prob=False,
        clip_qkv=None, attention_bias=False, num_key_value_heads=4,
    )
    yield Case(
        "olmoe", olmoe,
        """pre-norm as llama; self_attn.{q,k}_norm RMSNorm over the whole projection; mlp.gate, mlp.experts.E of
        intermediate_size on every layer; norm_topk_prob (default false)""",
        [{"num_experts_per_tok": 2}, {"norm_topk_prob": True}],
    )
    yield Case(
        "olmoe-clip", {**olmoe, "clip_qkv": 0.8, "num_key_value_heads": 2, "norm_topk_prob": True, "num_experts": 4},
        "clip_qkv c: q, k, v clamped to [-c, c] after the norms, before RoPE", [{"clip_qkv": 1.5}, {"clip_qkv": None}],
    )
    yield Case(
        "gpt-oss",
        family("gpt_oss", "GptOssForCausalLM", head_dim=16, num_attention_heads=4, num_key_value_heads=2,
               intermediate_size=20, num_local_experts=4, num_experts_per_tok=2, sliding_window=11, swiglu_limit=1.2,
               attention_bias=True, layer_types=["sliding_attention", "full_attention"], rope_theta=1000.0,
               max_position_embeddings=256,
               rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0, "truncate": False,
                             "original_max_position_embeddings": 64}),
        """biases on q, k, v, o; self_attn.sinks [heads]: one more score per head in the softmax's sum, without value;
        layer_types (default: even layers slide); yarn with truncate false; mlp.router.{weight, bias}, softmax over the chosen
        top k only; mlp.experts.{gate_up_proj [E, hidden, 2 ffn], gate_up_proj_bias, down_proj [E, ffn, hidden],
        down_proj_bias}: gate = columns 0, 2, …, up = 1, 3, …; gate <= limit, |up| <= limit (swiglu_limit, default 7);
        (up + 1) * gate * sigmoid(1.702 gate)""",
        [{"num_experts_per_tok": 1}, {"swiglu_limit": 7.0}, {"sliding_window": 12}, {"rope_scaling": {"truncate": True}},
         {"layer_types": ["full_attention", "sliding_attention"]}],
        other_attention=None,
    )


def cases():
    yield from gpt2()
    yield from llama()
    yield from llama_like()
    yield from phi()
    yield from gemma()
    yield from parallel()
    yield from dense()
    yield from experts()
