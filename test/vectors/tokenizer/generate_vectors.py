#!/usr/bin/env python3
"""Reference vectors of the tokenizer, made with Hugging Face's libraries.

Run by hand (python3 test/vectors/tokenizer/generate_vectors.py) with the
packages tokenizers and transformers; "make test" needs only the outputs.

For every tokenizer below it writes NAME.json, whose components are configured
like those of the model family it is named after, with a small vocabulary that
is trained here on text that is generated here.  Then it tokenizes strings
that this script and test/unit/test_tokenizer.c make with the same generator
(splitmix64 over the entries of fragments.txt) and writes one digest for every
50 of them (digests.txt): over the ids with and without special tokens, the
decoded text with and without them, and the text of random ids.  A few dozen
strings of each kind are written out in full (cases.jsonl), to see what is
wrong when a digest is.
"""
import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile

import tokenizers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
MASK = (1 << 64) - 1
BLOCK = 50

# ------------------------------------------------------------- generator


class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)


LITERALS = """
the|and|of|Hello|world|tokenizer|ing|tion|un|re|don't|we'll|I'm|They've|it's|IT'S|he'd|you're
quick brown fox|jumps over|lazy dog|New York|e.g.|i.e.|etc...|?!|!!!|---|***|===|#include <stdio.h>
int main(void) { return 0; }|for (i = 0; i < n; i++)|x += 1;|def f(x):|    return x|SELECT * FROM t WHERE a >= 10;
https://example.org/a?b=c&d=%20|user@example.com|/usr/local/bin|C:\\Temp|{"key": [1, 2.5, null]}|<div class="x">|</div>
1|12|123|1234|12345|1234567890|3.14159|1,000,000|0x1F|2^10|50%|$9.99|€20|№5|½|²|³|Ⅷ|٣٤٥|१२३|๑๒๓|１２３
été|été|naïve|naïve|Ångström|Ångström|Å|ﬁn|ﬀ|ſ|İstanbul|ıI|ß|ẞ|STRASSE|Æther|Œuvre|ǆ|Ǆ
Привет, мир!|Ёлка|ёлка|йод|йод|Здравствуйте|Україна|България
γειά σου Κόσμε|Ὀδυσσεύς|ΣΊΣΥΦΟΣ|ά|ά
שלום עולם|בְּרֵאשִׁית|مرحبا بالعالم|السَّلَامُ عَلَيْكُم|فارسی|اردو
नमस्ते दुनिया|क्षत्रिय|क़|ड़|বাংলা|কো|தமிழ்|தொ|ภาษาไทย|น้ำ|ລາວ|မြန်မာ|ខ្មែរ|සිංහල
你好世界|漢字|汉字|、。|「日本語」|こんにちは|カタカナ|ガギグ|ガギグ|ﾊﾝｶｸ|Ｆｕｌｌ|㍿|㎏|①②③|㈱
안녕하세요|한국어|한국|각|가|가|ᄀᄀ|ㅋㅋㅋ
😀|👍🏽|👩‍👩‍👧‍👦|🏳️‍🌈|🇩🇪🇫🇷|❤️|☎|☺︎|✈️|🤷🏿‍♀️|1️⃣
é|é|ộ|ộ|ộ|q̣̇|q̣̇|a̡̛|Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L
◌́|́|̧́|゙|्|‍|‌
"""

ADDED = """
<s>|</s>|<unk>|<pad>|<mask>|<|endoftext|>|<|begin_of_text|>|<|end_of_text|>|<|eot_id|>|<|start_header_id|>user<|end_header_id|>
<|im_start|>|<|im_end|>|<|im_start|>assistant|<tool_call>|</tool_call>|<think>|[INST]|[/INST]| [INST] |[TOOL_CALLS]
<|im_start|im_end|>|<|begin_of_text|<s>|<s|s>|<0x41>|<0x0A>|<0xE4>|<0xff>|▁|▁▁|Ġ|Ċ|<ent>|ENT|<Ent>|word|wordy|  <mask>  |<mask>
<start_of_turn>|<end_of_turn>|<bos>|<eos>|abc|abcd|ab|NaN|<lone>|<left>|<right>|  <left>|<right>  |x<lone>y| <lone> 
"""

# code point ranges: (low, high, most characters in a row)
RANGES = [
    (0x20, 0x7E, 12), (0x20, 0x7E, 4), (0x20, 0x20, 40), (0x20, 0x20, 3),
    (0x20, 0x20, 1), (0x20, 0x20, 1), (0x0A, 0x0A, 3), (0x09, 0x09, 3),
    (0x30, 0x39, 30), (0x61, 0x7A, 10), (0x61, 0x7A, 4), (0x41, 0x5A, 8),
    (0x61, 0x61, 200), (0x00, 0x1F, 3), (0x7F, 0x9F, 2), (0xA0, 0xFF, 6),
    (0x100, 0x17F, 5), (0x180, 0x24F, 4), (0x250, 0x2AF, 3), (0x300, 0x34E, 3),
    (0x391, 0x3A1, 6), (0x3B1, 0x3C9, 6), (0x400, 0x45F, 8), (0x410, 0x44F, 8),
    (0x561, 0x586, 5), (0x5D0, 0x5EA, 6), (0x5B0, 0x5BD, 2), (0x620, 0x64A, 7),
    (0x64B, 0x652, 2), (0x660, 0x669, 4), (0x904, 0x939, 4), (0x93E, 0x94D, 2),
    (0x985, 0x98C, 3), (0xB85, 0xB8A, 3), (0xC05, 0xC0C, 3), (0xE01, 0xE2E, 5),
    (0xE30, 0xE3A, 2), (0x10D0, 0x10F0, 4), (0x1100, 0x1112, 2),
    (0x1161, 0x1175, 2), (0x11A8, 0x11C2, 1), (0x1200, 0x1246, 3),
    (0x1E00, 0x1EF9, 4), (0x1F00, 0x1F07, 3), (0x2000, 0x200F, 2),
    (0x2010, 0x2027, 3), (0x2028, 0x202F, 1), (0x2030, 0x205E, 3),
    (0x2070, 0x2071, 2), (0x20A0, 0x20BF, 2), (0x2100, 0x214F, 2),
    (0x2150, 0x2188, 2), (0x2190, 0x21FF, 2), (0x2200, 0x22FF, 3),
    (0x2460, 0x24FF, 2), (0x2500, 0x257F, 6), (0x2600, 0x26FF, 2),
    (0x2700, 0x27BF, 2), (0x3000, 0x303F, 3), (0x3041, 0x3096, 6),
    (0x3099, 0x309A, 1), (0x30A1, 0x30FA, 6), (0x3105, 0x312D, 3),
    (0x3131, 0x318E, 3), (0x3200, 0x321E, 2), (0x3300, 0x3357, 2),
    (0x3400, 0x3410, 2), (0x4E00, 0x9FA5, 6), (0x4E00, 0x4E2F, 6),
    (0xAC00, 0xD7A3, 5), (0xE000, 0xE010, 1), (0xF900, 0xFA2D, 2),
    (0xFB00, 0xFB06, 2), (0xFB1D, 0xFB36, 2), (0xFB50, 0xFB80, 2),
    (0xFDFA, 0xFDFA, 1), (0xFE00, 0xFE0F, 1), (0xFE30, 0xFE44, 2),
    (0xFE70, 0xFE74, 2), (0xFEFF, 0xFEFF, 1), (0xFF01, 0xFF5E, 5),
    (0xFF61, 0xFF9F, 3), (0xFFFD, 0xFFFD, 2), (0xFFFE, 0xFFFF, 1),
    (0x10000, 0x1000B, 1), (0x10330, 0x1034A, 2), (0x10400, 0x1044F, 3),
    (0x12000, 0x12010, 1), (0x13000, 0x13010, 1), (0x1D100, 0x1D126, 1),
    (0x1D15E, 0x1D164, 1), (0x1D400, 0x1D454, 3), (0x1F130, 0x1F149, 2),
    (0x1F1E6, 0x1F1FF, 4), (0x1F300, 0x1F320, 2), (0x1F3FB, 0x1F3FF, 1),
    (0x1F600, 0x1F64F, 3), (0x1F680, 0x1F6C5, 2), (0x20000, 0x20100, 2),
    (0x2F800, 0x2F80F, 1), (0xE0001, 0xE0001, 1), (0xE0020, 0xE007F, 3),
    (0x10FFFD, 0x10FFFD, 1),
]

CONTROLS = ["\r\n", "\r\n\r\n", "\n\n\n", " \n", "\n ", "\t\t", "\r", "\v", "\f", "\x85", "\u2028",
            "\u00a0", "\u3000", "\u180e", "\u200b", "  \u00a0 ", "   \n\t  ", "\x00", "\x1b[0m",
            "'", "'s", "'S", "'\u017f", " '", "_", "__init__", "\u203f", "."]


def make_fragments():
    items = []
    for block in (LITERALS, LITERALS, ADDED, ADDED):
        for line in block.strip("\n").split("\n"):
            # "<|" and "|>" hold the separator themselves
            line = line.replace("<|", "<\0").replace("|>", "\0>")
            for text in line.split("|"):
                text = text.replace("\0", "|")
                if text:
                    items.append(("T", text))
    items += [("T", text) for text in CONTROLS * 2]
    items += [("R",) + r for r in RANGES]
    items += [("T", " ")] * 60
    return items


def write_fragments(items):
    with open(os.path.join(HERE, "fragments.txt"), "w") as f:
        f.write("# T text in hex; R low high longest (code points); "
                "by generate_vectors.py\n")
        for item in items:
            if item[0] == "T":
                f.write("T %s\n" % item[1].encode().hex())
            else:
                f.write("R %x %x %d\n" % item[1:])


def make_string(items, seed):
    rnd = Random(seed)
    n = 1 + rnd.next() % 20
    if rnd.next() % 50 == 0:
        n *= 10
    out = []
    for _ in range(n):
        item = items[rnd.next() % len(items)]
        if item[0] == "T":
            out.append(item[1])
            continue
        low, high, longest = item[1:]
        count = 1 + rnd.next() % longest
        for _ in range(count):
            out.append(chr(low + rnd.next() % (high - low + 1)))
    return "".join(out)


def make_ids(n_vocab, seed):
    rnd = Random(seed ^ 0x5555555555555555)
    return [rnd.next() % n_vocab for _ in range(rnd.next() % 40)]


def make_word(seed, n):
    rnd = Random(seed)
    return "".join("etaoinshrdlu"[rnd.next() % 12] for _ in range(n))


class Digest:
    """SHA-256, of which 8 bytes are kept"""

    def __init__(self):
        self.hash = hashlib.sha256()

    def add_ids(self, ids):
        self.hash.update(struct.pack("<I%dI" % len(ids), len(ids), *ids))

    def add_text(self, text):
        data = text.encode()
        self.hash.update(struct.pack("<I", len(data)) + data)

    def hex(self):
        return self.hash.hexdigest()[:16]


# -------------------------------------------------------------- training

SENTENCES = """
The quick brown fox jumps over the lazy dog, and then it sleeps for 12 hours.
Hello world! This is a tokenizer test; it's simple, isn't it? We'll see what they've done.
Please answer the question in one sentence, and return the result as JSON: {"label": "positive", "score": 0.98}.
def main(argv):\\n    for i in range(10):\\n        print(i, i * i)\\n    return 0
#include <stdio.h>\\nint main(void)\\n{\\n\\tprintf("hello\\\\n");\\n\\treturn 0;\\n}
SELECT name, count(*) FROM reviews WHERE rating >= 4 GROUP BY name ORDER BY 2 DESC LIMIT 10;
La vie est belle, été comme hiver; où êtes-vous né? C'est à Paris, près de l'église.
Der schnelle braune Fuchs springt über den faulen Hund; die Straße ist naß und größer.
El niño comió mañana una piña en España; ¿cómo está usted? ¡Muy bien, gracias!
Привет, мир! Быстрая коричневая лиса прыгает через ленивую собаку. Это тест токенизатора.
Καλημέρα κόσμε, τι κάνεις σήμερα; Η γρήγορη αλεπού πηδάει.
שלום עולם, מה שלומך היום? אני בסדר גמור תודה.
مرحبا بالعالم كيف حالك اليوم؟ هذا اختبار بسيط للغة العربية.
नमस्ते दुनिया, आप कैसे हैं? यह एक परीक्षण वाक्य है।
你好,世界!今天天气很好,我们一起去公园散步吧。这是一个分词测试。
こんにちは世界、今日はいい天気ですね。トークナイザーのテストです。
안녕하세요 세계, 오늘 날씨가 좋네요. 이것은 토크나이저 시험입니다.
สวัสดีชาวโลก วันนี้อากาศดีมาก
Emoji: 😀 😂 👍 ❤️ 🎉 and symbols: → ≤ ≥ ± × ÷ € £ ¥ © ® ™ … — –
https://www.example.com/path/to/page?query=1&other=two user@example.org 192.168.0.1 2024-01-31T23:59:59Z
"""


def corpus():
    base = [s.encode().decode("unicode_escape").encode("latin-1").decode()
            if "\\" in s and s.isascii() else s
            for s in SENTENCES.strip("\n").split("\n")]
    words = sorted({w for s in base for w in s.split(" ") if w})
    rnd = Random(7)
    lines = list(base) * 3
    for _ in range(1500):
        lines.append(" ".join(words[rnd.next() % len(words)]
                              for _ in range(3 + rnd.next() % 12)))
    for _ in range(200):
        lines.append("    " * (rnd.next() % 4) +
                     str(rnd.next() % 10 ** (1 + rnd.next() % 9)))
    return lines


def train(pre_tokenizer, vocab_size, alphabet=(), normalizer=None, **model):
    """Vocabulary (in order) and merges."""
    tok = Tokenizer(models.BPE(**model))
    tok.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tok.normalizer = normalizer
    affixes = {key: value for key, value in model.items() if key != "unk_token"}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=list(alphabet),
        show_progress=False, **affixes)
    tok.train_from_iterator(corpus(), trainer)
    state = json.loads(tok.to_str())["model"]
    vocab = sorted(state["vocab"], key=state["vocab"].get)
    return vocab, [list(m) for m in state["merges"]]


def train_byte_level(vocab_size, pattern=None):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if pattern is None:
        pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pre = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return train(pre, vocab_size, alphabet)


def train_metaspace(vocab_size):
    """As SentencePiece has it: control tokens and bytes first."""
    vocab, merges = train(pre_tokenizers.Metaspace(), vocab_size)
    head = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    merges = [["▁", "▁"], ["▁▁", "▁▁"], ["▁▁▁▁", "▁▁▁▁"]] + merges
    vocab = head + vocab + ["▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁"]
    # characters that real vocabularies have beyond the training text
    vocab += [c for c in "\n\t€ßéüñ漢字語ǆΩ" if c not in vocab]
    return vocab, merges


def bpe(vocab, merges, legacy_merges=False, **options):
    model = {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False}
    model.update(options)
    model["vocab"] = {t: i for i, t in enumerate(vocab)}
    model["merges"] = [" ".join(m) for m in merges] if legacy_merges else merges
    return model


def added(content, special=True, **options):
    token = {"content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": not special, "special": special}
    token.update(options)
    return token


def number_added(tokens, vocab):
    """State the ids that the library will give them."""
    known = {t: i for i, t in enumerate(vocab)}
    next_id = len(known)
    out = []
    for token in tokens:
        if token["content"] not in known:
            known[token["content"]] = next_id
            next_id += 1
        out.append(dict(id=known[token["content"]], **token))
    return out, known


def template(known, before=(), after=()):
    pieces = [{"SpecialToken": {"id": t, "type_id": 0}} for t in before]
    pieces.append({"Sequence": {"id": "A", "type_id": 0}})
    pieces += [{"SpecialToken": {"id": t, "type_id": 0}} for t in after]
    return {"type": "TemplateProcessing", "single": pieces,
            "pair": pieces + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [known[t]], "tokens": [t]}
                               for t in list(before) + list(after)}}


def byte_level(**options):
    out = {"type": "ByteLevel", "add_prefix_space": False,
           "trim_offsets": True, "use_regex": True}
    out.update(options)
    return out


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior,
            "invert": invert}


def sequence(key, *members):
    return {"type": "Sequence", key: list(members)}


def assemble(tokens, model, **parts):
    out = {"version": "1.0", "truncation": None, "padding": None,
           "added_tokens": tokens, "normalizer": None, "pre_tokenizer": None,
           "post_processor": None, "decoder": None}
    out.update(parts)
    out["model"] = model
    return out


# ------------------------------------------------------------ tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|"
          r"\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
            "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
            " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")


def llama3():
    vocab, merges = train_byte_level(1300, LLAMA3)
    # words that only ignore_merges can find
    extra = ["ĠHelloWorld", "tokenizer", "123", "ä½łå¥½", "ĠĠĠĠĠ", "quick", "and"]
    vocab += [word for word in extra if word not in vocab]
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
             "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]
    names += ["<|reserved_special_token_%d|>" % i for i in range(8)]
    tokens, known = number_added([added(t) for t in names], vocab)
    return assemble(
        tokens, bpe(vocab, merges, ignore_merges=True),
        pre_tokenizer=sequence("pretokenizers", split(LLAMA3),
                               byte_level(use_regex=False)),
        post_processor=sequence(
            "processors", byte_level(trim_offsets=False),
            template(known, ["<|begin_of_text|>"])),
        decoder=byte_level(add_prefix_space=True))


def qwen2():
    vocab, merges = train_byte_level(1200, QWEN2)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"]
    tokens = [added(t) for t in names]
    tokens += [added(t, special=False, normalized=False)
               for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")]
    tokens, _ = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, ignore_merges=False),
        normalizer={"type": "NFC"},
        pre_tokenizer=sequence("pretokenizers", split(QWEN2),
                               byte_level(use_regex=False, trim_offsets=False)),
        post_processor=byte_level(trim_offsets=False, use_regex=False),
        decoder=byte_level(trim_offsets=False, use_regex=False))


SPM_DECODER = sequence(
    "decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0})


def llama2():
    vocab, merges = train_metaspace(900)
    tokens = [added("<unk>"), added("<s>"), added("</s>")]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, legacy_merges=True, unk_token="<unk>",
                    fuse_unk=True, byte_fallback=True),
        normalizer=sequence(
            "normalizers", {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        post_processor=template(known, ["<s>"]), decoder=SPM_DECODER)


def mistral():
    vocab, merges = train_metaspace(1000)
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"]
    tokens, known = number_added([added(t) for t in names], vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="<unk>", fuse_unk=True,
                    byte_fallback=True, ignore_merges=False),
        pre_tokenizer={"type": "Metaspace", "replacement": "▁",
                       "prepend_scheme": "first", "split": False},
        post_processor=template(known, ["<s>"]), decoder=SPM_DECODER)


def gpt2():
    vocab, merges = train_byte_level(1100)
    tokens, _ = number_added([added("<|endoftext|>", normalized=True)], vocab)
    model = bpe(vocab, merges, legacy_merges=True, continuing_subword_prefix="",
                end_of_word_suffix="")
    return assemble(
        tokens, model, pre_tokenizer=byte_level(),
        post_processor=byte_level(trim_offsets=False), decoder=byte_level())


def gemma():
    vocab, merges = train_metaspace(900)
    vocab = ["<pad>", "<eos>", "<bos>"] + [v for v in vocab if v not in ("<s>", "</s>")]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokens = [added(t) for t in names] + [added("▁▁", special=False, normalized=False)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="<unk>", fuse_unk=True,
                    byte_fallback=True),
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer=split(" ", "MergedWithPrevious", kind="String"),
        post_processor=template(known, ["<bos>"], ["<eos>"]),
        decoder=sequence("decoders", SPM_DECODER["decoders"][0],
                         {"type": "ByteFallback"}, {"type": "Fuse"}))


def deepseek():
    vocab, merges = train_byte_level(900, DEEPSEEK)
    tokens = [added(t) for t in ("<s>", "</s>", "<|endoftext|>")]
    tokens += [added("<think>", special=False)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges), normalizer=sequence("normalizers"),
        pre_tokenizer=sequence(
            "pretokenizers", split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
            split(DEEPSEEK), byte_level(use_regex=False)),
        post_processor=template(known, ["<s>"]),
        decoder=byte_level(add_prefix_space=True))


def gpt4o():
    vocab, merges = train_byte_level(900, GPT4O)
    tokens, _ = number_added([added("<|endoftext|>"), added("<|im_end|>")], vocab)
    return assemble(
        tokens, bpe(vocab, merges, ignore_merges=True),
        pre_tokenizer=sequence("pretokenizers", split(GPT4O, "Removed", True),
                               split(CL100K), byte_level(use_regex=False)),
        decoder=byte_level())


def falcon():
    vocab, merges = train_byte_level(800)
    tokens = [added(">>TITLE<<"), added("<|endoftext|>"),
              added("<mask>", lstrip=True), added("<ent>", special=False, single_word=True)]
    tokens, known = number_added(tokens, vocab)
    # the byte-level mapping is not the last step here
    return assemble(
        tokens, bpe(vocab, merges),
        pre_tokenizer=sequence(
            "pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"},
            byte_level(add_prefix_space=True),
            {"type": "Digits", "individual_digits": False},
            split("[0-9][0-9][0-9]")),
        post_processor={"type": "RobertaProcessing",
                        "sep": ["<|endoftext|>", known["<|endoftext|>"]],
                        "cls": [">>TITLE<<", known[">>TITLE<<"]],
                        "trim_offsets": True, "add_prefix_space": True},
        decoder=byte_level())


def clip():
    """Suffixes, an unknown token that is not fused, every kind of added token."""
    vocab, merges = train(
        pre_tokenizers.WhitespaceSplit(), 700, end_of_word_suffix="</w>",
        unk_token="<unk>")
    vocab = ["<unk>"] + [v for v in vocab if v != "<unk>"]
    tokens = [added("<unk>"), added("<mask>", lstrip=True),
              added("<left>", special=False, lstrip=True, normalized=False),
              added("<right>", special=False, rstrip=True, normalized=False),
              added("<lone>", special=False, single_word=True, normalized=False),
              added("  ", special=False, normalized=False),
              added("ENT", special=False, normalized=True),
              added("word", special=False, single_word=True, normalized=True),
              added("abc", special=False), added("abcd", special=False, rstrip=True),
              added("<s>", normalized=True), added("</s>", lstrip=True, rstrip=True)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="<unk>", end_of_word_suffix="</w>"),
        normalizer=sequence(
            "normalizers", {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"}),
        pre_tokenizer=sequence(
            "pretokenizers",
            split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
                  "Removed", True)),
        post_processor={"type": "BertProcessing", "sep": ["</s>", known["</s>"]],
                        "cls": ["<s>", known["<s>"]]},
        decoder={"type": "BPEDecoder", "suffix": "</w>"})


def prefixed():
    """Prefixes of inner pieces, compatibility forms, no decoder."""
    vocab, merges = train(
        pre_tokenizers.Whitespace(), 700, continuing_subword_prefix="##",
        unk_token="[UNK]")
    vocab = ["[UNK]"] + [v for v in vocab if v != "[UNK]"]
    tokens, known = number_added(
        [added("[UNK]"), added("<mask>", lstrip=True, rstrip=True)], vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="[UNK]", fuse_unk=True,
                    continuing_subword_prefix="##"),
        normalizer=sequence(
            "normalizers", {"type": "Nmt"}, {"type": "NFKC"},
            {"type": "Strip", "strip_left": True, "strip_right": False}),
        pre_tokenizer=sequence(
            "pretokenizers", {"type": "Whitespace"},
            {"type": "Digits", "individual_digits": True},
            {"type": "Punctuation", "behavior": "MergedWithPrevious"}),
        post_processor=template(known, [], ["<mask>", "[UNK]"]))


def spaced():
    """Metaspace in full, with a prefix on every piece and its own decoder."""
    vocab, merges = train_metaspace(700)
    tokens = [added("<unk>"), added("<s>", rstrip=True), added("</s>", lstrip=True),
              added("<ent>", special=False, normalized=True),
              added("abc", special=False, normalized=True, single_word=True)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="<unk>"),
        normalizer=sequence(
            "normalizers", {"type": "NFKD"}, {"type": "StripAccents"},
            {"type": "Strip", "strip_left": True, "strip_right": True}),
        pre_tokenizer=sequence(
            "pretokenizers",
            {"type": "Punctuation", "behavior": "MergedWithNext"},
            {"type": "Metaspace", "replacement": "▁",
             "prepend_scheme": "always", "split": True}),
        post_processor=template(known, ["<s>"], ["</s>", "</s>"]),
        decoder={"type": "Metaspace", "replacement": "▁",
                 "prepend_scheme": "always", "split": True})


def mapped():
    """The byte-level mapping as a normalizer; prefixes on the first piece."""
    vocab, merges = train_byte_level(700)
    tokens = [added("<|endoftext|>"), added("<think>", special=False),
              added("Привет", special=False), added("<s>", normalized=True)]
    tokens, _ = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges), normalizer=sequence(
            "normalizers", {"type": "NFD"}, {"type": "ByteLevel"}),
        pre_tokenizer=sequence(
            "pretokenizers",
            {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "first",
             "split": False},
            {"type": "FixedLength", "length": 7}),
        decoder=sequence(
            "decoders", byte_level(),
            {"type": "Replace", "pattern": {"String": " the"}, "content": " THE"},
            {"type": "Strip", "content": " ", "start": 2, "stop": 0}))


# name, function, number of strings
TOKENIZERS = [
    ("llama3", llama3, 10000), ("qwen2", qwen2, 10000),
    ("llama2", llama2, 10000), ("mistral", mistral, 10000),
    ("gpt2", gpt2, 10000), ("gemma", gemma, 10000),
    ("deepseek", deepseek, 10000), ("gpt4o", gpt4o, 10000),
    ("falcon", falcon, 10000), ("clip", clip, 10000),
    ("prefixed", prefixed, 10000), ("spaced", spaced, 10000),
    ("mapped", mapped, 10000),
]

# tokenizer_config.json beside llama2's and qwen2's file: what transformers
# makes of added_tokens_decoder and the named tokens
CONFIGS = {
    "llama2_configured": ("llama2", {
        "added_tokens_decoder": {
            "0": added("<unk>"), "1": added("<s>", rstrip=True), "2": added("</s>"),
            "99999": added("<ent>", special=False, normalized=False, lstrip=True),
            "5000": added("<think>", special=False)},
        "bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>",
                                          "lstrip": False, "normalized": False,
                                          "rstrip": False, "single_word": False},
        "unk_token": "<unk>", "pad_token": "<pad>", "add_bos_token": False,
        "add_eos_token": True, "image_token": "[INST]",
        "additional_special_tokens": ["<|im_end|>", "<think>"],
        "clean_up_tokenization_spaces": True,
        "tokenizer_class": "PreTrainedTokenizerFast"}, 10000),
    "qwen2_configured": ("qwen2", {
        "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<tool_call>",
        "extra_special_tokens": {"ent_token": "<ent>"},
        "additional_special_tokens": ["<lone>", "word"],
        "split_special_tokens": True, "clean_up_tokenization_spaces": True,
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output":
            True,
        "tokenizer_class": "PreTrainedTokenizerFast"}, 10000),
}


class Reference:
    """What is asked of a tokenizer, from either library."""

    def __init__(self, name, text=None, config=None):
        self.fast = None
        if config is None:
            self.tok = Tokenizer.from_str(text)
            return
        folder = tempfile.mkdtemp()
        with open(os.path.join(folder, "tokenizer.json"), "w") as f:
            f.write(text)
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump(config, f)
        self.fast = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        self.tok = self.fast._tokenizer
        shutil.rmtree(folder)

    def encode(self, text, special):
        if self.fast is not None:
            return self.fast(text, add_special_tokens=special)["input_ids"]
        return self.tok.encode(text, add_special_tokens=special).ids

    def decode(self, ids, skip):
        if self.fast is not None:
            return self.fast.decode(ids, skip_special_tokens=skip)
        return self.tok.decode(ids, skip_special_tokens=skip)

    def n_vocab(self):
        return 1 + max(self.tok.get_vocab(with_added_tokens=True).values())


def digest_of(ref, n_vocab, text, seed, digest):
    ids = ref.encode(text, False)
    special = ref.encode(text, True)
    digest.add_ids(ids)
    digest.add_ids(special)
    digest.add_text(ref.decode(special, False))
    digest.add_text(ref.decode(special, True))
    random_ids = make_ids(n_vocab, seed)
    digest.add_text(ref.decode(random_ids, False))
    digest.add_text(ref.decode(random_ids, True))


def write_vectors(name, ref, items, n_strings, digests, cases):
    n_vocab = ref.n_vocab()
    base = 1000003 * (1 + sum(name.encode()))
    digests.write("%s %d %d\n" % (name, n_strings, base))
    for start in range(0, n_strings, BLOCK):
        digest = Digest()
        for i in range(start, start + BLOCK):
            digest_of(ref, n_vocab, make_string(items, base + i), base + i, digest)
        digests.write(digest.hex() + "\n")
    # a long text, and a long word: their last digest
    digest = Digest()
    text = "".join(make_string(items, base + i) for i in range(300))
    word = make_word(base, 20000)
    for text in (text, word):
        ids = ref.encode(text, True)
        digest.add_ids(ids)
        digest.add_text(ref.decode(ids, False))
    digests.write(digest.hex() + "\n")
    for i in range(40):
        text = make_string(items, i)
        if "\0" in text or len(text) > 400:
            continue
        special = ref.encode(text, True)
        cases.write(json.dumps({
            "tokenizer": name, "text": text, "ids": ref.encode(text, False),
            "special": special, "decoded": ref.decode(special, False),
            "skipped": ref.decode(special, True)},
            ensure_ascii=False, separators=(",", ":")).replace("\u2028", "\\u2028") + "\n")


def main():
    items = make_fragments()
    write_fragments(items)
    texts = {}
    with open(os.path.join(HERE, "digests.txt"), "w") as digests, \
            open(os.path.join(HERE, "cases.jsonl"), "w") as cases:
        for name, make, n_strings in TOKENIZERS:
            text = json.dumps(make(), ensure_ascii=False, separators=(",", ":"))
            texts[name] = text
            with open(os.path.join(HERE, name + ".json"), "w") as f:
                f.write(text)
            write_vectors(name, Reference(name, text), items, n_strings, digests, cases)
            print(name, len(text.encode()), file=sys.stderr)
        for name, (base, config, n_strings) in CONFIGS.items():
            with open(os.path.join(HERE, name + "_config.json"), "w") as f:
                json.dump(config, f, indent=1)
            ref = Reference(name, texts[base], config)
            write_vectors(name, ref, items, n_strings, digests, cases)
            print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
