"""Make inputs of layers, and what compressed-tensors makes of them: `evaluator/tests/fixtures/rounding.json`.

    python evaluator/tests/reference/make_rounding.py

The evaluator must give the same float32 numbers, bit for bit. Run by a maintainer as `make_families.py` is; made with
compressed-tensors 0.20.1 and torch 2.15.0. Powers of two, of `quant_method` fp8, are computed here: the library has none.
"""

import json

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

import common
import weights_linear

WIDTH = 24


def inputs():
    """Rows of several magnitudes, with large elements, one row of zeros and one without negative numbers."""
    generator = common.seed_of("rounding")
    x = torch.randn(6, WIDTH, generator=generator) * torch.tensor([1.0, 1e-3, 30.0, 1.0, 0.0, 2.0])[:, None]
    x[3] *= torch.exp(2 * torch.randn(WIDTH, generator=generator))
    x[5] = x[5].abs()
    return x


def by_library(x, scale=None, zero=None, **arguments):
    args = QuantizationArgs(**arguments)
    if scale is None:
        # The library takes a batch of rows of tokens.
        scale, zero = (part.squeeze(0) for part in compute_dynamic_scales_and_zp(x[None], args, None))
    else:
        scale, zero = torch.tensor([scale]), torch.tensor([zero])
    codes = quantize(x, scale, zero, args)
    return dequantize(codes, scale, zero, args)


def cases(x):
    token, group = dict(strategy="token", dynamic=True), dict(strategy="group", group_size=8, dynamic=True)
    int8, int4, fp8 = (dict(num_bits=bits, type=kind) for bits, kind in ((8, "int"), (4, "int"), (8, "float")))
    largest = lambda size: {"largest": size}
    yield "int8 of a token", 8, largest(WIDTH), by_library(x, **int8, **token)
    yield "int4 of a token", 4, largest(WIDTH), by_library(x, **int4, **token)
    yield "int8 of a group", 8, largest(8), by_library(x, **int8, **group)
    yield "int8 of a token, with zero points", 8, {"range": WIDTH}, by_library(x, **int8, **token, symmetric=False)
    yield "int8, stored scale", 8, {"fixed": [0.03, 0]}, by_library(x, scale=0.03, zero=0, **int8)
    yield "int8, stored scale and zero point", 8, {"fixed": [0.03, -7]}, by_library(
        x, scale=0.03, zero=-7, **int8, symmetric=False
    )
    yield "float8 of a token", None, largest(WIDTH), by_library(x, **fp8, **token)
    yield "float8 of a group", None, largest(8), by_library(x, **fp8, **group)
    yield "float8, stored scale", None, {"fixed": [0.03, 0]}, by_library(x, scale=0.03, zero=0, **fp8)
    powers = weights_linear.rounded_inputs(x, limit=448, kind="fp8", group=8, power_of_two=True).nan_to_num(0.0)
    yield "float8 of a group, powers of two", None, {"powers_of_two": 8}, powers


def main():
    x = inputs()
    lines = [f'"inputs": {json.dumps(x.tolist())}']
    for name, bits, scale, rounded in cases(x):
        values = dict(bits=bits, scale=scale, rounded=rounded.to(torch.float32).tolist())
        lines.append(f"{json.dumps(name)}: {json.dumps(values)}")
    (common.FIXTURES / "rounding.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
