"""Make `fixtures/choices/expected.json`: examples with choices, and what transformers gives for them on `demo/baseline`.

    python evaluator/tests/reference/make_choices.py

Needs torch and transformers. A choice is scored by the sum of the log-probabilities of its tokens after the prompt. The
tokens of a choice are those of prompt and choice together, without as many as the prompt has alone; white space at the end
of the prompt belongs to the choice. One space is between both, unless there is white space already. The begin token of the
model comes first. `losses` are the negative sums in nats.
"""

import json
import pathlib

import tokenizers
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIXTURE = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "choices" / "expected.json"


def examples():
    """Prompts of the demo's texts; the right choice goes on, the others are of other texts."""
    lines = (ROOT / "demo" / "valid.jsonl").read_text().splitlines()
    words = [json.loads(line)["text"].split(" ") for line in lines[:40]]
    for i in range(12):
        prompt, goes_on = " ".join(words[i][: 10 + i]), words[i][10 + i : 14 + i]
        others = [words[(i * 5 + j * 7 + 3) % 40][20 + j : 22 + j + i % 4] for j in range(1 + i % 4)]
        choices = [" ".join(choice) for choice in others]
        answer = i % (len(choices) + 1)
        choices.insert(answer, " ".join(goes_on))
        # White space where both meet, inside a word, and where a token of both would begin.
        prompt += ["", " ", "\n", "  "][i % 4]
        if i % 5 == 4:
            choices = [" " + choice for choice in choices]
        yield {"question": prompt, "choices": choices, "answer": answer}


def main():
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "demo" / "baseline", dtype=torch.float32).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(ROOT / "demo" / "baseline" / "tokenizer.json"))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    begin = tokenizer.token_to_id("<|endoftext|>")
    rows = []
    for row in examples():
        prompt, losses, tokens = row["question"], [], []
        context = len(encode(prompt.rstrip()))
        for choice in row["choices"]:
            gap = "" if prompt[-1:].isspace() or choice[:1].isspace() else " "
            ids = encode(prompt + gap + choice)
            with torch.no_grad():
                logits = model(torch.tensor([[begin, *ids]])).logits[0].double()
            scores = torch.log_softmax(logits[context:-1], dim=-1)
            predicted = torch.tensor(ids[context:])
            losses.append(-scores.gather(1, predicted[:, None]).sum().item())
            tokens.append(len(predicted))
        rows.append({**row, "losses": losses, "tokens": tokens})
    FIXTURE.write_text(json.dumps(rows, indent=1) + "\n")


main()
