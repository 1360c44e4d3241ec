"""Make one tiny checkpoint per model family, and the losses that transformers gives for it.

    python evaluator/tests/reference/make_families.py [--table] [NAME ...]

writes `evaluator/tests/fixtures/families/<name>/`:

    config.json         in the spelling that published checkpoints use
    model.safetensors   random weights under the published tensor names
    expected.json       causal: "windows", lists of token ids; masked: also "labels", -100 where no loss is
                        counted; sequence to sequence: "sources" and "targets".
                        "losses": the mean negative log likelihood of each window in nats, model in float32,
                        log-softmax in float64; "losses_f64": float64 throughout, the better oracle

Every window is measured alone, unpadded, with eager attention unless the case says otherwise. The program
fails where an option named in `matters` or a stored tensor does not move the losses, or where float32 and
float64 differ by so much that the case cannot be a reference. With names it makes these cases only; `--table`
prints what each family needs beyond a Llama decoder and makes nothing.

Run by a maintainer with PyTorch 2.6 (Debian trixie's python3-torch) and transformers 5.23.0:

    mmdebstrap --variant=minbase --include=python3,python3-venv,python3-torch,python3-numpy trixie ROOT
    chroot ROOT python3 -m venv --system-site-packages /opt/v
    chroot ROOT /opt/v/bin/pip install transformers==5.23.0
    OPENBLAS_NUM_THREADS=1 chroot ROOT /opt/v/bin/python .../make_families.py

The same versions give the same files.
"""

import copy
import pathlib
import re
import sys
import tempfile

import torch
import transformers

import common
import families_causal
import families_decoders
import families_other
import families_wrapped

FOLDER = common.FIXTURES / "families"
CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "wrapped": transformers.AutoModelForImageTextToText,
}


def merged(config, changes):
    """The configuration with changes: a dictionary is merged, `DELETE` removes a key."""
    result = copy.deepcopy(config)
    for key, value in changes.items():
        if value is families_causal.DELETE:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def write_checkpoint(case, folder):
    common.write_json(folder / "config.json", case.config)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = CLASSES[case.kind].from_config(config, dtype=torch.float32)
    common.fill(model, common.seed_of(case.name), case.sharpness, case.mlp_gain)
    if case.adjust:
        case.adjust(model)
    model.tie_weights()
    tensors = common.tensors_as_published(model, case.store)
    if case.layout:
        tensors = case.layout(tensors)
    common.write_tensors(folder, tensors)
    dtype = str(case.store).removeprefix("torch.")
    new_style = "rope_parameters" in case.config
    common.write_json(folder / "config.json", {**case.config, "dtype" if new_style else "torch_dtype": dtype})


def load(case, folder, changes=None, attention=None):
    """The model as `from_pretrained` loads it, in float32; nothing missing, nothing left over."""
    config = common.read_json(folder / "config.json")
    with tempfile.TemporaryDirectory() as changed:
        path = pathlib.Path(changed)
        (path / "model.safetensors").symlink_to(folder / "model.safetensors")
        common.write_json(path / "config.json", merged(config, changes or {}))
        model, info = CLASSES[case.kind].from_pretrained(
            path, dtype=torch.float32, attn_implementation=attention or case.attention, output_loading_info=True
        )
    if not changes:
        assert not info["missing_keys"] and not info["mismatched_keys"], (case.name, info)
        extra = [k for k in info["unexpected_keys"] if not case.leftover or not k.endswith(case.leftover)]
        assert not extra, (case.name, extra)
    return model.eval()


def inputs_of(case):
    """What is measured: (windows,) or (windows, labels) or (sources, targets)."""
    if case.kind == "wrapped":
        return (common.windows(case.name, common.VOCAB - 4),)  # the last ids stand for images
    vocab = case.config["vocab_size"]
    if case.kind == "causal":
        return (common.windows(case.name, vocab),)
    if case.kind == "masked":
        return families_other.masked_windows(case, vocab)
    return families_other.pairs(case, vocab)


def losses(case, model, inputs):
    measure = {
        "causal": common.causal_losses,
        "masked": families_other.masked_losses,
        "seq2seq": families_other.seq2seq_losses,
        "wrapped": common.causal_losses,
    }[case.kind]
    return measure(model, *inputs)


def silent_tensors(case, model, inputs, measured):
    """Names of parameters that do not move the losses when they are rolled by one element."""
    silent = []
    for name, weight in model.named_parameters():
        if case.unused and re.search(case.unused, name):
            continue
        saved = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(saved.flatten().roll(1).reshape(saved.shape))
            if common.relative_difference(losses(case, model, inputs), measured) < common.TENSOR_VISIBLE:
                silent.append(name)
            weight.copy_(saved)
    return silent


def make(case):
    folder = common.fresh(FOLDER / case.name)
    write_checkpoint(case, folder)
    inputs = inputs_of(case)
    model = load(case, folder)
    measured = losses(case, model, inputs)
    exact = common.in_float64(model, lambda again: losses(case, again, inputs))
    gap = common.relative_difference(measured, exact)
    assert gap < common.CONDITIONED, (case.name, "ill-conditioned", gap)

    for change in case.matters:
        moved = common.relative_difference(losses(case, load(case, folder, change), inputs), measured)
        assert moved > common.VISIBLE, (case.name, change, moved)
    silent = silent_tensors(case, model, inputs, measured)
    assert all(case.silent and name.endswith(case.silent) for name in silent), (case.name, silent)
    if case.other_attention:
        other = losses(case, load(case, folder, attention=case.other_attention), inputs)
        assert common.relative_difference(other, measured) < common.CONDITIONED, (case.name, other, measured)

    keys = {"causal": ["windows"], "masked": ["windows", "labels"], "seq2seq": ["sources", "targets"]}
    keys, kind = keys.get(case.kind, ["windows"]), "causal" if case.kind == "wrapped" else case.kind
    common.write_expected(folder, kind=kind, **dict(zip(keys, inputs)), losses=measured, losses_f64=exact)
    size = common.size_of(folder)
    print(
        f"{case.name:24} {size:4} KiB  losses {' '.join(f'{x:.4f}' for x in measured)}  f32-f64 {gap:.1e}"
        f"  {len(case.matters)} options",
        flush=True,
    )


def main():
    arguments = sys.argv[1:]
    every = [case for group in (families_causal, families_decoders, families_other, families_wrapped) for case in group.cases()]
    assert len({case.name for case in every}) == len(every)
    if "--table" in arguments:
        for case in every:
            print(f"| {case.name} | {' '.join(case.notes.split()).replace('|', chr(92) + '|')} |")
        return
    unknown = set(arguments) - {case.name for case in every}
    assert not unknown, f"no such case: {unknown}"
    common.setup()
    for case in every:
        if not arguments or case.name in arguments:
            make(case)


if __name__ == "__main__":
    main()
