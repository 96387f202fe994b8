"""
demo_tasks.py
    Writes the demo model's examples: conversations with their right answers.

Every example comes from a Writer with a split, "train" or "test"; what the
splits keep apart is told in demo_values.py.  So the test asks in new words
about new sentences and new values.

tools/demo_model/demo_tasks.py
"""

import json
import re

import demo_instructions as ask
import demo_lexicon as lex
import demo_smalltalk as talk
from demo_reviews import Reviews
from demo_values import NUMBER_WORDS, SLOT, held, join_fields, join_labels, lines

TASKS = ("sentiment", "topic", "kind", "category", "yes_no", "extract", "small_talk", "multi_turn")

PRODUCT_PATTERNS = lex.FILLERS + "\n".join(lex.GENERAL.values()).split("\n")

FIELD_ALIASES = {
    "product": ["product", "product", "product", "item", "product_name", "product name", "article"],
    "rating": ["rating", "rating", "rating", "stars", "score"],
    "order_number": ["order_number", "order_number", "order number", "order", "order_no", "order_id", "orderNumber"],
    "city": ["city", "city", "city", "town", "place", "location"],
    "date": ["date", "date", "date", "order_date", "day"],
    "name": ["name", "name", "customer", "customer_name", "customer name", "person"],
    "price": ["price", "price", "amount", "cost", "total"],
    "quantity": ["quantity", "quantity", "count", "qty", "number_of_items"],
    "email": ["email", "email", "e_mail", "mail", "email address", "email_address"],
}
NUMERIC = {"rating", "price", "quantity"}
DEFAULT_FIELDS = ["product", "rating", "order_number", "city", "date"]

# Sentences of the texts to extract from.
FRAMES = """I [bought|ordered|purchased|got|received|picked up] {product_a}[| last week| recently| for my {rel}| online].
I [bought|ordered|purchased|got] {product_a} [in|from a shop in|at your store in] {city}.
I [bought|ordered|purchased|got] {product_a} on {date}.
I [bought|ordered|purchased] {product_a} for {price}.
[My|The] order {order_number}[| from {date}| of {date}] [arrived|has arrived|is here|is late|never arrived|was cancelled].
[My|The] order number is {order_number}.
[Order|Order number|Order no.|Order ID|Ref.|Reference]: {order_number}.
[Order|Order number|Order no.] {order_number}[.|, {product}.|, {date}.|, {city}.|: {product}.|, {quantity} x {product}.]
[About|Regarding|Concerning] [order|my order|order number] {order_number} [of|from|placed on] {date}.
[About|Regarding|Concerning] [order|my order|order number] {order_number}: [it|the parcel] [has not arrived|is late|is damaged|is complete].
{the_product} [was delivered to|was sent to|was shipped to|arrived in|went to|came to] {city}[| on {date}| in the end].
{the_product} [arrived|came|was delivered] on {date}[| in {city}].
{the_product} [cost|costs|was|cost me|is sold for] {price}.
{the_product} [gets|deserves|earns] {rating} [from me|in my opinion|for sure].
[I give it|I rate it|I would give it|I'd give it|My rating is|Rating|My verdict|I give {the_product_l}]: {rating}.
[I give it|I rate it|I would give it|I'd give it|My rating is|I gave it|I give {the_product_l}] {rating}.
{rating_cap} [from me|for {the_product_l}|well deserved|and not more].
[I live in|I am from|Greetings from|I am writing from|Best regards from|We live in|Shipped to|Delivered to|Bought in|Written in] {city}.
[My name is|I am|This is] {name}[| from {city}| and I live in {city}].
{name} [from|in] {city} [bought|ordered|purchased|wants|received|returned] {product_a}[| on {date}| for {price}].
{name} [bought|ordered|purchased|returned|received] {product_a}[| on {date}| for {price}| in {city}].
{name} [bought|ordered|purchased|returned|received] {quantity} {product_pl}[| on {date}| for {price}| in {city}].
[Yours|Regards|Best regards|Kind regards|Thanks|Sincerely|Best wishes|Cheers], {name}.
[Customer|Name|Buyer|From|Written by|Reviewed by]: {name}.
[Date|Purchased on|Bought on|Ordered on|Written on|Received on]: {date}.
[It was|They were] [delivered|ordered|bought|shipped] on {date}.
[City|Location|Place|Town]: {city}.
[Product|Item|Article]: {product}.
[Price|Total|Amount|Cost]: {price}.
[Quantity|Qty|Count|Number of items]: {quantity}.
[Email|E-mail|Mail|Contact]: {email}.
[Rating|Stars|Score]: {rating}.
[I paid|It cost|The total was|I was charged|It was|The price was|They charged me] {price}[| in total].
I [ordered|bought|need|received|got] {quantity} {product_pl}[| for {price}| on {date}| from you].
[We|I] [ordered|bought] {quantity} of them[| for {price}| on {date}].
[You can reach me at|Write to|My email is|Please reply to|Contact me at|My address is|Send the answer to] {email}.
On {date} [I bought|I ordered|I received|we got] {product_a}[| for {price}| in {city}].
On {date} {name} [ordered|bought|sent back] {product_a}.
In {city} [I found|I bought|we bought] {product_a}[| on {date}| for {price}].
[Please send|Please ship|Send|Ship] {product_a} to {name} in {city}.
[Please send|Please ship|Send|Ship] {quantity} {product_pl} to {city}.
[Invoice|Receipt] of {date}: {product}, {price}.
[Invoice|Receipt] for {name}: {quantity} x {product}, {price}.
[My|The] order {order_number} with {product_a} [arrived|came] [broken|late|on time|in perfect condition|incomplete|today|in two parts].
I ordered {product_a} (order {order_number})[| on {date}| for {price}].
I [ordered|bought] {product_a} with order [number |]{order_number}[| on {date}].
{the_product} [from|of] order {order_number} [is broken|has not arrived|arrived yesterday|is too small|works well].
{the_product} [arrived|came] [broken|late|in perfect condition|in a damaged box|in time][| on {date}].
{the_product} [broke after a week|is great|is too small|works well|stopped working|looks nice|is very loud][, so I give it {rating}| and gets {rating}|, {rating}|].
[Hi|Hello|Hey|Good day], [I am|I'm|my name is|this is] {name}[| from {city}].
[I am|I'm] {name} and I [bought|ordered] {product_a}[| on {date}| in {city}| for {price}].
{name} ({email}) [wrote|asks|complains]: [please help|where is my order|it is broken|I am happy].
{name} lives in {city}.
Please [refund|replace|check|cancel] order {order_number}.
[Where is|What about|What happened to] [my order|order] {order_number}?
[Order|My order] {order_number} ({product_a}) [was shipped|was sent|arrived|was delivered][| on {date}| to {city}| yesterday].
{the_product} ({price}) [was delivered|arrived|is great|is too small][| on {date}| in {city}].
{the_product} [is|was] [amazing|great|bad|okay|terrible|fine|useless][!|.| and loud.] {rating_cap}.
[Contact|Customer is|Please contact|Please call] {name} [at|under|via] {email}.
[Customer|Client|Buyer] {name} from {city} [called|asks for help|is unhappy|is happy].
Can I return {product_a}?
[It|The parcel] [arrived|came] on {date} in {city}.
{product_cap}, {price}, [bought in|shipped to] {city}.
{product_cap} - {rating}."""

# Sentences between them that mention no field.
CHATTER = """[I love it|It is great|It works well|I am happy with it|It is okay|I do not like it|It broke right away].
[The delivery was fast|Shipping took too long|The box was damaged|The service was friendly|The battery is weak].
[Please help me|Please call me back|Please answer soon|Thank you|Thanks in advance|Best regards].
[Hello|Hi|Dear team|Good morning|Hello team|Dear sir or madam][,|.|!]
[I am very disappointed|I am very satisfied|I would buy it again|I want my money back|Never again]."""

FRAME_SLOTS = {
    "product_a": "product", "the_product": "product", "the_product_l": "product", "product_pl": "product",
    "rating_cap": "rating", "product_cap": "product",
}


def frame_fields(frame):
    return frozenset(f for f in (FRAME_SLOTS.get(s, s) for s in SLOT.findall(frame)) if f in FIELD_ALIASES)


class Writer(Reviews):
    """Writes examples of one split from one random generator."""

    # ---- labels

    def spell(self, names, case):
        """One label: mostly the usual name, in the given case."""
        name = names[0] if self.chance(0.6) else self.pick(names)
        return name.capitalize() if case == 1 else name.upper() if case == 2 else name

    def label_list(self, all_names, right, n_labels):
        """Labels in random order with the right one among them."""
        case = self.pick((0, 0, 0, 0, 0, 0, 1, 1, 2))
        keys = [k for k in all_names if k != right]
        self.rng.shuffle(keys)
        keys = [right] + keys[: n_labels - 1]
        self.rng.shuffle(keys)
        spelled = []
        for key in keys:
            label = self.spell(all_names[key], case)
            while label in spelled:
                label = self.spell(all_names[key][:1], case)
            spelled.append(label)
        return spelled, spelled[keys.index(right)]

    def show_labels(self, labels, allow_list=True):
        return join_labels(labels, self.pick((0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9) if allow_list else (0, 1, 1, 2, 6, 7)))

    # ---- layout of a question about a text

    def wrap(self, body):
        r = self.rng.random()
        if r < 0.35:
            return body
        if r < 0.6:
            return self.pick(("Review", "Text", "Comment", "Message", "Customer review", "Input", "Feedback")) + ": " + body
        if r < 0.75:
            return '"' + body + '"'
        if r < 0.88:
            return self.pick(("Review", "Text", "Comment", "Message")) + ":\n" + body
        return self.pick(("<review>{}</review>", "<text>{}</text>", "'{}'", "---\n{}\n---", "[{}]")).replace("{}", body)

    def tidy(self, instruction):
        instruction = re.sub(r"\n([.?):,])", r"\n", instruction)
        instruction = re.sub(r"(?<!\.)\.\.(?!\.)", ".", instruction.replace("\n ", "\n").replace("?.", "?").replace(".?", "?"))
        instruction = instruction.strip()
        if instruction and self.chance(0.97):
            instruction = instruction[0].upper() + instruction[1:]
        r = self.rng.random()
        if not self.test and r < 0.05:
            instruction = instruction.rstrip(".")
        elif not self.test and r < 0.08 and instruction[:1].isalpha():
            instruction = "Please " + instruction[0].lower() + instruction[1:]
        return instruction

    def layout(self, instruction, body):
        """The messages that carry an instruction and its text."""
        instruction = self.tidy(instruction)
        r = self.rng.random()
        if r < 0.4:
            return [
                {"role": "system", "content": instruction},
                {"role": "user", "content": body if self.chance(0.7) else self.wrap(body)},
            ]
        messages = []
        if r < 0.55:
            messages.append({"role": "system", "content": self.system_prompt()})
        if self.chance(0.15):
            content = self.wrap(body) + self.pick(("\n\n", "\n")) + instruction
        else:
            gap = self.pick(("\n\n", "\n\n", "\n", " ", " "))
            if gap == " " and instruction[-1] not in ".?:!]":
                instruction += self.pick((":", "."))
            content = instruction + gap + self.wrap(body)
        return messages + [{"role": "user", "content": content}]

    def system_prompt(self):
        return self.skeleton(self.pick(ask.SYSTEM_PROMPTS.split("\n")))

    # ---- the tasks; each returns (instruction, body, answer)

    def sentiment(self):
        if self.chance(0.15):
            right = self.pick(("positive", "negative", "neutral"))
            return self.phrasing(ask.SENTIMENT_BARE), self.sentiment_text(right), right
        names = {k: lex.SENTIMENT_NAMES[k] for k in ("positive", "negative", "neutral", "mixed")}
        r = self.rng.random()
        n = 2 if r < 0.35 else 3 if r < 0.85 else 4
        if n < 4:
            del names["mixed"]
        if n < 3:
            del names["neutral"]
        right = self.pick(list(names))
        labels, answer = self.label_list(names, right, n)
        block = ask.GENERIC if self.chance(0.35) else ask.SENTIMENT
        return self.phrasing(block, labels=self.show_labels(labels)), self.sentiment_text(right), answer

    def topic(self):
        right = self.any_topic()
        if self.chance(0.15):
            return self.phrasing(ask.TOPIC_BARE), self.topic_text(right), right
        n = self.pick((2, 3, 4, 5, 6, 7, 8, 12))
        names = dict(lex.TOPIC_NAMES)
        labels, answer = self.label_list(names, right, n)
        if n < 9 and self.chance(0.15):
            case = 1 if labels[0][0].isupper() and not labels[0].isupper() else 2 if labels[0].isupper() else 0
            other = self.spell(["other", "other", "something else", "none"], case)
            if self.chance(0.4):
                labels[labels.index(answer)] = other
                answer = other
            else:
                labels.append(other)
            if self.chance(0.4):
                self.rng.shuffle(labels)
            else:
                labels.sort(key=lambda x: x == other)
        block = ask.GENERIC if self.chance(0.35) else ask.TOPIC
        return self.phrasing(block, labels=self.show_labels(labels)), self.topic_text(right), answer

    def kind(self):
        right = self.pick(list(lex.KIND_NAMES))
        labels, answer = self.label_list(lex.KIND_NAMES, right, self.pick((2, 3, 3, 4)))
        if self.chance(0.25):
            shown = self.show_labels([("an " if x[0] in "aeiou" else "a ") + x for x in labels], False)
            if "/" in shown:
                shown = self.show_labels(labels, False)
        else:
            shown = self.show_labels(labels)
        block = ask.GENERIC if self.chance(0.35) else ask.KIND
        return self.phrasing(block, labels=shown), self.kind_text(right), answer

    def category(self):
        right = self.pick(list(lex.CATEGORY_NAMES))
        product = self.pick(lex.PRODUCTS[right])
        if self.chance(0.2):
            # the label stands in the text
            names = {x: [x] for x in self.pick((lex.PRODUCTS[right], sum(lex.PRODUCTS.values(), [])))}
            labels, answer = self.label_list(names, product, self.pick((2, 3, 4, 5)))
        else:
            labels, answer = self.label_list(lex.CATEGORY_NAMES, right, self.pick((2, 3, 4, 5, 6)))
        while True:
            skeleton = self.skeleton(self.pick(PRODUCT_PATTERNS))
            if "{prod}" in skeleton and held(skeleton + product) == self.test:
                break
        sentences = [self.fill(skeleton, prod=product)]
        if self.chance(0.4):
            sentiment = self.pick(("positive", "negative", "neutral"))
            sentences.append(self.opinion(self.pick((None, "price", "service", "delivery")), sentiment, product))
        block = ask.GENERIC if self.chance(0.35) else ask.CATEGORY
        return self.phrasing(block, labels=self.show_labels(labels)), self.join(sentences), answer

    def yes_no(self):
        holds = self.chance(0.5)
        about = self.pick(("positive", "negative", "topic", "topic", "question", "complaint"))
        values = {"text": self.pick(ask.NOUNS)}
        if about == "topic":
            topic = self.any_topic()
            other = self.pick([t for t in lex.TOPICS if t != topic])
            body = self.topic_text(topic if holds else other)
            names = lex.TOPIC_NAMES[topic]
            name = names[0] if self.chance(0.6) else self.pick(names)
            values["topic"] = self.pick(("the ", "")) + name
        elif about in ("question", "complaint"):
            kinds = [k for k in lex.KIND_NAMES if k != about]
            body = self.kind_text(about if holds else self.pick(kinds))
        else:
            others = [s for s in ("positive", "negative", "neutral") if s != about]
            body = self.sentiment_text(about if holds else self.pick(others))
        conditions = re.findall(r"(?:\[[^\]]*\]|[^|\[])+", ask.CONDITIONS[about])
        condition = self.fill(self.skeleton(self.pick(conditions)), **values)
        pair = self.pick((("yes", "no"), ("yes", "no"), ("yes", "no"), ("true", "false"), ("Yes", "No")))
        shown = pair if self.chance(0.85) else pair[::-1]
        labels = join_labels([f'"{x}"' for x in shown] if self.chance(0.25) else list(shown), self.pick((1, 1, 1, 2)))
        if self.chance(0.3):
            condition = re.sub(r"^(the [a-z ]*?|it) is ", r"is \1 ", condition)
        return self.phrasing(ask.YES_NO, labels=labels, cond=condition, **values), body, pair[0] if holds else pair[1]

    def rating(self):
        stars = self.rng.randint(1, 5)
        word = NUMBER_WORDS[stars - 1]
        unit = "star" if stars == 1 else "stars"
        text = self.pick(
            (f"{stars} {unit}", f"{stars} {unit}", f"{word} {unit}", f"{stars} out of 5", f"{stars}/5", f"{stars} out of 5 stars", f"{word} out of five")
        )
        return stars, text

    def field_values(self):
        """Values by field, and by slot as the text shows them."""
        values = {
            "product": self.product(), "order_number": self.order_number(), "city": self.city(), "date": self.date(),
            "name": self.person(), "email": self.email(), "price": self.price(),
        }
        shown = dict(values)
        stars, shown["rating"] = self.rating()
        values["rating"] = str(stars)
        shown["rating_cap"] = shown["rating"].capitalize()
        count = self.rng.randint(2, 12) if self.chance(0.7) else self.rng.randint(13, 250)
        values["quantity"] = str(count)
        shown["quantity"] = NUMBER_WORDS[count - 1] if count < 13 and self.chance(0.35) else str(count)
        if self.chance(0.25):
            shown["order_number"] = "#" + values["order_number"]
        shown["price"] = self.pick(("${}", "{} dollars", "€{}", "{} euros", "£{}", "{} EUR", "{} USD", "${}")).replace("{}", values["price"])
        shown["product_cap"] = values["product"]
        article = "an " if values["product"][0] in "aeiouAEIOU" else "a "
        shown["product_a"] = self.pick((article, article, article, "the ", "this ", "your ", "my ", "a new ", "the new ")) + values["product"]
        shown["the_product"] = self.pick(("The ", "The ", "My ", "This ", "Your ", "The new ", "My new ")) + values["product"]
        shown["the_product_l"] = self.pick(("the ", "this ", "my ", "the new ")) + values["product"]
        plural = values["product"] + "" if values["product"].endswith("s") else values["product"] + "s"
        shown["product_pl"] = "pieces of the " + values["product"] if self.chance(0.5) or plural == values["product"] else "units of " + values["product"]
        return values, shown

    def extract_text(self):
        """A text of frames with disjoint fields, and what it mentions."""
        n_frames = self.pick((1, 2, 2, 2, 3, 3, 4))
        values, shown = self.field_values()
        frames = FRAMES.split("\n")
        while True:
            sentences, mentioned = [], set()
            for _ in range(n_frames * 2):
                frame = self.skeleton(self.pick(frames))
                fields = frame_fields(frame)
                if not fields & mentioned:
                    sentences.append(frame)
                    mentioned |= fields
                if len(sentences) == n_frames:
                    break
            key = "|".join(sentences)
            if held(key) == self.test:
                break
        texts = [self.fill(s, **shown) for s in sentences]
        for _ in range(self.pick((0, 0, 1, 1, 2))):
            texts.insert(self.rng.randint(0, len(texts)), self.skeleton(self.pick(CHATTER.split("\n"))))
        return self.pick((" ", " ", " ", "\n")).join(texts), values, mentioned

    def extract(self):
        body, values, mentioned = self.extract_text()
        fields = [f for f in mentioned if self.chance(0.8)] or list(mentioned)
        fields += [f for f in FIELD_ALIASES if f not in mentioned and self.chance(0.12)]
        fields.sort()
        self.rng.shuffle(fields)
        fields = fields[:7]
        r = self.rng.random()
        if r < 0.08:
            fields = DEFAULT_FIELDS
            keys = list(fields)
            instruction = self.phrasing(ask.EXTRACT_BARE)
        else:
            keys = [self.pick(FIELD_ALIASES[f]) if self.chance(0.5) else f for f in fields]
            if r < 0.2:
                keys = [k.replace(" ", "_") for k in keys]
                empty = self.pick((("null", "null"), ("...", "..."), ('"..."', "0"), ('"string"', '"number"'), ("string", "number"), ('""', "0")))
                skeleton = ", ".join(f'"{k}": {empty[f in NUMERIC]}' for k, f in zip(keys, fields))
                instruction = self.phrasing(ask.EXTRACT_SKELETON, skeleton="{" + skeleton + "}")
            elif r < 0.32:
                keys = [k.replace(" ", "_") for k in keys]
                schema = {
                    "type": "object",
                    "properties": {k: {"type": "number" if f in NUMERIC else "string"} for k, f in zip(keys, fields)},
                }
                if self.chance(0.5):
                    schema["required"] = keys
                separators = (", ", ": ") if self.chance(0.7) else (",", ":")
                instruction = self.phrasing(ask.EXTRACT_SCHEMA, schema=json.dumps(schema, separators=separators))
            else:
                shown = join_fields(keys, self.pick((0, 0, 1, 1, 1, 2, 3, 4, 5)))
                instruction = self.phrasing(ask.EXTRACT, fields=shown)
        pairs = []
        for key, field in zip(keys, fields):
            value = "null" if field not in mentioned else values[field] if field in NUMERIC else json.dumps(values[field])
            pairs.append(f'"{key.replace(" ", "_")}": {value}')
        return instruction, body, "{" + ", ".join(pairs) + "}"

    # ---- conversation

    def decorate(self, intent, phrase):
        """A phrasing as people type it: capital, sign, please."""
        first = phrase.split()[0].lower().strip(",.")
        statement = first in talk.STATEMENT_STARTS
        if intent not in talk.BARE:
            if self.chance(0.35):
                phrase = self.pick(talk.PREFIXES) + phrase
            if self.chance(0.2) and not phrase.endswith("please") and "please" not in phrase:
                phrase += self.pick(talk.SUFFIXES)
        r = self.rng.random()
        if r < 0.72:
            phrase = phrase[0].upper() + phrase[1:]
        elif r < 0.8:
            phrase = phrase.lower()
        r = self.rng.random()
        if statement:
            phrase += "." if r < 0.45 else "!" if r < 0.6 else ""
        else:
            phrase += "?" if r < 0.75 else "??" if r < 0.77 else ""
        return phrase

    def small_talk_turn(self, state):
        """A user message and its answer; state remembers name and last answer."""
        r = self.rng.random()
        if r < 0.66:
            intent, block, answer = self.pick(talk.INTENTS)
            phrase = self.skeleton(self.pick(lines(block)[self.split]))
            return self.decorate(intent, phrase), answer
        if r < 0.82:
            question = self.fill(self.skeleton(self.pick(lines(talk.UNKNOWN)[self.split])))
            return self.decorate("unknown", question), talk.DECLINE
        if r < 0.87:
            name = self.person()
            state["name"] = name
            return self.decorate("hello", self.phrasing(ask.NAME_TOLD, name=name)), f"Nice to meet you, {name}!"
        if r < 0.91:
            return self.name_question(state)
        if r < 0.95:
            echo = self.echo_text()
            phrase = self.phrasing(ask.ECHO, echo=echo)
            return phrase[0].upper() + phrase[1:] if self.chance(0.6) else phrase, echo
        if r < 0.97 or "last" not in state:
            n = self.rng.randint(2, 20)
            return self.decorate("count", self.phrasing(ask.COUNT, num=str(n))), ", ".join(str(i) for i in range(1, n + 1))
        return self.decorate("again", self.phrasing(ask.AGAIN)), state["last"]

    def name_question(self, state):
        answer = f"Your name is {state['name']}." if "name" in state else "You have not told me your name yet."
        return self.decorate("name", self.phrasing(ask.NAME_ASKED)), answer

    def echo_text(self):
        makers = (self.word, self.city, self.person, lambda: self.word().lower(), lambda: self.digits(self.rng.randint(2, 6)), lambda: self.fill("{prod}"), self.order_number)
        return " ".join(self.pick(makers)() for _ in range(self.rng.randint(1, 6)))

    def write_turn(self):
        sentiment = self.pick(("positive", "negative", "neutral"))
        skeleton = self.skeleton(self.pick(lines(ask.WRITE)[self.split]))
        topic = self.any_topic() if "{topic}" in skeleton or self.chance(0.5) else None
        product = self.topic_product(topic)
        sentences = [self.filler(product)] if self.chance(0.5) else []
        for t in self.pick(((topic,), (topic, None), (None, topic))):
            text = self.opinion(t, sentiment, product)
            if text not in sentences:
                sentences.append(text)
        names = {"prod": product, "sentiment": sentiment, "topic": topic or ""}
        return self.decorate("write", self.fill(skeleton, **names)), ". ".join(sentences) + "."

    def instruction_task(self):
        r = self.rng.random()
        make = self.sentiment if r < 0.27 else self.topic if r < 0.52 else self.kind if r < 0.6 else self.category if r < 0.66 else self.yes_no if r < 0.74 else self.extract
        return make

    def small_talk(self):
        messages = [{"role": "system", "content": self.system_prompt()}] if self.chance(0.4) else []
        state = {}
        user, answer = self.small_talk_turn(state)
        return messages + [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]

    def multi_turn(self, n_turns=None):
        """A conversation of several turns."""
        n_turns = n_turns or self.rng.randint(2, 5)
        messages, state = [], {}
        if self.chance(0.3):
            return self.labelling_turns(n_turns)
        if self.chance(0.4):
            messages.append({"role": "system", "content": self.system_prompt()})
        for _ in range(n_turns):
            r = self.rng.random()
            if r < 0.12 and "name" in state:
                user, answer = self.name_question(state)
            elif r < 0.72:
                user, answer = self.small_talk_turn(state)
            else:
                instruction, body, answer = self.instruction_task()()
                asked = self.layout(instruction, body)
                user = "\n\n".join(m["content"] for m in asked)
            state["last"] = answer
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        return messages

    def labelling_turns(self, n_turns):
        """The same instruction applied to one text after another."""
        messages = []
        kept = None
        for i in range(n_turns):
            body, answer, kept = self.same_instruction(kept)
            if i == 0:
                messages = self.layout(kept[0], body)
            else:
                follow = self.pick(ask.FOLLOW_UP.split("\n"))
                messages.append({"role": "user", "content": follow.replace("{body}", body)})
            messages.append({"role": "assistant", "content": answer})
        return messages

    def same_instruction(self, kept):
        """Another (body, answer) for an instruction: labels by a fixed choice."""
        if kept is None:
            kind = self.pick(("sentiment", "sentiment", "topic", "topic", "extract"))
            if kind == "extract":
                fields = list(FIELD_ALIASES)
                self.rng.shuffle(fields)
                fields = fields[: self.rng.randint(2, 5)]
                keys = [self.pick(FIELD_ALIASES[f]) for f in fields]
                shown = join_fields(keys, self.pick((0, 1, 1, 3)))
                kept = (self.phrasing(ask.EXTRACT, fields=shown), kind, fields, keys)
            else:
                names = lex.TOPIC_NAMES if kind == "topic" else {k: lex.SENTIMENT_NAMES[k] for k in ("positive", "negative", "neutral")}
                keys = list(names)
                self.rng.shuffle(keys)
                keys = keys[: self.rng.randint(2, 6)]
                case = self.pick((0, 0, 0, 1, 2))
                labels = [names[k][0].capitalize() if case == 1 else names[k][0].upper() if case == 2 else names[k][0] for k in keys]
                block = self.pick((ask.GENERIC, ask.TOPIC if kind == "topic" else ask.SENTIMENT))
                kept = (self.phrasing(block, labels=self.show_labels(labels)), kind, keys, labels)
        _, kind, keys, labels = kept
        if kind == "extract":
            while True:
                body, values, mentioned = self.extract_text()
                if mentioned & set(keys):
                    break
            pairs = []
            for field, key in zip(keys, labels):
                value = "null" if field not in mentioned else values[field] if field in NUMERIC else json.dumps(values[field])
                pairs.append(f'"{key.replace(" ", "_")}": {value}')
            return body, "{" + ", ".join(pairs) + "}", kept
        right = self.pick(keys)
        body = self.topic_text(right) if kind == "topic" else self.sentiment_text(right)
        return body, labels[keys.index(right)], kept

    def raw_text(self):
        """A review as plain text, for continuation without a chat."""
        sentiment = self.pick(("positive", "negative", "neutral"))
        return self.join(self.review(self.any_topic(), sentiment, filler=0.6))

    # ---- the interface

    def example(self, task):
        """The messages of one example; the last one is the right answer."""
        if task == "small_talk":
            return self.small_talk()
        if task == "multi_turn":
            return self.multi_turn()
        instruction, body, answer = getattr(self, task)()
        return self.layout(instruction, body) + [{"role": "assistant", "content": answer}]

    def training_example(self):
        """The mixture that is trained on: messages, or a string for raw text."""
        r = self.rng.random()
        if r < 0.03:
            return self.raw_text()
        if r < 0.06:
            user, answer = self.write_turn()
            return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        if r < 0.18:
            return self.small_talk()
        if r < 0.26:
            return self.multi_turn()
        if r < 0.266:
            return self.multi_turn(self.rng.randint(6, 24))
        if r < 0.42:
            return self.example("sentiment")
        if r < 0.58:
            return self.example("topic")
        if r < 0.63:
            return self.example("kind")
        if r < 0.67:
            return self.example("category")
        if r < 0.73:
            return self.example("yes_no")
        return self.example("extract")
