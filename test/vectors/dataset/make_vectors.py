#!/usr/bin/env python3
"""Which tokens of rows are learned, by transformers' and TRL's rules.

Writes rows.jsonl beside this file; needs transformers 5.  Tokenizers are
those of ../tokenizer, templates those of ../template/dialects and the few
below, which mark answers with {% generation %} as TRL's training templates do.

How labels are made:
  marks    apply_chat_template(return_assistant_tokens_mask=True)
  prefix   for each answer the text before it (with the generation prompt) and
           the text up to it; tokens whose offsets lie in between
  trl      the prompt's ids are the first of the whole's; the rest is learned
  plain    tokenizer(text), the end token behind it
Of marks, prefix and trl white space behind a turn's stop token is taken off,
since nobody generates it.

test/vectors/dataset/make_vectors.py
"""
import json
import os

from transformers import PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
ROOM = os.path.join(HERE, "..")

CHATML_MARKS = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.role == 'assistant' %}{% generation %}"
    "{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\n' }}"
    "{%- else %}{{- message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}")
LLAMA3_MARKS = (
    "{{- bos_token }}{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{%- if m.role == 'assistant' %}{% generation %}"
    "{{- m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{%- else %}{{- m.content | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}")
# the stop token stands outside of the mark
GEMMA_MARKS = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}"
    "{% endgeneration %}{% else %}{{ m.content | trim }}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}")

SETUPS = {
    # tokenizer, special tokens, stop tokens
    "qwen2": ({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
              ["<|im_end|>", "<|endoftext|>"]),
    "llama3": ({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
               ["<|eot_id|>", "<|end_of_text|>"]),
    "llama2": ({"bos_token": "<s>", "eos_token": "</s>"}, ["</s>"]),
    "mistral": ({"bos_token": "<s>", "eos_token": "</s>"}, ["</s>"]),
    "phi3": ({"bos_token": "<s>", "eos_token": "<|endoftext|>"},
             ["<|end|>", "<|endoftext|>"]),
    "gemma": ({"bos_token": "<bos>", "eos_token": "<eos>"},
              ["<end_of_turn>", "<eos>"]),
    "deepseek": ({"bos_token": "<s>", "eos_token": "</s>"}, ["</s>"]),
}

TURNS = [
    {"role": "user", "content": "Who wrote it?"},
    {"role": "assistant", "content": "  Nobody knows, naïvely.  "},
    {"role": "user", "content": "Grüße an 日本 😀, \"quoted\" <b>'d</b>"},
    {"role": "assistant", "content": "👩‍👩‍👧‍👦 fine\n\n- one\n- two 12345"},
]
SYSTEM = [{"role": "system", "content": "Be brief."}] + TURNS
STOPPED = [
    {"role": "user", "content": "Say the token <|im_end|> please"},
    {"role": "assistant", "content": "It is written <|im_end|>, you see"},
]
FRENCH = [
    {"role": "user", "content": "e\u0301te\u0301 decomposed"},
    {"role": "assistant", "content": "cafe\u0301 au lait"},
]


def dialect(name):
    with open(f"{ROOM}/template/dialects/{name}.jinja", encoding="utf-8") as f:
        return f.read()


def load(name):
    special, stops = SETUPS[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{ROOM}/tokenizer/{name}.json", **special)
    return tokenizer, special, tokenizer.convert_tokens_to_ids(stops)


def end_turns(tokenizer, ids, labels, stops):
    """Runs of labels end with their stop token."""
    labels = list(labels)
    begin = 0
    while begin < len(ids):
        if not labels[begin]:
            begin += 1
            continue
        end = begin
        while end < len(ids) and labels[end]:
            end += 1
        run = end
        first = None
        while run > begin:
            blank = tokenizer.decode([ids[run - 1]]).strip() == ""
            if ids[run - 1] in stops:
                first = run
            elif not blank:
                break
            run -= 1
        if first is not None:
            labels[first:end] = [0] * (end - first)
        else:
            run = end
            while run < len(ids) and tokenizer.decode([ids[run]]).strip() == "" \
                    and ids[run] not in stops:
                run += 1
            assert run < len(ids) and ids[run] in stops, "no stop token"
            labels[end:run + 1] = [1] * (run + 1 - end)
        begin = end
    return labels


def render(tokenizer, messages, template, prompt):
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False,
        add_generation_prompt=prompt)


def by_marks(tokenizer, messages, template):
    out = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True,
        return_assistant_tokens_mask=True)
    return out["input_ids"], out["assistant_masks"]


def by_prefix(tokenizer, messages, template, last_alone=False):
    text = render(tokenizer, messages, template, False)
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [0] * len(out["input_ids"])
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for i in answers[-1:] if last_alone else answers:
        begin = render(tokenizer, messages[:i], template, True)
        end = render(tokenizer, messages[:i + 1], template, False)
        if not text.startswith(end):
            end = end.removesuffix(tokenizer.eos_token)
        assert text.startswith(begin) and text.startswith(end)
        for k, (a, b) in enumerate(out["offset_mapping"]):
            if a < len(end) and b > len(begin):
                labels[k] = 1
    return out["input_ids"], labels


def by_trl(tokenizer, prompt, completion, template):
    head = tokenizer.apply_chat_template(
        prompt, chat_template=template, tokenize=True, return_dict=True,
        add_generation_prompt=True)["input_ids"]
    ids = tokenizer.apply_chat_template(
        prompt + completion, chat_template=template, tokenize=True,
        return_dict=True)["input_ids"]
    assert ids[:len(head)] == head
    return ids, [0] * len(head) + [1] * (len(ids) - len(head))


CASES = []


def add(name, setup, template, row, examples, options=None):
    _, special, stops = load(setup)
    CASES.append({
        "name": name, "tokenizer": setup, "template": template,
        "special": json.dumps(special), "stops": stops, "row": row,
        "options": options or {},
        "examples": [{"ids": list(ids),
                      "labels": "".join(str(int(x)) for x in labels)}
                     for ids, labels in examples]})


def ended(setup, pair):
    tokenizer, _, stops = load(setup)
    ids, labels = pair
    return ids, end_turns(tokenizer, ids, labels, stops)


def add_chats():
    for name, setup, template, messages in [
            ("chatml marks", "qwen2", CHATML_MARKS, SYSTEM),
            ("llama3 marks", "llama3", LLAMA3_MARKS, SYSTEM),
            ("gemma marks", "gemma", GEMMA_MARKS, TURNS),
            ("training marks", "qwen2", dialect("training_marks"), SYSTEM),
            ("a stop token inside", "qwen2", CHATML_MARKS, STOPPED),
            ("not normalized, marks", "qwen2", CHATML_MARKS, FRENCH)]:
        tokenizer = load(setup)[0]
        add(name, setup, template, {"messages": messages},
            [ended(setup, by_marks(tokenizer, messages, template))])
    for name, setup, source, messages in [
            ("chatml", "qwen2", "chatml", SYSTEM),
            ("llama3", "llama3", "llama3", SYSTEM),
            ("llama2", "llama2", "llama2", TURNS),
            ("mistral v1", "mistral", "mistral_v1", TURNS),
            ("mistral v1 by llama2", "llama2", "mistral_v1", TURNS),
            ("phi3", "phi3", "phi3", SYSTEM),
            ("gemma", "gemma", "gemma", TURNS),
            ("zephyr", "deepseek", "zephyr", SYSTEM),
            ("not normalized", "qwen2", "chatml", FRENCH)]:
        tokenizer = load(setup)[0]
        template = dialect(source)
        for last in (False, True):
            add(name + (", last answer" if last else ""), setup, template,
                {"messages": messages},
                [ended(setup, by_prefix(tokenizer, messages, template, last))],
                {"mask_history": True} if last else {})


def add_pairs():
    answers = [[{"role": "assistant", "content": "Nobody."}],
               [{"role": "assistant", "content": "Me, of course!"}]]
    for setup, source in [("qwen2", "chatml"), ("llama3", "llama3"),
                          ("phi3", "phi3"), ("gemma", "gemma")]:
        tokenizer = load(setup)[0]
        template = dialect(source)
        made = [ended(setup, by_trl(tokenizer, TURNS[:1], a, template))
                for a in answers]
        add(f"pair, {setup}", setup, template,
            {"prompt": TURNS[:1], "chosen": answers[0], "rejected": answers[1]},
            made)
        add(f"pair without prompt, {setup}", setup, template,
            {"chosen": TURNS[:1] + answers[0],
             "rejected": TURNS[:1] + answers[1]}, made)
        add(f"prompt and completion, {setup}", setup, template,
            {"prompt": TURNS[:1], "completion": answers[0]}, made[:1])


def add_plain():
    for setup in SETUPS:
        tokenizer, _, stops = load(setup)
        for name, prompt, answer in [
                ("plain", "The sky is", " blue, 日本 😀"),
                ("plain after a line", "Question?\nAnswer:\n", "Forty-two."),
                ("plain without prompt", "", "Once upon a time")]:
            out = tokenizer(prompt + answer, return_offsets_mapping=True)
            ids = out["input_ids"]
            special = tokenizer.get_special_tokens_mask(
                ids, already_has_special_tokens=True)
            n_lead = 0
            while special[n_lead]:
                n_lead += 1
            labels = [0] * len(ids)
            for i, (a, b) in enumerate(out["offset_mapping"]):
                # a token of no width begins what follows it
                if i >= n_lead and (b > len(prompt) or
                                    (a == b == len(prompt))):
                    labels[i] = 1
            if ids[-1] not in stops:
                ids = ids + [tokenizer.eos_token_id]
                labels = labels + [1]
            labels[-1] = 1
            labels[0] = 0
            add(f"{name}, {setup}", setup, "",
                {"prompt": prompt, "completion": answer}, [(ids, labels)])
            if prompt == "":
                add(f"text, {setup}", setup, "", {"text": answer},
                    [(ids, labels)])


def main():
    add_chats()
    add_pairs()
    add_plain()
    with open(f"{HERE}/rows.jsonl", "w", encoding="utf-8") as f:
        for case in CASES:
            f.write(json.dumps(case, ensure_ascii=False) + "\n")


main()
