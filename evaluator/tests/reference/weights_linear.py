"""Formats that store each linear layer in tensors of their own.

A format is a function of a weight [out, in] in float32 and a random generator. It gives the tensors that are
stored, by the ending that replaces `weight`, and the weight that these tensors mean, in float32: products and
differences of the stored numbers, each converted to float32 before it is used.
"""

import dataclasses
import functools

import torch

FP8 = torch.float8_e4m3fn
STATIC = 0.015625  # the static scale of inputs: 2^-6
STATIC_ZERO = -7


@dataclasses.dataclass
class Linear:
    """A format, its `quantization_config`, and what its fixture shows."""

    name: str
    notes: str
    quantise: object
    config: dict
    # How the tensors that are not quantised are stored.
    store: torch.dtype = torch.bfloat16
    # What the configuration asks to do with the inputs of the layers.
    inputs: object = None


def pack_bits(values, bits):
    """Pack the last dimension: value i has the bits i * bits and up of the row, lowest bit first, in int32."""
    rows, count = values.shape
    assert count * bits % 32 == 0
    spread = (values[..., None].long() >> torch.arange(bits)) & 1
    words = spread.reshape(rows, -1, 32) << torch.arange(32)
    return as_int32(words.sum(-1))


def as_int32(words):
    """Unsigned 32-bit numbers in int64 as the int32 with the same bits."""
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def grouped(weight, size):
    out, width = weight.shape
    return weight.reshape(out, width // size, size)


def spread(scales, size):
    """One scale for each element of a row, from one for each group."""
    return scales.float().repeat_interleave(size, dim=1)


# ---- compressed-tensors


def ct_config(format, weights, inputs=None):
    defaults = dict(
        actorder=None, block_structure=None, dynamic=False, group_size=None, num_bits=8, observer="minmax",
        observer_kwargs={}, strategy="tensor", symmetric=True, type="int",
    )
    group = {
        "input_activations": {**defaults, **inputs} if inputs else None, "output_activations": None,
        "targets": ["Linear"], "weights": {**defaults, **weights},
    }
    return {
        "config_groups": {"group_0": group}, "format": format, "global_compression_ratio": None, "ignore": ["lm_head"],
        "kv_cache_scheme": None, "quant_method": "compressed-tensors", "quantization_status": "compressed",
    }


def ct_packed(weight, generator, bits=4, size=None, symmetric=True, act_order=False, scale_type=torch.bfloat16):
    """weight_packed: signed value + 2^(bits - 1), 32 / bits in an int32; zero points packed along the rows."""
    out, width = weight.shape
    size = size or width
    index = torch.arange(width) // size
    if act_order:
        index = index[torch.randperm(width, generator=generator)]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    columns = torch.argsort(index, stable=True)
    groups = grouped(weight[:, columns], size)
    if symmetric:
        scales = (groups.abs().amax(-1) / high).to(scale_type)
        zeros = torch.zeros_like(scales, dtype=torch.int64)
    else:
        smallest, largest = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scales = ((largest - smallest) / (high - low)).to(scale_type)
        zeros = (low - torch.round(smallest / scales.float())).clamp(low, high).long()
    values = torch.round(weight / scales.float()[:, index] + zeros[:, index]).clamp(low, high).long()
    stored = {
        "weight_packed": pack_bits(values - low, bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor([out, width]),
    }
    if not symmetric:
        stored["weight_zero_point"] = pack_bits((zeros - low).T, bits).T
    if act_order:
        stored["weight_g_idx"] = index.to(torch.int32)
    return stored, (values - zeros[:, index]).float() * scales.float()[:, index]


def ct_int8(weight, generator, strategy="channel", symmetric=True, size=32, static=False):
    """weight int8, weight_scale [out, 1], [1] or [out, groups], weight_zero_point int8."""
    out, width = weight.shape
    blocks = {"channel": weight[:, None, :], "tensor": weight.reshape(1, 1, -1), "group": grouped(weight, size)}[strategy]
    if symmetric:
        scales = blocks.abs().amax(-1) / 127
        zeros = torch.zeros_like(scales)
    else:
        smallest, largest = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
        scales = (largest - smallest) / 255
        zeros = (-128 - torch.round(smallest / scales)).clamp(-128, 127)
    scales = scales.to(torch.bfloat16)
    full = lambda part: part.float().expand(out, part.shape[1]).repeat_interleave(width // part.shape[1], dim=1)
    values = torch.round(weight / full(scales) + full(zeros)).clamp(-128, 127)
    shape = (1,) if strategy == "tensor" else scales.shape
    stored = {"weight": values.to(torch.int8), "weight_scale": scales.reshape(shape)}
    if not symmetric:
        stored["weight_zero_point"] = zeros.to(torch.int8).reshape(shape)
    if static:
        stored["input_scale"] = torch.tensor([STATIC])
        stored["input_zero_point"] = torch.tensor([STATIC_ZERO], dtype=torch.int8)
    return stored, (values - full(zeros)) * full(scales)


def fp8(weight, generator, blocks=None, scale_name="weight_scale", scale_type=torch.float32, scale_shape=None, static=None,
        power_of_two=False):
    """weight float8_e4m3fn; one scale for each block of `blocks` rows and columns; the last blocks may be cut."""
    out, width = weight.shape
    rows, columns = blocks or (out, width)
    row, column = torch.arange(out) // rows, torch.arange(width) // columns
    scales = torch.zeros(int(row[-1]) + 1, int(column[-1]) + 1)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            scales[i, j] = weight[row == i][:, column == j].abs().max() / 448
    scales = 2 ** scales.log2().ceil() if power_of_two else scales
    scales = scales.to(scale_type)
    full = scales.float()[row][:, column]
    values = (weight / full).clamp(-448, 448).to(FP8)
    stored = {"weight": values, scale_name: scales if scale_shape is None else scales.reshape(scale_shape)}
    if static:
        stored[static] = torch.tensor(STATIC).reshape(scale_shape)
    return stored, values.float() * full


def rounded_inputs(x, limit, kind, group=None, scale=None, zero=0, power_of_two=False):
    """Inputs as compressed-tensors quantises them: to int8 or float8, with the scale given or one for each token or group.

    A dynamic scale is the largest magnitude / 127.5 (int8) or / 448 (float8). The last group may be smaller.
    """
    if group:
        options = dict(limit=limit, kind=kind, scale=scale, zero=zero, power_of_two=power_of_two)
        return torch.cat([rounded_inputs(part, **options) for part in x.split(group, dim=-1)], dim=-1)
    scale = x.abs().amax(-1, keepdim=True) / limit if scale is None else scale
    scale = 2 ** scale.log2().ceil() if power_of_two else scale
    values = x / scale + zero
    values = values.round().clamp(-128, 127) if kind == "int8" else values.clamp(-448, 448).to(FP8).to(x.dtype)
    return (values - zero) * scale


def rounded_in_range(x):
    """int8 inputs with a zero point: one scale for each token, of the range between its smallest and largest input and 0."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 255
    zero = (-128 - low / scale).clamp(-128, 127).round()
    return ((x / scale + zero).round().clamp(-128, 127) - zero) * scale


# ---- GPTQ and AWQ


def gptq(weight, generator, bits=4, size=32, symmetric=True, act_order=False, version=1):
    """qweight [in * bits / 32, out] packed along the input; qzeros [groups, out * bits / 32] packed along the output.

    Version 1 stores zero points less one. A zero point of 0 is not representable there, and not used.
    """
    out, width = weight.shape
    size = width if size == -1 else size
    index = torch.arange(width) // size
    if act_order:
        index = index[torch.randperm(width, generator=generator)]
    top = 2**bits - 1
    groups = grouped(weight[:, torch.argsort(index, stable=True)], size)
    if symmetric:
        scales = 2 * groups.abs().amax(-1) / top
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    else:
        smallest, largest = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scales = (largest - smallest) / top
        zeros = torch.round(-smallest / scales).clamp(1, top)
    scales = scales.to(torch.float16)
    values = torch.round(weight / scales.float()[:, index] + zeros[:, index]).clamp(0, top)
    kept = zeros.T.long() - (1 if version == 1 else 0)
    stored = {
        "qweight": pack_bits(values.long(), bits).T,
        "qzeros": pack_bits(kept, bits),
        "scales": scales.T,
        "g_idx": index.to(torch.int32),
    }
    return stored, (values - zeros[:, index]) * scales.float()[:, index]


def gptq_config(bits, size=32, symmetric=True, act_order=False, version=1):
    return {
        "quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": act_order, "sym": symmetric,
        "static_groups": False, "true_sequential": True, "damp_percent": 0.01, "lm_head": False,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "model_file_base_name": "model",
    }


def awq(weight, generator, size=32):
    """GEMM: qweight [in, out / 8], qzeros [groups, out / 8], columns 0 2 4 6 1 3 5 7 of each eight from the low bits up."""
    groups = grouped(weight, size)
    smallest, largest = groups.amin(-1), groups.amax(-1)
    scales = ((largest - smallest) / 15).to(torch.float16)
    zeros = torch.round(-smallest / scales.float()).clamp(0, 15)
    full_zeros = zeros.repeat_interleave(size, dim=1)
    values = torch.round(weight / spread(scales, size) + full_zeros).clamp(0, 15)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    arrange = lambda matrix: matrix.reshape(matrix.shape[0], -1, 8)[:, :, order].reshape(matrix.shape).long()
    stored = {
        "qweight": pack_bits(arrange(values.T), 4), "qzeros": pack_bits(arrange(zeros.T), 4), "scales": scales.T,
    }
    return stored, (values - full_zeros) * spread(scales, size)


# ---- bitsandbytes and HQQ, quantised by their libraries


def bnb_int8(weight, generator):
    """weight int8 and SCB [out], the largest magnitude of each row; weight * SCB / 127."""
    scb = weight.abs().amax(1)
    values = torch.round(weight * (127 / scb)[:, None]).to(torch.int8)
    stored = {"weight": values, "SCB": scb, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return stored, values.float() * scb[:, None] / 127


def bnb_4bit(weight, generator, kind="nf4", double=False, size=64):
    """Two values a byte, the first in the high bits; code[value] * absmax of each block of 64.

    With double quantisation absmax is itself nested_code[byte] * nested_absmax of each 256, plus an offset.
    """
    import bitsandbytes.functional as bnb

    packed, state = bnb.quantize_4bit(weight, blocksize=size, quant_type=kind, compress_statistics=double)
    kept = state.as_dict(packed=True)
    stored = {"weight": packed} | {f"weight.{key}": value for key, value in kept.items()}
    absmax = stored["weight.absmax"]
    if double:
        code = stored["weight.nested_quant_map"]
        nested = stored["weight.nested_absmax"].repeat_interleave(256)[: absmax.numel()]
        absmax = code[absmax.long()] * nested + state.offset.item()
    nibbles = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()
    values = stored["weight.quant_map"][nibbles.long()] * absmax.repeat_interleave(size)[: nibbles.numel()]
    return stored, values.reshape(weight.shape)


def bnb_config(bits, kind="nf4", double=False):
    return {
        "quant_method": "bitsandbytes", "load_in_4bit": bits == 4, "load_in_8bit": bits == 8,
        "_load_in_4bit": bits == 4, "_load_in_8bit": bits == 8, "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double,
        "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None,
        "llm_int8_threshold": 6.0,
    }


def formats():
    int4 = dict(num_bits=4, strategy="group", group_size=32)
    yield Linear(
        "ct-pack-w4-group", "pack-quantized, 4 bits, symmetric, groups of 32: (value - 8) * weight_scale[row, group]",
        functools.partial(ct_packed, size=32), ct_config("pack-quantized", int4),
    )
    yield Linear(
        "ct-pack-w4-asymmetric", "weight_zero_point packed along the rows [out / 8, groups]; (value - zero) * scale",
        functools.partial(ct_packed, size=32, symmetric=False), ct_config("pack-quantized", {**int4, "symmetric": False}),
    )
    yield Linear(
        "ct-pack-w4-act-order", "actorder group: weight_g_idx [in] gives the group of each column",
        functools.partial(ct_packed, size=32, act_order=True, scale_type=torch.float16),
        ct_config("pack-quantized", {**int4, "actorder": "group"}), torch.float16,
    )
    yield Linear(
        "ct-pack-w8-channel", "8 bits, one scale a row",
        functools.partial(ct_packed, bits=8), ct_config("pack-quantized", dict(num_bits=8, strategy="channel")),
    )
    yield Linear(
        "ct-pack-w3-group", "3 bits, packed densely across words",
        functools.partial(ct_packed, bits=3, size=32), ct_config("pack-quantized", {**int4, "num_bits": 3}),
    )
    token = dict(dynamic=True, strategy="token")
    int8_inputs = functools.partial(rounded_inputs, limit=127.5, kind="int8")
    fp8_inputs = functools.partial(rounded_inputs, limit=448, kind="fp8")
    yield Linear(
        "ct-int8-channel", "int-quantized W8A8, int8 weight * weight_scale [out, 1]; inputs dynamic per token",
        ct_int8, ct_config("int-quantized", dict(strategy="channel"), token), inputs=int8_inputs,
    )
    yield Linear(
        "ct-int8-channel-asymmetric", "weight_zero_point int8 [out, 1]",
        functools.partial(ct_int8, symmetric=False),
        ct_config("int-quantized", dict(strategy="channel", symmetric=False), token), inputs=int8_inputs,
    )
    yield Linear(
        "ct-int8-inputs-asymmetric", "inputs dynamic per token with zero points",
        ct_int8, ct_config("int-quantized", dict(strategy="channel"), {**token, "symmetric": False}),
        inputs=rounded_in_range,
    )
    yield Linear(
        "ct-int8-inputs-static", "input_scale [1] and input_zero_point [1] int8",
        functools.partial(ct_int8, static=True),
        ct_config("int-quantized", dict(strategy="channel"), dict(strategy="tensor", symmetric=False)),
        inputs=functools.partial(int8_inputs, scale=STATIC, zero=STATIC_ZERO),
    )
    yield Linear(
        "ct-naive-int8-tensor", "naive-quantized, one scale [1]",
        functools.partial(ct_int8, strategy="tensor"), ct_config("naive-quantized", dict(strategy="tensor")),
    )
    yield Linear(
        "ct-naive-int8-group", "naive-quantized, scales [out, groups]",
        functools.partial(ct_int8, strategy="group"), ct_config("naive-quantized", dict(strategy="group", group_size=32)),
    )
    eight = dict(type="float")
    yield Linear(
        "ct-fp8-tensor", "float-quantized, one scale [1]; static input_scale [1]",
        functools.partial(fp8, scale_shape=(1,), static="input_scale"), ct_config("float-quantized", eight, eight),
        inputs=functools.partial(fp8_inputs, scale=STATIC),
    )
    yield Linear(
        "ct-fp8-channel", "float-quantized, scales [out, 1] in bfloat16; inputs dynamic per token",
        functools.partial(fp8, blocks=(1, 10**6), scale_type=torch.bfloat16),
        ct_config("float-quantized", {**eight, "strategy": "channel"}, {**eight, **token}), inputs=fp8_inputs,
    )
    yield Linear(
        "ct-fp8-block", "float-quantized, block_structure [32, 16], scales [out / 32, in / 16]",
        functools.partial(fp8, blocks=(32, 16)),
        ct_config("float-quantized", {**eight, "strategy": "block", "block_structure": [32, 16]},
                  {**eight, "dynamic": True, "strategy": "group", "group_size": 16}),
        inputs=functools.partial(fp8_inputs, group=16),
    )
    fine = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    yield Linear(
        "fp8-block", "quant_method fp8: weight * weight_scale_inv of its block of weight_block_size",
        functools.partial(fp8, blocks=(32, 16), scale_name="weight_scale_inv"), {**fine, "weight_block_size": [32, 16]},
        inputs=functools.partial(fp8_inputs, group=16),
    )
    yield Linear(
        "fp8-block-ue8m0", "scale_fmt ue8m0: scales are powers of two, also those of inputs",
        functools.partial(fp8, blocks=(32, 16), scale_name="weight_scale_inv", power_of_two=True),
        {**fine, "weight_block_size": [32, 16], "scale_fmt": "ue8m0"},
        inputs=functools.partial(fp8_inputs, group=16, power_of_two=True),
    )
    yield Linear(
        "fp8-block-ragged", "blocks that do not divide the matrix: the last ones are cut",
        functools.partial(fp8, blocks=(24, 40), scale_name="weight_scale_inv"), {**fine, "weight_block_size": [24, 40]},
        inputs=functools.partial(fp8_inputs, group=40),
    )
    yield Linear(
        "fp8-tensor-static", "weight_block_size null: weight_scale_inv and activation_scale are scalars of shape []",
        functools.partial(fp8, scale_name="weight_scale_inv", scale_shape=(), scale_type=torch.bfloat16,
                          static="activation_scale"),
        {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None,
         "modules_to_not_convert": ["lm_head"]},
        inputs=functools.partial(fp8_inputs, scale=STATIC),
    )
    for bits in (2, 3, 4, 8):
        yield Linear(
            f"gptq-w{bits}", f"{bits} bits, groups of 32, version 1: (value - (zero + 1)) * scale",
            functools.partial(gptq, bits=bits), gptq_config(bits), torch.float16,
        )
    for name, notes, options in [
        ("gptq-w4-act-order", "desc_act: g_idx gives the group of each input", dict(act_order=True)),
        ("gptq-w4-asymmetric", "sym false: zero points of their own", dict(symmetric=False)),
        ("gptq-w4-v2", "checkpoint_format gptq_v2: zero points as they are", dict(version=2, symmetric=False)),
        ("gptq-w4-channel", "group_size -1: one group", dict(size=-1)),
        ("gptq-w8-act-order-v2", "8 bits, act-order, version 2", dict(bits=8, version=2, act_order=True, symmetric=False)),
    ]:
        bits = options.get("bits", 4)
        rest = {key: value for key, value in options.items() if key != "bits"}
        yield Linear(name, notes, functools.partial(gptq, **options), gptq_config(bits, **rest), torch.float16)
    yield Linear(
        "awq-gemm", "(value - zero) * scales[group, out]", awq,
        {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
         "modules_to_not_convert": None}, torch.float16,
    )
    yield Linear("bnb-int8", bnb_int8.__doc__.splitlines()[0], bnb_int8, bnb_config(8), torch.float16)
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            yield Linear(
                f"bnb-{kind}" + ("-double" if double else ""),
                "blocks of 64, " + ("absmax quantised again in blocks of 256" if double else "absmax float32"),
                functools.partial(bnb_4bit, kind=kind, double=double), bnb_config(4, kind, double),
            )
