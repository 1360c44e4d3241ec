"""Formats of a whole checkpoint: plain types, bitmasks, MXFP4, HQQ and LoRA folders."""

import json
import math

import safetensors.torch
import torch
import transformers

import common
import families_decoders
from weights_linear import FP8, ct_config, fp8


def llama_tensors(base, name):
    """A model, and a copy of its tensors, for a case that stores them its own way."""
    model = base.model_of(base.CONFIG, name)
    return model, {key: weight.detach().clone() for key, weight in model.named_parameters()}


def finish(base, folder, model, stored, meaning, config):
    """Store the tensors; measure the model with the weights that they mean."""
    common.write_tensors(folder, stored)
    common.write_json(folder / "config.json", config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.copy_(meaning[key])
    base.write_losses(folder, model)


def dense(base, name, types):
    """Every tensor in the same type, or the layers' matrices in turn in those of a list and the rest in float32."""
    folder = common.fresh(base.FOLDER / name)
    settings = {**base.CONFIG, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    model = base.model_of(settings, name)
    tensors = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    if types == [torch.float64]:
        # Values that float32 cannot hold: a reader rounds them.
        generator = common.seed_of(name, 3)
        tensors = {k: t.double() * (1 + 1e-9 * torch.randn(t.shape, generator=generator)) for k, t in tensors.items()}
    matrices = [key for key, tensor in tensors.items() if base.is_linear(key, tensor)]
    kinds = {key: types[i % len(types)] for i, key in enumerate(matrices if len(types) > 1 else tensors)}
    stored = {key: tensor.to(kinds.get(key, torch.float32)) for key, tensor in tensors.items()}
    config = {**settings, "torch_dtype": str(types[0]).removeprefix("torch.")}
    finish(base, folder, model, stored, {key: tensor.float() for key, tensor in stored.items()}, config)


def bitmask(base, name, with_fp8):
    """Sparse: the values that are not zero, a bit for each element (lowest first, rows padded to bytes), row offsets."""
    folder = common.fresh(base.FOLDER / name)
    model, tensors = llama_tensors(base, name)
    stored, meaning = {}, {}
    for key, tensor in tensors.items():
        if not base.is_linear(key, tensor):
            stored[key] = tensor.to(torch.bfloat16)
            meaning[key] = stored[key].float()
            continue
        pruned = torch.where(torch.rand(tensor.shape, generator=common.seed_of(name + key)) < 0.55, 0.0, tensor)
        if with_fp8:
            kept, _ = fp8(pruned, None, blocks=(1, 10**6))
            values = kept["weight"]
            stored[key + "_scale"] = kept["weight_scale"]
            meaning[key] = values.float() * kept["weight_scale"]
        else:
            values = pruned.to(torch.bfloat16)
            meaning[key] = values.float()
        present = values.float() != 0
        counts = present.sum(1)
        bits = present.reshape(present.shape[0], -1, 8).long() << torch.arange(8)
        stored[key + ".compressed"] = values[present] if not with_fp8 else values.view(torch.uint8)[present].view(FP8)
        stored[key + ".bitmask"] = bits.sum(-1).to(torch.uint8)
        stored[key + ".row_offsets"] = counts.cumsum(0) - counts
        stored[key + ".shape"] = torch.tensor(tensor.shape)
    quantisation = {"quant_method": "compressed-tensors", "format": "dense", "quantization_status": "compressed"}
    if with_fp8:
        quantisation = ct_config("float-quantized", dict(type="float", strategy="channel"))
    quantisation["sparsity_config"] = {
        "format": "sparse-bitmask", "global_sparsity": 0.55, "ignore": ["lm_head"], "registry_requires_subclass": False,
        "sparsity_structure": "unstructured", "targets": ["Linear"],
    }
    config = {**base.CONFIG, "torch_dtype": "bfloat16", "quantization_config": quantisation}
    finish(base, folder, model, stored, meaning, config)


FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def mxfp4_blocks(weight):
    """weight [experts, in, out]: `_blocks` uint8 [experts, out, in / 32, 16], two values a byte, the first in the low
    bits; `_scales` uint8 [experts, out, in / 32], 2^(scale - 127) for each 32 inputs."""
    experts, width, out = weight.shape
    groups = weight.transpose(1, 2).reshape(experts, out, width // 32, 32)
    exponents = torch.floor(torch.log2(groups.abs().amax(-1))) - 2
    scaled = groups * torch.exp2(-exponents)[..., None]
    codes = (scaled[..., None] - FP4).abs().argmin(-1)
    meaning = FP4[codes] * torch.exp2(exponents)[..., None]
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponents + 127).to(torch.uint8), meaning.reshape(experts, out, width).transpose(1, 2).contiguous()


def mxfp4(base, name):
    folder = common.fresh(base.FOLDER / name)
    case = next(case for case in families_decoders.experts() if case.name == "gpt-oss")
    config = {**case.config, "hidden_size": 64, "intermediate_size": 32, "num_local_experts": 3}
    model = base.model_of(config, name)
    stored, meaning = {}, {}
    for key, weight in model.named_parameters():
        weight = weight.detach()
        if key.endswith(("gate_up_proj", "down_proj")):
            stored[key + "_blocks"], stored[key + "_scales"], meaning[key] = mxfp4_blocks(weight)
        else:
            stored[key] = weight.to(torch.bfloat16)
            meaning[key] = stored[key].float()
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    }
    finish(base, folder, model, stored, meaning, {**config, "torch_dtype": "bfloat16"})


def hqq(base, name, bits, axis):
    """W_q uint8; with 4 bits row i of the matrix of groups is in the high and row i + n / 2 in the low bits; (value - zero)
    * scale; the matrix, reshaped to `shape`, has a group in each row (axis 1) or in each column (axis 0). Settings are tensors."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    folder = common.fresh(base.FOLDER / name)
    model, tensors = llama_tensors(base, name)
    quantisation = BaseQuantizeConfig(nbits=bits, group_size=32, axis=axis)
    stored, meaning = {}, {}
    for key, tensor in tensors.items():
        if not base.is_linear(key, tensor):
            stored[key] = tensor.to(torch.float16)
            meaning[key] = stored[key].float()
            continue
        linear = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        linear.weight.data.copy_(tensor)
        layer = HQQLinear(linear, quantisation, compute_dtype=torch.float32, device="cpu")
        for part, value in layer.state_dict().items():
            stored[key.removesuffix("weight") + part] = value.detach().clone()
        meaning[key] = hqq_meaning(layer.W_q, layer.meta, bits, axis)
        assert torch.equal(meaning[key], layer.dequantize()), key
    config = {
        **base.CONFIG, "torch_dtype": "float16",
        "quantization_config": {"quant_method": "hqq", "quant_config": quantisation, "skip_modules": ["lm_head"]},
    }
    finish(base, folder, model, stored, meaning, config)


def hqq_meaning(packed, meta, bits, axis):
    """(value - zero) * scale on the matrix of groups: rows are groups with axis 1, columns with axis 0."""
    if bits == 4:
        values = torch.cat([packed >> 4, packed & 15])
    else:
        values = packed
    groups = (values.float() - meta["zero"].float()) * meta["scale"].float()
    return groups.reshape(meta["shape"])


# ---- LoRA folders


def lora(base, name, family, options, alpha=6, rank=4, **more):
    """`adapter_config.json` and `adapter_model.safetensors` over a checkpoint of `families`."""
    import peft

    folder = common.fresh(base.FOLDER / name)
    source = common.FIXTURES / "families" / family
    load = lambda: transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, task_type="CAUSAL_LM", **options, **more)
    adapted = peft.get_peft_model(load(), config)
    generator = common.seed_of(name)
    with torch.no_grad():
        for key, weight in adapted.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(weight + 0.1 * noise if weight.dim() == 1 or "modules_to_save" in key else 0.3 * noise)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = f"../../families/{family}"
    for key, value in written.items():
        written[key] = sorted(value) if isinstance(value, list) and key != "layers_to_transform" else value
    common.write_json(folder / "adapter_config.json", written)

    model = load()
    merge(model, written, safetensors.torch.load_file(folder / "adapter_model.safetensors"))
    base.write_losses(folder, model)
    inputs = common.read_json(folder / "expected.json")
    gap = common.relative_difference(common.causal_losses(adapted.eval(), inputs["windows"]), inputs["losses"])
    assert gap < common.CONDITIONED, (name, gap)


@torch.no_grad()
def merge(model, config, tensors):
    """W + scale * B A, scale = alpha / r, or alpha / sqrt(r) with use_rslora; transposed with fan_in_fan_out.

    `rank_pattern` and `alpha_pattern` are by the end of the module's name. DoRA: the sum's rows are scaled to the
    lengths in lora_magnitude_vector. Tensors of modules_to_save replace those of the model.
    """
    modules = {}
    for key, tensor in tensors.items():
        module, kind = key.removeprefix("base_model.model.").rsplit(".", 2)[0], key
        for part in ("lora_A", "lora_B", "lora_magnitude_vector"):
            if part in key:
                modules.setdefault(key.removeprefix("base_model.model.").split("." + part)[0], {})[part] = tensor
                kind = None
        if kind:
            model.get_parameter(key.removeprefix("base_model.model.")).copy_(tensor)
    for module, parts in modules.items():
        weight = model.get_parameter(module + ".weight")
        first, second = parts["lora_A"], parts["lora_B"]
        matches = lambda pattern: module == pattern or module.endswith("." + pattern)
        alpha = next((v for k, v in config["alpha_pattern"].items() if matches(k)), config["lora_alpha"])
        rank = first.shape[0]
        scale = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
        change = scale * (second @ first)
        if "lora_magnitude_vector" in parts:
            total = weight + change
            weight.copy_(total * (parts["lora_magnitude_vector"] / total.norm(dim=1))[:, None])
        else:
            weight.add_(change.T if config["fan_in_fan_out"] else change)


def cases(base):
    """Name, notes, function that makes it."""
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    for name, notes, types in [
        ("dense-f32", "F32", [torch.float32]),
        ("dense-f16", "F16", [torch.float16]),
        ("dense-bf16", "BF16", [torch.bfloat16]),
        ("dense-f64", "F64, rounded to float32", [torch.float64]),
        ("dense-f8", "F8_E4M3 and F8_E5M2 matrices without scales, the rest F32", [e4m3, e5m2]),
    ]:
        yield name, notes, lambda name=name, types=types: dense(base, name, types)
    yield "ct-sparse-bitmask", bitmask.__doc__, lambda: bitmask(base, "ct-sparse-bitmask", False)
    yield "ct-sparse-bitmask-fp8", "as above, values float8 with weight_scale [out, 1]", lambda: bitmask(
        base, "ct-sparse-bitmask-fp8", True
    )
    yield "mxfp4-gpt-oss", mxfp4_blocks.__doc__, lambda: mxfp4(base, "mxfp4-gpt-oss")
    yield "hqq-w4-axis1", hqq.__doc__, lambda: hqq(base, "hqq-w4-axis1", 4, 1)
    yield "hqq-w4-axis0", "axis 0", lambda: hqq(base, "hqq-w4-axis0", 4, 0)
    yield "hqq-w8-axis1", "8 bits, one value a byte", lambda: hqq(base, "hqq-w8-axis1", 8, 1)
    everything = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for name, notes, family, options in [
        ("lora", "r 4, alpha 6, two modules", "llama", dict(target_modules=["q_proj", "v_proj"])),
        ("lora-rslora-patterns", "use_rslora, rank_pattern, alpha_pattern, all modules", "llama",
         dict(target_modules=everything, use_rslora=True, rank_pattern={"down_proj": 2}, alpha_pattern={"layers.0.self_attn.q_proj": 9})),
        ("lora-fan-in-fan-out", "fan_in_fan_out over GPT-2's transposed matrices", "gpt2",
         dict(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True)),
        ("lora-modules-to-save", "modules_to_save: lm_head and model.norm replaced", "llama",
         dict(target_modules=["up_proj"], modules_to_save=["lm_head", "norm"])),
        ("lora-dora", "use_dora: lora_magnitude_vector", "llama", dict(target_modules=["q_proj", "down_proj"], use_dora=True)),
    ]:
        yield name, notes, lambda name=name, family=family, options=options: lora(base, name, family, options)
