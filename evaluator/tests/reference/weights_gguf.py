"""GGUF files with a tokenizer inside.

Matrices are stored as llama.cpp's converter stores them: the rows of q and k of each head are permuted, so that
RoPE works on neighbouring pairs. The legacy types are quantised, and all types dequantised, by the `gguf`
package. It cannot quantise K types; their blocks are random bytes with scales that make weights of a usual size.
"""

import json

import gguf
import numpy
import tokenizers
import torch
import transformers

import common

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=300, hidden_size=64, intermediate_size=96,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_act="silu", max_position_embeddings=128,
    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
)
SMALL = {**CONFIG, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
# K types have blocks of 256 along a row.
WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_key_value_heads": 1}
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps in the sun.",
    "Two  spaces, a tab\tand a line\nbreak; 12345 123 numbers; don't stop!",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f600 end",
]
TRAINING = "the dog and the fox run in the sun, then the fox sleeps; another brown dog jumps over the other one 12345 times. " * 4


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def permuted(weight, heads):
    """Rows of each head: first halves and second halves alternate."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def restored(weight, heads):
    return weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def random_blocks(kind, shape, generator):
    """Blocks of a K type: random bytes, and half-precision scales chosen so that weights have a spread of some 0.09."""
    # Where the two-byte scales are, and their size; the second is that of the minimum.
    fields = {
        "Q2_K": [(80, 8e-3), (82, 12e-3)], "Q3_K": [(108, 2e-3)], "Q4_K": [(0, 4.5e-4), (2, 3.4e-3)],
        "Q5_K": [(0, 1.9e-4), (2, 2.9e-3)], "Q6_K": [(208, 7e-5)],
    }[kind]
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks = generator.integers(0, 256, (shape[0] * shape[1] // 256, size), dtype=numpy.uint8)
    for place, scale in fields:
        values = (scale * generator.uniform(0.7, 1.3, len(blocks))).astype(numpy.float16)
        blocks[:, place : place + 2] = values.view(numpy.uint8).reshape(-1, 2)
    return blocks.reshape(shape[0], -1)


def train_bpe():
    """A byte-level BPE of 300 tokens: its vocabulary in order of ids, and its merges."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=298, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.train_from_iterator([TRAINING], trainer)
    written = tokenizers.Tokenizer.to_str(model)
    description = json.loads(written)["model"]
    vocabulary = sorted(description["vocab"], key=description["vocab"].get)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in description["merges"]]
    return vocabulary, merges


# How text is split before the merges: Llama 3's expression for llama-bpe; that of GPT-2 is built in.
LLAMA_BPE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def bpe_ids(pre, text):
    """The tokens of a text, with the begin token, by the definition of the pre-tokenizer."""
    vocabulary, merges = train_bpe()
    ids = {token: i for i, token in enumerate(vocabulary)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs, ignore_merges=pre == "llama-bpe"))
    bytes_only = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "gpt-2")
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA_BPE), "isolated")
    tokenizer.pre_tokenizer = (
        bytes_only if pre == "gpt-2" else tokenizers.pre_tokenizers.Sequence([split, bytes_only])
    )
    return [len(vocabulary)] + tokenizer.encode(text).ids


def add_bpe(writer, pre):
    vocabulary, merges = train_bpe()
    tokens = vocabulary + ["<|begin|>", "<|end|>"]
    kinds = [gguf.TokenType.NORMAL] * len(vocabulary) + [gguf.TokenType.CONTROL] * 2
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(True)
    return len(tokens)


def add_spm(writer):
    """SentencePiece: control tokens, bytes, merged pieces in order of their scores, then characters."""
    letters = list("\u2581abcdefghijklmnopqrstuvwxyzT.,;'!")
    merged = ["\u2581t", "he", "\u2581the", "\u2581d", "og", "an", "\u2581dog", "\u2581s", "un"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + merged + letters
    tokens = tokens[:300]
    scores = [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - 259)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    return len(tokens)


def add_settings(writer, config):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)


def make(base, name, kind, config, tokenizer="bpe", rope_factors=None):
    folder = common.fresh(base.FOLDER / name)
    model = base.model_of(config, name)
    generator = numpy.random.default_rng(common.seed_of(name).initial_seed())
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_name(name)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind}", gguf.LlamaFileType.MOSTLY_Q4_K_M))
    add_settings(writer, config)
    tokens = add_spm(writer) if tokenizer == "spm" else add_bpe(writer, tokenizer)
    assert tokens == config["vocab_size"], tokens
    writer.add_vocab_size(tokens)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    type = gguf.GGMLQuantizationType[kind]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() == 1:
                writer.add_tensor(gguf_name(key), weight.numpy())
                continue
            head = next((count for part, count in heads.items() if part in key), None)
            matrix = weight.numpy() if head is None else permuted(weight.numpy(), head)
            if kind.endswith("_K"):
                data = random_blocks(kind, matrix.shape, generator)
            else:
                data = gguf.quantize(numpy.ascontiguousarray(matrix), type)
            writer.add_tensor(gguf_name(key), data, raw_dtype=type)
            meaning = gguf.dequantize(data, type).reshape(matrix.shape).astype(numpy.float32)
            weight.copy_(torch.from_numpy((meaning if head is None else restored(meaning, head)).copy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    base.write_losses(folder, model, texts=TEXTS, token_ids=tokenize(folder, tokenizer))


def tokenize(folder, tokenizer):
    """The tokens of the texts; transformers reads SentencePiece, and byte-level BPE is told apart here."""
    reader = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    read = [reader(text)["input_ids"] for text in TEXTS]
    if tokenizer == "spm":
        return read
    wanted = [bpe_ids(tokenizer, text) for text in TEXTS]
    if read != wanted:
        print(f"{folder.name}: transformers splits text another way than pre-tokenizer {tokenizer}")
    return wanted


LLAMA3 = dict(
    rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)


def llama3_factors():
    """`rope_freqs.weight`: what the frequencies of Llama 3 are divided by."""
    config = transformers.AutoConfig.for_model(**{**CONFIG, "rope_parameters": LLAMA3, "rope_theta": None})
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config)
    size = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    plain = 1.0 / (10000.0 ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    return (plain / scaled).numpy()


def cases(base):
    for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        config = SMALL if kind in ("F32", "F16", "BF16") else CONFIG
        pre = "gpt-2" if kind in ("Q4_0", "F16") else "llama-bpe"
        yield f"gguf-{kind.lower()}", f"{kind}, tokenizer gpt2 with pre-tokenizer {pre}", (
            lambda kind=kind, config=config, pre=pre: make(base, f"gguf-{kind.lower()}", kind, config, pre)
        )
    for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):
        yield f"gguf-{kind.lower()}", f"{kind}, random blocks", (
            lambda kind=kind: make(base, f"gguf-{kind.lower()}", kind, {**WIDE, "tie_word_embeddings": kind != "Q4_K"}, "llama-bpe")
        )
    yield "gguf-q8_0-spm-tied", "tokenizer llama (SentencePiece); no output.weight: tied", (
        lambda: make(base, "gguf-q8_0-spm-tied", "Q8_0", {**CONFIG, "tie_word_embeddings": True}, "spm")
    )
    scaled = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    scaled.update(rope_parameters=LLAMA3, num_hidden_layers=1)
    yield "gguf-rope-freqs", "rope_freqs.weight: each RoPE frequency is divided by its element", (
        lambda: make(base, "gguf-rope-freqs", "Q8_0", {**scaled, "rope_theta": 10000.0}, "llama-bpe", llama3_factors())
    )
