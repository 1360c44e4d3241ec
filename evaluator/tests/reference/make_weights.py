"""Make one tiny checkpoint per format of stored weights, and the losses of the weights it means.

    python evaluator/tests/reference/make_weights.py [--table] [NAME ...]

writes `evaluator/tests/fixtures/weights/<name>/`: the checkpoint as it is published, and `expected.json` as
`make_families.py` writes it. `losses` are those of the dequantised weights in float32: stored numbers are
converted to float32, and differences and products are float32. Activations are not quantised. `check_weights.py`
compares with the libraries of the formats.

Run by a maintainer as `make_families.py` is, with these packages besides (installed with `--no-deps`):
bitsandbytes 0.50.2, gguf 0.19.0, hqq 0.2.8.post1 (with termcolor), peft 0.21.2 (with accelerate).
The same versions give the same files.
"""

import sys

import torch
import transformers

import common
import weights_files
import weights_gguf
import weights_linear

FOLDER = common.FIXTURES / "weights"
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
        more["losses_quantised_activations"] = with_inputs(model, inputs_as, inputs)
    common.write_expected(folder, kind="causal", windows=inputs, losses=measured, losses_f64=exact, **more)
    print(
        f"{folder.name:28} {common.size_of(folder):4} KiB  losses {' '.join(f'{x:.4f}' for x in measured)}"
        f"  f32-f64 {gap:.1e}",
        flush=True,
    )


def with_inputs(model, change, inputs):
    """Losses when `change` is done to the input of every linear layer of the decoder.

    A rounding that falls the other way moves a loss by some 1e-5, so readers cannot be held to more than 1e-4.
    """
    layers = [layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and name != "lm_head"]
    hooks = [layer.register_forward_pre_hook(lambda _, given: (change(given[0]),)) for layer in layers]
    found = common.causal_losses(model, inputs)
    for hook in hooks:
        hook.remove()
    return found


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
