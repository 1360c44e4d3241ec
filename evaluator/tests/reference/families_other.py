"""Masked and sequence-to-sequence families."""

import copy

import torch

import common
from families_causal import DELETE, VOCAB, Case

MASK = 4  # the id of the mask token


def masked_windows(case, vocab):
    """Windows in which every fourth position or so is predicted: masked, replaced or kept, as in training."""
    generator = common.seed_of(case.name, 2)
    inputs, labels = [], []
    for ids in common.windows(case.name, vocab, first=5):
        chosen = (torch.rand(len(ids), generator=generator) < 0.25).tolist()
        chosen[len(ids) // 2] = True
        labels.append([token if chosen[i] else -100 for i, token in enumerate(ids)])
        other = torch.randint(5, vocab, (len(ids),), generator=generator).tolist()
        kinds = torch.rand(len(ids), generator=generator).tolist()
        inputs.append([
            token if not chosen[i] or kinds[i] > 0.9 else other[i] if kinds[i] > 0.8 else MASK
            for i, token in enumerate(ids)
        ])
    return inputs, labels


@torch.no_grad()
def masked_losses(model, inputs, labels):
    found = []
    for ids, wanted in zip(inputs, labels, strict=True):
        logits = copy.deepcopy(model)(input_ids=torch.tensor([ids])).logits[0]
        found.append(common.mean_nll(logits, torch.tensor(wanted)))
    return found


def pairs(case, vocab):
    """Sources and targets of different lengths; both end with the end token (2), as tokenizers write them."""
    sources = common.windows(case.name, vocab, (23, 40, 64), first=5)
    targets = common.windows(case.name + " targets", vocab, (17, 33, 9), first=5)
    return [ids[:-1] + [2] for ids in sources], [ids[:-1] + [2] for ids in targets]


@torch.no_grad()
def seq2seq_losses(model, sources, targets):
    """Teacher forcing: the decoder reads decoder_start_token_id and the target without its last token."""
    found = []
    for source, target in zip(sources, targets, strict=True):
        shifted = [model.config.decoder_start_token_id] + target[:-1]
        out = copy.deepcopy(model)(
            input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([shifted]), use_cache=False
        )
        found.append(common.mean_nll(out.logits[0], torch.tensor(target)))
    return found


def cases():
    yield from ()
