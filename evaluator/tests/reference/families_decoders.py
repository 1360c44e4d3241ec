"""More causal families: parallel residuals and ALiBi, other dense decoders, mixtures of experts."""

import torch

from families_causal import DELETE, NO_ROPE, VOCAB, Case, family


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
    yield from parallel()
    yield from dense()
    yield from experts()
