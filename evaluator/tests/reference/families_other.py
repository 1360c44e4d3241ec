"""Masked and sequence-to-sequence families."""

import copy

import torch

import common
from families_causal import VOCAB, Case

MASK = 4  # the id of the mask token


def masked_windows(case, vocab):
    """Windows in which every fourth position or so is predicted: masked, replaced or kept, as in training."""
    generator = common.seed_of(case.name, 2)
    inputs, labels = [], []
    for ids in common.windows(case.name, vocab, first=5):
        chosen = (torch.rand(len(ids), generator=generator) < 0.25).tolist()
        chosen[len(ids) // 2] = True
        labels.append([token if chosen[i] else -100 for i, token in enumerate(ids)])
        other = torch.randint(5, vocab, (len(ids),), generator=generator).tolist()
        kinds = torch.rand(len(ids), generator=generator).tolist()
        inputs.append([
            token if not chosen[i] or kinds[i] > 0.9 else other[i] if kinds[i] > 0.8 else MASK
            for i, token in enumerate(ids)
        ])
        if case.padded:
            pad = case.config["pad_token_id"]
            inputs[-1] = [pad if i % 5 == 0 and not chosen[i] else token for i, token in enumerate(inputs[-1])]
    return inputs, labels


@torch.no_grad()
def masked_losses(model, inputs, labels):
    found = []
    for ids, wanted in zip(inputs, labels, strict=True):
        logits = copy.deepcopy(model)(input_ids=torch.tensor([ids])).logits[0]
        found.append(common.mean_nll(logits, torch.tensor(wanted)))
    return found


def pairs(case, vocab):
    """Sources and targets of different lengths; both end with the end token (2), as tokenizers write them."""
    sources = common.windows(case.name, vocab, (23, 40, 64), first=5)
    targets = common.windows(case.name + " targets", vocab, (17, 33, 9), first=5)
    sources, targets = [ids[:-1] + [2] for ids in sources], [ids[:-1] + [2] for ids in targets]
    if case.padded:
        targets = [[-100 if i % 4 == 1 else token for i, token in enumerate(ids)] for ids in targets]
    return sources, targets


@torch.no_grad()
def seq2seq_losses(model, sources, targets):
    """Teacher forcing: the decoder reads decoder_start_token_id and the target without its last token.

    It reads pad_token_id in place of a token that is not predicted.
    """
    found = []
    for source, target in zip(sources, targets, strict=True):
        read = [token if token >= 0 else model.config.pad_token_id for token in target]
        shifted = [model.config.decoder_start_token_id] + read[:-1]
        out = copy.deepcopy(model)(
            input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([shifted]), use_cache=False
        )
        found.append(common.mean_nll(out.logits[0], torch.tensor(target)))
    return found


BERT = dict(
    model_type="bert", architectures=["BertForMaskedLM"], vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2,
    num_attention_heads=4, intermediate_size=52, hidden_act="gelu", hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1, max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-12, pad_token_id=0,
)
MASKED = dict(kind="masked", silent=("key.bias", "k_lin.bias"), mlp_gain=4.0)


def as_published_in_2018(tensors):
    """BERT with the names of its first release, and with the heads that masked language models do not use."""
    renamed = {}
    for name, tensor in tensors.items():
        renamed[name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    width = tensors["bert.embeddings.word_embeddings.weight"].shape[1]
    renamed["bert.pooler.dense.weight"] = torch.ones(width, width)
    renamed["bert.pooler.dense.bias"] = torch.ones(width)
    renamed["cls.seq_relationship.weight"] = torch.ones(2, width)
    renamed["cls.seq_relationship.bias"] = torch.ones(2)
    renamed["bert.embeddings.position_ids"] = torch.arange(64)[None]
    return renamed


def masked():
    yield Case(
        "bert", BERT,
        """bert.embeddings.{word, position, token_type}_embeddings summed, LayerNorm;
        bert.encoder.layer.N.{attention.self.{query,key,value}, attention.output.{dense, LayerNorm}, intermediate.dense,
        output.{dense, LayerNorm}}, LayerNorm after each sum; no causal mask; cls.predictions.{transform.{dense, LayerNorm},
        bias}, hidden_act in the transform, decoder tied to the embeddings; token type 0; names gamma and beta, pooler,
        seq_relationship, position_ids occur""",
        [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-2}, {"num_attention_heads": 2}],
        layout=as_published_in_2018, leftover=("position_ids", "pooler.dense.weight", "pooler.dense.bias",
                                               "seq_relationship.weight", "seq_relationship.bias"),
        other_attention="sdpa", **{**MASKED, "mlp_gain": 8.0},
    )
    yield Case(
        "bert-untied", {**BERT, "tie_word_embeddings": False, "hidden_act": "relu", "type_vocab_size": 1},
        "tie_word_embeddings false: cls.predictions.decoder.{weight, bias}", [{"hidden_act": "gelu"}],
        **{**MASKED, "silent": ("key.bias", "predictions.bias")},
    )
    yield Case(
        "roberta",
        {**BERT, "model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "max_position_embeddings": 66,
         "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        """as bert under roberta.*; positions start at pad_token_id + 1 (2): max_position_embeddings holds 2 more rows; a pad
        token has position pad_token_id and the next one is not counted; lm_head.{dense, layer_norm, bias}, gelu whatever
        hidden_act, decoder tied""",
        [{"hidden_act": "gelu_new"}, {"pad_token_id": 0}], **{**MASKED, "mlp_gain": 8.0},
    )
    yield Case(
        "roberta-padding",
        {**BERT, "model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "max_position_embeddings": 66,
         "type_vocab_size": 3, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        "padding within windows, which is attended to as any other token",
        [{"pad_token_id": 0}], padded=True, **MASKED,
    )
    for other, architecture in (("xlm-roberta", "XLMRobertaForMaskedLM"), ("camembert", "CamembertForMaskedLM")):
        yield Case(
            other,
            {**BERT, "model_type": other, "architectures": [architecture], "max_position_embeddings": 66, "type_vocab_size": 1,
             "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
            "as roberta", [{"pad_token_id": 0}], **MASKED,
        )
    yield Case(
        "albert",
        {**BERT, "model_type": "albert", "architectures": ["AlbertForMaskedLM"], "embedding_size": 20, "num_hidden_layers": 3,
         "num_hidden_groups": 2, "inner_group_num": 2, "hidden_act": "gelu_new"},
        """as electra under albert.*; embeddings of embedding_size, albert.encoder.embedding_hidden_mapping_in to hidden_size always;
        albert.encoder.albert_layer_groups.G.albert_layers.J.{attention.{query,key,value,dense,LayerNorm}, ffn, ffn_output,
        full_layer_layer_norm}; layer i runs the inner_group_num layers of group int(i / (layers / groups)); predictions.{dense,
        LayerNorm, bias}, hidden_act in it; decoder tied""",
        [{"num_hidden_layers": 2}, {"hidden_act": "relu"}], **{**MASKED, "mlp_gain": 1.0},
    )
    yield Case(
        "distilbert",
        dict(model_type="distilbert", architectures=["DistilBertForMaskedLM"], vocab_size=VOCAB, dim=32, hidden_dim=52,
             n_layers=2, n_heads=4, activation="gelu", max_position_embeddings=64, sinusoidal_pos_embds=False,
             dropout=0.1, attention_dropout=0.1, pad_token_id=0, tie_weights_=True),
        """distilbert.embeddings.{word_embeddings, position_embeddings, LayerNorm}, no token types;
        distilbert.transformer.layer.N.{attention.{q,k,v,out}_lin, sa_layer_norm, ffn.{lin1, lin2}, output_layer_norm}, as bert;
        eps 1e-12; vocab_transform, activation, vocab_layer_norm, vocab_projector (weight tied, bias its own)""",
        [{"activation": "relu"}, {"n_heads": 2}], **MASKED,
    )
    yield Case(
        "electra",
        {**BERT, "model_type": "electra", "architectures": ["ElectraForMaskedLM"], "embedding_size": 20},
        """as bert under electra.*; embeddings of embedding_size, electra.embeddings_project to hidden_size when they differ;
        generator_predictions.{dense, LayerNorm} (gelu whatever hidden_act), generator_lm_head.bias, weight tied to the embeddings""",
        [{"hidden_act": "relu"}], **MASKED,
    )
    modern = dict(
        model_type="modernbert", architectures=["ModernBertForMaskedLM"], vocab_size=VOCAB, hidden_size=32,
        intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, hidden_activation="gelu",
        max_position_embeddings=64, norm_eps=1e-5, norm_bias=False, attention_bias=False, mlp_bias=False,
        decoder_bias=True, classifier_bias=False, classifier_activation="gelu", global_attn_every_n_layers=2,
        local_attention=12, global_rope_theta=160000.0, local_rope_theta=100.0, position_embedding_type="absolute",
        pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
    )
    yield Case(
        "modernbert", modern,
        """model.embeddings.{tok_embeddings, norm}; model.layers.N.{attn_norm (absent in layer 0: none), attn.Wqkv rows q|k|v,
        attn.Wo, mlp_norm, mlp.Wi rows input|gate: act(input) * gate, mlp.Wo}, pre-norm; model.final_norm;
        head.{dense, norm} with classifier_activation, decoder.bias, weight tied; LayerNorm without bias (norm_bias); layer i is
        global when i % global_attn_every_n_layers == 0, else local: |i - j| <= local_attention // 2; RoPE with global_rope_theta
        and local_rope_theta""",
        [{"local_attention": 14}, {"global_attn_every_n_layers": 3}, {"global_rope_theta": 100.0},
         {"local_rope_theta": 10000.0}, {"classifier_activation": "relu"}, {"hidden_activation": "relu"},
         {"norm_eps": 1e-2}],
        **MASKED,
    )
    new = {key: value for key, value in modern.items() if "rope_theta" not in key and key != "global_attn_every_n_layers"}
    yield Case(
        "modernbert-options",
        {**new, "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
         "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 160000.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}},
        "layer_types; rope_parameters nested by layer type; norm_bias, attention_bias, mlp_bias, classifier_bias true",
        [{"local_attention": 14}, {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}], **MASKED,
    )


def untied_head(tensors):
    """A head of its own beside the embeddings, as in T5 1.1."""
    embeddings = tensors["shared.weight"]
    noise = torch.randn(embeddings.shape, generator=common.seed_of("untied head"))
    return {**tensors, "lm_head.weight": (0.3 * noise).to(embeddings.dtype)}


def calm_t5(model):
    """T5 does not scale its scores: smaller queries, and larger position biases, keep the softmax soft."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("Attention.q.weight"):
                weight.mul_(0.4)
            if name.endswith("relative_attention_bias.weight"):
                weight.mul_(3)


def random_logits_bias(model):
    model.final_logits_bias.copy_(0.3 * torch.randn(model.final_logits_bias.shape, generator=common.seed_of("bias")))


def seq2seq():
    t5 = dict(
        model_type="t5", architectures=["T5ForConditionalGeneration"], vocab_size=VOCAB, d_model=32, d_kv=12, d_ff=44,
        num_layers=2, num_decoder_layers=3, num_heads=3, relative_attention_num_buckets=10,
        relative_attention_max_distance=24, layer_norm_epsilon=1e-6, feed_forward_proj="relu", dropout_rate=0.1,
        is_encoder_decoder=True, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )
    yield Case(
        "t5", t5,
        """shared.weight for both stacks; {encoder,decoder}.block.N.layer.0.{SelfAttention.{q,k,v,o}, layer_norm}, decoder
        layer.1.{EncDecAttention.{q,k,v,o}, layer_norm}, last layer.{DenseReluDense.{wi, wo}, layer_norm}; final_layer_norm;
        RMSNorm before, no biases; scores not scaled; block 0's SelfAttention.relative_attention_bias [buckets, heads] is added
        to the scores of all blocks of its stack (not to cross attention), buckets bidirectional in the encoder; heads * d_kv need
        not be d_model; tied head with decoder output times d_model ** -0.5; first decoder token decoder_start_token_id""",
        [{"relative_attention_max_distance": 16}, {"layer_norm_epsilon": 1e-2}, {"feed_forward_proj": "gelu"}],
        kind="seq2seq", adjust=calm_t5, sharpness=6.0,
    )
    yield Case(
        "t5-gated", {**t5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": None},
        """T5 1.1: gated-gelu: gelu_new(wi_0 x) * wi_1 x; lm_head.weight of its own, and then the output is not scaled;
        num_decoder_layers null: num_layers""",
        [{"feed_forward_proj": "gated-silu"}, {"tie_word_embeddings": True}],
        kind="seq2seq", adjust=calm_t5, layout=untied_head,
    )
    yield Case(
        "mt5",
        {**t5, "model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"], "feed_forward_proj": "gated-gelu",
         "tie_word_embeddings": False, "num_decoder_layers": 2},
        "as t5-gated; the output is never scaled", [{"feed_forward_proj": "gated-silu"}],
        kind="seq2seq", adjust=calm_t5, layout=untied_head,
    )
    bart = dict(
        model_type="bart", architectures=["BartForConditionalGeneration"], vocab_size=VOCAB, d_model=32, encoder_layers=2,
        decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=2, encoder_ffn_dim=44, decoder_ffn_dim=36,
        activation_function="gelu", max_position_embeddings=64, scale_embedding=True, is_encoder_decoder=True,
        decoder_start_token_id=2, forced_eos_token_id=2, bos_token_id=0, eos_token_id=2, pad_token_id=1, dropout=0.1,
    )
    bart_notes = """model.shared; model.{encoder,decoder}.{embed_positions [max + 2] from row 2 on, layernorm_embedding,
        layers.N.{self_attn.{q,k,v,out}_proj, self_attn_layer_norm, encoder_attn, encoder_attn_layer_norm (decoder), fc1, fc2,
        final_layer_norm}}; LayerNorm after each sum, biases everywhere; scale_embedding: embeddings times sqrt(d_model); tied
        head plus final_logits_bias [1, vocab]; head counts of encoder and decoder may differ"""
    yield Case(
        "bart", bart, bart_notes,
        [{"scale_embedding": False}, {"activation_function": "relu"}, {"decoder_attention_heads": 4},
         {"encoder_attention_heads": 2}],
        kind="seq2seq", adjust=random_logits_bias, silent=("k_proj.bias",), mlp_gain=4.0,
    )
    yield Case(
        "bart-ignored-targets", {**bart, "decoder_layers": 1, "encoder_layers": 1, "pad_token_id": 3},
        "targets with tokens that are not predicted: the decoder reads pad_token_id there",
        [{"pad_token_id": 4}],
        kind="seq2seq", padded=True, silent=("k_proj.bias",), mlp_gain=4.0,
    )
    yield Case(
        "bart-unscaled", {**bart, "scale_embedding": False, "decoder_layers": 1, "activation_function": "relu"},
        "scale_embedding false (default)", [{"scale_embedding": True}],
        kind="seq2seq", silent=("k_proj.bias",), mlp_gain=4.0,
    )


def cases():
    yield from masked()
    yield from seq2seq()
