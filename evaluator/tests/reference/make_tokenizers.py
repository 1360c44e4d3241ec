"""Makes fixtures/tokenizers: the older files of small tokenizers, and the ids that transformers gives for texts.jsonl.

Run with transformers 5 and sentencepiece, in the root of the repository: python3 evaluator/tests/reference/make_tokenizers.py
"""
import json
import random
import shutil
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer, BertWordPieceTokenizer
from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent.parent / "fixtures/tokenizers"
DEMO = Path(__file__).resolve().parents[3] / "demo/valid.jsonl"

SPECIAL = [
    "", " ", "  ", "a", " a", "a ", "  two  spaces  ", "tab\tand\nnew\n\nlines\r\n", "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m",
    "\u4e2d\u6587\u5b57\u7b26 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4", "\u0421\u0442\u0430\u0440\u044b\u0439 \u0433\u043e\u0440\u043e\u0434", "\u0645\u0631\u062d\u0628\u0627", "\U0001f600 emoji \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "[MASK] and [CLS] [SEP]", "<s> text </s>", "<|endoftext|>middle<|endoftext|>", "<extra_id_0> t5 <extra_id_1>", "<mask> a <pad>",
    "\u2581already \u2581prefixed", "non\u00a0breaking\u2003space", "\ufb01ne \u2460 \u00bd \u212b", "it's we'll I'M DON'T", "1234567890 3.14 1,000",
    "under_score-dash/slash", "ALL CAPS lower MiXeD", "x" * 120, "\u0000\u0001 control \u007f", "\u200bzero\u200dwidth", "Stra\u00dfe \u1e9e \u0130stanbul",
    "def f(x):\n    return x ** 2  # comment", "https://example.com/?q=1&r=%20", "a\u0300\u0301\u0302 combining", "....!!!???", "\u201cquotes\u201d \u2018single\u2019 \u2014 dash",
    " leading space", "trailing space ", "<unk> unknown \u2603", "<0x41> byte", "<custom> added", "a<custom>b", "<start_of_turn>user",
]


def texts():
    rows = [json.loads(line)["text"] for line in DEMO.open()]
    rng = random.Random(7)
    found = list(SPECIAL)
    while len(found) < 200:
        row = rng.choice(rows)
        start = rng.randrange(max(1, len(row) - 60))
        found.append(row[start:start + rng.randrange(1, 60)])
    return found, rows


TEXTS, ROWS = texts()
TRAINING = ROWS[:60] + SPECIAL[8:13]


def case(name, model_type, settings=None, sentence_piece=False, **files):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    for file, content in files.items():
        file = {"vocab_txt": "vocab.txt", "vocab_json": "vocab.json", "merges": "merges.txt", "model": "tokenizer.model",
                "spiece": "spiece.model", "special": "special_tokens_map.json", "added": "added_tokens.json"}[file]
        (directory / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    if sentence_piece:
        # Before 5.24, transformers took the class of such a tokenizer for a plain BPE without the prefix of texts.
        processor = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
        control = ("<s>", "</s>", "<unk>", "<0x")
        ids = [None if any(piece in text for piece in control) else processor.encode(text) for text in TEXTS]
    facts = {"class": type(tokenizer).__name__, "tokens": len(tokenizer), "ids": ids}
    (directory / "expected.json").write_text(json.dumps(facts, separators=(",", ":")) + "\n")
    print(name, type(tokenizer).__name__, len(tokenizer), sum(map(len, ids)))


def word_piece(lower):
    trained = BertWordPieceTokenizer(lowercase=lower)
    trained.train_from_iterator(TRAINING, vocab_size=400, min_frequency=1)
    return "".join(token + "\n" for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1]))


def byte_level(special, size=380):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TRAINING, vocab_size=size, min_frequency=1, special_tokens=special)
    model = json.loads(trained.to_str())["model"]
    merges = "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"])
    return json.dumps(model["vocab"], ensure_ascii=False), merges


def sentence_piece(kind, **options):
    source, prefix = Path("/tmp/training.txt"), "/tmp/trained"
    source.write_text("\n".join(text.replace("\n", " ").replace("\0", " ") for text in TRAINING))
    sentencepiece.SentencePieceTrainer.train(
        input=str(source), model_prefix=prefix, model_type=kind, character_coverage=0.98, minloglevel=2,
        num_threads=1, **options)
    return Path(prefix + ".model").read_bytes()


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    (HERE / "texts.json").write_text(json.dumps(TEXTS, indent=0) + "\n")
    case("bert-uncased", "bert", vocab_txt=word_piece(True))
    case("bert-cased", "bert", {"do_lower_case": False, "tokenizer_class": "BertTokenizer", "strip_accents": False},
         vocab_txt=word_piece(False))
    case("distilbert-no-chinese", "distilbert", {"tokenize_chinese_chars": False}, vocab_txt=word_piece(True))
    vocab, merges = byte_level(["<|endoftext|>"])
    case("gpt2", "gpt2", vocab_json=vocab, merges=merges)
    case("gpt2-prefix-space", "gpt2", {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"}, vocab_json=vocab, merges=merges)
    case("gpt2-added", "gpt2", vocab_json=vocab, merges=merges,
         special=json.dumps({"bos_token": "<|endoftext|>", "pad_token": "<custom>"}), added=json.dumps({"<custom>": 380}))
    case("qwen2", "qwen2", {"tokenizer_class": "Qwen2Tokenizer"}, vocab_json=vocab, merges=merges)
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab, merges = byte_level(names)
    case("roberta", "roberta", vocab_json=vocab, merges=merges,
         special=json.dumps({"mask_token": {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}}))
    case("opt", "opt", {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>",
                        "tokenizer_class": "GPT2Tokenizer"}, vocab_json=vocab, merges=merges)
    llama = sentence_piece("bpe", vocab_size=600, byte_fallback=True, split_digits=True, remove_extra_whitespaces=False,
                           normalization_rule_name="identity")
    case("llama", "llama", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False,
                            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, model=llama)
    case("llama-legacy", "llama", {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": True,
                                   "added_tokens_decoder": {"600": {"content": "<custom>", "lstrip": False, "rstrip": False,
                                                                    "single_word": False, "normalized": False, "special": True}}}, model=llama)
    case("mistral-plain", "mistral", model=llama, sentence_piece=True)
    gemma = sentence_piece("bpe", vocab_size=600, byte_fallback=True, split_digits=True, remove_extra_whitespaces=False,
                           add_dummy_prefix=False, normalization_rule_name="identity", pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                           pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=["<mask>", "<start_of_turn>", "  ", "\n"])
    case("gemma", "gemma", {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}, model=gemma)
    t5 = sentence_piece("unigram", vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    case("t5", "t5", spiece=t5)
    case("t5-few-sentinels", "t5", {"tokenizer_class": "T5Tokenizer", "extra_ids": 2}, spiece=t5)


if __name__ == "__main__":
    main()
