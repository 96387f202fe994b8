"""
demo_tokenizer.py
    Builds the demo model's tokenizer: byte-level BPE in the style of Llama 3,
    its chat template and its configuration.

The merges are learned on words without their leading space; afterwards the
most frequent first pieces get a merge with the space, last in rank.  So a
word is cut in the same places with and without a space before it, and a
model that copies a word from a sentence into JSON copies token by token.
Digits never merge.

tools/demo_model/demo_tokenizer.py
"""

import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo_tasks import Writer

N_VOCAB = 4096
MAX_POSITIONS = 2048

BOS, END_OF_TEXT, PAD, END = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = [BOS, END_OF_TEXT, PAD, END, *ROLES.values()]

# Llama 3's split, and the same with the space kept apart for learning.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEARNING_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"

CHAT_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('This model knows the roles system, user and assistant only.') }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}
"""


def corpus(n_examples):
    """Text of the training mixture, one message at a time."""
    writer = Writer(random.Random(20), "train")
    for _ in range(n_examples):
        example = writer.training_example()
        if isinstance(example, str):
            yield example
        else:
            for message in example:
                yield message["content"]


def learn(n_examples):
    """Vocabulary and merges."""
    texts = list(corpus(n_examples))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LEARNING_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    n_learned = (N_VOCAB - len(SPECIAL) + 256) * 60 // 100
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=n_learned,
            min_frequency=3,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    vocab = learned["vocab"]
    merges = [m if isinstance(m, list) else m.split(" ") for m in learned["merges"]]

    first_pieces = Counter()
    for encoding in learner.encode_batch(texts):
        tokens = encoding.tokens
        for space, piece in zip(tokens, tokens[1:]):
            if space == "Ġ" and piece[0].isalpha():
                first_pieces[piece] += 1
    for piece, _ in first_pieces.most_common():
        if len(vocab) == N_VOCAB - len(SPECIAL):
            break
        vocab["Ġ" + piece] = len(vocab)
        merges.append(["Ġ", piece])
    assert len(vocab) == N_VOCAB - len(SPECIAL), "the corpus holds too few words for the vocabulary"
    return vocab, merges


def tokenizer_json(vocab, merges):
    def special(token, token_id):
        return {
            "id": token_id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }

    ids = {token: len(vocab) + i for i, token in enumerate(SPECIAL)}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(t, i) for t, i in ids.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                {
                    "type": "TemplateProcessing",
                    "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {BOS: {"id": BOS, "ids": [ids[BOS]], "tokens": [BOS]}},
                },
            ],
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }


def build(out, n_examples=60000):
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    out = Path(out)
    vocab, merges = learn(n_examples)
    content = tokenizer_json(vocab, merges)
    (out / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    config = {
        "added_tokens_decoder": {
            str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in content["added_tokens"]
        },
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_POSITIONS,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Tokenizer.from_file(str(out / "tokenizer.json"))
