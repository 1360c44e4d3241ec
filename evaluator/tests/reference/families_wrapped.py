"""Vision-language checkpoints of which the text part is measured: windows of text only, no image.

The tensors of the vision tower and of the projector are stored, because a reader must leave them out by name.
"""

from families_causal import DELETE, LLAMA, ROPE16, VOCAB, Case

VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
WRAPPED = dict(kind="wrapped", unused="vision|visual|projector")


def text_config(base=LLAMA, **changes):
    merged = {key: value for key, value in base.items() if key != "architectures"} | changes
    return {key: value for key, value in merged.items() if value is not DELETE}


def cases():
    yield Case(
        "llava",
        dict(model_type="llava", architectures=["LlavaForConditionalGeneration"], image_token_index=VOCAB - 1,
             projector_hidden_act="gelu", vision_feature_layer=-1, vision_feature_select_strategy="default",
             vision_config={"model_type": "clip_vision_model", "projection_dim": 8, **VISION},
             text_config=text_config(rms_norm_eps=1e-4)),
        """text_config is a llama configuration; tensors language_model.model.*, language_model.lm_head.*; vision_tower.* and
        multi_modal_projector.* are left out""",
        [{"text_config": {"rms_norm_eps": 1e-2}}, {"text_config": {"rope_theta": 5000.0}}], **WRAPPED,
    )
    yield Case(
        "mistral3",
        dict(model_type="mistral3", architectures=["Mistral3ForConditionalGeneration"], image_token_index=VOCAB - 1,
             projector_hidden_act="gelu", vision_feature_layer=-1, multimodal_projector_bias=False, spatial_merge_size=2,
             tie_word_embeddings=False,
             vision_config={"model_type": "pixtral", "num_channels": 3, "rope_theta": 10000.0, "head_dim": 8, **VISION},
             text_config=text_config(model_type="mistral", head_dim=12, sliding_window=None)),
        "text_config is a mistral configuration; tensors as llava", [{"text_config": {"rope_theta": 5000.0}}], **WRAPPED,
    )
    yield Case(
        "gemma3",
        dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"], mm_tokens_per_image=4,
             boi_token_index=VOCAB - 3, eoi_token_index=VOCAB - 2, image_token_index=VOCAB - 1,
             vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
             text_config=text_config(
                 model_type="gemma3_text", head_dim=12, num_hidden_layers=3, query_pre_attn_scalar=20, sliding_window=11,
                 sliding_window_pattern=3, rope_local_base_freq=500.0, rope_theta=1000000.0, hidden_act=DELETE,
                 hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=DELETE, pad_token_id=0,
                 rope_scaling={"rope_type": "linear", "factor": 8.0})),
        """text_config is a gemma3_text configuration; language_model.model.*, tied; attention is causal, because no window holds
        an image""",
        [{"text_config": {"sliding_window": 12}}, {"text_config": {"rope_local_base_freq": 10000.0}}], **WRAPPED,
    )
    vision = dict(depth=1, embed_dim=8, hidden_size=32, num_heads=1, mlp_ratio=1, patch_size=4, spatial_merge_size=2)
    qwen = {key: value for key, value in ROPE16.items() if key not in ("head_dim", "model_type", "architectures")}
    yield Case(
        "qwen2-vl",
        dict(model_type="qwen2_vl", architectures=["Qwen2VLForConditionalGeneration"], **{**qwen, "rope_theta": 10000.0},
             use_sliding_window=False, sliding_window=11, max_window_layers=1, image_token_id=VOCAB - 1,
             video_token_id=VOCAB - 2, vision_start_token_id=VOCAB - 3, vision_end_token_id=VOCAB - 4,
             vision_config=vision, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]}),
        """the configuration of a qwen2 at the top level; model.* and lm_head.* are the text's, visual.* is left out; rope type
        mrope is default for text: the three positions of a token are equal""",
        [{"rope_theta": 5000.0}, {"rms_norm_eps": 1e-2}], **WRAPPED,
    )
