"""Make one tiny checkpoint per format of stored weights, and the losses of the weights it means.

    python evaluator/tests/reference/make_weights.py [--table] [NAME ...]

writes `evaluator/tests/fixtures/weights/<name>/`: the checkpoint as it is published, and `expected.json` as
`make_families.py` writes it. `losses` are those of the dequantised weights in float32: stored numbers are
converted to float32, and differences and products are float32. Inputs of layers are not quantised there; where the
configuration asks for it, `rounded_losses` are those of `rounded_windows` with quantised inputs. `check_weights.py`
compares with the libraries of the formats.

Run by a maintainer as `make_families.py` is, with these packages besides (installed with `--no-deps`):
bitsandbytes 0.50.2, gguf 0.19.0, hqq 0.2.8.post1 (with termcolor), peft 0.21.2 (with accelerate).
The same versions give the same files.
"""

import contextlib
import sys

import torch
import transformers

import common
import weights_files
import weights_gguf
import weights_linear

FOLDER = common.FIXTURES / "weights"
# Tokens of the windows that are measured with quantised inputs; noise relative to the largest input of a token; largest
# relative difference of losses that counts as the same.
STABLE_LENGTHS = ((4, 6), (2, 2))
NOISE = 5e-7
STABLE = 3e-6
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=common.VOCAB, hidden_size=64,
    intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_act="silu",
    max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, attention_bias=False,
    mlp_bias=False, bos_token_id=1, eos_token_id=2,
)


def model_of(config, seed):
    """A model with random weights, in float32."""
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager"
    )
    common.fill(model, common.seed_of(seed))
    return model.eval()


def write_losses(folder, model, inputs_as=None, **more):
    """Measure the model as it is, in float32 and in float64, and with quantised inputs of its layers."""
    inputs = common.windows(folder.name, model.config.vocab_size)
    measured = common.causal_losses(model, inputs)
    exact = common.in_float64(model, lambda again: common.causal_losses(again, inputs))
    gap = common.relative_difference(measured, exact)
    assert gap < common.CONDITIONED, (folder.name, gap)
    if inputs_as:
        more |= stable_windows(model, inputs_as, folder.name)
    common.write_expected(folder, kind="causal", windows=inputs, losses=measured, losses_f64=exact, **more)
    print(
        f"{folder.name:28} {common.size_of(folder):4} KiB  losses {' '.join(f'{x:.4f}' for x in measured)}"
        f"  f32-f64 {gap:.1e}",
        flush=True,
    )


@contextlib.contextmanager
def rounded(model, change):
    """`change` is done to the input of every linear layer of the decoder."""
    layers = [layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and name != "lm_head"]
    hooks = [layer.register_forward_pre_hook(lambda _, given: (change(given[0]),)) for layer in layers]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def stable_windows(model, change, name):
    """Windows whose losses with rounded inputs do not depend on the last bits of the inputs, and these losses.

    An input that is almost half way between two steps is rounded the other way by another order of additions, and moves a
    loss of these small models by up to 5e-3. So windows are drawn until the losses stay the same in float64, and under
    noise of the size of such differences. With int8 and a scale of each token, the largest negative input is always half
    way, between -127 and -128: there only the first token of a window is predicted from.
    """
    generator = common.seed_of(name, 2)
    noise = lambda x: x + x.abs().amax(-1, keepdim=True) * NOISE * (2 * torch.rand(x.shape, generator=generator) - 1)

    def losses(model, change, ids):
        with rounded(model, change):
            return common.causal_losses(model, [ids])

    def is_stable(ids, loss):
        same = lambda other: common.relative_difference(loss, other) < STABLE
        exact = lambda: common.in_float64(model, lambda again: losses(again, change, ids))
        return same(exact()) and all(same(losses(model, lambda x: change(noise(x)), ids)) for _ in range(10))

    for lengths in STABLE_LENGTHS:
        windows, found = [], []
        for _ in range(300):
            ids = torch.randint(0, model.config.vocab_size, (lengths[len(windows)],), generator=generator).tolist()
            loss = losses(model, change, ids)
            if is_stable(ids, loss):
                windows.append(ids)
                found += loss
            if len(windows) == len(lengths):
                return dict(rounded_windows=windows, rounded_losses=found)
    raise AssertionError(f"{name}: no stable windows")


def is_linear(name, weight):
    return weight.dim() == 2 and ".layers." in name


def make_linear(format):
    folder = common.fresh(FOLDER / format.name)
    model = model_of(CONFIG, format.name)
    stored = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if is_linear(name, weight):
                tensors, meaning = format.quantise(weight.detach().clone(), common.seed_of(format.name + name))
                stored.update({name.removesuffix("weight") + key: tensor for key, tensor in tensors.items()})
                weight.copy_(meaning)
            else:
                stored[name] = weight.detach().to(format.store)
                weight.copy_(stored[name])
    common.write_tensors(folder, stored)
    dtype = str(format.store).removeprefix("torch.")
    common.write_json(
        folder / "config.json", {**CONFIG, "torch_dtype": dtype, "quantization_config": format.config}
    )
    write_losses(folder, model, format.inputs)


def cases():
    """Every fixture: its name, its notes, and the function that makes it."""
    for format in weights_linear.formats():
        yield format.name, format.notes, lambda format=format: make_linear(format)
    this = sys.modules[__name__]
    yield from weights_files.cases(this)
    yield from weights_gguf.cases(this)


def main():
    arguments = sys.argv[1:]
    every = list(cases())
    if "--table" in arguments:
        for name, notes, _ in every:
            print(f"| {name} | {' '.join(notes.split())} |")
        return
    unknown = set(arguments) - {name for name, _, _ in every}
    assert not unknown, f"no such case: {unknown}"
    common.setup()
    for name, _, make in every:
        if not arguments or name in arguments:
            make()


if __name__ == "__main__":
    main()
