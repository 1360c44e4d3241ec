"""Create the demonstration: a small trained model, a healthy and a damaged copy, and texts to measure them on.

    demo/valid.jsonl      520 generated texts, each longer than 128 tokens
    demo/baseline/        a Llama of 2 layers trained on such texts for two minutes, in bfloat16
    demo/healthy/         its linear weights rounded to 8 bits and back: as good as the baseline
    demo/damaged/         noise added to one layer: clearly worse
    demo/expected.json    the perplexities that transformers measures

The texts come from the small grammar below, so no third party has rights to them. All random
numbers are seeded: the texts are identical everywhere, the trained weights with the same PyTorch and
processor. Needs PyTorch, transformers 5 and tokenizers:

    python demo/make_demo.py
"""

import json
import math
import pathlib
import random
import re
import shutil

import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20260
ROWS = 520
TRAINING_ROWS = 8000
ROW_CHARACTERS = 720
PREVIEW = FINAL = 240
WINDOW = 128
VOCABULARY = 1024
END = "<|endoftext|>"

STEPS = 900
BATCH = 24
LEARNING_RATE = 4e-3

DAMAGED_LAYER = 1
# Standard deviation of the noise, in standard deviations of the weight it is added to.
DAMAGE = 0.8

# The grammar. `{name}` is expanded from the list or rule of that name; a word near the start of its
# list is more likely than one near its end. A text has one setting (people, place, trade), so its
# beginning helps to predict the rest.

PEOPLE = """Anna Tomas Ingrid Pavel Leila Marco Edith Jonas Miriam Hugo Clara Viktor Nadia Oskar Paula
Simon Greta Felix Irene Lukas Martha Rafael Helen Anton Sofia Bruno Alice Emil Rosa Daniel""".split()
WOMEN = set("Anna Ingrid Leila Edith Miriam Clara Nadia Paula Greta Irene Martha Helen Sofia Alice Rosa".split())
PLACES = """the harbour|the old mill|the station|the upper valley|the market square|the lighthouse|the quarry
|the north shore|the town hall|the orchard|the river crossing|the school|the edge of the forest|the island
|the observatory|the canal""".replace("\n", "").split("|")

TRADES = {
    "boats": dict(
        worker="sailor captain fisherman boatbuilder pilot",
        thing="boat sail rope anchor net mast rudder engine deck lantern compass hull",
        work="repaired cleaned painted inspected launched moored measured borrowed sold",
        trouble="a leak|rust|a torn seam|a strong current|fog|a broken chain",
    ),
    "bread": dict(
        worker="baker miller cook apprentice grocer",
        thing="loaf oven flour basket dough table knife sack recipe kettle tray cake",
        work="weighed prepared tasted carried baked covered wrapped counted sold",
        trouble="a cold oven|mice|damp flour|a missing key|smoke|a late delivery",
    ),
    "stars": dict(
        worker="astronomer student engineer lecturer librarian",
        thing="telescope tripod chart lens notebook clock camera dome signal calculation planet comet",
        work="observed recorded adjusted described compared photographed measured checked explained",
        trouble="clouds|a small error|a cracked lens|moonlight|a failed motor|dust",
    ),
    "trains": dict(
        worker="driver conductor guard mechanic clerk",
        thing="train ticket signal bridge wagon track timetable whistle platform lamp wheel tunnel",
        work="inspected repaired delayed counted announced loaded checked cleaned followed",
        trouble="snow|a fallen tree|a loose bolt|a strike|low steam|a wrong switch",
    ),
    "gardens": dict(
        worker="gardener farmer botanist beekeeper neighbour",
        thing="garden fence apple seed spade hive flower wall path hedge well greenhouse",
        work="planted watered trimmed picked measured covered sold admired mended",
        trouble="frost|drought|snails|a broken gate|too much rain|a hungry goat",
    ),
    "music": dict(
        worker="violinist teacher singer composer tuner",
        thing="violin song piano letter concert hall drum melody rehearsal stage chorus programme",
        work="practised repaired praised copied tuned performed remembered arranged announced",
        trouble="a broken string|stage fright|a cold|an empty hall|a wrong note|a long silence",
    ),
}

WORDS = {
    # Besides those of the trade:
    "thing": "box book door coat bell picture stone candle chair map bottle ladder mirror parcel",
    "work": "moved found lost showed opened kept noticed ordered",
    "trouble": "bad luck|an old quarrel|a loud noise|a sick horse|the heat",
    "quality": """old small new heavy broken fine narrow bright quiet useful wooden strange valuable simple
        green expensive familiar clean curious perfect empty delicate round famous hidden Dutch painted
        smooth sturdy plain forgotten""",
    "manner": "carefully slowly again quickly quietly twice gladly alone badly patiently together at_once",
    "time": """in_the_morning|at_noon|before_sunset|on_Monday|late_at_night|last_winter|in_early_spring
        |after_the_storm|on_market_day|every_week|for_three_days|during_the_holidays|in_October""",
    "number": "two three four five six seven eight ten twelve twenty forty a_hundred",
    "feeling": "pleased tired certain worried surprised proud silent angry ready grateful",
    "speech": "said thought wrote believed explained answered insisted admitted",
    "link": "However|Meanwhile|In_the_end|As_usual|For_that_reason|At_first|To_everyone's_surprise|Fortunately",
    "weather": "the_wind_turned|it_began_to_rain|the_sun_came_out|the_bells_rang|it_grew_dark|the_snow_melted",
    "opinion": """it was worth the trouble|nobody would notice|there was still time|it had been a mistake
        |the price was fair|the work could wait|everything would be ready|the story was true
        |somebody had to decide|they should ask for help""",
}

SYLLABLES = """ba bren car dal dor el fen gar hal hol ist jor kas kel lan lim lo mar men mol nar nes or pel
quin ra rin ros sal sten tam tor ul var ven wes wil yar zen""".split()
ENDINGS = "berg by dale field ford ham holm mouth stad ton wick worth".split()

RULES = {
    "object": [
        "the {thing}",
        "the {quality} {thing}",
        "a {quality} {thing}",
        "the {quality} {quality} {thing}",
        "the {thing} from {village}",
        "the {thing} and the {thing}",
        "{number} of the {things}",
        "{his} {thing}",
    ],
    "who": ["{A}", "{B}", "the {worker}", "{He}", "the {worker} from {village}", "{stranger}"],
    "deed": [
        "{work} {object}",
        "{work} {object} {manner}",
        "{work} {object} and {work} {object}",
        "went to {place}",
        "travelled to {village} with {stranger}",
        "{work} {object} for {stranger}",
        "found {trouble} near {place}",
        "asked the {worker} about {object}",
    ],
    "sentence": [
        "{who} {deed}.",
        "{who} {deed} {time}.",
        "{link}, {who} {deed}.",
        "{A} {speech} that {opinion}.",
        "Because of {trouble}, {who} {deed}.",
        "When {weather}, {who} {deed}.",
        "{who} was {feeling}, for the {thing} was {quality}.",
        "There were {number} {things} at {place}, and {who} {work} all of them.",
        "\"{Opinion},\" {speech} {B}, \"but the {thing} is too {quality}.\"",
        "{A} {deed}, while {B} {deed}.",
        "Nobody at {place} had seen such a {quality} {thing} before.",
        "The {thing} cost {number} coins, and {A} was {feeling}.",
        "{stranger} had come from {village} {time} with {object} and {object}.",
        "The {things}, the {things} and the {things} of {village} were {quality}.",
        "If {weather} {time}, the {worker} {work} {object} {manner}.",
    ],
    "opening": [
        "{A} was a {worker} at {place}, and {B} was {his} friend.",
        "{Time}, {A} and {B} met at {place}.",
        "Everyone at {place} knew {A}, the {worker}.",
        "This is what {A} told {B} about {object}.",
    ],
}


def choices(text):
    """`a b c_d` or `a b|c d` as a list of phrases."""
    parts = text.split("|") if "|" in text else text.split()
    return [" ".join(part.replace("_", " ").split()) for part in parts]


def pick(rng, options):
    """One of the options; the k-th with weight 1/(k+12)."""
    return rng.choices(options, [1 / (k + 12) for k in range(len(options))])[0]


class Setting:
    """The choices that are constant within one text."""

    def __init__(self, rng):
        self.rng = rng
        first, second = rng.sample(PEOPLE, 2)
        self.fixed = {
            "A": first,
            "B": second,
            "He": "she" if first in WOMEN else "he",
            "his": "her" if first in WOMEN else "his",
        }
        self.lists = {name: choices(text) for name, text in WORDS.items()}
        for name, text in TRADES[rng.choice(list(TRADES))].items():
            self.lists[name] = choices(text) + self.lists.get(name, [])
        # Each text has its own frequent things, deeds and places.
        for name in ("thing", "work", "quality"):
            rng.shuffle(self.lists[name])
        self.lists["place"] = rng.sample(PLACES, 4)

    def expand(self, template):
        return re.sub(r"\{(\w+)\}", lambda m: self.replacement(m.group(1)), template)

    def replacement(self, name):
        if name in self.fixed:
            return self.fixed[name]
        if name in RULES:
            return self.expand(pick(self.rng, RULES[name]))
        if name == "stranger":
            return ("Mr " if self.rng.random() < 0.5 else "Mrs ") + self.invented(SYLLABLES)
        if name == "village":
            return self.invented(ENDINGS)
        if name == "things":
            return plural(self.replacement("thing"))
        if name[0].isupper():
            return capitalised(self.replacement(name.lower()))
        return pick(self.rng, self.lists[name])

    def invented(self, endings):
        return capitalised(self.rng.choice(SYLLABLES) + self.rng.choice(SYLLABLES) + self.rng.choice(endings))

    def sentence(self, rule):
        text = self.expand("{" + rule + "}")
        return capitalised(re.sub(r"\ba (?=[aeio])", "an ", text))


def plural(noun):
    if noun == "loaf":
        return "loaves"
    if noun.endswith(("s", "ch")):
        return noun + "es"
    return re.sub(r"(?<![aeo])y$", "ie", noun) + "s"


def capitalised(text):
    return text[0].upper() + text[1:]


def make_text(rng):
    setting = Setting(rng)
    text = setting.sentence("opening")
    while len(text) < ROW_CHARACTERS:
        text += " " + setting.sentence("sentence")
    return text


def make_tokenizer(texts):
    """Byte-level BPE that puts one end-of-text token before every text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def windows(tokenizer, texts):
    """The first WINDOW tokens of every text. Each text must be long enough."""
    rows = [encoding.ids[:WINDOW] for encoding in tokenizer.encode_batch(texts)]
    assert all(len(row) == WINDOW for row in rows)
    return torch.tensor(rows)


def new_model():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def train(model, rows):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.05)
    model.train()
    for step in range(STEPS):
        batch = rows[torch.randint(len(rows), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)


def projections(layers):
    return [module for layer in layers for module in layer.modules() if isinstance(module, torch.nn.Linear)]


@torch.no_grad()
def round_to_8_bits(model):
    """Round to nearest (symmetric, one scale per output row) and convert back."""
    for module in projections(model.model.layers):
        weight = module.weight.float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
        module.weight.copy_((weight / scale).round().clamp(-128, 127) * scale)


@torch.no_grad()
def damage(model):
    for module in projections([model.model.layers[DAMAGED_LAYER]]):
        weight = module.weight.float()
        module.weight.copy_(weight + DAMAGE * weight.std() * torch.randn(weight.shape))


def save(model, tokenizer, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "add_bos_token": True,
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": 256,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


@torch.no_grad()
def perplexity(folder, texts):
    """As InvarLock measures it: one window at a time, in float32, weighted by the window's tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    total = tokens = 0.0
    for text in texts:
        window = tokenizer(text, truncation=True, max_length=WINDOW, padding="max_length", return_tensors="pt")
        mask = window["attention_mask"]
        labels = window["input_ids"].masked_fill(mask == 0, -100)
        loss = model(input_ids=window["input_ids"], attention_mask=mask, labels=labels).loss.item()
        weight = mask.sum().item()
        total += loss * weight
        tokens += weight
    assert tokens == len(texts) * WINDOW
    return math.exp(total / tokens)


def unigram_perplexity(training, rows):
    """The perplexity of a model that knows only the frequency of each token."""
    counts = torch.bincount(training.flatten(), minlength=VOCABULARY).double() + 1
    return math.exp(-(counts / counts.sum()).log()[rows[:, 1:]].mean().item())


def main():
    transformers.utils.logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)

    texts = [make_text(rng) for _ in range(ROWS)]
    (HERE / "valid.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    training_texts = [make_text(rng) for _ in range(TRAINING_ROWS)]
    tokenizer = make_tokenizer(training_texts)
    rows, training = windows(tokenizer, texts), windows(tokenizer, training_texts)
    assert len(rows.unique(dim=0)) == ROWS

    model = new_model()
    train(model, training)
    model.to(torch.bfloat16)
    save(model, tokenizer, HERE / "baseline")
    for name, edit in [("healthy", round_to_8_bits), ("damaged", damage)]:
        edited = transformers.AutoModelForCausalLM.from_pretrained(HERE / "baseline", dtype=torch.bfloat16)
        edit(edited)
        save(edited, tokenizer, HERE / name)

    preview, final = texts[:PREVIEW], texts[PREVIEW : PREVIEW + FINAL]
    measured = {name: perplexity(HERE / name, final) for name in ("baseline", "healthy", "damaged")}
    expected = {
        "windows": FINAL,
        "tokens": FINAL * WINDOW,
        "perplexity": measured,
        "ratio": {name: measured[name] / measured["baseline"] for name in ("healthy", "damaged")},
        "baseline_preview_perplexity": (before := perplexity(HERE / "baseline", preview)),
        "baseline_drift": measured["baseline"] / before,
        "unigram_perplexity": unigram_perplexity(training, rows[PREVIEW : PREVIEW + FINAL]),
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(json.dumps(expected, indent=2))
    assert abs(expected["ratio"]["healthy"] - 1) < 0.005
    assert expected["ratio"]["damaged"] > 1.2
    assert 0.97 < expected["baseline_drift"] < 1.03


if __name__ == "__main__":
    main()
