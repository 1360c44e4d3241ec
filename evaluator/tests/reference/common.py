"""What the programs that make reference checkpoints share: weights, windows, losses and files."""

import contextlib
import copy
import json
import pathlib
import re
import shutil
import tempfile
import zlib

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
VOCAB = 113
LENGTHS = (3, 17, 40, 64)

# An option named in `matters` must move some window's loss by more than this, relatively: readers are held to 1e-5.
VISIBLE = 1.5e-5
# Float32 and float64 must agree this well, or the case is too ill-conditioned to be a reference.
CONDITIONED = 3e-6
# Each stored tensor, rolled by one element, must move some window's loss by more than this, relatively.
TENSOR_VISIBLE = 3e-5


def setup():
    """One thread, the same result each time, no advice on the screen."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def seed_of(name, salt=0):
    """A random generator whose seed is derived from the name of the case."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()) + salt)


# ---- weights


def fill(model, generator, sharpness=1.5, mlp_gain=2.0):
    """Fill the model with weights among which none is negligible.

    `sharpness` multiplies the last norm, and so the logits; `mlp_gain` the last matrix of each MLP.
    """
    last = last_norm(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if re.search(r"norm|\bln_|layer_norm|LayerNorm|\.ln\b", name, re.I) and name.endswith("weight"):
                weight.copy_((sharpness if name == last else 1) * (1 + 0.3 * noise))
            elif weight.dim() == 1 or name.endswith("_bias"):
                weight.copy_(0.3 * noise)  # biases, attention sinks
            elif re.search(r"embed|wte|wpe|shared|relative_attention_bias", name) and "proj" not in name:
                weight.copy_(0.4 * noise)
            elif re.search(r"down_proj|mlp\.c_proj|fc2|fc_out|dense_4h_to_h|wo\b|\.output\.dense|lin2|mlp\.Wo", name):
                weight.copy_(mlp_gain * noise * min(weight.shape[-2:]) ** -0.5)
            else:
                weight.copy_(1.4 * noise * min(weight.shape[-2:]) ** -0.5)


def last_norm(model):
    """The name of the weight of the last normalisation before the head, where there is one."""
    names = [n for n, p in model.named_parameters() if p.dim() == 1 and n.endswith("weight")]
    return next((n for n in reversed(names) if re.search(r"^[a-z]+\.(norm|ln_f|final_\w+|decoder\.final_\w+)\.", n)), None)


def tensors_as_published(model, store):
    """The tensors as `save_pretrained` writes them: published names, no duplicate of a tied tensor."""
    model = copy.deepcopy(model).to(store)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return safetensors.torch.load_file(pathlib.Path(folder) / "model.safetensors")


# ---- windows and losses


def windows(name, vocab=VOCAB, lengths=LENGTHS, first=0):
    """Random token ids in `first..vocab`, one list for each length, unpadded."""
    generator = seed_of(name, 1)
    return [torch.randint(first, vocab, (length,), generator=generator).tolist() for length in lengths]


def mean_nll(logits, labels):
    """Mean negative log likelihood in nats; the log-softmax in float64. A label of -100 does not count."""
    logits = logits.to(torch.float64) if logits.dtype != torch.float64 else logits
    return F.cross_entropy(logits, labels, ignore_index=-100).item()


@torch.no_grad()
def causal_losses(model, inputs):
    found = []
    for ids in inputs:
        ids = torch.tensor(ids)
        # A copy for each window: dynamic RoPE keeps state from the windows before.
        logits = copy.deepcopy(model)(input_ids=ids[None], use_cache=False).logits[0]
        found.append(mean_nll(logits[:-1], ids[1:]))
    return found


@contextlib.contextmanager
def float32_means_float64():
    """transformers does norms, rotation and softmax in float32 whatever the model's type.

    It asks for that by these three names; within this block they mean float64.
    """
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved


def in_float64(model, measure):
    """`measure` of the same model with float64 throughout: the better oracle."""
    default = torch.get_default_dtype()
    with float32_means_float64():
        torch.set_default_dtype(torch.float64)
        try:
            again = type(model)._from_config(copy.deepcopy(model.config), dtype=torch.float64).double()
            share_parameters_as(again, model)
            buffers = dict(again.named_buffers())
            for name in set(model.state_dict()) - {n for n, _ in model.named_parameters(remove_duplicate=False)}:
                buffers[name].copy_(model.state_dict()[name])
            return measure(again.eval())
        finally:
            torch.set_default_dtype(default)


def share_parameters_as(again, model):
    """Give `again` the parameters of `model` in float64: tied where, and only where, those of `model` are."""
    made = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module, _, last = name.rpartition(".")
        twin = made.setdefault(id(parameter), torch.nn.Parameter(parameter.detach().double(), requires_grad=False))
        setattr(again.get_submodule(module), last, twin)


def relative_difference(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


# ---- files


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tensors(folder, tensors, file="model.safetensors"):
    tensors = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    safetensors.torch.save_file(tensors, folder / file, {"format": "pt"})


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_expected(folder, **values):
    """`expected.json`: the versions, then one line for each list, so that the file can be read and compared."""
    head = {"transformers": transformers.__version__, "torch": torch.__version__}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    for key, value in values.items():
        rows = isinstance(value, list) and value and isinstance(value[0], list)
        text = "[\n  " + ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]" if rows else json.dumps(value)
        lines.append(f'"{key}": {text}')
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def size_of(folder):
    """Size of the files of a folder in KiB, rounded up."""
    return -(-sum(f.stat().st_size for f in folder.iterdir()) // 1024)


def read_json(path):
    return json.loads(path.read_text())
