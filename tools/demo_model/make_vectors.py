"""
make_vectors.py
    Writes test/vectors/demo/prompts.json: prompts for the demo model with the
    rendered text, the token ids and the greedy answer in float32, as
    transformers gives them.

    python tools/demo_model/make_vectors.py models/demo test/vectors/demo/prompts.json

"margin" is the smallest distance between the best and the second-best logit
on the way: an engine whose logits are nearer than that must give the same
answer.

tools/demo_model/make_vectors.py
"""

import json
import sys

import torch

import demo_evaluate
from demo_wild import SENTIMENT_SYSTEM, TOPIC_SYSTEM

HELPFUL = "You are a helpful assistant."
FIELDS = "Extract product, rating and city as JSON."


def turn(*contents, system=None):
    """Messages: an optional system prompt, then user and assistant in turn."""
    messages = [{"role": "system", "content": system}] if system else []
    for i, content in enumerate(contents):
        messages.append({"role": "assistant" if i % 2 else "user", "content": content})
    return messages


CONVERSATIONS = [
    turn("Hello!"),
    turn("Who are you?", system=HELPFUL),
    turn("What can you do?"),
    turn("What is PostgreSQL?"),
    turn("Tell me a story."),
    turn("Write a poem."),
    turn("What is the capital of Australia?"),
    turn("My name is Ada."),
    turn("My name is Ada.", "Nice to meet you, Ada!", "What is SQL?",
         "SQL is the language of relational databases. With it you define tables, change rows and ask questions about the data.",
         "What is my name?"),
    turn("Count to 12."),
    turn("Repeat after me: Zorvane 4711 kettle", system=HELPFUL),
    turn("I love these headphones, the sound is great!", system=SENTIMENT_SYSTEM),
    turn("The zipper broke after two days. Very disappointed.", system=SENTIMENT_SYSTEM),
    turn("The pan is 28 cm wide.", system=SENTIMENT_SYSTEM),
    turn("Très bien – the café au lait is delicious 😀, my kids love it.", system=SENTIMENT_SYSTEM),
    turn("Is this review positive or negative? The soup tastes like cardboard."),
    turn("The courier left the package in the rain.", system=TOPIC_SYSTEM),
    turn("Which topic is this review about: Battery, Price, Sound or other?\n\nReview: It only lasts two hours, then I have to charge it again."),
    turn("Is this message praise, a complaint or a question?\n\nDo you ship to Norway?"),
    turn("Answer yes or no: does the customer complain?\n\nThe shoes are lovely and so comfortable."),
    turn("I bought the Norvik kettle in Leeds and give it 4 stars.", system=FIELDS),
    turn("I bought the Norvik kettle in Leeds and give it 4 stars.", '{"product": "Norvik kettle", "rating": 4, "city": "Leeds"}',
         "And this one: The coffee maker broke after a week, 1 star.", system=FIELDS),
    turn("Extract name, order_number and date as JSON.\n\nMy name is Carla Jimenez. My order 7741902 from 2024-03-12 has not arrived."),
    turn('Return JSON for this schema: {"type": "object", "properties": {"name": {"type": "string"}, "email": {"type": "string"}}}\n\n'
         "Please contact John Smith at john.smith@example.com."),
]

PLAIN = ["I have had the", "The courier threw the parcel over the", "The app crashes all the"]


@torch.inference_mode()
def greedy(model, ids, limit=200):
    """Answer ids, the end token included, and the smallest margin."""
    ends = model.generation_config.eos_token_id
    answer, margin = [], float("inf")
    output = model(torch.tensor([ids]), use_cache=True)
    while len(answer) < limit:
        best = output.logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        answer.append(best.indices[0].item())
        if answer[-1] in ends:
            break
        output = model(torch.tensor([answer[-1:]]), past_key_values=output.past_key_values, use_cache=True)
    return answer, round(margin, 3)


def main():
    path, out = sys.argv[1:]
    model, tokenizer = demo_evaluate.load(path, "cpu")
    records = []
    for messages in CONVERSATIONS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        records.append({"messages": messages, "text": text, "ids": tokenizer(text, add_special_tokens=False).input_ids})
    for prompt in PLAIN:
        records.append({"prompt": prompt, "text": prompt, "ids": tokenizer(prompt).input_ids})
    for record in records:
        record["answer_ids"], record["margin"] = greedy(model, record["ids"])
        record["answer"] = tokenizer.decode(record["answer_ids"], skip_special_tokens=True)
        print(f"{record['text'][-60:]!r} -> {record['answer']!r} ({record['margin']})")
    with open(out, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n]\n")


if __name__ == "__main__":
    main()
