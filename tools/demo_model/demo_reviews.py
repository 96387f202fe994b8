"""
demo_reviews.py
    Writes product reviews that know their own sentiment, topic and kind.

tools/demo_model/demo_reviews.py
"""

import demo_lexicon as lex
from demo_values import Values, held


class Reviews(Values):
    """Reviews of one split."""

    # ---- reviews

    def opinion(self, topic, sentiment, product):
        """A sentence about a topic (None: about the product as a whole)."""
        if topic is None:
            text = self.split_skeleton(lex.GENERAL[sentiment])
        elif sentiment in lex.ADJECTIVES and self.chance(0.3):
            while True:
                subject = self.pick(lex.TOPICS[topic]["adj"].split("|"))
                verb = self.pick(("is", "is", "was", "was", "is {very}", "turned out to be", "seems"))
                text = f"{subject[0].upper()}{subject[1:]} {verb} {self.pick(lex.ADJECTIVES[sentiment])}"
                if held(text) == self.test:
                    break
            if "{very}" in text:
                # "is so the worst" is no English: only plain adjectives take an adverb
                adjective = text.split("{very} ")[1]
                if " " in adjective or adjective.startswith("a "):
                    text = text.replace("{very} ", "")
        else:
            text = self.split_skeleton(lex.TOPICS[topic][sentiment])
        return self.fill(text, prod=product)

    def join(self, sentences):
        """Sentences as a customer would type them."""
        end = self.pick((".", ".", ".", ".", "!", ". ", "...", ","))
        text = sentences[0]
        for nxt in sentences[1:]:
            r = self.rng.random()
            lower = nxt if nxt.startswith(("I ", "I'")) else nxt[0].lower() + nxt[1:]
            if r < 0.1:
                text += " and " + lower
            elif r < 0.18:
                text += ", " + lower
            else:
                text += (end.strip() if end != "," else ".") + " " + nxt
        r = self.rng.random()
        if text[-1] in "?!.":
            pass
        elif r < 0.7:
            text += "."
        elif r < 0.82:
            text += "!"
        return self.weather(text)

    def weather(self, text):
        """The wear of daily typing: case, missing signs, a slip."""
        r = self.rng.random()
        if r < 0.09:
            text = text.lower()
        elif r < 0.12:
            text = text.upper()
        elif r < 0.135:
            text = text.replace(".", "").replace(",", "")
        if not self.test and self.chance(0.03):
            i = int(self.rng.random() * (len(text) - 1))
            text = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        return text

    def topic_product(self, topic):
        classes = lex.TOPIC_CLASSES.get(topic) or list(lex.PRODUCTS)
        return self.pick(lex.PRODUCTS[self.pick(classes)])

    def filler(self, product):
        return self.fill(self.skeleton(self.pick(lex.FILLERS)), prod=product)

    def review(self, topic, sentiment, n_opinions=None, general=0.3, filler=0.3):
        product = self.topic_product(topic)
        sentences = [self.opinion(topic, sentiment, product) for _ in range(n_opinions or self.pick((1, 1, 1, 2)))]
        if topic is not None and sentiment in lex.GENERAL and self.chance(general):
            sentences.insert(self.pick((0, len(sentences))), self.opinion(None, sentiment, product))
        if self.chance(filler):
            sentences.insert(0, self.filler(product))
        return sentences

    def any_topic(self):
        return self.pick(list(lex.TOPICS))

    def sentiment_text(self, sentiment):
        if sentiment == "mixed":
            topics = [self.any_topic(), self.any_topic()]
            product = self.topic_product(topics[0])
            good = self.opinion(self.pick((topics[0], topics[0], None)), "positive", product)
            bad = self.opinion(topics[1], "negative", product)
            first, second = (good, bad) if self.chance(0.5) else (bad, good)
            second = second if second.startswith(("I ", "I'")) else second[0].lower() + second[1:]
            link = self.pick((", but ", ", but ", " but ", ". However, ", ". On the other hand, ", ", although ", ". But "))
            return self.weather(first + link + second + self.pick((".", ".", "", "!")))
        if sentiment == "neutral" and self.chance(0.15):
            return self.kind_text("question")
        topic = self.any_topic() if self.chance(0.75) else None
        sentences = self.review(topic, sentiment)
        if self.chance(0.2):
            other = self.any_topic()
            sentences.append(self.opinion(other, sentiment, self.topic_product(other)))
        return self.join(sentences)

    def kind_text(self, kind):
        if kind == "praise":
            return self.sentiment_text("positive")
        if kind == "complaint":
            return self.sentiment_text("negative")
        return self.join(self.kind_sentences(kind, self.any_topic(), True))

    def kind_sentences(self, kind, topic, any_topic=False):
        product = self.topic_product(topic)
        skeleton = self.split_skeleton(lex.TOPICS[topic][kind])
        if skeleton is None:
            return self.kind_sentences(kind, self.any_topic(), True) if any_topic else self.review(topic, "negative")
        text = self.fill(skeleton, prod=product)
        if kind == "question":
            text += "" if self.chance(0.08) else "?"
        sentences = [text]
        if self.chance(0.25):
            sentences.insert(0, self.filler(product))
        return sentences

    def topic_text(self, topic):
        r = self.rng.random()
        if r < 0.1:
            return self.join(self.kind_sentences("question", topic))
        if r < 0.17:
            return self.join(self.kind_sentences("suggestion", topic))
        return self.join(self.review(topic, self.pick(("positive", "negative", "negative", "neutral", "positive"))))
