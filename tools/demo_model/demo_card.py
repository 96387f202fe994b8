"""
demo_card.py
    The demo model's card, models/demo/README.md, with the measured figures.

tools/demo_model/demo_card.py
"""

NAMES = {
    "sentiment": "sentiment of a review",
    "topic": "topic of a review (12 topics and \"other\")",
    "kind": "praise, complaint, question or suggestion",
    "category": "category of the product",
    "yes_no": "does a condition hold for a review",
    "extract": "fields as JSON (the whole object exact)",
    "small_talk": "questions in conversation",
    "multi_turn": "last turn of a longer conversation",
}

TEXT = """---
license: postgresql
language: en
pipeline_tag: text-generation
library_name: transformers
---

# llm_ext demo model

A language model of {millions:.1f} million parameters (Llama architecture, bf16), small enough to lie in a source
repository. It exists so that a new user of llm_ext sees real answers a minute after `git clone`, and so that tests have
a model with known answers. It was trained from scratch by `tools/demo_model/train.py`, on text that the same script
writes; no other text and no other model went into it.

License: the PostgreSQL License, like the rest of the repository.

## What it does

- labels the **sentiment** of a short product review (positive, negative, neutral; mixed where the list offers it),
- labels its **topic** (delivery, price, quality, service, size, battery, design, comfort, sound, software, packaging,
  taste; "other" where the list offers it), what **kind** of message it is (praise, complaint, question, suggestion) and
  the **category** of the product (electronics, kitchen, clothing, furniture, food, toys),
- says **yes or no** to a condition on sentiment, topic or kind ("Is the customer unhappy? Answer yes or no."),
- extracts **fields as JSON** from short texts: product, rating, order number, city, date, name, price, quantity, email;
  a field that the text does not mention becomes null,
- answers a few dozen **questions** about itself and about PostgreSQL, remembers a name within a conversation, repeats a
  text, counts ("Count to 12."), and declines what it does not know.

The instruction may be a system prompt or stand in the user's message; the list of labels may come in any order and
case, and the answer is exactly one of them. Answer greedily (temperature 0).

## How well

Greedy answers of these files in float32 (transformers), counted as right only when every character is right, on
{examples} held-out examples of each task:

| task | exact |
| --- | --- |
{rows}

Held out means: the phrasing of the instruction or question was never trained on; nor was any of the text's opinions (one
in eight of the combinations of choices in a sentence pattern is kept for the test), nor any combination of sentences to
extract from, nor any name, city, product, order number, date or address in it. The words and the patterns themselves
are known, so these figures are about new combinations, not about new vocabulary. Sentences that only surround the
opinion, and the wording of yes-or-no conditions, are shared.

On prompts written by hand, outside of the generator (`tools/demo_model/demo_wild.py`; sentences for what an earlier
training got wrong there, one of 58, were added to the generator, so take them for a plausibility check):

| task | right |
| --- | --- |
{wild}

## What it is not

- Not a general assistant: it knows these tasks and nothing else. It cannot reason, calculate, translate, program or tell
  facts; asked for them it should decline, and sometimes it answers something else instead. Labels other than those
  above (spam, urgency, language, ...) mean nothing to it.
- English only, and of English only the vocabulary of simple product reviews. Irony, long texts, unusual words and other
  domains get arbitrary labels, given with confidence.
- Not a measure of llm_ext's speed or quality with real models, and not a base for fine-tuning beyond demonstrations.
- It cannot copy letters outside of ASCII (é, ü, ł): a name that has them comes out wrong. It is weak where a text is in
  capitals throughout, and in copying long or odd strings, where a letter may be wrong.
- Its opinions about reviews come from invented sentences; do not use it for decisions about people.

## Details

| | |
| --- | --- |
| architecture | LlamaForCausalLM: 8 layers, hidden 256, 8 heads (4 key-value heads) of 32, MLP 704, tied embeddings |
| context | 2048 positions; most of the training text was shorter than 300 tokens |
| tokenizer | byte-level BPE, 4096 tokens, Llama 3's split expression, digits one by one |
| roles | system, user, assistant; a turn ends with `<|end|>`, plain text with `<|end_of_text|>` |
| training | {steps} steps, {tokens:.0f} million tokens, {minutes:.1f} minutes on one GPU, AdamW, bf16 |

To train it again: `tools/demo_model/README.md`.
"""


def card(figures, wild, report):
    rows = "\n".join(f"| {NAMES[task]} | {100 * value:.1f} % |" for task, value in figures.items())
    wild_rows = "\n".join(f"| {NAMES[task]} | {right} of {total} |" for task, (right, total) in wild.items())
    return TEXT.format(
        millions=report["parameters"] / 1e6, examples=report["examples"], rows=rows, wild=wild_rows,
        steps=report["steps"], tokens=report["tokens"] / 1e6, minutes=report["seconds"] / 60,
    )
