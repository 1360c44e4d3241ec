"""Make the reference checkpoints and the losses PyTorch gives for them.

Every case is a tiny random checkpoint in its own folder beside this file:

    <case>/config.json, model.safetensors (or shards and their index)
    <case>/reference.json    windows of token ids, and each window's loss

and `refused/<name>/` holds configurations that an evaluator must refuse rather than measure
wrongly: `config.json`, and `expect.txt` with the words, one a line, that its message must contain.

A loss is what upstream InvarLock measures: batch of one, `model(input_ids, attention_mask, labels)`
in evaluation mode with eager attention, labels = input ids with -100 where the mask is 0, weights
converted to float32; it is the mean over the shifted labels that are not -100. `loss` is that number;
`loss_f64` is the same computed in float64 throughout, the better oracle.

The weights are large and no bias is zero, so that every option that a case is about moves its losses;
this program fails where one does not. Run by a maintainer, once, with PyTorch and transformers 5:

    python tests/reference/make_reference.py

It replaces all cases. The same versions of PyTorch and transformers give the same files.
"""

import dataclasses
import json
import pathlib
import shutil
import sys

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "evaluator/tests/reference"))

import common

VOCAB = 131
PAD = 0

# Every option named in a case's `matters` must move some window's loss by more than this.
VISIBLE = 1e-3
# float32 and float64 must agree this well, or the case is too ill-conditioned to be a reference.
CONDITIONED = 2e-5

GPT2 = dict(
    model_type="gpt2",
    architectures=["GPT2LMHeadModel"],
    vocab_size=VOCAB,
    n_positions=64,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_inner=58,
    activation_function="gelu_new",
    layer_norm_epsilon=1e-5,
    scale_attn_weights=True,
    scale_attn_by_inverse_layer_idx=False,
    reorder_and_upcast_attn=False,
    tie_word_embeddings=True,
    bos_token_id=PAD,
    eos_token_id=PAD,
)

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
    rms_norm_eps=1e-6,
    attention_bias=False,
    mlp_bias=False,
    tie_word_embeddings=False,
    bos_token_id=PAD,
    eos_token_id=PAD,
    pad_token_id=PAD,
)
# The two ways of writing RoPE: transformers before 5, and since.
ROPE_OLD = dict(rope_theta=10000.0, rope_scaling=None)
ROPE_NEW = dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))

MISTRAL = {
    **{k: v for k, v in LLAMA.items() if k not in ("attention_bias", "mlp_bias")},
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
}
QWEN2 = {**MISTRAL, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


@dataclasses.dataclass
class Case:
    name: str
    config: dict
    # Changes to the configuration, each of which must change the losses.
    matters: list = dataclasses.field(default_factory=list)
    store: torch.dtype = torch.float16
    # How the tensors are laid out in files: a function of the state dict, and a number of shards.
    layout: object = None
    shards: int = 1
    # The weights of the last norm, and so how far apart the logits are.
    sharpness: float = 1.5


# Sharp enough to tell the kinds of GELU apart, which differ by 5e-4 at most.
SHARP = 4.0


def cases():
    yield Case(
        "gpt2-gelu-new",
        {**GPT2, "n_positions": 210, "n_inner": None, "n_head": 2, "layer_norm_epsilon": 1e-2},
        [{"activation_function": "gelu"}, {"n_head": 4}, {"layer_norm_epsilon": 1e-5}],
        sharpness=SHARP,
    )
    for activation, other in [
        ("gelu", "gelu_new"),
        ("gelu_pytorch_tanh", "gelu"),
        ("gelu_fast", "gelu"),
        ("relu", "gelu"),
        ("silu", "gelu"),
    ]:
        yield Case(
            "gpt2-" + activation.replace("_", "-"),
            {**GPT2, "activation_function": activation},
            [{"activation_function": other}],
            sharpness=SHARP,
        )
    yield Case("gpt2-unscaled", {**GPT2, "scale_attn_weights": False}, [{"scale_attn_weights": True}])
    yield Case(
        "gpt2-inverse-layer-scale",
        {**GPT2, "scale_attn_by_inverse_layer_idx": True},
        [{"scale_attn_by_inverse_layer_idx": False}],
    )
    yield Case("gpt2-n-inner", {**GPT2, "n_inner": 46}, store=torch.float32)
    yield Case("gpt2-untied", {**GPT2, "tie_word_embeddings": False})
    yield Case(
        "gpt2-reorder-upcast",
        {**GPT2, "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        [{"scale_attn_by_inverse_layer_idx": False}],
    )
    yield Case("gpt2-hub-names", {**GPT2, "n_positions": 40}, layout=as_on_the_hub_of_2019)

    yield Case(
        "llama-gqa",
        {**LLAMA, **ROPE_NEW, "max_position_embeddings": 210, "rms_norm_eps": 1e-2},
        [{"rms_norm_eps": 1e-6}, {"rope_theta": 20000.0}],
        store=torch.float32,
    )
    yield Case("llama-head-dim", {**LLAMA, **ROPE_NEW, "head_dim": 12})
    yield Case(
        "llama-biases",
        {**LLAMA, **ROPE_NEW, "attention_bias": True, "mlp_bias": True},
        [{"attention_bias": False}, {"mlp_bias": False}],
    )
    yield Case("llama-tied", {**LLAMA, **ROPE_NEW, "tie_word_embeddings": True})
    yield Case(
        "llama-rope-theta-old",
        {**LLAMA, **ROPE_OLD, "rope_theta": 500000.0, "num_key_value_heads": None},
        [{"rope_theta": 10000.0}],
        layout=with_saved_rotary_buffers,
    )
    yield Case(
        "llama-rope-theta-new",
        {**LLAMA, "rope_parameters": dict(rope_type="default", rope_theta=500000.0), "num_key_value_heads": 1},
        [{"rope_theta": 10000.0}],
    )
    yield Case("llama-gelu", {**LLAMA, **ROPE_OLD, "hidden_act": "gelu"}, [{"hidden_act": "silu"}])
    yield Case("llama-bf16", {**LLAMA, **ROPE_NEW}, store=torch.bfloat16)
    yield Case("llama-sharded", {**LLAMA, **ROPE_NEW}, shards=3)

    yield Case(
        "mistral-sliding",
        {**MISTRAL, **ROPE_OLD, "sliding_window": 11},
        [{"sliding_window": 12}, {"sliding_window": None}],
    )
    yield Case("mistral-full", {**MISTRAL, **ROPE_NEW, "sliding_window": None}, [{"sliding_window": 11}])

    yield Case(
        "qwen2",
        # As published models have it: a window that is given but not used.
        {**QWEN2, **ROPE_OLD, "use_sliding_window": False, "sliding_window": 11, "max_window_layers": 1},
        [{"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 11}],
    )
    yield Case(
        "qwen2-sliding",
        {**QWEN2, **ROPE_OLD, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1,
         "max_position_embeddings": 210},
        [{"sliding_window": 12}, {"layer_types": ["full_attention"] * 2}, {"layer_types": ["sliding_attention"] * 2}],
    )
    yield Case(
        "qwen2-layer-types",
        # `layer_types`, where given, decides; `max_window_layers` alone would say the opposite.
        {**QWEN2, **ROPE_NEW, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1,
         "layer_types": ["sliding_attention", "full_attention"]},
        [{"layer_types": ["full_attention", "sliding_attention"]}],
    )


def refused():
    """Configurations to refuse: name, configuration, words that the message must contain."""
    yield "llama-rope-unknown", {**LLAMA, "rope_theta": 10000.0, "rope_scaling": {"type": "mrope", "factor": 2.0}}, [
        "RoPE type",
        "mrope",
    ]
    yield "llama-sliding", {**LLAMA, **ROPE_NEW, "layer_types": ["sliding_attention", "full_attention"]}, [
        "layer_types",
        "sliding_attention",
    ]
    yield "llama-softcap", {**LLAMA, **ROPE_NEW, "attn_logit_softcapping": 30.0}, ["attn_logit_softcapping"]
    yield "gemma-bidirectional", {**LLAMA, **ROPE_NEW, "model_type": "gemma", "use_bidirectional_attention": True}, [
        "use_bidirectional_attention",
    ]
    yield "mamba", {
        "model_type": "mamba",
        "architectures": ["MambaForCausalLM"],
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
    }, ["model_type", "mamba"]
    yield "gpt2-cross-attention", {**GPT2, "add_cross_attention": True}, ["add_cross_attention"]
    yield "llama-quantised", {
        **LLAMA,
        **ROPE_NEW,
        "quantization_config": {"quant_method": "gptq", "bits": 5, "group_size": 128},
    }, ["quantization_config.bits"]


def as_on_the_hub_of_2019(tensors):
    """GPT-2 as first published: no `transformer.` prefix, and the causal masks saved beside the weights."""
    named = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    positions = named["wpe.weight"].shape[0]
    for name in [n for n in named if n.endswith("attn.c_attn.weight")]:
        attention = name.removesuffix("c_attn.weight")
        named[attention + "bias"] = torch.tril(torch.ones(1, 1, positions, positions))
        named[attention + "masked_bias"] = torch.tensor(-1e4)
    return named


def with_saved_rotary_buffers(tensors):
    """Llama as saved by transformers before 4.32: the rotary frequencies saved beside the weights."""
    added = {}
    for name in [n for n in tensors if n.endswith("self_attn.q_proj.weight")]:
        # Not the right frequencies: a reader that uses these instead of the configuration is found out.
        added[name.removesuffix("q_proj.weight") + "rotary_emb.inv_freq"] = torch.ones(4)
    return {**tensors, **added}


def informative_weights(model, sharpness, generator):
    """Fill the model with weights among which none is negligible."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1 and name.endswith("weight"):
                last = name.endswith(("ln_f.weight", "model.norm.weight"))
                weight.copy_((sharpness if last else 1) * (1 + 0.3 * noise))
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)  # biases
            elif "wte" in name or "embed_tokens" in name or "wpe" in name:
                weight.copy_(0.4 * noise)
            elif "mlp.c_proj" in name or "down_proj" in name:
                weight.copy_(2 * noise)
            else:
                weight.copy_(0.25 * noise)


def write_checkpoint(case, folder):
    config = transformers.AutoConfig.for_model(**case.config)
    generator = common.seed_of(case.name)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    informative_weights(model, case.sharpness, generator)
    tensors = {name: tensor.to(case.store).contiguous() for name, tensor in model.state_dict().items()}
    if case.config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    if case.layout:
        tensors = case.layout(tensors)
    write_tensors(tensors, case.shards, folder)
    # Written from our own dictionary, not by transformers, which would make every style the newest.
    dtype = str(case.store).removeprefix("torch.")
    dtype_key = "dtype" if "rope_parameters" in case.config else "torch_dtype"
    common.write_json(folder / "config.json", {**case.config, dtype_key: dtype})


def write_tensors(tensors, shards, folder):
    if shards == 1:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        safetensors.torch.save_file(part, folder / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    common.write_json(folder / "model.safetensors.index.json", index)


def windows(positions, generator):
    """Token ids and masks: full, padded on the right, and of lengths that are no multiple of 8."""
    shapes = [(positions, real) for real in (positions, positions - 1, positions * 5 // 9, 2)]
    shapes += [(29, 29), (13, 7), (2, 2)]
    if positions > 200:
        shapes += [(200, 200), (200, 131)]
    for length, real in shapes:
        # Some real tokens are the padding token: only the mask says what is padding.
        ids = torch.randint(0, VOCAB, (length,), generator=generator)
        ids[real // 2] = PAD
        ids[real:] = PAD
        mask = (torch.arange(length) < real).long()
        yield ids, mask


def load(folder, **changes):
    config = transformers.AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        if key == "rope_theta":
            config.rope_parameters["rope_theta"] = value
        else:
            assert hasattr(config, key), key
            setattr(config, key, value)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    unexpected = [name for name in info["unexpected_keys"] if not name.endswith(("masked_bias", "inv_freq"))]
    assert changes or not unexpected, info
    return model.eval()


@torch.no_grad()
def losses(model, inputs):
    found = []
    for ids, mask in inputs:
        labels = ids.masked_fill(mask == 0, -100)
        out = model(input_ids=ids[None], attention_mask=mask[None], labels=labels[None])
        assert out.logits.dtype == out.loss.dtype == model.dtype
        found.append(out.loss.item())
    return found


def losses_f64(model, inputs):
    model = model.double()
    with common.float32_means_float64():
        for module in model.modules():
            if hasattr(module, "inv_freq"):
                module.inv_freq = module.compute_default_rope_parameters(model.config)[0]
                assert module.inv_freq.dtype == torch.float64
        return losses(model, inputs)


def largest_difference(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def make(case):
    folder = HERE / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_checkpoint(case, folder)

    positions = case.config.get("n_positions") or case.config["max_position_embeddings"]
    inputs = list(windows(positions, common.seed_of(case.name, 1)))
    measured = losses(load(folder), inputs)
    exact = losses_f64(load(folder), inputs)
    gap = largest_difference(measured, exact)
    assert gap < CONDITIONED, (case.name, gap)

    moved = {}
    for change in case.matters:
        moved[str(change)] = difference = largest_difference(measured, losses(load(folder, **change), inputs))
        assert difference > VISIBLE, (case.name, change, difference)

    write_reference(case, folder, inputs, measured, exact)
    size = sum(f.stat().st_size for f in folder.iterdir()) // 1024
    print(f"{case.name:26} {size:4} KiB  loss {min(measured):.2f}..{max(measured):.2f}  f32-f64 {gap:.1e}  ", end="")
    print(", ".join(f"{change} {difference:.1e}" for change, difference in moved.items()))


def write_reference(case, folder, inputs, measured, exact):
    """One line a window, so that the file can be read and compared."""
    head = {"case": case.name, "transformers_version": transformers.__version__, "torch_version": torch.__version__}
    rows = [
        {"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "loss": loss, "loss_f64": loss_f64}
        for (ids, mask), loss, loss_f64 in zip(inputs, measured, exact, strict=True)
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (folder / "reference.json").write_text(json.dumps(head)[:-1] + ', "windows": [\n' + lines + "\n]}\n")


def main():
    common.setup()
    for case in cases():
        make(case)
    for name, config, words in refused():
        folder = HERE / "refused" / name
        folder.mkdir(parents=True, exist_ok=True)
        common.write_json(folder / "config.json", config)
        (folder / "expect.txt").write_text("\n".join(words) + "\n")


if __name__ == "__main__":
    main()
