#!/usr/bin/env python3
"""Reference vectors of the models that are not plain BPE, and more families.

Run by hand, as generate_vectors.py, whose generator and corpus this uses;
needs the packages tokenizers, transformers, sentencepiece and protobuf.
Writes NAME.json for every tokenizer below and digests_models.txt.
"""
import base64
import json
import os
import sys
import tempfile

import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as model_pb
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from generate_vectors import (
    HERE, LLAMA3, Reference, added, assemble, bpe, byte_level, corpus,
    make_fragments, number_added, sequence, split, template, train_byte_level,
    train_metaspace, write_vectors)

# What a precompiled charsmap replaces: removals, one for many, many for one
RULES = [
    ("\x01", ""), ("\x02", ""), ("\x1b", ""), ("\x7f", ""), ("\xad", ""),
    ("\u200b", ""), ("\t", " "), ("\n", " "), ("\r", " "), ("\u00a0", " "),
    ("\u3000", " "), ("\u2028", " "), ("\ufeff", ""), ("\u00bd", "1\u20442"),
    ("\u00b2", "2"), ("\u00b3", "3"), ("\u2160", "I"), ("\u2167", "VIII"),
    ("\ufb01", "fi"), ("\ufb00", "ff"), ("\u017f", "s"), ("\u212b", "\u00c5"),
    ("e\u0301", "\u00e9"), ("a\u0301", "\u00e1"), ("\u0438\u0306", "\u0439"),
    ("\u0301", "'"), ("\u2116", "No"), ("\u3231", "(\u682a)"),
    ("\u338f", "kg"), ("\u337f", "\u682a\u5f0f\u4f1a\u793e"),
    ("\ufdfa", "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647"),
    ("\u0e33", "\u0e4d\u0e32"), ("\u1100\u1161", "\uac00"),
    ("\u2460", "1"), ("\u2026", "..."), ("\u0600", "#"),
    ("\U0001f130", "A"), ("\U0001d400", "A"), ("\u2581", " "),
] + [(chr(0xFF01 + i), chr(0x21 + i)) for i in range(94)]


def charsmap():
    """The rules as SentencePiece compiles them."""
    folder = tempfile.mkdtemp()
    rules = os.path.join(folder, "rules.tsv")
    with open(rules, "w") as f:
        for old, new in RULES:
            f.write("%s\t%s\n" % (" ".join("%X" % ord(c) for c in old),
                                  " ".join("%X" % ord(c) for c in new)))
    with open(os.path.join(folder, "corpus.txt"), "w") as f:
        f.write("\n".join(corpus()))
    sentencepiece.SentencePieceTrainer.train(
        input=os.path.join(folder, "corpus.txt"), vocab_size=400,
        model_prefix=os.path.join(folder, "m"), model_type="unigram",
        normalization_rule_tsv=rules, character_coverage=0.99, minloglevel=2)
    proto = model_pb.ModelProto()
    with open(os.path.join(folder, "m.model"), "rb") as f:
        proto.ParseFromString(f.read())
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(
        proto.normalizer_spec.precompiled_charsmap).decode()}


def metaspace(scheme="always", split_words=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
            "split": split_words}


def train_unigram(vocab_size):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(corpus(), trainers.UnigramTrainer(
        vocab_size=vocab_size, unk_token="<unk>", show_progress=False))
    vocab = json.loads(tok.to_str())["model"]["vocab"]
    return [piece for piece in vocab if piece[0] != "<unk>"]


def unigram(head, pieces, unk, **options):
    vocab = [[t, 0.0] for t in head] + pieces
    # runs of one character: ties that rounding decides
    known = {t for t, _ in vocab}
    vocab += [[c * n, -7.3 - 0.7 * n] for c in ".-=▁0a" for n in (2, 3, 4)
              if c * n not in known]
    return dict({"type": "Unigram", "unk_id": head.index(unk), "vocab": vocab},
                **options), [t for t, _ in vocab]


def train_word_piece(vocab_size, normalizer):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator(corpus(), trainers.WordPieceTrainer(
        vocab_size=vocab_size, show_progress=False))
    state = json.loads(tok.to_str())["model"]["vocab"]
    head = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return head + [t for t in sorted(state, key=state.get) if t not in head]


def t5():
    head = ["<pad>", "</s>", "<unk>"]
    model, vocab = unigram(head, train_unigram(900), "<unk>")
    tokens, known = number_added(
        [added(t) for t in head] + [added("<mask>", rstrip=True, lstrip=True)], vocab)
    return assemble(tokens, model, normalizer=charsmap(),
                    pre_tokenizer=sequence("pretokenizers", {"type": "WhitespaceSplit"},
                                           metaspace()),
                    post_processor=template(known, (), ["</s>"]), decoder=metaspace())


def xlmr():
    """Every character's bytes as a last resort; the prefix on the first word."""
    head = ["<s>", "<pad>", "</s>", "<unk>"] + ["<0x%02X>" % b for b in range(256)]
    model, vocab = unigram(head, train_unigram(700), "<unk>", byte_fallback=True)
    tokens, known = number_added(
        [added(t) for t in head[:4]] +
        [added("<mask>", lstrip=True, normalized=True),
         added("word", special=False, single_word=True)], vocab)
    return assemble(
        tokens, model, normalizer=sequence(
            "normalizers", charsmap(),
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
        pre_tokenizer=metaspace("first", False),
        post_processor=template(known, ["<s>"], ["</s>"]),
        decoder=sequence("decoders", {"type": "ByteFallback"}, metaspace("first")))


def albert():
    head = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    model, vocab = unigram(head, train_unigram(500), "<unk>")
    tokens, known = number_added(
        [added(t) for t in head[:4]] + [added("[MASK]", lstrip=True)], vocab)
    return assemble(
        tokens, model, normalizer=sequence(
            "normalizers",
            {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
            {"type": "Replace", "pattern": {"String": "''"}, "content": "\""},
            {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
            charsmap()),
        pre_tokenizer=sequence("pretokenizers", {"type": "UnicodeScripts"}, metaspace()),
        post_processor=template(known, ["[CLS]"], ["[SEP]"]), decoder=metaspace())


def bert(lowercase, max_chars):
    vocab = train_word_piece(900, normalizers.BertNormalizer(lowercase=lowercase))
    tokens, known = number_added(
        [added(t) for t in vocab[:4]] + [added("[MASK]", lstrip=True),
                                         added("ENT", special=False)], vocab)
    return assemble(
        tokens, {"type": "WordPiece", "unk_token": "[UNK]",
                 "continuing_subword_prefix": "##",
                 "max_input_chars_per_word": max_chars,
                 "vocab": {t: i for i, t in enumerate(vocab)}},
        normalizer={"type": "BertNormalizer", "clean_text": True,
                    "handle_chinese_chars": True, "strip_accents": None,
                    "lowercase": lowercase},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=template(known, ["[CLS]"], ["[SEP]"])
        if lowercase else {"type": "BertProcessing", "sep": ["[SEP]", 3],
                           "cls": ["[CLS]", 2]},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": lowercase})


def wav2vec():
    """Whole words of one script; a decoder that removes repetitions."""
    words = sorted({w for line in corpus() for w in line.lower().split()})[:500]
    vocab = ["<pad>", "<s>", "</s>", "<unk>", "|"] + list("etaonihsrdlu'") + [
        w for w in words if len(w) > 1]
    tokens, _ = number_added([added(t) for t in vocab[:4]], vocab)
    return assemble(
        tokens, {"type": "WordLevel", "unk_token": "<unk>",
                 "vocab": {t: i for i, t in enumerate(vocab)}},
        normalizer={"type": "BertNormalizer", "clean_text": True,
                    "handle_chinese_chars": False, "strip_accents": True,
                    "lowercase": True},
        pre_tokenizer=sequence("pretokenizers", {"type": "UnicodeScripts"},
                               {"type": "Whitespace"}),
        decoder={"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|",
                 "cleanup": True})


def phi3():
    """Llama's, with special tokens that take the white space behind them."""
    vocab, merges = train_metaspace(900)
    tokens = [added("<unk>"), added("<s>"), added("</s>", rstrip=True),
              added("<|endoftext|>"), added("<|end|>", rstrip=True),
              added("<|user|>", rstrip=True), added("<|im_end|>", rstrip=True),
              added("<think>", special=False, rstrip=True)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True),
        normalizer=sequence("normalizers", {"type": "Prepend", "prepend": "▁"},
                            {"type": "Replace", "pattern": {"String": " "},
                             "content": "▁"}),
        post_processor=template(known),
        decoder=sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"},
                                      "content": " "},
                         {"type": "ByteFallback"}, {"type": "Fuse"},
                         {"type": "Strip", "content": " ", "start": 1, "stop": 0}))


def glm4():
    vocab, merges = train_byte_level(900, LLAMA3)
    tokens = [added(t) for t in ("<|endoftext|>", "[MASK]", "[gMASK]", "<sop>",
                                 "<|system|>", "<|user|>", "<|im_end|>")]
    tokens += [added("<think>", special=False), added("</think>", special=False)]
    tokens, known = number_added(tokens, vocab)
    return assemble(
        tokens, bpe(vocab, merges, ignore_merges=True),
        pre_tokenizer=sequence("pretokenizers", split(LLAMA3),
                               byte_level(use_regex=False)),
        post_processor=sequence("processors", byte_level(trim_offsets=False),
                                template(known, ["[gMASK]", "<sop>"])),
        decoder=byte_level(add_prefix_space=True))


# name, function, number of strings
TOKENIZERS = [
    ("t5", t5, 10000), ("xlmr", xlmr, 10000), ("albert", albert, 10000),
    ("bert", lambda: bert(True, 100), 10000),
    ("bert_cased", lambda: bert(False, 7), 10000), ("wav2vec", wav2vec, 10000),
    ("phi3", phi3, 10000), ("glm4", glm4, 10000),
]


def main():
    items = make_fragments()
    with open(os.path.join(HERE, "digests_models.txt"), "w") as digests, \
            open(os.devnull, "w") as cases:
        for name, make, n_strings in TOKENIZERS:
            text = json.dumps(make(), ensure_ascii=False, separators=(",", ":"))
            with open(os.path.join(HERE, name + ".json"), "w") as f:
                f.write(text)
            write_vectors(name, Reference(name, text), items, n_strings, digests, cases)
            print(name, len(text.encode()), file=sys.stderr)


if __name__ == "__main__":
    main()
