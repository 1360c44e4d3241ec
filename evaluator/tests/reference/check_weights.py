"""Compare the losses of `fixtures/weights/` with those of the formats' own libraries.

    python evaluator/tests/reference/check_weights.py [NAME ...]

Each checkpoint is read again from its files and dequantised by the code of the format's library or of
transformers, not by that of `make_weights.py`. Beside the packages of `make_weights.py` this needs, with
`--no-deps`: compressed-tensors 0.20.1 (with loguru); and, as sources only, compressed-tensors 0.9.4 in
`$CT_OLD` (the last that knows `weight_g_idx` and bitmasks), autoawq 0.2.9 in `$AUTOAWQ`, gptqmodel 7.7.0 in
`$GPTQMODEL`. A format whose library is missing is reported as unchecked.
"""

import ast
import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import types

import gguf
import safetensors.torch
import torch
import transformers

import common

FOLDER = common.FIXTURES / "weights"
TOLERANCE = 1e-6


def module_at(path):
    """A single source file of a package, without the package."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_layer(folder):
    """The stored tensors by layer: {"model.layers.0.self_attn.q_proj": {"weight_packed": …}}, and the others."""
    layers, others = {}, {}
    for name, tensor in safetensors.torch.load_file(folder / "model.safetensors").items():
        head, found, tail = name.partition("_proj.")
        if found:
            layers.setdefault(head + "_proj", {})[tail] = tensor
        else:
            others[name] = tensor
    return layers, others


def compressed_tensors(config, tensors):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    scales = {key: value.float() if key == "weight_scale" else value for key, value in tensors.items()}
    if "weight_g_idx" in tensors:
        return old_compressed_tensors(scales)
    scheme = QuantizationScheme(**config["config_groups"]["group_0"])
    return BaseCompressor.get_value_from_registry(config["format"]).decompress(scales, scheme)["weight"]


OLD_PROGRAM = """
import sys, torch
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import bitmask_decompress
from compressed_tensors.quantization.lifecycle.forward import dequantize
for line in sys.stdin:
    path = line.strip()
    t = torch.load(path)
    if "weight.bitmask" in t:
        values = t["weight.compressed"]
        fp8 = values.dtype == torch.float8_e4m3fn
        w = bitmask_decompress(values.view(torch.int8) if fp8 else values, t["weight.bitmask"], t["weight.shape"].tolist())
        w = w.view(torch.float8_e4m3fn) if fp8 else w
    else:
        w = unpack_from_int32(t["weight_packed"], 4, torch.Size(t["weight_shape"].tolist()))
        w = dequantize(x_q=w, scale=t["weight_scale"], g_idx=t["weight_g_idx"])
    torch.save(w, path)
    print("done", flush=True)
"""


@functools.cache
def old_process():
    return subprocess.Popen(
        [sys.executable, "-c", OLD_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.environ["CT_OLD"]},
    )


def old_compressed_tensors(tensors):
    """The weight as version 0.9.4 decompresses it, in a process of its own."""
    process = old_process()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/tensors.pt"
        torch.save(tensors, path)
        print(path, file=process.stdin, flush=True)
        assert process.stdout.readline() == "done\n"
        return torch.load(path)


def fine_grained_fp8(config, tensors):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    scales = tensors["weight_scale_inv"]
    scales = scales.reshape(1, 1) if scales.dim() == 0 else scales
    blocks = config["weight_block_size"]
    weight = tensors["weight"]
    if blocks and any(size % block for size, block in zip(weight.shape, blocks)):
        # transformers wants blocks that divide: pad the weight to whole blocks.
        padded = torch.zeros(scales.shape[0] * blocks[0], scales.shape[1] * blocks[1]).to(weight.dtype)
        padded[: weight.shape[0], : weight.shape[1]] = weight
        whole = Fp8Dequantize(None)._dequantize_one(padded, scales, torch.float32)
        return whole[: weight.shape[0], : weight.shape[1]]
    return Fp8Dequantize(None)._dequantize_one(weight, scales, torch.float32)


def gptq(config, tensors):
    """The unpacking of gptqmodel, taken from the source of the class, which cannot be imported alone."""
    path = pathlib.Path(os.environ["GPTQMODEL"]) / "gptqmodel/nn_modules/qlinear/__init__.py"
    wanted = ("_init_wf_unsqueeze_buffers", "dequantize_weight")
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in wanted and node.lineno > 900:
            found.setdefault(node.name, node)
    names = {"t": torch, "_torch_right_shift": torch.bitwise_right_shift, "_torch_left_shift": torch.bitwise_left_shift}
    exec(compile(ast.Module(list(found.values()), []), str(path), "exec"), names)
    bits = config["bits"]
    one = 1 if config["checkpoint_format"] == "gptq" else 0
    holder = types.SimpleNamespace(
        bits=bits, pack_dtype_bits=32, pack_factor=32 // bits, maxq=2**bits - 1, planar=False, enable_wf_unsqueeze=True,
        dequant_dtype=torch.int16, wf_unsqueeze_zero=None, wf_unsqueeze_neg_one=None, _buffers={},
        _wf_device=lambda: "cpu", **{**tensors, "scales": tensors["scales"].float()},
    )
    holder.register_buffer = lambda name, value, persistent: setattr(holder, name, value)
    holder._init_wf_unsqueeze_buffers = lambda: names["_init_wf_unsqueeze_buffers"](holder)
    holder._dequantize_from_codes = lambda weight, zeros, num_itr: (
        holder.scales[holder.g_idx.long()] * (weight - (zeros + one)[holder.g_idx.long()])
    )
    return names["dequantize_weight"](holder).T


def awq(config, tensors):
    packing = module_at(pathlib.Path(os.environ["AUTOAWQ"]) / "awq/utils/packing_utils.py")
    scales = tensors["scales"].float()
    return packing.dequantize_gemm(tensors["qweight"], tensors["qzeros"], scales, 4, config["group_size"]).T


def bitsandbytes(config, tensors):
    import bitsandbytes.functional as bnb

    if config["load_in_8bit"]:
        return bnb.int8_vectorwise_dequant(tensors["weight"], tensors["SCB"])
    state = bnb.QuantState.from_dict(
        {key.removeprefix("weight."): value for key, value in tensors.items() if key != "weight"}, device="cpu"
    )
    # The generic code: the CPU kernel of 0.50.2 is wrong where a row is not a multiple of the block.
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
    packed = tensors["weight"].reshape(-1)
    return _dequantize_4bit_compute(packed, absmax, state.code, state.blocksize, state.shape, torch.float32)


def bitmask(config, tensors):
    return old_compressed_tensors(tensors).float() * tensors.get("weight_scale", 1)


def hqq(config, tensors):
    from hqq.core.quantize import HQQLinear

    layer = HQQLinear(None, config["quant_config"], compute_dtype=torch.float32, device="cpu")
    layer.load_state_dict(tensors)
    return layer.dequantize()


READERS = {
    "compressed-tensors": compressed_tensors,
    "fp8": fine_grained_fp8,
    "awq": awq,
    "gptq": gptq,
    "hqq": hqq,
    "bitsandbytes": bitsandbytes,
}


def model_by_layers(folder, config):
    quantisation = config.pop("quantization_config")
    sparse = quantisation.get("sparsity_config", {}).get("format") == "sparse-bitmask"
    reader = bitmask if sparse else READERS[quantisation["quant_method"]]
    layers, others = by_layer(folder)
    state = {name: tensor.float() for name, tensor in others.items()}
    state.update({f"{name}.weight": reader(quantisation, tensors).float() for name, tensors in layers.items()})
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager"
    )
    model.load_state_dict(state)
    return model.eval()


def by_transformers(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options
    ).eval()


def open_model(folder):
    if (folder / "model.gguf").exists():
        model = by_transformers(folder, gguf_file="model.gguf")
        factors = [t.data for t in gguf.GGUFReader(folder / "model.gguf").tensors if t.name == "rope_freqs.weight"]
        for factor in factors:  # transformers leaves this tensor out
            model.model.rotary_emb.inv_freq /= torch.from_numpy(factor.copy())
        return model
    if (folder / "adapter_config.json").exists():
        import peft

        source = folder / common.read_json(folder / "adapter_config.json")["base_model_name_or_path"]
        return peft.PeftModel.from_pretrained(by_transformers(source.resolve()), folder).eval()
    config = common.read_json(folder / "config.json")
    if config.get("quantization_config", {}).get("quant_method", "mxfp4") == "mxfp4":
        return by_transformers(folder)
    return model_by_layers(folder, config)


def check(folder):
    expected = common.read_json(folder / "expected.json")
    found = common.causal_losses(open_model(folder), expected["windows"])
    worst = common.relative_difference(found, expected["losses"])
    if "rounded_losses" in expected:
        model = by_transformers(folder)
        model(torch.tensor([[1, 2]]))  # compressed-tensors decompresses at the first call
        found = common.causal_losses(model, expected["rounded_windows"])
        worst = max(worst, common.relative_difference(found, expected["rounded_losses"]))
    print(f"{folder.name:28} {worst:.1e}" + ("" if worst < TOLERANCE else "  DIFFERENT"), flush=True)
    return worst < TOLERANCE


def main():
    common.setup()
    names = sys.argv[1:] or sorted(path.name for path in FOLDER.iterdir())
    good = True
    for name in names:
        try:
            good &= check(FOLDER / name)
        except (ImportError, KeyError) as missing:
            print(f"{name:28} unchecked: {type(missing).__name__} {missing}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
