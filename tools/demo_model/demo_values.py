"""
demo_values.py
    Patterns, the split into training and test, and invented values: names,
    cities, products, order numbers, dates, addresses, prices.

The two splits share no instruction phrasing (lines marked "!" are for the
test), no sentence skeleton with two or more choices (a hash of the skeleton
decides) and no name, city, order number, product or date (a hash of the
value decides).

tools/demo_model/demo_values.py
"""

import itertools
import json
import re
import zlib
from functools import lru_cache

import demo_instructions as ask
import demo_lexicon as lex

HOLD_OUT = 8  # one of this many skeletons and values is for the test


def held(key):
    return zlib.crc32(key.encode()) % HOLD_OUT == 0


# ---------------------------------------------------------------- patterns


@lru_cache(maxsize=None)
def parse(pattern):
    """A pattern as a list of literals and of lists of alternatives."""
    parts = []
    for i, piece in enumerate(re.split(r"[\[\]]", pattern)):
        if i % 2:
            parts.append(piece.split("|"))
        elif piece:
            parts.append(piece)
    return parts


SLOT = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=None)
def lines(text):
    """The trained and the held-out lines of a block of phrasings."""
    all_lines = text.split("\n")
    train = [x for x in all_lines if not x.startswith("!")]
    test = [x[1:] for x in all_lines if x.startswith("!")]
    return {"train": train, "test": test}


@lru_cache(maxsize=None)
def skeletons(block):
    """By split: for each pattern of a block its skeletons.  Those of a pattern
    with one choice or none are trained on, or their words would be unknown."""
    found = {"train": [], "test": []}
    for pattern in block.split("\n"):
        parts = [[p] if isinstance(p, str) else p for p in parse(pattern)]
        whole = ["".join(x) for x in itertools.product(*parts)]
        if sum(len(p) > 1 for p in parts) < 2:
            found["train"].append(whole)
            continue
        for split in found:
            kept = [x for x in whole if held(x) == (split == "test")]
            if kept:
                found[split].append(kept)
    return found


def join_labels(labels, style):
    if style == 0:
        return ", ".join(labels)
    if style == 1:
        return labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " or " + labels[-1]
    if style == 2:
        return "/".join(labels)
    if style == 3:
        return ", ".join(f'"{x}"' for x in labels)
    if style == 4:
        return json.dumps(labels, ensure_ascii=False)
    if style == 5:
        return " | ".join(labels)
    if style == 6:
        return ", ".join(labels[:-1]) + ", or " + labels[-1] if len(labels) > 2 else " or ".join(labels)
    if style == 7:
        return " or ".join(labels)
    if style == 8:
        return "\n" + "\n".join(f"- {x}" for x in labels) + "\n"
    return ", ".join(f"'{x}'" for x in labels)


def join_fields(keys, style):
    if style == 0:
        return ", ".join(keys)
    if style == 1:
        return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + " and " + keys[-1]
    if style == 2:
        return ", ".join(f'"{x}"' for x in keys)
    if style == 3:
        return json.dumps(keys)
    if style == 4:
        return "the " + ", the ".join(keys[:-1]) + " and the " + keys[-1] if len(keys) > 1 else "the " + keys[0]
    return "\n" + "\n".join(f"- {x}" for x in keys) + "\n"


# ------------------------------------------------------------ the vocabulary

ONSETS = "b br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sc sh sl sm sn st str t th tr v w wh y z".split()
VOWELS = "a e i o u a e i o a e ai au ea ee ei ia io oa oo ou y".split()
CODAS = ["", "", "", "", "n", "r", "l", "s", "t", "m", "k", "d", "x", "nd", "rk", "ll", "rn", "ck", "st", "ng", "th", "sh"]
ENDINGS = "ton ville burg ham ford land stad heim mouth port field by ia ova ona en".split()

# Words of the reviews, as parts of names and addresses: whatever can be read must be copied.
COMMON_WORDS = sorted(
    set(re.findall(r"[a-z]{3,}", str(lex.TOPICS) + str(lex.GENERAL) + str(lex.PRODUCTS) + str(lex.SLOTS["rel"])))
)

NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()

class Values:
    """Choices and values of one split from one random generator."""

    def __init__(self, rng, split):
        self.rng = rng
        self.split = split
        self.test = split == "test"

    # ---- choosing

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, items):
        return items[int(self.rng.random() * len(items))]

    def wanted(self, make):
        """A value of this split; what cannot be had is taken as it comes."""
        for _ in range(100):
            value = make()
            if held(value) == self.test:
                return value
        return value

    def skeleton(self, pattern):
        return "".join(p if isinstance(p, str) else self.pick(p) for p in parse(pattern))

    def split_skeleton(self, block):
        """A skeleton of this split; None where the split has none."""
        choices = skeletons(block)[self.split]
        return self.pick(self.pick(choices)) if choices else None

    def fill(self, pattern, /, **values):
        text = pattern

        def value(match):
            slot = match.group(1)
            if slot in values:
                return values[slot]
            if slot in lex.SLOTS:
                return self.pick(lex.SLOTS[slot])
            return self.other_slot(slot)

        while "{" in text and SLOT.search(text):
            filled = SLOT.sub(value, text)
            if filled == text:
                break
            text = filled
        return text

    def other_slot(self, slot):
        if slot == "prod":
            return self.pick(self.pick(list(lex.PRODUCTS.values())))
        if slot == "text":
            return self.pick(ask.NOUNS)
        if slot == "place":
            return self.city()
        if slot == "name":
            return self.person()
        if slot == "w":
            return self.word().lower() if self.chance(0.7) else self.word()
        if slot == "year":
            return str(self.rng.randint(1900, 2030))
        if slot == "num":
            return str(self.rng.randint(2, 999))
        raise KeyError(slot)

    def phrasing(self, block, **values):
        return self.fill(self.skeleton(self.pick(lines(block)[self.split])), **values)

    # ---- names and values

    def word(self, n_syllables=None):
        r = self.rng.random()
        if r < 0.1:
            return self.pick(COMMON_WORDS).capitalize()
        if r < 0.2:
            letters = "abcdefghijklmnopqrstuvwxyzaeiouaeioubcdgjwzz"
            return "".join(self.pick(letters) for _ in range(self.rng.randint(3, 9))).capitalize()
        n = n_syllables or self.pick((1, 2, 2, 2, 3))
        text = "".join(self.pick(ONSETS) + self.pick(VOWELS) + self.pick(CODAS) for _ in range(n))
        return text.capitalize()

    def city(self):
        def make():
            r = self.rng.random()
            if r < 0.5:
                return self.pick(lex.CITIES)
            base = self.word(self.pick((1, 1, 2)))
            if r < 0.75:
                return base + self.pick(ENDINGS)
            if r < 0.9:
                return base
            return self.pick(("New", "Port", "San", "Saint", "Old", "North", "Upper", "Bad", "Lake", "Fort")) + " " + base

        return self.wanted(make)

    def person(self):
        def make():
            first = self.pick(lex.FIRST_NAMES) if self.chance(0.65) else self.word(self.pick((1, 2, 2)))
            if self.chance(0.4):
                return first
            last = self.pick(lex.LAST_NAMES) if self.chance(0.6) else self.word(self.pick((1, 2, 2)))
            return first + " " + last

        return self.wanted(make)

    def product(self):
        def make():
            noun = self.pick(self.pick(list(lex.PRODUCTS.values())))
            r = self.rng.random()
            if r < 0.15:
                noun = self.word(self.pick((1, 2, 2))).lower()
            elif r < 0.2:
                noun = self.word(self.pick((1, 2, 2)))
            parts = [noun]
            if self.chance(0.15):
                parts.insert(0, self.pick(lex.MATERIALS + lex.SLOTS["colour"]))
            if self.chance(0.25):
                parts.insert(0, self.model())
            if self.chance(0.45):
                parts.insert(0, self.pick(lex.BRANDS) if self.chance(0.4) else self.word(self.pick((1, 2, 2))))
            return " ".join(parts)

        return self.wanted(make)

    def model(self):
        letter = "".join(self.pick("ABCDEGHKLMNPRSTVXZ") for _ in range(self.pick((1, 1, 2))))
        number = str(self.rng.randint(1, 9) * self.pick((1, 10, 100, 1000))) if self.chance(0.5) else str(self.rng.randint(2, 9999))
        return self.pick((letter + number, letter + "-" + number, number, letter + " " + number))

    def digits(self, n):
        return "".join(self.pick("0123456789") for _ in range(n))

    def order_number(self):
        def make():
            r = self.rng.random()
            if r < 0.45:
                return self.pick("123456789") + self.digits(self.rng.randint(2, 9))
            if r < 0.65:
                letters = "".join(self.pick("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(self.rng.randint(1, 3)))
                return letters + self.pick(("-", "", "-")) + self.digits(self.rng.randint(3, 7))
            if r < 0.8:
                return self.digits(self.rng.randint(3, 4)) + "-" + self.digits(self.rng.randint(3, 7))
            if r < 0.9:
                return self.pick(("ORD", "PO", "SO", "INV", "REF")) + "-" + self.digits(4) + "-" + self.digits(self.rng.randint(2, 5))
            return "".join(self.pick("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789") for _ in range(self.rng.randint(5, 9)))

        return self.wanted(make)

    def date(self):
        def make():
            year, month, day = self.rng.randint(1990, 2039), self.rng.randint(1, 12), self.rng.randint(1, 28)
            name = lex.SLOTS["month"][month - 1]
            return self.pick(
                (
                    f"{year}-{month:02d}-{day:02d}", f"{year}-{month:02d}-{day:02d}", f"{day} {name} {year}",
                    f"{name} {day}, {year}", f"{day:02d}/{month:02d}/{year}", f"{day}.{month}.{year}", f"{name} {day}",
                    f"{day} {name}", f"{month}/{day}/{year}", f"{day:02d}.{month:02d}.{year}",
                )
            )

        return self.wanted(make)

    def email(self):
        def make():
            first = (self.pick(lex.FIRST_NAMES) if self.chance(0.5) else self.word(2)).lower()
            last = (self.pick(lex.LAST_NAMES) if self.chance(0.5) else self.word(2)).lower()
            user = self.pick((first, first + "." + last, first + "." + last, first[0] + last, first[0] + "." + last, first + self.digits(2), last, first + "_" + last))
            host = self.pick(("example", "mail", "post", "company", self.pick(COMMON_WORDS), self.word(2).lower(), self.word(2).lower()))
            return user + "@" + host + "." + self.pick(("com", "org", "net", "de", "co.uk", "fr", "io"))

        return self.wanted(make)

    def price(self):
        whole = str(self.rng.randint(1, 9)) + self.digits(self.rng.randint(0, 3))
        return whole + "." + self.digits(2) if self.chance(0.55) else whole
