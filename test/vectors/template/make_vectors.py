"""
Make language.json and dialects.json: what transformers' apply_chat_template
(and so jinja2) makes of our templates, errors included.

    python test/vectors/template/make_vectors.py

Needs transformers, tokenizers and jinja2.  The tests read only the results.
"""
import datetime
import json
import logging
import os
import pathlib
import re
import time

HERE = pathlib.Path(__file__).resolve().parent
NOW = 1753362000  # 2025-07-24 13:00:00 UTC, as in test_template.c

os.environ["TZ"] = "UTC"
time.tzset()
logging.disable(logging.WARNING)

import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import language_units


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW)


chat_template_utils.datetime = FixedTime
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
)


def render(template, messages, **options):
    """(text, None) or (None, message of the error)"""
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, **options
        )
    except Exception as error:
        return None, str(error)
    assert not re.search(r" at 0x|<class ", text), template
    return text, None


def as_json(value):
    return json.dumps(value, ensure_ascii=False)


# ---- the language ----

MESSAGES = [{"role": "user", "content": " hi "}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def make_language():
    one_line = language_units.ONE_LINE.strip("\n").split("\n")
    cases = []
    for template in one_line + language_units.MULTI_LINE:
        own_message = template.startswith("~")
        template = template.removeprefix("~")
        text, error = render(
            template, MESSAGES, **SPECIAL, **language_units.VARIABLES
        )
        case = {"template": template}
        if error is None:
            case["text"] = text
        else:
            case["error"] = None if own_message else error
        cases.append(as_json(case))
    return (
        '{"messages": %s,\n"special": %s,\n"variables": %s,\n"cases": [\n%s\n]}\n'
        % (
            as_json(as_json(MESSAGES)),
            as_json(as_json(SPECIAL)),
            as_json(as_json(language_units.VARIABLES)),
            ",\n".join(cases),
        )
    )


# ---- the dialects ----


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def call(name, arguments, **more):
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "function": function, **more}


CONVERSATIONS = {
    "short": [user("Hello!")],
    "system": [system(" Be brief. "), user("Hi there")],
    "turns": [
        system("You know the tables."),
        user("Hi"),
        assistant("Hello, what is it?"),
        user(" Grüße an 日本 😀, \"quoted\" & <b>'d</b>\n\n"),
    ],
    "open": [user("Hi"), assistant("It is the ")],
    "open_trimmed": [user("Hi"), assistant("Yes.\n ")],
    "answered": [user("Hi"), assistant("Yes.")],
    "two_users": [user("a"), user("b")],
    "late_system": [user("a"), assistant("b"), system("c"), user("d")],
    "unknown_role": [user("a"), {"role": "critic", "content": "hm"}],
    "thought": [
        user("2+2?"),
        assistant("<think>\nfour\n</think>\n\n4"),
        user("and 3?"),
        assistant("7", reasoning_content="\n4 + 3\n"),
    ],
    "called": [
        system("Use tools."),
        user("rows of t?"),
        assistant(
            "",
            tool_calls=[
                call("count_rows", {"table": "t", "exact": True, "limit": 10.0},
                     id="abcdefghi")
            ],
        ),
        tool("{\"rows\": 12}", tool_call_id="abcdefghi", name="count_rows"),
        assistant("12 rows."),
        user("thanks"),
    ],
    "called_twice": [
        user("both?"),
        assistant(
            "One moment.",
            reasoning_content="two calls",
            tool_calls=[
                call("count_rows", {"table": "a\"b", "where": None},
                     id="call00001"),
                call("find", {"terms": ["x", "é"], "weights": {"x": 1, "é": 1.5}},
                     id="call00002"),
            ],
        ),
        tool("1", tool_call_id="call00001", name="count_rows"),
        tool("[\"r1\", \"r2\"]", tool_call_id="call00002", name="find"),
    ],
    "called_badly": [
        user("rows?"),
        assistant(None, tool_calls=[call("count_rows", "{\"table\": \"t\"}",
                                         id="short")]),
        tool("3", tool_call_id="short"),
    ],
    "structured_result": [
        user("rows?"),
        assistant("", tool_calls=[call("find", {"terms": "t"}, id="abcdefghi")]),
        tool({"content": [1, 2.0, None], "ok": True}, tool_call_id="abcdefghi"),
    ],
    "parts": [
        user([{"type": "text", "text": "See: "}, {"type": "image"},
              {"type": "text", "text": " good?"}]),
        assistant([{"type": "text", "text": "Very."}]),
        user([{"type": "text", "text": "Fine"}]),
    ],
    "parts_open": [
        user([{"type": "text", "text": "Go"}]),
        assistant([{"type": "text", "text": "One, "},
                   {"type": "text", "text": "two, "}]),
    ],
    "no_content": [user("a"), {"role": "assistant"}, user("b")],
}

TOOLS = {
    "one": [
        {
            "type": "function",
            "function": {
                "name": "count_rows",
                "description": "Count the rows of a \"table\".",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "table": {"type": "string"},
                        "exact": {"type": "boolean", "default": False},
                        "limit": {"type": "number", "minimum": 1.0},
                    },
                    "required": ["table"],
                },
            },
        }
    ],
    "none_needed": [
        {"type": "function",
         "function": {"name": "now", "description": "The time.\nIn UTC.",
                      "parameters": {"type": "object", "properties": {}},
                      "return": {"type": "string"}}},
        {"type": "function",
         "function": {
             "name": "find",
             "parameters": {
                 "type": "object",
                 "properties": {
                     "terms": {"type": "array", "items": {"type": "string"}},
                     "how": {"enum": ["any", "all"], "type": "string"},
                     "at": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                     "opts": {"type": "object",
                              "properties": {"deep": {"type": ["boolean",
                                                               "string"]}}},
                 },
             }}},
    ],
}

DOCUMENTS = [
    {"title": "Zoo & more", "text": "Line one\n\nline two", "id": 7},
    {"title": "apes", "text": "Short.", "score": 0.5, "tags": ["a", None]},
]

KWARGS = {
    "no_thinking": {"enable_thinking": False},
    "thinking": {"enable_thinking": True, "reasoning_effort": "high"},
    "date": {"date_string": "24 Jul 2025", "tools_in_user_message": False},
    "builtin": {"builtin_tools": ["find", "code_interpreter", "count_rows"]},
    "bos": {"bos_token": "<other>"},
}

PLAIN = "short system turns open answered two_users late_system unknown_role " \
    "thought no_content".split()
TALK = "short system turns answered two_users late_system parts".split()
CALLS = "called called_twice called_badly structured_result".split()

# dialect: conversations, further kwargs, knows tools, knows documents
DIALECTS = {
    "chatml": (PLAIN, ["bos"], False),
    "llama2": (PLAIN, ["bos"], False),
    "llama3": (PLAIN, [], False),
    "llama31": (TALK[:4] + CALLS, ["date", "builtin"], True),
    "qwen25": (PLAIN + CALLS, [], True),
    "qwen3": (PLAIN + CALLS + ["parts"], ["no_thinking", "thinking"], True),
    "mistral_v1": (PLAIN, ["bos"], False),
    "mistral_v3": (TALK[:6] + CALLS + ["unknown_role"], [], True),
    "mistral_tekken": (TALK[:6] + CALLS + ["unknown_role"], [], True),
    "mistral_small": (TALK + ["called", "unknown_role"], [], False),
    "zephyr": (PLAIN, [], False),
    "phi3": (PLAIN, [], False),
    "gemma": (PLAIN, [], False),
    "gemma3": (TALK + ["parts", "no_content"], [], False),
    "deepseek": (PLAIN + CALLS[:3], [], False),
    "training_marks": (TALK + ["thought"], [], False),
    "tool_xml": (TALK[:4] + CALLS, [], True),
    "typescript_tools": (TALK[:6] + CALLS + ["thought"], ["thinking"], True),
    "documents": (TALK + ["called"], [], False),
    "glm4": (PLAIN + CALLS + ["parts"], [], True),
    "phi4_mini": (PLAIN + CALLS[:3], ["bos"], True),
    "granite": (TALK + CALLS + ["unknown_role"], ["thinking"], True),
}


WITH_DOCUMENTS = ("documents", "granite")


def dialect_options(dialect, conversation):
    """What to render a conversation with: (tools, kwargs, flags)."""
    _, kwargs, has_tools = DIALECTS[dialect]
    yield None, None, "g"
    if conversation in ("turns", "answered", "thought"):
        yield None, None, ""
    if conversation in ("short", "turns", "called_twice"):
        for name in kwargs:
            yield None, name, "g"
    if has_tools and conversation in ("short", "turns", "called"):
        yield "one", None, "g"
    if has_tools and conversation == "called":
        for name in kwargs:
            yield "one", name, "g"
    if has_tools and conversation == "called_twice":
        yield "none_needed", None, "g"


def dialect_cases(dialect):
    conversations = dict.fromkeys(DIALECTS[dialect][0])
    for conversation in conversations:
        for options in dialect_options(dialect, conversation):
            yield conversation, *options
    for conversation in ("open", "open_trimmed", "parts_open", "turns"):
        yield conversation, None, None, "c"


def make_case(dialect, template, case):
    conversation, tools, kwargs, flags = case
    text, error = render(
        template,
        CONVERSATIONS[conversation],
        tools=TOOLS.get(tools),
        documents=DOCUMENTS if dialect in WITH_DOCUMENTS else None,
        add_generation_prompt="g" in flags,
        continue_final_message="c" in flags,
        **{**SPECIAL, **KWARGS.get(kwargs, {})},
    )
    record = {"dialect": dialect, "messages": conversation}
    if tools is not None:
        record["tools"] = tools
    if kwargs is not None:
        record["kwargs"] = kwargs
    if dialect in WITH_DOCUMENTS:
        record["documents"] = "all"
    if flags:
        record["flags"] = flags
    if error is None:
        record["text"] = text
    else:
        # what is refused around the template is worded by us
        record["error"] = None if "c" in flags else error
    return record


def make_dialects():
    cases = []
    for dialect in DIALECTS:
        path = HERE / "dialects" / (dialect + ".jinja")
        template = path.read_bytes().decode()
        for case in dialect_cases(dialect):
            cases.append(as_json(make_case(dialect, template, case)))
    parts = {
        "messages": CONVERSATIONS,
        "tools": TOOLS,
        "documents": {"all": DOCUMENTS},
        "kwargs": KWARGS,
    }
    lines = ['"special": %s' % as_json(as_json(SPECIAL))]
    for name, entries in parts.items():
        texts = {key: as_json(value) for key, value in entries.items()}
        lines.append('"%s": %s' % (name, as_json(texts)))
    return "{%s,\n\"cases\": [\n%s\n]}\n" % (
        ",\n".join(lines),
        ",\n".join(cases),
    )


if __name__ == "__main__":
    for name, make in (
        ("language.json", make_language),
        ("dialects.json", make_dialects),
    ):
        text = make()
        (HERE / name).write_bytes(text.encode())
        print(name, text.count("\n"), "lines", len(text.encode()), "bytes")
