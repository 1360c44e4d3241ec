"""Tokens per second of a causal model in single precision, one window at a time, as InvarLock's Python package measures it.

Arguments: checkpoint directory, threads, windows, tokens of a window.
"""

import sys
import time

import torch
import transformers

directory, threads, windows, seq_len = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
torch.manual_seed(42)
ids = torch.randint(model.config.vocab_size, (windows, seq_len))
with torch.inference_mode():
    model(input_ids=ids[:1], labels=ids[:1])
    start = time.perf_counter()
    for window in ids:
        model(input_ids=window[None], labels=window[None]).loss.item()
    print(ids.numel() / (time.perf_counter() - start))
